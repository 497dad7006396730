//! The terms of a draw: which agencies must be done, and which number wins.
//!
//! The audit records them too, and both must be the same: a draw is right only if its
//! terms are, and nothing else in the database depends on them.

use std::fmt;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::actor::actor;
use super::schema;
use super::time::now;
use crate::store::ExpectedAgencies;
use sorteo_protocol::{DEFAULT_WINNING_NUMBER, DrawId};

/// Terms given for a draw. What is not given stays as it is or, for the next draw, as
/// it was in the draw before.
#[derive(Clone, Debug, Default)]
pub struct DrawTerms {
    /// Which agencies must be done.
    pub agencies: Option<ExpectedAgencies>,
    /// The number that wins.
    pub winning_number: Option<u32>,
}

/// One of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawTerm {
    /// Which agencies must be done.
    Agencies,
    /// The number that wins.
    WinningNumber,
}

impl DrawTerm {
    /// Returns the name of the setting by which a server is given the term.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Agencies => "agencies",
            Self::WinningNumber => "winning_number",
        }
    }
}

/// A term that a server was given and that an open draw did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermNotTaken {
    /// Which term.
    pub term: DrawTerm,
    /// The draw, which keeps another value.
    pub draw: DrawId,
    /// Why it keeps it.
    pub reason: NotTakenReason,
}

/// Why a draw does not take a term that a server was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTakenReason {
    /// An operator opened the draw, or changed it: it keeps the terms of that command,
    /// because a restarted server is given what it was always given.
    SetByOperator,
}

impl fmt::Display for TermNotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            NotTakenReason::SetByOperator => write!(f, "draw {} keeps what an operator set", self.draw),
        }
    }
}

/// Who records a draw's terms in the audit.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordedBy {
    /// A server that opened the first draw, or was given other terms for an open one.
    Server,
    /// The operator who opened the draw.
    OpenedBy,
    /// An operator who changed it.
    ChangedBy,
}

impl RecordedBy {
    /// Returns the audit's name of the action.
    fn action(self) -> &'static str {
        match self {
            Self::Server => "serve",
            Self::OpenedBy => "open-draw",
            Self::ChangedBy => SET_DRAW,
        }
    }
}

/// The audit's name for the change of an open draw by an operator.
pub(super) const SET_DRAW: &str = "set-draw";

/// Opens the first draw of a database.
pub(super) fn open_first_draw(transaction: &Transaction<'_>, given: &DrawTerms) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO draws (winning_number, opened_at) VALUES ($1, $2)",
        params![given.winning_number.unwrap_or(DEFAULT_WINNING_NUMBER), now()],
    )?;
    match &given.agencies {
        Some(agencies) => set_agencies(transaction, DrawId(transaction.last_insert_rowid()), agencies),
        None => Ok(()),
    }
}

/// Opens the draw after `before`. What is not given is as it was there.
pub(super) fn open_next_draw(
    transaction: &Transaction<'_>,
    before: DrawId,
    given: &DrawTerms,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO draws (winning_number, expected_agencies, opened_at)
         SELECT coalesce($1, winning_number), expected_agencies, $2 FROM draws WHERE id = $3",
        params![given.winning_number, now(), before.0],
    )?;
    let draw = DrawId(transaction.last_insert_rowid());
    match &given.agencies {
        Some(agencies) => set_agencies(transaction, draw, agencies)?,
        None => {
            transaction.execute(
                "INSERT INTO expected_ranges SELECT $1, first, last FROM expected_ranges WHERE draw_id = $2",
                [draw.0, before.0],
            )?;
        }
    }
    record(transaction, draw, RecordedBy::OpenedBy)
}

/// Applies the terms that a server was given to a draw that is still open. Returns
/// those that the draw does not take.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    draw: DrawId,
    given: &DrawTerms,
) -> rusqlite::Result<Vec<TermNotTaken>> {
    let differing = differing(transaction, draw, given)?;
    if differing.is_empty() {
        return Ok(Vec::new());
    }
    if is_set_by_operator(transaction, draw)? {
        let reason = NotTakenReason::SetByOperator;
        return Ok(differing.into_iter().map(|term| TermNotTaken { term, draw, reason }).collect());
    }
    set(transaction, draw, given)?;
    Ok(Vec::new())
}

/// Sets the terms of an open draw that are given.
pub(super) fn set(transaction: &Transaction<'_>, draw: DrawId, given: &DrawTerms) -> rusqlite::Result<()> {
    if let Some(number) = given.winning_number {
        transaction.execute("UPDATE draws SET winning_number = $1 WHERE id = $2", params![number, draw.0])?;
    }
    match &given.agencies {
        Some(agencies) => set_agencies(transaction, draw, agencies),
        None => Ok(()),
    }
}

