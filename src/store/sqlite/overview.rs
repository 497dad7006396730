//! What people ask of a database: how its draws and agencies stand, and who won.
//!
//! Read on a connection of its own, beside a running server or without one, so
//! that nobody who looks takes a connection from an agency. The answers have the
//! names that the operators' JSON has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use serde::Serialize;

use super::error::{OpenError, sqlite_error};
use super::event::Announcement;
use super::files::DatabaseFiles;
use super::open;
use sorteo_protocol::{AgencyId, DrawId};

/// A database opened to be looked at.
#[derive(Debug)]
pub struct Overview {
    connection: Connection,
    path: PathBuf,
    /// Of the store in this process, if there is one.
    announcement: Announcement,
}

/// One draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draw {
    /// Its number; the first is 1.
    pub id: i64,
    /// `open` while bets are taken, `drawn` once it is made.
    pub state: String,
    /// The number that wins.
    pub winning_number: u32,
    /// Agencies that must be done.
    pub expected: u64,
    /// Whether `expected` is only the highest agency seen so far.
    pub expected_inferred: bool,
    /// Agencies that are done.
    pub done: u64,
    /// Bets stored.
    pub bets: u64,
    /// Winning bets; 0 until it is made.
    pub winners: u64,
    /// UTC, ISO 8601.
    pub opened_at: String,
    /// UTC, ISO 8601; `None` while it is open.
    pub drawn_at: Option<String>,
}

impl Draw {
    /// Whether it is made: then nothing of it changes any more.
    pub fn is_drawn(&self) -> bool {
        self.drawn_at.is_some()
    }
}

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
    /// Who said so: `agency` or `operator`.
    pub done_by: Option<String>,
    /// When, UTC, ISO 8601.
    pub done_at: Option<String>,
    /// Its winning bets; 0 until the draw is made.
    pub winners: u64,
}

/// A draw with its agencies, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The draw.
    pub draw: Draw,
    /// The agencies that sent a bet or are done.
    pub agencies: Vec<Agency>,
}

/// What was counted of a draw's batches so far. They are never changed and are
/// numbered in their order, so that counting again reads only the new ones: a
/// page that is looked at for hours does not read millions of rows a second.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    draw: i64,
    last_batch: i64,
    agencies: BTreeMap<u32, Sent>,
    /// Winning bets by agency, once the draw is made: they never change.
    winners: Option<Vec<(u32, u64)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    bets: u64,
    batches: u64,
}

/// A winning bet, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Winner {
    /// The agency that sent it.
    pub agency: u32,
    /// The bettor's identity document.
    pub document: String,
    /// The bettor's given names.
    pub first_name: String,
    /// The bettor's surname.
    pub last_name: String,
    /// The bettor's date of birth, `YYYY-MM-DD`.
    pub birthdate: String,
    /// The number: the draw's winning one.
    pub number: u32,
}

/// Which winners of a draw are asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Of this agency alone.
    pub agency: Option<AgencyId>,
    /// With this in the document or a name, in either case (of ASCII letters).
    pub search: Option<String>,
    /// Behind this place, which a page before told.
    pub after: Option<ResultsCursor>,
    /// At most so many.
    pub winners_max: usize,
}

/// A winner's place in the results: its agency, then the order of storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultsCursor {
    /// The agency.
    pub agency: AgencyId,
    /// The bet's place among all bets ever stored.
    pub bet: i64,
}

/// A page of winners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// How many match on all pages.
    pub total: u64,
    /// Those of this page.
    pub winners: Vec<Winner>,
    /// Where the next page begins, if there is one.
    pub next: Option<ResultsCursor>,
}

const DRAWS: &str = "
    SELECT draw AS id, state, standings.winning_number, expected, expected_agencies IS NULL AS expected_inferred,
           done, standings.bets, standings.winners, opened_at, drawn_at
      FROM standings JOIN draws ON draws.id = standings.draw";

