//! What simulated agencies sent and which replies they got, and the checker that compares
//! it with the database. Every test of this suite ends with it.
//!
//! Every row that is ever sent is unique, so a row in the database belongs to
//! one batch of the history. A batch may have been tried several times; what
//! must hold follows from all that was ever answered:
//!
//! | answers | must hold |
//! |---|---|
//! | an OK | stored whole, each row once (I1) |
//! | no OK, and an attempt without an answer | stored whole, or not at all (I2) |
//! | refusals only | not stored |
//!
//! The positions in an upload (I3) are checked by the replies that the agencies expect, the
//! draw (I4) by comparing the winners that they got with the tables, and by
//! [`sorteo::store::sqlite::check`], which every database must pass.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};
use sorteo::store::sqlite::check;

use crate::workplace::count;

/// What an operation came to, as far as the agency knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Ok,
    /// It was refused, for this reason.
    Refused(String),
    /// No answer came.
    Unknown,
}

/// Everything that the agencies of one round did.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    /// By agency and first row: a batch, which is tried again with the same rows or never.
    batches: BTreeMap<(u32, String), SentBatch>,
    /// The agencies whose `DONE` was answered OK, each with its number of bets if it sent one.
    done: BTreeMap<u32, Option<u64>>,
    /// The winners that each agency received, once for each time.
    winners: Vec<(u32, Vec<String>)>,
    /// What must never happen and was seen as it happened.
    violations: Vec<String>,
}

#[derive(Debug)]
struct SentBatch {
    rows: Vec<String>,
    outcomes: Vec<Outcome>,
}

/// What the checker counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Batches that were acknowledged: all are stored, once.
    pub acknowledged: u64,
    /// Batches without an answer that are stored.
    pub unknown_stored: u64,
    /// Batches without an answer that are not.
    pub unknown_absent: u64,
    /// Batches that were refused: none is stored.
    pub refused: u64,
    /// Acknowledged batches that are not stored whole.
    pub lost: u64,
    /// Batches of which a row is stored more than once.
    pub doubled: u64,
}

/// How many violations are printed: one mistake causes many.
const VIOLATIONS_TOLD: usize = 10;

impl History {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt to send a batch.
    pub fn batch(&self, agency: u32, rows: &[String], outcome: Outcome) {
        let mut records = self.records();
        let key = (agency, rows[0].clone());
        let batch = records
            .batches
            .entry(key)
            .or_insert_with(|| SentBatch { rows: rows.to_vec(), outcomes: Vec::new() });
        assert_eq!(batch.rows, rows, "a batch is tried again with the same rows");
        batch.outcomes.push(outcome);
    }

    /// The agency's `DONE` was answered OK, with its number of bets if it sent one.
    pub fn done(&self, agency: u32, bets: Option<u64>) {
        self.records().done.insert(agency, bets);
    }

    /// The agency received these documents, in this order.
    pub fn winners(&self, agency: u32, documents: Vec<String>) {
        self.records().winners.push((agency, documents));
    }

    /// Something that must never happen was seen.
    pub fn violation(&self, what: String) {
        self.records().violations.push(what);
    }

    /// Whether such a thing was seen: then there is no use in going on.
    pub fn is_violated(&self) -> bool {
        !self.records().violations.is_empty()
    }

    /// Holds all of it against the database; what does not hold fails the test.
    #[track_caller]
    pub fn hold_against(&self, database: &Path) -> Verdict {
        let (verdict, violations) = self.compare(database);
        let told = violations.len().min(VIOLATIONS_TOLD);
        assert!(violations.is_empty(), "{} violations: {:#?}", violations.len(), &violations[..told]);
        count("batches acknowledged", verdict.acknowledged);
        count("batches lost", verdict.lost);
        count("batches doubled", verdict.doubled);
        count("batches without an answer that were stored", verdict.unknown_stored);
        count("batches without an answer that were not stored", verdict.unknown_absent);
        count("batches refused", verdict.refused);
        verdict
    }

    /// What holds, and every violation. For the controls, where some must be found.
    pub fn compare(&self, database: &Path) -> (Verdict, Vec<String>) {
        let connection = open(database);
        let records = self.records();
        let mut verdict = Verdict::default();
        let mut violations = records.violations.clone();
        records.compare_batches(&connection, &mut verdict, &mut violations);
        records.compare_done(&connection, &mut violations);
        records.compare_draw(&connection, &mut violations);
        drop(connection);
        match check::check(database, &mut |_| {}) {
            Ok(report) => violations.extend(report.findings),
            Err(error) => violations.push(error.to_string()),
        }
        (verdict, violations)
    }
}

