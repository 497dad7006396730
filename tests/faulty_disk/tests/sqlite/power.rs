//! The power is cut at every operation: what SQLite promises to keep is there.
//! The controls ask for less, and must lose something: else the disk drops
//! nothing, and the other tests show nothing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use faulty_disk::{Failure, Fault, Plan};

use crate::run::{Mode, Run, every_operation, first_seed, run};

const SEEDS: u64 = 3;

/// Cuts the power at every operation, and lets `check` look at what is left.
fn cut_every_operation(mode: Mode, seeds: u64, check: impl Fn(&Run) + Sync) {
    let last = every_operation(|at| {
        for seed in first_seed()..first_seed() + seeds {
            let run = run(mode, |_| Plan::new(seed).with(Fault::Cut { at }));
            if run.report.is_empty() {
                run.assert_clean();
                return ControlFlow::Break(());
            }
            assert!(run.was_killed() && !run.left_memory, "{run:#?}");
            assert!(run.report[0].starts_with(&format!("op={at} kind=")), "{run:#?}");
            check(&run);
        }
        ControlFlow::Continue(())
    });
    println!("{mode:?}: the power was cut at {last} operations, with {seeds} seeds each");
    assert!(last > 50, "{last}");
}

/// How many runs lost a committed row.
fn losses(mode: Mode, check: impl Fn(&Run) + Sync) -> usize {
    let lost = AtomicUsize::new(0);
    cut_every_operation(mode, 1, |run| {
        check(run);
        lost.fetch_add(usize::from(run.lost() > 0), Ordering::Relaxed);
    });
    println!("{mode:?}: rows were lost in {lost:?} runs");
    lost.into_inner()
}

#[test]
fn a_synced_log_loses_nothing() {
    let mode = Mode { journal: "wal", synchronous: "full", readers: 0 };
    cut_every_operation(mode, SEEDS, Run::assert_nothing_lost);
}

#[test]
fn a_synced_journal_whose_end_is_synced_too_loses_nothing() {
    for (journal, synchronous) in [("delete", "extra"), ("truncate", "full")] {
        let mode = Mode { journal, synchronous, readers: 0 };
        cut_every_operation(mode, 1, Run::assert_nothing_lost);
    }
}

#[test]
fn control_a_log_that_is_not_synced_at_each_commit_loses_rows_but_stays_whole() {
    let mode = Mode { journal: "wal", synchronous: "normal", readers: 0 };
    let lost = losses(mode, |run| assert!(run.found.is_ok(), "{run:#?}"));
    assert!(lost > 0, "the disk drops nothing");
}

#[test]
fn control_without_any_sync_databases_are_damaged() {
    let damaged = AtomicUsize::new(0);
    let mode = Mode { journal: "wal", synchronous: "off", readers: 0 };
    let lost = losses(mode, |run| {
        damaged.fetch_add(usize::from(run.found.is_err()), Ordering::Relaxed);
    });
    let damaged = damaged.into_inner();
    assert!(lost > 0 && damaged > 0, "{lost} lost rows, {damaged} damaged");
}

#[test]
fn control_a_journal_whose_folder_is_not_synced_is_back_and_undoes_the_commit() {
    let mode = Mode { journal: "delete", synchronous: "full", readers: 0 };
    let lost = losses(mode, |run| assert!(run.found.is_ok(), "{run:#?}"));
    assert!(lost > 0, "no deleted file ever came back");
}

/// As in a server: one connection writes while others read, each on a thread of
/// its own, so that operations meet.
#[test]
fn many_threads_lose_nothing_either() {
    let mode = Mode { journal: "wal", synchronous: "full", readers: 4 };
    run(mode, |_| Plan::new(0)).assert_clean();
    let mut cut_after_a_commit = 0;
    for at in (1..300).step_by(9) {
        let run = run(mode, |_| Plan::new(first_seed()).with(Fault::Cut { at }));
        run.assert_nothing_lost();
        assert_eq!(run.was_killed(), !run.report.is_empty(), "{run:#?}");
        cut_after_a_commit += usize::from(run.was_killed() && !run.committed.is_empty());
    }
    assert!(cut_after_a_commit > 5, "{cut_after_a_commit}");
}

/// SQLite goes on after a failed operation, and then the power goes: even what
/// the kernel forgot after a failed sync was never reported as committed.
#[test]
fn a_failure_and_then_a_power_cut_lose_nothing() {
    let mode = Mode { journal: "wal", synchronous: "full", readers: 0 };
    let both_struck = AtomicUsize::new(0);
    every_operation(|at| {
        let later = at + 1 + at * 7 % 40;
        let fail = Fault::Fail { at, error: Failure::Io, lasting: false };
        let run = run(mode, |_| Plan::new(first_seed()).with(fail).with(Fault::Cut { at: later }));
        run.assert_nothing_lost();
        both_struck.fetch_add(usize::from(run.report.len() == 2), Ordering::Relaxed);
        if run.report.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let both_struck = both_struck.into_inner();
    assert!(both_struck > 50, "{both_struck}");
}

/// What the kernel forgot after a failed sync, a later sync does not bring back:
/// the log that the checkpoint relies on has holes. Without the failure, the
/// same connections' databases stay whole, as the control above shows.
#[test]
fn control_a_failed_sync_that_is_only_tried_again_damages_the_database() {
    let mode = Mode { journal: "wal", synchronous: "normal", readers: 0 };
    let fail = |at| Plan::new(first_seed()).with(Fault::Fail { at, error: Failure::Io, lasting: false });
    let damaged = AtomicUsize::new(0);
    every_operation(|at| {
        let alone = run(mode, |_| fail(at));
        let Some(struck) = alone.report.first() else { return ControlFlow::Break(()) };
        for later in (at + 1..at + 60).filter(|_| struck.ends_with("kind=xSync file=wal")) {
            let run = run(mode, |_| fail(at).with(Fault::Cut { at: later }));
            damaged.fetch_add(usize::from(run.found.is_err()), Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    });
    assert!(damaged.into_inner() > 0, "the failed sync left everything as it was");
}

/// A short write leaves its first half: a frame of the log, which is a header of
/// 24 bytes and a page of 4096, then ends within one of them.
#[test]
fn half_of_a_short_write_is_there() {
    let mode = Mode { journal: "wal", synchronous: "full", readers: 0 };
    let ends = Mutex::new(BTreeSet::new());
    every_operation(|at| {
        let short = Fault::Fail { at, error: Failure::ShortWrite, lasting: false };
        let run = run(mode, |_| Plan::new(first_seed()).with(short).with(Fault::Cut { at: at + 1 }));
        let frames = run.log_bytes.and_then(|bytes| bytes.checked_sub(32));
        ends.lock().unwrap().extend(frames.map(|bytes| bytes % (24 + 4096)));
        if run.report.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let ends = ends.into_inner().unwrap();
    assert!(ends.contains(&12) && ends.contains(&(24 + 2048)), "{ends:?}");
}
