//! The tables of settings: what each is called, what it may be, what it is where
//! nobody says so, and what it means.
//!
//! Everything that tells of a setting reads it here: the flags and their help,
//! the file's keys, the variables, the values that a command runs with, `config
//! show`, and the tables in `docs/configuration.md` and `sorteo.example.toml`.

use std::fmt;

use serde::Serialize;

use super::database_path;
use crate::logging;
use crate::server::Limits;
use crate::store::sqlite;
use sorteo_protocol::DEFAULT_WINNING_NUMBER;
use sorteo_protocol::text::decimal;

/// One thing that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in the configuration file; flag and variable are named after it.
    pub key: &'static str,
    /// What it belongs to: the heading in the help.
    pub group: Group,
    /// What it means, in a line.
    pub meaning: &'static str,
    /// What it may be.
    pub values: Values,
    /// What holds where nobody sets it.
    pub default: Default,
}

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where and how long it listens and talks.
    Network,
    /// What the draw is made with.
    Draw,
    /// What one peer, or all together, may cost.
    Limits,
    /// Where bets are kept.
    Database,
    /// What operators see.
    Operators,
    /// What is logged.
    Log,
    /// What the other commands have: no heading.
    Commands,
}

impl Group {
    /// The heading, where there is one.
    pub fn heading(self) -> Option<&'static str> {
        match self {
            Self::Network => Some("Network"),
            Self::Draw => Some("Draw"),
            Self::Limits => Some("Limits"),
            Self::Database => Some("Database"),
            Self::Operators => Some("Operators"),
            Self::Log => Some("Log"),
            Self::Commands => None,
        }
    }
}

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// `HOST:PORT`.
    Address,
    /// A path, or `sqlite:` and a path.
    Database,
    /// A path.
    File,
    /// A whole number from the first to the second.
    Number(Unit, u64, u64),
    /// A level of the log, by Rust's or Python's name.
    Level,
    /// One of these words; the first text says what they are, as in the help.
    Word(&'static str, &'static [&'static str]),
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

/// What holds where nobody sets a setting.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text.
    Text(&'static str),
    /// This number, asked of the part of the program that it limits.
    Number(fn() -> u64),
    /// No value: what happens then.
    Unset(&'static str),
    /// No value, and a command that needs it fails.
    Required,
}

/// A value as it holds.
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

/// The levels that are told of; more names are understood.
const LEVELS: &[&str] = &["error", "warning", "info", "debug"];

impl Setting {
    /// Reads a value as somebody wrote it; says what is wrong with it, and what
    /// would be right.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let as_text = |text: &str| Ok(Value::Text(text.to_owned()));
        match self.values {
            Values::Address => read_address(text).and_then(as_text),
            Values::Database => database_path(text).and_then(|path| as_text(&path.to_string_lossy())),
            Values::File if text.is_empty() => Err("the path is empty: give a file".to_owned()),
            Values::File => as_text(text),
            Values::Number(_, min, max) => match decimal(text) {
                Some(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
                _ => Err(format!("`{text}` is not a whole number from {min} to {max}")),
            },
            Values::Level => match logging::parse_level(text) {
                Some(_) => Ok(Value::Text(text.to_ascii_lowercase())),
                None => Err(format!("`{text}` is not a log level: use {}", listed(LEVELS))),
            },
            Values::Word(_, words) if words.contains(&text) => as_text(text),
            Values::Word(_, words) => Err(format!("`{text}` is none of its values: use {}", listed(words))),
        }
    }

    /// The value that holds where nobody sets it.
    pub fn default_text(&self) -> Option<String> {
        match self.default {
            Default::Text(text) => Some(text.to_owned()),
            Default::Number(number) => Some(number().to_string()),
            Default::Unset(_) | Default::Required => None,
        }
    }

    /// What holds where nobody sets it, as a person is told.
    pub fn default_told(&self) -> String {
        match self.default {
            Default::Unset(what) => what.to_owned(),
            Default::Required => "none, it must be given".to_owned(),
            _ => self.default_text().unwrap_or_default(),
        }
    }

    /// `--like-this`.
    pub fn flag(&self) -> String {
        format!("--{}", self.long())
    }

    /// The flag without its dashes.
    pub fn long(&self) -> String {
        self.key.replace('_', "-")
    }

    /// `SORTEO_LIKE_THIS`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_uppercase())
    }

    /// What stands for the value in the help.
    pub fn placeholder(&self) -> &'static str {
        match self.values {
            Values::Address => "HOST:PORT",
            Values::Database | Values::File => "FILE",
            Values::Number(unit, ..) => unit.placeholder(),
            Values::Level => "LEVEL",
            Values::Word(placeholder, _) => placeholder,
        }
    }

    /// The words that it may be, where there are few.
    pub fn words(&self) -> &'static [&'static str] {
        match self.values {
            Values::Level => LEVELS,
            Values::Word(_, words) => words,
            _ => &[],
        }
    }

    /// What it may be, as a person is told; nothing where the placeholder says it.
    pub fn range(&self) -> Option<String> {
        match self.values {
            Values::Number(_, min, max) => Some(format!("{min} to {max}")),
            Values::Level | Values::Word(..) => Some(listed(self.words())),
            Values::Address | Values::Database | Values::File => None,
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

/// Holds a `HOST:PORT` against its form; whether there is such a host, nobody is asked.
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

/// `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [before, last] => format!("{before} or {last}"),
        [first @ .., before, last] => format!("{}, {before} or {last}", first.join(", ")),
        _ => words.join(""),
    }
}

/// A variable of the seeds that works as an alias of ours.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// Its name.
    pub name: &'static str,
    /// The setting.
    pub key: &'static str,
    /// What the setting becomes.
    pub read: fn(&str) -> String,
}

