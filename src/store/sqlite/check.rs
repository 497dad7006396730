//! Verifies a database: SQLite's own integrity, and every promise of the store
//! that the tables can show. Reads one snapshot, beside a running server too,
//! and changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::Path;

use rusqlite::{Connection, Row};

use super::{OpenError, connection, sqlite_error};
use crate::lottery::{Bet, Bets, Digest, DigestBuilder};

/// Findings that are told; what is broken in one place is broken in many.
const FINDINGS_MAX: usize = 100;
/// Bets between two reports of progress.
const PROGRESS_EVERY: u64 = 10_000;

/// What was counted, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Draws there are.
    pub draws: u64,
    /// Batches there are.
    pub batches: u64,
    /// Bets there are.
    pub bets: u64,
    /// Winners there are.
    pub winners: u64,
    /// One line for each thing that is wrong; at most a hundred.
    pub findings: Vec<String>,
}

/// Told how many of how many bets were read.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Verifies the database.
pub fn check(path: &Path, progress: &mut Progress<'_>) -> Result<Report, OpenError> {
    let mut connection = connection::open_reader(path)?;
    let fail = |source| sqlite_error(path, "checking", source);
    // One snapshot for all questions, whatever a server writes meanwhile.
    let snapshot = connection.transaction().map_err(fail)?;
    let mut report = Report::default();
    check_integrity(&snapshot, &mut report).map_err(fail)?;
    check_schema(&snapshot, &mut report).map_err(fail)?;
    if !report.is_damaged() {
        check_tables(&snapshot, &mut report).map_err(fail)?;
        check_bets(&snapshot, &mut report, progress).map_err(fail)?;
    }
    Ok(report)
}

impl Report {
    /// Whether SQLite itself finds the file damaged: then its rows say little.
    fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.starts_with("integrity"))
    }

    fn found(&mut self, finding: impl fmt::Display) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding.to_string());
        }
    }
}

fn check_integrity(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            report.found(format!("integrity: {line}"));
        }
    }
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        report.found(format!("references: a row of {table} names a row of {parent} that is missing"));
    }
    Ok(())
}

