//! Why a connection is over, and the line that says so.

use std::io;
use std::net::IpAddr;

use crate::event;
use crate::service;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum CloseReason {
    /// The peer closed it.
    Eof,
    /// We closed it, as we said in our last answer.
    Finished,
    /// The connection broke.
    Lost(io::Error),
    /// The first byte belongs to no dialect.
    Foreign,
    /// The peer lets too many answers wait.
    UnreadAnswers,
    /// A request did not arrive whole in time.
    RequestTimeout,
    /// Nothing was asked for too long.
    IdleTimeout,
    /// What became of its request is unknown, so there is no answer to give.
    UnknownOutcome,
    /// The server stops.
    Stopped,
    /// The server stops, and the peer took too long to finish.
    DrainTimeout,
}

impl CloseReason {
    /// One line for the connection, and one for a batch that was cut short.
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
            Self::Foreign => failed(ip, "unknown_dialect"),
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