/// What every variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "SORTEO_";
/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "SORTEO_CONFIG";

/// Where bets are kept, unless somebody says otherwise.
const DEFAULT_DATABASE: &str = "sorteo.db";

/// Where a server listens and an agency looks for it. The port is the seeds'.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:12345";
/// Free disk that a server should have: twice what the write-ahead log may grow to.
const DISK_FREE_BYTES_MIN: u64 = 128 << 20;
/// The largest number that an agency, a count of them, or a bet's number can be.
const U32_MAX: u64 = u32::MAX as u64;

const LOG_LEVEL: Setting = Setting {
    key: "log_level",
    group: Group::Log,
    meaning: "Least important log level",
    values: Values::Level,
    default: Default::Text("info"),
};
const LOG_FORMAT: Setting = Setting {
    key: "log_format",
    group: Group::Log,
    meaning: "Form of the log's lines",
    values: Values::Word("FORMAT", &["text", "json"]),
    default: Default::Text("text"),
};

/// What `sorteo serve` can be told.
pub const SERVE: &[Setting] = &[
    Setting {
        key: "listen",
        group: Group::Network,
        meaning: "Address to listen on; port 0 takes a free one",
        values: Values::Address,
        default: Default::Text(DEFAULT_ADDRESS),
    },
    Setting {
        key: "max_connections",
        group: Group::Network,
        meaning: "Most connections at once",
        values: Values::Number(Unit::Count, 1, 1_000_000),
        default: Default::Number(|| Limits::default().connections_max as u64),
    },
    Setting {
        key: "request_timeout",
        group: Group::Network,
        meaning: "Seconds for a request to arrive whole",
        values: Values::Number(Unit::Seconds, 1, 3600),
        default: Default::Number(|| Limits::default().request_timeout.as_secs()),
    },
    Setting {
        key: "idle_timeout",
        group: Group::Network,
        meaning: "Seconds a connection may be idle",
        values: Values::Number(Unit::Seconds, 1, 86_400),
        default: Default::Number(|| Limits::default().idle_timeout.as_secs()),
    },
    Setting {
        key: "drain_timeout",
        group: Group::Network,
        meaning: "Seconds to finish what is in flight when stopping",
        values: Values::Number(Unit::Seconds, 1, 3600),
        default: Default::Number(|| Limits::default().drain_timeout.as_secs()),
    },
    Setting {
        key: "agencies",
        group: Group::Draw,
        meaning: "Agencies that must be done before the draw",
        values: Values::Number(Unit::Count, 1, U32_MAX),
        default: Default::Unset("what an open draw was told, or all of 1 to the highest seen"),
    },
    Setting {
        key: "winning_number",
        group: Group::Draw,
        meaning: "Number that wins",
        values: Values::Number(Unit::Count, 0, U32_MAX),
        // Not a default that is laid over what the open draw has.
        default: Default::Unset(WINNING_NUMBER_UNSET),
    },
    Setting {
        key: "workers",
        group: Group::Limits,
        meaning: "Threads that carry out requests",
        values: Values::Number(Unit::Count, 1, 1024),
        default: Default::Number(|| Limits::default().workers as u64),
    },
    Setting {
        key: "queue",
        group: Group::Limits,
        meaning: "Writes that may wait before more are answered busy",
        values: Values::Number(Unit::Count, 1, 65_536),
        default: Default::Number(|| sqlite::WRITE_QUEUE_MAX as u64),
    },
    Setting {
        key: "batch_bets_max",
        group: Group::Limits,
        meaning: "Most bets in one framed batch",
        values: Values::Number(Unit::Count, 1, 100_000),
        default: Default::Number(|| Limits::default().wire.batch_bets_max),
    },
    Setting {
        key: "payload_bytes_max",
        group: Group::Limits,
        meaning: "Largest counted payload in bytes",
        values: Values::Number(Unit::Bytes, 64, 64 << 20),
        default: Default::Number(|| Limits::default().wire.payload_bytes_max),
    },
    Setting {
        key: "buffer_bytes_max",
        group: Group::Limits,
        meaning: "Bytes that half-received large requests may hold together",
        values: Values::Number(Unit::Bytes, 0, 16 << 30),
        default: Default::Number(|| Limits::default().buffer_bytes_max as u64),
    },
    Setting {
        key: "output_bytes_max",
        group: Group::Limits,
        meaning: "Bytes of answers that may wait for one peer",
        values: Values::Number(Unit::Bytes, 8200, 64 << 20),
        default: Default::Number(|| Limits::default().output_bytes_max as u64),
    },
    Setting {
        key: "database",
        group: Group::Database,
        meaning: "Database file, made if it is missing",
        values: Values::Database,
        default: Default::Text(DEFAULT_DATABASE),
    },
    Setting {
        key: "readers",
        group: Group::Database,
        meaning: "Connections that read the database",
        values: Values::Number(Unit::Count, 1, 64),
        default: Default::Number(|| u64::from(sqlite::READERS)),
    },
    Setting {
        key: "checkpoints",
        group: Group::Database,
        meaning: "Who copies the write-ahead log into the database; external is a replicator",
        values: Values::Word("WHO", &["server", "external"]),
        default: Default::Text("server"),
    },
    Setting {
        key: "ops_listen",
        group: Group::Operators,
        meaning: "Address of the operators' HTTP; who reaches it reads everything",
        values: Values::Address,
        default: Default::Unset("no HTTP"),
    },
    Setting {
        key: "disk_free_bytes_min",
        group: Group::Operators,
        meaning: "Free bytes of disk below which the server says it is not ready",
        values: Values::Number(Unit::Bytes, 0, 1 << 40),
        default: Default::Number(|| DISK_FREE_BYTES_MIN),
    },
    LOG_LEVEL,
    LOG_FORMAT,
];

