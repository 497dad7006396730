//! Where each setting is from: a flag, else a variable of the environment, else
//! the configuration file, else the default.
//!
//! [`Layers`] lays them over each other and reads each setting once, so that a
//! wrong value is reported with the place it is from. An unknown key or `SORTEO_`
//! variable is an error: a typing mistake in a limit must not pass for a limit.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::file;
use super::flags::Flags;
use super::settings::{
    AGENCY, AGENCY_ALIASES, Alias, CONFIG_VARIABLE, SERVE, SERVE_ALIASES, Setting, VARIABLE_PREFIX, Value,
    nearest,
};
use crate::failpoint;
use crate::logging::{self, Format};

/// Where a setting is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line: this flag.
    Flag(String),
    /// This variable of the environment.
    Variable(String),
    /// This configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody set it.
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

/// A setting that cannot hold.
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
    /// A value of the environment or the file is wrong.
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
        /// The name that was probably meant, or all there are.
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
    /// A setting that has no default is missing.
    #[error("no {key} is given: use --{} or {VARIABLE_PREFIX}{}", key.replace('_', "-"), key.to_uppercase())]
    Missing {
        /// The setting.
        key: &'static str,
    },
}

/// All layers of one command's settings, the strongest value for each key.
#[derive(Debug)]
pub struct Layers {
    settings: &'static [Setting],
    given: BTreeMap<&'static str, (String, Source)>,
}

/// A setting as it holds.
#[derive(Clone, Debug)]
pub struct ResolvedSetting {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value; none where it is not set and has no default.
    pub value: Option<Value>,
    /// Where that is from.
    pub source: Source,
}

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
    let is_alias = |aliases: &[Alias]| aliases.iter().any(|alias| alias.name == name);
    name.starts_with(VARIABLE_PREFIX) || is_alias(SERVE_ALIASES) || is_alias(AGENCY_ALIASES)
}

impl Layers {
    /// Lays the server's settings over each other.
    pub fn of_serve<T>(
        flags: &Flags<T>,
        config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let (layers, problems) = Self::gather_serve(flags, config, environment);
        first(problems).map(|()| layers)
    }

    /// Lays the server's settings over each other; answers also what else than a
    /// value is wrong: names that nobody knows, a file that cannot be read.
    pub fn gather_serve<T>(
        flags: &Flags<T>,
        config: Option<&Path>,
        environment: &Environment,
    ) -> (Self, Vec<ConfigError>) {
        let mut problems = unknown_variables(environment);
        let config = config.map(Path::to_owned).or_else(|| {
            let named = environment.get(CONFIG_VARIABLE).filter(|value| !value.is_empty());
            named.map(PathBuf::from)
        });
        let mut layers = Self { settings: SERVE, given: BTreeMap::new() };
        if let Some(path) = config {
            let (entries, wrong) = file::read(&path);
            problems.extend(wrong);
            for file::Entry { key, text, line } in entries {
                layers.given.insert(key, (text, Source::File { path: path.clone(), line }));
            }
        }
        layers.lay_environment(SERVE_ALIASES, environment);
        layers.lay_flags(flags);
        (layers, problems)
    }

    /// Lays an agency's settings over each other; agencies have no file.
    pub fn of_agency<T>(flags: &Flags<T>, environment: &Environment) -> Result<Self, ConfigError> {
        first(unknown_variables(environment))?;
        let mut layers = Self { settings: AGENCY, given: BTreeMap::new() };
        layers.lay_environment(AGENCY_ALIASES, environment);
        layers.lay_flags(flags);
        Ok(layers)
    }

    fn lay_flags<T>(&mut self, flags: &Flags<T>) {
        for (key, text) in flags.entries() {
            let flag = self.setting(key).flag();
            self.given.insert(key, (text.to_owned(), Source::Flag(flag)));
        }
    }

    /// An empty variable is none: compose files hand on what is not set that way.
    fn lay_environment(&mut self, aliases: &[Alias], environment: &Environment) {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        for Alias { name, key, read } in aliases.iter().rev() {
            if let Some(value) = set(name) {
                self.given.insert(key, (read(value), Source::Variable((*name).to_owned())));
            }
        }
        for setting in self.settings {
            let name = setting.variable();
            if let Some(value) = set(&name) {
                self.given.insert(setting.key, (value.clone(), Source::Variable(name)));
            }
        }
    }

