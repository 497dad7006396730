//! The lock file: one server at a time holds a database.
//!
//! It spares an operator two servers by mistake. It is not what keeps the data
//! right: that is the database's transactions.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::header::companion;

/// Held as long as it lives; the system lets it go when the process dies.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes `DATABASE.lock` if there is one. Where there is none, nobody holds it.
    pub(super) fn take_if_there(database: &Path) -> Result<Option<Self>, OpenError> {
        if path_of(database).exists() { Self::take(database).map(Some) } else { Ok(None) }
    }

    /// Takes `DATABASE.lock`, made if it is missing, or says who is in the way.
    ///
    /// The file is never removed: removing a lock file races with its next taker.
    pub(super) fn take(database: &Path) -> Result<Self, OpenError> {
        let path = path_of(database);
        let not_writable = |source| OpenError::NotWritable { path: path.clone(), source };
        let file =
            File::options().write(true).create(true).truncate(false).open(&path).map_err(not_writable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Held(database.to_owned())),
            Err(TryLockError::Error(source)) => Err(not_writable(source)),
        }
    }
}

fn path_of(database: &Path) -> PathBuf {
    companion(database, ".lock")
}
