//! Other processes that write to the same database.

use std::fs;
use std::sync::mpsc;
use std::thread;

use rusqlite::{Connection, params};
use sorteo::import::{self, ImportError};
use sorteo::store::sqlite::operator::{DrawTerms, Operator};
use sorteo::store::{AppendRefusal, CloseRefusal, Store};
use sorteo_protocol::{AgencyId, DrawId, UploadId};

use super::{Database, WINS, append, batch, close, count, documents, placed, raw_done};

/// Makes the newest draw as another process would. Answers whether it did.
fn raw_draw(connection: &Connection) -> bool {
    let changed = connection
        .execute(
            "UPDATE draws SET drawn_at = '2026-11-21T20:31:05.000Z'
              WHERE id = (SELECT max(id) FROM draws) AND drawn_at IS NULL",
            [],
        )
        .unwrap();
    connection
        .execute_batch(
            "INSERT OR IGNORE INTO winners (draw_id, agency, bet_id)
             SELECT draw_id, agency, id FROM bets
              WHERE draw_id = (SELECT max(id) FROM draws) AND number = 7574;
             UPDATE draws SET winners = (SELECT count(*) FROM winners WHERE draw_id = draws.id)",
        )
        .unwrap();
    changed == 1
}

#[test]
fn what_another_process_stored_closed_or_drew_is_respected() {
    let database = Database::new();
    let store = database.open_expecting(3);
    let first = placed(1, 0, &["1"]);
    let raw = database.raw();
    // Stored by the other, as this very batch would be.
    raw.execute(
        "INSERT INTO batches (draw_id, agency, upload, first_row, bet_count, digest, stored_at)
         VALUES (1, 1, 'u', 0, 1, $1, '')",
        params![first.bets.digest().0],
    )
    .unwrap();
    raw.execute_batch(
        "INSERT INTO agency_totals VALUES (1, 1, 1, 1, 0, 0); UPDATE draws SET bets = 1, agencies = 1",
    )
    .unwrap();
    assert_eq!(append(&store, first), Ok(()));
    assert_eq!(count(&raw, "bets"), 0, "it is stored already, as far as we know");
    assert_eq!(append(&store, placed(1, 0, &["x"])), Err(AppendRefusal::Conflict));
    assert_eq!(append(&store, placed(1, 2, &["x"])), Err(AppendRefusal::Gap { next_row: 1 }));
    assert_eq!(append(&store, placed(1, 1, &["2"])), Ok(()));
    assert_eq!(
        store.close_agency(AgencyId(1), Some(1)).unwrap().wait(),
        Ok(Err(CloseRefusal::CountMismatch { stored: 2 }))
    );

    raw_done(&raw, 1);
    assert_eq!(append(&store, placed(1, 2, &["3"])), Err(AppendRefusal::AgencyDone));
    assert_eq!(store.newest_draw().unwrap().done, 1);

    assert!(raw_draw(&raw));
    assert_eq!(append(&store, batch(2, &["4"], WINS)), Err(AppendRefusal::DrawClosed));
    assert_eq!(close(&store, 2), Ok(()));
    assert_eq!(close(&store, 3), Ok(()));
    let status = store.newest_draw().unwrap();
    assert!(status.drawn);
    assert_eq!(documents(&store, 1, 1), ["2"]);
    assert!(database.drawn_events().is_empty(), "the other made the draw");
    assert_eq!(count(&raw, "bets"), 1);
}

#[test]
fn a_draw_that_another_process_is_committing_is_not_made_again() {
    let database = Database::new();
    let store = database.open_expecting(1);
    append(&store, batch(1, &["1"], WINS)).unwrap();
    let mut raw = database.raw();
    let transaction = raw.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    raw_done(&transaction, 1);
    assert!(raw_draw(&transaction));
    let closing = store.close_agency(AgencyId(1), None).unwrap();
    let late = store.append(vec![batch(1, &["late"], WINS)]).unwrap();
    assert!(!store.newest_draw().unwrap().drawn, "it is not committed");
    transaction.commit().unwrap();
    assert_eq!(closing.wait().map(|closed| closed.is_ok()), Ok(true));
    assert_eq!(late.wait(), Ok(Err(AppendRefusal::DrawClosed)));
    assert!(database.drawn_events().is_empty());
    assert_eq!(documents(&store, 1, 1), ["1"]);
}