    fn setting(&self, key: &str) -> &'static Setting {
        let named = self.settings.iter().find(|setting| setting.key == key);
        named.unwrap_or_else(|| panic!("the table has no setting {key}"))
    }

    /// Every setting as it holds, in the table's order; the first that cannot
    /// hold is the error.
    pub fn holding(&self) -> Result<Vec<ResolvedSetting>, ConfigError> {
        self.settings.iter().map(|setting| self.hold(setting)).collect()
    }

    /// What is wrong with each setting that cannot hold.
    pub fn problems(&self) -> Vec<ConfigError> {
        self.settings.iter().filter_map(|setting| self.hold(setting).err()).collect()
    }

    fn hold(&self, setting: &'static Setting) -> Result<ResolvedSetting, ConfigError> {
        let (text, source) = match self.given.get(setting.key) {
            Some((text, source)) => (Some(text.clone()), source.clone()),
            None => (setting.default_text(), Source::Default),
        };
        let value = text.map(|text| setting.read(&text)).transpose();
        match value {
            Ok(value) => Ok(ResolvedSetting { setting, value, source }),
            Err(problem) => Err(Self::wrong(setting, source, problem)),
        }
    }

    fn wrong(setting: &Setting, source: Source, problem: String) -> ConfigError {
        let place = match source {
            Source::Flag(flag) => return ConfigError::Flag { flag, problem },
            Source::Variable(name) => name,
            Source::File { path, line } => format!("{}: line {line}: {}", path.display(), setting.key),
            Source::Default => format!("the default of {}", setting.key),
        };
        ConfigError::Value { place, problem }
    }

    fn value(&self, key: &str) -> Result<Option<Value>, ConfigError> {
        Ok(self.hold(self.setting(key))?.value)
    }

    /// Reads a text further than the table can tell; nothing where it is not set.
    pub(super) fn read_text<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.value(key)? else { return Ok(None) };
        let source = self.given.get(key).map_or(Source::Default, |(_, source)| source.clone());
        let read =
            read(&value.to_string()).map_err(|problem| Self::wrong(self.setting(key), source, problem));
        read.map(Some)
    }

    /// A text, if it is set or has a default.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.read_text(key, |text| Ok(text.to_owned()))
    }

    /// A number, if it is set or has a default.
    pub(super) fn number_if_set(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        Ok(self.value(key)?.map(|value| match value {
            Value::Number(number) => number,
            Value::Text(_) => panic!("{key} is not a number in the table"),
        }))
    }

    /// A number that has a default.
    pub(super) fn number(&self, key: &str) -> Result<u64, ConfigError> {
        Ok(self.number_if_set(key)?.unwrap_or_else(|| panic!("{key} has no default in the table")))
    }

    /// A number of things in memory.
    pub(super) fn count(&self, key: &str) -> Result<usize, ConfigError> {
        // No range of a count goes beyond what this machine can address.
        Ok(self.number(key)? as usize)
    }

    /// A number of seconds.
    pub(super) fn seconds(&self, key: &str) -> Result<Duration, ConfigError> {
        Ok(Duration::from_secs(self.number(key)?))
    }

    /// The least important level that is logged.
    pub fn log_level(&self) -> Result<LevelFilter, ConfigError> {
        let level = self.text("log_level")?.and_then(|text| logging::parse_level(&text));
        Ok(level.expect("the table lets only levels through"))
    }

    /// The form of the log's lines.
    pub(super) fn log_format(&self) -> Result<Format, ConfigError> {
        Ok(match self.text("log_format")?.as_deref() {
            Some("json") => Format::Json,
            _ => Format::Text,
        })
    }
}

fn first(problems: Vec<ConfigError>) -> Result<(), ConfigError> {
    problems.into_iter().next().map_or(Ok(()), Err)
}

/// A variable that begins like ours and is none is a mistake, whichever command runs.
fn unknown_variables(environment: &Environment) -> Vec<ConfigError> {
    let mut known: Vec<String> = SERVE.iter().chain(AGENCY).map(Setting::variable).collect();
    known.push(CONFIG_VARIABLE.to_owned());
    known.sort();
    known.dedup();
    let mut problems = Vec::new();
    if let Some(value) = environment.get(failpoint::VARIABLE).filter(|_| failpoint::COMPILED_IN) {
        known.push(failpoint::VARIABLE.to_owned());
        let place = failpoint::VARIABLE.to_owned();
        problems.extend(failpoint::parse(value).err().map(|problem| ConfigError::Value { place, problem }));
    }
    let ours = environment.keys().filter(|name| name.starts_with(VARIABLE_PREFIX));
    let unknown = ours.filter(|name| !known.contains(name));
    problems.extend(
        unknown.map(|name| ConfigError::UnknownVariable { name: name.clone(), hint: hint(name, &known) }),
    );
    problems
}

/// The variable that was probably meant, or all there are. The prefix says nothing.
fn hint(name: &str, known: &[String]) -> String {
    let own = |name: &str| name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_owned();
    let names: Vec<String> = known.iter().map(|name| own(name)).collect();
    match nearest(&own(name), names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {VARIABLE_PREFIX}{near}?"),
        None => format!("known are {}", known.join(", ")),
    }
}
