//! Why a database was not opened, and which failures of SQLite mean damage.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::holder::Holder;

/// Why a database was not opened. Nothing of its contents was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the file does not exist, or is not a folder.
    #[error("there is no folder {}: create it, or give another --database", .0.display())]
    NoFolder(PathBuf),
    /// The path is a folder, or anything else that cannot hold a database.
    #[error("{} is not a file: give a database file in --database", .0.display())]
    NotAFile(PathBuf),
    /// The file does not exist, but must.
    #[error("there is no database {}: give an existing one with --database", .0.display())]
    NoDatabase(PathBuf),
    /// The file is on a file system on which SQLite's WAL does not work.
    #[error("{} is on a network file system ({file_system}), where SQLite can lose commits, because it needs memory and \
             locks that all processes share. Give a --database on a disk of this machine", .path.display())]
    NetworkFileSystem {
        /// The database.
        path: PathBuf,
        /// The name of the file system.
        file_system: String,
    },
    /// The file or its folder cannot be read and written.
    #[error("{} cannot be written ({source}): the server needs to create files in that folder", .path.display())]
    NotWritable {
        /// The file that could not be opened.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system has no thread for the writer.
    #[error("{} cannot be written ({source}): the system has no thread for its writer", .path.display())]
    NoThread {
        /// The database.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The folder cannot be written, and there is a WAL that can only be read with an index.
    #[error("{} cannot be read: its WAL {} has commits, for which SQLite creates a file beside it, and the folder is \
             read-only: copy both to a folder that can be written", path.display(), wal.display())]
    ReadOnlyWal {
        /// The database.
        path: PathBuf,
        /// Its WAL.
        wal: PathBuf,
    },
    /// Another server, or another process, holds the database.
    #[error("another server holds {}{}: stop it first, or give another --database", .0.display(), .1)]
    Held(PathBuf, Holder),
    /// The file has several names, and each would have a WAL of its own.
    #[error("{path} has {links} hard links: opened by another name it has another WAL, and commits are lost. Remove the \
             other names (`find / -xdev -samefile {path}` lists them), or copy the file and use the copy",
            path = .path.display())]
    HardLinks {
        /// The database.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// The file is mounted by itself.
    #[error("{} is a mount point: what SQLite keeps beside it would be on another disk, and lost with a container. \
             Mount the folder, not the file", .0.display())]
    MountPoint(PathBuf),
    /// The path leads to another file than the one that was locked.
    #[error("{0}")]
    Moved(String),
    /// A restore is running, or its process died.
    #[error("a restore of {path} is under way or was interrupted: start the server, which finishes it, \
             or run `sorteo restore` again", path = .0.display())]
    Restoring(PathBuf),
    /// The file is not a SQLite database.
    #[error("{} is not a SQLite database: it was left as it is, give another --database", .0.display())]
    NotSqlite(PathBuf),
    /// The file is another program's SQLite database.
    #[error("{} is a SQLite database of another program, or its header is damaged: it was left as it is, give another --database", .0.display())]
    Foreign(PathBuf),
    /// The database was written by a newer version of this program.
    #[error("{} has schema version {found}, this program knows up to {known}: use the newer program", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// The database was written by an older version of this program, which no server of
    /// this version has brought up to date yet.
    #[error("{} has schema version {found}, this program reads {known}: start `sorteo serve` on it once, \
             which brings it up to date, or use the older program", .path.display())]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version that is read.
        known: i64,
    },
    /// The database is damaged.
    #[error("{path} is damaged ({detail}): it was left as it is. Keep it, see what `sorteo check --database {path}` \
             finds, and restore a backup. The `.recover` command of sqlite.org's sqlite3, run on a copy, saves what can be read",
            path = .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The schema is not the one that the migrations create: it was changed.
    #[error("{path} has another schema than this program creates ({detail}): it was left as it is. See what \
             `sorteo check --database {path}` finds, and undo the change or restore a backup",
            path = .path.display())]
    Altered {
        /// The database.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The linked SQLite loses commits when two connections write and checkpoint
    /// (3.7.0 to 3.51.2, the WAL-reset race).
    #[error("SQLite {0} can lose commits: build with the bundled one, at least 3.51.3")]
    UnsafeSqlite(String),
    /// Any other failure of SQLite.
    #[error("{}: {operation} failed: {source}", .path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The pool of readers could not be filled.
    #[error("{}: opening the reading connections failed: {source}", .path.display())]
    Pool {
        /// The database.
        path: PathBuf,
        /// The pool's error.
        source: r2d2::Error,
    },
}

/// Returns the error of an operation on a database, and tells damage from other
/// failures.
pub(super) fn sqlite_error(path: &Path, operation: &'static str, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match is_damage(&source) {
        true => OpenError::Corrupt { path, detail: format!("{operation}: {source}") },
        false => OpenError::Sqlite { path, operation, source },
    }
}

/// Returns the error of an operation that opens a database: as [`sqlite_error`], but
/// a file that cannot be opened is named as such.
pub(super) fn open_error(path: &Path, operation: &'static str, source: rusqlite::Error) -> OpenError {
    match source.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::NotWritable { path: path.to_owned(), source: io::Error::other(source) }
        }
        _ => sqlite_error(path, operation, source),
    }
}

/// Returns whether a failure lies in the file: a damaged page, a missing table, a
/// value that none of our columns has. Other failures are the system's and pass.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::SqliteFailure(cause, _) | Error::SqlInputError { error: cause, .. } => matches!(
            cause.code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::Unknown
        ),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::QueryReturnedNoRows => true,
        _ => false,
    }
}
