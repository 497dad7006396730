//! Draws, as operators see them.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;

use crate::store::sqlite::terms::EXPECTED_AGENCIES;
use sorteo_protocol::DrawId;

/// One draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draw {
    /// Its number; the first is 1.
    pub id: i64,
    /// `open` while it takes bets, `drawn` afterwards.
    pub state: String,
    /// The number that wins.
    pub winning_number: u32,
    /// Agencies that must be done.
    pub expected: u64,
    /// The agencies that are expected, where certain ones are: `1-5,7`.
    pub expected_set: Option<String>,
    /// Whether `expected` is only the highest agency seen so far.
    pub expected_inferred: bool,
    /// Agencies that are done.
    pub done: u64,
    /// Bets stored.
    pub bets: u64,
    /// Winning bets; 0 until it is drawn.
    pub winners: u64,
    /// UTC, ISO 8601.
    pub opened_at: String,
    /// UTC, ISO 8601; `None` while it is open.
    pub drawn_at: Option<String>,
}

impl Draw {
    /// Returns whether it is drawn: then nothing of it changes any more.
    pub fn is_drawn(&self) -> bool {
        self.drawn_at.is_some()
    }
}

/// Returns a query for the draws, to which conditions can be added.
fn draws() -> String {
    format!(
        "SELECT draw AS id, state, standings.winning_number, expected, expected_agencies IS NULL AS expected_inferred,
                iif(EXISTS (SELECT 1 FROM expected_ranges WHERE draw_id = draws.id), {EXPECTED_AGENCIES}, NULL)
                    AS expected_set,
                standings.done, standings.bets, standings.winners, opened_at, drawn_at
           FROM standings JOIN draws ON draws.id = standings.draw"
    )
}

/// Returns the newest draws, newest first.
pub(super) fn newest(connection: &Connection, draws_max: usize) -> rusqlite::Result<Vec<Draw>> {
    connection
        .prepare_cached(&format!("{} ORDER BY draw DESC LIMIT $1", draws()))?
        .query_map([draws_max], read_draw)?
        .collect()
}

/// Returns one draw, or the newest; `None` if there is none.
pub(super) fn find(connection: &Connection, draw: Option<DrawId>) -> rusqlite::Result<Option<Draw>> {
    connection
        .prepare_cached(&format!("{} WHERE draw = coalesce($1, (SELECT max(id) FROM draws))", draws()))?
        .query_row([draw.map(|draw| draw.0)], read_draw)
        .optional()
}

fn read_draw(row: &Row<'_>) -> rusqlite::Result<Draw> {
    Ok(Draw {
        id: row.get("id")?,
        state: row.get("state")?,
        winning_number: row.get("winning_number")?,
        expected: row.get("expected")?,
        expected_set: row.get("expected_set")?,
        expected_inferred: row.get("expected_inferred")?,
        done: row.get("done")?,
        bets: row.get("bets")?,
        winners: row.get("winners")?,
        opened_at: row.get("opened_at")?,
        drawn_at: row.get("drawn_at")?,
    })
}
