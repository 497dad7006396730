//! The replies that a server sends.

use super::Reason;
use crate::{AgencyId, DrawId};

/// The reply to one message, before a dialect puts it into bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a single bet.
    Bet(Result<(), Reason>),
    /// To a message that is not a request of the protocol. It looks like the refusal of
    /// a bet in the framed dialect, and of a batch in the counted one.
    Unrecognised(Reason),
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
    /// To `HELLO`.
    Hello(Result<Hello, Reason>),
    /// To `STATUS`.
    Status(Result<Status, Reason>),
    /// To `AUTH`. Its bytes are those of another reply, as which a client reads it: of
    /// [`Reply::Bet`] in the framed dialect, of [`Reply::Batch`] in the counted one.
    Auth(Result<(), Reason>),
}

impl Reply {
    /// Returns why the message was refused; `None` if it was not.
    pub fn refusal(&self) -> Option<&Reason> {
        match self {
            Self::Unrecognised(reason) => Some(reason),
            Self::Bet(result) | Self::Batch { result, .. } | Self::Done(result) | Self::Auth(result) => {
                result.as_ref().err()
            }
            Self::Winners(result) => result.as_ref().err(),
            Self::Resume(result) => result.as_ref().err(),
            Self::Hello(result) => result.as_ref().err(),
            Self::Status(result) => result.as_ref().err(),
        }
    }

    /// Returns the reply to the same message that refuses it for this reason.
    pub fn with_refusal(self, reason: Reason) -> Self {
        match self {
            Self::Bet(_) => Self::Bet(Err(reason)),
            Self::Unrecognised(_) => Self::Unrecognised(reason),
            Self::Batch { count, .. } => Self::Batch { count, result: Err(reason) },
            Self::Done(_) => Self::Done(Err(reason)),
            Self::Winners(_) => Self::Winners(Err(reason)),
            Self::Resume(_) => Self::Resume(Err(reason)),
            Self::Hello(_) => Self::Hello(Err(reason)),
            Self::Status(_) => Self::Status(Err(reason)),
            Self::Auth(_) => Self::Auth(Err(reason)),
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
    /// Winning bets with all their fields, as the counted dialect sends them.
    ///
    /// A long reply is sent piece by piece, so that it is never held whole in memory:
    /// this is the first piece, and [`encode_more_winners`] encodes the others.
    ///
    /// [`encode_more_winners`]: super::counted::encode_more_winners
    Bets {
        /// All winning bets, or the first of them.
        first: WinningBets,
        /// The size of all winning bets together, if more follow; `None` if `first` is
        /// all of them.
        total: Option<WinnersSize>,
    },
}

/// Winning bets of one agency, in the order in which they were stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WinningBets {
    /// The agency that sent them.
    pub agency: AgencyId,
    /// The bets. All have the draw's winning number.
    pub bets: Vec<WinningBet>,
}

/// A bet on the winning number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WinningBet {
    /// The bettor's given names.
    pub first_name: String,
    /// The bettor's surname.
    pub last_name: String,
    /// The bettor's identity document.
    pub document: String,
    /// The bettor's date of birth, `YYYY-MM-DD`.
    pub birthdate: String,
    /// The winning number.
    pub number: u32,
}

/// The size of all winning bets of one agency, from which a dialect computes the length
/// of a reply before it has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WinnersSize {
    /// The number of winning bets.
    pub bets: u64,
    /// Bytes of their names, documents and birthdates.
    pub text_bytes: u64,
}

/// What a server can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol. Clients written for an earlier one could misunderstand
    /// this one.
    pub version: u32,
    /// The words that name abilities: see docs/protocol.md, "HELLO".
    pub words: Vec<String>,
}

impl Hello {
    /// The version of the protocol that this crate implements.
    pub const VERSION: u32 = 1;
    /// The word for the field `draw` of the requests that may be repeated.
    pub const DRAWS: &str = "draws";
    /// The word for the request `AUTH`.
    pub const AUTH: &str = "auth";
    /// What every server of this version can do.
    const WORDS: [&str; 4] = ["uploads", Self::DRAWS, "pages", "waits"];

    /// Returns what every server of this version replies.
    pub fn of_this_version() -> Self {
        Self { version: Self::VERSION, words: Self::WORDS.map(str::to_owned).to_vec() }
    }

    /// Returns the reply of a server that was set up for one thing more.
    pub fn with(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Returns whether the server has an ability.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }
}

/// The state of a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The newest draw.
    pub draw: DrawId,
    /// Whether it is drawn.
    pub drawn: bool,
    /// How many agencies are done.
    pub done: u64,
    /// How many agencies must be done: given, or inferred so far.
    pub expected: u64,
    /// How many bets are stored in it.
    pub bets: u64,
}

/// What arrived at a client is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAReply {
    /// The bytes are not in the client's dialect.
    #[error("the reply is in another dialect")]
    OtherDialect,
    /// A message of the dialect that is no reply: its first 100 characters, escaped.
    #[error("`{0}` is not a reply")]
    Text(String),
}

impl NotAReply {
    /// A message with this text.
    pub(super) fn of(text: &str) -> Self {
        Self::Text(text.chars().take(100).flat_map(char::escape_debug).collect())
    }
}
