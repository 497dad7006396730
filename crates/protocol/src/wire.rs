//! The two wire dialects as pure values: bytes in, requests out; replies in,
//! bytes out. No socket, no clock, no store.
//!
//! One port serves both dialects; a connection's first byte tells which one it
//! speaks ([`Dialect::detect`]) and it never changes. [`Decoder`] turns the
//! bytes of one connection into [`Incoming`] messages however they are split;
//! [`Reply`] is what the service answers, and each dialect writes it in its own
//! words ([`encode_reply`]). The protocol is described in `docs/protocol.md`.

pub mod counted;
pub mod framed;

use std::fmt;
use std::time::Duration;

use crate::{AgencyId, Batch, BetError, DrawId, UploadId};

/// Largest frame of the framed dialect, in bytes after its length. The first
/// seed's constant; it also keeps the first byte of every frame zero, by which
/// the dialect is recognised.
pub const FRAME_BYTES_MAX: usize = 8192;
const _: () = assert!(FRAME_BYTES_MAX < 1 << 24, "the first length byte must be zero");

/// Longest wait a `WAIT_WINNERS` may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Big-endian `u32` length, then one line of `|`-separated fields.
    Framed,
    /// Decimal length, `\n`, then one or more lines.
    Counted,
}

impl Dialect {
    /// Tells the dialect from a connection's first byte; `None` is neither.
    pub fn detect(first_byte: u8) -> Option<Self> {
        match first_byte {
            0x00 => Some(Self::Framed),
            b'0'..=b'9' => Some(Self::Counted),
            _ => None,
        }
    }
}

/// What a peer may send at most. Both are checked before the bytes are kept.
#[derive(Clone, Copy, Debug)]
pub struct WireLimits {
    /// Most bets in one framed batch.
    pub batch_bets_max: u64,
    /// Largest payload of the counted dialect, in bytes.
    pub payload_bytes_max: u64,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self { batch_bets_max: 10_000, payload_bytes_max: 1 << 20 }
    }
}

/// A well-formed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `BET`: one bet, acknowledged by itself.
    Bet(Batch),
    /// `BATCH`: the bets of one agency, all or none.
    Batch(Batch),
    /// A counted payload: bets of one or more agencies, all or none.
    Payload(Vec<Batch>),
    /// `DONE`: the agency will send no more bets.
    Done {
        /// Who is done.
        agency: AgencyId,
        /// How many bets it sent in this draw, where it says so.
        bets: Option<u64>,
    },
    /// `GET_WINNERS|agency`: all winners in one answer.
    Winners {
        /// Who asks.
        agency: AgencyId,
    },
    /// `GET_WINNERS|agency|after[|draw]`: one page of winners.
    WinnersPage {
        /// Who asks.
        agency: AgencyId,
        /// Where the page starts: 0, or the `next` of the page before.
        after: u64,
        /// Which draw; without it the newest.
        draw: Option<DrawId>,
    },
    /// `WAIT_WINNERS`: the first page, as soon as the draw is made.
    WaitWinners {
        /// Who asks.
        agency: AgencyId,
        /// How long to wait before answering `not_ready`.
        wait: Duration,
    },
    /// The counted dialect's `GET_WINNERS`, which also says that the agency is done.
    DoneAndWinners {
        /// Who is done and asks.
        agency: AgencyId,
    },
    /// `RESUME`: where an interrupted upload goes on.
    Resume {
        /// Whose upload.
        agency: AgencyId,
        /// Which upload.
        upload: UploadId,
    },
    /// `STATUS`: how the newest draw stands.
    Status,
}

/// What a [`Decoder`] makes of the bytes that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request to carry out.
    Request(Request),
    /// A message that cannot be carried out, with the answer it gets.
    Refused(Reply),
    /// As `Refused`, and what follows cannot be understood: answer, then close.
    RefusedForGood(Reply),
    /// Neither dialect: answer nothing and close.
    Foreign,
}

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

/// Why something was refused: the protocol's table of reason codes.
///
/// `Display` gives the code as it travels. All are lower-case, stable, and
/// never contain what a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A bet is wrong (single bet: the code alone).
    Bet(BetError),
    /// Row `row` of a batch (from 1) is wrong; nothing of the batch was stored.
    Row {
        /// The first bad row, counted from 1.
        row: u64,
        /// What is wrong with it.
        error: BetError,
    },
    /// Not a request of this protocol.
    Unknown,
    /// A frame of length 0 or over [`FRAME_BYTES_MAX`]; the connection is closed.
    BadFrame,
    /// A counted length that is none, or over the limit; the connection is closed.
    BadLength,
    /// A request with missing or excess fields.
    BadHeader,
    /// The agency is not a decimal number from 0 to 4294967295.
    BadAgency,
    /// The count is not a decimal number.
    BadCount,
    /// The upload's name is not 1 to 64 of `A-Za-z0-9._-`.
    BadUpload,
    /// `first_row` is not a decimal number.
    BadFirstRow,
    /// `after` is not a decimal number.
    BadAfter,
    /// The draw is not a decimal number, or there is no such draw.
    BadDraw,
    /// The wait is not a decimal number of milliseconds up to [`WAIT_MAX`].
    BadWait,
    /// A bet behind a batch whose header could not be read: it may be a row of
    /// that batch, which was refused, so it is refused too.
    StrayRow,
    /// The batch announces more bets than are allowed, and the connection is closed;
    /// or a payload has rows of too many agencies.
    TooMany,
    /// A counted payload without a row.
    EmptyBatch,
    /// The batch leaves a hole: the upload's next row comes first.
    Gap {
        /// The row to go on with.
        next_row: u64,
    },
    /// Other rows are stored at this place of the upload.
    Conflict,
    /// The agency said that it is done.
    AgencyDone,
    /// The draw is made.
    DrawClosed,
    /// The agency's count differs from what is stored; it is not done.
    CountMismatch {
        /// How many bets are stored.
        stored: u64,
    },
    /// The draw is not made yet.
    NotReady,
    /// The winners do not fit one frame: ask for pages.
    UsePages,
    /// Too much work is queued; nothing was stored, try again.
    Busy,
    /// The disk is full; nothing was stored, try again later.
    StorageFull,
    /// The database did not answer; try again later.
    Unavailable,
}

