//! The two wire dialects as pure values: bytes in, requests out; replies in,
//! bytes out. No socket, no clock, no store.
//!
//! One port serves both dialects; a connection's first byte tells which one it
//! speaks ([`Dialect::detect`]) and it never changes. [`Decoder`] turns the
//! bytes of one connection into [`Incoming`] messages however they are split;
//! [`Reply`] is what the service answers, and each dialect writes it in its own
//! words ([`encode_reply`]). The protocol is described in `docs/protocol.md`.

pub mod counted;
mod decoder;
pub mod framed;
mod reason;
mod reply;
mod request;

use std::time::Duration;

pub use decoder::{Decoder, Incoming};
pub use reason::{NotAReason, Reason};
pub use reply::{Reply, Status, Winners, WinnersSize, WinningBet, WinningBets};
pub use request::Request;

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

/// The message without its line end, which is not part of it.
fn without_line_end(message: &[u8]) -> &[u8] {
    match message.strip_suffix(b"\n") {
        Some(message) => message.strip_suffix(b"\r").unwrap_or(message),
        // A lone `\r` ends no line: it is a control character like others.
        None => message,
    }
}

/// What arrived at a client is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAReply {
    /// The bytes are not in the client's dialect.
    #[error("the reply is in another dialect")]
    OtherDialect,
    /// A message of the dialect that is no reply: its first 100 characters, escaped.
    #[error("`{0}` is not a reply")]
    Text(String),
}

impl NotAReply {
    /// A message with this text.
    fn of(text: &str) -> Self {
        Self::Text(text.chars().take(100).flat_map(char::escape_debug).collect())
    }
}
