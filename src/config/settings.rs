//! The settings: each is declared here, once.
//!
//! Everything that a person sees of a setting is made from its declaration: the flag
//! and its help, the file's key, the variable, `config show`, the manual, and the
//! tables in `docs/configuration.md` and `sorteo.example.toml`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::operators::OpsAuth;
use super::setting::{
    DEFAULT_ADDRESS, agencies, agency_id, bytes, count, count_u32, database, endpoints, file, hosts, level,
    number, per_second, remote_address, seconds,
};
pub use super::setting::{
    Default, Form, Group, Kind, Optional, Setting, Typed, Unit, VARIABLE_PREFIX, Value, Values,
};
use crate::logging::Format;
use crate::server::Limits;
use crate::server::listen::Endpoint;
use crate::server::tls::TlsMode;
use crate::service::Auth;
use crate::store::ExpectedAgencies;
use crate::store::sqlite::{self, Checkpoints};
use sorteo_agency::{BATCH_BETS, WindowLimits};
use sorteo_protocol::{AgencyId, DEFAULT_WINNING_NUMBER};

/// The settings of `sorteo serve`.
pub const SERVE: &[Setting] = &[
    LISTEN.setting(),
    AUTH.setting(),
    AUTH_TIMEOUT.setting(),
    MAX_CONNECTIONS.setting(),
    REQUEST_TIMEOUT.setting(),
    IDLE_TIMEOUT.setting(),
    DRAIN_TIMEOUT.setting(),
    TLS.setting(),
    TLS_CERT.setting(),
    TLS_KEY.setting(),
    TLS_CLIENT_CA.setting(),
    TLS_CRL.setting(),
    HANDSHAKE_TIMEOUT.setting(),
    AGENCIES.setting(),
    WINNING_NUMBER.setting(),
    AGENCIES_MAX.setting(),
    AGENCY_CONNECTIONS_MAX.setting(),
    AGENCY_REQUESTS_MAX.setting(),
    AGENCY_BETS_MAX.setting(),
    ADDRESS_CONNECTIONS_MAX.setting(),
    ADDRESS_REQUESTS_MAX.setting(),
    ADDRESS_BETS_MAX.setting(),
    WORKERS.setting(),
    QUEUE.setting(),
    BATCH_BETS_MAX.setting(),
    PAYLOAD_BYTES_MAX.setting(),
    BUFFER_BYTES_MAX.setting(),
    OUTPUT_BYTES_MAX.setting(),
    SERVE_DATABASE.setting(),
    READERS.setting(),
    CHECKPOINTS.setting(),
    OPS_LISTEN.setting(),
    OPS_AUTH.setting(),
    OPS_HOSTS.setting(),
    OPS_SOCKET.setting(),
    DISK_FREE_BYTES_MIN.setting(),
    LOG_LEVEL.setting(),
    LOG_FORMAT.setting(),
];

/// The settings of `sorteo upload`. Commands that ask a server take some of them.
pub const AGENCY: &[Setting] = &[
    SERVER.setting(),
    AGENCY_ID.setting(),
    FILE.setting(),
    BATCH.setting(),
    WINDOW_BATCHES.setting(),
    WINDOW_BYTES.setting(),
    GIVE_UP_AFTER.setting(),
    LOG_LEVEL.setting(),
    LOG_FORMAT.setting(),
];

/// A variable of the original programs that sets one of ours.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// Its name.
    pub name: &'static str,
    /// The key of the setting.
    pub key: &'static str,
    /// Returns what the setting becomes; `None` for a value that means "not set".
    pub read: fn(&str) -> Option<String>,
}

