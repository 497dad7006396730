//! `sorteo`: the central server of a lottery.
//!
//! Agencies upload bets in batches and report when they are done. The draw takes place
//! exactly once, and each agency reads its own winners. Everything that must survive a
//! crash is in one SQLite file.
//!
//! # Map
//!
//! | module | job |
//! |---|---|
//! | [`sorteo_protocol`] | bets, requests, replies and both dialects: pure, a crate of its own |
//! | [`store`] | the [`store::Store`] trait and its guarantees; SQLite below it |
//! | [`service`] | all policy: a request and a store make a reply |
//! | [`server`] | sockets: the reactor, the workers, one peer's connection; its conversation |
//! | [`sorteo_agency`] | the client: upload, resume, retry, read winners; a crate of its own |
//! | [`import`] | stores a file with the bets of all agencies |
//! | [`generate`], [`mod@bench`] | made-up bets, and load for a running server |
//! | [`logging`] | the log's format and its events |
//! | [`metrics`], [`ops`] | what a server counts, and the HTTP for its operators |
//! | [`config`] | the settings, where each value comes from, and what a command runs with |
//! | [`atomic_file`] | files that appear complete or not at all |
//! | [`secret_file`] | files that only their owner may read |
//! | [`fair_queue`] | a queue in which what one connection costs does not hold up the others |
//! | [`rate_limit`] | how often something may happen, and how many at once, for each address or agency |
//! | [`failpoint`] | points at which a debug build can be made to die, for the tests |
//! | [`cli`] | the subcommands, thin |
//!
//! Which of them may import which is in ARCHITECTURE.md, and a test holds it.
#![forbid(unsafe_code)]

pub mod atomic_file;
pub mod bench;
pub mod cli;
pub mod config;
pub mod failpoint;
pub mod fair_queue;
pub mod generate;
pub mod import;
pub mod logging;
pub mod metrics;
pub mod ops;
pub mod rate_limit;
pub mod secret_file;
pub mod server;
pub mod service;
pub mod store;