/// Returns which of the given terms an open draw has otherwise; none of one that is drawn.
pub(super) fn differing(
    transaction: &Transaction<'_>,
    draw: DrawId,
    given: &DrawTerms,
) -> rusqlite::Result<Vec<DrawTerm>> {
    let (agencies, number): (Option<String>, u32) = match transaction
        .query_row(
            &format!(
                "SELECT {EXPECTED_AGENCIES}, winning_number FROM draws WHERE id = $1 AND drawn_at IS NULL"
            ),
            [draw.0],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?
    {
        Some(found) => found,
        None => return Ok(Vec::new()),
    };
    let mut differing = Vec::new();
    if given.agencies.as_ref().is_some_and(|given| Some(given.to_string()) != agencies) {
        differing.push(DrawTerm::Agencies);
    }
    if given.winning_number.is_some_and(|given| given != number) {
        differing.push(DrawTerm::WinningNumber);
    }
    Ok(differing)
}

/// Returns the agencies that a draw expects, as [`ExpectedAgencies`] writes them; nothing
/// where they are inferred.
pub(super) fn expected_agencies(connection: &Connection, draw: DrawId) -> rusqlite::Result<String> {
    let sql = format!("SELECT coalesce({EXPECTED_AGENCIES}, '') FROM draws WHERE id = $1");
    connection.query_row(&sql, [draw.0], |row| row.get(0))
}

fn set_agencies(
    transaction: &Transaction<'_>,
    draw: DrawId,
    agencies: &ExpectedAgencies,
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM expected_ranges WHERE draw_id = $1", [draw.0])?;
    let count = match agencies {
        ExpectedAgencies::Count(count) => u64::from(*count),
        ExpectedAgencies::Set(set) => {
            let mut insert = transaction.prepare("INSERT INTO expected_ranges VALUES ($1, $2, $3)")?;
            for range in set.ranges() {
                insert.execute(params![draw.0, range.start(), range.end()])?;
            }
            set.size()
        }
    };
    transaction.execute("UPDATE draws SET expected_agencies = $1 WHERE id = $2", params![count, draw.0])?;
    // Which of the agencies that are done already are expected may have changed.
    transaction.execute(
        "UPDATE draws SET done = (SELECT done FROM expected_done WHERE draw = $1) WHERE id = $1",
        [draw.0],
    )?;
    Ok(())
}

fn is_set_by_operator(transaction: &Transaction<'_>, draw: DrawId) -> rusqlite::Result<bool> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM audit WHERE draw_id = $1 AND action IN ('open-draw', 'set-draw'))",
        [draw.0],
        |row| row.get(0),
    )
}

/// The agencies that a draw expects, as [`ExpectedAgencies`] writes them; NULL where they
/// are inferred. For a query over `draws`.
pub(super) const EXPECTED_AGENCIES: &str = "
    coalesce(
        (SELECT group_concat(iif(first = last AND ranges > 1, first, first || '-' || last), ',' ORDER BY first)
           FROM (SELECT first, last, count(*) OVER () AS ranges FROM expected_ranges WHERE draw_id = draws.id)),
        CAST(expected_agencies AS TEXT))";

/// Returns a query for the terms of each draw, as the audit words them.
fn terms(connection: &Connection) -> rusqlite::Result<String> {
    let expected = match schema::has_sets_and_totals(connection)? {
        true => EXPECTED_AGENCIES,
        // Before the second migration there were no sets.
        false => "expected_agencies",
    };
    Ok(format!(
        "SELECT id AS draw_id, 'expected_agencies ' AS term,
                coalesce('expected_agencies set to ' || {expected}, 'expected_agencies inferred') AS held,
                drawn_at
           FROM draws
          UNION ALL
         SELECT id, 'winning_number ', 'winning_number set to ' || winning_number, drawn_at FROM draws"
    ))
}

/// What the audit recorded last of a term; NULL if nothing.
const RECORDED: &str = "
    (SELECT detail FROM audit
      WHERE audit.draw_id = terms.draw_id AND action IN ('serve', 'open-draw', 'set-draw')
        AND substr(detail, 1, length(term)) = term
      ORDER BY id DESC LIMIT 1)";

/// Records the terms of an open draw in the audit, unless they are recorded already.
pub(super) fn record(transaction: &Transaction<'_>, draw: DrawId, by: RecordedBy) -> rusqlite::Result<()> {
    let terms = terms(transaction)?;
    transaction.execute(
        &format!(
            "INSERT INTO audit (at, action, draw_id, detail, actor)
             SELECT $1, $2, draw_id, held, $3 FROM ({terms}) AS terms
              WHERE draw_id = $4 AND drawn_at IS NULL AND {RECORDED} IS NOT held
              ORDER BY term"
        ),
        params![now(), by.action(), actor(), draw.0],
    )?;
    Ok(())
}

/// Returns a line for each term of a draw that differs from what the audit recorded
/// last.
pub(super) fn differing_from_audit(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let terms = terms(connection)?;
    connection
        .prepare(&format!(
            "SELECT draw_id, held, recorded
               FROM (SELECT draw_id, held, {RECORDED} AS recorded FROM ({terms}) AS terms)
              WHERE recorded <> held"
        ))?
        .query_map([], |row| {
            let (draw, held, recorded): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("draw {draw} has {held}, the audit records {recorded}"))
        })?
        .collect()
}
