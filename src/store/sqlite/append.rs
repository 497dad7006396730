//! Storing batches of bets, inside a write transaction.
//!
//! Every rule about what may be stored is decided here, by the database as the
//! transaction sees it.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::status::newest_draw_for;
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

/// Stores the batches in order. Returns how many bets were stored, without those that
/// were stored before, or why one of the batches cannot be stored. On a refusal, the
/// caller rolls back the whole.
pub(super) fn append(
    connection: &Connection,
    batches: &[DigestedBatch],
    stored_at: &str,
) -> rusqlite::Result<Result<u64, AppendRefusal>> {
    let mut bets = 0;
    for batch in batches {
        match append_one(connection, batch, stored_at)? {
            Ok(stored) => bets += stored,
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Ok(bets))
}

fn append_one(
    connection: &Connection,
    DigestedBatch { batch, digest }: &DigestedBatch,
    stored_at: &str,
) -> rusqlite::Result<Result<u64, AppendRefusal>> {
    let newest = newest_draw_for(connection, batch.agency)?;
    // First: a batch that is stored already is acknowledged, even if betting has closed
    // since. The agency that repeats it never got our reply.
    if let Some(position) = &batch.position {
        match stored_digest(connection, newest.draw, batch.agency, position)? {
            Some(stored) if stored == *digest => return Ok(Ok(0)),
            Some(_) => return Ok(Err(AppendRefusal::Conflict)),
            None => {}
        }
    }
    if newest.drawn {
        return Ok(Err(AppendRefusal::DrawClosed));
    }
    if newest.agency_done {
        return Ok(Err(AppendRefusal::AgencyDone));
    }
    if let Some(position) = &batch.position {
        let next_row = next_row(connection, newest.draw, batch.agency, position.upload.as_str())?;
        if position.first_row > next_row {
            return Ok(Err(AppendRefusal::Gap { next_row }));
        }
        if position.first_row < next_row {
            // Inside stored rows, which were cut into other batches.
            return Ok(Err(AppendRefusal::Conflict));
        }
    }
    if !batch.bets.is_empty() {
        insert_batch(connection, newest.draw, batch, digest, stored_at)?;
    }
    Ok(Ok(batch.bets.len() as u64))
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
    let bets = batch.bets.len();
    connection
        .prepare_cached(
            "INSERT INTO batches (draw_id, agency, upload, first_row, bet_count, digest, stored_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )?
        .execute(params![draw.0, batch.agency.0, upload, first_row, bets, digest.0, stored_at])?;
    connection
        .prepare_cached("UPDATE draws SET bets = bets + $1 WHERE id = $2")?
        .execute(params![bets, draw.0])?;
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
