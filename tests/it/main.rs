//! The integration tests: one binary, a file for each concern.

mod check;
mod cli;
mod conversations;
mod corpus;
mod data;
mod draws;
mod log_line;
mod ops;
mod pages;
mod server;
mod server_conversation;
mod settings;
mod sqlite_store;
mod store_contract;
mod test_server;
mod usage;
mod wire_counted;
mod wire_framed;
mod wire_properties;
mod wire_support;
