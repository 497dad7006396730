//! Fewer file descriptors than connections: the database always has the ones it needs, and
//! no thread spins.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sorteo_test_support::process::{DEADLINE, Server, wait_for};

use crate::crowd::{Crowd, frame};
use crate::history::History;
use crate::observed::{Observed, conclude, wait_until_served};
use crate::overload::{FIRST_WITNESS, connect_witnesses, crowd_of};
use crate::program::Program;
use crate::witness::Witness;
use crate::workplace::{Run, Workplace};

/// Files that the server may have open: 22 it opens for itself.
const FILES: usize = 80;
const FLOOD: usize = 300;
const TOO_MANY_FILES: &str = "action: accept_connections | result: fail | error: Too many open files";
const CONNECTED_BEFORE: u32 = 8;
/// Batches of each, before and again after the log is emptied: with those of the
/// others more than a checkpoint lets pass (3,072 pages, of which a batch is
/// counted as four).
const BATCHES_IN_THE_FLOOD: usize = 100;
/// Processor time, in hundredths of a second, of a server that has nothing to do for
/// a second but cannot accept. It tries ten times, which takes one at most; one that
/// spins takes a hundred on a processor of its own, and here shares two with others.
const IDLE_TICKS_MAX: u64 = 20;
/// The server's own pause before it tries to accept again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Hardly any file descriptors, and a flood of connections: agencies that are
/// connected go on, with all that the database does from time to time; the server
/// does not spin; and it serves again when the flood leaves.
pub fn few_file_descriptors(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", FIRST_WITNESS);
        let server = program.started_by(&["sh", "-c", &limit_then("")]).start();
        let mut inside = connect_witnesses(CONNECTED_BEFORE, &server, &history);
        let flood = flood(&server);
        // All are in use; some that it was started with may lie beyond the limit.
        assert!(Observed::of(&server).open_files() >= FILES);
        for _ in 0..2 {
            all_send_at_once(&mut inside);
            wait_until_the_log_is_emptied(&workplace);
        }
        assert_does_not_spin(&server);
        let mut behind_the_flood = TcpStream::connect(server.address).unwrap();
        behind_the_flood.write_all(&frame("STATUS")).unwrap();
        drop(flood);
        // Nobody else connects, so nothing but its own options makes it try again.
        behind_the_flood.set_read_timeout(Some(DEADLINE)).unwrap();
        behind_the_flood.read_exact(&mut [0]).expect("a waiting peer is served when the flood leaves");
        wait_until_served(&server);
        let crowd = Crowd { until_the_draw: false, ..crowd_of(CONNECTED_BEFORE as usize, 10) };
        crowd.start_beside(&history, server.address, &workplace).join();
        all_send_at_once(&mut inside);
        conclude(server, &history, &workplace);
    }
}

/// A shell's command that starts the program, by way of another, with few files.
fn limit_then(launcher: &str) -> String {
    format!("ulimit -n {FILES} && exec {launcher} \"$0\" \"$@\"")
}

/// Takes all that the server has left.
fn flood(server: &Server) -> Vec<TcpStream> {
    let flood = (0..FLOOD).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.process.wait_log(TOO_MANY_FILES, 1);
    flood
}

fn all_send_at_once(witnesses: &mut [Witness]) {
    thread::scope(|scope| {
        for witness in witnesses {
            scope.spawn(|| {
                for _ in 0..BATCHES_IN_THE_FLOOD {
                    witness.send(2);
                    witness.resume();
                }
            });
        }
    });
}

/// The writer does so when it has had nothing to do for a second.
fn wait_until_the_log_is_emptied(workplace: &Workplace) {
    let log = workplace.database().with_extension("db-wal");
    wait_for("an empty log", || (fs::metadata(&log).unwrap().len() == 0).then_some(()));
}

/// The second is what is measured against, not waited for. The attempts are counted
/// too, since on a busy machine spinning takes less time.
fn assert_does_not_spin(server: &Server) {
    let attempts = || server.process.count(TOO_MANY_FILES) as u128;
    let (ticks, tried, begun_at) = (Observed::of(server).processor_ticks(), attempts(), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let (ticks, tried) = (Observed::of(server).processor_ticks() - ticks, attempts() - tried);
    let allowed = begun_at.elapsed().as_millis() / ACCEPT_PAUSE.as_millis() + 2;
    assert!(ticks <= IDLE_TICKS_MAX, "{ticks} hundredths of a second of work in an idle second");
    assert!((1..=allowed).contains(&tried), "{tried} attempts to accept in a second");
}

/// Tracing shows what is synced.
pub fn no_strace() -> Option<&'static str> {
    let works = Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    (!works).then_some("strace is needed")
}

/// A log that a restarted server made is durable, with its name in the folder, when
/// its first batch is acknowledged. SQLite syncs the folder with the first commit,
/// but takes no notice when no descriptor is left for that.
pub fn the_logs_name_is_synced(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", FIRST_WITNESS);
        let stopped = program.start();
        Witness::new(FIRST_WITNESS + 1, stopped.address, &history).send(1);
        stopped.stop();
        let (calls, tracer) =
            (workplace.folder().join("calls"), "strace -D -f -e trace=openat,fsync -o calls");
        let server = program.started_by(&["sh", "-c", &limit_then(tracer)]).start();
        let mut witness = Witness::new(FIRST_WITNESS, server.address, &history);
        let flood = flood(&server);
        witness.send(1);
        let calls = fs::read_to_string(calls).unwrap();
        assert!(is_synced_after_the_log_is_made(&calls, workplace.folder()), "{calls}");
        drop(flood);
        conclude(server, &history, &workplace);
    }
}

/// Whether the folder was opened and synced after its last file was made.
fn is_synced_after_the_log_is_made(calls: &str, folder: &Path) -> bool {
    let names = [r#"".""#.to_owned(), format!("{folder:?}")];
    let made = calls.find(r#"sorteo.db-wal", O_RDWR|O_CREAT"#).expect("a log is made");
    let opened = calls[made..].lines().filter_map(|line| {
        let (call, descriptor) = line.split_once(" = ")?;
        let is_folder = names.iter().any(|name| call.contains(&format!("{name}, O_RDONLY")));
        is_folder.then(|| descriptor.parse::<u32>().ok()).flatten()
    });
    let synced = |descriptor| {
        // strace may print the call in two parts.
        let told = [format!("fsync({descriptor})"), format!("fsync({descriptor} <unfinished")];
        told.iter().any(|call| calls[made..].contains(call))
    };
    opened.into_iter().any(synced)
}
