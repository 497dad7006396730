//! Power cuts: everything that was not synced is gone, and what was acknowledged must not
//! be.

use std::fs;
use std::path::Path;

use rand::RngExt as _;
use rusqlite::Connection;
use sorteo_test_support::process::{Process, Server, wait_for};

use crate::crowd::{Crowd, Line, batch_of};
use crate::failing_sync::{DATABASE, LOG, SYNCS};
use crate::injection::Injection;
use crate::loop_disk::{Disk, Switch};
use crate::process_death::{announcements, announcements_in, announcements_of, conclude_draw};
use crate::program::{EXIT_DATABASE_FAILED, Program};
use crate::upload::Upload;
use crate::workplace::{Run, Workplace, count};

/// Cuts in one round.
const CUTS: usize = 5;
/// Batches of each agency in one round.
const BATCHES: u64 = 30;
/// Cuts of each setting of the control, and most rows between two of them.
const CONTROL_CUTS: usize = 5;
const CONTROL_ROWS_MAX: u64 = 100;
/// An agency that is not of the crowd.
const STRANGER: u32 = 4_000_000;

/// Power fails at random moments of a whole draw, and comes back each time:
/// nothing acknowledged is lost or doubled, one draw is made.
pub fn cut(run: &Run) {
    for workplace in run.rounds(2) {
        let disk = Disk::new(workplace.folder());
        let crowd = Crowd::mixed(BATCHES);
        let program =
            Program::new(&workplace).in_folder(disk.folder()).with("--agencies", crowd.dialects.len());
        let mut rng = workplace.rng(0);
        let mut cuts: Vec<u64> = (0..CUTS).map(|_| rng.random_range(0..crowd.operations())).collect();
        cuts.sort_unstable();
        let mut announced = 0;
        // At hand before it is needed: agencies do not wait for it.
        let mut switch = disk.switch();
        let mut server = program.start();
        let agencies = crowd.start(program.address, &workplace);
        for cut in cuts {
            agencies.wait_acknowledged(cut);
            announced +=
                if rng.random() { lose_power(server, switch) } else { lose_the_disk(server, switch) };
            disk.remount();
            switch = disk.switch();
            server = program.start();
        }
        drop(switch);
        let history = agencies.join();
        announced += announcements_of(server);
        let database = disk.folder().join(DATABASE);
        history.hold_against(&database);
        conclude_draw(&database, announced);
    }
}

/// The machine stops, in the middle of whatever the disk was doing. Answers how
/// often the draw was announced.
fn lose_power(mut server: Server, switch: Switch) -> usize {
    // The signal first: an answer that leaves after the cut would be none of ours.
    server.process.send("KILL");
    switch.cut();
    count("power cuts under load", 1);
    server.process.kill();
    announcements(&server.process)
}

/// The disk stops, and the machine goes on: the server must not acknowledge
/// anything, and ends by itself when it writes. Answers how often the draw was
/// announced.
fn lose_the_disk(mut server: Server, switch: Switch) -> usize {
    // Linux lets a sync that is on its way during the cut succeed, though nothing
    // is synced. So none is on its way.
    server.process.send("STOP");
    wait_for("the server to stand still", || stands_still(&server.process).then_some(()));
    switch.cut();
    server.process.send("CONT");
    count("disks lost under load", 1);
    let rows = ["Ana|Nadie|1|1999-03-17|1".to_owned()];
    match Line::new(server.address).ask_framed(&batch_of(&format!("BATCH|{STRANGER}|1"), &rows)) {
        // It found no need to write, so it may not have noticed.
        Ok(answer) => {
            assert_eq!(answer, "ACK_BATCH|ERR|1|draw_closed", "without a disk");
            server.process.kill();
            announcements(&server.process)
        }
        Err(_) => {
            let ended = server.process.wait();
            assert_eq!(ended.code, Some(EXIT_DATABASE_FAILED), "without a disk: {}", ended.stderr);
            count("servers that ended by themselves without a disk", 1);
            announcements_in(&ended.stderr)
        }
    }
}

