//! The program's own upload, with several batches in flight: its connection is cut at many
//! bytes, and it and the server are killed. It resumes by itself, or when it is started
//! again, and each bet is stored once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use rand::RngExt as _;
use rusqlite::Connection;
use sorteo_test_support::process::{Process, run, sorteo, wait_for};

use crate::program::Program;
use crate::proxy::{Close, Proxy, Route, Treatment};
use crate::workplace::{Run, Workplace, count};

/// Bets in a batch: about a kilobyte.
const BATCH: &str = "20";
const FILE: &str = "bets.csv";
/// Cuts of each direction, spread over an upload.
const CUTS: usize = 20;
/// Bets of an upload that is cut: 30 batches.
const CUT_BETS: usize = 600;
/// Bytes of such an upload, almost: of its requests, which are 25,838 or more, and of the
/// replies, which are 700.
const SENT_BYTES: usize = 25_800;
const REPLIED_BYTES: usize = 650;
/// Kills in one round.
const KILLS: usize = 10;
/// Bets of an upload that is killed, and batches of it after which that happens at the latest.
const KILL_BETS: usize = 12_000;
const KILL_BATCHES_MAX: usize = 40;
/// What slows an upload down, so that it is killed before its end.
const DELAY: Duration = Duration::from_millis(3);
/// A line of the server for each batch.
const STORED: &str = "action: apuesta_recibida | result: success";

/// Writes the file of bets, no two alike.
fn write_bets(folder: &Path, bets: usize) {
    let row = |row| format!("Ana {row},Paz,{},1999-03-17,{row}\n", 10_000_000 + row);
    fs::write(folder.join(FILE), (0..bets).map(row).collect::<String>()).unwrap();
}

/// The command that uploads the file as this agency, to this address.
fn upload(workplace: &Workplace, agency: usize, server: impl ToString) -> Command {
    let mut command = sorteo(workplace.folder(), ["upload", "--no-wait", "--file", FILE, "--batch", BATCH]);
    command.args(["--agency", &agency.to_string(), "--server", &server.to_string()]);
    command
}

/// Asserts that an agency's bets are those of the file, in its order, each once.
#[track_caller]
fn assert_stored_once(workplace: &Workplace, agency: usize) {
    let connection = Connection::open(workplace.database()).unwrap();
    let sql = "SELECT first_name || ',' || last_name || ',' || document || ',' || birthdate || ',' || number \
               FROM bets WHERE agency = $1 ORDER BY id";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([agency as i64], |row| row.get::<_, String>(0)).unwrap();
    let stored: String = rows.map(|row| row.unwrap() + "\n").collect();
    let sent = fs::read_to_string(workplace.folder().join(FILE)).unwrap();
    assert!(stored == sent, "agency {agency}: {} bets are stored", stored.lines().count());
}

/// The first connection of each upload is cut, at bytes that are spread over all that
/// travels; those behind it pass. Each file is sent once more, which stores nothing.
pub fn cut_at_many_bytes(at: &Run) {
    for workplace in at.rounds(1) {
        write_bets(workplace.folder(), CUT_BETS);
        let agencies = 2 * CUTS;
        let server = Program::new(&workplace).with("--agencies", agencies + 1).start();
        let (routes, next_route) = mpsc::channel();
        let pass = Route { to_server: Treatment::Pass, to_client: Treatment::Pass };
        let proxy = Proxy::start(server.address, move || next_route.try_recv().unwrap_or(pass));
        let mut rng = workplace.rng(0);
        for agency in 1..=agencies {
            let (bytes, step) =
                if agency <= CUTS { (SENT_BYTES, agency - 1) } else { (REPLIED_BYTES, agency - 1 - CUTS) };
            let after = rng.random_range(bytes * step / CUTS..bytes * (step + 1) / CUTS);
            let by = if rng.random() { Close::Fin } else { Close::Reset };
            let cut = Treatment::Cut { after, by };
            let route = match agency <= CUTS {
                true => Route { to_server: cut, ..pass },
                false => Route { to_client: cut, ..pass },
            };
            routes.send(route).unwrap();
            let sent = run(&mut upload(&workplace, agency, proxy.address));
            sent.succeeded();
            assert!(
                sent.stderr.contains("action: connect | result: fail"),
                "{route:?}: it was not cut: {sent:?}"
            );
            let line =
                format!("action: progreso | result: success | enviadas: {CUT_BETS} | total: {CUT_BETS}");
            assert!(sent.stderr.contains(&line), "{route:?}: {sent:?}");
            count("uploads cut with batches in flight", 1);
            run(&mut upload(&workplace, agency, server.address)).succeeded();
        }
        server.stop();
        (1..=agencies).for_each(|agency| assert_stored_once(&workplace, agency));
    }
}

/// SIGKILL of the upload or of its server, at random batches, and both again.
pub fn killed_on_either_side(at: &Run) {
    for workplace in at.rounds(5) {
        write_bets(workplace.folder(), KILL_BETS);
        let program = Program::new(&workplace).with("--agencies", 2);
        let mut server = program.start();
        let slow = Route { to_server: Treatment::Delay(DELAY), to_client: Treatment::Pass };
        let proxy = Proxy::start(server.address, move || slow);
        let start = || Process::start(&mut upload(&workplace, 1, proxy.address));
        let (mut client, mut rng) = (start(), workplace.rng(0));
        for _ in 0..KILLS {
            let batches = server.process.count(STORED) + rng.random_range(0..KILL_BATCHES_MAX);
            wait_for("batches", || {
                (server.process.count(STORED) >= batches || !client.is_running()).then_some(())
            });
            if !client.is_running() {
                // It was faster: then its end is what is killed, and all is sent again.
                count("uploads that ended before they were killed", 1);
            }
            if rng.random() {
                client.kill();
                client = start();
            } else {
                server.process.kill();
                server = program.start();
            }
            count("SIGKILLs with batches in flight", 1);
        }
        client.wait().succeeded();
        run(&mut upload(&workplace, 1, server.address)).succeeded();
        server.stop();
        assert_stored_once(&workplace, 1);
    }
}
