//! Whether the path of a database leads to the files that SQLite has open, and to no
//! others.
//!
//! SQLite keeps a file open, but finds its WAL by the name. Where one file has two names,
//! two programs write two WALs for it; where the path leads somewhere else by now, what is
//! acknowledged is in files that the next server does not find. SQLite notices neither.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{self, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, makedev, statx};
use rustix::io::Errno;

use super::error::OpenError;
use super::files::{DatabaseFiles, FileId};

/// Refuses a database file that has another name, or that is a mount point, as its WAL
/// and the index of that must not be either.
pub(super) fn refuse_other_names(files: &DatabaseFiles) -> Result<(), OpenError> {
    let path = files.database();
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.nlink() > 1 => {
            Err(OpenError::HardLinks { path: path.to_owned(), links: file.nlink() })
        }
        _ => refuse_mount_points(files),
    }
}

/// Returns why what a database's path leads to may lack commits: it has another name, with
/// a WAL of its own. A server refuses such a file; who only reads it must know.
pub fn other_names(database: &Path) -> Option<OpenError> {
    refuse_other_names(&DatabaseFiles::resolve(database)).err()
}

/// Does the second half of [`refuse_other_names`]: a mount point cannot be renamed either.
pub(super) fn refuse_mount_points(files: &DatabaseFiles) -> Result<(), OpenError> {
    let all = [files.database().to_owned(), files.wal(), files.wal_index()];
    match all.into_iter().find(|path| is_mount_point(path)) {
        Some(path) => Err(OpenError::MountPoint(path)),
        None => Ok(()),
    }
}

/// Returns whether something is mounted at a path. Kernels before 5.8 do not report it.
fn is_mount_point(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The files that a server has open, each with the path at which it must be found: the
/// database by the path that the server was given, whose links are followed each time, its
/// WAL and the index of that.
#[derive(Debug)]
pub(super) struct ServedFiles([(PathBuf, FileId); 3]);

impl ServedFiles {
    /// Remembers the files of a database that SQLite has just opened. `held` is the file
    /// that is locked.
    pub(super) fn new(given: &Path, files: &DatabaseFiles, held: FileId) -> Result<Self, OpenError> {
        // A working folder that is moved takes relative paths along.
        let fixed = |path: &Path| path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let found = |path: PathBuf| match FileId::at(&path) {
            Some(id) => Ok((fixed(&path), id)),
            None => Err(OpenError::Moved(moved(&path))),
        };
        let served = Self([(fixed(given), held), found(files.wal())?, found(files.wal_index())?]);
        served.verify().map_err(OpenError::Moved)?;
        Ok(served)
    }

    /// Returns what is wrong if a path leads to another file, or to none, or if the
    /// database has another name by now. It costs a few microseconds.
    pub(super) fn verify(&self) -> Result<(), String> {
        for (at, (path, id)) in self.0.iter().enumerate() {
            match names_of(path).filter(|(found, _)| found == id).map(|(_, names)| names) {
                None | Some(0) => return Err(moved(path)),
                // Only the database may be opened by its other name.
                Some(links) if at == 0 && links > 1 => {
                    return Err(format!(
                        "{} has {links} hard links by now: remove the others",
                        path.display()
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Returns the file that a path leads to, and how many names it has.
///
/// It asks for nothing else: since Linux 6.13, a file whose times were asked for gets new
/// ones with its next write, which its next sync must then store too.
fn names_of(path: &Path) -> Option<(FileId, u64)> {
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::NLINK) {
        Ok(found) => {
            let device = makedev(found.stx_dev_major, found.stx_dev_minor);
            Some((FileId::new(device, found.stx_ino), found.stx_nlink.into()))
        }
        // A kernel or a container without this call.
        Err(Errno::NOSYS | Errno::PERM) => {
            fs::metadata(path).ok().map(|found| (FileId::of(&found), found.nlink()))
        }
        Err(_) => None,
    }
}

fn moved(path: &Path) -> String {
    format!(
        "{} is no longer the file that was opened: it was moved, deleted or replaced. \
         Put it back, with the -wal beside the database",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_moved_replaced_or_linked_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let names = ["a.db", "a.db-wal", "a.db-shm"];
        names.iter().for_each(|name| fs::write(path(name), "").unwrap());
        let files = DatabaseFiles::at(path("a.db"));
        std::os::unix::fs::symlink("a.db", path("link")).unwrap();
        let held = FileId::at(&path("a.db")).unwrap();
        let served = ServedFiles::new(&path("link"), &files, held).unwrap();
        assert_eq!(served.verify(), Ok(()));
        for name in names {
            fs::rename(path(name), path("away")).unwrap();
            assert!(served.verify().is_err(), "{name} is missing");
            fs::write(path(name), "").unwrap();
            assert!(served.verify().is_err(), "{name} is another");
            fs::rename(path("away"), path(name)).unwrap();
            assert_eq!(served.verify(), Ok(()));
        }
        fs::hard_link(path("a.db"), path("second")).unwrap();
        assert!(served.verify().unwrap_err().contains("2 hard links"));
        assert!(matches!(refuse_other_names(&files), Err(OpenError::HardLinks { links: 2, .. })));
        fs::remove_file(path("second")).unwrap();
        fs::write(path("other"), "").unwrap();
        fs::remove_file(path("link")).unwrap();
        std::os::unix::fs::symlink("other", path("link")).unwrap();
        assert!(served.verify().is_err(), "the link leads elsewhere");
    }
}