#[test]
fn two_processes_that_close_the_last_agency_make_one_draw() {
    for _ in 0..20 {
        let database = Database::new();
        let store = database.open_expecting(1);
        append(&store, batch(1, &["1"], WINS)).unwrap();
        let mut raw = database.raw();
        let (ready, both_ready) = mpsc::channel();
        let drew = thread::scope(|scope| {
            let other = scope.spawn(move || {
                ready.send(()).unwrap();
                let transaction =
                    raw.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
                let drew = raw_draw(&transaction);
                transaction.commit().unwrap();
                drew
            });
            both_ready.recv().unwrap();
            assert_eq!(close(&store, 1), Ok(()));
            other.join().unwrap()
        });
        assert_eq!(database.drawn_events().len() + usize::from(drew), 1);
        let status = store.newest_draw().unwrap();
        assert_eq!((status.drawn, status.winners), (true, 1));
    }
}

#[test]
fn the_next_draw_starts_afresh_and_the_last_one_stays() {
    let database = Database::new();
    let store = database.open_expecting(1);
    append(&store, placed(1, 0, &["1", "2"])).unwrap();
    close(&store, 1).unwrap();
    let first = store.newest_draw().unwrap();
    database
        .raw()
        .execute_batch(
            "INSERT INTO draws (winning_number, expected_agencies, opened_at) VALUES (7574, 2, '')",
        )
        .unwrap();
    let second = store.newest_draw().unwrap();
    assert_eq!((second.draw, second.bets, second.drawn), (DrawId(2), 0, false));
    assert_eq!(store.draw(DrawId(1)), Ok(Some(first)));
    let next_row = |draw| store.next_row(DrawId(draw), AgencyId(1), &UploadId::new("u").unwrap());
    assert_eq!((next_row(1), next_row(2)), (Ok(2), Ok(0)));
    assert_eq!(append(&store, placed(1, 0, &["3"])), Ok(()), "the name is free again");
    assert_eq!(append(&store, batch(2, &["4"], WINS)), Ok(()));
    assert_eq!(
        store.close_agency(AgencyId(1), Some(3)).unwrap().wait(),
        Ok(Err(CloseRefusal::CountMismatch { stored: 1 })),
        "bets of the last draw do not count"
    );
    close(&store, 1).unwrap();
    close(&store, 2).unwrap();
    assert_eq!(documents(&store, 1, 1), ["1", "2"], "winners never change");
    assert_eq!(documents(&store, 2, 1), ["3"]);
    assert_eq!(documents(&store, 2, 2), ["4"]);
    assert_eq!(store.draw(DrawId(1)), Ok(Some(first)));
    assert_eq!(database.drawn_events().len(), 2);
    store.close();
    let (_store, recovery) = database.open(&database.options(None));
    assert_eq!((recovery.status.draw, recovery.drawn_now), (DrawId(2), false));
}

#[test]
fn an_import_stores_nothing_in_the_next_draw() {
    let database = Database::new();
    let store = database.open_expecting(1);
    let file = database.folder.path().join("bets.csv");
    let rows: String = (0..10_001).map(|row| format!("1,Ana,Paz,{row},1999-03-17,1\n")).collect();
    fs::write(&file, rows).unwrap();
    let mut operator = Operator::open(&database.path()).unwrap();
    let imported = import::check(&file).unwrap().store_in(&store, &mut |stored, _| {
        if stored == 10_000 {
            // In the middle of it, the agency is taken for silent, and the next draw opens.
            assert!(operator.close_agency(AgencyId(1), "silent", false).unwrap().drawn_now);
            operator.open_draw(DrawTerms::default()).unwrap();
        }
    });
    assert!(matches!(imported, Err(ImportError::DrawClosed(DrawId(1)))), "{imported:?}");
    assert_eq!(store.draw(DrawId(1)).unwrap().unwrap().bets, 10_000);
    let newest = store.newest_draw().unwrap();
    assert_eq!((newest.draw, newest.bets), (DrawId(2), 0));
}
