//! What the service needs of a database, and what every database must guarantee.
//!
//! The trait is written so that a second engine can be held to it: the tests in
//! `tests/it/store_contract.rs` know nothing but this trait. Engines live below this
//! module, and SQL lives nowhere else.
//!
//! # Guarantees of every engine
//!
//! 1. **Durable.** A ticket that resolves to success means that the change is committed
//!    and synced: it survives the process, the kernel and a power cut.
//! 2. **Atomic.** The batches of one [`Store::append`] are stored whole or not at all,
//!    each bet once.
//! 3. **Exactly once.** A batch with an [`UploadPosition`](sorteo_protocol::UploadPosition)
//!    is stored once however often it is sent; other rows at its position are refused.
//! 4. **One draw.** A draw is drawn by one conditional UPDATE of its row, in the
//!    transaction that records the last agency and the winners. The transaction that
//!    changes that row draws; no other does, in this process or another. The draw's row is locked
//!    before the agencies are counted.
//! 5. **Closed means closed.** No bet enters a draw that is drawn, or comes from an agency
//!    that is done.
//! 6. **Ordered, and fair.** Writes that one [`Submitter`] submits are carried out in that
//!    order; a read sees every write whose ticket has resolved. What one submitter writes
//!    does not make those wait long that write little.
//! 7. **Honest about failure.** After a commit that failed, it is unknown whether its
//!    writes are stored: the ticket resolves to [`StoreError::Unknown`], and the engine
//!    accepts nothing more.

mod expected;
pub mod sqlite;
mod token;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

pub use self::expected::{AgencySet, BadAgencies, ExpectedAgencies};
pub use self::token::{NotARole, Role, StoredToken, TokenHolder, TokenUse};
use sorteo_protocol::{AgencyId, Batch, Bet, DrawId, TokenId, UploadId};

/// A lottery's database. See the module for what an engine guarantees.
///
/// # Errors
///
/// A write is submitted, and resolves later, through a [`Ticket`]. Submitting fails with
/// [`StoreError::Busy`] if too many writes wait, and with [`StoreError::Unknown`] once the
/// engine accepts nothing more. A read fails with [`StoreError::Unavailable`].
pub trait Store: Send + Sync + 'static {
    /// Submits batches to be stored all or none, in the newest draw. A batch that names
    /// another draw is stored nowhere: it is acknowledged if that draw holds it already, and
    /// refused otherwise.
    fn append_from(&self, submitter: Submitter, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError>;

    /// Submits that an agency is done, and draws if it was the last.
    ///
    /// With `bets`, the agency is done only if exactly that many of its bets are stored. With
    /// a `draw` that is not the newest, nothing is changed.
    fn close_agency_from(
        &self,
        submitter: Submitter,
        agency: AgencyId,
        bets: Option<u64>,
        draw: Option<DrawId>,
    ) -> Result<Ticket<Closed>, StoreError>;

    /// Submits batches as [`Store::append_from`] does, for a program with one submitter.
    fn append(&self, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        self.append_from(Submitter::default(), batches)
    }

    /// Submits that an agency is done in the newest draw as [`Store::close_agency_from`] does,
    /// for a program with one submitter.
    fn close_agency(&self, agency: AgencyId, bets: Option<u64>) -> Result<Ticket<Closed>, StoreError> {
        self.close_agency_from(Submitter::default(), agency, bets, None)
    }

    /// Submits a write that changes nothing: its ticket resolves to success if writes can
    /// be carried out.
    fn probe(&self) -> Result<Ticket<()>, StoreError>;

    /// Returns the next row of an upload in a draw, 0-based: 0 if nothing is stored.
    fn next_row(&self, draw: DrawId, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError>;

    /// Returns the status of the newest draw.
    fn newest_draw(&self) -> Result<DrawStatus, StoreError>;

    /// Returns the status of one draw; `None` if there is no such draw.
    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError>;

    /// Returns the draw before the newest, if an agency that names no draw must mean it:
    /// the agency was done there, and in the newest draw, which is open, it has neither
    /// stored a bet nor closed.
    fn previous_draw_for(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError>;

    /// Returns winning bets of one agency in a draw that is drawn, in stored order: those
    /// after the bet with the id `after`, at most `bets_max` of them.
    fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError>;

    /// Returns how many winning bets one agency has, and how many bytes of text they are.
    fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError>;

    /// Returns the tokens by which agencies and operators prove who they are.
    fn tokens(&self) -> &dyn Tokens;
}

/// The tokens of a store.
///
/// # Errors
///
/// Those of [`Store`].
pub trait Tokens {
    /// Returns a token; `None` if there is none with this id.
    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError>;

    /// Returns a number that is another whenever a token was added or revoked since.
    fn version(&self) -> Result<u64, StoreError>;

    /// Returns when each token ends that does: when it expires or, if it was revoked, the Unix
    /// epoch, so that no change of the system's clock brings it back.
    fn ends(&self) -> Result<BTreeMap<TokenId, SystemTime>, StoreError>;

    /// Submits when tokens were last used, for those who look whether one is still needed.
    fn record_uses(&self, uses: Vec<TokenUse>) -> Result<Ticket<()>, StoreError>;
}

/// Who submits writes, such as a connection. The writes of one are carried out in order,
/// and those of different ones in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Submitter(pub u64);

/// The outcome of an append that was carried out.
pub type Appended = Result<(), AppendRefusal>;

/// The outcome of a close that was carried out.
pub type Closed = Result<Closing, CloseRefusal>;

/// Whether a close changed anything: it may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The agency is done as of now.
    Now,
    /// It was done already, or the draw is drawn and there is nothing to close.
    AlreadyDone,
}

/// Who declared an agency done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneBy {
    /// The agency itself.
    Agency,
    /// An operator, because the agency stayed silent.
    Operator,
}

