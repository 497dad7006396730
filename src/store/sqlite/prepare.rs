//! What a server does to its open database before it serves.

use rusqlite::{Connection, TransactionBehavior};

use super::options::Options;
use super::status::newest_draw;
use super::{draw, terms};
use crate::failpoint::Failpoint;
use crate::store::DrawStatus;
use sorteo_protocol::DrawId;

/// Opens the first draw where there is none, applies the operator's settings to an open
/// draw, and draws if that was due when the last server ended. Returns the status of
/// the newest draw, and whether it was drawn now.
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
    let drawn_now = draw::draw_if_due(&transaction, draw)?;
    let status = newest_draw(&transaction)?;
    Failpoint::BeforePrepared.pass();
    transaction.commit()?;
    Failpoint::AfterPrepared.pass();
    Ok((status, drawn_now))
}
