//! The state of a draw, read from the view `standings`.

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::store::DrawStatus;
use sorteo_protocol::{AgencyId, DrawId};

/// Returns the status of the newest draw, as this connection sees it.
pub(super) fn newest_draw(connection: &Connection) -> rusqlite::Result<DrawStatus> {
    connection
        .prepare_cached("SELECT * FROM standings ORDER BY draw DESC LIMIT 1")?
        .query_row([], read_draw_status)
}

/// Returns the status of one draw; `None` if there is no such draw.
pub(super) fn find_draw(connection: &Connection, draw: DrawId) -> rusqlite::Result<Option<DrawStatus>> {
    connection
        .prepare_cached("SELECT * FROM standings WHERE draw = $1")?
        .query_row([draw.0], read_draw_status)
        .optional()
}

/// Reads one row of the view `standings`.
pub(super) fn read_draw_status(row: &Row<'_>) -> rusqlite::Result<DrawStatus> {
    Ok(DrawStatus {
        draw: DrawId(row.get("draw")?),
        drawn: row.get::<_, String>("state")? == "drawn",
        done: row.get("done")?,
        expected: row.get("expected")?,
        bets: row.get("bets")?,
        winners: row.get("winners")?,
        winning_number: row.get("winning_number")?,
    })
}

/// The newest draw, as far as a write by one agency depends on it.
pub(super) struct NewestDraw {
    pub(super) draw: DrawId,
    pub(super) drawn: bool,
    /// Whether the agency is done in it.
    pub(super) agency_done: bool,
}

/// Returns the newest draw for a write by an agency.
pub(super) fn newest_draw_for(connection: &Connection, agency: AgencyId) -> rusqlite::Result<NewestDraw> {
    connection
        .prepare_cached(
            "SELECT id, drawn_at IS NOT NULL,
                    EXISTS (SELECT 1 FROM done_agencies WHERE draw_id = draws.id AND agency = $1)
               FROM draws ORDER BY id DESC LIMIT 1",
        )?
        .query_row([agency.0], |row| {
            Ok(NewestDraw { draw: DrawId(row.get(0)?), drawn: row.get(1)?, agency_done: row.get(2)? })
        })
}
