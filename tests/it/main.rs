//! The integration tests: one binary, a file for each concern.

mod sqlite_store;
mod store_contract;
