//! `sorteo`: the central server of a lottery.
//!
//! Agencies upload bets in batches, say when they are done, the draw happens
//! exactly once, and each agency reads its own winners. Everything that must
//! survive lives in one SQLite file.
//!
//! # Map
//!
//! | module | job |
//! |---|---|
//! | [`sorteo_protocol`] | bets, requests, replies and both dialects: pure, a crate of its own |
//! | [`store`] | the [`store::Store`] trait and its guarantees; SQLite below it |
//! | [`service`] | all policy: a request and a store make a reply |
//! | [`server`] | sockets: the reactor, the workers, one peer's connection; its conversation |
//! | [`sorteo_agency`] | the client: send, resume, retry, ask; a crate of its own |
//! | [`import`] | a file of bets of all agencies, into a store |
//! | [`generate`], [`mod@bench`] | made-up bets, and load for a running server |
//! | [`logging`] | the log's format and its events |
//! | [`metrics`], [`ops`] | what a server counts, and the HTTP for who watches it |
//! | [`config`] | what an operator can set, and where each setting is from |
//! | [`unfinished`] | a file that has its name only once it is whole |
//! | [`failpoint`] | where a debug build can be told to die, for the tests |
//! | [`cli`] | the subcommands, thin |
//!
//! Which of them may import which is in ARCHITECTURE.md, and a test holds it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod config;
pub mod failpoint;
pub mod generate;
pub mod import;
pub mod logging;
pub mod metrics;
pub mod ops;
pub mod server;
pub mod service;
pub mod store;
pub mod unfinished;
