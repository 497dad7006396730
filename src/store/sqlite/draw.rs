//! The draw, inside a write transaction: agencies close, and the draw happens when the
//! last one does.

use rusqlite::{Connection, params};

use super::admission;
use super::status::newest_draw_for_write;
use super::time::now;
use super::totals::{self, AgencyTotals};
use crate::failpoint::Failpoint;
use crate::store::{CloseRefusal, Closed, Closing, DoneBy};
use sorteo_protocol::{AgencyId, DrawId};

/// Records that an agency is done in a draw, or in the newest, and draws if it was the last.
/// Returns the outcome of the close, and whether this call drew.
pub(super) fn close_agency(
    connection: &Connection,
    agency: AgencyId,
    bets: Option<u64>,
    draw: Option<DrawId>,
    by: DoneBy,
    agencies_max: u64,
) -> rusqlite::Result<(Closed, bool)> {
    let newest = newest_draw_for_write(connection)?;
    let draw = draw.unwrap_or(newest.draw);
    if !newest.has_opened(draw) {
        return Ok((Err(CloseRefusal::NoSuchDraw), false));
    }
    let AgencyTotals { seen, done, bets: stored } = totals::find(connection, draw, agency)?;
    let is_over = draw != newest.draw || newest.drawn || done;
    let not_admitted = admission::refuse(connection, &newest, agency, seen, agencies_max)?;
    if let Some(refusal) = not_admitted.filter(|_| !is_over) {
        return Ok((Err(CloseRefusal::NotAdmitted(refusal)), false));
    }
    if bets.is_some_and(|bets| bets != stored) {
        return Ok((Err(CloseRefusal::CountMismatch { stored }), false));
    }
    // After the draw there is nothing left to close: the reply is the same.
    if is_over {
        return Ok((Ok(Closing::AlreadyDone), false));
    }
    if !seen {
        totals::add(connection, newest.draw, agency, 0, 0)?;
    }
    connection
        .prepare_cached(
            r#"INSERT INTO done_agencies (draw_id, agency, bet_count, done_at, "by") VALUES ($1, $2, $3, $4, $5)"#,
        )?
        .execute(params![newest.draw.0, agency.0, stored, now(), by.as_str()])?;
    // An agency that is admitted is expected too, except agency 0 where all from 1 on are.
    let is_expected = newest.expected.is_some() || agency.0 >= 1;
    connection
        .prepare_cached("UPDATE draws SET agencies = agencies + $1, done = done + $2 WHERE id = $3")?
        .execute(params![!seen, is_expected, newest.draw.0])?;
    let drawn = draw_if_due(connection, newest.draw)?;
    Ok((Ok(Closing::Now), drawn))
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
    totals::record_winners(connection, draw)?;
    Failpoint::AfterWinners.pass();
    connection
        .prepare_cached("UPDATE draws SET winners = $1 WHERE id = $2")?
        .execute(params![winners, draw.0])?;
    Ok(true)
}
