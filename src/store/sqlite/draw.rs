//! What happens inside a write transaction: bets are appended, agencies close,
//! the draw is made. All rules of the lottery that need the database are here.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::super::{AppendRefusal, CloseRefusal, Closed, Closing, DoneBy, DrawStatus};
use super::options::Options;
use super::status::{newest_draw, newest_draw_for};
use super::terms;
use super::time::now;
use crate::failpoint::Failpoint;
use sorteo_protocol::{AgencyId, Batch, Digest, DrawId, UploadPosition};

/// A batch and the digest of its rows, computed before the writer is asked.
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

/// Readies a database for a server: opens the first draw where there is none,
/// lets the operator's settings hold for an open draw, and makes a draw that was
/// due when the last server ended.
///
/// Answers how the newest draw stands, and whether it was made now.
pub(super) fn prepare(
    connection: &mut Connection,
    options: &Options,
) -> rusqlite::Result<(DrawStatus, bool)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest: Option<i64> = transaction.query_row("SELECT max(id) FROM draws", [], |row| row.get(0))?;
    match newest {
        None => terms::open_first_draw(&transaction, options)?,
        Some(draw) => terms::apply(&transaction, DrawId(draw), options)?,
    }
    let draw = newest_draw(&transaction)?.draw;
    terms::note(&transaction, draw, terms::RecordedBy::Server)?;
    let drawn_now = make_draw_if_due(&transaction, draw)?;
    let status = newest_draw(&transaction)?;
    Failpoint::BeforePrepared.pass();
    transaction.commit()?;
    Failpoint::AfterPrepared.pass();
    Ok((status, drawn_now))
}

/// Stores the batches in order and answers how many bets that were, without those
/// that were stored before; or says why one of the batches cannot be. The caller
/// undoes the whole on a refusal.
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
    // First: a batch that is stored already is answered so, even if betting has
    // closed since. The agency that repeats it never got our answer.
    if let Some(position) = &batch.position {
        match stored_at_place(connection, newest.draw, batch.agency, position)? {
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
            // Inside rows that are stored, cut in another way.
            return Ok(Err(AppendRefusal::Conflict));
        }
    }
    if !batch.bets.is_empty() {
        insert(connection, newest.draw, batch, digest, stored_at)?;
    }
    Ok(Ok(batch.bets.len() as u64))
}

fn stored_at_place(
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

/// The upload's next row: where its last batch ends.
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

fn insert(
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
/// Three times 33 is the seeds' batch.
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

/// Records that an agency is done, and makes the draw if it was the last.
///
/// Answers also whether the draw was made by this.
pub(super) fn close_agency(
    connection: &Connection,
    agency: AgencyId,
    bets: Option<u64>,
    by: DoneBy,
) -> rusqlite::Result<(Closed, bool)> {
    let newest = newest_draw_for(connection, agency)?;
    if bets.is_none() && (newest.drawn || newest.agency_done) {
        // Without a count there is nothing to add up.
        return Ok((Ok(Closing::AlreadyDone), false));
    }
    let stored = stored_bets(connection, newest.draw, agency)?;
    if bets.is_some_and(|bets| bets != stored) {
        return Ok((Err(CloseRefusal::CountMismatch { stored }), false));
    }
    // After the draw there is nothing left to close: the answer is the same.
    if newest.drawn {
        return Ok((Ok(Closing::AlreadyDone), false));
    }
    let recorded = connection
        .prepare_cached(
            r#"INSERT INTO done_agencies (draw_id, agency, bet_count, done_at, "by")
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"#,
        )?
        .execute(params![newest.draw.0, agency.0, stored, now(), by.as_str()])?;
    let drawn = make_draw_if_due(connection, newest.draw)?;
    let closing = if recorded == 1 { Closing::Now } else { Closing::AlreadyDone };
    Ok((Ok(closing), drawn))
}

pub(super) fn stored_bets(connection: &Connection, draw: DrawId, agency: AgencyId) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(sum(bet_count), 0) FROM batches WHERE draw_id = $1 AND agency = $2")?
        .query_row(params![draw.0, agency.0], |row| row.get(0))
}

/// Writes what is there already: a row that stays as it is passes through the log
/// and the sync like any other.
pub(super) fn no_op_write(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE draws SET bets = bets WHERE id = (SELECT max(id) FROM draws)")?
        .execute([])
        .map(drop)
}

/// The draw: one conditional UPDATE decides, and whoever changed the row writes
/// the winners in the same transaction. Answers whether that was us.
fn make_draw_if_due(connection: &Connection, draw: DrawId) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE draws SET drawn_at = $1
              WHERE id = $2 AND drawn_at IS NULL
                AND (SELECT complete FROM standings WHERE draw = $2)",
        )?
        .execute(params![now(), draw.0])?;
    if changed == 0 {
        return Ok(false);
    }
    Failpoint::InsideDraw.pass();
    // Bets are appended draw after draw, so the bets of earlier draws, which are
    // counted in their rows, come first: the scan starts behind them.
    let winners = connection
        .prepare_cached(
            "INSERT INTO winners (draw_id, agency, bet_id)
             SELECT draw_id, agency, id FROM bets
              WHERE id > (SELECT coalesce(sum(bets), 0) FROM draws WHERE id < $1)
                AND draw_id = $1
                AND number = (SELECT winning_number FROM draws WHERE id = $1)",
        )?
        .execute([draw.0])?;
    Failpoint::AfterWinners.pass();
    connection
        .prepare_cached("UPDATE draws SET winners = $1 WHERE id = $2")?
        .execute(params![winners, draw.0])?;
    Ok(true)
}
