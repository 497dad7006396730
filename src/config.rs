//! The configuration: the declarations of all settings ([`settings`]), where their values
//! come from ([`layers`]: flags, environment and file), and the validated values that a
//! command runs with ([`ServeConfig`], [`AgencyConfig`]).

mod error;
mod file;
pub mod flags;
pub mod layers;
mod operators;
mod setting;
pub mod settings;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;

pub use self::error::{ConfigError, Source};
pub use self::flags::Flags;
pub use self::layers::{Environment, Layers, ResolvedSetting, process_environment};
pub use self::operators::{OpsAuth, OpsConfig};
pub use self::tls::TlsConfig;
use crate::logging::Format;
use crate::server::Limits;
use crate::server::listen::Endpoint;
use crate::server::tls::TlsMode;
use crate::service::{Auth, QuotaLimits};
use crate::store::sqlite;
use sorteo_agency::WindowLimits;
use sorteo_protocol::AgencyId;
use sorteo_protocol::wire::WireLimits;

/// The flags of `sorteo serve`.
pub type ServeSettings = Flags<flags::Serve>;
/// The flags of `sorteo upload`.
pub type AgencySettings = Flags<flags::Agency>;

/// What a server runs with.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where it listens.
    pub listen: Vec<Endpoint>,
    /// What its store is opened with.
    pub store: sqlite::Options,
    /// Whether agencies must prove who they are.
    pub auth: Auth,
    /// How much one agency, and one address, may ask of it.
    pub quotas: QuotaLimits,
    /// What it allows.
    pub limits: Limits,
    /// What it offers TLS with, if it does.
    pub tls: Option<TlsConfig>,
    /// The operators' HTTP.
    pub ops: OpsConfig,
    /// Free bytes of disk below which it reports that it is not ready.
    pub disk_free_bytes_min: u64,
    /// The minimum level of what is logged.
    pub log_level: LevelFilter,
    /// The format of the log lines.
    pub log_format: Format,
}

impl ServeConfig {
    /// Reads every setting once.
    ///
    /// # Errors
    ///
    /// The first setting whose value is wrong.
    pub fn lower(layers: &Layers) -> Result<Self, ConfigError> {
        let config = Self::read(layers)?;
        config.require_auth_for_what_needs_it()?;
        Ok(config)
    }

    /// Refuses what would have no effect, though whoever sets it relies on it.
    fn require_auth_for_what_needs_it(&self) -> Result<(), ConfigError> {
        let has_client_ca = self.tls.as_ref().is_some_and(|tls| tls.files.client_ca.is_some());
        let needs_auth = [
            ("tls_client_ca", has_client_ca),
            ("agency_connections_max", self.quotas.agency_connections_max.is_some()),
            ("agency_requests_max", self.quotas.agency_requests_max.is_some()),
        ];
        match needs_auth.into_iter().find(|(_, is_set)| *is_set && self.auth == Auth::Off) {
            Some((key, _)) => Err(ConfigError::Relation(format!(
                "{key} is set, but auth is off, so that no agency proves who it is: set auth to optional or \
                 required, or remove {key}"
            ))),
            None => Ok(()),
        }
    }