/// The `+` keeps SQLite from the index over the draw, by which it would read all of
/// its batches each time.
const NEW_BATCHES: &str = "
    SELECT agency, sum(bet_count), count(*), max(id) FROM batches
     WHERE id > $1 AND +draw_id = $2 GROUP BY agency";

const MATCHING: &str = "
      FROM winners LEFT JOIN bets ON bets.id = winners.bet_id
     WHERE winners.draw_id = :draw
       AND (:agency IS NULL OR winners.agency = :agency)
       AND (:search IS NULL OR instr(lower(document), :search) OR instr(lower(first_name), :search)
            OR instr(lower(last_name), :search))";

impl Overview {
    /// Opens an existing database. A draw has been opened in it: a server has run.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open::open_reader(&DatabaseFiles::resolve(path))?;
        Ok(Self { connection, path: path.to_owned(), announcement: Announcement::default() })
    }

    /// Opens the database of a store in this process, which has verified it.
    pub(super) fn of_store(files: &DatabaseFiles, announcement: Announcement) -> Result<Self, OpenError> {
        let connection = open::open_beside_store(files)?;
        Ok(Self { connection, path: files.database().to_owned(), announcement })
    }

    /// The newest draws, newest first.
    pub fn draws(&self, draws_max: usize) -> Result<Vec<Draw>, OpenError> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("{DRAWS} ORDER BY draw DESC LIMIT $1"))?
                .query_map([draws_max], read_draw)?
                .collect()
        })
    }

    /// One draw, or the newest; `None` where there is none.
    pub fn draw(&self, draw: Option<DrawId>) -> Result<Option<Draw>, OpenError> {
        self.read(|connection| find_draw(connection, draw))
    }

    /// One draw, or the newest, with its agencies.
    pub fn detail(&self, draw: Option<DrawId>, tally: &mut Tally) -> Result<Option<Detail>, OpenError> {
        self.read(|connection| {
            let Some(draw) = find_draw(connection, draw)? else {
                return Ok(None);
            };
            tally.count(connection, &draw)?;
            let agencies = agencies(connection, tally)?;
            Ok(Some(Detail { draw, agencies }))
        })
    }

    /// A page of a draw's winners, by agency and then in stored order.
    pub fn results(&self, draw: DrawId, query: &Query) -> Result<Results, OpenError> {
        let search = query.search.as_ref().map(|text| text.to_ascii_lowercase());
        let agency = query.agency.map(|agency| agency.0);
        self.read(|connection| {
            let total = connection
                .prepare_cached(&format!("SELECT count(*) {MATCHING}"))?
                .query_row(named_params! {":draw": draw.0, ":agency": agency, ":search": search}, |row| {
                    row.get(0)
                })?;
            let (after_agency, after_bet) =
                query.after.map_or((-1, 0), |at| (i64::from(at.agency.0), at.bet));
            let mut found: Vec<(ResultsCursor, Winner)> = connection
                .prepare_cached(&format!(
                    "SELECT winners.agency, winners.bet_id, document, first_name, last_name, birthdate, number
                     {MATCHING} AND (winners.agency, winners.bet_id) > (:after_agency, :after_bet)
                     ORDER BY winners.agency, winners.bet_id LIMIT :rows"
                ))?
                .query_map(
                    named_params! {":draw": draw.0, ":agency": agency, ":search": search,
                    ":after_agency": after_agency, ":after_bet": after_bet, ":rows": query.winners_max + 1},
                    read_winner,
                )?
                .collect::<rusqlite::Result<_>>()?;
            let there_is_more = found.len() > query.winners_max;
            found.truncate(query.winners_max);
            let next = found.last().map(|(place, _)| *place).filter(|_| there_is_more);
            Ok(Results { total, winners: found.into_iter().map(|(_, winner)| winner).collect(), next })
        })
    }

    /// Answers one question from one snapshot.
    fn read<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, OpenError> {
        let fail = |source| sqlite_error(&self.path, "reading", source);
        let snapshot = self.connection.unchecked_transaction().map_err(fail)?;
        let answer = question(&snapshot).map_err(fail);
        // A draw that was seen has been announced when this returns.
        self.announcement.wait();
        answer
    }
}

