//! Where the files of a database are: the database file itself, and what SQLite, a
//! server and a restore keep beside it.
//!
//! Every path that is derived from a database's path is derived here. Nothing here
//! opens a file: closing it would drop the locks that SQLite holds on it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::atomic_file::folder_of;

/// Symbolic links that are followed from the database's name; Linux follows as many.
const LINKS_MAX: usize = 40;

/// Suffix of the copy that a restore has decided on. Its name begins with a dot, so
/// that no person gives it to another file by accident.
const RESTORE_SUFFIX: &str = ".sorteo-restore";

/// The identity of a file, whatever its name: its device and its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// Returns the identity of the file with a number on a device.
    pub(super) fn new(device: u64, inode: u64) -> Self {
        Self(device, inode)
    }

    /// Returns the identity of the file that this describes.
    pub(super) fn of(file: &fs::Metadata) -> Self {
        Self::new(file.dev(), file.ino())
    }

    /// Returns the file that a path leads to now, if the system identifies it.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|file| Self::of(&file))
    }
}

/// A database file and the files beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DatabaseFiles {
    database: PathBuf,
}

impl DatabaseFiles {
    /// Returns the files of the database that a path leads to: symbolic links are
    /// followed. The end of a link need not exist.
    ///
    /// SQLite follows links too, and keeps the WAL beside the file at their end.
    pub(super) fn resolve(path: &Path) -> Self {
        let mut database = path.to_owned();
        for _ in 0..LINKS_MAX {
            match fs::read_link(&database) {
                Ok(target) => database = folder_of(&database).join(target),
                Err(_) => break,
            }
        }
        Self { database }
    }

    /// Returns the files of the database at exactly this path: a symbolic link there
    /// is not followed.
    pub(super) fn at(database: PathBuf) -> Self {
        Self { database }
    }

    /// Returns the database file.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Returns the folder that all of the files are in.
    pub(super) fn folder(&self) -> PathBuf {
        folder_of(&self.database)
    }

    /// Returns the write-ahead log.
    pub(super) fn wal(&self) -> PathBuf {
        self.beside("-wal")
    }

    /// Returns the index of the WAL, which processes share as memory.
    pub(super) fn wal_index(&self) -> PathBuf {
        self.beside("-shm")
    }

    /// Returns the rollback journal, which SQLite uses while it creates the database.
    pub(super) fn journal(&self) -> PathBuf {
        self.beside("-journal")
    }

    /// Returns the server's lock file.
    pub(super) fn lock(&self) -> PathBuf {
        self.beside(".lock")
    }

    /// Returns the copy that a restore has decided on, until it becomes the database.
    pub(super) fn pending_restore(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.database.file_name().unwrap_or_default());
        name.push(RESTORE_SUFFIX);
        self.database.with_file_name(name)
    }

    /// Returns the files as which a restore of this date keeps the old database. Its
    /// WAL is named after it, so that both can be opened under the new name.
    pub(super) fn kept(&self, date: SystemTime) -> Self {
        let date = jiff::Timestamp::try_from(date).unwrap_or_default();
        Self::at(self.beside(&date.strftime(".before-restore-%Y%m%dT%H%M%S.%3fZ").to_string()))
    }

    /// Returns whether there is a WAL with anything in it.
    pub(super) fn has_wal(&self) -> bool {
        fs::metadata(self.wal()).is_ok_and(|wal| wal.len() > 0)
    }

    /// Returns whether there is a rollback journal: the database was being created.
    pub(super) fn has_journal(&self) -> bool {
        self.journal().exists()
    }

    /// Returns whether a path leads to one of the files, by whatever name, also where
    /// that does not exist yet.
    pub(super) fn include(&self, path: &Path) -> bool {
        let place =
            |path: &Path| Some((fs::canonicalize(folder_of(path)).ok()?, path.file_name()?.to_owned()));
        let (other, file) = (place(Self::resolve(path).database()), FileId::at(path));
        [
            self.database.clone(),
            self.wal(),
            self.wal_index(),
            self.journal(),
            self.lock(),
            self.pending_restore(),
        ]
        .iter()
        .any(|own| place(own) == other || file.is_some() && FileId::at(own) == file)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.database.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }
}

/// Returns the path of a database's write-ahead log, beside the file that the
/// database's path leads to.
pub fn wal_path(database: &Path) -> PathBuf {
    DatabaseFiles::resolve(database).wal()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_where_the_file_would_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("far")).unwrap();
        symlink("far/middle.db", path("near.db")).unwrap();
        symlink("missing.db", path("far/middle.db")).unwrap();
        symlink("loop.db", path("loop.db")).unwrap();
        let resolved = |name: &str| DatabaseFiles::resolve(&path(name)).database().to_owned();
        assert_eq!(resolved("near.db"), path("far/missing.db"));
        assert_eq!(resolved("plain.db"), path("plain.db"));
        assert_eq!(resolved("loop.db"), path("loop.db"));
        assert_eq!(wal_path(&path("near.db")), path("far/missing.db-wal"));
    }
}
