//! What a setting is: its names, the values it may have, its default, and the type
//! that its value is read as.
//!
//! A setting is declared once, as a [`Typed`] or an [`Optional`] constant in
//! [`settings`](super::settings). Its value is read through that constant, so
//! that neither its key nor its type can be mistaken. Help, file,
//! variables and documents know only its [`Setting`].

use std::fmt;
use std::net::ToSocketAddrs as _;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde::Serialize;

use crate::logging;
use crate::server::listen::Endpoint;
use crate::store::{BadAgencies, ExpectedAgencies};
use sorteo_protocol::AgencyId;
use sorteo_protocol::text::decimal;

/// What every variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "SORTEO_";

/// Where a server listens and an agency looks for it, where nothing else is set. The
/// port is that of the original servers.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:12345";

/// A setting whose value is a `T`. It always has one: `default` is a text or a number.
#[derive(Clone, Copy, Debug)]
pub struct Typed<T: 'static> {
    /// See [`Setting::key`].
    pub key: &'static str,
    /// See [`Setting::group`].
    pub group: Group,
    /// See [`Setting::meaning`].
    pub meaning: &'static str,
    /// The values it may have, and how they become a `T`.
    pub kind: Kind<T>,
    /// Its value where it is not set.
    pub default: Default,
}

/// A setting whose value is a `T`, and that may have none: `default` is no value.
#[derive(Clone, Copy, Debug)]
pub struct Optional<T: 'static>(pub Typed<T>);

impl<T> Typed<T> {
    /// Returns the setting without its type. Does not compile without a default.
    pub const fn setting(&self) -> Setting {
        assert!(matches!(self.default, Default::Text(_) | Default::Number(_)), "declare it Optional");
        self.untyped()
    }

    const fn untyped(&self) -> Setting {
        let values = self.kind.values();
        Setting { key: self.key, group: self.group, meaning: self.meaning, values, default: self.default }
    }
}

impl<T> Optional<T> {
    /// Returns the setting without its type. Does not compile with a default.
    pub const fn setting(&self) -> Setting {
        assert!(matches!(self.0.default, Default::Unset(_) | Default::Required), "declare it Typed");
        self.0.untyped()
    }
}

/// The values that a setting may have, and how each becomes a `T`.
#[derive(Clone, Copy, Debug)]
pub enum Kind<T: 'static> {
    /// A number: see [`Values::Number`].
    Number(Unit, u64, u64, fn(u64) -> T),
    /// A word: see [`Values::Word`], and what each word means.
    Word(&'static str, &'static [&'static str], &'static [T]),
    /// A text: see [`Values::Text`].
    Text(Form, fn(&str) -> Result<T, String>),
}

impl<T> Kind<T> {
    const fn values(&self) -> Values {
        match *self {
            Self::Number(unit, min, max, _) => Values::Number(unit, min, max),
            Self::Word(placeholder, words, all) => {
                assert!(words.len() == all.len(), "each word has one meaning");
                Values::Word(placeholder, words)
            }
            Self::Text(form, _) => Values::Text(form),
        }
    }
}

impl<T: Clone> Kind<T> {
    /// Reads a value as somebody wrote it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what would be right.
    pub fn read(&self, text: &str) -> Result<T, String> {
        match self {
            Self::Number(_, min, max, of) => read_number(text, *min, *max).map(of),
            Self::Word(_, words, all) => read_word(text, words).map(|at| all[at].clone()),
            Self::Text(form, of) => form.read(text).and_then(|text| of(&text)),
        }
    }
}

/// A number of things in memory.
pub(super) const fn count(min: usize, max: usize) -> Kind<usize> {
    Kind::Number(Unit::Count, min as u64, max as u64, |number| number as usize)
}

/// A number of 32 bits.
pub(super) const fn count_u32(min: u32, max: u32) -> Kind<u32> {
    Kind::Number(Unit::Count, min as u64, max as u64, |number| number as u32)
}

/// How often something may happen in a second.
pub(super) const fn per_second(max: u32) -> Kind<NonZeroU32> {
    Kind::Number(Unit::Count, 1, max as u64, |number| {
        NonZeroU32::new(number as u32).expect("the smallest is 1")
    })
}

/// The number of an agency.
pub(super) const fn agency_id() -> Kind<AgencyId> {
    Kind::Number(Unit::Count, 0, u32::MAX as u64, |number| AgencyId(number as u32))
}

/// A number that is no amount of memory.
pub(super) const fn number(unit: Unit, min: u64, max: u64) -> Kind<u64> {
    Kind::Number(unit, min, max, |number| number)
}

/// A number of bytes in memory.
pub(super) const fn bytes(min: usize, max: usize) -> Kind<usize> {
    Kind::Number(Unit::Bytes, min as u64, max as u64, |number| number as usize)
}

/// A whole number of seconds.
pub(super) const fn seconds(min: u64, max: u64) -> Kind<Duration> {
    Kind::Number(Unit::Seconds, min, max, Duration::from_secs)
}

/// Addresses to listen on. Their names are looked up when the value is read.
pub(super) const fn endpoints() -> Kind<Vec<Endpoint>> {
    Kind::Text(Form::Addresses, |text| parts(text).map(look_up).collect())
}

