//! A small lottery played through the store, with one draw drawn and the next one open, and
//! what its files may contain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use sorteo::store::Store as _;
use sorteo::store::sqlite::{Options, SqliteStore};
use sorteo_protocol::{AgencyId, Batch, Bets, UploadId, UploadPosition};
use tempfile::TempDir;

pub const AGENCIES: u32 = 4;
/// Agencies that still bet in the draw that is open.
pub const BETTING: [u32; 2] = [3, 4];
/// The draw that is open; the one before it is made.
pub const OPEN_DRAW: i64 = 2;
/// Of the draw that is made, and of the open one.
const WINNING_NUMBERS: [u32; 2] = [7574, 99];
/// Bets of the batches of an agency's upload.
const BATCHES: [usize; 3] = [7, 40, 3];

/// The winning bets' rows by draw and agency, in stored order.
pub type Winners = BTreeMap<(i64, u32), Vec<String>>;

/// A database's files, and what they may be found to say.
pub struct Case {
    pub database: Vec<u8>,
    pub log: Vec<u8>,
    /// After each commit in the log; the first is without it.
    pub states: Vec<State>,
}

/// What a database contains, and who must win once its open draw is drawn.
#[derive(Clone)]
pub struct State {
    pub content: Content,
    pub winners: Winners,
}

impl Case {
    /// One whole file.
    pub fn closed() -> Self {
        let folder = Folder::new();
        let mut game = Game::new(folder.database());
        game.open(1);
        (1..=AGENCIES).for_each(|agency| game.bet(agency));
        (1..=AGENCIES).for_each(|agency| game.close(agency));
        game.end();
        open_next_draw(&folder.database());
        game.open(2);
        (1..=AGENCIES).for_each(|agency| game.bet(agency));
        (1..=AGENCIES).filter(|agency| !BETTING.contains(agency)).for_each(|agency| game.close(agency));
        game.end();
        let state = State { content: Content::read(&folder.database()).unwrap(), winners: game.winners };
        Self { database: folder.read("sorteo.db"), log: Vec::new(), states: vec![state] }
    }

    /// A database and a log of commits behind it, as a crash leaves them.
    pub fn in_the_log() -> Self {
        let Self { database, states, .. } = Self::closed();
        let folder = Folder::new();
        fs::write(folder.database(), &database).unwrap();
        // As long as a transaction reads the earlier state, nothing is copied from
        // the WAL into the database.
        let reader = Connection::open(folder.database()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM draws").unwrap();
        let mut game = Game::new(folder.database());
        game.winners = states[0].winners.clone();
        game.states = Some(states);
        game.open(2);
        for agency in BETTING {
            game.append(agency, 20, Some(("agencia", 50)));
            game.append(agency, 8, None);
        }
        BETTING.into_iter().for_each(|agency| game.close(agency));
        let states = game.states.take().unwrap();
        let case = Self { database: folder.read("sorteo.db"), log: folder.read("sorteo.db-wal"), states };
        assert!(case.database == database && !case.log.is_empty(), "all of it is in the log");
        drop(reader);
        game.end();
        case
    }

    /// The same after a checkpoint, before the WAL starts again from its beginning.
    pub fn copied_from_the_log() -> Self {
        let case = Self::in_the_log();
        let folder = Folder::new();
        folder.write(&case.database, &case.log);
        let connection = Connection::open(folder.database()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        let copied = Self { database: folder.read("sorteo.db"), ..case };
        assert!(folder.read("sorteo.db-wal") == copied.log, "the log is as it was");
        copied
    }
}

/// A folder of a test's own.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn database(&self) -> PathBuf {
        self.0.path().join("sorteo.db")
    }

    /// Both files, and nothing else.
    pub fn write(&self, database: &[u8], log: &[u8]) {
        for entry in fs::read_dir(self.0.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(self.database(), database).unwrap();
        if !log.is_empty() {
            fs::write(self.0.path().join("sorteo.db-wal"), log).unwrap();
        }
    }

    /// What both files hold now. An empty log is none.
    pub fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let log = fs::read(self.0.path().join("sorteo.db-wal")).unwrap_or_default();
        (self.read("sorteo.db"), log)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(name)).unwrap()
    }
}

pub fn options(path: &Path) -> Options {
    Options { readers: 1, ..Options::new(path) }
}

/// Plays a lottery, and records who must win.
struct Game {
    path: PathBuf,
    store: Option<SqliteStore>,
    draw: i64,
    winners: Winners,
    /// What was to be seen after each write, where it is asked for.
    states: Option<Vec<State>>,
}

impl Game {
    fn new(path: PathBuf) -> Self {
        let all = (1..=2).flat_map(|draw| (1..=AGENCIES).map(move |agency| ((draw, agency), Vec::new())));
        Self { path, store: None, draw: 0, winners: all.collect(), states: None }
    }

