//! Making safe what a server finds in a log that it must not copy into the
//! database, because a replicator does that.
//!
//! A process that died, or failed, between writing a commit and syncing it leaves
//! the commit in the log, where from now on everybody sees it. Where nobody
//! replicates, copying the log into the database makes it safe. But a log that is
//! copied is begun anew by the next write, over what a replicator that is away has
//! not seen.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{OpenError, sqlite_error};
use super::files::DatabaseFiles;

/// Bytes that are read and written together.
const PIECE_BYTES: usize = 1 << 20;

/// Writes the log again as it is, and syncs it. A sync alone would not do: where
/// the last one failed, Linux may hold for written what never reached the disk.
pub(super) fn write_again(connection: &Connection, files: &DatabaseFiles) -> Result<(), OpenError> {
    let fail = |source| sqlite_error(files.database(), "syncing its log", source);
    // While this transaction is open, nobody else writes to the log or begins it
    // anew: its bytes stay those that were read.
    let alone = Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(fail)?;
    let log = files.wal();
    match File::options().read(true).write(true).open(&log).and_then(|log| write_file_again(&log)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(OpenError::NotWritable { path: log, source }),
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
