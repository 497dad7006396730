//! Why a call or an upload did not succeed.

use std::io;

use sorteo_protocol::DrawId;
use sorteo_protocol::wire::Reason;

use crate::rows::FileError;
use crate::{ExchangeError, SecurityError};

/// Why a call or an upload did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AgencyError {
    /// The server could not be reached, or went away, for longer than allowed.
    #[error("no answer from {server} ({source}): is the server running there?")]
    Unreachable {
        /// The address tried.
        server: String,
        /// The last failure.
        source: io::Error,
    },
    /// The server refused for a reason that a retry does not change.
    #[error("the server refused {what}: {reason}{}", hint(what, reason))]
    Refused {
        /// What was asked: the request's verb.
        what: &'static str,
        /// Why.
        reason: Reason,
    },
    /// The draw that the upload belongs to is over, and the next one takes bets.
    #[error(
        "draw {draw}, which these bets are for, is over and draw {newest} is open: nothing more was sent. \
         What was stored is in draw {draw}; send the file again only if it is meant for draw {newest}"
    )]
    OtherDraw {
        /// The draw in which the upload began.
        draw: DrawId,
        /// The newest draw.
        newest: DrawId,
    },
    /// The server does not know requests that name their draw, with which an upload makes
    /// sure that none of its bets falls into the next one.
    #[error("{server} is older than this client: upgrade the server, or use a client of its version")]
    OlderServer {
        /// The address.
        server: String,
    },
    /// The server speaks a version of the protocol whose replies this client could
    /// misunderstand.
    #[error("{server} is newer than this client: use a client of its version")]
    NewerServer {
        /// The address.
        server: String,
    },
    /// What came back is no reply to the request.
    #[error("{server} does not answer as a sorteo server does: `{answer}`")]
    Protocol {
        /// The address.
        server: String,
        /// What it sent, escaped.
        answer: String,
    },
    /// A file of a token, a key or certificates is of no use, or TLS failed for a reason that
    /// a retry does not change.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The bets' file is missing, unreadable, empty or malformed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Whether the last batch was stored is not known, and the dialect has no way to
    /// find out.
    #[error(
        "{server} went away ({source}) and whether the last bets were stored is not known: \
         ask for the agency's count (`sorteo status`, view `agencies`) before sending again"
    )]
    Unknown {
        /// The address.
        server: String,
        /// What happened to the connection.
        source: io::Error,
    },
}

impl AgencyError {
    /// The verb of the request by which a client proves who it is.
    const AUTH: &'static str = "AUTH";

    /// Returns the error of a request to this server that got no reply, and may be repeated.
    pub(crate) fn of_exchange(server: &str, error: ExchangeError) -> Self {
        let server = server.to_owned();
        match error {
            ExchangeError::Lost(source) => Self::Unreachable { server, source },
            ExchangeError::Unexpected(answer) => Self::Protocol { server, answer },
            ExchangeError::Unauthenticated(reason) => Self::Refused { what: Self::AUTH, reason },
            ExchangeError::Security(error) => Self::Security(error),
        }
    }

    /// Returns whether the same may succeed at another time.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { reason, .. } => reason.is_temporary(),
            _ => false,
        }
    }

    /// Returns whether it is about a file of the client's, which may be on its way to be
    /// replaced.
    pub(crate) fn is_of_credential_file(&self) -> bool {
        matches!(self, Self::Security(SecurityError::File(_)))
    }

    /// Returns whether the server refused the client's token.
    pub(crate) fn is_of_token(&self) -> bool {
        matches!(self, Self::Refused { what: Self::AUTH, reason: Reason::Unauthorized })
    }
}

/// Returns what a person should know about a refusal besides its code.
fn hint(what: &str, reason: &Reason) -> &'static str {
    match reason {
        Reason::Unauthorized if what == AgencyError::AUTH => {
            " (the token is revoked, expired, or of another agency; its file was read at this connect)"
        }
        Reason::Unknown if what == AgencyError::AUTH => {
            " (the server asks nobody for a token, auth = off, or is older than this client: have that changed, \
             or leave out --token-file)"
        }
        Reason::Unauthorized => " (the server requires a token of this agency: give its file, --token-file)",
        Reason::Forbidden => " (the connection is of another agency: check the agency's number)",
        Reason::AgencyDone => " (this agency said in this draw that it is done)",
        Reason::UnknownAgency => " (the draw expects other agencies: check the agency's number)",
        Reason::TooManyAgencies => {
            " (as many agencies take part as may: check the agency's number, or have the server's limit raised)"
        }
        Reason::DrawClosed => " (the draw is closed)",
        Reason::Conflict => " (other bets are stored under this upload)",
        Reason::CountMismatch { .. } => {
            " (the server holds another number of bets of this agency in this draw)"
        }
        Reason::Unknown => {
            " (the server does not know this request, so it is older than this client: \
             upgrade the server, or use a client of its version)"
        }
        Reason::TooMany => " (the server takes smaller batches only)",
        Reason::NotReady => " (the draw has not taken place yet)",
        Reason::BadDraw => " (there is no such draw)",
        Reason::StorageFull => " (the server's disk is full, and was at every retry)",
        Reason::Busy | Reason::Unavailable => " (and did so at every retry)",
        _ => "",
    }
}
