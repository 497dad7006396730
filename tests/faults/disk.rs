//! The disk fails, fills up, and loses unsynced writes: at every single operation, with
//! one run of the real server for each.
//!
//! The server is this test's own binary, which registers the SQLite VFS of the crate
//! `faulty_disk` and then runs the unchanged program. The next server, after the fault, is
//! the program itself on the plain disk.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use faulty_disk::{Failure, Fault, Plan};
use sorteo_test_support::process::{Server, wait_for};

use crate::crowd::{Crowd, Dialect, Line, Running, frame};
use crate::program::Program;
use crate::workplace::{Run, Workplace, count};

/// Runs at a time: each mostly waits for its processes.
const TOGETHER: usize = 4;

/// Two agencies that bring little: every operation of their whole draw has its
/// own run.
fn few() -> Crowd {
    let dialects = vec![Dialect::Placed, Dialect::Counted];
    Crowd { dialects, batches: 6, rows_max: 4, until_the_draw: true }
}

/// The power is cut before each operation in turn; each write since the last sync
/// is kept, dropped or torn. Nothing acknowledged is lost, and the next server
/// starts from whatever is left.
pub fn power_cut_at_every_operation(run: &Run) {
    for workplace in run.rounds(3) {
        at_every_operation(&workplace, |at, workplace| {
            let round = Round::start(workplace, |plan| plan.with(Fault::Cut { at }));
            // The files are put as the cut leaves them just before the process dies: if that
            // is on a thread that reads, the writer may notice first.
            round.conclude("power cuts before an operation", &[Some(0), Some(74), None])
        });
    }
}

/// Each operation in turn fails once with an I/O error. If the outcome of a write is then
/// unknown, the process ends with 74; otherwise it may go on, and its replies are true.
pub fn every_operation_fails(run: &Run) {
    for workplace in run.rounds(1) {
        for error in [Failure::Io, Failure::ShortWrite] {
            at_every_operation(&workplace, |at, workplace| {
                let fault = Fault::Fail { at, error, lasting: false };
                let round = Round::start(workplace, |plan| plan.with(fault));
                round.conclude("operations that failed", &[Some(0), Some(74)])
            });
        }
    }
}

/// The operation fails, and so does every later one, as on a disk that is gone.
pub fn the_disk_is_gone_at_every_operation(run: &Run) {
    for workplace in run.rounds(1) {
        at_every_operation(&workplace, |at, workplace| {
            let fault = Fault::Fail { at, error: Failure::Io, lasting: true };
            let round = Round::start(workplace, |plan| plan.with(fault));
            round.conclude("disks that were gone", &[Some(0), Some(74)])
        });
    }
}

/// From each operation on, nothing can grow. What needs room is refused with a
/// code, reads go on, and the same process goes on when there is room.
pub fn full_at_every_operation(run: &Run) {
    for workplace in run.rounds(1) {
        at_every_operation(&workplace, |at, workplace| {
            let room = workplace.folder().join("room");
            let round = Round::start(workplace, |plan| plan.with(Fault::Full { at, until: room.clone() }));
            if round.server.is_some() && round.has_struck() {
                let status = Line::new(round.program.address).ask_framed(&frame("STATUS"));
                assert!(status.as_ref().is_ok_and(|status| status.starts_with("STATUS|OK|")), "{status:?}");
            }
            fs::write(room, "").unwrap();
            // It may find no room before it listens; once it listens, it stays.
            let codes: &[Option<i32>] = if round.server.is_some() { &[Some(0)] } else { &[Some(74)] };
            round.conclude("disks that were full", codes)
        });
    }
}

/// Runs `at` for operation 1, 2, 3, … until one says that the run was over before.
fn at_every_operation(workplace: &Workplace, at: impl Fn(u64, &Workplace) -> bool + Sync) {
    let (next, end) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                loop {
                    let operation = next.fetch_add(1, Ordering::Relaxed);
                    if operation > end.load(Ordering::Relaxed) {
                        return;
                    }
                    if !at(operation, &workplace.part(&format!("operation-{operation}-"))) {
                        end.fetch_min(operation, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// A server on the faulty disk, and its crowd.
struct Round<'a> {
    workplace: &'a Workplace,
    program: Program,
    agencies: Running,
    /// `None` where it ended before it listened.
    server: Option<Server>,
}

impl<'a> Round<'a> {
    /// Starts both, and waits until the fault strikes or all is done.
    fn start(workplace: &'a Workplace, plan: impl FnOnce(Plan) -> Plan) -> Self {
        let crowd = few();
        let program = Program::new(workplace).with("--agencies", crowd.dialects.len());
        let plan = plan(Plan::new(workplace.seed()).reporting_to(workplace.folder().join("strike")));
        let faulty = program
            .clone()
            .with_binary(std::env::current_exe().unwrap())
            .with_variable(faulty_disk::VARIABLE, plan.to_env_value());
        let agencies = crowd.start(program.address, workplace);
        let server = match faulty.try_start() {
            Ok(server) => Some(server),
            Err(ended) => {
                assert!(matches!(ended.code, None | Some(74)), "{ended:#?}");
                assert!(!ended.stderr.contains("panic"), "{ended:#?}");
                None
            }
        };
        let round = Self { workplace, program, agencies, server };
        wait_for("the fault, or the end of the work", || {
            (round.has_struck() || round.agencies.have_ended()).then_some(())
        });
        round
    }

    fn has_struck(&self) -> bool {
        self.workplace.folder().join("strike").exists()
    }

    /// Lets the crowd get through, with the program itself if the server on the
    /// faulty disk has ended; that must be with one of `codes`, or with the last of
    /// them where a sync was struck. Answers whether the fault struck at all, which
    /// is counted.
    fn conclude(self, fault: &'static str, codes: &[Option<i32>]) -> bool {
        let Self { workplace, program, agencies, server } = self;
        let ended = server.map(|mut server| {
            wait_for("the end of the work or of the server", || {
                (agencies.have_ended() || !server.process.is_running()).then_some(())
            });
            if server.process.is_running() {
                server.process.terminate();
            }
            server.process.wait()
        });
        let strike = fs::read_to_string(workplace.folder().join("strike")).ok();
        if let Some(ended) = ended {
            // A write that was not synced may have survived or not.
            let unknown = strike.as_ref().is_some_and(|strike| strike.contains("kind=xSync"));
            let codes = if unknown { &codes[codes.len() - 1..] } else { codes };
            assert!(codes.contains(&ended.code), "{strike:?}, not {codes:?}: {ended:#?}");
            assert!(!ended.stderr.contains("panic"), "{strike:?}: {ended:#?}");
        }
        let server = program.start();
        let history = agencies.join();
        server.stop();
        history.hold_against(&workplace.database());
        count(fault, u64::from(strike.is_some()));
        strike.is_some()
    }
}
