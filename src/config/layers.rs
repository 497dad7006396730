//! Where the value of each setting comes from: a flag, else an environment variable, else
//! the configuration file, else the default.
//!
//! [`Layers`] keeps with each value the place that it comes from, which the error of a
//! wrong value names. An unknown key or `SORTEO_` variable is an error too: a limit whose
//! name is misspelt must not be ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Source};
use super::file;
use super::flags::{Flags, Serve};
use super::setting::{Kind, Optional, Setting, Typed, VARIABLE_PREFIX, Value};
use super::settings::{
    AGENCY, AGENCY_ALIASES, Alias, CONFIG_VARIABLE, LISTEN, SERVE, SERVE_ALIASES, SERVER, nearest,
};
use crate::failpoint;

/// The settings of one command: for each key the value that overrides the others.
#[derive(Debug)]
pub struct Layers {
    settings: &'static [Setting],
    given: BTreeMap<&'static str, (String, Source)>,
}

/// A setting with its value.
#[derive(Clone, Debug)]
pub struct ResolvedSetting {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value; none if it is not set and has no default.
    pub value: Option<Value>,
    /// Where the value comes from.
    pub source: Source,
}

/// Environment variables: those of the process, or what a test needs.
pub type Environment = BTreeMap<String, String>;

/// Returns the process's environment.
///
/// # Errors
///
/// A variable that we read is not UTF-8. Others may be anything, and are left out.
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
    /// Gathers the server's settings.
    ///
    /// # Errors
    ///
    /// A name is unknown, or the file cannot be read. Values are not looked at yet.
    pub fn of_serve<T>(
        flags: &Flags<T>,
        config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let (layers, problems) = Self::gather_serve(flags, config, environment);
        first(problems).map(|()| layers)
    }

    /// Gathers the server's settings. Returns also everything that is wrong apart from
    /// values: unknown names, and a file that cannot be read.
    pub fn gather_serve<T>(
        flags: &Flags<T>,
        config: Option<&Path>,
        environment: &Environment,
    ) -> (Self, Vec<ConfigError>) {
        let mut problems = unknown_variables(environment);
        problems.extend(contradiction(SERVE_ALIASES, environment));
        let config =
            config.map(Path::to_owned).or_else(|| variable(CONFIG_VARIABLE, environment).map(PathBuf::from));
        let mut layers = Self { settings: SERVE, given: BTreeMap::new() };
        if let Some(path) = config {
            let (entries, wrong) = file::read(&path);
            problems.extend(wrong);
            for file::Entry { key, text, line } in entries {
                layers.given.insert(key, (text, Source::File { path: path.clone(), line }));
            }
        }
        layers.add_environment(SERVE_ALIASES, environment);
        layers.add_flags(flags);
        (layers, problems)
    }

    /// Gathers an agency's settings. Agencies have no configuration file. Where nothing says
    /// which server is meant, it is the one that `serve` would be here: so a health check
    /// needs no address of its own.
    ///
    /// # Errors
    ///
    /// A variable's name is unknown. Values are not looked at yet.
    pub fn of_agency<T>(flags: &Flags<T>, environment: &Environment) -> Result<Self, ConfigError> {
        first(unknown_variables(environment))?;
        let mut layers = Self { settings: AGENCY, given: BTreeMap::new() };
        layers.given.extend(server_here(environment));
        layers.add_environment(AGENCY_ALIASES, environment);
        layers.add_flags(flags);
        Ok(layers)
    }

    fn add_flags<T>(&mut self, flags: &Flags<T>) {
        for (setting, text) in flags.entries() {
            self.given.insert(setting.key, (text.to_owned(), Source::Flag(setting.flag())));
        }
    }

    fn add_environment(&mut self, aliases: &[Alias], environment: &Environment) {
        for alias in aliases.iter().rev() {
            if let Some(value) = value_of_alias(alias, environment) {
                self.given.insert(alias.key, (value, Source::Variable(alias.name.to_owned())));
            }
        }
        for setting in self.settings {
            let name = setting.variable();
            if let Some(value) = variable(&name, environment) {
                self.given.insert(setting.key, (value.clone(), Source::Variable(name)));
            }
        }
    }

    /// Returns the value of a setting.
    ///
    /// # Errors
    ///
    /// The value is wrong; the error names the place that it comes from.
    pub fn get<T: Clone>(&self, setting: &Typed<T>) -> Result<T, ConfigError> {
        let value = self.read(&setting.setting(), &setting.kind)?;
        Ok(value.expect("a Typed setting has a default"))
    }

    /// Returns the value of a setting that may have none.
    ///
    /// # Errors
    ///
    /// The value is wrong; the error names the place that it comes from.
    pub fn get_optional<T: Clone>(&self, setting: &Optional<T>) -> Result<Option<T>, ConfigError> {
        self.read(&setting.setting(), &setting.0.kind)
    }

    fn read<T: Clone>(&self, setting: &Setting, kind: &Kind<T>) -> Result<Option<T>, ConfigError> {
        debug_assert!(self.settings.iter().any(|known| known.key == setting.key), "{}", setting.key);
        let (text, source) = self.strongest(setting);
        let value = text.map(|text| kind.read(&text)).transpose();
        value.map_err(|problem| ConfigError::of_value(setting, source, problem))
    }

    /// Returns every setting with its value, in the table's order.
    ///
    /// # Errors
    ///
    /// The first value that is wrong.
    pub fn resolved(&self) -> Result<Vec<ResolvedSetting>, ConfigError> {
        self.settings.iter().map(|setting| self.resolve(setting)).collect()
    }

    /// Returns what is wrong with each setting whose value is wrong.
    pub fn problems(&self) -> Vec<ConfigError> {
        self.settings.iter().filter_map(|setting| self.resolve(setting).err()).collect()
    }

    fn resolve(&self, setting: &'static Setting) -> Result<ResolvedSetting, ConfigError> {
        let (text, source) = self.strongest(setting);
        match text.map(|text| setting.read(&text)).transpose() {
            Ok(value) => Ok(ResolvedSetting { setting, value, source }),
            Err(problem) => Err(ConfigError::of_value(setting, source, problem)),
        }
    }

    /// Returns the text that holds for a setting, if any, and where it comes from.
    fn strongest(&self, setting: &Setting) -> (Option<String>, Source) {
        match self.given.get(setting.key) {
            Some((text, source)) => (Some(text.clone()), source.clone()),
            None => (setting.default_text(), Source::Default),
        }
    }
}

