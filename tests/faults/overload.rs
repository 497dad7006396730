//! More than the server is made for: connections, writes, incomplete requests, agencies.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{DEADLINE, Server, wait_for};

use crate::crowd::{Crowd, Dialect, frame};
use crate::history::History;
use crate::observed::{Observed, conclude, wait_until_served};
use crate::program::Program;
use crate::witness::Witness;
use crate::workplace::{Run, Workplace, count};

/// `--max-connections` of the test, and so many more come.
const CONNECTIONS_MAX: u32 = 20;
const EXCESS: u64 = 50;
/// Agencies that share those places, each leaving its own when it is through.
const CROWD_OF_TOO_MANY: usize = 30;
/// Agencies beside a crowd have numbers from here on.
pub const FIRST_WITNESS: u32 = 1000;

/// Connections above the limit are closed without a byte and counted; the others go on, and
/// when one of them ends, the next is accepted.
pub fn more_connections_than_allowed(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", FIRST_WITNESS);
        let server = program.with("--max-connections", CONNECTIONS_MAX).start();
        let mut inside = connect_witnesses(CONNECTIONS_MAX, &server, &history);
        for _ in 0..EXCESS {
            assert_is_refused(server.address);
        }
        wait_for("every refusal in the log", || (refusals(&server) == EXCESS).then_some(()));
        inside.iter_mut().for_each(|witness| _ = witness.send(5));
        inside.truncate(CONNECTIONS_MAX as usize - 1);
        wait_until_served(&server);
        inside.iter_mut().for_each(|witness| _ = witness.send(5));
        drop(inside);
        let crowd = Crowd { until_the_draw: false, ..crowd_of(CROWD_OF_TOO_MANY, 10) };
        crowd.start_beside(&history, server.address, &workplace).join();
        count("connections refused", refusals(&server));
        conclude(server, &history, &workplace);
    }
}

/// Agencies beside a crowd.
pub fn connect_witnesses(witnesses: u32, server: &Server, history: &Arc<History>) -> Vec<Witness> {
    (0..witnesses).map(|id| Witness::new(FIRST_WITNESS + id, server.address, history)).collect()
}

/// Agencies of all dialects.
pub fn crowd_of(agencies: usize, batches: u64) -> Crowd {
    let dialects = [Dialect::Placed, Dialect::Framed, Dialect::Counted].into_iter().cycle();
    Crowd { dialects: dialects.take(agencies).collect(), ..Crowd::mixed(batches) }
}

/// It ends, or is reset, without a byte.
fn assert_is_refused(server: SocketAddr) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let is_closed = read.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true);
    assert!(is_closed && bytes.is_empty(), "a connection too many: closed {is_closed}, {bytes:?}");
}

/// How many connections the log says were refused.
fn refusals(server: &Server) -> u64 {
    let log = server.process.log();
    let lines = log.lines().filter_map(|line| LogLine::parse(line).ok());
    lines.filter_map(|line| line.get("refused")?.parse::<u64>().ok()).sum()
}

/// `--queue` of the test, and so many answers `busy` show that it is full.
const QUEUE: u64 = 2;
const BUSY_ANSWERS: usize = 50;

