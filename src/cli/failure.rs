//! Why a command fails, and the exit code that each reason has.

use crate::atomic_file::AtomicFileError;
use crate::config::ConfigError;
use crate::import::ImportError;
use crate::store::sqlite::export::ExportError;
use crate::store::sqlite::operator::OperatorError;
use crate::store::sqlite::{CopyError, OpenError};
use sorteo_agency::AgencyError;

/// The exit codes and what they mean, for the help and the manual. A shell adds
/// 128 where a signal ended the program; 143 is also the exit code of a server
/// that a second SIGTERM ended at once.
pub(super) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "success"),
    (1, "failure"),
    (2, "wrong usage"),
    (74, "the database failed or was refused"),
    (75, "another server uses the database"),
    (78, "wrong configuration"),
    (141, "whoever read standard output has gone (SIGPIPE)"),
    (143, "a second signal ended the server at once"),
];

/// Why a command failed, which decides the exit code.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Any other reason.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Several settings are wrong, at least one.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nsorteo: "))]
    Configs(Vec<ConfigError>),
    /// The database was refused.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed while it was in use.
    #[error("the database failed: {0}: start the server again, agencies resend what was not acknowledged")]
    Database(String),
    /// A database was not saved or restored.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A file of bets was not imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file was not written.
    #[error(transparent)]
    File(#[from] AtomicFileError),
    /// An agency's call failed.
    #[error(transparent)]
    Agency(#[from] AgencyError),
}

/// Whoever read standard output has gone, as `head` does once it has its lines. That is
/// no failure, and ends the program without a word.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output")]
pub(super) struct OutputClosed;

impl Failure {
    /// Returns whether nobody reads standard output any more.
    pub(super) fn is_output_closed(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is::<OutputClosed>())
    }

    /// Returns the exit code, as sysexits.h names them.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::File(_) | Self::Agency(_) => 1,
            Self::Config(error) => config_code(error),
            // What `serve` would exit with: it stops at the first.
            Self::Configs(errors) => errors.first().map_or(78, config_code),
            Self::Open(OpenError::Held(..)) | Self::Copy(CopyError::Open(OpenError::Held(..))) => 75,
            Self::Copy(
                CopyError::SameFile(..)
                | CopyError::OwnFile { .. }
                | CopyError::StrayWal { .. }
                | CopyError::File(
                    AtomicFileError::Exists(_)
                    | AtomicFileError::NotAFile(_)
                    | AtomicFileError::Link(_)
                    | AtomicFileError::Database(_),
                ),
            ) => 1,
            Self::Open(_) | Self::Database(_) | Self::Copy(_) | Self::Import(ImportError::Store(_)) => 74,
            Self::Import(_) => 1,
        }
    }
}

fn config_code(error: &ConfigError) -> u8 {
    match error {
        ConfigError::Flag { .. } | ConfigError::Missing { .. } => 2,
        _ => 78,
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Database(error) => Self::Open(error),
            refused => Self::Failed(refused.into()),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Open(error) => Self::Open(error),
            other => Self::Failed(other.into()),
        }
    }
}