/// Returns the setting `server` of a client beside the server that the environment
/// configures, if it does: the first of its addresses. What is wrong with the server's
/// settings is for `serve` to say.
fn server_here(environment: &Environment) -> Option<(&'static str, (String, Source))> {
    let (serve, _) = Layers::gather_serve(&Flags::<Serve>::new([]), None, environment);
    let (text, source) = serve.given.get(LISTEN.key)?;
    let address = text.split(',').next().unwrap_or_default().trim();
    let (host, port) = address.rsplit_once(':').filter(|(_, port)| *port != "0")?;
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    Some((SERVER.key, (format!("{host}:{port}"), source.clone())))
}

fn first(problems: Vec<ConfigError>) -> Result<(), ConfigError> {
    problems.into_iter().next().map_or(Ok(()), Err)
}

/// Returns an error for each variable that begins like ours and is not one, whichever
/// command runs.
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
    let ours = environment.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX));
    let unknown = ours.filter(|(name, value)| !known.contains(name) && !is_service_variable(name, value));
    problems.extend(
        unknown
            .map(|(name, _)| ConfigError::UnknownVariable { name: name.clone(), hint: hint(name, &known) }),
    );
    problems
}

/// Returns whether a variable is one that Kubernetes or a Docker link sets for a service
/// whose name begins with `sorteo`: where it is, and not what we should do.
fn is_service_variable(name: &str, value: &str) -> bool {
    let protocols = ["TCP", "UDP", "SCTP"];
    let is_address = protocols.iter().any(|protocol| {
        value.strip_prefix(&protocol.to_ascii_lowercase()).is_some_and(|rest| rest.starts_with("://"))
    });
    // `_PORT_12345_TCP`, alone or with a part of the address.
    let is_port_part = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let (port, rest) = rest.split_once('_').unwrap_or((rest, ""));
        let (protocol, part) = rest.split_once('_').unwrap_or((rest, ""));
        port.bytes().all(|b| b.is_ascii_digit())
            && protocols.contains(&protocol)
            && ["", "PROTO", "PORT", "ADDR"].contains(&part)
    });
    is_port_part
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && is_address
        || name.ends_with("_NAME") && value.starts_with('/')
}

/// Returns the value of a variable. An empty one counts as not set: compose files pass unset
/// variables on that way.
fn variable<'a>(name: &str, environment: &'a Environment) -> Option<&'a String> {
    environment.get(name).filter(|value| !value.is_empty())
}

/// Returns what an alias sets its setting to, if it is set.
fn value_of_alias(alias: &Alias, environment: &Environment) -> Option<String> {
    variable(alias.name, environment).and_then(|value| (alias.read)(value))
}

/// Returns an error where two aliases of one setting have different values: each original
/// server has a name of its own for it.
fn contradiction(aliases: &[Alias], environment: &Environment) -> Option<ConfigError> {
    aliases.iter().enumerate().find_map(|(at, one)| {
        let other = aliases[at + 1..].iter().find(|other| other.key == one.key)?;
        let (first, second) = (value_of_alias(one, environment)?, value_of_alias(other, environment)?);
        (first != second).then(|| ConfigError::Value {
            place: format!("{} and {}", one.name, other.name),
            problem: format!(
                "`{first}` and `{second}` are different values for one setting: set one of them"
            ),
        })
    })
}

/// Returns the variable that was probably meant, or all of them. The common prefix is not
/// compared.
fn hint(name: &str, known: &[String]) -> String {
    let own = |name: &str| name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_owned();
    let names: Vec<String> = known.iter().map(|name| own(name)).collect();
    match nearest(&own(name), names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {VARIABLE_PREFIX}{near}?"),
        None => format!("known variables are {}", known.join(", ")),
    }
}
