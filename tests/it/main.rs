//! The integration tests: one binary, a file for each concern.

mod check;
mod cli;
mod conversations;
mod corpus;
mod data;
mod draws;
#[path = "../input/mod.rs"]
mod input;
mod ops;
mod pages;
mod process;
mod properties;
mod server;
mod server_conversation;
mod settings;
mod sqlite_store;
mod store_contract;
mod support;
mod usage;
mod wire_counted;
mod wire_framed;
mod wire_properties;
mod wire_support;
