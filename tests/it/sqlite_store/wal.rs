//! The size of the WAL, and who copies it into the database.

use std::fs;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use sorteo::metrics::{CheckpointLabel, CheckpointResult};
use sorteo::store::sqlite::{Checkpoints, Options};
use sorteo_protocol::{AgencyId, Batch, Bets};

use super::{Database, append, batch, count, until};

#[test]
fn the_log_stays_small_under_many_small_writes() {
    let database = Database::new();
    let options = Options::new(database.path());
    let (store, _) = database.open(&options);
    let mut largest = 0;
    for row in 0..4_000 {
        assert_eq!(append(&store, batch(1, &[&row.to_string()], 1)), Ok(()));
        let log = fs::metadata(database.path().with_extension("db-wal")).unwrap().len();
        largest = largest.max(log);
    }
    // Each writes four pages or more: without checkpoints, 64 MiB.
    assert!(largest < 24 << 20, "the log grew to {largest} bytes");
}

#[test]
fn the_log_is_emptied_when_a_reader_has_gone_though_nothing_more_is_written() {
    let database = Database::new();
    let options = database.options(None);
    let (store, _) = database.open(&options);
    let log = || fs::metadata(database.path().with_extension("db-wal")).unwrap().len();
    let reader = database.raw();
    reader.execute_batch("BEGIN").unwrap();
    count(&reader, "batches");
    assert_eq!(append(&store, batch(1, &["1"], 1)), Ok(()));
    let busy = CheckpointLabel { result: CheckpointResult::busy };
    until("a checkpoint that the reader stops", || {
        options.metrics.checkpoints.get_or_create(&busy).get() > 0
    });
    assert!(log() > 0);
    reader.execute_batch("COMMIT").unwrap();
    until("the log is empty", || log() == 0);
}

#[test]
fn the_log_is_left_to_a_replicator_that_makes_the_checkpoints() {
    let database = Database::new();
    let options = Options { checkpoints: Checkpoints::External, ..Options::new(database.path()) };
    let (store, _) = database.open(&options);
    let log = || fs::metadata(database.path().with_extension("db-wal")).unwrap().len();
    for row in 0..4_000 {
        assert_eq!(append(&store, batch(1, &[&row.to_string()], 1)), Ok(()));
    }
    let written = log();
    assert!(written > 48 << 20, "each writes four pages or more, not {written} bytes together");
    store.close();
    assert_eq!(log(), written, "closing leaves it too");
    let (reopened, recovery) = database.open(&options);
    assert_eq!(recovery.status.bets, 4_000);
    reopened.close();
}

/// How long one of the readers below keeps its snapshot.
const READ: Duration = Duration::from_millis(20);

/// One of two readers, of which one is always in the middle of a read that began
/// before the last write: each ends only after the other has begun.
fn read_on(raw: &Connection, writing: &Weak<()>, begun: &Sender<()>, other_begun: &Receiver<()>) {
    while writing.strong_count() > 0 {
        raw.execute_batch("BEGIN").unwrap();
        count(raw, "batches");
        let _ = begun.send(());
        if other_begun.recv().is_ok() {
            thread::sleep(READ);
        }
        raw.execute_batch("COMMIT").unwrap();
    }
}

#[test]
fn the_log_stays_bounded_though_somebody_always_reads() {
    let database = Database::new();
    let (store, _) = database.open(&database.options(None));
    let mut bets = Bets::default();
    let name = "n".repeat(120);
    for document in 0..2_000 {
        bets.push([&name, &name, &document.to_string(), "1999-03-17", "1"]).unwrap();
    }
    let ((begun, other_hears), (other_begun, hears)) = (mpsc::channel(), mpsc::channel());
    let (raw, other_raw) = (database.raw(), database.raw());
    let writing = Arc::new(());
    let (watch, other_watch) = (Arc::downgrade(&writing), Arc::downgrade(&writing));
    let mut largest = 0;
    thread::scope(|scope| {
        scope.spawn(move || read_on(&raw, &watch, &begun, &hears));
        scope.spawn(move || read_on(&other_raw, &other_watch, &other_begun, &other_hears));
        let _writing = writing;
        for _ in 0..200 {
            let batch = Batch { agency: AgencyId(1), bets: bets.clone(), position: None };
            assert_eq!(append(&store, batch), Ok(()));
            let log = fs::metadata(database.path().with_extension("db-wal")).unwrap().len();
            largest = largest.max(log);
        }
    });
    // Each writes 150 pages or more: without resets, 120 MiB.
    assert!(largest < 64 << 20, "the log grew to {largest} bytes");
}