/// Any value is one.
fn as_it_is(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// The generators of the original deployments write 0 where no number of agencies is set.
fn agencies_unless_0(count: &str) -> Option<String> {
    (count != "0").then(|| count.to_owned())
}

/// The original names for the server. Our own take precedence; of two aliases for one
/// setting, the first one here.
pub const SERVE_ALIASES: &[Alias] = &[
    Alias { name: "SERVER_PORT", key: LISTEN.key, read: |port| Some(format!("0.0.0.0:{port}")) },
    Alias { name: "CLIENT_AMOUNT", key: AGENCIES.0.key, read: agencies_unless_0 },
    Alias { name: "TOTAL_AGENCIES", key: AGENCIES.0.key, read: agencies_unless_0 },
    Alias { name: "LOGGING_LEVEL", key: LOG_LEVEL.key, read: as_it_is },
];

/// The original names for an agency.
pub const AGENCY_ALIASES: &[Alias] = &[
    Alias { name: "CLI_ID", key: AGENCY_ID.0.key, read: as_it_is },
    Alias { name: "CLI_SERVER_ADDRESS", key: SERVER.key, read: as_it_is },
    Alias { name: "CLI_BATCH_MAXAMOUNT", key: BATCH.key, read: as_it_is },
    Alias { name: "CLI_LOG_LEVEL", key: LOG_LEVEL.key, read: as_it_is },
];

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "SORTEO_CONFIG";

/// The database file, where nothing else is set.
const DEFAULT_DATABASE: &str = "sorteo.db";
/// Free disk that a server should have: twice what the WAL may grow to.
const DISK_FREE_BYTES: u64 = 128 << 20;
const WINNING_NUMBER_UNSET: &str = "that of the open draw, or 7574";
const _: () = assert!(DEFAULT_WINNING_NUMBER == 7574);
/// Long enough for a server to be repaired, short enough to be noticed the same day.
const AGENCY_PATIENCE_SECONDS: u64 = 600;

// The server's settings, in the order of the help.

pub(super) const LISTEN: Typed<Vec<Endpoint>> = Typed {
    key: "listen",
    group: Group::Network,
    meaning: "Addresses to listen on, separated by commas; port 0 picks a free port",
    kind: endpoints(),
    default: Default::Text(DEFAULT_ADDRESS),
};

pub(super) const AUTH: Typed<Auth> = Typed {
    key: "auth",
    group: Group::Network,
    meaning: "Whether agencies must prove who they are, by a token or a certificate",
    kind: Kind::Word("RULE", &["off", "optional", "required"], &[Auth::Off, Auth::Optional, Auth::Required]),
    default: Default::Text("off"),
};

pub(super) const AUTH_TIMEOUT: Typed<Duration> = Typed {
    key: "auth_timeout",
    group: Group::Network,
    meaning: "Seconds within which a peer must prove who it is, if it must",
    kind: seconds(1, 3600),
    default: Default::Number(|| Limits::default().auth_timeout.as_secs()),
};

pub(super) const MAX_CONNECTIONS: Typed<usize> = Typed {
    key: "max_connections",
    group: Group::Network,
    meaning: "Maximum number of connections at a time",
    kind: count(1, 1_000_000),
    default: Default::Number(|| Limits::default().connections_max as u64),
};

pub(super) const REQUEST_TIMEOUT: Typed<Duration> = Typed {
    key: "request_timeout",
    group: Group::Network,
    meaning: "Seconds within which a request must arrive completely",
    kind: seconds(1, 3600),
    default: Default::Number(|| Limits::default().request_timeout.as_secs()),
};

pub(super) const IDLE_TIMEOUT: Typed<Duration> = Typed {
    key: "idle_timeout",
    group: Group::Network,
    meaning: "Seconds that a connection may be idle",
    kind: seconds(1, 86_400),
    default: Default::Number(|| Limits::default().idle_timeout.as_secs()),
};

pub(super) const DRAIN_TIMEOUT: Typed<Duration> = Typed {
    key: "drain_timeout",
    group: Group::Network,
    meaning: "Seconds that requests in progress may take when the server stops",
    kind: seconds(1, 3600),
    default: Default::Number(|| Limits::default().drain_timeout.as_secs()),
};

pub(super) const TLS: Typed<TlsMode> = Typed {
    key: "tls",
    group: Group::Tls,
    meaning: "Whether connections may, or must, be encrypted with TLS 1.3",
    kind: Kind::Word(
        "WHEN",
        &["off", "optional", "required"],
        &[TlsMode::Off, TlsMode::Optional, TlsMode::Required],
    ),
    default: Default::Text("off"),
};

pub(super) const TLS_CERT: Optional<PathBuf> = Optional(Typed {
    key: "tls_cert",
    group: Group::Tls,
    meaning: "PEM file: the server's certificate, followed by those of its issuers",
    kind: file(),
    default: Default::Unset("no TLS"),
});

pub(super) const TLS_KEY: Optional<PathBuf> = Optional(Typed {
    key: "tls_key",
    group: Group::Tls,
    meaning: "PEM file: the private key of the certificate, readable by its owner alone",
    kind: file(),
    default: Default::Unset("no TLS"),
});

pub(super) const TLS_CLIENT_CA: Optional<PathBuf> = Optional(Typed {
    key: "tls_client_ca",
    group: Group::Tls,
    meaning: "PEM file: the authorities whose certificates agencies may show",
    kind: file(),
    default: Default::Unset("no client certificates"),
});

pub(super) const TLS_CRL: Optional<PathBuf> = Optional(Typed {
    key: "tls_crl",
    group: Group::Tls,
    meaning: "PEM file: what these authorities have revoked, a current CRL of each",
    kind: file(),
    default: Default::Unset("no certificate is revoked"),
});

pub(super) const HANDSHAKE_TIMEOUT: Typed<Duration> = Typed {
    key: "handshake_timeout",
    group: Group::Tls,
    meaning: "Seconds within which a TLS handshake must be over",
    kind: seconds(1, 3600),
    default: Default::Number(|| Limits::default().handshake_timeout.as_secs()),
};

pub(super) const AGENCIES: Optional<ExpectedAgencies> = Optional(Typed {
    key: "agencies",
    group: Group::Draw,
    meaning: "Agencies that must be done before the draw: how many, or which",
    kind: agencies(),
    default: Default::Unset("those of the open draw, or all from 1 to the highest seen"),
});

pub(super) const WINNING_NUMBER: Optional<u32> = Optional(Typed {
    key: "winning_number",
    group: Group::Draw,
    meaning: "The winning number",
    kind: count_u32(0, u32::MAX),
    // Not a default that is laid over what the open draw has.
    default: Default::Unset(WINNING_NUMBER_UNSET),
});

pub(super) const AGENCIES_MAX: Typed<u64> = Typed {
    key: "agencies_max",
    group: Group::Limits,
    meaning: "Maximum number of agencies in a draw, if it does not expect more",
    kind: number(Unit::Count, 1, 1_000_000),
    default: Default::Number(|| sqlite::AGENCIES_MAX),
};

pub(super) const AGENCY_CONNECTIONS_MAX: Optional<u32> = Optional(Typed {
    key: "agency_connections_max",
    group: Group::Limits,
    meaning: "Maximum number of connections of an agency that has proved who it is",
    kind: count_u32(1, 1_000_000),
    default: Default::Unset("no limit"),
});

pub(super) const AGENCY_REQUESTS_MAX: Optional<NonZeroU32> = Optional(Typed {
    key: "agency_requests_max",
    group: Group::Limits,
    meaning: "Maximum number of requests a second of an agency that has proved who it is",
    kind: per_second(1_000_000),
    default: Default::Unset("no limit"),
});

pub(super) const AGENCY_BETS_MAX: Optional<u64> = Optional(Typed {
    key: "agency_bets_max",
    group: Group::Limits,
    meaning: "Maximum number of bets of an agency in a draw",
    kind: number(Unit::Count, 1, 1 << 40),
    default: Default::Unset("no limit"),
});

pub(super) const ADDRESS_CONNECTIONS_MAX: Optional<u32> = Optional(Typed {
    key: "address_connections_max",
    group: Group::Limits,
    meaning: "Maximum number of connections from one address (IPv6: one /64 network)",
    kind: count_u32(1, 1_000_000),
    default: Default::Unset("no limit"),
});

pub(super) const ADDRESS_REQUESTS_MAX: Optional<NonZeroU32> = Optional(Typed {
    key: "address_requests_max",
    group: Group::Limits,
    meaning: "Maximum number of requests a second from one address",
    kind: per_second(1_000_000),
    default: Default::Unset("no limit"),
});

pub(super) const ADDRESS_BETS_MAX: Optional<u64> = Optional(Typed {
    key: "address_bets_max",
    group: Group::Limits,
    meaning: "Maximum number of bets from one address in a draw, since the server started",
    kind: number(Unit::Count, 1, 1 << 40),
    default: Default::Unset("no limit"),
});

pub(super) const WORKERS: Typed<usize> = Typed {
    key: "workers",
    group: Group::Limits,
    meaning: "Threads that handle requests",
    kind: count(1, 1024),
    default: Default::Number(|| Limits::default().workers as u64),
};

pub(super) const QUEUE: Typed<usize> = Typed {
    key: "queue",
    group: Group::Limits,
    meaning: "Maximum number of waiting writes; further ones are refused as busy",
    kind: count(1, 65_536),
    default: Default::Number(|| sqlite::WRITE_QUEUE_MAX as u64),
};

pub(super) const BATCH_BETS_MAX: Typed<u64> = Typed {
    key: "batch_bets_max",
    group: Group::Limits,
    meaning: "Maximum number of bets in a batch of the framed dialect",
    kind: number(Unit::Count, 1, 100_000),
    default: Default::Number(|| Limits::default().wire.batch_bets_max),
};

pub(super) const PAYLOAD_BYTES_MAX: Typed<u64> = Typed {
    key: "payload_bytes_max",
    group: Group::Limits,
    meaning: "Maximum size of a payload of the counted dialect",
    kind: number(Unit::Bytes, 64, 64 << 20),
    default: Default::Number(|| Limits::default().wire.payload_bytes_max),
};

pub(super) const BUFFER_BYTES_MAX: Typed<usize> = Typed {
    key: "buffer_bytes_max",
    group: Group::Limits,
    meaning: "Memory for incomplete large requests, all connections together",
    kind: bytes(0, 16 << 30),
    default: Default::Number(|| Limits::default().buffer_bytes_max as u64),
};

pub(super) const OUTPUT_BYTES_MAX: Typed<usize> = Typed {
    key: "output_bytes_max",
    group: Group::Limits,
    meaning: "Maximum size of the unsent replies to one peer",
    kind: bytes(8200, 64 << 20),
    default: Default::Number(|| Limits::default().output_bytes_max as u64),
};

pub(super) const SERVE_DATABASE: Typed<PathBuf> = Typed {
    key: "database",
    group: Group::Database,
    meaning: "Database file, created if missing",
    kind: database(),
    default: Default::Text(DEFAULT_DATABASE),
};

pub(super) const READERS: Typed<u32> = Typed {
    key: "readers",
    group: Group::Database,
    meaning: "Database connections for reading",
    kind: count_u32(1, 64),
    default: Default::Number(|| u64::from(sqlite::READERS)),
};

pub(super) const CHECKPOINTS: Typed<Checkpoints> = Typed {
    key: "checkpoints",
    group: Group::Database,
    meaning: "Who checkpoints the WAL; external means that a replicator does",
    kind: Kind::Word("WHO", &["server", "external"], &[Checkpoints::Server, Checkpoints::External]),
    default: Default::Text("server"),
};

pub(super) const OPS_LISTEN: Optional<Vec<Endpoint>> = Optional(Typed {
    key: "ops_listen",
    group: Group::Operators,
    meaning: "Addresses of the operators' HTTP",
    kind: endpoints(),
    default: Default::Unset("no HTTP"),
});

pub(super) const OPS_AUTH: Optional<OpsAuth> = Optional(Typed {
    key: "ops_auth",
    group: Group::Operators,
    meaning: "Who may read the operators' HTTP: whoever reaches it, or operators with a token",
    kind: Kind::Word("WHO", &["off", "token"], &[OpsAuth::Off, OpsAuth::Token]),
    default: Default::Unset("off if all of ops_listen is loopback, else token"),
});

pub(super) const OPS_HOSTS: Optional<Vec<String>> = Optional(Typed {
    key: "ops_hosts",
    group: Group::Operators,
    meaning: "Host names by which the operators' HTTP may be asked, separated by commas",
    kind: hosts(),
    default: Default::Unset("localhost and IP addresses alone"),
});

pub(super) const OPS_SOCKET: Optional<PathBuf> = Optional(Typed {
    key: "ops_socket",
    group: Group::Operators,
    meaning: "Unix socket of the operators' HTTP; whoever may open it needs no token",
    kind: file(),
    default: Default::Unset("no socket"),
});

pub(super) const DISK_FREE_BYTES_MIN: Typed<u64> = Typed {
    key: "disk_free_bytes_min",
    group: Group::Operators,
    meaning: "Free disk space below which the server reports that it is not ready",
    kind: number(Unit::Bytes, 0, 1 << 40),
    default: Default::Number(|| DISK_FREE_BYTES),
};

/// The minimum level of what is logged.
pub const LOG_LEVEL: Typed<LevelFilter> = Typed {
    key: "log_level",
    group: Group::Log,
    meaning: "Minimum log level",
    kind: level(),
    default: Default::Text("info"),
};

pub(super) const LOG_FORMAT: Typed<Format> = Typed {
    key: "log_format",
    group: Group::Log,
    meaning: "Format of the log lines",
    kind: Kind::Word("FORMAT", &["text", "json"], &[Format::Text, Format::Json]),
    default: Default::Text("text"),
};

// The settings of other commands.

/// The database of a command that reads one, or changes one.
pub(super) const DATABASE: Typed<PathBuf> = Typed {
    key: "database",
    group: Group::Commands,
    meaning: "Database file",
    kind: database(),
    default: Default::Text(DEFAULT_DATABASE),
};

pub(super) const SERVER: Typed<String> = Typed {
    key: "server",
    group: Group::Commands,
    meaning: "The server's address",
    kind: remote_address(),
    default: Default::Text(DEFAULT_ADDRESS),
};

pub(super) const AGENCY_ID: Optional<AgencyId> = Optional(Typed {
    key: "agency",
    group: Group::Commands,
    meaning: "The agency's number",
    kind: agency_id(),
    default: Default::Required,
});

/// The file of an agency's bets.
pub const FILE: Optional<PathBuf> = Optional(Typed {
    key: "file",
    group: Group::Commands,
    meaning: "CSV file of bets: first name, last name, document, birthdate, number; no header",
    kind: file(),
    default: Default::Unset("one bet from NOMBRE, APELLIDO, DOCUMENTO, NACIMIENTO and NUMERO"),
});

pub(super) const BATCH: Typed<usize> = Typed {
    key: "batch",
    group: Group::Commands,
    meaning: "Maximum number of bets in a batch, which never exceeds 320 KiB (counted: 8 KiB)",
    kind: count(1, 10_000),
    default: Default::Number(|| BATCH_BETS as u64),
};

pub(super) const WINDOW_BATCHES: Typed<usize> = Typed {
    key: "window_batches",
    group: Group::Commands,
    meaning: "Maximum number of batches sent and not acknowledged yet; 1 waits for each",
    // The replies to all of them are far below what a server keeps for a peer.
    kind: count(1, 1_000),
    default: Default::Number(|| WindowLimits::default().batches as u64),
};

pub(super) const WINDOW_BYTES: Typed<usize> = Typed {
    key: "window_bytes",
    group: Group::Commands,
    meaning: "Size of batches not acknowledged yet from which on no other is sent",
    kind: bytes(1, 64 << 20),
    default: Default::Number(|| WindowLimits::default().bytes as u64),
};

pub(super) const GIVE_UP_AFTER: Typed<Duration> = Typed {
    key: "give_up_after",
    group: Group::Commands,
    meaning: "Seconds to keep trying without any progress",
    kind: seconds(1, 86_400),
    default: Default::Number(|| AGENCY_PATIENCE_SECONDS),
};

/// How similar two names must be for one to be suggested for the other: as in clap.
const SIMILAR: f64 = 0.7;

/// Returns the name that was probably meant, if one is similar.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = names.into_iter().map(|known| (strsim::jaro(name, known), known));
    alike
        .filter(|(alike, _)| *alike > SIMILAR)
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
    }
}
