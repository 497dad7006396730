//! The terms of a draw: how many agencies must be done, and which number wins.
//!
//! The audit records them too, and both must be the same: a draw is right only if its
//! terms are, and nothing else in the database depends on them.

use std::fmt;

use rusqlite::{Connection, Transaction, params};

use super::time::now;
use sorteo_protocol::{DEFAULT_WINNING_NUMBER, DrawId};

/// Terms given for a draw. What is not given stays as it is or, for the next draw, as
/// it was in the draw before.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrawTerms {
    /// How many agencies must be done.
    pub agencies: Option<u32>,
    /// The number that wins.
    pub winning_number: Option<u32>,
}

/// One of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawTerm {
    /// How many agencies must be done.
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

    fn column(self) -> &'static str {
        match self {
            Self::Agencies => "expected_agencies",
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
    /// An operator opened the draw: it keeps the terms of that command, because a
    /// restarted server is given what it was always given.
    OpenedByOperator,
}

impl fmt::Display for TermNotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            NotTakenReason::OpenedByOperator => {
                write!(f, "draw {} keeps what an operator opened it with", self.draw)
            }
        }
    }
}

/// Who records a draw's terms in the audit.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordedBy {
    /// A server that opened the first draw, or was given other terms for an open one.
    Server,
    /// The operator who opened the draw.
    Operator,
}

impl RecordedBy {
    /// Returns the audit's name of the action.
    fn action(self) -> &'static str {
        match self {
            Self::Server => "serve",
            Self::Operator => "open-draw",
        }
    }
}

/// Opens the first draw of a database.
pub(super) fn open_first_draw(transaction: &Transaction<'_>, given: DrawTerms) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO draws (winning_number, expected_agencies, opened_at) VALUES ($1, $2, $3)",
        params![given.winning_number.unwrap_or(DEFAULT_WINNING_NUMBER), given.agencies, now()],
    )?;
    Ok(())
}

/// Opens the draw after `before`. What is not given is as it was there.
pub(super) fn open_next_draw(
    transaction: &Transaction<'_>,
    before: DrawId,
    given: DrawTerms,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO draws (winning_number, expected_agencies, opened_at)
         SELECT coalesce($1, winning_number), coalesce($2, expected_agencies), $3 FROM draws WHERE id = $4",
        params![given.winning_number, given.agencies, now(), before.0],
    )?;
    record(transaction, DrawId(transaction.last_insert_rowid()), RecordedBy::Operator)
}

/// Applies the terms that a server was given to a draw that is still open. Returns
/// those that the draw does not take.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    draw: DrawId,
    given: DrawTerms,
) -> rusqlite::Result<Vec<TermNotTaken>> {
    let mut not_taken = Vec::new();
    for (term, value) in
        [(DrawTerm::Agencies, given.agencies), (DrawTerm::WinningNumber, given.winning_number)]
    {
        let Some(value) = value else { continue };
        if !is_open_with_other(transaction, draw, term, value)? {
            continue;
        }
        if is_opened_by_operator(transaction, draw)? {
            not_taken.push(TermNotTaken { term, draw, reason: NotTakenReason::OpenedByOperator });
            continue;
        }
        let sql = format!("UPDATE draws SET {} = $1 WHERE id = $2", term.column());
        transaction.execute(&sql, params![value, draw.0])?;
    }
    Ok(not_taken)
}

/// Whether a draw is open and has another value of a term.
fn is_open_with_other(
    transaction: &Transaction<'_>,
    draw: DrawId,
    term: DrawTerm,
    value: u32,
) -> rusqlite::Result<bool> {
    let column = term.column();
    transaction.query_row(
        &format!("SELECT drawn_at IS NULL AND {column} IS NOT $1 FROM draws WHERE id = $2"),
        params![value, draw.0],
        |row| row.get(0),
    )
}

fn is_opened_by_operator(transaction: &Transaction<'_>, draw: DrawId) -> rusqlite::Result<bool> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM audit WHERE draw_id = $1 AND action = 'open-draw')",
        [draw.0],
        |row| row.get(0),
    )
}

/// The terms of each draw, as the audit words them.
const TERMS: &str = "
    SELECT id AS draw_id, 'expected_agencies ' AS term,
           coalesce('expected_agencies set to ' || expected_agencies, 'expected_agencies inferred') AS held,
           drawn_at
      FROM draws
     UNION ALL
    SELECT id, 'winning_number ', 'winning_number set to ' || winning_number, drawn_at FROM draws";

/// What the audit recorded last of a term; NULL if nothing.
const RECORDED: &str = "
    (SELECT detail FROM audit
      WHERE audit.draw_id = terms.draw_id AND action IN ('serve', 'open-draw')
        AND substr(detail, 1, length(term)) = term
      ORDER BY id DESC LIMIT 1)";

/// Records the terms of an open draw in the audit, unless they are recorded already.
pub(super) fn record(transaction: &Transaction<'_>, draw: DrawId, by: RecordedBy) -> rusqlite::Result<()> {
    transaction.execute(
        &format!(
            "INSERT INTO audit (at, action, draw_id, detail)
             SELECT $1, $2, draw_id, held FROM ({TERMS}) AS terms
              WHERE draw_id = $3 AND drawn_at IS NULL AND {RECORDED} IS NOT held
              ORDER BY term"
        ),
        params![now(), by.action(), draw.0],
    )?;
    Ok(())
}

/// Returns a line for each term of a draw that differs from what the audit recorded
/// last.
pub(super) fn differing_from_audit(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(&format!(
            "SELECT draw_id, held, recorded
               FROM (SELECT draw_id, held, {RECORDED} AS recorded FROM ({TERMS}) AS terms)
              WHERE recorded <> held"
        ))?
        .query_map([], |row| {
            let (draw, held, recorded): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("draw {draw} has {held}, the audit records {recorded}"))
        })?
        .collect()
}