/// Names of hosts, in lower case.
pub(super) const fn hosts() -> Kind<Vec<String>> {
    Kind::Text(Form::Hosts, |text| Ok(parts(text).map(str::to_ascii_lowercase).collect()))
}

/// The address of a server, whose name is looked up with each connection.
pub(super) const fn remote_address() -> Kind<String> {
    Kind::Text(Form::Address, |text| Ok(text.to_owned()))
}

/// A database file.
pub(super) const fn database() -> Kind<PathBuf> {
    Kind::Text(Form::Database, |text| Ok(PathBuf::from(text)))
}

/// Which agencies a draw waits for.
pub(super) const fn agencies() -> Kind<ExpectedAgencies> {
    Kind::Text(Form::Agencies, read_agencies)
}

/// Any other file.
pub(super) const fn file() -> Kind<PathBuf> {
    Kind::Text(Form::File, |text| Ok(PathBuf::from(text)))
}

/// A log level.
pub(super) const fn level() -> Kind<LevelFilter> {
    Kind::Text(Form::Level, read_level)
}

/// A setting as help, file and documents know it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in the configuration file. Flag and variable are named after it.
    pub key: &'static str,
    /// The heading that it has in the help.
    pub group: Group,
    /// What it means, in a line.
    pub meaning: &'static str,
    /// The values it may have.
    pub values: Values,
    /// What holds where it is not set.
    pub default: Default,
}

/// The heading of a setting in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where the server listens, and how long it waits for peers.
    Network,
    /// Which connections are encrypted, and with what.
    Tls,
    /// The terms of the draw.
    Draw,
    /// What one peer, or all together, may cost.
    Limits,
    /// Where bets are kept.
    Database,
    /// What operators see.
    Operators,
    /// What is logged.
    Log,
    /// The settings of the other commands: no heading.
    Commands,
}

impl Group {
    /// Returns the heading, where there is one.
    pub fn heading(self) -> Option<&'static str> {
        match self {
            Self::Network => Some("Network"),
            Self::Tls => Some("TLS"),
            Self::Draw => Some("Draw"),
            Self::Limits => Some("Limits"),
            Self::Database => Some("Database"),
            Self::Operators => Some("Operators"),
            Self::Log => Some("Log"),
            Self::Commands => None,
        }
    }
}

/// The values that a setting may have.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A whole number from the first to the second.
    Number(Unit, u64, u64),
    /// One of these words. The first text is the placeholder in the help.
    Word(&'static str, &'static [&'static str]),
    /// A text of this form.
    Text(Form),
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// What a text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `HOST:PORT`.
    Address,
    /// One or more `HOST:PORT`, separated by commas: as a flag it may be repeated, and in
    /// the file it may be an array.
    Addresses,
    /// One or more names of hosts: a list like `Addresses`.
    Hosts,
    /// A path, or `sqlite:` and a path.
    Database,
    /// A path.
    File,
    /// A log level, by its name in Rust or in Python.
    Level,
    /// A count of agencies, or a set of them.
    Agencies,
}

/// What holds where a setting is not set.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text.
    Text(&'static str),
    /// This number, which the part of the program that it limits knows.
    Number(fn() -> u64),
    /// No value. The text says what happens then.
    Unset(&'static str),
    /// No value, and a command that needs one fails.
    Required,
}

/// A value, as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The levels that are documented. More names are understood.
const LEVELS: &[&str] = &["error", "warning", "info", "debug"];

impl Setting {
    /// Reads a value as somebody wrote it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what would be right.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        match self.values {
            Values::Number(_, min, max) => read_number(text, min, max).map(Value::Number),
            Values::Word(_, words) => read_word(text, words).map(|at| Value::Text(words[at].to_owned())),
            Values::Text(form) => {
                form.read(text).map(|text| match decimal(&text).filter(|_| form == Form::Agencies) {
                    Some(count) => Value::Number(count),
                    None => Value::Text(text),
                })
            }
        }
    }

    /// Returns the value that holds where it is not set, as somebody would write it.
    pub fn default_text(&self) -> Option<String> {
        match self.default {
            Default::Text(text) => Some(text.to_owned()),
            Default::Number(number) => Some(number().to_string()),
            Default::Unset(_) | Default::Required => None,
        }
    }

    /// Returns what holds where it is not set, for a person to read.
    pub fn default_description(&self) -> String {
        match self.default {
            Default::Unset(what) => what.to_owned(),
            Default::Required => "none; required".to_owned(),
            _ => self.default_text().unwrap_or_default(),
        }
    }

    /// Returns `--like-this`.
    pub fn flag(&self) -> String {
        format!("--{}", self.long())
    }

    /// Returns the flag without its dashes.
    pub fn long(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Returns `SORTEO_LIKE_THIS`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_uppercase())
    }

    /// Returns what stands for the value in the help.
    pub fn placeholder(&self) -> &'static str {
        match self.values {
            Values::Number(unit, ..) => unit.placeholder(),
            Values::Word(placeholder, _) => placeholder,
            Values::Text(form) => form.placeholder(),
        }
    }

    /// Returns the words that it may be, where they are few.
    pub fn words(&self) -> &'static [&'static str] {
        match self.values {
            Values::Text(Form::Level) => LEVELS,
            Values::Word(_, words) => words,
            _ => &[],
        }
    }

    /// Returns the values that it may have, for a person to read; nothing where the
    /// placeholder says it.
    pub fn range(&self) -> Option<String> {
        match self.values {
            Values::Number(_, min, max) => Some(format!("{min} to {max}")),
            Values::Text(Form::Level) | Values::Word(..) => Some(listed(self.words())),
            Values::Text(Form::Agencies) => Some("such as 5, or 1-5,7".to_owned()),
            Values::Text(_) => None,
        }
    }
}

