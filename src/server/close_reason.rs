//! Why a connection ends, and the log line that says so.

use std::io;

use super::conversation::Unanswerable;
use crate::event;
use crate::logging::limits::{Kind, Peer};
use crate::metrics::HandshakeResult;
use crate::service;
use sorteo_protocol::wire::Sender;

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
    /// It waited for the draw with its sending side closed, and too many others do.
    TooManyHalfClosed,
    /// It is not who it says it is, and too many from its address were not.
    Unauthorized,
    /// Its agency has as many connections as it may.
    TooManyConnections,
    /// It must prove who it is, and has not in time.
    AuthTimeout,
    /// What proved who it is counts no more.
    AuthEnded,
    /// It has not proved who it is, and another connection needs its place.
    PlaceNeeded,
    /// Whether a request was carried out is not known, so there is no reply.
    UnknownOutcome,
    /// The peer does not start TLS, which is required.
    TlsRequired,
    /// Its handshake of TLS did not get over in time.
    HandshakeTimeout,
    /// Its handshake of TLS failed; and what rustls says of that.
    HandshakeFailed(HandshakeResult, Option<String>),
    /// It broke the protocol of TLS after its handshake.
    TlsFailed(String),
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
            Unanswerable::Unauthorized => Self::Unauthorized,
            Unanswerable::TooManyConnections => Self::TooManyConnections,
        }
    }
}

impl CloseReason {
    /// Returns what a handshake counts as that ended the connection.
    pub(super) fn handshake_result(&self) -> Option<HandshakeResult> {
        match self {
            Self::HandshakeTimeout => Some(HandshakeResult::timeout),
            Self::HandshakeFailed(result, _) => Some(*result),
            _ => None,
        }
    }

    /// Logs a line for the connection, and one for a batch that was cut short: how many
    /// bets it had announced, and its sender. Each only if the limits allow it.
    pub(super) fn log(&self, peer: &mut Peer, batch: Option<(u64, Sender)>) {
        let ip = peer.ip;
        let mut failed = |error: &'static str| {
            if peer.allow(Kind::Closed) {
                event!(Info, "close_connection", Fail, ip = ip, error = error);
            }
            error
        };
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
            Self::HandshakeFailed(result, detail) => {
                if peer.allow(Kind::Closed) {
                    let (error, detail) = ("tls_handshake_failed", detail.as_deref().unwrap_or("-"));
                    event!(
                        Info,
                        "close_connection",
                        Fail,
                        ip = ip,
                        error = error,
                        reason = result,
                        detail = detail
                    );
                }
                "tls_handshake_failed"
            }
            Self::TlsFailed(detail) => {
                if peer.allow(Kind::Closed) {
                    event!(Info, "close_connection", Fail, ip = ip, error = "tls_failed", detail = detail);
                }
                "tls_failed"
            }
            Self::TlsRequired => failed("tls_required"),
            Self::HandshakeTimeout => failed("handshake_timeout"),
            Self::UnknownDialect => failed("unknown_dialect"),
            Self::UnreadAnswers => failed("unread_answers"),
            Self::RequestTimeout => failed("request_timeout"),
            Self::IdleTimeout => failed("idle_timeout"),
            Self::TooManyHalfClosed => failed("too_many_half_closed"),
            Self::Unauthorized => failed("unauthorized"),
            Self::TooManyConnections => failed("too_many_connections"),
            Self::AuthTimeout => failed("auth_timeout"),
            Self::AuthEnded => failed("auth_ended"),
            Self::PlaceNeeded => failed("place_needed"),
            Self::UnknownOutcome => failed("unknown_outcome"),
            Self::DrainTimeout => failed("drain_timeout"),
        };
        if let Some((count, sender)) = batch {
            service::log_batch_cut_short(count, error, &sender, peer);
        }
    }
}
