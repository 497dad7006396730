//! `--ready-file`: a file that exists while the server listens, and has its address.

use std::fs::{self, Metadata};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::failure::Failure;
use crate::atomic_file::{self, AtomicFileError};
use crate::store::sqlite::refuse_own_files;

/// The file, if the operator wants one. Clones are of the same file.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadyFile {
    path: Option<PathBuf>,
    /// What was written, until it is removed.
    written: Arc<Mutex<Option<Metadata>>>,
}

impl ReadyFile {
    /// Returns the file, which is not written yet.
    ///
    /// # Errors
    ///
    /// It could not be written, or it belongs to a database.
    pub(super) fn new(path: Option<&Path>, database: &Path) -> Result<Self, Failure> {
        if let Some(path) = path {
            refuse_own_files(database, path)?;
            atomic_file::require_target(path)?;
        }
        Ok(Self { path: path.map(Path::to_owned), written: Arc::default() })
    }

    /// Removes the file of a server that was killed: this one does not listen yet.
    pub(super) fn remove_old(&self) {
        if let Some(path) = &self.path
            && fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
        {
            // Where it fails, it is replaced later, or that fails too and is reported.
            let _ = fs::remove_file(path);
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// The system refused.
    pub(super) fn write(&self, addresses: &[SocketAddr]) -> Result<(), AtomicFileError> {
        let Some(path) = &self.path else { return Ok(()) };
        let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        let written = atomic_file::write(path, lines.as_bytes())?;
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = written;
        Ok(())
    }

    /// Removes the file, if it is still the one that was written: another server may have
    /// written its own there.
    pub(super) fn remove(&self) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(path), Some(written)) = (&self.path, written)
            && fs::symlink_metadata(path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (written.dev(), written.ino()))
        {
            // The server ends: there is nothing else to do about a failure.
            let _ = fs::remove_file(path);
        }
    }
}
