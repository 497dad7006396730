//! Where a setting comes from, and what can be wrong with one.

use std::fmt;
use std::path::PathBuf;

use crate::server::tls::TlsError;

use super::setting::{Optional, Setting, VARIABLE_PREFIX};

/// Where the value of a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line: this flag.
    Flag(String),
    /// This environment variable.
    Variable(String),
    /// This configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It is not set.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File { path, line } => write!(f, "file {}, line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why the settings of a command are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag's value is wrong: wrong usage.
    #[error("{flag}: {problem}")]
    Flag {
        /// The flag.
        flag: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A value in the environment or the file is wrong.
    #[error("{place}: {problem}")]
    Value {
        /// The variable, or the file and its key.
        place: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// There is no such variable.
    #[error("{name} is not a variable of sorteo: {hint}")]
    UnknownVariable {
        /// The unknown name.
        name: String,
        /// The name that was probably meant, or all that exist.
        hint: String,
    },
    /// The configuration file cannot be read.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting needs another one, or does not go with it.
    #[error("{0}")]
    Relation(String),
    /// A file of TLS is wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting that the command needs is not set.
    #[error("no {key} is given: use --{} or {VARIABLE_PREFIX}{}", key.replace('_', "-"), key.to_uppercase())]
    Missing {
        /// The setting.
        key: &'static str,
    },
}

impl ConfigError {
    /// Returns the error of a setting that is not set where it must be.
    pub fn missing<T>(setting: &Optional<T>) -> Self {
        Self::Missing { key: setting.0.key }
    }

    /// Returns the error of a value, by the place that it comes from.
    pub(super) fn of_value(setting: &Setting, source: Source, problem: String) -> Self {
        let place = match source {
            Source::Flag(flag) => return Self::Flag { flag, problem },
            Source::Variable(name) => name,
            Source::File { path, line } => format!("{}: line {line}: {}", path.display(), setting.key),
            Source::Default => format!("the default of {}", setting.key),
        };
        Self::Value { place, problem }
    }
}
