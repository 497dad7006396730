//! Exports for other programs: the bets of a draw, or its winners.
//!
//! Rows are read in pieces, each by a statement of its own whose rows are collected
//! before any is written out: memory stays bounded, and however slowly they are
//! consumed, the WAL can start over. Bets never change and winners are written once, so
//! the pieces fit together; of an open draw, the export has the bets that were stored
//! when it began.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;

use super::error::{OpenError, sqlite_error};
use super::files::DatabaseFiles;
use super::open;
use sorteo_protocol::{AgencyId, DrawId};

/// Most rows in a piece: a few MiB of text at most.
const ROWS_MAX: i64 = 10_000;

/// What to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The winning bets of a draw that is drawn, by agency and then in stored order.
    Results,
    /// All bets of a draw, in stored order.
    Bets,
}

/// Why nothing, or nothing more, is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database was refused, or failed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no such draw.
    #[error("there is no draw {0}")]
    NoDraw(DrawId),
    /// No draw was ever opened.
    #[error("there is no draw yet")]
    NoDraws,
    /// The draw has no results yet.
    #[error("draw {0} is not drawn yet: it has no results")]
    NotDrawn(DrawId),
    /// No draw has results yet.
    #[error("no draw is drawn yet: there are no results")]
    NoneDrawn,
}

/// A bet as it is exported; the fields are in the order of the columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportedBet {
    /// Its draw.
    pub draw: i64,
    /// Its number among all bets ever stored, from 1.
    pub bet: i64,
    /// The agency that took it.
    pub agency: u32,
    /// The bettor's given names.
    pub first_name: String,
    /// The bettor's surname.
    pub last_name: String,
    /// The bettor's identity document.
    pub document: String,
    /// The bettor's date of birth, `YYYY-MM-DD`.
    pub birthdate: String,
    /// The number that was bet on.
    pub number: u32,
}

/// An export, and how far it is.
#[derive(Debug)]
pub struct Export {
    connection: Connection,
    path: PathBuf,
    subject: Subject,
    draw: DrawId,
    agency: Option<AgencyId>,
    /// The last bet that was read, and for results its agency.
    after: (i64, i64),
    /// The last bet to read.
    last: i64,
    /// Rows that were read so far.
    rows: i64,
    /// Rows that there must be, if the draw counts them: those of all agencies.
    rows_expected: Option<i64>,
}

impl Export {
    /// Begins an export: of the given draw, or of the newest that has what is exported;
    /// of all agencies, or of one.
    ///
    /// # Errors
    ///
    /// Fails if the database is refused, or if there is no such draw or result.
    pub fn open(
        database: &Path,
        subject: Subject,
        draw: Option<DrawId>,
        agency: Option<AgencyId>,
    ) -> Result<Self, ExportError> {
        let connection = open::open_reader(&DatabaseFiles::resolve(database))?;
        let found = find_draw(&connection, subject, draw)
            .map_err(|source| sqlite_error(database, "finding the draw", source))?;
        let found = found.ok_or_else(|| not_found(subject, draw))?;
        if subject == Subject::Results && !found.drawn {
            return Err(ExportError::NotDrawn(found.draw));
        }
        let after = match subject {
            Subject::Results => (-1, 0),
            Subject::Bets => (0, found.before),
        };
        let last = found.before + found.bets;
        let all = if subject == Subject::Results { found.winners } else { found.bets };
        let rows_expected = agency.is_none().then_some(all);
        let path = database.to_owned();
        Ok(Self { connection, path, subject, draw: found.draw, agency, after, last, rows: 0, rows_expected })
    }

    /// Returns which draw is exported.
    pub fn draw(&self) -> DrawId {
        self.draw
    }

    /// Returns the next piece; an empty one is the end.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be read, also if rows are missing at the end.
    pub fn next_rows(&mut self) -> Result<Vec<ExportedBet>, ExportError> {
        let rows = match self.subject {
            Subject::Results => self.next_results(),
            Subject::Bets => self.next_bets(),
        };
        let rows = rows.map_err(|source| sqlite_error(&self.path, "reading the bets", source))?;
        self.rows += rows.len() as i64;
        match self.rows_expected {
            Some(expected) if rows.is_empty() && expected != self.rows => {
                let detail =
                    format!("draw {} should have {expected} rows, {} can be read", self.draw, self.rows);
                Err(OpenError::Corrupt { path: self.path.clone(), detail }.into())
            }
            _ => Ok(rows),
        }
    }

