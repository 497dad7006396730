//! Files that appear complete or not at all: each is written under a temporary name in the
//! same folder, and renamed. A reader sees the previous file, or all of the new one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// The end of temporary names.
const SUFFIX: &str = ".tmp";

/// Returns the start of temporary names, with the process that writes them.
fn prefix() -> String {
    format!(".sorteo-{}-", std::process::id())
}

/// What SQLite may leave beside a database that it was writing.
const COMPANIONS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// The first bytes of a database, of a WAL in either byte order, and of a journal: from "The
/// SQLite database file format".
const MAGIC: [&[u8]; 4] =
    [b"SQLite format 3\0", &[0x37, 0x7f, 6, 0x82], &[0x37, 0x7f, 6, 0x83], &[0xd9, 0xd5, 5, 0xf9]];

/// Why a file was not written. Nothing is left at its name or beside it.
#[derive(Debug, thiserror::Error)]
pub enum AtomicFileError {
    /// The name is taken, and nothing may be replaced.
    #[error("{} exists already: give another name, or --force to replace it", .0.display())]
    Exists(PathBuf),
    /// The name belongs to something that is not a file.
    #[error("{} is not a file: give another name", .0.display())]
    NotAFile(PathBuf),
    /// The name is a symbolic link: whoever can change it would decide what is replaced.
    #[error("{} is a symbolic link: give the file that it leads to, or another name", .0.display())]
    Link(PathBuf),
    /// The name belongs to a SQLite database, or to what is kept beside one.
    #[error("{} is a database, or belongs to one: give another name", .0.display())]
    Database(PathBuf),
    /// The folder does not exist.
    #[error("{} cannot be written: there is no folder {}: create it first", path.display(), folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The missing folder.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("{} cannot be written: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system. The message has it, so it is not a source too.
        error: io::Error,
    },
}

impl AtomicFileError {
    /// Returns the error of the system on this file.
    pub fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether a file that has the name already is replaced.
    pub replace: bool,
    /// Who may read and write it.
    pub access: Access,
    /// Whether it is synced, so that it survives a power failure.
    pub durable: bool,
}

/// Who may read and write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone.
    Owner,
    /// Everyone whom the process's umask allows.
    Umask,
}

impl Access {
    /// Returns the mode that the file is created with, before the umask.
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Umask => 0o666,
        }
    }
}

/// A file that is being written. Dropped, it is removed, with what SQLite left beside it.
#[derive(Debug)]
pub struct AtomicFile {
    /// `None` once it has its name.
    file: Option<NamedTempFile>,
    target: PathBuf,
    options: Options,
}

impl AtomicFile {
    /// Begins a file that only its owner may read and that survives a power failure.
    ///
    /// # Errors
    ///
    /// It could not be finished: the folder is missing, or the name is taken.
    pub fn create(target: &Path, replace: bool) -> Result<Self, AtomicFileError> {
        Self::with_options(target, Options { replace, access: Access::Owner, durable: true })
    }

    /// Begins a file.
    ///
    /// # Errors
    ///
    /// It could not be finished: the folder is missing, or the name is taken.
    pub fn with_options(target: &Path, options: Options) -> Result<Self, AtomicFileError> {
        let found = fs::symlink_metadata(target).ok();
        match &found {
            Some(_) if !options.replace => return Err(AtomicFileError::Exists(target.to_owned())),
            Some(found) if found.is_symlink() => return Err(AtomicFileError::Link(target.to_owned())),
            Some(found) if !found.is_file() => return Err(AtomicFileError::NotAFile(target.to_owned())),
            _ => {}
        }
        require_folder_of(target)?;
        let file = tempfile::Builder::new()
            .prefix(&prefix())
            .suffix(SUFFIX)
            .permissions(fs::Permissions::from_mode(options.access.mode()))
            .tempfile_in(folder_of(target))
            .map_err(|error| AtomicFileError::io(target, error))?;
        if let Some(replaced) = &found {
            give_owner_of(file.as_file(), replaced);
        }
        Ok(Self { file: Some(file), target: target.to_owned(), options })
    }

