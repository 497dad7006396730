//! A database that is closed, or whose process dies, and is opened again.

use std::fs;

use sorteo::store::sqlite::{Options, Recovery};
use sorteo::store::{AppendRefusal, Appended, Store, Ticket};
use sorteo_protocol::{AgencyId, DrawId, UploadId};

use super::{Database, WINS, append, batch, close, count, documents, placed, raw_done, rows};

#[test]
fn reopening_keeps_everything_and_makes_no_second_draw() {
    let database = Database::new();
    let options = database.options(Some(2));
    let (store, recovery) = database.open(&options);
    assert!(recovery.created && !recovery.drawn_now);
    assert_eq!(recovery.status, store.newest_draw().unwrap());
    append(&store, placed(1, 0, &["1", "2"])).unwrap();
    append(&store, batch(2, &["3"], 1)).unwrap();
    close(&store, 1).unwrap();
    let open_standing = store.newest_draw().unwrap();
    store.close();

    let (store, recovery) = database.open(&options);
    let expected =
        Recovery { created: false, status: open_standing, drawn_now: false, terms_not_taken: Vec::new() };
    assert_eq!(recovery, expected);
    assert_eq!((open_standing.bets, open_standing.done), (3, 1));
    assert_eq!(append(&store, placed(1, 0, &["1", "2"])), Ok(()), "stored already");
    assert_eq!(append(&store, placed(1, 2, &["9"])), Err(AppendRefusal::AgencyDone));
    close(&store, 2).unwrap();
    let drawn_standing = store.newest_draw().unwrap();
    assert!(drawn_standing.drawn);
    store.close();

    for _ in 0..2 {
        let (store, recovery) = database.open(&options);
        let expected = Recovery {
            created: false,
            status: drawn_standing,
            drawn_now: false,
            terms_not_taken: Vec::new(),
        };
        assert_eq!(recovery, expected);
        assert_eq!(documents(&store, 1, 1), ["1", "2"]);
        assert_eq!(close(&store, 2), Ok(()));
        assert_eq!(append(&store, batch(3, &["9"], WINS)), Err(AppendRefusal::DrawClosed));
        store.close();
    }
    assert_eq!(database.drawn_events(), [drawn_standing], "one draw in four lives");
}

#[test]
fn a_draw_that_is_due_by_fewer_agencies_is_made_when_the_database_is_opened() {
    let database = Database::new();
    let store = database.open_expecting(3);
    append(&store, batch(1, &["1"], WINS)).unwrap();
    close(&store, 1).unwrap();
    close(&store, 2).unwrap();
    store.close();
    let (store, recovery) = database.open(&database.options(Some(2)));
    assert!(recovery.drawn_now && recovery.status.drawn && !recovery.created);
    assert_eq!((recovery.status.expected, recovery.status.winners), (2, 1));
    assert_eq!(store.newest_draw().unwrap(), recovery.status);
    assert_eq!(documents(&store, 1, 1), ["1"]);
    store.close();
    let audit = rows(&database.raw(), "SELECT action, draw_id, detail FROM audit ORDER BY id");
    assert_eq!(audit[..2], ["serve|1|expected_agencies set to 3", "serve|1|winning_number set to 7574"]);
    assert_eq!(audit[2..], ["serve|1|expected_agencies set to 2"]);
    // Terms given to a draw that is drawn change nothing, and are not audited.
    let (store, again) = database.open(&database.options(Some(7)));
    assert!(!again.drawn_now);
    assert_eq!(again.status, recovery.status);
    store.close();
    assert_eq!(database.drawn_events(), [recovery.status]);
    assert_eq!(count(&database.raw(), "audit"), 3);
}

#[test]
fn a_draw_that_is_due_by_another_process_is_made_when_the_database_is_opened() {
    let database = Database::new();
    let store = database.open_expecting(2);
    append(&store, batch(1, &["1"], WINS)).unwrap();
    close(&store, 1).unwrap();
    store.close();
    raw_done(&database.raw(), 2);
    let (store, recovery) = database.open(&database.options(None));
    assert!(recovery.drawn_now);
    assert_eq!(recovery.status.expected, 2, "a term that is not given stays");
    assert_eq!(documents(&store, 1, 1), ["1"]);
    assert_eq!(database.drawn_events(), [recovery.status]);
}

#[test]
fn what_a_draw_is_opened_with_and_what_is_told_later_holds_and_is_audited_once() {
    let database = Database::new();
    database.open(&database.options(None)).0.close();
    let told = Options { winning_number: Some(5), ..database.options(Some(2)) };
    for options in [&told, &told, &database.options(None)] {
        let (store, recovery) = database.open(options);
        let status = recovery.status;
        assert_eq!((status.winning_number, status.expected), (5, 2));
        store.close();
    }
    let audit = rows(&database.raw(), "SELECT action, draw_id, detail FROM audit ORDER BY id");
    assert_eq!(audit[..2], ["serve|1|expected_agencies inferred", "serve|1|winning_number set to 7574"]);
    assert_eq!(audit[2..], ["serve|1|expected_agencies set to 2", "serve|1|winning_number set to 5"]);
}

#[test]
fn dropping_without_closing_loses_nothing_acknowledged() {
    let database = Database::new();
    let store = database.open_expecting(2);
    for row in 0..20 {
        append(&store, placed(1, row, &[&row.to_string()])).unwrap();
    }
    // These are submitted, and answered though the store goes away.
    let tickets: Vec<Ticket<Appended>> = (20..40)
        .map(|row: u64| {
            let batch = placed(1, row, &[&row.to_string()]);
            store.append(vec![batch]).unwrap()
        })
        .collect();
    drop(store);
    for ticket in tickets {
        assert_eq!(ticket.wait(), Ok(Ok(())));
    }
    let (store, recovery) = database.open(&database.options(None));
    assert_eq!(recovery.status.bets, 40);
    assert_eq!(store.next_row(DrawId(1), AgencyId(1), &UploadId::new("u").unwrap()), Ok(40));
    assert_eq!(database.failures(), 0);
}

#[test]
fn after_closing_the_database_is_one_whole_file() {
    let database = Database::new();
    let store = database.open_expecting(2);
    append(&store, batch(1, &["1", "2"], WINS)).unwrap();
    store.close();
    let log = fs::metadata(database.folder.path().join("sorteo.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "the log is in the database");
    let copy = database.folder.path().join("copy.db");
    fs::copy(database.path(), &copy).unwrap();
    let (copied, recovery) = database.open(&Options::new(copy));
    assert_eq!(recovery.status.bets, 2);
    copied.close();
}