const WINNING_NUMBER_UNSET: &str = "what an open draw was told, or 7574";
const _: () = assert!(DEFAULT_WINNING_NUMBER == 7574);

/// The seeds' own names for the server. Ours win; of two aliases the first here.
pub const SERVE_ALIASES: &[Alias] = &[
    Alias { name: "SERVER_PORT", key: "listen", read: |port| format!("0.0.0.0:{port}") },
    Alias { name: "CLIENT_AMOUNT", key: "agencies", read: str::to_owned },
    Alias { name: "TOTAL_AGENCIES", key: "agencies", read: str::to_owned },
    Alias { name: "LOGGING_LEVEL", key: "log_level", read: str::to_owned },
];

/// The database of a command that looks at one, or changes one.
pub(super) const DATABASE: Setting = Setting {
    key: "database",
    group: Group::Commands,
    meaning: "Database file",
    values: Values::Database,
    default: Default::Text(DEFAULT_DATABASE),
};

/// Where an agency finds its server.
pub(super) const SERVER: Setting = Setting {
    key: "server",
    group: Group::Commands,
    meaning: "The server's address",
    values: Values::Address,
    default: Default::Text(DEFAULT_ADDRESS),
};
/// Who an agency is.
pub(super) const AGENCY_ID: Setting = Setting {
    key: "agency",
    group: Group::Commands,
    meaning: "The agency's number",
    values: Values::Number(Unit::Count, 0, U32_MAX),
    default: Default::Required,
};

