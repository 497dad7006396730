//! The second half of a restore: a copy that is whole and verified takes the
//! database's place.
//!
//! A database is more than one file: SQLite copies whatever WAL lies beside it into
//! it. An old WAL beside a new database is corruption, and an old database without
//! its WAL has lost what was acknowledged; and no system renames two files at once.
//! So one rename decides, that of the copy to `.DATABASE.sorteo-restore`. Every step
//! after it can be repeated:
//!
//! 1. the copy becomes `.DATABASE.sorteo-restore`: from here on, the restore is decided;
//! 2. `DATABASE-wal` and `DATABASE-journal` get the names under which they are kept;
//! 3. `DATABASE-shm`, which is only an index of the WAL, is removed;
//! 4. `DATABASE` gets the name under which it is kept;
//! 5. `.DATABASE.sorteo-restore` becomes `DATABASE`.
//!
//! The folder is synced after each step, so that a power cut finds them in this
//! order. A process that dies before the first has changed nothing, and the old
//! database starts with its own WAL. One that dies after it leaves
//! `.DATABASE.sorteo-restore`: the next server, or the next restore, continues from
//! there before it looks at anything else, and starts on the new database. A command
//! that only reads is refused until then. All of it happens under the server's lock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::files::DatabaseFiles;
use super::header::refuse_foreign_file;
use super::lock::DatabaseLock;
use crate::atomic_file::sync_folder_of;

/// Returns whether a restore was decided on and has not ended.
pub(super) fn is_pending(files: &DatabaseFiles) -> bool {
    files.pending_restore().exists()
}

/// Refuses to read a database that may be the old one without its WAL.
pub(super) fn refuse_if_pending(files: &DatabaseFiles) -> Result<(), OpenError> {
    match is_pending(files) {
        true => Err(OpenError::Restoring(files.database().to_owned())),
        false => Ok(()),
    }
}

/// Finishes a restore whose process died after the decision, under the server's lock.
pub(super) fn finish_interrupted(files: &DatabaseFiles) -> Result<(), OpenError> {
    if !is_pending(files) {
        return Ok(());
    }
    let _lock = DatabaseLock::take(files)?;
    finish(files)?;
    crate::event!(Warn, "restore_database", Success, database = files.database().display());
    Ok(())
}

/// Carries out the steps that are left of a restore that was decided on, if there is
/// one. The caller holds the lock.
pub(super) fn finish(files: &DatabaseFiles) -> Result<(), OpenError> {
    if is_pending(files) {
        // Whatever has that name: only a database of ours takes the place of one.
        let copy = files.pending_restore();
        refuse_foreign_file(&DatabaseFiles::at(copy.clone()))?;
        if fs::metadata(&copy).is_ok_and(|found| found.len() == 0) {
            return Err(OpenError::NotSqlite(copy));
        }
    }
    let carry_out_all = || {
        for step in steps(files)? {
            step.carry_out()?;
            sync_folder_of(files.database())?;
        }
        Ok(())
    };
    carry_out_all().map_err(|source| OpenError::NotWritable { path: files.database().to_owned(), source })
}

/// One step after the decision. Carried out twice, it has the same effect as once.
#[derive(Debug)]
pub(super) enum Step {
    /// Gives a file another name, unless that was done already.
    Keep(PathBuf, PathBuf),
    /// Removes a file that SQLite creates again.
    Remove(PathBuf),
    /// Gives the copy the database's name.
    Put(PathBuf, PathBuf),
}

impl Step {
    pub(super) fn carry_out(&self) -> io::Result<()> {
        match self {
            Self::Keep(from, to) if from.exists() => rename_to_new(from, to),
            Self::Remove(path) if path.exists() => fs::remove_file(path),
            Self::Put(from, to) => rename_to_new(from, to),
            Self::Keep(..) | Self::Remove(_) => Ok(()),
        }
    }
}

/// Returns the steps after the decision, in the order that the module describes.
pub(super) fn steps(files: &DatabaseFiles) -> io::Result<Vec<Step>> {
    let pending = files.pending_restore();
    let date = match fs::metadata(&pending) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?.modified()?,
    };
    let kept = files.kept(date);
    Ok(vec![
        Step::Keep(files.wal(), kept.wal()),
        Step::Keep(files.journal(), kept.journal()),
        Step::Remove(files.wal_index()),
        Step::Keep(files.database().to_owned(), kept.database().to_owned()),
        Step::Put(pending, files.database().to_owned()),
    ])
}

/// Renames a file to a name that no file has: two restores within a millisecond, say,
/// must not overwrite what the first kept.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is in the way", to.display())));
    }
    fs::rename(from, to)
}