    fn read(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            listen: layers.get(&settings::LISTEN)?,
            store: store_options(layers)?,
            auth: layers.get(&settings::AUTH)?,
            quotas: quotas(layers)?,
            limits: limits(layers)?,
            tls: TlsConfig::lower(layers)?,
            ops: operators(layers)?,
            disk_free_bytes_min: layers.get(&settings::DISK_FREE_BYTES_MIN)?,
            log_level: layers.get(&settings::LOG_LEVEL)?,
            log_format: layers.get(&settings::LOG_FORMAT)?,
        })
    }

    /// Returns what is open to everybody on a network, a line for each: the setting and its
    /// value, then what follows from it. None is a mistake, and each is worth a warning.
    pub fn open_doors(&self) -> Vec<String> {
        let agencies = beyond_loopback(&self.listen);
        let operators = beyond_loopback(self.ops.listen.as_deref().unwrap_or_default());
        let of_auth = self.open_by_auth(&agencies);
        let of_tls = self.open_by_tls(&[agencies, operators].concat());
        of_auth.into_iter().chain(self.ops.open_doors()).chain(of_tls).collect()
    }

    fn open_by_auth(&self, reachable: &[String]) -> Option<String> {
        let addresses = reachable.join(", ");
        let open = match self.auth {
            Auth::Off => format!(
                "auth=off: whoever reaches {addresses} can bet for any agency, end its betting and read its winners"
            ),
            Auth::Optional => format!(
                "auth=optional: whoever reaches {addresses} and proves nothing can still act for any agency"
            ),
            Auth::Required => return None,
        };
        (!reachable.is_empty()).then_some(open)
    }

    /// The same setting is that of the agencies' port and of the operators' HTTP.
    fn open_by_tls(&self, reachable: &[String]) -> Option<String> {
        let (mode, addresses) = (TlsConfig::mode(self.tls.as_ref()), reachable.join(", "));
        let open = format!(
            "tls={mode}: bets, winners and tokens may cross the network to {addresses} in plain text"
        );
        (mode != TlsMode::Required && !reachable.is_empty()).then_some(open)
    }
}

/// Returns the addresses that other machines reach.
fn beyond_loopback(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().flat_map(Endpoint::beyond_loopback).map(|address| address.to_string()).collect()
}

fn operators(layers: &Layers) -> Result<OpsConfig, ConfigError> {
    Ok(OpsConfig {
        listen: layers.get_optional(&settings::OPS_LISTEN)?,
        auth_setting: layers.get_optional(&settings::OPS_AUTH)?,
        hosts: layers.get_optional(&settings::OPS_HOSTS)?.unwrap_or_default(),
        socket: layers.get_optional(&settings::OPS_SOCKET)?,
    })
}

fn limits(layers: &Layers) -> Result<Limits, ConfigError> {
    Ok(Limits {
        workers: layers.get(&settings::WORKERS)?,
        connections_max: layers.get(&settings::MAX_CONNECTIONS)?,
        address_connections_max: layers.get_optional(&settings::ADDRESS_CONNECTIONS_MAX)?,
        request_timeout: layers.get(&settings::REQUEST_TIMEOUT)?,
        auth_timeout: layers.get(&settings::AUTH_TIMEOUT)?,
        handshake_timeout: layers.get(&settings::HANDSHAKE_TIMEOUT)?,
        idle_timeout: layers.get(&settings::IDLE_TIMEOUT)?,
        drain_timeout: layers.get(&settings::DRAIN_TIMEOUT)?,
        output_bytes_max: layers.get(&settings::OUTPUT_BYTES_MAX)?,
        buffer_bytes_max: layers.get(&settings::BUFFER_BYTES_MAX)?,
        wire: WireLimits {
            batch_bets_max: layers.get(&settings::BATCH_BETS_MAX)?,
            payload_bytes_max: layers.get(&settings::PAYLOAD_BYTES_MAX)?,
        },
    })
}

fn quotas(layers: &Layers) -> Result<QuotaLimits, ConfigError> {
    Ok(QuotaLimits {
        agency_connections_max: layers.get_optional(&settings::AGENCY_CONNECTIONS_MAX)?,
        agency_requests_max: layers.get_optional(&settings::AGENCY_REQUESTS_MAX)?,
        address_requests_max: layers.get_optional(&settings::ADDRESS_REQUESTS_MAX)?,
        address_bets_max: layers.get_optional(&settings::ADDRESS_BETS_MAX)?,
    })
}

fn store_options(layers: &Layers) -> Result<sqlite::Options, ConfigError> {
    Ok(sqlite::Options {
        database: layers.get(&settings::SERVE_DATABASE)?,
        agencies: layers.get_optional(&settings::AGENCIES)?,
        agencies_max: layers.get(&settings::AGENCIES_MAX)?,
        agency_bets_max: layers.get_optional(&settings::AGENCY_BETS_MAX)?.unwrap_or(u64::MAX),
        winning_number: layers.get_optional(&settings::WINNING_NUMBER)?,
        readers: layers.get(&settings::READERS)?,
        queue_max: layers.get(&settings::QUEUE)?,
        checkpoints: layers.get(&settings::CHECKPOINTS)?,
        metrics: Arc::default(),
    })
}

