//! The process dies: at random moments, at every critical point, in the middle of the draw,
//! and on request.

use std::path::Path;

use rand::RngExt as _;
use sorteo::failpoint::{Failpoint, VARIABLE};
use sorteo_test_support::process::{Process, Server, wait_for};
use sorteo_test_support::version_one;

use crate::crowd::{Crowd, Line, batch_of, frame};
use crate::program::Program;
use crate::workplace::{Run, Workplace, count};

/// Kills in one round.
const KILLS: usize = 5;
/// Batches of each agency in one round.
const BATCHES: u64 = 30;
/// The latest pass of a point that is died at: every point of a write is passed
/// so often before the crowd is through.
const PASS_MAX: u64 = 15;

/// SIGKILL at random moments of a whole draw, the server started again each time:
/// nothing acknowledged is lost or doubled, one draw is made.
pub fn sigkill_under_load(run: &Run) {
    for workplace in run.rounds(5) {
        let crowd = Crowd::mixed(BATCHES);
        let program = Program::new(&workplace).with("--agencies", crowd.dialects.len());
        let mut rng = workplace.rng(0);
        let mut kills: Vec<u64> = (0..KILLS).map(|_| rng.random_range(0..crowd.operations())).collect();
        kills.sort_unstable();
        let mut announced = 0;
        let mut server = program.start();
        let agencies = crowd.start(program.address, &workplace);
        for kill in kills {
            agencies.wait_acknowledged(kill);
            server.process.kill();
            announced += announcements(&server.process);
            count("SIGKILLs under load", 1);
            server = program.start();
        }
        let history = agencies.join();
        history.hold_against(&workplace.database());
        announced += announcements_of(server);
        conclude_draw(&workplace.database(), announced);
    }
}

/// Dies at each point that the program has, at a random pass of it.
pub fn at_every_failpoint(run: &Run) {
    for workplace in run.rounds(3) {
        for point in Failpoint::ALL {
            die_at(*point, &workplace.part(point.name()));
        }
    }
}

fn die_at(point: Failpoint, workplace: &Workplace) {
    let crowd = Crowd::mixed(BATCHES);
    let program = Program::new(workplace).with("--agencies", crowd.dialects.len());
    let pass = if is_passed_often(point) { workplace.rng(0).random_range(1..=PASS_MAX) } else { 1 };
    if point == Failpoint::InsideMigration {
        version_one::create_empty(&workplace.database());
    }
    let doomed = program.clone().with_variable(VARIABLE, format!("{point}:{pass}"));
    // It may die before it listens.
    let dying = doomed.try_start();
    let agencies = crowd.start(program.address, workplace);
    let mut announced = 0;
    if let Ok(mut server) = dying {
        wait_for(point.name(), || (!server.process.is_running()).then_some(()));
        announced += announcements(&server.process);
        assert_eq!(server.process.wait().code, None, "{point}: ended by a signal");
    }
    count("deaths at failpoints", 1);
    let server = program.start();
    let history = agencies.join();
    history.hold_against(&workplace.database());
    announced += announcements_of(server);
    conclude_draw(&workplace.database(), announced);
}

/// Whether a point is passed with each group of writes, and not once in a while.
fn is_passed_often(point: Failpoint) -> bool {
    use Failpoint::{AfterAnswer, AfterCommit, BeforeAnswer, BeforeCommit, BeforeInsert, InsideBatch};
    matches!(point, BeforeInsert | InsideBatch | BeforeCommit | AfterCommit | BeforeAnswer | AfterAnswer)
}

/// A draw that became due while no server ran is made by the next one that
/// starts; it may die in that as well.
pub fn while_a_due_draw_is_made(run: &Run) {
    use Failpoint::{AfterPrepared, AfterWinners, BeforePrepared, InsideDraw};
    for workplace in run.rounds(3) {
        for point in [InsideDraw, AfterWinners, BeforePrepared, AfterPrepared] {
            let workplace = workplace.part(point.name());
            let program = Program::new(&workplace);
            let history = close_one_of_two_agencies(&program, &workplace);
            let due = program.with("--agencies", 1);
            let doomed = due.clone().with_variable(VARIABLE, point);
            let ended = doomed.try_start().err().unwrap_or_else(|| panic!("{point}: it did not die"));
            assert_eq!(ended.code, None, "{point}: ended by a signal: {}", ended.stderr);
            count("deaths at failpoints", 1);
            let server = due.start();
            let winners = Line::new(due.address).ask_framed(&frame("GET_WINNERS|1"));
            assert_eq!(winners.unwrap(), "WINNERS|OK|10000001", "{point}");
            history.hold_against(&workplace.database());
            // Dead after the commit and before the line: then it is never written.
            conclude_draw(&workplace.database(), announcements_of(server));
        }
    }
}

fn close_one_of_two_agencies(program: &Program, workplace: &Workplace) -> crate::history::History {
    use crate::history::{History, Outcome};
    let history = History::default();
    let mut server = program.clone().with("--agencies", 2).start();
    let mut line = Line::new(program.address);
    let rows =
        ["Ana|Garcia|10000001|1999-03-17|7574".to_owned(), "Eva|Garcia|10000002|1999-03-17|1".to_owned()];
    assert_eq!(line.ask_framed(&batch_of("BATCH|1|2", &rows)).unwrap(), "ACK_BATCH|OK|2");
    history.batch(1, &rows, Outcome::Ok);
    assert_eq!(line.ask_framed(&frame("DONE|1|2")).unwrap(), "ACK_DONE|OK");
    history.done(1, Some(2));
    server.process.kill();
    assert!(workplace.database().exists());
    history
}

/// SIGTERM while agencies send: what is in flight is finished, the exit is 0, and
/// the next server goes on.
pub fn sigterm_under_load(run: &Run) {
    for workplace in run.rounds(5) {
        let crowd = Crowd::mixed(BATCHES);
        let program = Program::new(&workplace).with("--agencies", crowd.dialects.len());
        let server = program.start();
        let agencies = crowd.start(program.address, &workplace);
        agencies.wait_acknowledged(workplace.rng(0).random_range(0..crowd.operations()));
        let mut announced = announcements_of(server);
        count("SIGTERMs under load", 1);
        let server = program.start();
        let history = agencies.join();
        history.hold_against(&workplace.database());
        announced += announcements_of(server);
        assert_eq!(announced, 1, "nobody was killed, so the draw was announced");
        conclude_draw(&workplace.database(), announced);
    }
}

/// One draw is made, and at most one process has ever said so: one that died
/// between the commit and its log line has not.
pub fn conclude_draw(database: &Path, announced: usize) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let drawn: i64 = connection
        .query_row("SELECT count(*) FROM draws WHERE drawn_at IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(drawn, 1, "one draw is made");
    assert!(announced <= 1, "{announced} processes said that they made the draw");
    count("draws made once", 1);
}

/// How often a server said so far that it made the draw.
pub fn announcements(process: &Process) -> usize {
    announcements_in(&process.log())
}

/// How often that is said in a log.
pub fn announcements_in(log: &str) -> usize {
    log.matches("action: sorteo | result: success").count()
}

/// Stops a server by SIGTERM; answers how often it said that it made the draw.
pub fn announcements_of(server: Server) -> usize {
    announcements_in(&server.stop().stderr)
}