/// The database as the last process left it: a log is recovered here, if it is
/// still to be.
fn open(database: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(database, flags)
        .unwrap_or_else(|error| panic!("{}: {error}", database.display()))
}

impl SentBatch {
    fn is_acknowledged(&self) -> bool {
        self.outcomes.contains(&Outcome::Ok)
    }

    fn is_unknown(&self) -> bool {
        !self.is_acknowledged() && self.outcomes.contains(&Outcome::Unknown)
    }

    /// Compares with how often each of its rows is stored.
    fn judge(&self, name: &str, times: &[u64], verdict: &mut Verdict, violations: &mut Vec<String>) {
        let (whole, absent) = (times.iter().all(|times| *times == 1), times.iter().all(|times| *times == 0));
        verdict.acknowledged += u64::from(self.is_acknowledged());
        verdict.unknown_stored += u64::from(self.is_unknown() && whole);
        verdict.unknown_absent += u64::from(self.is_unknown() && absent);
        verdict.refused += u64::from(!self.is_acknowledged() && !self.is_unknown());
        if times.iter().any(|times| *times > 1) {
            verdict.doubled += 1;
            violations.push(format!("{name}: rows are stored {times:?} times, {:?}", self.outcomes));
        } else if self.is_acknowledged() && !whole {
            verdict.lost += 1;
            violations.push(format!("{name}: acknowledged and not stored whole: {times:?}"));
        } else if self.is_unknown() && !whole && !absent {
            violations.push(format!("{name}: no answer, and stored in part: {times:?}"));
        } else if !self.is_acknowledged() && !self.is_unknown() && !absent {
            violations.push(format!("{name}: stored, though refused: {:?}", self.outcomes));
        }
    }
}

impl Records {
    fn compare_batches(&self, connection: &Connection, verdict: &mut Verdict, violations: &mut Vec<String>) {
        let mut stored = stored_bets(connection);
        for ((agency, first), batch) in &self.batches {
            let times: Vec<u64> =
                batch.rows.iter().map(|row| stored.remove(&(*agency, row.clone())).unwrap_or(0)).collect();
            batch.judge(&format!("agency {agency}, batch from {first}"), &times, verdict, violations);
        }
        let unknown_rows = stored.keys().map(|(agency, row)| format!("agency {agency}: nobody sent {row}"));
        violations.extend(unknown_rows);
    }

    fn compare_done(&self, connection: &Connection, violations: &mut Vec<String>) {
        let stored: HashMap<u32, u64> =
            query(connection, "SELECT agency, bet_count FROM done_agencies", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .into_iter()
            .collect();
        for (agency, bets) in &self.done {
            match (stored.get(agency), bets) {
                (None, _) => violations.push(format!("agency {agency} was told that it is done, and is not")),
                (Some(stored), Some(bets)) if stored != bets => {
                    violations.push(format!("agency {agency} is done with {stored} bets, it said {bets}"));
                }
                _ => {}
            }
        }
    }

    /// Every agency that received winners received those in the tables.
    fn compare_draw(&self, connection: &Connection, violations: &mut Vec<String>) {
        let sql = "SELECT agency, document FROM bets JOIN draws ON draws.id = draw_id
                    WHERE drawn_at IS NOT NULL AND number = winning_number ORDER BY bets.id";
        let mut winning: HashMap<u32, Vec<String>> = HashMap::new();
        for (agency, document) in query(connection, sql, |row| Ok((row.get(0)?, row.get::<_, String>(1)?))) {
            winning.entry(agency).or_default().push(document);
        }
        let drawn =
            !query(connection, "SELECT 1 FROM draws WHERE drawn_at IS NOT NULL", |_| Ok(())).is_empty();
        for (agency, told) in &self.winners {
            let stored = winning.get(agency).map_or(&[][..], Vec::as_slice);
            if !drawn {
                violations.push(format!("agency {agency} was told winners, and no draw is made"));
            } else if told != stored {
                violations.push(format!("agency {agency} was told {told:?}, winners are {stored:?}"));
            }
        }
    }
}

/// How often each row of each agency is stored, as the agencies write them.
fn stored_bets(connection: &Connection) -> HashMap<(u32, String), u64> {
    let sql = "SELECT agency, first_name || '|' || last_name || '|' || document || '|' || birthdate || '|' || number
                 FROM bets";
    let mut stored = HashMap::new();
    for bet in query(connection, sql, |row| Ok((row.get(0)?, row.get(1)?))) {
        *stored.entry(bet).or_default() += 1;
    }
    stored
}

fn query<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let rows = || -> rusqlite::Result<Vec<T>> { connection.prepare(sql)?.query_map([], read)?.collect() };
    rows().unwrap_or_else(|error| panic!("{sql}: {error}"))
}
