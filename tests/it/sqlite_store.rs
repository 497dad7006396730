//! What the SQLite engine does beyond the contract: files, lives, views, and
//! other processes on the same database.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use sorteo::store::sqlite::{Checkpoints, Event, Observer, OpenError, Options, Recovery, SqliteStore};
use sorteo::store::{AppendRefusal, Appended, CloseRefusal, DrawStatus, Store, StoreError, Ticket};
use sorteo_protocol::{AgencyId, Batch, Bets, DrawId, UploadId, UploadPosition};

/// A failing test ends by this, never by hanging.
const DEADLINE: Duration = Duration::from_secs(10);

const WINS: u32 = 7574;

/// A database's file in a folder of its own, and what its stores told.
struct Database {
    folder: tempfile::TempDir,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Database {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), events: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sorteo.db")
    }

    fn options(&self, agencies: Option<u32>) -> Options {
        Options { agencies, ..Options::new(self.path()) }
    }

    fn observer(&self) -> Observer {
        let events = Arc::clone(&self.events);
        Arc::new(move |event| events.lock().unwrap().push(event))
    }

    /// One life of a server's store.
    fn open(&self, options: &Options) -> (SqliteStore, Recovery) {
        SqliteStore::open(options, self.observer()).unwrap()
    }

    fn open_expecting(&self, agencies: u32) -> SqliteStore {
        self.open(&self.options(Some(agencies))).0
    }

    fn open_error(&self, options: &Options) -> OpenError {
        match SqliteStore::open(options, self.observer()) {
            Ok(_) => panic!("{} was opened", options.database.display()),
            Err(error) => error,
        }
    }

    /// Another process's connection.
    fn raw(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(DEADLINE).unwrap();
        connection
    }

    /// Draws told of so far, over all lives.
    fn drawn_events(&self) -> Vec<DrawStatus> {
        let events = self.events.lock().unwrap();
        let drawn = events.iter().filter_map(|event| match event {
            Event::Drawn(status) => Some(*status),
            Event::Failed(_) => None,
        });
        drawn.collect()
    }

    fn failures(&self) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, Event::Failed(_))).count()
    }
}

fn batch(agency: u32, documents: &[&str], number: u32) -> Batch {
    let mut bets = Bets::default();
    for document in documents {
        bets.push(["Ana", "Paz", document, "1999-03-17", &number.to_string()]).unwrap();
    }
    Batch { agency: AgencyId(agency), bets, position: None }
}

fn placed(agency: u32, first_row: u64, documents: &[&str]) -> Batch {
    let upload = UploadId::new("u").unwrap();
    Batch { position: Some(UploadPosition { upload, first_row }), ..batch(agency, documents, WINS) }
}

fn append(store: &SqliteStore, batch: Batch) -> Appended {
    store.append(vec![batch]).unwrap().wait().unwrap()
}

fn close(store: &SqliteStore, agency: u32) -> Result<(), CloseRefusal> {
    store.close_agency(AgencyId(agency), None).unwrap().wait().unwrap().map(|_| ())
}

fn documents(store: &SqliteStore, draw: i64, agency: u32) -> Vec<String> {
    let winners = store.winners(DrawId(draw), AgencyId(agency), 0, 10_000).unwrap();
    winners.into_iter().map(|bet| bet.document).collect()
}

fn count(connection: &Connection, from: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {from}"), [], |row| row.get(0)).unwrap()
}

/// Rows of a query, each as its values joined with `|`.
fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values = (0..columns).map(|column| {
            use rusqlite::types::Value;
            Ok(match row.get(column)? {
                Value::Null => "NULL".to_owned(),
                Value::Integer(number) => number.to_string(),
                Value::Text(text) => text,
                other => format!("{other:?}"),
            })
        });
        Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        thread::yield_now();
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

// ---- Lives ------------------------------------------------------------------

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
    // What is told to a draw that is made changes nothing, and is no news.
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
    assert_eq!(recovery.status.expected, 2, "what is not told stays");
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
    assert_eq!(store.next_row(AgencyId(1), &UploadId::new("u").unwrap()), Ok(40));
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

// ---- What is not opened -----------------------------------------------------

