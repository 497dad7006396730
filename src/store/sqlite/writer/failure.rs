//! Which failures of a write can be refused, and which end the writer.

use rusqlite::ErrorCode;

use crate::store::StoreError;
use crate::store::sqlite::files::DatabaseFiles;
use crate::store::sqlite::room::is_full;

/// A failure after which nothing more may be written.
#[derive(Debug)]
pub(super) struct Fatal(pub(super) String);

impl Fatal {
    pub(super) fn new(operation: &str, error: &rusqlite::Error) -> Self {
        Self(format!("{operation} failed: {error}"))
    }
}

/// Returns the refusal for a failure that leaves the database as it was and passes by
/// itself; `None` for any other failure.
pub(super) fn refusal(error: &rusqlite::Error, files: &DatabaseFiles) -> Option<StoreError> {
    match error.sqlite_error_code()? {
        // Another process holds the write lock for longer than the busy timeout.
        ErrorCode::DatabaseBusy => Some(StoreError::Busy),
        _ => is_full(error, files).then_some(StoreError::Full),
    }
}
