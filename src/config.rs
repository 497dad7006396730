//! What can be set, and what it comes to: the settings that flags, environment
//! and file may give ([`ServeSettings`], [`AgencySettings`]), and the validated
//! values that a command runs with ([`ServeConfig`], [`AgencyConfig`]). How the
//! layers are laid over each other is in [`layers`].

pub mod layers;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use serde::Deserialize;

pub use self::layers::{ConfigError, Environment, Layers, Text, process_environment};
use crate::lottery::AgencyId;
use crate::server::Limits;
use crate::store::sqlite;
use crate::wire::WireLimits;

/// Defines one layer of settings: what clap reads from flags, serde from the
/// file, and [`Layers`] from the environment.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $placeholder:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])*
            #[arg(long, value_name = $placeholder)]
            #[serde(default)]
            pub $field: Option<Text>,)*
        }

        impl $name {
            /// Every key with the value this layer gives it.
            pub(super) fn entries(&self) -> Vec<(&'static str, Option<&Text>)> {
                vec![$((stringify!($field), self.$field.as_ref())),*]
            }
        }
    };
}

settings! {
    /// What `sorteo serve` can be told.
    ServeSettings {
        /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:12345]
        listen: "HOST:PORT",
        /// Database file, made if it is missing [default: sorteo.db]
        database: "FILE",
        /// Agencies that must be done before the draw; without it all of 1 to the highest seen
        agencies: "N",
        /// Number that wins [default: 7574]
        winning_number: "N",
        /// Threads that carry out requests, 1 to 1024 [default: 64]
        workers: "N",
        /// Most connections at once, 1 to 1000000 [default: 10000]
        max_connections: "N",
        /// Connections that read the database, 1 to 64 [default: 4]
        readers: "N",
        /// Writes that may wait before more are answered busy, 1 to 65536 [default: 1024]
        queue: "N",
        /// Most bets in one framed batch, 1 to 100000 [default: 10000]
        batch_bets_max: "N",
        /// Largest counted payload in bytes, 64 to 67108864 [default: 1048576]
        payload_bytes_max: "BYTES",
        /// Bytes that half-received large requests may hold together, 0 to 17179869184 [default: 268435456]
        buffer_bytes_max: "BYTES",
        /// Bytes of answers that may wait for one peer, 8200 to 67108864 [default: 65536]
        output_bytes_max: "BYTES",
        /// Seconds for a request to arrive whole, 1 to 3600 [default: 30]
        request_timeout: "SECONDS",
        /// Seconds a connection may be idle, 1 to 86400 [default: 900]
        idle_timeout: "SECONDS",
        /// Seconds to finish what is in flight when stopping, 1 to 3600 [default: 8]
        drain_timeout: "SECONDS",
        /// Address of the operators' HTTP; none without it. Who reaches it reads everything
        ops_listen: "HOST:PORT",
        /// Free bytes of disk below which the server says it is not ready, 0 to 1099511627776 [default: 134217728]
        disk_free_bytes_min: "BYTES",
        /// Who copies the write-ahead log into the database: server, or external (a replicator) [default: server]
        checkpoints: "WHO",
        /// Least important log level: error, warning, info or debug [default: info]
        log_level: "LEVEL",
    }
}

settings! {
    /// What the agency's commands can be told.
    AgencySettings {
        /// The server's address [default: 127.0.0.1:12345]
        server: "HOST:PORT",
        /// The agency's number
        agency: "N",
        /// CSV file of bets: first name, last name, document, birthdate, number; no header
        file: "FILE",
        /// Most bets in one batch, 1 to 10000; a batch is never over 8 KiB [default: 99]
        batch: "N",
        /// Seconds to go on trying while the server cannot be reached, 1 to 86400 [default: 600]
        give_up_after: "SECONDS",
        /// Least important log level: error, warning, info or debug [default: info]
        log_level: "LEVEL",
    }
}