#[test]
fn what_cannot_be_a_database_is_refused_and_nothing_is_made() {
    /// Makes what is in the way, and tells whether the error is the right one.
    struct Case {
        what: &'static str,
        make: fn(&Path),
        expected: fn(&OpenError) -> bool,
    }
    let cases = [
        Case {
            what: "a folder that is missing",
            make: |path| fs::remove_dir(path.parent().unwrap()).unwrap(),
            expected: |error| matches!(error, OpenError::NoFolder(_)),
        },
        Case {
            what: "a file where the folder should be",
            make: |path| {
                let folder = path.parent().unwrap();
                fs::remove_dir(folder).unwrap();
                fs::write(folder, "a file").unwrap();
            },
            expected: |error| matches!(error, OpenError::NoFolder(_)),
        },
        Case {
            what: "a folder where the file should be",
            make: |path| fs::create_dir(path).unwrap(),
            expected: |error| matches!(error, OpenError::NotAFile(_)),
        },
        Case {
            what: "a text",
            make: |path| fs::write(path, "agency,document\n".repeat(50)).unwrap(),
            expected: |error| matches!(error, OpenError::NotSqlite(_)),
        },
        Case {
            what: "a short text",
            make: |path| fs::write(path, "x").unwrap(),
            expected: |error| matches!(error, OpenError::NotSqlite(_)),
        },
        Case {
            what: "a database's first bytes only",
            make: |path| fs::write(path, b"SQLite format 3\0\x10\x00\x01\x01").unwrap(),
            expected: |error| matches!(error, OpenError::NotSqlite(_)),
        },
    ];
    for Case { what, make, expected } in cases {
        let database = Database::new();
        let folder = database.folder.path().join("data");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("sorteo.db");
        make(&path);
        let before = (snapshot(database.folder.path()), fs::read(&path).ok());
        let error = database.open_error(&Options::new(&path));
        assert!(expected(&error), "{what}: {error:?}");
        let shown = error.to_string();
        assert!(shown.contains(folder.to_str().unwrap()), "{what}: {shown} names it");
        let after = (snapshot(database.folder.path()), fs::read(&path).ok());
        assert_eq!(after, before, "{what} was left alone");
    }
}

/// All names below a folder.
fn snapshot(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            names.extend(snapshot(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        }
        names.push(name);
    }
    names
}

#[test]
fn another_programs_database_is_left_as_it_is() {
    for (what, sql) in [
        ("a table", "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')"),
        (
            "tables named as ours",
            "CREATE TABLE draws (id INTEGER PRIMARY KEY); CREATE TABLE bets (id INTEGER PRIMARY KEY)",
        ),
        (
            "another application's",
            "PRAGMA application_id = 7; PRAGMA user_version = 99; CREATE TABLE notes (text TEXT)",
        ),
    ] {
        let database = Database::new();
        database.raw().execute_batch(sql).unwrap();
        let before = fs::read(database.path()).unwrap();
        let error = database.open_error(&database.options(Some(1)));
        assert!(matches!(error, OpenError::Foreign(_)), "{what}: {error:?}");
        assert_eq!(fs::read(database.path()).unwrap(), before, "{what}");
        assert!(database.drawn_events().is_empty());
    }
}