    fn open(&mut self, draw: i64) {
        let options = Options { agencies: Some(AGENCIES.into()), ..options(&self.path) };
        self.store = Some(SqliteStore::open(&options, Arc::new(|_| {})).unwrap().0);
        self.draw = draw;
    }

    fn end(&mut self) {
        self.store.take().unwrap().close();
    }

    /// An upload of several batches, one of a single batch, and a batch without a place.
    fn bet(&mut self, agency: u32) {
        let mut first_row = 0;
        for bets in BATCHES {
            self.append(agency, bets, Some(("agencia", first_row)));
            first_row += bets as u64;
        }
        self.append(agency, 10, Some(("otra", 0)));
        // No two agencies have as many, so that the count shows which are done.
        self.append(agency, 4 + agency as usize, None);
    }

    fn append(&mut self, agency: u32, bets: usize, position: Option<(&str, u64)>) {
        let wins = format!("|{}", WINNING_NUMBERS[self.draw as usize - 1]);
        let mut rows = Bets::default();
        let before = self.store().newest_draw().unwrap().bets as usize;
        for row in before..before + bets {
            let line = row_of(self.draw, agency, row);
            if line.ends_with(&wins) {
                self.winners.get_mut(&(self.draw, agency)).unwrap().push(line.clone());
            }
            rows.push_line(&line).unwrap();
        }
        let position = position.map(|(upload, first_row)| UploadPosition {
            upload: UploadId::new(upload).unwrap(),
            first_row,
            draw: None,
        });
        let batch = Batch { agency: AgencyId(agency), bets: rows, position };
        self.store().append(vec![batch]).unwrap().wait().unwrap().unwrap();
        self.note();
    }

    fn close(&mut self, agency: u32) {
        self.store().close_agency(AgencyId(agency), None).unwrap().wait().unwrap().unwrap();
        self.note();
    }

    fn note(&mut self) {
        if let Some(states) = &mut self.states {
            let content = Content::read(&self.path).unwrap();
            states.push(State { content, winners: self.winners.clone() });
        }
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }
}

/// A bet; one in seven wins in each draw, and another is one bit away from it.
fn row_of(draw: i64, agency: u32, row: usize) -> String {
    let first_name = ["Ana", "Joaquín Ñ.", "Santiago Lionel", "Zoe"][row % 4];
    let number = [7574, 99, 7575, 0, u32::MAX, 7574 ^ 4096, 98][row % 7];
    format!("{first_name}|Lorca de la Torre|{draw}{agency}{row:05}|19{:02}-03-17|{number}", 40 + row % 60)
}

/// A batch that takes pages of its own, and the rows in it that must win.
pub fn late_batch(agency: u32) -> (Batch, Vec<String>) {
    let lines: Vec<String> = (90_000..90_150).map(|row| row_of(OPEN_DRAW, agency, row)).collect();
    let mut bets = Bets::default();
    lines.iter().for_each(|line| bets.push_line(line).unwrap());
    let wins = format!("|{}", WINNING_NUMBERS[OPEN_DRAW as usize - 1]);
    let winners = lines.into_iter().filter(|line| line.ends_with(&wins)).collect();
    (Batch { agency: AgencyId(agency), bets, position: None }, winners)
}

/// As an operator could do it with SQL alone.
fn open_next_draw(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute(
            "INSERT INTO draws (winning_number, expected_agencies, opened_at)
             VALUES ($1, $2, '2026-11-21T20:31:05.000Z')",
            [WINNING_NUMBERS[1], AGENCIES],
        )
        .unwrap();
    connection.close().unwrap();
}

/// All that a database says.
#[derive(Clone, Debug, PartialEq)]
pub struct Content(Vec<Table>);

#[derive(Clone, Debug, PartialEq)]
struct Table {
    name: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

const TABLES: [&str; 7] = ["sqlite_schema", "draws", "bets", "batches", "done_agencies", "winners", "audit"];

impl Content {
    pub fn read(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let read_table = |name| {
            let mut statement = connection.prepare(&format!("SELECT * FROM {name}"))?;
            let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
            let width = columns.len();
            let rows = statement
                .query_map([], |row| (0..width).map(|column| row.get(column)).collect())?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Table { name, columns, rows })
        };
        TABLES.into_iter().map(read_table).collect::<rusqlite::Result<_>>().map(Self)
    }

    /// Names what is different: `table.column`, or `table` where the rows are
    /// others. Where pages lie is no content.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (one, other) in self.0.iter().zip(&other.0) {
            if one.columns != other.columns || one.rows.len() != other.rows.len() {
                found.push(one.name.to_owned());
                continue;
            }
            for (column, name) in one.columns.iter().enumerate() {
                if one.rows.iter().zip(&other.rows).any(|(a, b)| a[column] != b[column]) {
                    found.push(format!("{}.{name}", one.name));
                }
            }
        }
        found
    }
}