    /// Reads winners in the order of their key. An empty piece is the end.
    fn next_results(&mut self) -> rusqlite::Result<Vec<ExportedBet>> {
        let (agency, bet) = self.after;
        let rows: Vec<ExportedBet> = self
            .connection
            .prepare_cached(
                "SELECT winners.draw_id, winners.bet_id, winners.agency,
                        first_name, last_name, document, birthdate, number
                   FROM winners LEFT JOIN bets ON bets.id = winners.bet_id
                  WHERE winners.draw_id = $1 AND (winners.agency, winners.bet_id) > ($2, $3)
                    AND ($4 IS NULL OR winners.agency = $4)
                  ORDER BY winners.agency, winners.bet_id LIMIT $5",
            )?
            .query_map(
                params![self.draw.0, agency, bet, self.agency.map(|agency| agency.0), ROWS_MAX],
                read_bet,
            )?
            .collect::<rusqlite::Result<_>>()?;
        if let Some(last) = rows.last() {
            self.after = (last.agency.into(), last.bet);
        }
        Ok(rows)
    }

    /// Reads bets by their id. A piece may have none of the agency that is exported: the
    /// first that has some is returned.
    fn next_bets(&mut self) -> rusqlite::Result<Vec<ExportedBet>> {
        while self.after.1 < self.last {
            let (from, to) = (self.after.1, (self.after.1 + ROWS_MAX).min(self.last));
            let rows: Vec<ExportedBet> = self
                .connection
                .prepare_cached(
                    "SELECT draw_id, id, agency, first_name, last_name, document, birthdate, number FROM bets
                      WHERE id > $1 AND id <= $2 AND draw_id = $3 AND ($4 IS NULL OR agency = $4)
                      ORDER BY id",
                )?
                .query_map(params![from, to, self.draw.0, self.agency.map(|agency| agency.0)], read_bet)?
                .collect::<rusqlite::Result<_>>()?;
            self.after.1 = to;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }
}

/// A draw, and which bets belong to it: bets are stored draw after draw, so those of
/// the draws before it come first.
struct FoundDraw {
    draw: DrawId,
    drawn: bool,
    bets: i64,
    winners: i64,
    /// Bets of the draws before it.
    before: i64,
}

fn find_draw(
    connection: &Connection,
    subject: Subject,
    draw: Option<DrawId>,
) -> rusqlite::Result<Option<FoundDraw>> {
    connection
        .query_row(
            "SELECT id, drawn_at IS NOT NULL, bets, winners,
                    (SELECT coalesce(sum(bets), 0) FROM draws AS earlier WHERE earlier.id < draws.id)
               FROM draws
              WHERE CASE WHEN $1 IS NULL THEN drawn_at IS NOT NULL OR $2 ELSE id = $1 END
              ORDER BY id DESC LIMIT 1",
            params![draw.map(|draw| draw.0), subject == Subject::Bets],
            |row| {
                Ok(FoundDraw {
                    draw: DrawId(row.get(0)?),
                    drawn: row.get(1)?,
                    bets: row.get(2)?,
                    winners: row.get(3)?,
                    before: row.get(4)?,
                })
            },
        )
        .optional()
}

fn not_found(subject: Subject, draw: Option<DrawId>) -> ExportError {
    match (draw, subject) {
        (Some(draw), _) => ExportError::NoDraw(draw),
        (None, Subject::Results) => ExportError::NoneDrawn,
        (None, Subject::Bets) => ExportError::NoDraws,
    }
}

fn read_bet(row: &Row<'_>) -> rusqlite::Result<ExportedBet> {
    Ok(ExportedBet {
        draw: row.get(0)?,
        bet: row.get(1)?,
        agency: row.get(2)?,
        first_name: row.get(3)?,
        last_name: row.get(4)?,
        document: row.get(5)?,
        birthdate: row.get(6)?,
        number: row.get(7)?,
    })
}