impl Reason {
    /// The code alone, without what a peer is told besides.
    pub fn code(&self) -> String {
        match self {
            Self::Row { error, .. } => error.to_string(),
            Self::Gap { .. } => "gap".to_owned(),
            Self::CountMismatch { .. } => "count_mismatch".to_owned(),
            Self::UsePages => "use_pages".to_owned(),
            code => code.to_string(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self {
            Self::Bet(error) => return error.fmt(f),
            Self::Row { row, error } => return write!(f, "row {row}: {error}"),
            Self::Gap { next_row } => return write!(f, "gap|{next_row}"),
            Self::CountMismatch { stored } => return write!(f, "count_mismatch|{stored}"),
            Self::Unknown => "unknown",
            Self::BadFrame => "bad_frame",
            Self::BadLength => "bad_length",
            Self::BadHeader => "bad_header",
            Self::BadAgency => "bad_agency",
            Self::BadCount => "bad_count",
            Self::BadUpload => "bad_upload",
            Self::BadFirstRow => "bad_first_row",
            Self::BadAfter => "bad_after",
            Self::BadDraw => "bad_draw",
            Self::BadWait => "bad_wait",
            Self::StrayRow => "stray_row",
            Self::TooMany => "too_many",
            Self::EmptyBatch => "empty_batch",
            Self::Conflict => "conflict",
            Self::AgencyDone => "agency_done",
            Self::DrawClosed => "draw_closed",
            Self::NotReady => "not_ready",
            Self::UsePages => "too_many|use_pages",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Unavailable => "unavailable",
        };
        f.write_str(code)
    }
}

impl From<BetError> for Reason {
    fn from(error: BetError) -> Self {
        Self::Bet(error)
    }
}

/// Turns one connection's bytes into messages, in order.
///
/// The decoder keeps what a half-received batch needs and nothing else; bytes
/// of an incomplete frame or payload stay with the caller, who offers them
/// again with more behind them.
#[derive(Debug)]
pub struct Decoder {
    limits: WireLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Undetected,
    Framed(framed::Decoder),
    Counted,
}

impl Decoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: WireLimits) -> Self {
        Self { limits, state: State::Undetected }
    }

    /// The connection's dialect, once its first byte is known.
    pub fn dialect(&self) -> Option<Dialect> {
        match self.state {
            State::Undetected => None,
            State::Framed(_) => Some(Dialect::Framed),
            State::Counted => Some(Dialect::Counted),
        }
    }

    /// Reads from `input` up to the end of the next message, which it answers;
    /// `None` means that more bytes are needed. Either way `input` is moved past
    /// what was used.
    pub fn decode(&mut self, input: &mut &[u8]) -> Option<Incoming> {
        let first = *input.first()?;
        if let State::Undetected = self.state {
            self.state = match Dialect::detect(first) {
                Some(Dialect::Framed) => State::Framed(framed::Decoder::default()),
                Some(Dialect::Counted) => State::Counted,
                None => return Some(Incoming::Foreign),
            };
        }
        match &mut self.state {
            State::Framed(decoder) => decoder.decode(input, &self.limits),
            State::Counted => counted::decode(input, &self.limits),
            State::Undetected => unreachable!("detected above"),
        }
    }

    /// How many bets the half-received framed batch announced, if there is one.
    pub fn batch_in_progress(&self) -> Option<u64> {
        match &self.state {
            State::Framed(decoder) => decoder.batch_in_progress(),
            _ => None,
        }
    }

    /// Forgets a half-received batch; what follows is read as requests.
    pub fn abandon_batch(&mut self) {
        if let State::Framed(decoder) = &mut self.state {
            *decoder = framed::Decoder::default();
        }
    }

    /// Bytes that the half-received batch holds on to.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Framed(decoder) => decoder.held_bytes(),
            _ => 0,
        }
    }
}

/// Appends the reply's bytes, as the connection's dialect writes them.
pub fn encode_reply(dialect: Dialect, reply: &Reply, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Framed => framed::encode_reply(reply, out),
        Dialect::Counted => counted::encode_reply(reply, out),
    }
}

/// The message without its line end, which is not part of it.
fn without_line_end(message: &[u8]) -> &[u8] {
    match message.strip_suffix(b"\n") {
        Some(message) => message.strip_suffix(b"\r").unwrap_or(message),
        // A lone `\r` ends no line: it is a control character like others.
        None => message,
    }
}
