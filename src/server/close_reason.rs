//! Why a connection ends, and the log line that says so.

use std::io;
use std::net::IpAddr;

use super::conversation::Unanswerable;
use crate::event;
use crate::service;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum CloseReason {
    /// The peer closed it.
    Eof,
    /// The server closed it after its last reply, as the protocol says.
    Finished,
    /// The connection broke.
    Lost(io::Error),
    /// The first byte belongs to neither dialect.
    UnknownDialect,
    /// The peer leaves too many bytes of replies unread.
    UnreadAnswers,
    /// A request did not arrive whole in time.
    RequestTimeout,
    /// No request came for too long.
    IdleTimeout,
    /// Whether a request was carried out is not known, so there is no reply.
    UnknownOutcome,
    /// The server stops.
    Stopped,
    /// The server stops, and the connection's requests took too long.
    DrainTimeout,
}

impl From<Unanswerable> for CloseReason {
    fn from(reason: Unanswerable) -> Self {
        match reason {
            Unanswerable::UnknownDialect => Self::UnknownDialect,
            Unanswerable::UnknownOutcome => Self::UnknownOutcome,
        }
    }
}

impl CloseReason {
    /// Logs a line for the connection, and one for a batch that was cut short, which had
    /// announced so many bets.
    pub(super) fn log(&self, ip: IpAddr, batch: Option<u64>) {
        let error = match self {
            Self::Eof | Self::Finished => {
                event!(Debug, "close_connection", Success, ip = ip);
                "connection_closed"
            }
            Self::Stopped => {
                event!(Info, "close_connection", Success, ip = ip);
                "server_stopped"
            }
            Self::Lost(error) => {
                event!(Debug, "close_connection", Fail, ip = ip, error = error);
                "connection_lost"
            }
            Self::UnknownDialect => failed(ip, "unknown_dialect"),
            Self::UnreadAnswers => failed(ip, "unread_answers"),
            Self::RequestTimeout => failed(ip, "request_timeout"),
            Self::IdleTimeout => failed(ip, "idle_timeout"),
            Self::UnknownOutcome => failed(ip, "unknown_outcome"),
            Self::DrainTimeout => failed(ip, "drain_timeout"),
        };
        if let Some(count) = batch {
            service::log_batch_cut_short(count, error);
        }
    }
}

fn failed(ip: IpAddr, error: &'static str) -> &'static str {
    event!(Info, "close_connection", Fail, ip = ip, error = error);
    error
}
