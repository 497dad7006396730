//! The running totals of each agency in each draw, in the table `agency_totals`: what a
//! request would otherwise have to count.
//!
//! They change in the transaction that changes what they count, and are verified by
//! [`check`](super::check).

use rusqlite::{Connection, OptionalExtension as _, params};

use sorteo_protocol::{AgencyId, DrawId};

/// An agency in a draw, as far as a write depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AgencyTotals {
    /// Whether it has sent a bet or is done.
    pub(super) seen: bool,
    /// Whether it is done.
    pub(super) done: bool,
    /// Bets stored.
    pub(super) bets: u64,
}

/// Returns the totals of an agency in a draw.
pub(super) fn find(
    connection: &Connection,
    draw: DrawId,
    agency: AgencyId,
) -> rusqlite::Result<AgencyTotals> {
    let found = connection
        .prepare_cached(
            "SELECT bets, EXISTS (SELECT 1 FROM done_agencies WHERE draw_id = $1 AND agency = $2)
               FROM agency_totals WHERE draw_id = $1 AND agency = $2",
        )?
        .query_row(params![draw.0, agency.0], |row| {
            Ok(AgencyTotals { seen: true, bets: row.get(0)?, done: row.get(1)? })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Adds bets and batches to an agency's totals. An agency that was not seen before is
/// from now on.
pub(super) fn add(
    connection: &Connection,
    draw: DrawId,
    agency: AgencyId,
    bets: u64,
    batches: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO agency_totals (draw_id, agency, bets, batches) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO UPDATE SET bets = bets + excluded.bets, batches = batches + excluded.batches",
        )?
        .execute(params![draw.0, agency.0, bets, batches])?;
    Ok(())
}

/// Records the winners of a draw that was drawn in this transaction.
pub(super) fn record_winners(connection: &Connection, draw: DrawId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE agency_totals
                SET winners = won.winners, winner_text_bytes = won.text_bytes
               FROM (SELECT winners.agency, count(*) AS winners,
                            sum(octet_length(first_name) + octet_length(last_name)
                                + octet_length(document) + octet_length(birthdate)) AS text_bytes
                       FROM winners JOIN bets ON bets.id = winners.bet_id
                      WHERE winners.draw_id = $1 GROUP BY winners.agency) AS won
              WHERE agency_totals.draw_id = $1 AND agency_totals.agency = won.agency",
        )?
        .execute([draw.0])?;
    Ok(())
}
