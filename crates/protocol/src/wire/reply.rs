//! What a server replies.

use super::Reason;
use crate::DrawId;

/// The answer to one request, before a dialect puts it into bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a single bet, and to what is no request at all.
    Bet(Result<(), Reason>),
    /// To a batch.
    Batch {
        /// How many bets the batch announced.
        count: u64,
        /// Stored whole, or not at all.
        result: Result<(), Reason>,
    },
    /// To `DONE`.
    Done(Result<(), Reason>),
    /// To every way of asking for winners.
    Winners(Result<Winners, Reason>),
    /// To `RESUME`: the next row to send.
    Resume(Result<u64, Reason>),
    /// To `STATUS`.
    Status(Result<Status, Reason>),
}

impl Reply {
    /// Why it refuses, if it does.
    pub fn refusal(&self) -> Option<&Reason> {
        match self {
            Self::Bet(result) | Self::Batch { result, .. } | Self::Done(result) => result.as_ref().err(),
            Self::Winners(result) => result.as_ref().err(),
            Self::Resume(result) => result.as_ref().err(),
            Self::Status(result) => result.as_ref().err(),
        }
    }
}

/// Winners of one agency, in the form that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Winners {
    /// Documents of all winning bets.
    All(Vec<String>),
    /// Documents of one page.
    Page {
        /// In stored order.
        documents: Vec<String>,
        /// Where the next page starts; `None` on the last.
        next: Option<u64>,
    },
    /// The counted dialect's winning bets, one line each. Only a first part may
    /// be here: the rest follows as the peer reads, so that no answer, however
    /// long, is held whole.
    Lines {
        /// Length of the whole payload in bytes.
        total_bytes: u64,
        /// The payload's first bytes, perhaps all.
        head: String,
    },
}

/// How a draw stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The newest draw.
    pub draw: DrawId,
    /// Whether it has been made.
    pub drawn: bool,
    /// How many agencies are done.
    pub done: u64,
    /// How many agencies must be done: given, or inferred so far.
    pub expected: u64,
    /// How many bets are stored in it.
    pub bets: u64,
}
