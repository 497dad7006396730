//! A backup: a verified copy of the database, taken beside a running server. It is a
//! database like any other.

use std::fs;
use std::path::Path;

use super::check::Report;
use super::copy::{CopyError, Progress, copy_verified, refuse_own};
use super::files::DatabaseFiles;
use super::lock::DatabaseLock;
use super::open;
use crate::atomic_file::{AtomicFile, AtomicFileError};

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What the check of the copy counted.
    pub report: Report,
    /// Size of the copy, in bytes.
    pub bytes: u64,
}

/// Saves the database as it is now to another file, which exists afterwards whole and
/// verified, or not at all. It has the permissions of the database. `replace` allows an
/// existing file.
///
/// # Errors
///
/// Fails if the database is refused or damaged, or if the file cannot be written or must
/// not be replaced.
pub fn backup(
    database: &Path,
    destination: &Path,
    replace: bool,
    progress: &mut Progress<'_>,
) -> Result<Saved, CopyError> {
    let files = DatabaseFiles::resolve(database);
    let target = DatabaseFiles::at(destination.to_owned());
    let source = open::open_source(&files)?;
    refuse_own(&files, destination)?;
    let file = AtomicFile::create(destination, replace)?;
    refuse_stray_wal(&target)?;
    // What is replaced may be the database of another server.
    let _lock = DatabaseLock::take_if_there(&target)?;
    let report = copy_verified(source, database, &file, destination, progress)?;
    let io = |error| AtomicFileError::io(destination, error);
    let permissions = fs::metadata(database).map_err(io)?.permissions();
    file.file().set_permissions(permissions).map_err(io)?;
    let bytes = file.file().metadata().map_err(io)?.len();
    file.finish()?;
    Ok(Saved { report, bytes })
}

/// Refuses a WAL or a journal beside the backup: it would be copied into the backup
/// by the next program that opens it.
fn refuse_stray_wal(target: &DatabaseFiles) -> Result<(), CopyError> {
    for log in [target.wal(), target.journal()] {
        if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
            return Err(CopyError::StrayWal { path: target.database().to_owned(), log });
        }
    }
    Ok(())
}
