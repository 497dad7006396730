//! A sync fails, so whether the writes will survive is unknown. No reply is sent, the
//! process ends by itself, and the next one finds out.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use rand::RngExt as _;
use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{Finished, Server, wait_for};

use crate::crowd::Crowd;
use crate::injection::Injection;
use crate::process_death::{announcements_in, announcements_of, conclude_draw};
use crate::program::{EXIT_DATABASE_FAILED, Program};
use crate::upload::Upload;
use crate::workplace::{Run, Workplace, count, longest};

/// The calls that sync; which of them SQLite uses depends on how it was built.
pub const SYNCS: &str = "fsync,fdatasync";
/// Files of the database.
pub const DATABASE: &str = "sorteo.db";
pub const LOG: &str = "sorteo.db-wal";
const JOURNAL: &str = "sorteo.db-journal";
const FOLDER: &str = "";

/// Steps of an upload before a commit's sync fails, at most.
const STEPS_MAX: u64 = 10;
/// Servers that die by a failed sync in one round under load, and after how many
/// syncs at most.
const DEATHS: usize = 4;
const SYNCS_MAX: u64 = 25;
/// Rows of each batch.
const ROWS: u64 = 3;
/// Batches where each sync has a run of its own.
const FEW_BATCHES: u64 = 3;
/// Batches after which the log has been copied, however small they are.
const MANY_BATCHES: u64 = 800;

/// The sync of a commit fails. Its batch is not answered, the process says why
/// and ends at once; the batch is there whole or not at all, and sending it again
/// is right in both cases.
pub fn of_a_commit(run: &Run) {
    for workplace in run.rounds(5) {
        let program = Program::new(&workplace).with("--agencies", 1);
        program.start().stop();
        // A commit into an empty log syncs twice, so the last step is reached.
        let sync = workplace.rng(0).random_range(1..=STEPS_MAX + 1);
        let injection = inject(SYNCS, LOG, "EIO", format!("{sync}+"), &workplace);
        let server = injection.of(&program).start();
        let mut upload = Upload::new(program.address, STEPS_MAX, ROWS);
        let silent = upload.until_silence().expect("a sync fails");
        let ended = ended_by_itself(server);
        let mut announced = announcements_in(&ended.stderr);
        count("commits whose sync failed", 1);
        let server = program.start();
        upload.finish_from(silent);
        announced += announcements_of(server);
        upload.hold_against(&workplace.database());
        conclude_draw(&workplace.database(), announced);
    }
}

/// Waits for the end of a server that did not answer: it names its reason, once.
fn ended_by_itself(server: Server) -> Finished {
    let silent_since = Instant::now();
    let ended = server.process.wait();
    let lasted = silent_since.elapsed().as_millis() as u64;
    longest("longest time from a missing answer to the server's end, ms", lasted);
    count("servers that ended later than a second after a missing answer", u64::from(lasted > 1_000));
    assert_database_failed(&ended);
    ended
}

/// It says why in one line, and exits with 74.
pub fn assert_database_failed(ended: &Finished) {
    ended.failed(EXIT_DATABASE_FAILED);
    let errors = || ended.stderr.lines().filter_map(|line| LogLine::parse(line).ok());
    let errors: Vec<LogLine> = errors().filter(|line| line.level == "ERROR").collect();
    assert!(
        matches!(&errors[..], [error] if error.action == "write_database" && error.result == "fail"),
        "one line says why: {}",
        ended.stderr
    );
}

/// Agencies at work, and the server dies again and again by a sync that fails.
pub fn under_load(run: &Run) {
    for workplace in run.rounds(3) {
        let crowd = Crowd::mixed(30);
        let program = Program::new(&workplace).with("--agencies", crowd.dialects.len());
        let mut rng = workplace.rng(0);
        let mut announced = 0;
        let agencies = crowd.start(program.address, &workplace);
        for _ in 0..DEATHS {
            let from = rng.random_range(1..=SYNCS_MAX);
            let injection = inject(SYNCS, LOG, "EIO", format!("{from}+"), &workplace);
            // It also dies before it listens, while the database is made.
            if let Ok(mut server) = injection.of(&program).try_start() {
                let is_over = |server: &mut Server| !server.process.is_running() || agencies.have_ended();
                wait_for("a sync that fails", || is_over(&mut server).then_some(()));
                if server.process.is_running() {
                    announced += announcements_of(server);
                    break;
                }
                let ended = server.process.wait();
                assert_database_failed(&ended);
                announced += announcements_in(&ended.stderr);
            }
            count("servers that a failed sync ended under load", 1);
        }
        let server = program.start();
        let history = agencies.join();
        announced += announcements_of(server);
        history.hold_against(&workplace.database());
        conclude_draw(&workplace.database(), announced);
    }
}

/// Each sync in turn fails, once, of a database that is made or only opened,
/// written to and closed.
pub fn at_every_sync(run: &Run) {
    for workplace in run.rounds(1) {
        for (exists, file) in [
            (false, JOURNAL),
            (false, DATABASE),
            (false, LOG),
            (false, FOLDER),
            (true, DATABASE),
            (true, LOG),
            (true, FOLDER),
        ] {
            let fails = |sync: &u64| fails_at(*sync, exists, file, &workplace.part("sync"));
            let syncs = (1..).take_while(fails).count();
            assert!(syncs > 0, "{file:?} is never synced");
        }
    }
}

