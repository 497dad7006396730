//! The table `audit`: what was done to a database, when, and by whom.

use rusqlite::{Connection, params};

use super::actor::actor;
use super::time::now;
use sorteo_protocol::DrawId;

/// Adds a row to the audit; without a draw, for a database that has none yet.
pub(super) fn record(
    connection: &Connection,
    action: &str,
    draw: Option<DrawId>,
    detail: &str,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO audit (at, action, draw_id, detail, actor) VALUES ($1, $2, $3, $4, $5)",
        params![now(), action, draw.map(|draw| draw.0), detail, actor()],
    )?;
    Ok(())
}