/// While another process holds the database, writes pile up: those that the queue
/// does not hold are answered `busy` and nothing of them is stored. When it lets
/// go, all goes on by itself.
pub fn more_writes_than_the_queue(run: &Run) {
    for workplace in run.rounds(1) {
        let crowd = crowd_of(12, 20);
        let program = Program::new(&workplace).with("--agencies", crowd.dialects.len());
        let server = program.with("--queue", QUEUE).start();
        let other = Connection::open(workplace.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let agencies = crowd.start(server.address, &workplace);
        server.process.wait_log("error: busy", BUSY_ANSWERS);
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        let verdict = conclude(server, &agencies.join(), &workplace);
        // Of the agencies that must not send a batch again.
        assert!(verdict.refused > 0, "{verdict:?}");
    }
}

/// `--buffer-bytes-max` of the test. Each connection has 64 KiB beside it.
const BUFFER_BYTES_MAX: u64 = 8 << 20;
const HALF_SENDERS: u64 = 100;
const HALF_SENT_BYTES: usize = 1_000_000;
/// What that much costs beside its bytes: buffers grow by doubling, and allocators
/// keep some.
const MEMORY_BYTES_MAX: u64 = 2 * (BUFFER_BYTES_MAX + HALF_SENDERS * (64 << 10)) + (32 << 20);

/// Many more halves of large requests than the server buffers: the excess is answered `busy`
/// and closed, and small requests are carried out as usual.
pub fn more_half_requests_than_the_buffer(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", FIRST_WITNESS);
        let program = program.with("--buffer-bytes-max", BUFFER_BYTES_MAX).with("--request-timeout", 3);
        let server = program.start();
        let mut witness = Witness::new(FIRST_WITNESS, server.address, &history);
        let memory = Observed::of(&server).resident_bytes();
        let senders = (0..HALF_SENDERS).map(|kind| {
            let server = server.address;
            thread::spawn(move || answer_to_a_half(server, kind))
        });
        let senders: Vec<_> = senders.collect();
        while !senders.iter().all(thread::JoinHandle::is_finished) {
            witness.send(5);
            let grown = Observed::of(&server).resident_bytes().saturating_sub(memory);
            assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes more memory");
        }
        let answers = senders.into_iter().map(|sender| sender.join().unwrap());
        let (busy, held): (Vec<String>, Vec<String>) = answers.partition(|answer| answer.contains("busy"));
        assert!(held.iter().all(String::is_empty), "{held:?}");
        let held_bytes = held.len() * HALF_SENT_BYTES;
        assert!(held_bytes as u64 <= 2 * BUFFER_BYTES_MAX, "{held_bytes} bytes are held");
        count("half requests refused", busy.len() as u64);
        conclude(server, &history, &workplace);
    }
}

/// Sends a large part of a request and no more; returns what arrives until the end.
fn answer_to_a_half(server: SocketAddr, kind: u64) -> String {
    let mut request = match kind % 2 {
        0 => b"1048576\n".to_vec(),
        _ => frame("BATCH|9|10000"),
    };
    let name = "n".repeat(120);
    let row = format!("{name}|{name}|1|1999-03-17|1");
    let row = if kind.is_multiple_of(2) { format!("{row}|9\n").into_bytes() } else { frame(&row) };
    while request.len() < HALF_SENT_BYTES {
        request.extend_from_slice(&row);
    }
    let mut stream = TcpStream::connect(server).unwrap();
    let mut answer = Vec::new();
    // Who is refused may be closed while it still sends.
    let _ = stream.write_all(&request);
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap().to_lowercase()
}

/// `--workers` of the test, and as many agencies as are served at once.
const WORKERS: usize = 4;
const BATCHES_OF_ALL: u64 = 1_600;

/// Ten times as many agencies as workers: no batch is lost. How much is stored in a
/// second, compared with as many agencies as workers, is printed, and fails no test.
pub fn ten_times_the_load(run: &Run) {
    for workplace in run.rounds(1) {
        let moderate = bets_per_second(WORKERS, &workplace.part("moderate"));
        let overload = bets_per_second(10 * WORKERS, &workplace.part("overload"));
        eprintln!(
            "{WORKERS} workers: {overload:.0} bets/s of {} agencies, {moderate:.0} of {WORKERS}, ratio {:.2}",
            10 * WORKERS,
            overload / moderate
        );
    }
}

fn bets_per_second(agencies: usize, workplace: &Workplace) -> f64 {
    let program = Program::new(workplace).with("--agencies", agencies);
    let server = program.with("--workers", WORKERS).start();
    let batches = BATCHES_OF_ALL / agencies as u64;
    let crowd = Crowd { until_the_draw: false, ..crowd_of(agencies, batches) };
    let begun_at = Instant::now();
    let history = crowd.start(server.address, workplace).join();
    let took = begun_at.elapsed();
    let verdict = conclude(server, &history, workplace);
    assert_eq!(verdict.acknowledged, BATCHES_OF_ALL, "{verdict:?}");
    let stored = Connection::open(workplace.database())
        .and_then(|connection| connection.query_row("SELECT count(*) FROM bets", [], |row| row.get(0)));
    stored.map(|bets: u32| f64::from(bets) / took.as_secs_f64()).unwrap()
}
