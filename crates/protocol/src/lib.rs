//! The protocol of a `sorteo` lottery server: bets and when they are valid,
//! requests, replies and reasons, and both wire dialects in both directions.
//!
//! Everything here is pure: no clock, no socket, no database, no log. The protocol is
//! described for people in `docs/protocol.md` of the sorteo repository.
//!
//! ```
//! use sorteo_protocol::AgencyId;
//! use sorteo_protocol::wire::{Dialect, Reply, Request, decode_reply, encode_request};
//!
//! let mut request = Vec::new();
//! encode_request(Dialect::Framed, &Request::Done { agency: AgencyId(7), bets: Some(99), draw: None }, &mut request);
//! assert_eq!(request, b"\0\0\0\x09DONE|7|99");
//!
//! let mut received = &b"\0\0\0\x0cACK_DONE|OK\n"[..];
//! assert_eq!(decode_reply(Dialect::Framed, &mut received), Ok(Some(Reply::Done(Ok(())))));
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`bets`] | bets, when they are valid, and their digest |
//! | [`batch`] | the bets of one agency, and their position in an upload |
//! | [`ids`] | agencies, draws, uploads |
//! | [`token`] | the secrets by which agencies and operators prove who they are |
//! | [`text`] | decimal numbers, fields, characters that mislead a reader |
//! | [`wire`] | bytes to requests and back, replies to bytes and back |
#![forbid(unsafe_code)]

pub mod batch;
pub mod bets;
pub mod ids;
pub mod text;
pub mod token;
pub mod wire;

pub use batch::{Batch, UploadPosition};
pub use bets::{
    Bet, BetError, Bets, DOCUMENT_BYTES_MAX, Digest, DigestBuilder, NAME_BYTES_MAX, check_stored,
};
pub use ids::{AgencyId, DrawId, UPLOAD_ID_CHARS_MAX, UploadId};
pub use token::{NotAToken, NotATokenId, Token, TokenId};

/// The winning number of a draw for which the operator gives none: the original servers' constant.
pub const DEFAULT_WINNING_NUMBER: u32 = 7574;