impl Unit {
    fn placeholder(self) -> &'static str {
        match self {
            Self::Count => "N",
            Self::Bytes => "BYTES",
            Self::Seconds => "SECONDS",
        }
    }
}

impl Form {
    /// Returns whether it may be several values: a flag that is repeated, an array in the
    /// file.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Addresses | Self::Hosts)
    }

    fn placeholder(self) -> &'static str {
        match self {
            Self::Address | Self::Addresses => "HOST:PORT",
            Self::Hosts => "NAME",
            Self::Database | Self::File => "FILE",
            Self::Level => "LEVEL",
            Self::Agencies => "AGENCIES",
        }
    }

    fn read(self, text: &str) -> Result<String, String> {
        match self {
            Self::Address => read_address(text).map(str::to_owned),
            Self::Addresses => {
                parts(text).try_for_each(|one| read_address(one).map(drop)).map(|()| text.to_owned())
            }
            Self::Hosts => parts(text).try_for_each(read_host).map(|()| text.to_owned()),
            Self::Database => read_database(text).map(str::to_owned),
            Self::File if text.is_empty() => Err("the path is empty: give a file".to_owned()),
            Self::File => Ok(text.to_owned()),
            Self::Level => read_level(text).map(|_| text.to_ascii_lowercase()),
            Self::Agencies => read_agencies(text).map(|read| read.to_string()),
        }
    }
}

fn read_number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    decimal(text)
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("`{text}` is not a whole number from {min} to {max}"))
}

/// Returns which of the words it is.
fn read_word(text: &str, words: &[&str]) -> Result<usize, String> {
    let at = words.iter().position(|word| *word == text);
    at.ok_or_else(|| format!("`{text}` is not a valid value: use {}", listed(words)))
}

fn read_agencies(text: &str) -> Result<ExpectedAgencies, String> {
    text.parse().map_err(|error: BadAgencies| error.to_string())
}

fn read_level(text: &str) -> Result<LevelFilter, String> {
    let wrong = || format!("`{text}` is not a log level: use {}", listed(LEVELS));
    logging::parse_level(text).ok_or_else(wrong)
}

/// Requires the form `HOST:PORT`. Whether there is such a host is not looked up.
fn read_address(text: &str) -> Result<&str, String> {
    let wrong = || format!("`{text}` is not an address: write HOST:PORT, such as {DEFAULT_ADDRESS}");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    match decimal::<u64>(port) {
        Some(port) if port > u64::from(u16::MAX) => {
            Err(format!("`{text}` is not an address: a port is a number from 0 to {}, not {port}", u16::MAX))
        }
        Some(_) if !host.is_empty() => Ok(text),
        _ => Err(wrong()),
    }
}

/// Requires a name of a host, without port or scheme. Whether there is one is not looked up.
fn read_host(text: &str) -> Result<(), String> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match !text.is_empty() && text.bytes().all(is_allowed) {
        true => Ok(()),
        false => Err(format!("`{text}` is not the name of a host: write it alone, such as lottery.example")),
    }
}

/// Returns the parts of a list.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn look_up(text: &str) -> Result<Endpoint, String> {
    let nowhere = |error: &str| format!("`{text}` cannot be resolved ({error}): give another HOST");
    let addresses = text.to_socket_addrs().map_err(|error| nowhere(&error.to_string()))?;
    Endpoint::new(addresses).ok_or_else(|| nowhere("the name has no address"))
}

/// Returns the path in a path, or in `sqlite:` and a path. Any other URL is refused,
/// and so is what SQLite itself would take for something else than the file of that
/// name: none of them may become a file.
fn read_database(text: &str) -> Result<&str, String> {
    let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path == ":memory:" || path.starts_with("file:") {
        return Err(format!("`{path}` is not a path: give a file, or sqlite:FILE"));
    }
    match path.split_once("://") {
        Some((scheme, _)) => Err(format!(
            "`{scheme}://` is not a kind of database that sorteo supports: give a file, or sqlite:FILE"
        )),
        None => Ok(path),
    }
}

/// Returns `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [before, last] => format!("{before} or {last}"),
        [first @ .., before, last] => format!("{}, {before} or {last}", first.join(", ")),
        _ => words.join(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_listed_as_a_person_would() {
        assert_eq!(listed(&["a", "b"]), "a or b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b or c");
    }
}
