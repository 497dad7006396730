//! The protocol of a `sorteo` lottery server: bets and when they are valid,
//! requests, replies and reasons, and both wire dialects in both directions.
//!
//! Everything here is pure: no clock, no socket, no database, no log.
//!
//! | module | job |
//! |---|---|
//! | [`bets`] | bets, batches and their digest |
//! | [`ids`] | agencies, draws, uploads |
//! | [`text`] | decimal numbers, fields, characters that mislead a reader |
//! | [`wire`] | bytes to requests and back, replies to bytes and back |
#![forbid(unsafe_code)]

pub mod bets;
pub mod ids;
pub mod text;
pub mod wire;

pub use bets::{Batch, Bet, BetError, Bets, DOCUMENT_BYTES_MAX, Digest, DigestBuilder, NAME_BYTES_MAX};
pub use ids::{AgencyId, DrawId, UPLOAD_ID_CHARS_MAX, UploadId, UploadPosition};

/// The number that wins unless an operator says other: the original servers' constant.
pub const DEFAULT_WINNING_NUMBER: u32 = 7574;