/// One life of a server whose sync fails, and the next one's; answers whether
/// there was such a sync.
fn fails_at(sync: u64, exists: bool, file: &str, workplace: &Workplace) -> bool {
    let program = Program::new(workplace).with("--agencies", 1);
    if exists {
        program.start().stop();
    }
    let injection = inject(SYNCS, file, "EIO", sync, workplace);
    let mut upload = Upload::new(program.address, FEW_BATCHES, ROWS);
    let (mut silent, ended) = (Some(0), injection.of(&program).try_start());
    let ended = ended.map(|server| {
        silent = upload.until_silence();
        if silent.is_none() {
            server.process.terminate();
        }
        server.process.wait()
    });
    let ended = ended.unwrap_or_else(|ended| ended);
    let failed = injection.times() > 0;
    count("syncs that failed", u64::from(failed));
    // SQLite syncs the folder as well, and does not mind if that fails.
    if failed && (file != FOLDER || silent.is_some()) {
        ended.failed(EXIT_DATABASE_FAILED);
    } else {
        ended.succeeded();
    }
    let server = program.start();
    upload.finish_from(silent.unwrap_or(FEW_BATCHES));
    let announced = announcements_in(&ended.stderr) + announcements_of(server);
    upload.hold_against(&workplace.database());
    conclude_draw(&workplace.database(), announced);
    failed
}

/// Copying the log into the database fails after the answers, when it is due, when
/// all is quiet, and when the server stops. What was acknowledged is in the log.
pub fn of_a_checkpoint(run: &Run) {
    for workplace in run.rounds(1) {
        for calls in [SYNCS, "pwrite64"] {
            fail_a_checkpoint(calls, &workplace.part("due"), MANY_BATCHES, |_| ());
            fail_a_checkpoint(calls, &workplace.part("quiet"), 1, |_| ());
            fail_a_checkpoint(calls, &workplace.part("stop"), 1, |server| server.process.terminate());
        }
    }
}

fn fail_a_checkpoint(calls: &str, workplace: &Workplace, batches: u64, then: impl FnOnce(&Server)) {
    let program = Program::new(workplace).with("--agencies", 1);
    program.start().stop();
    let injection = inject(calls, DATABASE, "EIO", "1+", workplace);
    let server = injection.of(&program).start();
    let mut upload = Upload::new(program.address, batches, ROWS);
    let silent = (0..batches).find(|batch| upload.attempt(*batch).is_err());
    assert!(batches == 1 || silent.is_some(), "no checkpoint was due");
    then(&server);
    assert_database_failed(&server.process.wait());
    count("checkpoints that failed", 1);
    let server = program.start();
    upload.finish_from(silent.unwrap_or(batches));
    let announced = announcements_of(server);
    upload.hold_against(&workplace.database());
    conclude_draw(&workplace.database(), announced);
}

/// What a crash has left in the log cannot be synced: no server starts on it, since
/// it would tell of what power may take.
pub fn of_what_a_crash_left(run: &Run) {
    for workplace in run.rounds(1) {
        let (program, upload) = crash(&workplace);
        for file in [LOG, DATABASE] {
            let ended = inject(SYNCS, file, "EIO", "1+", &workplace).of(&program).try_start();
            ended.err().expect("it does not start").failed(EXIT_DATABASE_FAILED);
            count("logs of a crash that could not be synced", 1);
        }
        program.start().stop();
        upload.hold_against(&workplace.database());
    }
}

/// A server that was killed and left all that it acknowledged in its log. The draw
/// is not due.
pub fn crash(workplace: &Workplace) -> (Program, Upload) {
    let program = Program::new(workplace).with("--agencies", 2);
    program.start().stop();
    // Or it copies the log as soon as it has nothing else to do.
    let stays = inject("pwrite64", DATABASE, "ENOSPC", "1+", workplace);
    let mut server = stays.of(&program).start();
    let mut upload = Upload::new(program.address, FEW_BATCHES, ROWS);
    assert_eq!(upload.until_silence(), None, "all is answered");
    server.process.kill();
    (program, upload)
}

/// A database whose folder was not synced may be gone after a power cut: no server starts
/// until that sync has succeeded, even if another process created the database.
pub fn of_the_folder(run: &Run) {
    for workplace in run.rounds(1) {
        let program = Program::new(&workplace);
        let doomed = inject(SYNCS, FOLDER, "EIO", "1+", &workplace).of(&program);
        for _ in 0..3 {
            let ended = doomed.try_start().err().expect("it does not start");
            ended.failed(EXIT_DATABASE_FAILED);
            count("folders that could not be synced", 1);
        }
        program.start().stop();
    }
}

/// Calls that concern a file of the database fail.
pub fn inject(calls: &str, file: &str, error: &str, when: impl ToString, workplace: &Workplace) -> Injection {
    // As the system names it: strace compares names.
    let folder = &fs::canonicalize(workplace.folder()).unwrap();
    let file: PathBuf = if file == FOLDER { folder.to_owned() } else { folder.join(file) };
    Injection::new(calls, &file, error, when, folder)
}
