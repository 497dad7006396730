//! Reads and writes of the database's files fail. A write that stored nothing is refused,
//! and the server goes on; where something cannot be read, no wrong reply is sent.

use std::net::SocketAddr;
use std::process::Command;
use std::{fs, io};

use rand::RngExt as _;
use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{self, Server, assert_names, wait_for};

use crate::crowd::{Crowd, Dialect, Line, frame};
use crate::failing_sync::{DATABASE, LOG, crash, inject};
use crate::injection::Injection;
use crate::process_death::{announcements, announcements_of, conclude_draw};
use crate::program::{EXIT_DATABASE_FAILED, Program};
use crate::upload::Upload;
use crate::workplace::{Run, Workplace, count};

/// Batches of an upload, and the rows of each.
const BATCHES: u64 = 10;
const ROWS: u64 = 3;
/// The write of the log that fails first, at most: there are more in an upload.
const FROM_WRITE_MAX: u64 = 60;
const FAILED_WRITES_MAX: u64 = 40;
/// Writes of a start on an existing database, on its first thread, at most.
const STARTS_WRITES_MAX: u64 = 20;
/// How large a file may become: a new database has half of it.
const FILE_BYTES_MAX: u64 = 300_000;
/// Batches after which the log has been copied, however small they are.
const MANY_BATCHES: u64 = 800;
/// The read that fails first, at most, and how many do: a worker that is asked
/// everything once reads about so often.
const FROM_READ_MAX: u64 = 100;
const FAILED_READS_MAX: u64 = 40;
/// Servers that meet an unreadable database in one round.
const UNREADABLE_TIMES: usize = 12;
/// Calls that read.
const READS: &str = "pread64,read";

/// The log has no room for a while: each write is refused, reads go on, and
/// writes too as soon as there is room, without a restart.
pub fn no_room_in_the_log(run: &Run) {
    for workplace in run.rounds(5) {
        let program = Program::new(&workplace).with("--agencies", 1);
        program.start().stop();
        let mut rng = workplace.rng(0);
        let from = rng.random_range(1..=FROM_WRITE_MAX);
        let until = from + rng.random_range(0..FAILED_WRITES_MAX);
        let injection = inject("pwrite64", LOG, "ENOSPC", format!("{from}..{until}"), &workplace);
        let server = injection.of(&program).start();
        refused_for_a_while(Upload::new(program.address, BATCHES, ROWS), server, &workplace, || ());
        assert!(injection.times() > 0, "there was always room");
    }
}

/// A quota is used up for a while. That is no failing disk: what is sent is refused as on
/// a full one, and the same process goes on when there is room.
pub fn no_quota(run: &Run) {
    for workplace in run.rounds(5) {
        let program = Program::new(&workplace).with("--agencies", 1);
        program.start().stop();
        let mut rng = workplace.rng(0);
        let from = rng.random_range(STARTS_WRITES_MAX..=FROM_WRITE_MAX);
        // Of every file: where one cannot grow, none can. An even number of calls, since the
        // server asks the system a second time for the reason of each.
        let when = format!("{from}..{}", from + FAILED_WRITES_MAX - 1);
        let injection = Injection::anywhere("pwrite64", "EDQUOT", when, workplace.folder());
        let server = injection.of(&program).start();
        refused_for_a_while(Upload::new(program.address, BATCHES, ROWS), server, &workplace, || ());
        assert!(injection.times() > 0, "there was always room");
    }
}

/// Files may not grow over a limit (`ulimit -f`), for which the system has a signal that
/// kills. It is as a full disk, and passes when the limit is raised.
pub fn file_size_limit(run: &Run) {
    for workplace in run.rounds(1) {
        let program = Program::new(&workplace).with("--agencies", 1);
        let limited =
            program.clone().started_by(&["prlimit", &format!("--fsize={FILE_BYTES_MAX}:unlimited")]);
        let server = limited.start();
        let id = server.process.id().to_string();
        let raise = || {
            let raised = Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited"]).status();
            assert!(raised.unwrap().success());
        };
        refused_for_a_while(Upload::new(program.address, MANY_BATCHES, ROWS), server, &workplace, raise);
        // Every command says what is wrong.
        let mut generate = Command::new("prlimit");
        generate.arg("--fsize=1000:unlimited").arg(process::binary()).args(["generate", "--dir", "data"]);
        let generated = process::run(generate.current_dir(workplace.folder()));
        assert_names(generated.failed(1), &["File too large"]);
    }
}

/// Why files cannot be limited, if they cannot.
pub fn no_prlimit() -> Option<&'static str> {
    let tried = Command::new("prlimit").arg("--version").output();
    (!tried.is_ok_and(|tried| tried.status.success())).then_some("prlimit is needed")
}

/// Carries out an upload, of which some is refused for want of room until `make_room` was
/// called or time has passed.
fn refused_for_a_while(mut upload: Upload, server: Server, workplace: &Workplace, make_room: impl Fn()) {
    let mut refused = 0;
    for step in upload.steps() {
        while let answer = upload.attempt(step).unwrap()
            && answer != upload.acknowledgement(step)
        {
            assert!(answer.ends_with("|storage_full"), "{answer}");
            assert!(!upload.holds(step), "step {step} was refused, and holds");
            refused += 1;
            make_room();
        }
    }
    assert!(refused > 0, "there was always room");
    count("writes refused for want of room", refused);
    let announced = announcements_of(server);
    upload.hold_against(&workplace.database());
    conclude_draw(&workplace.database(), announced);
}