    /// Returns where it is while it is written.
    pub fn path(&self) -> &Path {
        self.named().path()
    }

    /// Returns the file, open for writing.
    pub fn file(&self) -> &File {
        self.named().as_file()
    }

    /// Gives it its name. A durable file is synced before, and its folder after.
    ///
    /// # Errors
    ///
    /// The system refused, or the name was taken meanwhile. The file is removed.
    pub fn finish(mut self) -> Result<(), AtomicFileError> {
        let target = self.target.clone();
        let fail = |error| AtomicFileError::io(&target, error);
        if self.options.durable {
            self.file().sync_all().map_err(fail)?;
        }
        let file = self.file.take().expect("it is finished once");
        let named = match self.options.replace {
            true => file.persist(&target),
            false => file.persist_noclobber(&target),
        };
        named.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => AtomicFileError::Exists(target.clone()),
            _ => fail(error.error),
        })?;
        if self.options.durable {
            sync_folder_of(&target).map_err(fail)?;
        }
        Ok(())
    }

    fn named(&self) -> &NamedTempFile {
        self.file.as_ref().expect("there is a file until it is finished")
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        for suffix in COMPANIONS {
            let mut name = file.path().as_os_str().to_owned();
            name.push(suffix);
            // Most of them do not exist.
            let _ = fs::remove_file(name);
        }
    }
}

/// Writes a whole file, like [`fs::write`], but so that a reader sees the previous file, or
/// all of the new one. A pipe or a device has no content to replace: it is written to.
/// Returns what was written, if that is a file.
///
/// Nothing is synced: a program that waits for the file may remove it with its folder as soon
/// as it exists, which must not fail the writer.
///
/// # Errors
///
/// The [target](require_target) cannot be written, or the system refused.
pub fn write(target: &Path, content: &[u8]) -> Result<Option<Metadata>, AtomicFileError> {
    let fail = |error| AtomicFileError::io(target, error);
    require_target(target)?;
    if fs::metadata(target).is_ok_and(|found| !found.is_file()) {
        return fs::write(target, content).map_err(fail).map(|()| None);
    }
    let file =
        AtomicFile::with_options(target, Options { replace: true, access: Access::Umask, durable: false })?;
    file.file().write_all(content).map_err(fail)?;
    let written = file.file().metadata().map_err(fail)?;
    file.finish()?;
    Ok(Some(written))
}

/// Requires that a file can be [written](fn@write), as far as that can be known, so that a
/// mistake is reported before the work and not after it.
///
/// # Errors
///
/// The folder is missing, or the name is that of a symbolic link to a file or of a database.
pub fn require_target(target: &Path) -> Result<(), AtomicFileError> {
    require_folder_of(target)?;
    let is_link = fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink());
    // `/dev/stdout` is a link, to what is no file.
    if is_link && !fs::metadata(target).is_ok_and(|found| !found.is_file()) {
        return Err(AtomicFileError::Link(target.to_owned()));
    }
    refuse_database(target)
}

/// Refuses to replace a SQLite database, or a file that is kept beside one. Must not be called
/// on a database that this process has open, which would lose its locks.
///
/// # Errors
///
/// It is one.
pub fn refuse_database(target: &Path) -> Result<(), AtomicFileError> {
    let name = target.as_os_str().as_bytes();
    let database_of = |suffix: &&str| name.strip_suffix(suffix.as_bytes()).map(OsStr::from_bytes);
    let is_beside_one = COMPANIONS.iter().chain(&[".lock"]).filter_map(database_of);
    match is_of_sqlite(target) || is_beside_one.map(Path::new).any(is_of_sqlite) {
        true => Err(AtomicFileError::Database(target.to_owned())),
        false => Ok(()),
    }
}