/// What the power leaves of a first page when it goes while the database is made: its
/// length and not its bytes, or its bytes and not its length. The journal undoes both.
#[test]
fn a_database_whose_making_was_cut_short_is_made_again() {
    let mut torn = vec![0; 3584];
    // The magic, pages of 4096 bytes, a rollback journal, 1 page in all, an empty b-tree.
    torn[..36].copy_from_slice(b"SQLite format 3\0\x10\0\x02\x02\0\x40\x20\x20\0\0\0\x01\0\0\0\x01\0\0\0\0");
    torn[95] = 1;
    torn[100] = 0x0d;
    for (found, without_journal) in [(vec![0; 4096], "not a SQLite database"), (torn, "cut short")] {
        let database = Database::new();
        let options = database.options(None);
        fs::write(database.path(), found).unwrap();
        let refused = database.open_error(&options).to_string();
        assert!(refused.contains(without_journal), "nobody knows what it was: {refused}");
        let mut journal = vec![0; 512];
        // The magic, no pages, a checksum, 0 pages before, sectors of 512 bytes, pages of 4096.
        journal[..28].copy_from_slice(
            b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7\0\0\0\0\xe1\x20\xbe\x56\0\0\0\0\0\0\x02\0\0\0\x10\0",
        );
        fs::write(database.path().with_file_name("sorteo.db-journal"), journal).unwrap();
        let (store, recovery) = database.open(&options);
        assert_eq!(recovery.status.bets, 0);
        assert_eq!(append(&store, batch(1, &["30904465"], 7574)), Ok(()));
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let database = Database::new();
    let store = database.open_expecting(1);
    append(&store, batch(1, &["1"], WINS)).unwrap();
    store.close();
    let raw = database.raw();
    let known: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    raw.pragma_update(None, "user_version", known + 1).unwrap();
    // While it is open the new version is in the log, then it is in the file.
    for raw in [Some(raw), None] {
        drop(raw);
        let before = fs::read(database.path()).unwrap();
        match database.open_error(&database.options(Some(5))) {
            OpenError::Newer { found, known: told, path } => {
                assert_eq!((found, told), (known + 1, known));
                assert_eq!(path, database.path());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(database.path()).unwrap(), before);
    }
    // With its version back it is the database that it was.
    database.raw().pragma_update(None, "user_version", known).unwrap();
    let (_store, recovery) = database.open(&database.options(None));
    assert_eq!((recovery.status.bets, recovery.status.expected), (1, 1));
}

#[test]
fn a_link_to_a_database_is_that_database() {
    let database = Database::new();
    let link = database.folder.path().join("link.db");
    std::os::unix::fs::symlink(database.path(), &link).unwrap();
    let (store, _) = database.open(&Options::new(&link));
    assert!(matches!(database.open_error(&database.options(None)), OpenError::Held(_)));
    append(&store, batch(1, &["1"], 1)).unwrap();
    let names = names_in(database.folder.path());
    assert!(!names.iter().any(|name| name.starts_with("link.db-") || name == "link.db.lock"), "{names:?}");
    store.close();
    let (by_name, recovery) = database.open(&database.options(None));
    assert_eq!(recovery.status.bets, 1);
    by_name.close();
}

#[test]
fn one_server_at_a_time_holds_a_database() {
    let database = Database::new();
    let options = database.options(Some(1));
    let (store, _) = database.open(&options);
    for _ in 0..2 {
        let error = database.open_error(&options);
        assert!(matches!(&error, OpenError::Held(path) if *path == database.path()), "{error:?}");
    }
    assert_eq!(append(&store, batch(1, &["1"], WINS)), Ok(()), "the first is not disturbed");
    store.close();
    let (store, recovery) = database.open(&options);
    assert_eq!(recovery.status.bets, 1);
    drop(store);
    let (_store, recovery) = database.open(&options);
    assert!(!recovery.created);
}

// ---- Other processes on the same file -----------------------------------------

fn raw_done(connection: &Connection, agency: u32) {
    connection
        .execute(
            r#"INSERT INTO done_agencies (draw_id, agency, bet_count, done_at, "by")
               VALUES ((SELECT max(id) FROM draws), $1, 0, '2026-11-21T20:31:05.000Z', 'operator')"#,
            [agency],
        )
        .unwrap();
}

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
    assert_eq!(store.next_row(AgencyId(1), &UploadId::new("u").unwrap()), Ok(0));
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
    assert_eq!(wait_committed.recv_timeout(DEADLINE), Ok(1), "the observer is told of what is committed");
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
        assert!(early.is_err(), "a read was answered before the draw was told: {early:?}");
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

// ---- What a person with `sqlite3` sees ----------------------------------------

#[test]
fn the_views_show_who_won_and_how_far_everyone_is() {
    let database = Database::new();
    let store = database.open_expecting(2);
    append(&store, placed(2, 0, &["007", "8"])).unwrap();
    append(&store, batch(1, &["9"], WINS)).unwrap();
    append(&store, batch(2, &["10", "11"], 1)).unwrap();
    append(&store, batch(2, &["12"], WINS)).unwrap();
    close(&store, 2).unwrap();
    let raw = database.raw();
    let standings =
        "SELECT draw, state, done, expected, complete, bets, winners, winning_number FROM standings";
    let agencies = "SELECT draw, agency, bets, batches, state FROM agencies";
    let results = "SELECT draw, agency, document, first_name, last_name, birthdate, number FROM results";
    assert_eq!(rows(&raw, standings), ["1|open|1|2|0|6|0|7574"]);
    assert_eq!(rows(&raw, agencies), ["1|1|1|1|betting", "1|2|5|3|done"]);
    assert_eq!(rows(&raw, results), [""; 0], "nobody has won yet");
    close(&store, 3).unwrap();
    assert_eq!(rows(&raw, standings), ["1|drawn|2|2|1|6|4|7574"]);
    assert_eq!(
        rows(&raw, agencies),
        ["1|1|1|1|betting", "1|2|5|3|done", "1|3|0|0|done"],
        "one that only said that it is done is seen too"
    );
    assert_eq!(
        rows(&raw, results),
        [
            "1|1|9|Ana|Paz|1999-03-17|7574",
            "1|2|007|Ana|Paz|1999-03-17|7574",
            "1|2|8|Ana|Paz|1999-03-17|7574",
            "1|2|12|Ana|Paz|1999-03-17|7574",
        ]
    );
    let done = rows(&raw, r#"SELECT agency, bet_count, "by" FROM done_agencies ORDER BY agency"#);
    assert_eq!(done, ["2|5|agency", "3|0|agency"]);
}

#[test]
fn bets_and_the_audit_can_only_grow() {
    let database = Database::new();
    let store = database.open_expecting(2);
    append(&store, batch(1, &["1"], 1)).unwrap();
    store.close();
    database.open_expecting(3).close();
    let raw = database.raw();
    let kept = |raw: &Connection| (rows(raw, "SELECT * FROM bets"), rows(raw, "SELECT * FROM audit"));
    let before = kept(&raw);
    assert_eq!((before.0.len(), before.1.len()), (1, 3));
    for forbidden in [
        "UPDATE bets SET number = 7574",
        "UPDATE bets SET document = '2' WHERE id = 1",
        "DELETE FROM bets",
        "DELETE FROM bets WHERE id = 1",
        "UPDATE audit SET detail = ''",
        "DELETE FROM audit",
    ] {
        let error = raw.execute(forbidden, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{forbidden}: {error}");
        assert_eq!(kept(&raw), before, "{forbidden}");
    }
}

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