/// What a server runs with.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its store is opened with.
    pub store: sqlite::Options,
    /// What it allows.
    pub limits: Limits,
    /// Where it answers operators over HTTP, if it does.
    pub ops_listen: Option<SocketAddr>,
    /// Free bytes of disk below which it says that it is not ready.
    pub disk_free_bytes_min: u64,
    /// The least important level that is logged.
    pub log_level: LevelFilter,
}

/// Free disk that a server should have: twice what the write-ahead log may grow to.
const DISK_FREE_BYTES_MIN: u64 = 128 << 20;

impl ServeConfig {
    /// Reads every setting once; the first that cannot hold is the error.
    pub fn lower(layers: &Layers) -> Result<Self, ConfigError> {
        let default = Limits::default();
        let count = |number: Option<u64>, default: usize| number.map_or(default, |number| number as usize);
        let wire = WireLimits {
            batch_bets_max: layers
                .number("batch_bets_max", 1..=100_000)?
                .unwrap_or(default.wire.batch_bets_max),
            payload_bytes_max: layers
                .number("payload_bytes_max", 64..=64 << 20)?
                .unwrap_or(default.wire.payload_bytes_max),
        };
        let limits = Limits {
            workers: count(layers.number("workers", 1..=1024)?, default.workers),
            connections_max: count(layers.number("max_connections", 1..=1_000_000)?, default.connections_max),
            request_timeout: layers.seconds("request_timeout", 1..=3600)?.unwrap_or(default.request_timeout),
            idle_timeout: layers.seconds("idle_timeout", 1..=86_400)?.unwrap_or(default.idle_timeout),
            drain_timeout: layers.seconds("drain_timeout", 1..=3600)?.unwrap_or(default.drain_timeout),
            output_bytes_max: count(
                layers.number("output_bytes_max", 8200..=64 << 20)?,
                default.output_bytes_max,
            ),
            buffer_bytes_max: count(
                layers.number("buffer_bytes_max", 0..=16 << 30)?,
                default.buffer_bytes_max,
            ),
            wire,
        };
        let database = layers.get("database", database_path)?.unwrap_or_else(|| PathBuf::from("sorteo.db"));
        let to_u32 = |number: u64| u32::try_from(number).expect("the range says so");
        let u32_max = u64::from(u32::MAX);
        let store = sqlite::Options {
            database,
            agencies: layers.number("agencies", 1..=u32_max)?.map(to_u32),
            winning_number: layers.number("winning_number", 0..=u32_max)?.map(to_u32),
            readers: layers.number("readers", 1..=64)?.map_or(sqlite::READERS, to_u32),
            queue_max: count(layers.number("queue", 1..=65_536)?, sqlite::WRITE_QUEUE_MAX),
            checkpoints: layers.get("checkpoints", checkpoints)?.unwrap_or_default(),
            metrics: Arc::default(),
        };
        let listen = layers.get("listen", socket_address)?;
        let disk_free_bytes_min = layers.number("disk_free_bytes_min", 0..=1 << 40)?;
        Ok(Self {
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))),
            store,
            limits,
            ops_listen: layers.get("ops_listen", socket_address)?,
            disk_free_bytes_min: disk_free_bytes_min.unwrap_or(DISK_FREE_BYTES_MIN),
            log_level: layers.log_level()?,
        })
    }
}

/// The seeds' port.
const DEFAULT_PORT: u16 = 12345;

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is not an address: write HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}");
    text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or_else(wrong)
}

fn checkpoints(text: &str) -> Result<sqlite::Checkpoints, String> {
    match text {
        "server" => Ok(sqlite::Checkpoints::Server),
        "external" => Ok(sqlite::Checkpoints::External),
        _ => Err(format!("`{text}` is nobody who makes checkpoints: use server or external")),
    }
}

/// A path, or `sqlite:` and a path. Any other URL, and what SQLite itself would
/// take for other than the file of that name, is refused, never made a file.
pub fn database_path(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path == ":memory:" || path.starts_with("file:") {
        return Err(format!("`{path}` is not a path: give a file, or sqlite:FILE"));
    }
    match path.split_once("://") {
        Some((scheme, _)) => {
            Err(format!("`{scheme}://` is not a database this program knows: give a file, or sqlite:FILE"))
        }
        None => Ok(PathBuf::from(path)),
    }
}

