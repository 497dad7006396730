//! Makes the commits that a server finds in a WAL durable, before any agency
//! sees them.
//!
//! A process that died, or failed, between writing a commit and syncing it leaves the
//! commit in the WAL, where from now on every reader sees it. Syncing the WAL would not
//! be enough: where the last sync failed, Linux may take for written what never reached
//! the disk. So the commits are written again: into the
//! database, or over themselves.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{OpenError, sqlite_error};
use super::files::DatabaseFiles;
use super::options::Checkpoints;
use super::room::is_full;

/// Bytes that are read and written together.
const PIECE_BYTES: usize = 1 << 20;

/// Makes all commits in the WAL durable.
pub(super) fn resync(
    connection: &Connection,
    files: &DatabaseFiles,
    checkpoints: Checkpoints,
) -> Result<(), OpenError> {
    match checkpoints {
        Checkpoints::Server => copy_into_database(connection, files)
            .map_err(|source| sqlite_error(files.database(), "syncing its WAL", source)),
        // The next write would start the WAL over, over what a replicator that is away
        // has not seen.
        Checkpoints::External => write_again(connection, files),
    }
}

/// Copies the WAL into the database, with a sync of both.
fn copy_into_database(connection: &Connection, files: &DatabaseFiles) -> rusqlite::Result<()> {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        // There is no room for the copy; SQLite has synced the WAL first.
        Err(error) if is_full(&error, files) => Ok(()),
        result => result,
    }
}

/// Writes the WAL's bytes over themselves, and syncs it.
fn write_again(connection: &Connection, files: &DatabaseFiles) -> Result<(), OpenError> {
    let fail = |source| sqlite_error(files.database(), "syncing its WAL", source);
    // While this transaction is open, nothing else writes to the WAL or starts it over:
    // its bytes stay those that were read.
    let alone = Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(fail)?;
    let wal = files.wal();
    match File::options().read(true).write(true).open(&wal).and_then(|file| write_file_again(&file)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(OpenError::NotWritable { path: wal, source }),
        Ok(()) => {}
    }
    alone.rollback().map_err(fail)
}

fn write_file_again(file: &File) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at)? {
            0 => return file.sync_all(),
            bytes => {
                file.write_all_at(&piece[..bytes], at)?;
                at += bytes as u64;
            }
        }
    }
}