impl Tally {
    /// Adds what came since it last counted.
    fn count(&mut self, connection: &Connection, draw: &Draw) -> rusqlite::Result<()> {
        if self.draw != draw.id {
            *self = Self { draw: draw.id, ..Self::default() };
        }
        // All of it before any is added: a read that fails halfway adds nothing.
        let new: Vec<(u32, Sent, i64)> = connection
            .prepare_cached(NEW_BATCHES)?
            .query_map(params![self.last_batch, draw.id], |row| {
                Ok((row.get(0)?, Sent { bets: row.get(1)?, batches: row.get(2)? }, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        if draw.is_drawn() && self.winners.is_none() {
            let winners = connection
                .prepare_cached("SELECT agency, count(*) FROM winners WHERE draw_id = $1 GROUP BY agency")?
                .query_map([draw.id], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            self.winners = Some(winners);
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

fn find_draw(connection: &Connection, draw: Option<DrawId>) -> rusqlite::Result<Option<Draw>> {
    connection
        .prepare_cached(&format!("{DRAWS} WHERE draw = coalesce($1, (SELECT max(id) FROM draws))"))?
        .query_row([draw.map(|draw| draw.0)], read_draw)
        .optional()
}

fn agencies(connection: &Connection, tally: &Tally) -> rusqlite::Result<Vec<Agency>> {
    let mut agencies: BTreeMap<u32, Agency> = BTreeMap::new();
    let mut entry = |agency: u32, change: &dyn Fn(&mut Agency)| {
        change(agencies.entry(agency).or_insert_with(|| Agency {
            agency,
            bets: 0,
            batches: 0,
            done: false,
            done_by: None,
            done_at: None,
            winners: 0,
        }));
    };
    for (agency, sent) in &tally.agencies {
        entry(*agency, &|agency| (agency.bets, agency.batches) = (sent.bets, sent.batches));
    }
    let mut done =
        connection.prepare_cached(r#"SELECT agency, "by", done_at FROM done_agencies WHERE draw_id = $1"#)?;
    let mut rows = done.query([tally.draw])?;
    while let Some(row) = rows.next()? {
        let (by, at): (String, String) = (row.get(1)?, row.get(2)?);
        entry(row.get(0)?, &|agency| {
            agency.done = true;
            (agency.done_by, agency.done_at) = (Some(by.clone()), Some(at.clone()));
        });
    }
    for (agency, winners) in tally.winners.iter().flatten() {
        entry(*agency, &|agency| agency.winners = *winners);
    }
    Ok(agencies.into_values().collect())
}

fn read_draw(row: &Row<'_>) -> rusqlite::Result<Draw> {
    Ok(Draw {
        id: row.get("id")?,
        state: row.get("state")?,
        winning_number: row.get("winning_number")?,
        expected: row.get("expected")?,
        expected_inferred: row.get("expected_inferred")?,
        done: row.get("done")?,
        bets: row.get("bets")?,
        winners: row.get("winners")?,
        opened_at: row.get("opened_at")?,
        drawn_at: row.get("drawn_at")?,
    })
}

fn read_winner(row: &Row<'_>) -> rusqlite::Result<(ResultsCursor, Winner)> {
    let agency = row.get(0)?;
    let winner = Winner {
        agency,
        document: row.get(2)?,
        first_name: row.get(3)?,
        last_name: row.get(4)?,
        birthdate: row.get(5)?,
        number: row.get(6)?,
    };
    Ok((ResultsCursor { agency: AgencyId(agency), bet: row.get(1)? }, winner))
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