/// Returns the database that a command works on: that of the flag, else the one that
/// `serve` would use.
///
/// # Errors
///
/// The value of the flag, the variable or the file is wrong.
pub fn database(flags: &Flags<flags::Database>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    let layers = Layers::of_serve(flags, None, environment)?;
    layers.get(&settings::DATABASE)
}

/// What an agency's command runs with.
#[derive(Clone, Debug)]
pub struct AgencyConfig {
    /// The server's `HOST:PORT`; the name is looked up for each connection.
    pub server: String,
    /// Its number, if given.
    pub agency: Option<AgencyId>,
    /// The file of its bets, if given.
    pub file: Option<PathBuf>,
    /// Maximum number of bets in a batch.
    pub batch: usize,
    /// How much of an upload may be in flight.
    pub window: WindowLimits,
    /// How long to keep trying without any progress.
    pub give_up_after: Duration,
    /// The minimum level of what is logged.
    pub log_level: LevelFilter,
    /// The format of the log lines.
    pub log_format: Format,
}

impl AgencyConfig {
    /// Reads every setting once.
    ///
    /// # Errors
    ///
    /// The first setting whose value is wrong.
    pub fn lower(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            server: layers.get(&settings::SERVER)?,
            agency: layers.get_optional(&settings::AGENCY_ID)?,
            file: layers.get_optional(&settings::FILE)?,
            batch: layers.get(&settings::BATCH)?,
            window: WindowLimits {
                batches: layers.get(&settings::WINDOW_BATCHES)?,
                bytes: layers.get(&settings::WINDOW_BYTES)?,
            },
            give_up_after: layers.get(&settings::GIVE_UP_AFTER)?,
            log_level: layers.get(&settings::LOG_LEVEL)?,
            log_format: layers.get(&settings::LOG_FORMAT)?,
        })
    }

    /// Returns the agency's number, for commands that need it.
    ///
    /// # Errors
    ///
    /// It is not given.
    pub fn require_agency(&self) -> Result<AgencyId, ConfigError> {
        self.agency.ok_or(ConfigError::missing(&settings::AGENCY_ID))
    }
}

#[cfg(test)]
mod tests {
    use super::setting::DEFAULT_ADDRESS;
    use super::settings::{AGENCIES, Form, Values};
    use super::*;

    fn endpoint(address: &str) -> Endpoint {
        Endpoint::from(address.parse::<std::net::SocketAddr>().unwrap())
    }