/// The database has no room for what the log holds: all goes on in the log, also
/// after a crash.
pub fn no_room_in_the_database(run: &Run) {
    for workplace in run.rounds(1) {
        let program = Program::new(&workplace).with("--agencies", 1);
        program.start().stop();
        let full = inject("pwrite64", DATABASE, "ENOSPC", "1+", &workplace).of(&program);
        let mut upload = Upload::new(program.address, MANY_BATCHES, ROWS);
        let mut server = full.start();
        assert_eq!(upload.until_silence(), None, "all is answered");
        assert!(server.process.count("action: checkpoint | result: fail") > 0, "no checkpoint was due");
        server.process.kill();
        let mut announced = announcements(&server.process);
        let server = full.start();
        assert!(upload.holds(MANY_BATCHES), "the draw is made");
        announced += announcements_of(server);
        count("servers without room in the database", 2);
        program.start().stop();
        upload.hold_against(&workplace.database());
        conclude_draw(&workplace.database(), announced);
    }
}

/// Reads of the database fail for a while: the server does not start, or refuses
/// what it is asked, and answers rightly as soon as it can read.
pub fn unreadable_database(run: &Run) {
    for workplace in run.rounds(1) {
        let program = Program::new(&workplace).with("--workers", 1).with("--agencies", 2);
        let questions = make_a_draw(&program, &workplace);
        let mut rng = workplace.rng(0);
        for _ in 0..UNREADABLE_TIMES {
            let from = rng.random_range(1..=FROM_READ_MAX);
            let when = format!("{from}..{}", from + rng.random_range(0..FAILED_READS_MAX));
            let injection = inject(READS, DATABASE, "EIO", when, &workplace);
            match injection.of(&program).try_start() {
                Err(ended) => {
                    ended.failed(EXIT_DATABASE_FAILED);
                    count("servers that could not read and did not start", 1);
                }
                Ok(mut server) => {
                    wait_for("right answers", || {
                        let answered = |question: &&Question| question.is_answered(program.address);
                        let all = questions.iter().filter(answered).count() == questions.len();
                        (all || !server.process.is_running()).then_some(())
                    });
                    LogLine::parse_all(&server.stop().stderr);
                }
            }
            count("reads that failed", injection.times() as u64);
        }
    }
}

/// What is asked, and the right answer.
struct Question {
    dialect: Dialect,
    text: String,
    answer: String,
}

/// A draw with many winners, and what can be asked of it.
fn make_a_draw(program: &Program, workplace: &Workplace) -> Vec<Question> {
    let server = program.start();
    let dialects = vec![Dialect::Placed, Dialect::Counted];
    let crowd = Crowd { dialects, batches: 40, rows_max: 200, until_the_draw: true };
    crowd.start(program.address, workplace).join().hold_against(&workplace.database());
    let ask = |(dialect, text): (Dialect, &str)| Question {
        dialect,
        text: text.to_owned(),
        answer: ask(program.address, dialect, text).unwrap(),
    };
    let questions = [
        (Dialect::Placed, "STATUS"),
        (Dialect::Placed, "GET_WINNERS|1|0"),
        (Dialect::Placed, "RESUME|1|caja"),
        (Dialect::Counted, "GET_WINNERS|2"),
    ];
    let questions = questions.map(ask).into();
    server.stop();
    questions
}

fn ask(server: SocketAddr, dialect: Dialect, text: &str) -> io::Result<String> {
    let mut line = Line::new(server);
    match dialect {
        Dialect::Counted => line.ask_counted(text),
        _ => line.ask_framed(&frame(text)),
    }
}

impl Question {
    /// Whether it is answered, which must be right, or refused, or broken off where
    /// the answer's length was announced already.
    fn is_answered(&self, server: SocketAddr) -> bool {
        match ask(server, self.dialect, &self.text) {
            Ok(answer) if answer == self.answer => return true,
            Ok(answer) if answer.ends_with("|unavailable") || answer == "ERROR_BUSY" => {
                count("questions refused for want of an answer", 1);
            }
            Ok(answer) => panic!("{}: {answer}, and not {}", self.text, self.answer),
            Err(_) if self.dialect == Dialect::Counted => count("answers broken off", 1),
            Err(error) => panic!("{}: {error}", self.text),
        }
        false
    }
}

/// Each read of the log that a crash has left fails, once: no server may take what
/// it cannot read for the log's end.
pub fn unreadable_log(run: &Run) {
    for workplace in run.rounds(1) {
        let (_, upload) = crash(&workplace);
        let fails = |read: &u64| fails_to_recover(*read, &upload, &workplace);
        let reads = (1..).take_while(fails).count();
        assert!(reads > 0, "the log is never read");
    }
}

/// Starts a server on a copy of what the crash has left; answers whether there was
/// such a read.
fn fails_to_recover(read: u64, upload: &Upload, crashed: &Workplace) -> bool {
    let workplace = crashed.part("read");
    for file in [DATABASE, LOG] {
        fs::copy(crashed.folder().join(file), workplace.folder().join(file)).unwrap();
    }
    let program = Program::new(&workplace).with("--agencies", 2);
    let injection = inject(READS, LOG, "EIO", read, &workplace);
    match injection.of(&program).try_start() {
        Ok(server) => LogLine::parse_all(&server.stop().stderr).clear(),
        Err(ended) => _ = ended.failed(EXIT_DATABASE_FAILED),
    }
    let failed = injection.times() > 0;
    count("reads that failed", u64::from(failed));
    program.start().stop();
    upload.hold_against(&workplace.database());
    failed
}
