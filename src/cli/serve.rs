//! `sorteo serve`: opens the database, listens, and serves until it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::arguments::Sources;
use super::failure::Failure;
use super::ready_file::ReadyFile;
use super::{observer, open_files, threads};
use crate::config::settings::LOG_LEVEL;
use crate::config::{
    ConfigError, Environment, Layers, OpsAuth, OpsConfig, ServeConfig, TlsConfig, process_environment,
};
use crate::ops::{BindError, Gatekeeper, Ops, OpsContext, OpsHandle, OpsTls};
use crate::server::listen::{self, Endpoint, ListenError};
use crate::server::tls::Tls;
use crate::server::{BACKLOG, ServeError, Server, ServerHandle};
use crate::service::Service;
use crate::store::sqlite::{Recovery, SqliteStore};
use crate::{event, logging};

/// The exit code of a process that a second signal ended at once: 128 and SIGTERM.
const SECOND_SIGNAL_EXIT: i32 = 143;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every setting is also an environment variable (SORTEO_LISTEN, …) and a key of
the file that --config names (listen = \"…\"). A flag overrides a variable, and a
variable the file; `sorteo config show` prints the result. The variables of the
original servers work too: SERVER_PORT, LOGGING_LEVEL, CLIENT_AMOUNT and
TOTAL_AGENCIES.

SIGTERM and SIGINT stop the server gracefully, a second one at once. SIGHUP
reads the log level from the file again, and the files of TLS.

Examples:
  sorteo serve --agencies 5
  sorteo serve --config sorteo.toml --log-format json
  sorteo serve --listen localhost:12345 --listen 10.20.0.1:12345
  SORTEO_LISTEN=0.0.0.0:12345 sorteo serve --database /var/lib/sorteo/sorteo.db")]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Write the addresses to this file, one per line, while the server listens
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ready_file: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let started_at = SystemTime::now();
    let environment = process_environment()?;
    let config = ServeConfig::lower(&args.sources.layers(&environment)?)?;
    let ready = ReadyFile::new(args.ready_file.as_deref(), &config.store.database)?;
    let tls = load_tls(&config)?;
    threads::require(&config)?;
    logging::init(config.log_level, config.log_format);
    log_panics();
    let files = open_files::raise_limit();
    // The addresses first: if one is in use, no database is created.
    let (server, addresses) = bind(&config.listen)?;
    let server = server.with_tls(tls.clone());
    let ops = config.ops.is_served().then(|| bind_ops(&config.ops)).transpose()?;
    log_config(&config, &addresses, files);
    let handle = server.handle();
    let reload = Reload { sources: args.sources.clone(), environment, tls: tls.clone() };
    handle_signals(&handle, ready.clone(), reload).context("signals cannot be handled")?;
    let service = open_store(&config, &handle)?;
    ready.remove_old();
    let listening = server.listen(config.limits).map_err(anyhow::Error::from)?;
    let ops = ops.map(|ops| start_ops(ops, &config, &service, &handle, tls, started_at)).transpose()?;
    // Whoever waits for the file may want to read in the log how it started.
    logging::flush();
    ready.write(&addresses)?;
    let served = listening.run(Arc::clone(&service));
    ready.remove();
    if let Some(ops) = ops {
        ops.stop();
        event!(Info, "close_operators", Success);
    }
    match served {
        Ok(()) => close(service, &handle),
        Err(ServeError::StoreFailed(error)) => Err(Failure::Database(error)),
        Err(error @ ServeError::Io(_)) => Err(anyhow::Error::from(error).into()),
    }
}

fn bind(endpoints: &[Endpoint]) -> anyhow::Result<(Server, Vec<SocketAddr>)> {
    let bound = listen::bind(endpoints)?;
    log_unavailable(&bound.unavailable);
    let server = Server::new(bound.sockets).context("the system provides no poll")?;
    let addresses = server.local_addresses().context("the socket has no address")?;
    Ok((server, addresses))
}

