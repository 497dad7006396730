//! What an operator changes in a database: opens the next draw, sets its terms, closes an agency that
//! stays silent, records an import; and, in `tokens`, who may do what. Beside a running server or without one: as in the
//! server's own writer, every rule is decided inside the write transaction.
//!
//! Each change is recorded in the table `audit`, in the same transaction.

mod tokens;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::error::{OpenError, sqlite_error};
use super::files::{DatabaseFiles, FileId};
use super::status::{newest_draw, newest_draw_for_write};
pub use super::terms::DrawTerms;
use super::terms::{RecordedBy, SET_DRAW};
use super::text::{is_one_line, one_line};
pub use super::tokens::{LABEL_BYTES_MAX, NewToken};
use super::{audit, draw, open, terms, totals};
use crate::store::{CloseRefusal, Closing, DoneBy, DrawStatus};
use sorteo_protocol::{AgencyId, DrawId, TokenId};

/// Pause between two attempts to take the write lock while a busy server holds it. Its
/// writer releases it only for moments: SQLite's own pauses, up to 100 ms, would miss
/// them.
const LOCK_RETRY: Duration = Duration::from_millis(1);
/// Number of attempts: half a minute.
const LOCK_TRIES: i32 = 30_000;
/// Longest reason for a change, in bytes of UTF-8.
pub const REASON_BYTES_MAX: usize = 500;

/// A database opened by an operator.
#[derive(Debug)]
pub struct Operator {
    connection: Connection,
    path: PathBuf,
    /// The file that was opened, if the system identifies it.
    file: Option<FileId>,
}

/// An agency that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedAgency {
    /// Its bets, which take part in the draw.
    pub bets: u64,
    /// The status of the draw now.
    pub status: DrawStatus,
    /// Whether this was the last agency, and drew.
    pub drawn_now: bool,
}

/// An open draw of which the terms were set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedDraw {
    /// The status of the draw now.
    pub status: DrawStatus,
    /// Whether a term was another before.
    pub changed: bool,
    /// Whether all agencies were done that are expected now, so that the draw took place.
    pub drawn_now: bool,
}

/// Why an operator's command changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The database was refused, or failed.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// No server has run on the database.
    #[error("{} has no draw yet: start `sorteo serve` on it once", .0.display())]
    NoDraw(PathBuf),
    /// A restore put another file in the database's place while the change waited.
    #[error("{} was replaced by a restore while this command waited: look at it, and run the command again if it is still needed", .0.display())]
    Replaced(PathBuf),
    /// The newest draw still takes bets.
    #[error(
        "draw {} is still open, {} of {} agencies are done: the next one can be opened once it is drawn. \
         `sorteo draw close-agency` closes an agency that stays silent",
        .0.draw, .0.done, .0.expected
    )]
    StillOpen(DrawStatus),
    /// The newest draw is drawn.
    #[error("draw {0} is already drawn: there is nothing to change")]
    AlreadyDrawn(DrawId),
    /// The agency is done already.
    #[error("agency {agency} is already done in draw {draw}")]
    AlreadyDone {
        /// The agency.
        agency: AgencyId,
        /// The newest draw.
        draw: DrawId,
    },
    /// The agency is unknown. A closed agency counts towards those that must be done: with
    /// a mistyped number, the draw would happen without an agency.
    #[error(
        "agency {agency} has sent nothing in draw {draw}, and the agencies expected are 1 to {expected}: \
         check the number, or close it with --force"
    )]
    UnknownAgency {
        /// The agency.
        agency: AgencyId,
        /// The newest draw.
        draw: DrawId,
        /// How many agencies are expected in it.
        expected: u64,
    },
    /// The draw expects certain agencies, and not this one.
    #[error("draw {draw} expects the agencies {expected}, agency {agency} is none of them")]
    NotExpected {
        /// The agency.
        agency: AgencyId,
        /// The newest draw.
        draw: DrawId,
        /// The agencies that it expects.
        expected: String,
    },
    /// There is no such token.
    #[error("there is no token {0}: see `sorteo token list`")]
    NoToken(TokenId),
    /// The token has expired or was revoked, so that there is nothing to rotate.
    #[error("token {0} has expired or was revoked: add another with `sorteo token add`")]
    TokenEnded(TokenId),
    /// The token expires, and the one in its place would not.
    #[error("token {0} expires, so say when the one in its place does: give --expires")]
    NoEnd(TokenId),
    /// The token was revoked already.
    #[error("token {0} is revoked already")]
    TokenRevoked(TokenId),
    /// The time is not in the future.
    #[error("a token that expires {0}, which is over, would be of no use")]
    ExpiresInThePast(String),
    /// The label is too long, or not one line of text.
    #[error("the label must be one line of at most {LABEL_BYTES_MAX} bytes")]
    BadLabel,
    /// The system did not provide random bytes.
    #[error("the system provides no random bytes: {0}")]
    NoRandomBytes(String),
    /// The reason is empty, too long, or not one line of text.
    #[error("the reason must be one line of 1 to {REASON_BYTES_MAX} bytes")]
    BadReason,
}

