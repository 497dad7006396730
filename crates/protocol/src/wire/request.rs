//! The requests that a client sends.

use std::slice;
use std::time::Duration;

use super::{Reason, Reply, Sender, SenderAgency};
use crate::{AgencyId, Batch, DrawId, Token, UploadId};

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
        /// The agency that is done.
        agency: AgencyId,
        /// The number of bets that it sent in this draw, if it was given.
        bets: Option<u64>,
        /// The draw that it is done in; the newest if it is not given.
        draw: Option<DrawId>,
    },
    /// `GET_WINNERS|agency`: all winners in one reply.
    Winners {
        /// The agency whose winners these are.
        agency: AgencyId,
    },
    /// `GET_WINNERS|agency|after[|draw]`: one page of winners.
    WinnersPage {
        /// The agency whose winners these are.
        agency: AgencyId,
        /// Where the page starts: 0, or `next` of the page before.
        after: u64,
        /// The draw; the newest if it is not given.
        draw: Option<DrawId>,
    },
    /// `WAIT_WINNERS`: the first page, as soon as the draw is drawn.
    WaitWinners {
        /// The agency whose winners these are.
        agency: AgencyId,
        /// How long to wait before replying `not_ready`.
        wait: Duration,
        /// The draw; the newest at the time of the request if it is not given.
        draw: Option<DrawId>,
    },
    /// The counted dialect's `GET_WINNERS`, which also says that the agency is done.
    DoneAndWinners {
        /// The agency that is done, and whose winners these are.
        agency: AgencyId,
    },
    /// `RESUME`: where an interrupted upload goes on.
    Resume {
        /// The agency that uploads.
        agency: AgencyId,
        /// The upload.
        upload: UploadId,
        /// The draw; the newest if it is not given.
        draw: Option<DrawId>,
    },
    /// `HELLO`: the protocol's version, and what the server can do.
    Hello,
    /// `STATUS`: the state of the newest draw.
    Status,
    /// `AUTH`: who sends what follows on the connection; `None` where it names no agency, or
    /// what it gives is no token.
    Auth(Option<Claim>),
}

/// That a peer is an agency, and the token that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The agency.
    pub agency: AgencyId,
    /// Its token.
    pub token: Token,
}

impl Claim {
    /// Reads the fields of an `AUTH`. What is wrong with them makes no difference.
    pub(super) fn read(agency: &str, token: &str) -> Option<Self> {
        Some(Self { agency: agency.parse().ok()?, token: token.parse().ok()? })
    }

    /// Returns the line of an `AUTH`, in both dialects.
    pub(super) fn line(claim: Option<&Self>) -> String {
        match claim {
            Some(Self { agency, token }) => format!("AUTH|{agency}|{}", token.reveal()),
            None => "AUTH||".to_owned(),
        }
    }
}

impl Request {
    /// Returns who sends the request, as far as it says.
    pub fn sender(&self) -> Sender {
        let (agency, upload) = match self {
            Self::Bet(batch) | Self::Batch(batch) => return Sender::of_batches(slice::from_ref(batch)),
            Self::Payload(batches) => return Sender::of_batches(batches),
            Self::Hello | Self::Status | Self::Auth(None) => return Sender::default(),
            Self::Resume { agency, upload, .. } => (*agency, Some(upload.clone())),
            Self::Done { agency, .. }
            | Self::Winners { agency }
            | Self::WinnersPage { agency, .. }
            | Self::WaitWinners { agency, .. }
            | Self::DoneAndWinners { agency }
            | Self::Auth(Some(Claim { agency, .. })) => (*agency, None),
        };
        Sender { agency: SenderAgency::One(agency), upload }
    }

    /// Returns how many bets it has stored.
    pub fn bets(&self) -> u64 {
        match self {
            Self::Bet(batch) | Self::Batch(batch) => batch.bets.len() as u64,
            Self::Payload(batches) => batches.iter().map(|batch| batch.bets.len() as u64).sum(),
            _ => 0,
        }
    }

    /// Returns the reply that refuses the request for this reason.
    pub fn refused(&self, reason: Reason) -> Reply {
        match self {
            Self::Bet(_) => Reply::Bet(Err(reason)),
            Self::Batch(_) | Self::Payload(_) => Reply::Batch { count: self.bets(), result: Err(reason) },
            Self::Done { .. } => Reply::Done(Err(reason)),
            Self::Winners { .. }
            | Self::WinnersPage { .. }
            | Self::WaitWinners { .. }
            | Self::DoneAndWinners { .. } => Reply::Winners(Err(reason)),
            Self::Resume { .. } => Reply::Resume(Err(reason)),
            Self::Hello => Reply::Hello(Err(reason)),
            Self::Status => Reply::Status(Err(reason)),
            Self::Auth(_) => Reply::Auth(Err(reason)),
        }
    }
}