/// Logs the addresses that a name has and this machine has not. A client that tries one
/// of them goes on to the next.
fn log_unavailable(addresses: &[SocketAddr]) {
    for address in addresses {
        event!(Warn, "config", Fail, listen = address, error = "this machine does not have this address");
    }
}

/// Returns addresses in one value of the log.
fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn open_store(config: &ServeConfig, handle: &ServerHandle) -> Result<Arc<Service<SqliteStore>>, Failure> {
    let (store, recovery) = SqliteStore::open(&config.store, observer::log_and_notify(handle))?;
    log_recovery(&recovery);
    log_settings_not_taken(&recovery);
    Ok(Arc::new(
        Service::new(store, Arc::clone(&config.store.metrics))
            .with_auth(config.auth)
            .with_quotas(config.quotas),
    ))
}

fn bind_ops(config: &OpsConfig) -> anyhow::Result<Ops> {
    let bound = Ops::bind(config.listen.as_deref().unwrap_or_default(), config.socket.as_deref());
    let (ops, unavailable) = bound.map_err(|error| {
        let (what, source) = match error {
            BindError::Address(ListenError { address, source }) => {
                (format!("{address} (ops_listen)"), source)
            }
            BindError::Socket { path, source } => (format!("{} (ops_socket)", path.display()), source),
        };
        anyhow::Error::from(source).context(format!("{what} cannot be listened on"))
    })?;
    log_unavailable(&unavailable);
    Ok(ops)
}

fn start_ops(
    ops: Ops,
    config: &ServeConfig,
    service: &Arc<Service<SqliteStore>>,
    handle: &ServerHandle,
    tls: Option<Arc<Tls>>,
    started_at: SystemTime,
) -> Result<OpsHandle, Failure> {
    let addresses = ops.local_addresses().context("the operators' socket has no address")?;
    let overviews = [service.store().overview()?, service.store().overview()?];
    let context = OpsContext {
        service: Arc::clone(service),
        handle: handle.clone(),
        database: config.store.database.clone(),
        limits: config.limits,
        queue_max: config.store.queue_max,
        disk_free_bytes_min: config.disk_free_bytes_min,
        started_at,
        gatekeeper: match config.ops.auth() {
            OpsAuth::Off => None,
            OpsAuth::Token => Some(Arc::clone(service) as Arc<dyn Gatekeeper>),
        },
        hosts: config.ops.hosts.clone(),
        tls: tls.map(|tls| ops_tls(tls, config.limits.handshake_timeout)),
        unprotected: config.open_doors(),
    };
    let running = ops.start(context, overviews).context("the operators' HTTP cannot be started")?;
    let socket = config.ops.socket.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    event!(Info, "listen_operators", Success, listen = listed(&addresses), socket = socket);
    Ok(running)
}

/// Returns TLS as the agencies' port has it, with the newest certificate at each connection.
fn ops_tls(tls: Arc<Tls>, handshake_timeout: Duration) -> OpsTls {
    let is_required = tls.is_required();
    OpsTls { is_required, config: Arc::new(move || tls.for_operators()), handshake_timeout }
}

fn close(service: Arc<Service<SqliteStore>>, handle: &ServerHandle) -> Result<(), Failure> {
    match Arc::try_unwrap(service) {
        Ok(service) => {
            service.into_store().close();
            event!(Info, "close_database", Success);
        }
        // A worker is stuck in a commit. Its agency gets no reply, and sends again.
        Err(_) => event!(Warn, "close_database", Fail, error = "it is still in use"),
    }
    if let Some(error) = handle.take_failure() {
        return Err(Failure::Database(error));
    }
    event!(Info, "shutdown", Success);
    Ok(())
}

/// Makes the first SIGTERM or SIGINT stop the server and a second one end the process;
/// SIGHUP reads again what can change.
fn handle_signals(handle: &ServerHandle, ready: ReadyFile, reload: Reload) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = handle.clone();
    thread::Builder::new().name("sorteo-signals".into()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                reload.run();
                continue;
            }
            if std::mem::replace(&mut stopping, true) {
                ready.remove();
                event!(Warn, "shutdown", Fail, error = "a second signal: ending at once");
                logging::flush();
                std::process::exit(SECOND_SIGNAL_EXIT);
            }
            event!(Info, "shutdown", InProgress);
            handle.stop();
        }
    })?;
    Ok(())
}