impl Operator {
    /// Opens an existing database to change it; nothing is changed by opening.
    ///
    /// # Errors
    ///
    /// Fails if there is no database of ours at the path, or if it is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open::open_beside_server(&DatabaseFiles::resolve(path))?;
        connection
            .busy_handler(Some(|tries| {
                thread::sleep(LOCK_RETRY);
                tries < LOCK_TRIES
            }))
            .map_err(|source| sqlite_error(path, "setting up the operator's connection", source))?;
        Ok(Self { connection, path: path.to_owned(), file: FileId::at(path) })
    }

    /// Opens the next draw, once the newest is drawn. Returns its status.
    ///
    /// # Errors
    ///
    /// Fails with [`OperatorError::StillOpen`] before that.
    pub fn open_draw(&mut self, terms: DrawTerms) -> Result<DrawStatus, OperatorError> {
        self.change(|transaction, status| {
            if !status.drawn {
                return Ok(Err(OperatorError::StillOpen(status)));
            }
            terms::open_next_draw(transaction, status.draw, &terms)?;
            Ok(Ok(newest_draw(transaction)?))
        })
    }

    /// Sets terms of the newest draw, which is still open, and draws if all agencies are
    /// done that it then expects.
    ///
    /// # Errors
    ///
    /// Fails if the draw is drawn, or the reason is not [valid](is_reason).
    pub fn set_draw(&mut self, terms: &DrawTerms, reason: &str) -> Result<ChangedDraw, OperatorError> {
        self.change_open_draw(reason, |transaction, before, reason| {
            let draw = before.draw;
            if terms::differing(transaction, draw, terms)?.is_empty() {
                return Ok(Ok(ChangedDraw { status: before, changed: false, drawn_now: false }));
            }
            terms::set(transaction, draw, terms)?;
            terms::record(transaction, draw, RecordedBy::ChangedBy)?;
            audit::record(transaction, SET_DRAW, Some(draw), &format!("reason: {reason}"))?;
            let drawn_now = draw::draw_if_due(transaction, draw)?;
            Ok(Ok(ChangedDraw { status: newest_draw(transaction)?, changed: true, drawn_now }))
        })
    }

    /// Records that an agency is done, in place of the agency itself, and draws if it was
    /// the last. `force` closes also an agency that is unknown.
    ///
    /// # Errors
    ///
    /// Fails if the draw is drawn, the agency is done or unknown, or the reason is not
    /// [valid](is_reason).
    pub fn close_agency(
        &mut self,
        agency: AgencyId,
        reason: &str,
        force: bool,
    ) -> Result<ClosedAgency, OperatorError> {
        self.change_open_draw(reason, |transaction, before, reason| {
            let draw = before.draw;
            let bets = totals::find(transaction, draw, agency)?.bets;
            let expected = before.expected;
            // In a draw that expects certain agencies, it decides which may be closed.
            let is_known = bets > 0
                || (1..=expected).contains(&u64::from(agency.0))
                || newest_draw_for_write(transaction)?.has_set;
            if !is_known && !force {
                return Ok(Err(OperatorError::UnknownAgency { agency, draw, expected }));
            }
            match draw::close_agency(transaction, agency, None, None, DoneBy::Operator, u64::MAX)? {
                (Ok(Closing::Now), drawn_now) => {
                    let detail = format!("agency {agency} closed with {bets} bets: {reason}");
                    audit::record(transaction, "close-agency", Some(draw), &detail)?;
                    Ok(Ok(ClosedAgency { bets, status: newest_draw(transaction)?, drawn_now }))
                }
                (Err(CloseRefusal::NotAdmitted(_)), _) => {
                    let expected = terms::expected_agencies(transaction, draw)?;
                    Ok(Err(OperatorError::NotExpected { agency, draw, expected }))
                }
                // No count and no draw were given, so neither can be wrong.
                (
                    Ok(Closing::AlreadyDone)
                    | Err(CloseRefusal::CountMismatch { .. } | CloseRefusal::NoSuchDraw),
                    _,
                ) => Ok(Err(OperatorError::AlreadyDone { agency, draw })),
            }
        })
    }

    /// Records in the audit that bets were imported into a draw.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be changed.
    pub fn record_import(&mut self, draw: DrawId, what: &str) -> Result<(), OperatorError> {
        let detail = one_line(what);
        self.change(|transaction, _| Ok(Ok(audit::record(transaction, "import", Some(draw), &detail)?)))
    }

    /// Runs one change of a draw that is still open, for a reason, which the change gets as
    /// the audit records it.
    fn change_open_draw<T>(
        &mut self,
        reason: &str,
        change: impl FnOnce(&Transaction<'_>, DrawStatus, &str) -> rusqlite::Result<Result<T, OperatorError>>,
    ) -> Result<T, OperatorError> {
        if !is_reason(reason) {
            return Err(OperatorError::BadReason);
        }
        self.change(|transaction, before| match before.drawn {
            true => Ok(Err(OperatorError::AlreadyDrawn(before.draw))),
            false => change(transaction, before, reason.trim()),
        })
    }

    /// Runs one change in one transaction; a change that is refused is rolled back.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, DrawStatus) -> rusqlite::Result<Result<T, OperatorError>>,
    ) -> Result<T, OperatorError> {
        let path = &self.path;
        let fail = |operation| move |source| sqlite_error(path, operation, source);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail("waiting for the write lock"))?;
        if FileId::at(path) != self.file {
            return Err(OperatorError::Replaced(path.clone()));
        }
        let status = newest_draw(&transaction).optional().map_err(fail("reading the newest draw"))?;
        let Some(status) = status else {
            return Err(OperatorError::NoDraw(path.clone()));
        };
        let changed = change(&transaction, status).map_err(fail("changing the draw"))??;
        transaction.commit().map_err(fail("committing the change"))?;
        match FileId::at(path) == self.file {
            true => Ok(changed),
            false => Err(OperatorError::Replaced(path.clone())),
        }
    }
}

/// Returns whether a text can be the reason for a change: one line of 1 to
/// [`REASON_BYTES_MAX`] bytes.
pub fn is_reason(text: &str) -> bool {
    (1..=REASON_BYTES_MAX).contains(&text.trim().len()) && is_one_line(text)
}