/// The tables, views and triggers are those that the migrations make: without
/// its triggers, say, a database takes changes that it must not.
fn check_schema(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let schema_of = |connection: &Connection| -> rusqlite::Result<BTreeMap<String, Option<String>>> {
        connection
            .prepare("SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    let made = schema_of(&connection::open_in_memory()?)?;
    let found = schema_of(connection)?;
    for (name, sql) in &made {
        match found.get(name) {
            None => report.found(format!("schema: the {name} is missing")),
            Some(other) if other != sql => report.found(format!("schema: the {name} was changed")),
            Some(_) => {}
        }
    }
    for name in found.keys().filter(|name| !made.contains_key(*name)) {
        report.found(format!("schema: the {name} is not one of ours"));
    }
    Ok(())
}

/// A question whose every row is a finding.
struct Question {
    sql: &'static str,
    say: fn(&Row<'_>) -> rusqlite::Result<String>,
}

/// What the small tables can show among themselves. What needs the bets, which
/// are many, is checked in one pass over them.
const QUESTIONS: &[Question] = &[
    Question {
        sql: "SELECT id FROM draws WHERE drawn_at IS NULL AND id < (SELECT max(id) FROM draws)",
        say: |row| Ok(format!("draws: draw {} was never made, but a later one was opened", row.get::<_, i64>(0)?)),
    },
    Question {
        sql: "SELECT draw FROM standings WHERE state = 'drawn' AND NOT complete",
        say: |row| Ok(format!("draws: draw {} was made before all expected agencies were done", row.get::<_, i64>(0)?)),
    },
    Question {
        sql: "SELECT draw FROM standings WHERE state = 'open' AND winners > 0
              UNION SELECT draw_id FROM winners JOIN draws ON draws.id = draw_id WHERE drawn_at IS NULL",
        say: |row| Ok(format!("winners: draw {} is open and has winners", row.get::<_, i64>(0)?)),
    },
    Question {
        sql: "SELECT done_agencies.draw_id, done_agencies.agency, done_agencies.bet_count, coalesce(sum(batches.bet_count), 0) AS stored
                FROM done_agencies LEFT JOIN batches USING (draw_id, agency)
               GROUP BY done_agencies.draw_id, done_agencies.agency
              HAVING done_agencies.bet_count <> stored",
        say: |row| {
            let (draw, agency, said, stored): (i64, u32, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(format!("done_agencies: agency {agency} was done in draw {draw} with {said} bets, its batches have {stored}"))
        },
    },
    Question {
        sql: "SELECT draw_id, agency, upload, first_row FROM (
                  SELECT draw_id, agency, upload, first_row,
                         coalesce(lag(first_row + bet_count) OVER (
                             PARTITION BY draw_id, agency, upload ORDER BY first_row), 0) AS next_row
                    FROM batches WHERE upload IS NOT NULL)
               WHERE first_row <> next_row",
        say: |row| {
            let (draw, agency, upload, first_row): (i64, u32, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(format!("batches: draw {draw}, agency {agency}, upload {upload}: the batch at row {first_row} does not follow the one before"))
        },
    },
];

fn check_tables(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    for question in QUESTIONS {
        let mut statement = connection.prepare(question.sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            report.found((question.say)(row)?);
        }
    }
    let count = |table: &str| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0))
    };
    report.draws = count("draws")?;
    report.batches = count("batches")?;
    report.winners = count("winners")?;
    Ok(())
}

/// A draw and an agency.
type Side = (i64, u32);

/// A batch that bets are counted off against.
struct Expected {
    id: i64,
    bets: u64,
    digest: Digest,
}

/// Where the pass over the bets stands with one agency in one draw.
#[derive(Default)]
struct Cursor {
    batches: VecDeque<Expected>,
    taken: u64,
    digest: DigestBuilder,
}

/// One pass over all bets in stored order. Within a draw and an agency, batches
/// in order of id cover the bets in order of id: so bets are counted off
/// against batches, and digests computed, with little memory.
fn check_bets(
    connection: &Connection,
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> rusqlite::Result<()> {
    let mut draws = read_draws(connection)?;
    let mut cursors = read_cursors(connection)?;
    let all = draws.values().map(|draw| draw.counted).sum();
    let mut statement = connection.prepare(
        "SELECT id, draw_id, agency, first_name, last_name, document, birthdate, number FROM bets ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut last_draw = 0;
    while let Some(row) = rows.next()? {
        let (id, side): (i64, Side) = (row.get(0)?, (row.get(1)?, row.get(2)?));
        let bet = Bet {
            first_name: row.get_ref(3)?.as_str()?,
            last_name: row.get_ref(4)?.as_str()?,
            document: row.get_ref(5)?.as_str()?,
            birthdate: row.get_ref(6)?.as_str()?,
            number: row.get(7)?,
        };
        check_bet(id, bet, report);
        if side.0 < last_draw {
            report.found(format!("bets: bet {id} of draw {} comes after bets of draw {last_draw}", side.0));
        }
        last_draw = side.0;
        match draws.get_mut(&side.0) {
            Some(draw) => draw.count(id, side.1, bet.number),
            None => report.found(format!("bets: bet {id} names draw {}, which is missing", side.0)),
        }
        match cursors.get_mut(&side) {
            Some(cursor) if !cursor.batches.is_empty() => cursor.take(bet, side, report),
            _ => {
                report.found(format!("bets: bet {id} of agency {} in draw {} is in no batch", side.1, side.0))
            }
        }
        report.bets += 1;
        if report.bets.is_multiple_of(PROGRESS_EVERY) {
            progress(report.bets, all);
        }
    }
    progress(report.bets, report.bets);
    for ((draw, agency), cursor) in cursors {
        if let Some(batch) = cursor.batches.front() {
            let id = batch.id;
            report.found(format!(
                "batches: batch {id} of agency {agency} in draw {draw} has bets that are missing"
            ));
        }
    }
    for (id, draw) in draws {
        draw.conclude(id, connection, report)?;
    }
    Ok(())
}

/// A stored bet is one that would be accepted today.
fn check_bet(id: i64, bet: Bet<'_>, report: &mut Report) {
    let number = bet.number.to_string();
    let fields = [bet.first_name, bet.last_name, bet.document, bet.birthdate, &number];
    if let Err(error) = Bets::default().push(fields) {
        report.found(format!("bets: bet {id} is not one: {error}"));
    }
}

impl Cursor {
    fn take(&mut self, bet: Bet<'_>, (draw, agency): Side, report: &mut Report) {
        self.digest.add(bet);
        self.taken += 1;
        if self.batches.front().is_none_or(|batch| self.taken < batch.bets) {
            return;
        }
        let digest = std::mem::take(&mut self.digest).finish();
        self.taken = 0;
        if let Some(batch) = self.batches.pop_front().filter(|batch| batch.digest != digest) {
            let id = batch.id;
            report.found(format!(
                "batches: batch {id} of agency {agency} in draw {draw} is not the rows that were acknowledged"
            ));
        }
    }
}

fn read_cursors(connection: &Connection) -> rusqlite::Result<HashMap<Side, Cursor>> {
    let mut cursors: HashMap<Side, Cursor> = HashMap::new();
    let mut statement =
        connection.prepare("SELECT id, draw_id, agency, bet_count, digest FROM batches ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let side = (row.get(1)?, row.get(2)?);
        let batch = Expected { id: row.get(0)?, bets: row.get(3)?, digest: Digest(row.get(4)?) };
        cursors.entry(side).or_default().batches.push_back(batch);
    }
    Ok(cursors)
}

/// A draw as its row tells it, and as its bets do.
struct Drawn {
    drawn: bool,
    winning_number: u32,
    counted: u64,
    winners_counted: u64,
    bets: u64,
    winners: BTreeSet<(u32, i64)>,
}

fn read_draws(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, Drawn>> {
    connection
        .prepare("SELECT id, drawn_at IS NOT NULL, winning_number, bets, winners FROM draws")?
        .query_map([], |row| {
            let drawn = Drawn {
                drawn: row.get(1)?,
                winning_number: row.get(2)?,
                counted: row.get(3)?,
                winners_counted: row.get(4)?,
                bets: 0,
                winners: BTreeSet::new(),
            };
            Ok((row.get(0)?, drawn))
        })?
        .collect()
}

impl Drawn {
    fn count(&mut self, bet: i64, agency: u32, number: u32) {
        self.bets += 1;
        if self.drawn && number == self.winning_number {
            self.winners.insert((agency, bet));
        }
    }

    /// Holds what was counted against the draw's row and the table of winners.
    fn conclude(self, id: i64, connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
        let stored: BTreeSet<(u32, i64)> = connection
            .prepare("SELECT agency, bet_id FROM winners WHERE draw_id = $1")?
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        if self.bets != self.counted {
            report.found(format!("draws: draw {id} says {} bets, {} are stored", self.counted, self.bets));
        }
        if self.winners_counted != stored.len() as u64 {
            report.found(format!(
                "draws: draw {id} says {} winners, {} are stored",
                self.winners_counted,
                stored.len()
            ));
        }
        for (agency, bet) in self.winners.difference(&stored) {
            report.found(format!("winners: bet {bet} of agency {agency} won draw {id} and is no winner"));
        }
        for (agency, bet) in stored.difference(&self.winners) {
            report.found(format!(
                "winners: bet {bet} of agency {agency} is a winner of draw {id} and did not win"
            ));
        }
        Ok(())
    }
}
