//! What a client asks.

use std::time::Duration;

use crate::{AgencyId, Batch, DrawId, UploadId};

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
