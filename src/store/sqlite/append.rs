//! Storing batches of bets, inside a write transaction.
//!
//! Every rule about what may be stored is decided here, by the database as the
//! transaction sees it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::admission;
use super::status::{NewestDraw, newest_draw_for_write};
use super::totals::{self, AgencyTotals};
use crate::failpoint::Failpoint;
use crate::store::AppendRefusal;
use sorteo_protocol::{AgencyId, Batch, Digest, DrawId, UploadPosition};

/// A batch and the digest of its rows, computed before the writer gets it.
#[derive(Debug)]
pub(super) struct DigestedBatch {
    pub(super) batch: Batch,
    pub(super) digest: Digest,
}

impl From<Batch> for DigestedBatch {
    fn from(batch: Batch) -> Self {
        let digest = batch.bets.digest();
        Self { batch, digest }
    }
}

/// What may take part in a draw at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrawLimits {
    /// Agencies, if the draw does not expect more.
    pub(super) agencies_max: u64,
    /// Bets of each agency.
    pub(super) agency_bets_max: u64,
}

/// Stores the batches of one write transaction, and adds what they count to the totals:
/// once for each agency, by [`Appender::flush`].
///
/// What it reads of the draw and the agencies it keeps: nobody else writes during the
/// transaction.
pub(super) struct Appender<'a> {
    connection: &'a Connection,
    stored_at: &'a str,
    limits: DrawLimits,
    newest: Option<NewestDraw>,
    agencies: BTreeMap<AgencyId, Appended>,
}

/// An agency, and what was stored of it since the last flush.
#[derive(Default)]
struct Appended {
    found: AgencyTotals,
    bets: u64,
    batches: u64,
}

impl<'a> Appender<'a> {
    /// Creates it for a transaction.
    pub(super) fn new(connection: &'a Connection, stored_at: &'a str, limits: DrawLimits) -> Self {
        Self { connection, stored_at, limits, newest: None, agencies: BTreeMap::new() }
    }

    /// Stores all of the batches, in order, or none. Returns how many bets were stored,
    /// without those that were stored before, or why one of the batches cannot be stored.
    ///
    /// A single batch is refused before it has written anything: it needs no savepoint,
    /// which would keep a copy of every page that it changes.
    pub(super) fn append(
        &mut self,
        batches: &[DigestedBatch],
    ) -> rusqlite::Result<Result<u64, AppendRefusal>> {
        if let [batch] = batches {
            return self.append_one(batch);
        }
        // What is rolled back must not be in the totals.
        self.flush()?;
        self.execute("SAVEPOINT batches")?;
        let appended = self.append_in_order(batches)?;
        if appended.is_err() {
            self.forget();
            self.execute("ROLLBACK TO batches")?;
        }
        self.execute("RELEASE batches")?;
        Ok(appended)
    }

    /// Writes the totals. To be called before anything else reads them, and before the
    /// commit.
    pub(super) fn flush(&mut self) -> rusqlite::Result<()> {
        let Some(newest) = self.newest else {
            return Ok(());
        };
        let mut all_bets = 0;
        for (agency, &Appended { bets, batches, .. }) in &self.agencies {
            if batches > 0 {
                totals::add(self.connection, newest.draw, *agency, bets, batches)?;
                all_bets += bets;
            }
        }
        if all_bets > 0 {
            self.connection
                .prepare_cached("UPDATE draws SET bets = bets + $1, agencies = $2 WHERE id = $3")?
                .execute(params![all_bets, newest.agencies, newest.draw.0])?;
        }
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.newest = None;
        self.agencies.clear();
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn append_in_order(&mut self, batches: &[DigestedBatch]) -> rusqlite::Result<Result<u64, AppendRefusal>> {
        let mut bets = 0;
        for batch in batches {
            match self.append_one(batch)? {
                Ok(stored) => bets += stored,
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(bets))
    }

    fn append_one(
        &mut self,
        DigestedBatch { batch, digest }: &DigestedBatch,
    ) -> rusqlite::Result<Result<u64, AppendRefusal>> {
        let newest = match self.newest {
            Some(newest) => newest,
            None => *self.newest.insert(newest_draw_for_write(self.connection)?),
        };
        let draw = batch.position.as_ref().and_then(|position| position.draw).unwrap_or(newest.draw);
        if !newest.has_opened(draw) {
            return Ok(Err(AppendRefusal::NoSuchDraw));
        }
        // Before all other rules: a stored batch is acknowledged, even if betting has closed
        // since. The agency that repeats it never got our reply.
        if let Some(position) = &batch.position {
            match stored_digest(self.connection, draw, batch.agency, position)? {
                Some(stored) if stored == *digest => return Ok(Ok(0)),
                Some(_) => return Ok(Err(AppendRefusal::Conflict)),
                None => {}
            }
        }
        if let Some(refusal) = self.refuse(&newest, draw, batch)? {
            return Ok(Err(refusal));
        }
        if !batch.bets.is_empty() {
            insert_batch(self.connection, newest.draw, batch, digest, self.stored_at)?;
            self.count(batch);
        }
        Ok(Ok(batch.bets.len() as u64))
    }

    /// Returns why a batch that is not stored yet cannot be stored in the draw that it is meant
    /// for, if it cannot.
    fn refuse(
        &mut self,
        newest: &NewestDraw,
        draw: DrawId,
        batch: &Batch,
    ) -> rusqlite::Result<Option<AppendRefusal>> {
        if newest.drawn || draw != newest.draw {
            return Ok(Some(AppendRefusal::DrawClosed));
        }
        let Appended { found, bets, .. } = match self.agencies.entry(batch.agency) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let found = totals::find(self.connection, newest.draw, batch.agency)?;
                new.insert(Appended { found, ..Appended::default() })
            }
        };
        let AgencyTotals { seen, done, bets: stored } = *found;
        let bets_now = stored + *bets + batch.bets.len() as u64;
        if done {
            return Ok(Some(AppendRefusal::AgencyDone));
        }
        let not_admitted =
            admission::refuse(self.connection, newest, batch.agency, seen, self.limits.agencies_max)?;
        if let Some(refusal) = not_admitted {
            return Ok(Some(AppendRefusal::NotAdmitted(refusal)));
        }
        if bets_now > self.limits.agency_bets_max {
            return Ok(Some(AppendRefusal::TooManyBets));
        }
        let Some(position) = &batch.position else {
            return Ok(None);
        };
        let next_row = next_row(self.connection, newest.draw, batch.agency, position.upload.as_str())?;
        Ok(match position.first_row.cmp(&next_row) {
            Ordering::Greater => Some(AppendRefusal::Gap { next_row }),
            // Inside stored rows, which were cut into other batches.
            Ordering::Less => Some(AppendRefusal::Conflict),
            Ordering::Equal => None,
        })
    }