/// What the agency's commands can be told.
pub const AGENCY: &[Setting] = &[
    SERVER,
    AGENCY_ID,
    Setting {
        key: "file",
        group: Group::Commands,
        meaning: "CSV file of bets: first name, last name, document, birthdate, number; no header",
        values: Values::File,
        default: Default::Unset("one bet from NOMBRE, APELLIDO, DOCUMENTO, NACIMIENTO and NUMERO"),
    },
    Setting {
        key: "batch",
        group: Group::Commands,
        meaning: "Most bets in one batch; a batch is never over 8 KiB",
        values: Values::Number(Unit::Count, 1, 10_000),
        default: Default::Number(|| AGENCY_BATCH),
    },
    Setting {
        key: "give_up_after",
        group: Group::Commands,
        meaning: "Seconds to go on trying while the server cannot be reached",
        values: Values::Number(Unit::Seconds, 1, 86_400),
        default: Default::Number(|| AGENCY_PATIENCE_SECONDS),
    },
    LOG_LEVEL,
    LOG_FORMAT,
];

/// What the seeds' clients send.
const AGENCY_BATCH: u64 = 99;
/// Long enough for a server to be repaired, short enough to be noticed the same day.
const AGENCY_PATIENCE_SECONDS: u64 = 600;

/// The seeds' own names for an agency.
pub const AGENCY_ALIASES: &[Alias] = &[
    Alias { name: "CLI_ID", key: "agency", read: str::to_owned },
    Alias { name: "CLI_SERVER_ADDRESS", key: "server", read: str::to_owned },
    Alias { name: "CLI_BATCH_MAXAMOUNT", key: "batch", read: str::to_owned },
    Alias { name: "CLI_LOG_LEVEL", key: "log_level", read: str::to_owned },
];

/// How alike two names must be to be taken for each other: what clap asks of flags.
const ALIKE: f64 = 0.7;

/// The name that was probably meant, if one is near.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = names.into_iter().map(|known| (strsim::jaro(name, known), known));
    alike
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_may_be_set() {
        for setting in SERVE.iter().chain(AGENCY) {
            if let Some(default) = setting.default_text() {
                let read = setting.read(&default).unwrap_or_else(|error| panic!("{}: {error}", setting.key));
                assert_eq!(read.to_string(), default, "{}", setting.key);
            }
            for word in setting.words() {
                setting.read(word).unwrap();
            }
        }
    }

    #[test]
    fn a_number_may_be_its_first_and_its_last_and_nothing_beyond() {
        for setting in SERVE.iter().chain(AGENCY) {
            let Values::Number(_, min, max) = setting.values else { continue };
            assert_eq!(setting.read(&min.to_string()), Ok(Value::Number(min)));
            assert_eq!(setting.read(&max.to_string()), Ok(Value::Number(max)));
            assert!(setting.read(&(max + 1).to_string()).is_err(), "{}", setting.key);
            if let Some(less) = min.checked_sub(1) {
                assert!(setting.read(&less.to_string()).is_err(), "{}", setting.key);
            }
        }
    }

    #[test]
    fn no_two_settings_of_a_table_have_one_name() {
        for table in [SERVE, AGENCY] {
            let mut keys: Vec<_> = table.iter().map(|setting| setting.key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), table.len());
        }
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let keys = || SERVE.iter().map(|setting| setting.key);
        assert_eq!(nearest("agences", keys()), Some("agencies"));
        assert_eq!(nearest("max_conections", keys()), Some("max_connections"));
        assert_eq!(nearest("xyzzy", keys()), None);
        assert_eq!(listed(&["a", "b"]), "a or b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b or c");
    }
}
