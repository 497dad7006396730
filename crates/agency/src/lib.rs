//! A client of a `sorteo` lottery server: an agency that uploads a file of bets exactly
//! once, says that it is done, waits for the draw and reads its winners.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//! use sorteo_agency::{BATCH_BETS, ClientOptions, Upload};
//! use sorteo_protocol::AgencyId;
//!
//! # fn main() -> Result<(), sorteo_agency::AgencyError> {
//! let options = ClientOptions::new("127.0.0.1:12345", Duration::from_secs(60));
//! let file = Path::new("agency-1.csv");
//! let mut upload = Upload::start(options, AgencyId(1), file)?;
//! upload.send(file, BATCH_BETS)?;
//! upload.done()?;
//! for document in upload.wait_winners()? {
//!     println!("{document}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`Client`] | requests and their replies in the framed dialect; reconnects by itself |
//! | [`Upload`] | a whole agency in the framed dialect, exactly once from end to end, several batches in flight |
//! | [`counted`] | an agency in the counted dialect, and a single bet: neither can resume |
//! | [`Connection`] | one connection of either dialect, without retries |
//! | [`rows`], [`file`](mod@file) | the CSV reader, and an agency's file cut into batches |
//!
//! With a [`Security`] connections are encrypted, and begin with the agency's token. Its files are
//! read anew for each.
//!
//! Everything blocks. Nothing is logged: an [`Observer`] is given what happens.
#![forbid(unsafe_code)]

mod backoff;
mod client;
mod connection;
pub mod counted;
mod error;
pub mod file;
mod lines;
mod options;
pub mod rows;
mod secret;
mod security;
mod tls;
mod token_file;
mod transport;
mod upload;
mod window;

pub use client::Client;
pub use connection::{Connection, ExchangeError, REPLY_TIMEOUT};
pub use error::AgencyError;
pub use options::{ClientOptions, Event, Observer};
pub use secret::CredentialError;
pub use security::{Security, SecurityError};
pub use tls::{ClientCertificate, Tls, TlsError, TlsProblem};
pub use token_file::TokenFile;
pub use upload::{BATCH_BETS, Upload};
pub use window::WindowLimits;
