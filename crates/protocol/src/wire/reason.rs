//! Why something is refused: the reason codes.

use std::fmt;

use crate::BetError;

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