    /// Counts a batch that was stored.
    fn count(&mut self, batch: &Batch) {
        let agency = self.agencies.entry(batch.agency).or_default();
        agency.bets += batch.bets.len() as u64;
        agency.batches += 1;
        if !agency.found.seen {
            agency.found.seen = true;
            self.newest.iter_mut().for_each(|newest| newest.agencies += 1);
        }
    }
}

/// Returns the digest of the batch that is stored at a position.
fn stored_digest(
    connection: &Connection,
    draw: DrawId,
    agency: AgencyId,
    position: &UploadPosition,
) -> rusqlite::Result<Option<Digest>> {
    connection
        .prepare_cached(
            "SELECT digest FROM batches
              WHERE draw_id = $1 AND agency = $2 AND upload = $3 AND first_row = $4",
        )?
        .query_row(params![draw.0, agency.0, position.upload.as_str(), position.first_row], |row| {
            row.get(0).map(Digest)
        })
        .optional()
}

/// Returns the upload's next row, 0-based: the one after its last batch.
pub(super) fn next_row(
    connection: &Connection,
    draw: DrawId,
    agency: AgencyId,
    upload: &str,
) -> rusqlite::Result<u64> {
    let end = connection
        .prepare_cached(
            "SELECT first_row + bet_count FROM batches
              WHERE draw_id = $1 AND agency = $2 AND upload = $3
              ORDER BY first_row DESC LIMIT 1",
        )?
        .query_row(params![draw.0, agency.0, upload], |row| row.get(0))
        .optional()?;
    Ok(end.unwrap_or(0))
}

fn insert_batch(
    connection: &Connection,
    draw: DrawId,
    batch: &Batch,
    digest: &Digest,
    stored_at: &str,
) -> rusqlite::Result<()> {
    insert_bets(connection, draw, batch)?;
    Failpoint::InsideBatch.pass();
    let (upload, first_row) = match &batch.position {
        Some(position) => (Some(position.upload.as_str()), Some(position.first_row)),
        None => (None, None),
    };
    connection
        .prepare_cached(
            "INSERT INTO batches (draw_id, agency, upload, first_row, bet_count, digest, stored_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )?
        .execute(params![draw.0, batch.agency.0, upload, first_row, batch.bets.len(), digest.0, stored_at])?;
    Ok(())
}

/// Rows that one statement inserts. Many together save the statement's own cost
/// for each: 33 took a quarter less time than one by one, 99 no less than 33.
/// Three times 33 is the usual batch of an agency.
const ROWS_TOGETHER: usize = 33;
/// Values that differ from row to row; draw and agency come before them.
const ROW_VALUES: usize = 5;

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert_statement(1));
static INSERT_TOGETHER: LazyLock<String> = LazyLock::new(|| insert_statement(ROWS_TOGETHER));

/// `OR FAIL`: a statement that fails does not undo its own rows, for which SQLite
/// would keep copies of the pages that it changes. The transaction undoes them: it
/// does not outlive an error.
fn insert_statement(rows: usize) -> String {
    let row = |row: usize| {
        let values: Vec<String> =
            (0..ROW_VALUES).map(|value| format!("${}", row * ROW_VALUES + value + 3)).collect();
        format!("($1, $2, {})", values.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT OR FAIL INTO bets (draw_id, agency, first_name, last_name, document, birthdate, number) VALUES {}",
        rows.join(", ")
    )
}

fn insert_bets(connection: &Connection, draw: DrawId, batch: &Batch) -> rusqlite::Result<()> {
    let mut bets = batch.bets.iter();
    for (rows, statement) in [(ROWS_TOGETHER, &INSERT_TOGETHER), (1, &INSERT_ONE)] {
        if bets.len() < rows {
            continue;
        }
        let mut statement = connection.prepare_cached(statement)?;
        // A bound value stays: these two are bound once.
        statement.raw_bind_parameter(1, draw.0)?;
        statement.raw_bind_parameter(2, batch.agency.0)?;
        while bets.len() >= rows {
            for (row, bet) in bets.by_ref().take(rows).enumerate() {
                let first = 3 + row * ROW_VALUES;
                statement.raw_bind_parameter(first, bet.first_name)?;
                statement.raw_bind_parameter(first + 1, bet.last_name)?;
                statement.raw_bind_parameter(first + 2, bet.document)?;
                statement.raw_bind_parameter(first + 3, bet.birthdate)?;
                statement.raw_bind_parameter(first + 4, bet.number)?;
            }
            statement.raw_execute()?;
        }
    }
    Ok(())
}
