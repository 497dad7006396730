//! Arguments that several subcommands take.

use std::io::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;

use super::failure::Failure;
use crate::config::{
    ConfigError, Environment, Flags, Layers, ServeConfig, ServeSettings, database, flags as config_flags,
    process_environment,
};
use crate::store::sqlite::{Options, other_names};
use sorteo_protocol::AgencyId;

/// The database that a command works on.
#[derive(Debug, clap::Args)]
pub(super) struct DatabaseArg {
    #[command(flatten)]
    flags: Flags<config_flags::Database>,
}

impl DatabaseArg {
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        Ok(database(&self.flags, &process_environment()?)?)
    }

    /// Returns the path for a command that only reads, and warns of a file of which it may
    /// not see everything.
    pub(super) fn path_to_read(&self) -> Result<PathBuf, Failure> {
        let path = self.path()?;
        if let Some(warning) = other_names(&path) {
            // Standard error may be closed.
            let _ = writeln!(std::io::stderr(), "sorteo: warning: {warning}");
        }
        Ok(path)
    }

    /// Returns the options that `serve` would open it with.
    pub(super) fn options(&self) -> Result<Options, Failure> {
        Ok(ServeConfig::lower(&Layers::of_serve(&self.flags, None, &process_environment()?)?)?.store)
    }
}

/// Where the settings of `serve` come from, beside the environment.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Sources {
    #[command(flatten)]
    pub(super) flags: ServeSettings,
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
}

impl Sources {
    pub(super) fn layers(&self, environment: &Environment) -> Result<Layers, ConfigError> {
        Layers::of_serve(&self.flags, self.config.as_deref(), environment)
    }
}

/// Reads an agency's number.
pub(super) fn agency(text: &str) -> Result<AgencyId, String> {
    text.parse().map_err(|_| format!("not a whole number from 0 to {}", u32::MAX))
}

/// The dialects by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DialectName {
    Framed,
    Counted,
}
