//! The agencies of a draw, and what they sent.

use rusqlite::{Connection, Row};
use serde::Serialize;

/// One agency in one draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agency {
    /// Its number.
    pub agency: u32,
    /// Bets stored.
    pub bets: u64,
    /// Batches stored.
    pub batches: u64,
    /// Whether it is done.
    pub done: bool,
    /// Who declared it done: `agency` or `operator`.
    pub done_by: Option<String>,
    /// When it was done: UTC, ISO 8601.
    pub done_at: Option<String>,
    /// Its winning bets; 0 until the draw is drawn.
    pub winners: u64,
}

/// Returns the agencies of a draw that sent a bet or are done, by number.
pub(super) fn of_draw(connection: &Connection, draw: i64) -> rusqlite::Result<Vec<Agency>> {
    connection
        .prepare_cached(
            r#"SELECT agency, bets, batches, "by", done_at, winners
                 FROM agency_totals LEFT JOIN done_agencies USING (draw_id, agency)
                WHERE draw_id = $1 ORDER BY agency"#,
        )?
        .query_map([draw], read_agency)?
        .collect()
}

fn read_agency(row: &Row<'_>) -> rusqlite::Result<Agency> {
    let done_by: Option<String> = row.get("by")?;
    Ok(Agency {
        agency: row.get("agency")?,
        bets: row.get("bets")?,
        batches: row.get("batches")?,
        done: done_by.is_some(),
        done_by,
        done_at: row.get("done_at")?,
        winners: row.get("winners")?,
    })
}
