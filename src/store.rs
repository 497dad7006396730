//! What the service needs of a database, and what the database must promise.
//!
//! The trait is written so that a second engine can be held to it: the tests in
//! `tests/it/store_contract.rs` know nothing but this trait. Engines live below
//! this module, and no SQL lives anywhere else.
//!
//! # Guarantees of every engine
//!
//! 1. **Durable.** A ticket that resolves to success means that the change is
//!    committed and synced: it survives the process, the kernel and the power.
//! 2. **Atomic.** The batches of one [`Store::append`] are stored whole or not
//!    at all, each bet once.
//! 3. **Exactly once.** A batch with a [`UploadPosition`](sorteo_protocol::UploadPosition) is
//!    stored once however often it is sent; other rows at its place are refused.
//! 4. **One draw.** A draw is made by one conditional UPDATE of its row, in the
//!    transaction that records the last agency and the winners. Whoever changes
//!    that row makes the draw; nobody else does, in this process or another.
//!    The draw's row is locked before the agencies are counted.
//! 5. **Closed means closed.** No bet enters a draw that is made, or comes from
//!    an agency that is done.
//! 6. **Order.** Writes submitted one after the other are carried out in that
//!    order; a read sees every write whose ticket has resolved.
//! 7. **Unknown is said.** Where a commit failed, nobody knows whether it holds:
//!    the ticket resolves to [`StoreError::Unknown`] and the engine accepts
//!    nothing more.

pub mod sqlite;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use sorteo_protocol::{AgencyId, Batch, Bet, DrawId, UploadId};

/// A lottery's database. See the module for what an engine promises.
pub trait Store: Send + Sync + 'static {
    /// Submits bets to be stored all or none, in the newest draw.
    fn append(&self, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError>;

    /// Submits that an agency is done, which makes the draw if it was the last.
    ///
    /// With `bets`, the agency is done only if exactly so many are stored.
    fn close_agency(&self, agency: AgencyId, bets: Option<u64>) -> Result<Ticket<Closed>, StoreError>;

    /// Submits a write that changes nothing: its ticket resolves to success if writes
    /// can be carried out.
    fn probe(&self) -> Result<Ticket<()>, StoreError>;

    /// The next row of an upload in the newest draw: 0 where nothing is stored.
    fn next_row(&self, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError>;

    /// How the newest draw stands.
    fn newest_draw(&self) -> Result<DrawStatus, StoreError>;

    /// How one draw stands; `None` where there is no such draw.
    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError>;

    /// The draw before the newest, where an agency that names no draw must mean it:
    /// it was done there, and in the newest, which is open, it has neither stored a
    /// bet nor said that it is done.
    fn draw_before(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError>;

    /// Winning bets of one agency in a draw that is made, in stored order,
    /// after the bet `after`, at most `bets_max` of them.
    fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError>;

    /// Bytes of text that all winning bets of one agency have together, and
    /// how many bets they are.
    fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError>;
}

/// What became of an append that was carried out.
pub type Appended = Result<(), AppendRefusal>;

/// What became of a close that was carried out.
pub type Closed = Result<Closing, CloseRefusal>;

/// Whether a close changed anything: repeating it is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The agency is done as of now.
    Now,
    /// It was done already, or the draw is made and there is nothing to close.
    AlreadyDone,
}

/// Who said that an agency is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneBy {
    /// The agency itself.
    Agency,
    /// An operator, because the agency stayed silent.
    Operator,
}

impl DoneBy {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agency => "agency",
            Self::Operator => "operator",
        }
    }
}

/// Why bets were not stored. Nothing of the append is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The newest draw is made.
    DrawClosed,
    /// The agency is done in the newest draw.
    AgencyDone,
    /// The batch does not start at the upload's next row, which is given.
    Gap {
        /// The upload's next row.
        next_row: u64,
    },
    /// The upload has other rows at this place.
    Conflict,
}

/// Why an agency was not recorded as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseRefusal {
    /// The agency says another count than is stored, which is given.
    CountMismatch {
        /// Bets of the agency that are stored in the newest draw.
        stored: u64,
    },
}

/// How a draw stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawStatus {
    /// Which draw.
    pub draw: DrawId,
    /// Whether it is made.
    pub drawn: bool,
    /// Agencies that are done.
    pub done: u64,
    /// Agencies that must be done: given, or inferred from those seen so far.
    pub expected: u64,
    /// Bets stored.
    pub bets: u64,
    /// Winning bets; 0 until the draw is made.
    pub winners: u64,
    /// The number that wins.
    pub winning_number: u32,
}

/// A winning bet as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WinningBet {
    /// Its place among all bets ever stored.
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
    /// The bet itself.
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

/// How much an agency's winners are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WinnersSize {
    /// Winning bets.
    pub bets: u64,
    /// Bytes of their names, documents and birthdates.
    pub text_bytes: u64,
}

/// Why an engine did not carry something out, as far as a caller must know.
/// The details go to the log, where the failure happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The queue of writes is full; nothing was done, a retry helps.
    #[error("too many writes are waiting")]
    Busy,
    /// The disk is full; nothing was done, a retry helps once there is room.
    #[error("the disk is full")]
    Full,
    /// A read did not succeed; a retry may.
    #[error("the database did not answer")]
    Unavailable,
    /// Whether the write holds is not known: the peer may be told nothing.
    #[error("whether the write was stored is not known")]
    Unknown,
}

/// A submitted write, which resolves once it is committed or refused.
#[derive(Debug)]
#[must_use = "what became of the write is known only to the ticket"]
pub struct Ticket<T>(mpsc::Receiver<Result<T, StoreError>>);

/// The engine's end of a [`Ticket`]. Dropped unresolved, it means `Unknown`.
#[derive(Debug)]
pub struct Resolver<T>(mpsc::SyncSender<Result<T, StoreError>>);

impl<T> Ticket<T> {
    /// A ticket and what resolves it.
    pub fn new() -> (Resolver<T>, Self) {
        let (sender, receiver) = mpsc::sync_channel(1);
        (Resolver(sender), Self(receiver))
    }

    /// Waits until the write is committed, refused or lost.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.recv().unwrap_or(Err(StoreError::Unknown))
    }

    /// As [`Ticket::wait`]; `None` if it takes longer than this.
    pub fn wait_at_most(self, time: Duration) -> Option<Result<T, StoreError>> {
        match self.0.recv_timeout(time) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Disconnected) => Some(Err(StoreError::Unknown)),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

impl<T> Resolver<T> {
    /// Tells the waiter. One that no longer waits is no concern of the engine.
    pub fn resolve(self, result: Result<T, StoreError>) {
        let _ = self.0.try_send(result);
    }
}
