//! The integration tests: one binary, a file for each concern.

mod cli;
mod process;
mod server;
mod sqlite_store;
mod store_contract;
mod support;
mod wire_counted;
mod wire_framed;
mod wire_properties;
mod wire_support;
