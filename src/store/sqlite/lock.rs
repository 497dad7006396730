//! The lock file: one server at a time holds a database.
//!
//! It keeps an operator from starting two servers by mistake. It is not what keeps
//! the data right: that is the database's transactions.

use std::fs::{File, TryLockError};

use super::error::OpenError;
use super::files::DatabaseFiles;

/// The lock, held until it is dropped; the system releases it when the process dies.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes `DATABASE.lock`, which is created if it is missing.
    ///
    /// The file is never removed: removing a lock file races with its next taker.
    pub(super) fn take(files: &DatabaseFiles) -> Result<Self, OpenError> {
        let path = files.lock();
        let not_writable = |source| OpenError::NotWritable { path: path.clone(), source };
        let file =
            File::options().write(true).create(true).truncate(false).open(&path).map_err(not_writable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Held(files.database().to_owned())),
            Err(TryLockError::Error(source)) => Err(not_writable(source)),
        }
    }

    /// Takes `DATABASE.lock` if it exists. Where it does not, no server holds the
    /// database.
    pub(super) fn take_if_there(files: &DatabaseFiles) -> Result<Option<Self>, OpenError> {
        if files.lock().exists() { Self::take(files).map(Some) } else { Ok(None) }
    }
}
