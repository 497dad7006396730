//! The draw, inside a write transaction: agencies close, and the draw happens when the
//! last one does.

use rusqlite::{Connection, params};

use super::status::newest_draw_for;
use super::time::now;
use crate::failpoint::Failpoint;
use crate::store::{CloseRefusal, Closed, Closing, DoneBy};
use sorteo_protocol::{AgencyId, DrawId};

/// Records that an agency is done, and draws if it was the last. Returns the outcome of
/// the close, and whether this call drew.
pub(super) fn close_agency(
    connection: &Connection,
    agency: AgencyId,
    bets: Option<u64>,
    by: DoneBy,
) -> rusqlite::Result<(Closed, bool)> {
    let newest = newest_draw_for(connection, agency)?;
    if bets.is_none() && (newest.drawn || newest.agency_done) {
        // Without a count there is nothing to compare.
        return Ok((Ok(Closing::AlreadyDone), false));
    }
    let stored = stored_bets(connection, newest.draw, agency)?;
    if bets.is_some_and(|bets| bets != stored) {
        return Ok((Err(CloseRefusal::CountMismatch { stored }), false));
    }
    // After the draw there is nothing left to close: the reply is the same.
    if newest.drawn {
        return Ok((Ok(Closing::AlreadyDone), false));
    }
    let recorded = connection
        .prepare_cached(
            r#"INSERT INTO done_agencies (draw_id, agency, bet_count, done_at, "by")
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"#,
        )?
        .execute(params![newest.draw.0, agency.0, stored, now(), by.as_str()])?;
    let drawn = draw_if_due(connection, newest.draw)?;
    let closing = if recorded == 1 { Closing::Now } else { Closing::AlreadyDone };
    Ok((Ok(closing), drawn))
}

/// Returns how many bets of an agency are stored in a draw.
pub(super) fn stored_bets(connection: &Connection, draw: DrawId, agency: AgencyId) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(sum(bet_count), 0) FROM batches WHERE draw_id = $1 AND agency = $2")?
        .query_row(params![draw.0, agency.0], |row| row.get(0))
}

/// Draws if all expected agencies are done. Returns whether this call drew.
///
/// One conditional UPDATE decides, and the process that changed the row writes the
/// winners in the same transaction.
pub(super) fn draw_if_due(connection: &Connection, draw: DrawId) -> rusqlite::Result<bool> {
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
    // counted in their rows, come first: the scan starts after them.
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