/// Whether no thread of a process that got a SIGSTOP runs, not even inside a
/// system call.
fn stands_still(process: &Process) -> bool {
    let mut threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    threads.all(|thread| {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        // proc(5): the state comes behind the name, which is in parentheses.
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    })
}

/// A server dies between writing a commit and syncing it, and the next one finds the commit
/// and reports it to an agency. From then on no power cut may lose it.
pub fn cut_after_a_failed_sync(run: &Run) {
    for workplace in run.rounds(1) {
        let reported = |sync: &u64| reports_what_was_not_synced(*sync, &workplace.part("sync"));
        let reported: Vec<bool> = (1..).map_while(|sync| reported(&sync)).collect();
        assert!(reported.contains(&true), "no server reported a commit that it found");
    }
}

/// One sync fails, then power. Returns whether the step was acknowledged in between; `None` if
/// there is no such sync.
fn reports_what_was_not_synced(sync: u64, workplace: &Workplace) -> Option<bool> {
    let disk = Disk::new(workplace.folder());
    let (folder, database) = (disk.folder(), disk.folder().join(DATABASE));
    let program = Program::new(workplace).in_folder(folder).with("--agencies", 1);
    program.start().stop();
    let injection = Injection::new(SYNCS, &folder.join(LOG), "EIO", format!("{sync}+"), workplace.folder());
    let mut upload = Upload::new(program.address, 3, 3);
    let server = injection.of(&program).start();
    let silent = upload.until_silence()?;
    let mut announced = announcements_in(&server.process.wait().stderr);
    let switch = disk.switch();
    let server = program.start();
    let told = upload.holds(silent);
    announced += lose_power(server, switch);
    disk.remount();
    upload.hold_against(&database);
    let server = program.start();
    upload.finish_from(if told { silent + 1 } else { silent });
    announced += announcements_of(server);
    upload.hold_against(&database);
    conclude_draw(&database, announced);
    Some(told)
}

/// The control: what power takes from a database that syncs less. If nothing is
/// lost here, the cuts cut nothing.
pub fn the_weaker_setting_loses(run: &Run) {
    for workplace in run.rounds(1) {
        let lost = rows_lost("NORMAL", &workplace.part("normal"));
        count("rows lost by the weaker setting", lost);
        assert!(lost > 0, "{CONTROL_CUTS} power cuts took nothing from a database that does not sync");
        let lost = rows_lost("FULL", &workplace.part("full"));
        assert_eq!(lost, 0, "rows lost, though each was synced");
    }
}

/// Rows whose commit had succeeded and that are gone after a cut, all cuts together.
fn rows_lost(synchronous: &str, workplace: &Workplace) -> u64 {
    let disk = Disk::new(workplace.folder());
    let database = disk.folder().join("control.db");
    let mut rng = workplace.rng(1);
    let (mut stored, mut lost) = (0, 0);
    for _ in 0..CONTROL_CUTS {
        let connection = open_control(&database, synchronous);
        let switch = disk.switch();
        let committed = rng.random_range(1..=CONTROL_ROWS_MAX);
        for _ in 0..committed {
            connection.execute("INSERT INTO rows (row) VALUES ('a row')", []).unwrap();
        }
        switch.cut();
        count("power cuts of the control", 1);
        // Closing writes; that fails as everything does, and leaves things as they are.
        drop(connection);
        disk.remount();
        let found = count_rows(&open_control(&database, synchronous));
        lost += stored + committed - found;
        stored = found;
    }
    lost
}

/// Exclusive, so that no file is mapped into memory: touching one on a dead disk
/// would end the test by a signal.
fn open_control(database: &Path, synchronous: &str) -> Connection {
    let connection = Connection::open(database).unwrap();
    let set_up = format!(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
         CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, row TEXT NOT NULL)"
    );
    connection.execute_batch(&set_up).unwrap();
    connection
}

fn count_rows(connection: &Connection) -> u64 {
    connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).unwrap()
}