/// What SIGHUP reads again: the log level and, if TLS is on, its files.
struct Reload {
    sources: Sources,
    environment: Environment,
    tls: Option<Arc<Tls>>,
}

impl Reload {
    /// Reads the configuration file again; flags and variables still override it. What the next
    /// start would refuse changes nothing.
    fn run(&self) {
        let layers = self.sources.layers(&self.environment).and_then(|layers| {
            // Checks all settings, so that a mistake is noticed before the next start.
            ServeConfig::lower(&layers)?;
            Ok(layers)
        });
        let reloaded = layers.and_then(|layers| {
            self.reload_tls(&layers)?;
            reload_log_level(&layers)
        });
        if let Err(error) = reloaded {
            event!(Error, "config", Fail, error = error);
        }
    }

    /// Reads the files of TLS again. Whether TLS is on changes with a restart alone: a peer
    /// cannot be asked again.
    fn reload_tls(&self, layers: &Layers) -> Result<(), ConfigError> {
        let config = TlsConfig::lower(layers)?;
        let (was, is) =
            (self.tls.as_ref().map(|tls| tls.is_required()), config.as_ref().map(|c| c.is_required));
        if was != is {
            return Err(ConfigError::Relation("tls changes with a restart alone".to_owned()));
        }
        if let (Some(tls), Some(config)) = (&self.tls, config) {
            tls.reload(&config.files)?;
            let cert = config.files.cert.display();
            event!(Info, "config", Success, tls_cert = cert);
        }
        Ok(())
    }
}

fn reload_log_level(layers: &Layers) -> Result<(), ConfigError> {
    let level = layers.get(&LOG_LEVEL)?;
    // This line appears whether the new level logs more or less.
    logging::set_level(level.max(log::max_level()));
    event!(Info, "config", Success, log_level = level);
    logging::set_level(level);
    Ok(())
}

/// Reads the files of TLS, if it is on.
fn load_tls(config: &ServeConfig) -> Result<Option<Arc<Tls>>, Failure> {
    let tls = config.tls.as_ref().map(TlsConfig::load).transpose().map_err(ConfigError::from)?;
    Ok(tls.map(Arc::new))
}

/// Makes a panic, which is a bug of ours, one line in the log like everything else.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        event!(Error, "panic", Fail, error = info);
        // It may be the end of the process.
        logging::flush();
    }));
}

fn log_config(config: &ServeConfig, addresses: &[SocketAddr], files: u64) {
    let agencies =
        config.store.agencies.as_ref().map_or("inferred".to_owned(), |agencies| agencies.to_string());
    let limits = &config.limits;
    event!(
        Info,
        "config",
        Success,
        listen = listed(addresses),
        listen_backlog = BACKLOG,
        auth = config.auth,
        tls = TlsConfig::mode(config.tls.as_ref()),
        database = config.store.database.display(),
        agencies = agencies,
        workers = limits.workers,
        max_connections = limits.connections_max,
        log_level = config.log_level,
    );
    if let Some(warning) = open_files::warning(config, files) {
        event!(Warn, "config", Fail, error = warning);
    }
    for open in config.open_doors() {
        event!(Warn, "config", Fail, error = open);
    }
}

/// Logs the settings that the open draw did not take.
fn log_settings_not_taken(recovery: &Recovery) {
    for not_taken in &recovery.terms_not_taken {
        event!(Warn, "config", Fail, setting = not_taken.term.setting(), error = not_taken);
    }
}

fn log_recovery(recovery: &Recovery) {
    let status = &recovery.status;
    event!(
        Info,
        "recover",
        Success,
        database = if recovery.created { "created" } else { "opened" },
        draw = status.draw,
        state = if status.drawn { "drawn" } else { "open" },
        bets = status.bets,
        done = status.done,
        expected = status.expected,
        winning_number = status.winning_number,
    );
}