impl DoneBy {
    /// Returns the word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agency => "agency",
            Self::Operator => "operator",
        }
    }
}

/// Why bets were not stored. Nothing of the append is stored then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The newest draw is drawn, or is not the one that the batch names.
    DrawClosed,
    /// There is no such draw as the batch names.
    NoSuchDraw,
    /// The agency is done in the newest draw.
    AgencyDone,
    /// The agency may not take part in the newest draw.
    NotAdmitted(NotAdmitted),
    /// The agency would have more bets in the newest draw than it may.
    TooManyBets,
    /// The batch starts after the upload's next row.
    Gap {
        /// The upload's next row, 0-based.
        next_row: u64,
    },
    /// The upload has other rows at this position.
    Conflict,
}

/// Why an agency may not take part in a draw: neither bet nor be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The draw expects certain agencies, and not this one.
    Unknown,
    /// As many agencies as may take part do already; or the number of the agency says
    /// that there are more, where all from 1 to the highest are expected.
    TooMany,
}

/// Why an agency was not recorded as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseRefusal {
    /// The agency gave another count than is stored.
    CountMismatch {
        /// Bets of the agency that are stored in the draw.
        stored: u64,
    },
    /// The agency may not take part in the newest draw.
    NotAdmitted(NotAdmitted),
    /// There is no such draw.
    NoSuchDraw,
}

/// The status of a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawStatus {
    /// Which draw.
    pub draw: DrawId,
    /// Whether it is drawn.
    pub drawn: bool,
    /// Agencies that are done, of those that are expected.
    pub done: u64,
    /// Agencies that are expected, which must be done: given, or inferred as the highest
    /// agency seen so far.
    pub expected: u64,
    /// Bets stored.
    pub bets: u64,
    /// Winning bets; 0 until the draw is drawn.
    pub winners: u64,
    /// The number that wins.
    pub winning_number: u32,
}

/// A winning bet as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WinningBet {
    /// Its number among all bets ever stored, from 1.
    pub id: u64,
    /// The bettor's given names.
    pub first_name: String,
    /// The bettor's surname.
    pub last_name: String,
    /// The bettor's identity document.
    pub document: String,
    /// The bettor's date of birth, `YYYY-MM-DD`.
    pub birthdate: String,
    /// The number: the draw's winning one.
    pub number: u32,
}

impl WinningBet {
    /// Returns the bet itself.
    pub fn as_bet(&self) -> Bet<'_> {
        Bet {
            first_name: &self.first_name,
            last_name: &self.last_name,
            document: &self.document,
            birthdate: &self.birthdate,
            number: self.number,
        }
    }
}

/// The size of an agency's winners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WinnersSize {
    /// Winning bets.
    pub bets: u64,
    /// Bytes of UTF-8 of their names, documents and birthdates.
    pub text_bytes: u64,
}

/// Why an engine did not carry something out, as far as a caller must know. The details
/// go to the server's log, where the failure happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The queue of writes is full; nothing was done, a retry helps.
    #[error("too many writes are waiting")]
    Busy,
    /// The disk is full; nothing was done, a retry helps once there is space.
    #[error("the disk is full")]
    Full,
    /// A read did not succeed; a retry may.
    #[error("the database did not answer")]
    Unavailable,
    /// It is unknown whether the write was stored: the peer must get no reply.
    #[error("it is unknown whether the write was stored")]
    Unknown,
}

/// A submitted write, which resolves once it is committed or refused.
#[derive(Debug)]
#[must_use = "the outcome of the write is known only to the ticket"]
pub struct Ticket<T>(mpsc::Receiver<Result<T, StoreError>>);

/// The engine's end of a [`Ticket`]. Dropped unresolved, it means `Unknown`.
#[derive(Debug)]
pub struct Resolver<T>(mpsc::SyncSender<Result<T, StoreError>>);

impl<T> Ticket<T> {
    /// Returns a ticket and what resolves it.
    pub fn new() -> (Resolver<T>, Self) {
        let (sender, receiver) = mpsc::sync_channel(1);
        (Resolver(sender), Self(receiver))
    }

    /// Waits until the write is committed, refused or lost.
    ///
    /// # Errors
    ///
    /// Fails if the write was not carried out, or if that is unknown.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.recv().unwrap_or(Err(StoreError::Unknown))
    }

    /// Waits as [`Ticket::wait`] does; returns `None` if it takes longer than `time`.
    pub fn wait_at_most(self, time: Duration) -> Option<Result<T, StoreError>> {
        match self.0.recv_timeout(time) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Disconnected) => Some(Err(StoreError::Unknown)),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

impl<T> Resolver<T> {
    /// Resolves the ticket. Nothing happens if nobody waits for it any more.
    pub fn resolve(self, result: Result<T, StoreError>) {
        let _ = self.0.try_send(result);
    }
}