/// What an agency's command runs with.
#[derive(Clone, Debug)]
pub struct AgencyConfig {
    /// The server's `HOST:PORT`; looked up anew with each connection.
    pub server: String,
    /// Who it is, where the command needs to know.
    pub agency: Option<AgencyId>,
    /// Its bets, where it has a file.
    pub file: Option<PathBuf>,
    /// Most bets in a batch.
    pub batch: usize,
    /// How long to go on trying while the server cannot be reached.
    pub give_up_after: Duration,
    /// The least important level that is logged.
    pub log_level: LevelFilter,
}

impl AgencyConfig {
    /// Reads every setting once; the first that cannot hold is the error.
    pub fn lower(layers: &Layers) -> Result<Self, ConfigError> {
        let server = layers.get("server", |text| match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
            _ => {
                Err(format!("`{text}` is not an address: write HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}"))
            }
        })?;
        let agency = layers.get("agency", |text| {
            text.parse::<AgencyId>()
                .map_err(|_| format!("`{text}` is not a whole number from 0 to {}", u32::MAX))
        })?;
        Ok(Self {
            server: server.unwrap_or_else(|| format!("127.0.0.1:{DEFAULT_PORT}")),
            agency,
            file: layers.text("file").map(PathBuf::from),
            batch: layers.number("batch", 1..=10_000)?.unwrap_or(99) as usize,
            give_up_after: layers.seconds("give_up_after", 1..=86_400)?.unwrap_or(Duration::from_secs(600)),
            log_level: layers.log_level()?,
        })
    }

    /// The agency's number, for commands that cannot do without.
    pub fn require_agency(&self) -> Result<AgencyId, ConfigError> {
        self.agency.ok_or(ConfigError::Missing { key: "agency" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn flags(agencies: Option<&str>) -> ServeSettings {
        ServeSettings { agencies: agencies.map(|text| Text(text.to_owned())), ..Default::default() }
    }

    fn serve(
        settings: &ServeSettings,
        file: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<ServeConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sorteo.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        Layers::of_serve(settings, file.map(|_| path.as_path()), &environment(variables))
            .and_then(|layers| ServeConfig::lower(&layers))
            .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), ""))
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let agencies = |flag, file, variables: &[(&str, &str)]| {
            serve(&flags(flag), file, variables).unwrap().store.agencies
        };
        let file = Some("agencies = 4\nworkers = 2");
        assert_eq!(agencies(None, None, &[]), None);
        assert_eq!(agencies(None, file, &[]), Some(4));
        assert_eq!(agencies(None, file, &[("TOTAL_AGENCIES", "6")]), Some(6));
        assert_eq!(agencies(None, file, &[("TOTAL_AGENCIES", "6"), ("CLIENT_AMOUNT", "5")]), Some(5));
        assert_eq!(agencies(None, file, &[("CLIENT_AMOUNT", "5"), ("SORTEO_AGENCIES", "3")]), Some(3));
        assert_eq!(agencies(Some("2"), file, &[("SORTEO_AGENCIES", "3")]), Some(2));
        assert_eq!(serve(&flags(None), file, &[]).unwrap().limits.workers, 2);
    }

    #[test]
    fn the_seeds_port_and_level_are_understood_and_empty_variables_are_none() {
        let config = serve(
            &flags(None),
            None,
            &[("SERVER_PORT", "4000"), ("LOGGING_LEVEL", "DEBUG"), ("SORTEO_AGENCIES", "")],
        )
        .unwrap();
        assert_eq!(config.listen, "0.0.0.0:4000".parse().unwrap());
        assert_eq!(config.log_level, LevelFilter::Debug);
        assert_eq!(config.store.agencies, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let error =
            |flag, file, variables: &[(&str, &str)]| serve(&flags(flag), file, variables).unwrap_err();
        assert_eq!(error(Some("0"), None, &[]), "--agencies: `0` is not a whole number from 1 to 4294967295");
        assert_eq!(
            error(None, None, &[("CLIENT_AMOUNT", "five")]),
            "CLIENT_AMOUNT: `five` is not a whole number from 1 to 4294967295"
        );
        assert_eq!(
            error(None, Some("agencies = 5\nworkers = -1"), &[]),
            "/sorteo.toml: workers: `-1` is not a whole number from 1 to 1024"
        );
        assert!(
            error(None, Some("agencies = 5\nagences = 5"), &[])
                .starts_with("/sorteo.toml: line 2: unknown field `agences`")
        );
        assert!(error(None, Some("agencies 5"), &[]).starts_with("/sorteo.toml: line 1: "));
        assert!(
            error(None, None, &[("SORTEO_AGENCES", "5")]).starts_with("SORTEO_AGENCES is not a variable")
        );
        assert!(
            error(None, None, &[("SORTEO_DATABASE", "postgres://x/y")])
                .contains("`postgres://` is not a database")
        );
        assert!(error(None, None, &[("SORTEO_LISTEN", "nowhere")]).contains("is not an address"));
        assert!(error(None, None, &[("LOGGING_LEVEL", "loud")]).contains("is not a log level"));
        assert!(error(None, None, &[("SORTEO_CONFIG", "/nowhere/x.toml")]).starts_with("/nowhere/x.toml: "));
    }

    #[test]
    fn an_agency_reads_the_seeds_names() {
        let variables = environment(&[
            ("CLI_ID", "3"),
            ("CLI_SERVER_ADDRESS", "server:12345"),
            ("CLI_BATCH_MAXAMOUNT", "50"),
            ("CLI_LOG_LEVEL", "WARNING"),
        ]);
        let layers = Layers::of_agency(&AgencySettings::default(), &variables).unwrap();
        let config = AgencyConfig::lower(&layers).unwrap();
        assert_eq!(config.agency, Some(AgencyId(3)));
        assert_eq!(config.server, "server:12345");
        assert_eq!(config.batch, 50);
        assert_eq!(config.log_level, LevelFilter::Warn);
    }

    #[test]
    fn the_help_tells_the_defaults_that_hold() {
        let config = serve(&flags(None), None, &[]).unwrap();
        let limits = Limits::default();
        assert_eq!(config.limits.workers, limits.workers);
        assert_eq!(config.listen.to_string(), "127.0.0.1:12345");
        let help = <ServeSettings as clap::Args>::augment_args(clap::Command::new("serve"))
            .render_help()
            .to_string();
        // Help is wrapped to the terminal: read it as one line.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let defaults = [
            ("--listen", config.listen.to_string()),
            ("--database", config.store.database.display().to_string()),
            ("--winning-number", crate::lottery::DEFAULT_WINNING_NUMBER.to_string()),
            ("--workers", limits.workers.to_string()),
            ("--max-connections", limits.connections_max.to_string()),
            ("--readers", sqlite::READERS.to_string()),
            ("--queue", sqlite::WRITE_QUEUE_MAX.to_string()),
            ("--batch-bets-max", limits.wire.batch_bets_max.to_string()),
            ("--payload-bytes-max", limits.wire.payload_bytes_max.to_string()),
            ("--buffer-bytes-max", limits.buffer_bytes_max.to_string()),
            ("--output-bytes-max", limits.output_bytes_max.to_string()),
            ("--request-timeout", limits.request_timeout.as_secs().to_string()),
            ("--idle-timeout", limits.idle_timeout.as_secs().to_string()),
            ("--drain-timeout", limits.drain_timeout.as_secs().to_string()),
            ("--disk-free-bytes-min", config.disk_free_bytes_min.to_string()),
        ];
        for (flag, default) in defaults {
            let line = help.split(" --").find(|part| part.starts_with(&format!("{} ", &flag[2..]))).unwrap();
            assert!(line.contains(&format!("[default: {default}]")), "{flag}: {line}");
        }
    }
}
