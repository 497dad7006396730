//! The writer: a full queue, a locked database, the order of events, a failed write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use sorteo::store::sqlite::{Observer, Options, SqliteStore};
use sorteo::store::{DrawStatus, Store, StoreError};
use sorteo_protocol::{AgencyId, DrawId};

use super::{DEADLINE, Database, WINS, append, batch, count, placed, rows, until};

#[test]
fn a_full_queue_is_busy_and_stores_nothing_of_it() {
    let database = Database::new();
    let options = Options { queue_max: 2, ..database.options(Some(1000)) };
    let (store, _) = database.open(&options);
    let mut raw = database.raw();
    // Nothing can be committed while another process holds the write lock.
    let transaction = raw.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let (mut tickets, mut accepted, mut refused) = (Vec::new(), Vec::new(), 0);
    // More refusals than what one group and the queue together could take.
    until("the queue is full", || {
        let document = format!("{}-{refused}", accepted.len());
        match store.append(vec![batch(1, &[&document], WINS)]) {
            Ok(ticket) => {
                tickets.push(ticket);
                accepted.push(document);
            }
            Err(error) => {
                assert_eq!(error, StoreError::Busy);
                refused += 1;
            }
        }
        refused >= 10
    });
    let mut closings = Vec::new();
    until("a close is refused too", || {
        let agency = 100 + closings.len() as u32;
        match store.close_agency(AgencyId(agency), None) {
            Ok(ticket) => closings.push(ticket),
            Err(error) => {
                assert_eq!(error, StoreError::Busy);
                return true;
            }
        }
        false
    });
    transaction.commit().unwrap();
    for ticket in tickets {
        assert_eq!(ticket.wait(), Ok(Ok(())));
    }
    let closed = closings.len() as u64;
    for ticket in closings {
        assert_eq!(ticket.wait().map(|closed| closed.is_ok()), Ok(true));
    }
    assert_eq!(rows(&raw, "SELECT document FROM bets ORDER BY id"), accepted);
    let status = store.newest_draw().unwrap();
    assert_eq!((status.bets, status.done), (accepted.len() as u64, closed));
    assert_eq!(append(&store, batch(1, &["later"], WINS)), Ok(()), "a retry helps");
}

#[test]
fn a_write_that_waits_too_long_for_another_process_is_busy_and_not_stored() {
    let database = Database::new();
    let store = database.open_expecting(1);
    let mut raw = database.raw();
    let lock = raw.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let ticket = store.append(vec![placed(1, 0, &["1"])]).unwrap();
    assert_eq!(ticket.wait(), Err(StoreError::Busy));
    lock.commit().unwrap();
    assert_eq!(store.newest_draw().unwrap().bets, 0);
    assert_eq!(append(&store, placed(1, 0, &["1"])), Ok(()), "a retry helps");
    assert_eq!(store.newest_draw().unwrap().bets, 1);
    assert_eq!(database.failures(), 0);
}

#[test]
fn a_draw_is_told_after_its_commit_and_before_anyone_reads_of_it() {
    let database = Database::new();
    let (committed, wait_committed) = mpsc::channel();
    let (go_on, wait_go_on) = mpsc::channel::<()>();
    let wait_go_on = Mutex::new(wait_go_on);
    let told = Arc::new(AtomicBool::new(false));
    let path = database.path();
    let observer: Observer = {
        let told = Arc::clone(&told);
        Arc::new(move |_| {
            let raw = Connection::open(&path).unwrap();
            // A test that has failed by now listens no more; a panic here would abort it.
            let _ = committed.send(count(&raw, "winners"));
            let _ = wait_go_on.lock().unwrap().recv_timeout(DEADLINE);
            told.store(true, Ordering::SeqCst);
        })
    };
    let (store, _) = SqliteStore::open(&database.options(Some(1)), observer).unwrap();
    append(&store, batch(1, &["1"], WINS)).unwrap();
    let closing = store.close_agency(AgencyId(1), None).unwrap();
    assert_eq!(wait_committed.recv_timeout(DEADLINE), Ok(1), "the observer sees what is committed");
    let reads: [fn(&SqliteStore) -> DrawStatus; 2] =
        [|store| store.newest_draw().unwrap(), |store| store.draw(DrawId(1)).unwrap().unwrap()];
    thread::scope(|scope| {
        let (answered, answers) = mpsc::channel();
        for read in reads {
            let (answered, told, store) = (answered.clone(), &told, &store);
            scope.spawn(move || {
                let drawn = read(store).drawn;
                answered.send((drawn, told.load(Ordering::SeqCst))).unwrap();
            });
        }
        // Time to answer too early, for one that would.
        let early = answers.recv_timeout(Duration::from_millis(100));
        go_on.send(()).unwrap();
        assert!(early.is_err(), "a read was answered before the draw was reported: {early:?}");
        for _ in reads {
            assert_eq!(answers.recv_timeout(DEADLINE), Ok((true, true)));
        }
    });
    assert_eq!(closing.wait().map(|closed| closed.is_ok()), Ok(true));
}

#[test]
fn after_a_write_that_failed_nothing_more_is_accepted_and_nothing_was_stored() {
    let database = Database::new();
    let store = database.open_expecting(1);
    append(&store, batch(1, &["1"], WINS)).unwrap();
    let raw = database.raw();
    raw.execute_batch(
        "CREATE TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .unwrap();
    let ticket = store.append(vec![batch(1, &["2"], WINS)]).unwrap();
    assert_eq!(ticket.wait(), Err(StoreError::Unknown));
    until("the owner is told", || database.failures() == 1);
    until("nothing more is accepted", || match store.append(vec![batch(1, &["3"], WINS)]) {
        Ok(ticket) => {
            assert_eq!(ticket.wait(), Err(StoreError::Unknown));
            false
        }
        Err(error) => {
            assert_eq!(error, StoreError::Unknown);
            true
        }
    });
    assert!(matches!(store.close_agency(AgencyId(1), None), Err(StoreError::Unknown)));
    assert_eq!(rows(&raw, "SELECT document FROM bets"), ["1"]);
    raw.execute_batch("DROP TRIGGER broken").unwrap();
    drop(store);
    let (store, recovery) = database.open(&database.options(None));
    assert_eq!(recovery.status.bets, 1);
    assert_eq!(append(&store, batch(1, &["2"], WINS)), Ok(()), "the next life goes on");
    assert_eq!(database.failures(), 1);
}
