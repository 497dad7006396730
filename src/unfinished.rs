//! A file that is written beside its name and gets it once it is whole: whoever
//! looks there sees nothing, what was there before, or all of it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// What ends the names of files while they are written.
const SUFFIX: &str = ".tmp";

/// How those names begin: with the process that writes them.
fn prefix() -> String {
    format!(".sorteo-{}-", std::process::id())
}

/// What SQLite may leave beside a database that it was writing.
const COMPANIONS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Why a file was not written. Nothing is left at its name or beside it.
#[derive(Debug, thiserror::Error)]
pub enum UnfinishedError {
    /// There is something with that name, and nobody said to replace it.
    #[error("{} exists already: give another name, or --force to replace it", .0.display())]
    Exists(PathBuf),
    /// There is something with that name that is no file.
    #[error("{} is not a file: give another name", .0.display())]
    NotAFile(PathBuf),
    /// The folder does not exist.
    #[error("{} cannot be written: there is no folder {}: make it first", path.display(), folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The folder it would be in.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file on its way. Dropped, it is removed, with what SQLite left beside it.
#[derive(Debug)]
pub struct Unfinished {
    /// `None` once it has its name.
    file: Option<NamedTempFile>,
    target: PathBuf,
    replace: bool,
}

impl Unfinished {
    /// Begins a file; refuses at once what could not be finished. Until it is
    /// finished, only its owner may read it.
    pub fn beside(target: &Path, replace: bool) -> Result<Self, UnfinishedError> {
        match fs::symlink_metadata(target) {
            Ok(_) if !replace => return Err(UnfinishedError::Exists(target.to_owned())),
            Ok(found) if !found.is_file() => return Err(UnfinishedError::NotAFile(target.to_owned())),
            _ => {}
        }
        require_folder_of(target)?;
        let file = tempfile::Builder::new()
            .prefix(&prefix())
            .suffix(SUFFIX)
            .tempfile_in(folder_of(target))
            .map_err(|source| UnfinishedError::Io { path: target.to_owned(), source })?;
        Ok(Self { file: Some(file), target: target.to_owned(), replace })
    }

    /// Where it is while it is written.
    pub fn path(&self) -> &Path {
        self.named().path()
    }

    /// The file, open for writing.
    pub fn file(&self) -> &File {
        self.named().as_file()
    }

    /// Syncs it, gives it its name, and syncs the folder.
    pub fn finish(mut self) -> Result<(), UnfinishedError> {
        let target = self.target.clone();
        let fail = |source| UnfinishedError::Io { path: target.clone(), source };
        self.file().sync_all().map_err(fail)?;
        let file = self.file.take().expect("it is finished once");
        let named = match self.replace {
            true => file.persist(&target),
            false => file.persist_noclobber(&target),
        };
        named.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => UnfinishedError::Exists(target.clone()),
            _ => fail(error.error),
        })?;
        sync_folder_of(&target).map_err(fail)
    }

    fn named(&self) -> &NamedTempFile {
        self.file.as_ref().expect("there is a file until it is finished")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        for suffix in COMPANIONS {
            let mut name = file.path().as_os_str().to_owned();
            name.push(suffix);
            // Most are not there.
            let _ = fs::remove_file(name);
        }
    }
}

/// Removes what this process has begun to write in a folder, because it is about to
/// end at once.
pub fn abandon_all_in(folder: &Path) {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter(|name| name.to_string_lossy().starts_with(&prefix())) {
        // There is nobody left to tell.
        let _ = fs::remove_file(folder.join(name));
    }
}

/// Finds out before the work, not after it, that there is no folder for a file.
pub fn require_folder_of(path: &Path) -> Result<(), UnfinishedError> {
    let folder = folder_of(path);
    match folder.is_dir() {
        true => Ok(()),
        false => Err(UnfinishedError::NoFolder { path: path.to_owned(), folder }),
    }
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Syncs a file's folder, so that its name outlives a power cut.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}
