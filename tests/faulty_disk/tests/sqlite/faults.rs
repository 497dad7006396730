//! Operations that fail, and disks that are full: nothing is ever reported as
//! committed that is not there afterwards.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Mutex;

use faulty_disk::{Failure, Fault, Plan};

use crate::child;
use crate::run::{Mode, Run, every_operation, first_seed, run};

const WAL: Mode = Mode { journal: "wal", synchronous: "full", readers: 0 };
/// The rollback journal, with its folder synced after the delete.
const JOURNAL: Mode = Mode { journal: "delete", synchronous: "extra", readers: 0 };

#[test]
fn without_faults_everything_passes_through() {
    for mode in [WAL, JOURNAL] {
        let run = run(mode, |_| Plan::new(0));
        run.assert_clean();
        assert!(run.report.is_empty());
        let (_, operations) = run.output.split_once("operations=").expect("the child prints it");
        let operations: u64 = operations.lines().next().unwrap().parse().unwrap();
        assert!(operations > 10 * child::ROWS as u64, "{operations}");
    }
}

/// Fails every operation in turn, and returns those whose failure SQLite reported to the
/// program: "xWrite wal" and so on.
fn fail_every_operation(mode: Mode, error: Failure, lasting: bool) -> BTreeSet<String> {
    let told = Mutex::new(BTreeSet::new());
    let last = every_operation(|at| {
        let run = run(mode, |_| Plan::new(first_seed()).with(Fault::Fail { at, error, lasting }));
        run.assert_ended_by_itself();
        run.assert_nothing_lost();
        let [report] = &run.report[..] else {
            run.assert_clean();
            return ControlFlow::Break(());
        };
        let struck = what_was_struck(report, at, &run);
        if !run.errors.is_empty() {
            told.lock().unwrap().insert(struck);
        }
        ControlFlow::Continue(())
    });
    println!("{mode:?} {error:?}: {last} operations");
    assert!(last > 50, "{last}");
    told.into_inner().unwrap()
}

/// Takes `op=7 kind=xWrite file=wal` apart.
fn what_was_struck(report: &str, at: u64, run: &Run) -> String {
    let mut fields = report.split(' ').map(|field| field.split_once('=').expect("key=value"));
    let mut field = |key| fields.next().filter(|(name, _)| *name == key).expect(key).1;
    let (operation, kind, file) = (field("op"), field("kind"), field("file"));
    assert!(operation.parse::<u64>().unwrap() >= at, "{run:#?}");
    format!("{kind} {file}")
}

/// All but the log's delete, whose failure SQLite ignores.
#[test]
fn each_operation_of_the_log_fails_once() {
    let told = fail_every_operation(WAL, Failure::Io, false);
    let expected = "xOpen db, xOpen journal, xOpen wal, xRead db, xRead wal, xWrite db, xWrite wal, \
        xSync db, xSync wal, xTruncate db, xTruncate wal, xFileSize db, xFileSize wal, xShmMap db";
    for operation in expected.split(", ") {
        assert!(told.contains(operation), "{operation}: not in {told:?}");
    }
}

#[test]
fn each_operation_of_the_log_fails_and_all_after_it() {
    fail_every_operation(WAL, Failure::Io, true);
}

#[test]
fn each_operation_of_the_journal_fails_once() {
    let told = fail_every_operation(JOURNAL, Failure::Io, false);
    for operation in ["xDelete journal", "folderSync journal", "xSync journal", "xWrite journal"] {
        assert!(told.contains(operation), "{operation}: not in {told:?}");
    }
}

#[test]
fn each_growth_finds_the_disk_full() {
    let told = fail_every_operation(WAL, Failure::Full, false);
    assert!(told.contains("xWrite wal") && told.contains("xShmMap db"), "{told:?}");
}

#[test]
fn each_write_is_cut_short() {
    let told = fail_every_operation(WAL, Failure::ShortWrite, false);
    assert!(told.iter().all(|told| told.starts_with("xWrite")), "{told:?}");
}

#[test]
fn a_full_disk_is_told_and_work_goes_on_once_there_is_room() {
    let at = 40;
    let run = run(WAL, |folder| Plan::new(0).with(Fault::Full { at, until: folder.room() }));
    run.assert_ended_by_itself();
    run.assert_nothing_lost();
    let count = |what| run.errors.lines().filter(|line| line.starts_with(what)).count();
    assert!(count("insert: database or disk is full") > 0, "{run:#?}");
    assert_eq!(count("read"), 0, "reading needs no room: {run:#?}");
    assert!(run.committed.contains(&child::ROWS), "there is room again: {run:#?}");
    assert!(run.committed.len() < child::ROWS as usize, "{run:#?}");
}
