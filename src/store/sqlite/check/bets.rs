//! One pass over all bets in stored order, which compares them with the batches, the
//! draws and the winners.
//!
//! Within a draw and an agency, batches in order of id cover the bets in order of id: so
//! bets are matched with batches, and digests computed, with little memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use rusqlite::{Connection, Row};

use super::report::{Progress, Report, Step};
use crate::store::sqlite::error::is_damage;
use sorteo_protocol::{Bet, Digest, DigestBuilder, check_stored};

/// Bets between two steps of progress.
const PROGRESS_EVERY: u64 = 10_000;

/// A draw and an agency, as wide as SQLite's integers: damage respects no types.
type AgencyInDraw = (i64, i64);

/// Compares all bets with the other tables.
pub(super) fn check(
    connection: &Connection,
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> rusqlite::Result<()> {
    let mut draws = read_draws(connection)?;
    let mut cursors = read_cursors(connection)?;
    let all = draws
        .values()
        .fold(0_u64, |all, draw| all.saturating_add(draw.recorded_bets.try_into().unwrap_or(0)));
    let mut statement = connection.prepare(
        "SELECT id, draw_id, agency, first_name, last_name, document, birthdate, number FROM bets ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let (mut last_bet, mut last_draw): (i64, i64) = (0, 0);
    while let Some(row) = rows.next()? {
        let (id, draw, agency): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if last_bet.checked_add(1) != Some(id) {
            report.add(format_args!("bets: after bet {last_bet} comes bet {id}"));
        }
        if draw < last_draw {
            report.add(format_args!("bets: bet {id} of draw {draw} comes after bets of draw {last_draw}"));
        }
        (last_bet, last_draw) = (id, draw);
        let bet = read_bet(row, id, report)?;
        match draws.get_mut(&draw) {
            Some(draw) => draw.count(id, agency, bet),
            None => report.add(format_args!("bets: bet {id} names draw {draw}, which is missing")),
        }
        match cursors.get_mut(&(draw, agency)) {
            Some(cursor) if !cursor.batches.is_empty() => cursor.take(bet, (draw, agency), report),
            _ => report.add(format_args!("bets: bet {id} of agency {agency} in draw {draw} is in no batch")),
        }
        report.bets += 1;
        if report.bets.is_multiple_of(PROGRESS_EVERY) {
            progress(Step::Bets { done: report.bets, all });
        }
    }
    progress(Step::Bets { done: report.bets, all: report.bets });
    for ((draw, agency), cursor) in cursors {
        if let Some(BatchAhead { id, .. }) = cursor.batches.front() {
            report.add(format_args!(
                "batches: batch {id} of agency {agency} in draw {draw} has bets that are missing"
            ));
        }
    }
    for (id, draw) in draws {
        draw.compare(id, connection, report)?;
    }
    Ok(())
}

/// Reads a bet, and adds a finding if no version of the program would have accepted it. Returns `None` if
/// it cannot be read, which is a finding too.
fn read_bet<'a>(row: &'a Row<'_>, id: i64, report: &mut Report) -> rusqlite::Result<Option<Bet<'a>>> {
    let text = |column| -> rusqlite::Result<&'a str> { Ok(row.get_ref(column)?.as_str()?) };
    let read = || {
        Ok(Bet {
            first_name: text(3)?,
            last_name: text(4)?,
            document: text(5)?,
            birthdate: text(6)?,
            number: row.get(7)?,
        })
    };
    let bet = match read() {
        Ok(bet) => bet,
        Err(error) if is_damage(&error) => {
            report.add(format_args!("integrity: bet {id} cannot be read: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if let Err(error) = check_stored([bet.first_name, bet.last_name, bet.document, bet.birthdate]) {
        report.add(format_args!("bets: bet {id} is invalid: {}", error.code()));
    }
    Ok(Some(bet))
}

/// A batch whose bets come next.
struct BatchAhead {
    id: i64,
    bets: i64,
    digest: Digest,
}

/// How far the pass is with one agency in one draw.
#[derive(Default)]
struct Cursor {
    batches: VecDeque<BatchAhead>,
    taken: i64,
    digest: DigestBuilder,
}

impl Cursor {
    /// Matches one bet with the agency's next batch. `None` is a bet that could not be
    /// read, without which the digest differs.
    fn take(&mut self, bet: Option<Bet<'_>>, (draw, agency): AgencyInDraw, report: &mut Report) {
        if let Some(bet) = bet {
            self.digest.add(bet);
        }
        self.taken += 1;
        if self.batches.front().is_none_or(|batch| self.taken < batch.bets) {
            return;
        }
        let digest = std::mem::take(&mut self.digest).finish();
        self.taken = 0;
        if let Some(BatchAhead { id, .. }) = self.batches.pop_front().filter(|batch| batch.digest != digest) {
            report.add(format_args!(
                "batches: batch {id} of agency {agency} in draw {draw} differs from the rows that were acknowledged"
            ));
        }
    }
}

fn read_cursors(connection: &Connection) -> rusqlite::Result<HashMap<AgencyInDraw, Cursor>> {
    let mut cursors: HashMap<AgencyInDraw, Cursor> = HashMap::new();
    let mut statement =
        connection.prepare("SELECT id, draw_id, agency, bet_count, digest FROM batches ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let agency = (row.get(1)?, row.get(2)?);
        let batch = BatchAhead { id: row.get(0)?, bets: row.get(3)?, digest: Digest(row.get(4)?) };
        cursors.entry(agency).or_default().batches.push_back(batch);
    }
    Ok(cursors)
}

/// A draw as its row records it, and as its bets are stored.
struct CountedDraw {
    drawn: bool,
    winning_number: i64,
    recorded_bets: i64,
    recorded_winners: i64,
    bets: i64,
    winners: BTreeSet<(i64, i64)>,
}

fn read_draws(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, CountedDraw>> {
    connection
        .prepare("SELECT id, drawn_at IS NOT NULL, winning_number, bets, winners FROM draws")?
        .query_map([], |row| {
            let draw = CountedDraw {
                drawn: row.get(1)?,
                winning_number: row.get(2)?,
                recorded_bets: row.get(3)?,
                recorded_winners: row.get(4)?,
                bets: 0,
                winners: BTreeSet::new(),
            };
            Ok((row.get(0)?, draw))
        })?
        .collect()
}

impl CountedDraw {
    /// Counts a bet, and remembers it if it wins.
    fn count(&mut self, id: i64, agency: i64, bet: Option<Bet<'_>>) {
        self.bets += 1;
        if self.drawn && bet.is_some_and(|bet| i64::from(bet.number) == self.winning_number) {
            self.winners.insert((agency, id));
        }
    }

    /// Compares what was counted with the draw's row and the table of winners.
    fn compare(self, id: i64, connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
        let stored: BTreeSet<(i64, i64)> = connection
            .prepare("SELECT agency, bet_id FROM winners WHERE draw_id = $1")?
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let Self { recorded_bets, recorded_winners, bets, .. } = self;
        if bets != recorded_bets {
            report.add(format_args!("draws: draw {id} says {recorded_bets} bets, {bets} are stored"));
        }
        if recorded_winners != stored.len() as i64 {
            let stored = stored.len();
            report.add(format_args!("draws: draw {id} says {recorded_winners} winners, {stored} are stored"));
        }
        for (agency, bet) in self.winners.difference(&stored) {
            report.add(format_args!(
                "winners: bet {bet} of agency {agency} won draw {id} and is not among its winners"
            ));
        }
        for (agency, bet) in stored.difference(&self.winners) {
            report.add(format_args!(
                "winners: bet {bet} of agency {agency} is among the winners of draw {id} and did not win"
            ));
        }
        Ok(())
    }
}