/// Returns whether a file begins as SQLite's databases, WALs and journals do.
fn is_of_sqlite(path: &Path) -> bool {
    // A pipe without a writer would be waited for.
    if !fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut start = Vec::new();
    // What cannot be read is no reason: writing it fails, or it is not ours.
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    read.is_ok() && MAGIC.iter().any(|magic| start.starts_with(magic))
}

/// Removes the unfinished files that this process has in a folder: for a process that is
/// about to end. What another thread makes meanwhile is removed too.
pub fn remove_unfinished_in(folder: &Path) {
    let is_removed = |name: &OsString| {
        name.to_string_lossy().starts_with(&prefix()) && fs::remove_file(folder.join(name)).is_ok()
    };
    let names = || fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    // The process ends: there is nothing else to do about one that cannot be removed.
    while names().filter(is_removed).count() > 0 {}
}

/// Requires the folder of a file to exist, so that its absence is reported before the work
/// and not after it.
///
/// # Errors
///
/// It does not exist.
pub fn require_folder_of(path: &Path) -> Result<(), AtomicFileError> {
    let folder = folder_of(path);
    match folder.is_dir() {
        true => Ok(()),
        false => Err(AtomicFileError::NoFolder { path: path.to_owned(), folder }),
    }
}

/// Returns the folder that a file is in.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Gives a file to the user and the group of another, if root runs this: what root writes
/// for a service must be open to its user.
pub fn give_owner_of(file: &File, other: &Metadata) {
    let is_like = |own: &Metadata| (own.uid(), own.gid()) == (other.uid(), other.gid());
    if rustix::process::geteuid().is_root() && !file.metadata().is_ok_and(|own| is_like(&own)) {
        // Without the capability (in some containers) root keeps it, as any user would.
        let _ = fchown(file, Some(other.uid()), Some(other.gid()));
    }
}

/// Syncs a file's folder, so that the file's name survives a power failure.
///
/// # Errors
///
/// The system refused.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_but_through_no_link_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write(&file, b"one\n").unwrap();
        write(&file, b"two\n").unwrap();
        for target in ["file", "missing"] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(matches!(write(&link, b"three\n"), Err(AtomicFileError::Link(_))), "{target}");
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), b"two\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = write(&folder.path().join("nowhere/file"), b"").unwrap_err();
        assert!(matches!(nowhere, AtomicFileError::NoFolder { .. }), "{nowhere}");
    }

    #[test]
    fn what_belongs_to_a_database_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.db"), b"SQLite format 3\0 and so on").unwrap();
        fs::write(path("b-wal"), b"\x37\x7f\x06\x82 and so on").unwrap();
        for name in ["a.db", "a.db-wal", "a.db-shm", "a.db-journal", "a.db.lock", "b-wal"] {
            assert!(matches!(write(&path(name), b"x"), Err(AtomicFileError::Database(_))), "{name}");
        }
        for name in ["a", "b.lock", "b-shm", "a.db-2"] {
            write(&path(name), b"x").unwrap();
        }
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        let null = Path::new("/dev/null");
        write(null, b"anything").unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }

    #[test]
    fn a_file_has_its_mode_from_the_start_and_another_file_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let private = folder.path().join("private");
        let file = AtomicFile::create(&private, false).unwrap();
        assert_eq!(mode(file.path()), 0o600);
        fs::write(&private, "of another").unwrap();
        assert!(matches!(file.finish(), Err(AtomicFileError::Exists(_))));
        assert!(matches!(AtomicFile::create(&private, false), Err(AtomicFileError::Exists(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // Whatever the umask of this test is.
        let (by_us, by_std) = (folder.path().join("by_us"), folder.path().join("by_std"));
        write(&by_us, b"").unwrap();
        fs::write(&by_std, b"").unwrap();
        assert_eq!(mode(&by_us), mode(&by_std));
    }
}
