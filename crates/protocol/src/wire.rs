//! The two wire dialects, in both directions.
//!
//! One port serves both dialects. The first byte of a connection decides its dialect
//! ([`Dialect::detect`]), which never changes. A server reads messages with a [`Decoder`],
//! whatever pieces they arrive in, and writes replies with [`encode_reply`]; a client
//! writes requests with [`encode_request`] and reads replies with [`decode_reply`].

pub mod counted;
mod decoder;
mod dialect;
pub mod framed;
mod incoming;
mod limits;
mod reason;
mod reply;
mod request;
mod sender;

pub use decoder::Decoder;
pub use dialect::Dialect;
pub use incoming::Incoming;
pub use limits::{FRAME_BYTES_MAX, WAIT_MAX, WireLimits};
pub use reason::{NotAReason, Reason};
pub use reply::{Hello, NotAReply, Reply, Status, Winners, WinnersSize, WinningBet, WinningBets};
pub use request::{Claim, Request};
pub use sender::{Sender, SenderAgency};

/// Appends the reply's bytes, as the connection's dialect writes them.
pub fn encode_reply(dialect: Dialect, reply: &Reply, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Framed => framed::encode_reply(reply, out),
        Dialect::Counted => counted::encode_reply(reply, out),
    }
}

/// Appends the request's bytes, as a client of the dialect sends them.
///
/// # Panics
///
/// Where the dialect has no such request: each variant of [`Request`] names its own.
pub fn encode_request(dialect: Dialect, request: &Request, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Framed => framed::encode_request(request, out),
        Dialect::Counted => counted::encode_request(request, out),
    }
}

/// Reads one reply of the dialect off the input; `Ok(None)` means that not all of it
/// has arrived.
///
/// # Errors
///
/// Where what arrived is no reply: see [`NotAReply`].
pub fn decode_reply(dialect: Dialect, input: &mut &[u8]) -> Result<Option<Reply>, NotAReply> {
    match dialect {
        Dialect::Framed => framed::decode_reply(input),
        Dialect::Counted => counted::decode_reply(input),
    }
}
