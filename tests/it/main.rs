//! The integration tests: one binary, a file for each concern.

mod check;
mod cli;
mod container_files;
mod conversations;
mod corpus;
mod data;
mod dependency_rule;
mod draws;
mod help_and_man;
mod identity;
mod migration;
mod open_doors;
mod operators;
mod ops;
mod quotas;
mod server;
mod settings;
mod sqlite_store;
mod store_contract;
mod test_server;
mod usage_errors;
mod vectors;
mod wire_counted;
mod wire_framed;
mod wire_properties;
mod wire_support;