    #[test]
    fn several_addresses_are_a_list_in_every_layer() {
        let listen = |file, variables: &[(&str, &str)]| serve(&flags(None), file, variables).unwrap().listen;
        let both = ["127.0.0.1:1", "[::1]:2"].map(endpoint);
        assert_eq!(listen(None, &[("SORTEO_LISTEN", "127.0.0.1:1, [::1]:2")]), both);
        assert_eq!(listen(Some(r#"listen = ["127.0.0.1:1", "[::1]:2"]"#), &[]), both);
        assert_eq!(listen(Some(r#"listen = "127.0.0.1:1,[::1]:2""#), &[]), both);
        assert_eq!(listen(None, &[("SORTEO_LISTEN", "[::ffff:127.0.0.1]:1")]), both[..1]);
        let wrong = |text| serve(&flags(None), None, &[("SORTEO_LISTEN", text)]).unwrap_err();
        let expected = "SORTEO_LISTEN: `2` is not an address: write HOST:PORT, such as 127.0.0.1:12345";
        assert_eq!(wrong("127.0.0.1:1,2"), expected);
        assert_eq!(wrong("127.0.0.1:1,"), expected.replace("`2`", "``"));
        let error = serve(&flags(None), Some("workers = [1]"), &[]).unwrap_err();
        assert_eq!(
            error,
            "/sorteo.toml: line 1: `workers` cannot be of type array: write a number, or a string in quotes"
        );
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn flags(agencies: Option<&str>) -> ServeSettings {
        ServeSettings::new(agencies.map(|text| (AGENCIES.setting(), text.to_owned())))
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
        assert_eq!(agencies(None, file, &[]), Some(4.into()));
        assert_eq!(agencies(None, file, &[("TOTAL_AGENCIES", "6")]), Some(6.into()));
        assert_eq!(agencies(None, file, &[("TOTAL_AGENCIES", "6"), ("CLIENT_AMOUNT", "6")]), Some(6.into()));
        assert_eq!(agencies(None, file, &[("TOTAL_AGENCIES", "0"), ("CLIENT_AMOUNT", "5")]), Some(5.into()));
        assert_eq!(agencies(None, file, &[("TOTAL_AGENCIES", "0")]), Some(4.into()));
        assert_eq!(agencies(None, file, &[("CLIENT_AMOUNT", "5"), ("SORTEO_AGENCIES", "3")]), Some(3.into()));
        assert_eq!(agencies(Some("2"), file, &[("SORTEO_AGENCIES", "3")]), Some(2.into()));
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
        assert_eq!(config.listen, [endpoint("0.0.0.0:4000")]);
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
            "CLIENT_AMOUNT: `five` is no number of agencies, such as 5, and no set of agencies, such as 1-5,7"
        );
        assert_eq!(
            error(None, Some("agencies = 5\nworkers = -1"), &[]),
            "/sorteo.toml: line 2: workers: `-1` is not a whole number from 1 to 1024"
        );
        assert_eq!(
            error(None, Some("agencies = 5\nagences = 5"), &[]),
            "/sorteo.toml: line 2: `agences` is not a setting: did you mean `agencies`?"
        );
        assert!(error(None, Some("agencies 5"), &[]).starts_with("/sorteo.toml: line 1: "));
        assert_eq!(
            error(None, None, &[("SORTEO_AGENCES", "5")]),
            "SORTEO_AGENCES is not a variable of sorteo: did you mean SORTEO_AGENCIES?"
        );
        assert!(
            error(None, None, &[("SORTEO_XYZZY", "5")])
                .contains("known variables are SORTEO_ADDRESS_BETS_MAX, ")
        );
        assert!(
            error(None, None, &[("SORTEO_DATABASE", "postgres://x/y")])
                .contains("`postgres://` is not a kind of database")
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
        let layers = Layers::of_agency(&AgencySettings::new([]), &variables).unwrap();
        let config = AgencyConfig::lower(&layers).unwrap();
        assert_eq!(config.agency, Some(AgencyId(3)));
        assert_eq!(config.server, "server:12345");
        assert_eq!(config.batch, 50);
        assert_eq!(config.log_level, LevelFilter::Warn);
    }

    #[test]
    fn what_nobody_sets_is_what_the_parts_themselves_have() {
        let config = serve(&flags(None), None, &[]).unwrap();
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::default()));
        assert_eq!(format!("{:?}", config.store), format!("{:?}", sqlite::Options::new("sorteo.db")));
        assert_eq!((&config.listen, config.ops.is_served()), (&vec![endpoint(DEFAULT_ADDRESS)], false));
        assert_eq!((config.log_level, config.log_format), (LevelFilter::Info, Format::Text));
    }

    /// What must be set with a setting.
    fn companions(key: &str) -> Vec<(String, String)> {
        let all = [("tls", "required"), ("tls_cert", "cert"), ("tls_key", "key"), ("tls_client_ca", "ca")];
        let with_tls = all.into_iter().filter(|(other, _)| key.starts_with("tls") && *other != key);
        let needs_auth = key.starts_with("tls") || key.starts_with("agency_");
        let needed = with_tls.chain(needs_auth.then_some(("auth", "optional")));
        needed.map(|(key, value)| (format!("SORTEO_{}", key.to_uppercase()), value.to_owned())).collect()
    }

    #[test]
    fn settings_of_tls_that_need_others_say_so() {
        let error = |variables: &[(&str, &str)]| serve(&flags(None), None, variables).unwrap_err();
        let (tls, cert, key) =
            (("SORTEO_TLS", "optional"), ("SORTEO_TLS_CERT", "c"), ("SORTEO_TLS_KEY", "k"));
        assert_eq!(error(&[tls, key]), "tls is optional, but tls_cert is not set: give the file");
        assert_eq!(error(&[tls, cert]), "tls is optional, but tls_key is not set: give the file");
        assert_eq!(
            error(&[tls, cert, key, ("SORTEO_TLS_CRL", "crl")]),
            "tls_crl is set, but tls_client_ca is not: there is nobody whose certificates it could revoke"
        );
        for (name, others) in [
            ("tls_client_ca", [tls, cert, key, ("SORTEO_TLS_CLIENT_CA", "ca")].as_slice()),
            ("agency_requests_max", &[("SORTEO_AGENCY_REQUESTS_MAX", "9")]),
            ("agency_connections_max", &[("SORTEO_AGENCY_CONNECTIONS_MAX", "9")]),
        ] {
            assert!(error(others).starts_with(&format!("{name} is set, but auth is off")));
        }
        for name in ["tls_cert", "tls_key", "tls_client_ca", "tls_crl"] {
            let expected =
                format!("{name} is set, but tls is off: set tls to optional or required, or remove {name}");
            assert_eq!(error(&[(&format!("SORTEO_{}", name.to_uppercase()), "f")]), expected);
        }
    }

    #[test]
    fn every_setting_reaches_what_the_server_runs_with() {
        let plain = format!("{:?}", serve(&flags(None), None, &[]).unwrap());
        for setting in settings::SERVE {
            // A value that is not the default.
            let other = match setting.values {
                Values::Number(_, min, _) if setting.default_text() != Some(min.to_string()) => {
                    min.to_string()
                }
                Values::Number(_, _, max) => max.to_string(),
                Values::Text(Form::Address | Form::Addresses) => "127.0.0.1:1".to_owned(),
                Values::Text(Form::Database | Form::File) => "other".to_owned(),
                Values::Text(Form::Hosts) => "lottery.example".to_owned(),
                Values::Text(Form::Agencies) => "1-5,7".to_owned(),
                Values::Text(Form::Level) | Values::Word(..) => {
                    let other = |word: &&&str| Some(**word) != setting.default_text().as_deref();
                    (*setting.words().iter().find(other).unwrap()).to_owned()
                }
            };
            let mut variables = vec![(setting.variable(), other.clone())];
            variables.extend(companions(setting.key));
            let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
            let plain = match &variables[1..] {
                [] => plain.clone(),
                companions => format!("{:?}", serve(&flags(None), None, companions)),
            };
            let changed = serve(&flags(None), None, &variables).unwrap();
            assert_ne!(format!("{changed:?}"), plain, "{} = {other}", setting.key);
        }
    }

    #[test]
    fn every_word_of_the_tables_is_understood() {
        for setting in settings::SERVE {
            for word in setting.words() {
                let companions = companions(setting.key).into_iter().filter(|_| *word != "off");
                let variables: Vec<_> =
                    [(setting.variable(), (*word).to_owned())].into_iter().chain(companions).collect();
                let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
                serve(&flags(None), None, &variables).unwrap();
            }
        }
    }

    #[test]
    fn all_that_cannot_hold_is_told_together() {
        let variables =
            environment(&[("SORTEO_WORKERS", "0"), ("SORTEO_QUEUE", "x"), ("SORTEO_AGENCES", "1")]);
        let (layers, problems) = Layers::gather_serve(&flags(Some("0")), None, &variables);
        let all: Vec<String> = problems.iter().chain(&layers.problems()).map(ToString::to_string).collect();
        assert_eq!(all.len(), 4, "{all:?}");
        for (problem, start) in
            all.iter().zip(["SORTEO_AGENCES ", "--agencies: ", "SORTEO_WORKERS: ", "SORTEO_QUEUE: "])
        {
            assert!(problem.starts_with(start), "{problem}");
        }
    }
}
