//! The lock: one server at a time holds a database.
//!
//! It keeps an operator from starting two servers by mistake. It is not what keeps
//! the data right: that is the database's transactions.
//!
//! Two files are locked. `DATABASE.lock` belongs to the name: it is there before the
//! database is, and while a restore puts another file in the database's place. The lock
//! on the database file belongs to the file: it also keeps away a server that opens it
//! by another name or through another mount, with a WAL of its own.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::error::OpenError;
use super::files::{DatabaseFiles, FileId};
use super::holder::Holder;
use crate::atomic_file::give_owner_of;

/// The mode of what is created here: whoever can open a file can lock it.
const MODE: u32 = 0o600;

/// The lock, held until it is dropped; the system releases it when the process dies.
#[derive(Debug)]
pub(super) struct DatabaseLock {
    // `flock`, which belongs to the open file. SQLite's locks belong to the process, which
    // loses them when it closes any descriptor of the file: so this one is opened before
    // SQLite opens the database, and closed after.
    database: Option<Arc<File>>,
    _named: File,
}

impl DatabaseLock {
    /// Takes `DATABASE.lock`, which is created if it is missing, and the database file if
    /// there is one.
    ///
    /// The lock file is never removed: removing it races with its next taker.
    pub(super) fn take(files: &DatabaseFiles) -> Result<Self, OpenError> {
        let path = files.lock();
        let named = open_or_create(&path, OpenOptions::new().write(true), files)?;
        lock(&named, &path, files)?;
        make_private(&named);
        let mut taken = Self { database: None, _named: named };
        if files.database().exists() {
            taken.hold_database(files)?;
        }
        Ok(taken)
    }

    /// Takes the lock if `DATABASE.lock` exists. Where it does not, no server holds the
    /// database.
    pub(super) fn take_if_there(files: &DatabaseFiles) -> Result<Option<Self>, OpenError> {
        if files.lock().exists() { Self::take(files).map(Some) } else { Ok(None) }
    }

    /// Takes the file that is the database now, and creates it if it is missing. Returns
    /// which file it is, and the file itself, which nobody may keep for longer than the lock.
    ///
    /// SQLite must not have it open yet.
    pub(super) fn hold_database(&mut self, files: &DatabaseFiles) -> Result<(FileId, Arc<File>), OpenError> {
        let path = files.database();
        let id = |file: &File| {
            let found = file.metadata().map_err(|source| not_writable(path, source))?;
            Ok(FileId::of(&found))
        };
        if let Some(held) = &self.database
            && let found = id(held)?
            && FileId::at(path) == Some(found)
        {
            return Ok((found, Arc::clone(held)));
        }
        let file = open_or_create(path, OpenOptions::new().read(true), files)?;
        lock(&file, path, files)?;
        let (found, held) = (id(&file)?, Arc::new(file));
        self.database = Some(Arc::clone(&held));
        Ok((found, held))
    }
}

/// Opens a file as given, or creates it for the user whom the database, or else its
/// folder, belongs to: a command that root ran must not leave a file that the server
/// cannot open.
fn open_or_create(path: &Path, open: &mut OpenOptions, files: &DatabaseFiles) -> Result<File, OpenError> {
    let fail = |source| not_writable(path, source);
    let like = fs::metadata(files.database()).or_else(|_| fs::metadata(files.folder()));
    let mut create = OpenOptions::new();
    match create.read(true).write(true).create_new(true).mode(MODE).open(path) {
        Ok(file) => {
            give_owner_of(&file, &like.map_err(fail)?);
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            open.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path).map_err(fail)
        }
        // The folder or its file system is read-only: what is there can still be locked.
        Err(error) => open.open(path).map_err(|_| fail(error)),
    }
}

fn lock(file: &File, path: &Path, files: &DatabaseFiles) -> Result<(), OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::Held(files.database().to_owned(), Holder::of(file))),
        Err(TryLockError::Error(source)) => Err(not_writable(path, source)),
    }
}

/// Takes a lock file that an earlier version has created away from other users, who could
/// lock it too.
fn make_private(file: &File) {
    let own = rustix::process::geteuid().as_raw();
    let is_ours = |found: &fs::Metadata| found.uid() == own && found.nlink() == 1;
    if file.metadata().is_ok_and(|found| is_ours(&found) && found.mode() & 0o777 != MODE) {
        // Where it fails, the lock is as good as it was.
        let _ = file.set_permissions(Permissions::from_mode(MODE));
    }
}

fn not_writable(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::NotWritable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_locked_whatever_its_name_and_the_holder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = |name: &str| DatabaseFiles::at(folder.path().join(name));
        let mut lock = DatabaseLock::take(&files("a.db")).unwrap();
        lock.hold_database(&files("a.db")).unwrap();
        fs::rename(folder.path().join("a.db"), folder.path().join("b.db")).unwrap();
        let error = DatabaseLock::take(&files("b.db")).unwrap_err();
        let own = std::process::id();
        assert!(
            error
                .to_string()
                .contains(&format!("holds {}/b.db (process {own}): stop", folder.path().display())),
            "{error}"
        );
        drop(lock);
        DatabaseLock::take(&files("b.db")).unwrap();
    }

    #[test]
    fn nobody_else_can_open_the_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = DatabaseFiles::at(folder.path().join("a.db"));
        let mode = || fs::metadata(files.lock()).unwrap().mode() & 0o777;
        drop(DatabaseLock::take(&files).unwrap());
        assert_eq!(mode(), MODE);
        fs::set_permissions(files.lock(), Permissions::from_mode(0o644)).unwrap();
        drop(DatabaseLock::take(&files).unwrap());
        assert_eq!(mode(), MODE);
    }
}
