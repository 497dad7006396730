//! Where each setting is from: a flag, else a variable of the environment, else
//! the configuration file, else the default.
//!
//! Each layer is the same struct of optional texts; [`Layers`] lays them over
//! each other and reads each setting once, so that a wrong value is reported with
//! the place it is from. An unknown key or `SORTEO_` variable is an error: a
//! typing mistake in a limit must not pass for a limit.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use serde::Deserialize;

use super::{AgencySettings, ServeSettings};
use crate::failpoint;
use crate::logging;
use crate::lottery::decimal;

/// A setting as it was written, in whichever layer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Scalar")]
pub struct Text(pub(super) String);

/// A TOML value that one setting may be.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
}

impl From<Scalar> for Text {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => Self(text),
            Scalar::Number(number) => Self(number.to_string()),
        }
    }
}

impl FromStr for Text {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A variable of the environment: its name, the key it sets, how it is read.
struct Variable {
    name: &'static str,
    key: &'static str,
    read: fn(&str) -> String,
}

/// The seeds' own names, which work as aliases of ours. Ours win; of two
/// aliases the one that comes first here.
const SERVE_ALIASES: &[Variable] = &[
    Variable { name: "SERVER_PORT", key: "listen", read: |port| format!("0.0.0.0:{port}") },
    Variable { name: "CLIENT_AMOUNT", key: "agencies", read: str::to_owned },
    Variable { name: "TOTAL_AGENCIES", key: "agencies", read: str::to_owned },
    Variable { name: "LOGGING_LEVEL", key: "log_level", read: str::to_owned },
];
const AGENCY_ALIASES: &[Variable] = &[
    Variable { name: "CLI_ID", key: "agency", read: str::to_owned },
    Variable { name: "CLI_SERVER_ADDRESS", key: "server", read: str::to_owned },
    Variable { name: "CLI_BATCH_MAXAMOUNT", key: "batch", read: str::to_owned },
    Variable { name: "CLI_LOG_LEVEL", key: "log_level", read: str::to_owned },
];

/// The variable that names the configuration file.
const CONFIG_VARIABLE: &str = "SORTEO_CONFIG";
/// What every variable of ours begins with.
const VARIABLE_PREFIX: &str = "SORTEO_";

/// Where a setting is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// This variable of the environment.
    Variable(String),
    /// This configuration file.
    File(PathBuf),
}

/// A setting that cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag's value is wrong: wrong usage.
    #[error("--{}: {problem}", key.replace('_', "-"))]
    Flag {
        /// The setting.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A value of the environment or the file is wrong.
    #[error("{place}: {problem}")]
    Value {
        /// The variable, or the file and its key.
        place: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// There is no such variable.
    #[error("{name} is not a variable of sorteo; known are {known}")]
    UnknownVariable {
        /// The unknown name.
        name: String,
        /// All names there are.
        known: String,
    },
    /// The configuration file cannot be read.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting that has no default is missing.
    #[error("no {key} is given: use --{} or {VARIABLE_PREFIX}{}", key.replace('_', "-"), key.to_uppercase())]
    Missing {
        /// The setting.
        key: &'static str,
    },
}

/// All layers of one command's settings, the strongest value for each key.
#[derive(Debug, Default)]
pub struct Layers(BTreeMap<&'static str, (String, Source)>);

/// The environment's variables, as a test may make them up.
pub type Environment = BTreeMap<String, String>;

/// The process's environment. A variable that we read must be UTF-8; others may
/// be anything.
pub fn process_environment() -> Result<Environment, ConfigError> {
    let mut environment = Environment::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => _ = environment.insert(name, value),
            Err(_) if is_read(&name) => {
                return Err(ConfigError::Value { place: name, problem: "the value is not UTF-8".to_owned() });
            }
            Err(_) => {}
        }
    }
    Ok(environment)
}

fn is_read(name: &str) -> bool {
    let is_alias = |aliases: &[Variable]| aliases.iter().any(|alias| alias.name == name);
    name.starts_with(VARIABLE_PREFIX) || is_alias(SERVE_ALIASES) || is_alias(AGENCY_ALIASES)
}

