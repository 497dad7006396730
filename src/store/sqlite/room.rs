//! Whether a write failed because there is no room: the disk is full, or a quota is used
//! up (`EDQUOT`), or the file may not grow (`EFBIG`).
//!
//! All three pass by themselves, and nothing was written. SQLite has a code of its own for
//! the first alone. It gives the others the code of a failing disk, and does not pass on
//! the system's error. So a file that has no name is written, at the end of the
//! database's longest file, and the system reports the reason once more.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use rusqlite::{ErrorCode, ffi};

use super::files::DatabaseFiles;

/// Bytes that are tried: more than a page of the WAL, since a file system may have a last
/// block left that was too small for that.
const TRIED_BYTES: usize = 64 << 10;

/// Returns whether an operation failed for want of room, and wrote nothing that counts.
pub(super) fn is_full(error: &rusqlite::Error, files: &DatabaseFiles) -> bool {
    match error.sqlite_error() {
        Some(failure) if failure.code == ErrorCode::DiskFull => true,
        Some(failure) if failure.extended_code == ffi::SQLITE_IOERR_WRITE => !has_room(files),
        _ => false,
    }
}

fn has_room(files: &DatabaseFiles) -> bool {
    let bytes = |path| fs::metadata(path).map_or(0, |file| file.len());
    let end = bytes(files.database().to_owned()).max(bytes(files.wal()));
    let write =
        || -> io::Result<()> { tempfile::tempfile_in(files.folder())?.write_all_at(&[1; TRIED_BYTES], end) };
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    !write().is_err_and(|error| full.contains(&error.kind()))
}
