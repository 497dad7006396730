//! What the SQLite engine does beyond the contract of `store_contract`.

mod opening;
mod other_processes;
mod reopening;
mod views;
mod wal;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sorteo::store::sqlite::{Event, Observer, OpenError, Options, Recovery, SqliteStore};
use sorteo::store::{Appended, CloseRefusal, DrawStatus, ExpectedAgencies, Store};
use sorteo_protocol::{AgencyId, Batch, Bets, DrawId, UploadId, UploadPosition};

/// The deadline of every wait. It only ends a test that hangs.
const DEADLINE: Duration = Duration::from_secs(10);
const WINS: u32 = 7574;

/// A database in a folder of its own, and the events of its stores.
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
        Options { agencies: agencies.map(ExpectedAgencies::from), ..Options::new(self.path()) }
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

    /// How many draws all stores have reported so far.
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
    Batch {
        position: Some(UploadPosition { upload, first_row, draw: None }),
        ..batch(agency, documents, WINS)
    }
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

/// Declares an agency done in the newest draw, as another process would.
fn raw_done(connection: &Connection, agency: u32) {
    connection
        .execute_batch(&format!(
            r#"INSERT OR IGNORE INTO agency_totals (draw_id, agency) SELECT max(id), {agency} FROM draws;
               UPDATE draws SET agencies = (SELECT count(*) FROM agency_totals WHERE draw_id = draws.id);
               INSERT INTO done_agencies (draw_id, agency, bet_count, done_at, "by")
               SELECT draw_id, agency, bets, '2026-11-21T20:31:05.000Z', 'operator' FROM agency_totals
                WHERE draw_id = (SELECT max(id) FROM draws) AND agency = {agency};
               UPDATE draws SET done = done + 1 WHERE id = (SELECT max(id) FROM draws);"#
        ))
        .unwrap();
}