impl Layers {
    /// Lays the server's settings over each other.
    pub fn of_serve(
        flags: &ServeSettings,
        config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        refuse_unknown_variables(environment)?;
        let config = config.map(Path::to_owned).or_else(|| {
            let named = environment.get(CONFIG_VARIABLE).filter(|value| !value.is_empty());
            named.map(PathBuf::from)
        });
        let mut layers = Self::default();
        if let Some(path) = config {
            let file = read_file(&path)?;
            layers.lay(file.entries(), &Source::File(path));
        }
        layers.lay_environment(&keys_of(flags.entries()), SERVE_ALIASES, environment);
        layers.lay(flags.entries(), &Source::Flag);
        Ok(layers)
    }

    /// Lays an agency's settings over each other; agencies have no file.
    pub fn of_agency(flags: &AgencySettings, environment: &Environment) -> Result<Self, ConfigError> {
        refuse_unknown_variables(environment)?;
        let mut layers = Self::default();
        layers.lay_environment(&keys_of(flags.entries()), AGENCY_ALIASES, environment);
        layers.lay(flags.entries(), &Source::Flag);
        Ok(layers)
    }

    fn lay(&mut self, entries: Vec<(&'static str, Option<&Text>)>, source: &Source) {
        for (key, value) in entries {
            if let Some(Text(value)) = value {
                self.0.insert(key, (value.clone(), source.clone()));
            }
        }
    }

    /// An empty variable is none: compose files hand on what is not set that way.
    fn lay_environment(&mut self, keys: &[&'static str], aliases: &[Variable], environment: &Environment) {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        for Variable { name, key, read } in aliases.iter().rev() {
            if let Some(value) = set(name) {
                self.0.insert(key, (read(value), Source::Variable((*name).to_owned())));
            }
        }
        for key in keys {
            let name = variable_of(key);
            if let Some(value) = set(&name) {
                self.0.insert(key, (value.clone(), Source::Variable(name)));
            }
        }
    }

    /// Reads one setting, or answers nothing where no layer gives it.
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((value, source)) = self.0.get(key) else {
            return Ok(None);
        };
        read(value).map(Some).map_err(|problem| match source {
            Source::Flag => ConfigError::Flag { key: key.to_owned(), problem },
            Source::Variable(name) => ConfigError::Value { place: name.clone(), problem },
            Source::File(path) => ConfigError::Value { place: format!("{}: {key}", path.display()), problem },
        })
    }

    pub(super) fn number(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        self.get(key, |text| match decimal(text) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("`{text}` is not a whole number from {} to {}", range.start(), range.end())),
        })
    }

    pub(super) fn seconds(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<Duration>, ConfigError> {
        Ok(self.number(key, range)?.map(Duration::from_secs))
    }

    pub(super) fn log_level(&self) -> Result<LevelFilter, ConfigError> {
        let level = self.get("log_level", |text| {
            let unknown = || format!("`{text}` is not a log level: use error, warning, info or debug");
            logging::parse_level(text).ok_or_else(unknown)
        })?;
        Ok(level.unwrap_or(LevelFilter::Info))
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.0.get(key).map(|(value, _)| value.clone())
    }
}

fn keys_of(entries: Vec<(&'static str, Option<&Text>)>) -> Vec<&'static str> {
    entries.into_iter().map(|(key, _)| key).collect()
}

fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_uppercase())
}

/// A variable that begins like ours and is none is a mistake, whichever command runs.
fn refuse_unknown_variables(environment: &Environment) -> Result<(), ConfigError> {
    let mut known: Vec<String> = keys_of(ServeSettings::default().entries())
        .into_iter()
        .chain(keys_of(AgencySettings::default().entries()))
        .map(variable_of)
        .collect();
    known.push(CONFIG_VARIABLE.to_owned());
    known.sort();
    known.dedup();
    if let Some(value) = environment.get(failpoint::VARIABLE).filter(|_| failpoint::COMPILED_IN) {
        known.push(failpoint::VARIABLE.to_owned());
        let place = failpoint::VARIABLE.to_owned();
        failpoint::parse(value).map_err(|problem| ConfigError::Value { place, problem })?;
    }
    let ours = |name: &&String| name.starts_with(VARIABLE_PREFIX);
    match environment.keys().filter(ours).find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(ConfigError::UnknownVariable { name: name.clone(), known: known.join(", ") }),
    }
}

fn read_file(path: &Path) -> Result<ServeSettings, ConfigError> {
    let fail = |problem: String| ConfigError::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    // TOML's own report spans lines; one line with the place says as much.
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start]);
        fail(format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', " ")))
    })
}
