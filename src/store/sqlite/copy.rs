//! A whole and verified copy of a database, which a backup and a restore both make.
//!
//! All pages are copied in one step, which is one snapshot. In small steps, each with a
//! snapshot of its own, SQLite starts over whenever another connection has written in
//! between, and beside a busy server never finishes.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode};

use super::check::{self, Report};
use super::connection;
use super::error::{OpenError, sqlite_error};
use super::files::DatabaseFiles;
use super::schema;
use super::text::counted;
use crate::atomic_file::{AtomicFile, AtomicFileError};

/// All pages, for `sqlite3_backup_step`.
const ALL_PAGES: i32 = -1;

/// Why a database was not copied. The source is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source was refused, or another server holds the target.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file to restore was refused.
    #[error("{} cannot be restored, give a backup as FILE: {source}", path.display())]
    Backup {
        /// The file that was given.
        path: PathBuf,
        /// Why it was refused.
        source: Box<OpenError>,
    },
    /// The copy could not be written, or must not be written there.
    #[error(transparent)]
    File(#[from] AtomicFileError),
    /// Source and target are the same file.
    #[error("{} and {} are the same file: give another", .0.display(), .1.display())]
    SameFile(PathBuf, PathBuf),
    /// The target is the database, or belongs to it.
    #[error("{} is the database {} itself, or belongs to it: give another file", target.display(), database.display())]
    OwnFile {
        /// The database.
        database: PathBuf,
        /// What would be overwritten.
        target: PathBuf,
    },
    /// Beside the target lies a WAL or a journal, which SQLite would apply to the copy.
    #[error("SQLite would apply {} to the copy: a database is or was at {}, give another name",
            log.display(), path.display())]
    StrayWal {
        /// The target.
        path: PathBuf,
        /// The WAL or the journal.
        log: PathBuf,
    },
    /// The check of the copy has findings.
    #[error("{}: {}, the first: {}; nothing was changed", path.display(),
            counted(report.findings_total(), "finding"), report.findings.first().map_or("", String::as_str))]
    CheckFailed {
        /// The source.
        path: PathBuf,
        /// The findings.
        report: Box<Report>,
    },
    /// The copy cannot be given to the user who owns the database now.
    #[error("{} belongs to another user, and its replacement cannot be given to that user ({source}): \
             run this as that user, or as root", path.display())]
    Owner {
        /// The database.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// SQLite failed to copy.
    #[error("copying {} to {} failed: {source}; nothing was left there", from.display(), to.display())]
    Copying {
        /// The source.
        from: PathBuf,
        /// The target.
        to: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

/// Where a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The pages are copied.
    Copying,
    /// The copy is verified.
    Checking(check::Step),
}

/// Receives every step.
pub type Progress<'a> = dyn FnMut(Step) + 'a;

/// Copies the database as it is now into an empty file, brings the copy's schema up to
/// date, and verifies it. `to` is the path that the file will get.
pub(super) fn copy_verified(
    source: Connection,
    from: &Path,
    file: &AtomicFile,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<Report, CopyError> {
    progress(Step::Copying);
    let mut copied = copy(&source, file.path()).map_err(|source| copy_error(from, to, source))?;
    schema::migrate(&mut copied, from)?;
    copied.close().map_err(|(_, source)| copy_error(from, to, source))?;
    // From here on only the copy is read: the source's WAL can start over.
    drop(source);
    let report = verify(file.path(), from, progress)?;
    match report.findings.is_empty() {
        true => Ok(report),
        false => Err(CopyError::CheckFailed { path: from.to_owned(), report: Box::new(report) }),
    }
}

fn copy(source: &Connection, to: &Path) -> rusqlite::Result<Connection> {
    let mut copy = open(to)?;
    // An unfinished copy is thrown away: it needs neither a journal nor syncs, except
    // the one that the whole file gets.
    set(&copy, "journal_mode", "off")?;
    copy.pragma_update(None, "synchronous", "off")?;
    let backup = Backup::new(source, &mut copy)?;
    match backup.step(ALL_PAGES)? {
        StepResult::Done => {}
        _ => {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                None,
            ));
        }
    }
    drop(backup);
    // A file that needs no WAL beside it: it can be read without leaving one, and moved
    // as one file. A server that opens it switches back to a WAL.
    set(&copy, "locking_mode", "exclusive")?;
    set(&copy, "journal_mode", "delete")?;
    Ok(copy)
}

/// Opens an existing file to write to it.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, connection::WRITER_FLAGS)
}

/// Sets a pragma, and fails if SQLite reports another value than the given one.
fn set(connection: &Connection, pragma: &str, value: &str) -> rusqlite::Result<()> {
    let reported: String = connection.pragma_update_and_check(None, pragma, value, |row| row.get(0))?;
    if reported == value { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
}

fn copy_error(from: &Path, to: &Path, source: rusqlite::Error) -> CopyError {
    let ours =
        matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
    match ours {
        true => sqlite_error(from, "copying", source).into(),
        false => CopyError::Copying { from: from.to_owned(), to: to.to_owned(), source },
    }
}

/// Checks the copy. Errors name its source, which has the same problems.
fn verify(copy: &Path, source: &Path, progress: &mut Progress<'_>) -> Result<Report, OpenError> {
    let open = || {
        let mut connection = Connection::open_with_flags(copy, connection::READER_FLAGS)?;
        connection::configure(&mut connection)?;
        Ok(connection)
    };
    let connection = open().map_err(|error| sqlite_error(source, "opening the copy", error))?;
    check::check_open(connection, source, &mut |step| progress(Step::Checking(step)))
}

/// Refuses to write something else over a database, or over a file that belongs to
/// it, also where that does not exist yet.
///
/// # Errors
///
/// Fails with [`CopyError::OwnFile`].
pub fn refuse_own_files(database: &Path, target: &Path) -> Result<(), CopyError> {
    refuse_own(&DatabaseFiles::resolve(database), target)
}

/// Does what [`refuse_own_files`] does, for a path that is resolved.
pub(super) fn refuse_own(files: &DatabaseFiles, target: &Path) -> Result<(), CopyError> {
    match files.include(target) {
        true => Err(CopyError::OwnFile { database: files.database().to_owned(), target: target.to_owned() }),
        false => Ok(()),
    }
}

/// Refuses to copy a database onto itself, however the two paths are written.
pub(super) fn refuse_same_file(one: &Path, other: &Path) -> Result<(), CopyError> {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(first), Ok(second)) if first == second => {
            Err(CopyError::SameFile(one.to_owned(), other.to_owned()))
        }
        _ => Ok(()),
    }
}
