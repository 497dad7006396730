//! Files of tokens, keys and certificates: read whole, and refused where others may read
//! a secret. Nothing that a file holds is ever part of an error.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Largest file that is read: far more than all the authorities that systems trust.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a token, a key or a certificate cannot be had from its file: a line that names the
/// file and what to do, and shows nothing of what the file holds. It is final, but for a
/// file that is being replaced.
#[derive(Debug, thiserror::Error)]
#[error("the {what} {} {problem}", path.display())]
pub struct CredentialError {
    what: &'static str,
    path: PathBuf,
    problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) enum Problem {
    Unreadable(io::Error),
    NotAFile,
    Exposed {
        mode: u32,
        path: PathBuf,
    },
    Empty,
    TooLarge,
    /// What it holds is not what it should hold.
    Content(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("does not exist")
            }
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::Exposed { mode, path } => {
                write!(f, "may be read by others (mode {mode:04o}): run `chmod 600 {}`", path.display())
            }
            Self::Empty => f.write_str("is empty"),
            Self::TooLarge => write!(f, "is larger than {} MiB", FILE_BYTES_MAX >> 20),
            Self::Content(problem) => f.write_str(problem),
        }
    }
}

/// A file, and what it is to a person: "token file".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credential<'a> {
    pub(crate) what: &'static str,
    pub(crate) path: &'a Path,
}

impl Credential<'_> {
    /// Returns what a file holds that everybody may read.
    pub(crate) fn read_public(&self) -> Result<Vec<u8>, CredentialError> {
        self.read(|_| None)
    }

    /// Returns what a file holds that only its owner may read.
    pub(crate) fn read_secret(&self) -> Result<Vec<u8>, CredentialError> {
        self.read(exposed_mode)
    }

    fn read(&self, exposed: impl Fn(&Metadata) -> Option<u32>) -> Result<Vec<u8>, CredentialError> {
        let failed = |error| self.wrong(Problem::Unreadable(error));
        // Looked at before it is opened: to open a pipe would wait for its writer.
        if !self.path.metadata().map_err(failed)?.is_file() {
            return Err(self.wrong(Problem::NotAFile));
        }
        let file = File::open(self.path).map_err(failed)?;
        if let Some(mode) = exposed(&file.metadata().map_err(failed)?) {
            return Err(self.wrong(Problem::Exposed { mode, path: self.path.to_owned() }));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 {
            0 => Err(self.wrong(Problem::Empty)),
            length if length > FILE_BYTES_MAX => Err(self.wrong(Problem::TooLarge)),
            _ => Ok(bytes),
        }
    }

    /// Returns the error of this file.
    pub(crate) fn wrong(&self, problem: Problem) -> CredentialError {
        CredentialError { what: self.what, path: self.path.to_owned(), problem }
    }
}

/// Returns the mode of a file that others than its owner may use. As PostgreSQL does, it lets
/// the group read a file of root's, which a service could not read otherwise.
#[cfg(unix)]
fn exposed_mode(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let allowed = if metadata.uid() == 0 { 0o040 } else { 0 };
    let mode = metadata.mode() & 0o7777;
    (mode & 0o077 & !allowed != 0).then_some(mode)
}

/// Where files have no modes, their folders protect them.
#[cfg(not(unix))]
fn exposed_mode(_: &Metadata) -> Option<u32> {
    None
}
