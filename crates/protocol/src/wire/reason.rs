//! Why something is refused: the reason codes.

use std::fmt;
use std::str::FromStr;

use crate::BetError;
use crate::text::decimal;

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
    /// A frame of length 0 or over [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX); the connection is closed.
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
    /// The wait is not a decimal number of milliseconds up to [`WAIT_MAX`](super::WAIT_MAX).
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
    /// The draw expects certain agencies, and not this one.
    UnknownAgency,
    /// As many agencies as may take part in the draw do already.
    TooManyAgencies,
    /// The agency, or the address, would have more bets in the draw than it may.
    TooManyBets,
    /// The draw has taken place.
    DrawClosed,
    /// The agency's count differs from what is stored; it is not done.
    CountMismatch {
        /// How many bets are stored.
        stored: u64,
    },
    /// The draw has not taken place yet.
    NotReady,
    /// The winners do not fit one frame: ask for pages.
    UsePages,
    /// The peer has not proved who it is, or not any more; the connection is closed.
    Unauthorized,
    /// The request is for another agency than the one that the peer has proved to be; nothing
    /// was done.
    Forbidden,
    /// Too much work is queued; nothing was stored, try again.
    Busy,
    /// The disk is full; nothing was stored, try again later.
    StorageFull,
    /// The database did not answer; try again later.
    Unavailable,
    /// A reason that this version does not know, as a newer server may send; or one of
    /// the counted dialect's words, which stand for several reasons. Only reading a
    /// reply makes it: no server of this version sends it.
    Other(Box<str>),
}

/// Most bytes of a reason that this version does not know.
const OTHER_BYTES_MAX: usize = 100;

impl Reason {
    /// Every reason that is a code and nothing else.
    const PLAIN: [Self; 26] = [
        Self::Unknown,
        Self::BadFrame,
        Self::BadLength,
        Self::BadHeader,
        Self::BadAgency,
        Self::BadCount,
        Self::BadUpload,
        Self::BadFirstRow,
        Self::BadAfter,
        Self::BadDraw,
        Self::BadWait,
        Self::StrayRow,
        Self::TooMany,
        Self::EmptyBatch,
        Self::Conflict,
        Self::AgencyDone,
        Self::UnknownAgency,
        Self::TooManyAgencies,
        Self::TooManyBets,
        Self::DrawClosed,
        Self::NotReady,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Busy,
        Self::StorageFull,
        Self::Unavailable,
    ];

    /// Returns the code alone, without the details that travel with it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bet(error) | Self::Row { error, .. } => error.code(),
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
            Self::Gap { .. } => "gap",
            Self::Conflict => "conflict",
            Self::AgencyDone => "agency_done",
            Self::UnknownAgency => "unknown_agency",
            Self::TooManyAgencies => "too_many_agencies",
            Self::TooManyBets => "too_many_bets",
            Self::DrawClosed => "draw_closed",
            Self::CountMismatch { .. } => "count_mismatch",
            Self::NotReady => "not_ready",
            Self::UsePages => "use_pages",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Unavailable => "unavailable",
            Self::Other(_) => "other",
        }
    }

    /// Returns whether the same request may succeed later without anybody's doing.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy | Self::StorageFull | Self::Unavailable)
    }
}

/// As the reason travels: the code, and its details.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { row, error } => write!(f, "row {row}: {}", error.code()),
            Self::Gap { next_row } => write!(f, "gap|{next_row}"),
            Self::CountMismatch { stored } => write!(f, "count_mismatch|{stored}"),
            Self::UsePages => f.write_str("too_many|use_pages"),
            Self::Other(text) => f.write_str(text),
            plain => f.write_str(plain.code()),
        }
    }
}

/// The text is no reason: it is empty, too long, or has characters that no reason has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a reason of the protocol")]
pub struct NotAReason;

/// Reads what `Display` writes. A well-formed text that this version does not know is
/// [`Reason::Other`].
impl FromStr for Reason {
    type Err = NotAReason;

    fn from_str(text: &str) -> Result<Self, NotAReason> {
        let bet_error = |code: &str| BetError::ALL.into_iter().find(|error| error.code() == code);
        let detailed = |code: &str| text.strip_prefix(code).and_then(|rest| rest.strip_prefix('|'));
        if let Some(plain) = Self::PLAIN.into_iter().find(|reason| reason.code() == text) {
            return Ok(plain);
        }
        if let Some(error) = bet_error(text) {
            return Ok(Self::Bet(error));
        }
        if let Some((row, code)) = text.strip_prefix("row ").and_then(|rest| rest.split_once(": "))
            && let (Some(row), Some(error)) = (decimal(row), bet_error(code))
        {
            return Ok(Self::Row { row, error });
        }
        if let Some(next_row) = detailed("gap").and_then(decimal) {
            return Ok(Self::Gap { next_row });
        }
        if let Some(stored) = detailed("count_mismatch").and_then(decimal) {
            return Ok(Self::CountMismatch { stored });
        }
        if text == "too_many|use_pages" {
            return Ok(Self::UsePages);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.:|, ".contains(&b);
        match (1..=OTHER_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self::Other(text.into())),
            false => Err(NotAReason),
        }
    }
}

impl From<BetError> for Reason {
    fn from(error: BetError) -> Self {
        Self::Bet(error)
    }
}
