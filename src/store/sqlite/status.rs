//! The state of a draw, read from the view `standings`.

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::store::DrawStatus;
use sorteo_protocol::DrawId;

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

/// The newest draw, as far as a write depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewestDraw {
    pub(super) draw: DrawId,
    pub(super) drawn: bool,
    /// How many agencies it expects, where that was given.
    pub(super) expected: Option<u64>,
    /// Whether it expects certain agencies.
    pub(super) has_set: bool,
    /// Agencies that take part so far.
    pub(super) agencies: u64,
}

impl NewestDraw {
    /// Returns whether there is such a draw: they are numbered from 1, without gaps.
    pub(super) fn has_opened(&self, draw: DrawId) -> bool {
        (1..=self.draw.0).contains(&draw.0)
    }
}

/// Returns the newest draw for a write.
pub(super) fn newest_draw_for_write(connection: &Connection) -> rusqlite::Result<NewestDraw> {
    connection
        .prepare_cached(
            "SELECT id, drawn_at IS NOT NULL, expected_agencies,
                    EXISTS (SELECT 1 FROM expected_ranges WHERE draw_id = draws.id), agencies
               FROM draws ORDER BY id DESC LIMIT 1",
        )?
        .query_row([], |row| {
            Ok(NewestDraw {
                draw: DrawId(row.get(0)?),
                drawn: row.get(1)?,
                expected: row.get(2)?,
                has_set: row.get(3)?,
                agencies: row.get(4)?,
            })
        })
}
