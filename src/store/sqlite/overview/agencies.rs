//! The agencies of a draw, and what they sent, counted without reading it all again.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::Serialize;

use super::draws::Draw;

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

/// The batches of one draw, counted so far.
///
/// Batches never change and are numbered in order, so that counting again reads only
/// the new ones: a page that an operator watches for hours does not read millions of
/// rows a second.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    draw: i64,
    last_batch: i64,
    agencies: BTreeMap<u32, Sent>,
    /// Winning bets by agency, once the draw is drawn: they never change.
    winners: Option<Vec<(u32, u64)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    bets: u64,
    batches: u64,
}

/// The `+` keeps SQLite from using the index over the draw, by which it would read all
/// of the draw's batches each time.
const NEW_BATCHES: &str = "
    SELECT agency, sum(bet_count), count(*), max(id) FROM batches
     WHERE id > $1 AND +draw_id = $2 GROUP BY agency";

impl Tally {
    /// Counts the batches that were stored since the last time, and returns the agencies
    /// that sent a bet or are done, by number.
    pub(super) fn agencies(&mut self, connection: &Connection, draw: &Draw) -> rusqlite::Result<Vec<Agency>> {
        self.count(connection, draw)?;
        let mut agencies: BTreeMap<u32, Agency> = BTreeMap::new();
        let mut entry = |number: u32, change: &dyn Fn(&mut Agency)| {
            change(agencies.entry(number).or_insert_with(|| Agency::new(number)));
        };
        for (agency, sent) in &self.agencies {
            entry(*agency, &|agency| (agency.bets, agency.batches) = (sent.bets, sent.batches));
        }
        for (agency, by, at) in done_agencies(connection, self.draw)? {
            entry(agency, &|agency| {
                agency.done = true;
                (agency.done_by, agency.done_at) = (Some(by.clone()), Some(at.clone()));
            });
        }
        for (agency, winners) in self.winners.iter().flatten() {
            entry(*agency, &|agency| agency.winners = *winners);
        }
        Ok(agencies.into_values().collect())
    }

    fn count(&mut self, connection: &Connection, draw: &Draw) -> rusqlite::Result<()> {
        if self.draw != draw.id {
            *self = Self { draw: draw.id, ..Self::default() };
        }
        // All of them before any is added: a read that fails halfway adds nothing.
        let new: Vec<(u32, Sent, i64)> = connection
            .prepare_cached(NEW_BATCHES)?
            .query_map(params![self.last_batch, draw.id], |row| {
                Ok((row.get(0)?, Sent { bets: row.get(1)?, batches: row.get(2)? }, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        if draw.is_drawn() && self.winners.is_none() {
            self.winners = Some(winners_by_agency(connection, draw.id)?);
        }
        for (agency, sent, last_batch) in new {
            let counted = self.agencies.entry(agency).or_default();
            counted.bets += sent.bets;
            counted.batches += sent.batches;
            self.last_batch = self.last_batch.max(last_batch);
        }
        Ok(())
    }
}

impl Agency {
    /// Returns an agency that has sent nothing.
    fn new(agency: u32) -> Self {
        Self { agency, bets: 0, batches: 0, done: false, done_by: None, done_at: None, winners: 0 }
    }
}

/// Returns the agencies that are done: each with who declared it done, and when.
fn done_agencies(connection: &Connection, draw: i64) -> rusqlite::Result<Vec<(u32, String, String)>> {
    connection
        .prepare_cached(r#"SELECT agency, "by", done_at FROM done_agencies WHERE draw_id = $1"#)?
        .query_map([draw], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

fn winners_by_agency(connection: &Connection, draw: i64) -> rusqlite::Result<Vec<(u32, u64)>> {
    connection
        .prepare_cached("SELECT agency, count(*) FROM winners WHERE draw_id = $1 GROUP BY agency")?
        .query_map([draw], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;

    #[test]
    fn only_new_batches_are_read() {
        let connection = schema::create_in_memory(schema::newest_version()).unwrap();
        let plan: String = connection
            .query_row(&format!("EXPLAIN QUERY PLAN {NEW_BATCHES}"), params![1, 1], |row| row.get(3))
            .unwrap();
        assert_eq!(plan, "SEARCH batches USING INTEGER PRIMARY KEY (rowid>?)");
    }
}
