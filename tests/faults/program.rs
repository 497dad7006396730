//! The server as a child process that dies and is started again on the same port.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use sorteo_test_support::process::{self, Finished, PASSED_ON, Server, wait_for};

use crate::workplace::Workplace;

/// The server's build: the one of this test run, or the one that `FAULTS_BINARY` names.
fn binary() -> PathBuf {
    match std::env::var_os("FAULTS_BINARY") {
        Some(path) => std::path::absolute(path).unwrap(),
        None => process::binary(),
    }
}

/// What it exits with when its database has failed.
pub const EXIT_DATABASE_FAILED: i32 = 74;

/// Threads that carry out requests: enough for the crowd, and few to start.
const WORKERS: &str = "8";

/// How to start the server of one round, again and again.
#[derive(Clone, Debug)]
pub struct Program {
    /// A command that gets the program's as its last arguments, if any.
    starter: Vec<String>,
    binary: PathBuf,
    pub address: SocketAddr,
    folder: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program {
    pub fn new(workplace: &Workplace) -> Self {
        Self {
            starter: Vec::new(),
            binary: binary(),
            address: free_address(),
            folder: workplace.folder().to_owned(),
            arguments: vec!["--workers".to_owned(), WORKERS.to_owned()],
            environment: Vec::new(),
        }
    }

    /// With this argument and value, in place of an earlier one of that name.
    pub fn with(mut self, argument: &str, value: impl ToString) -> Self {
        match self.arguments.iter().position(|known| known == argument) {
            Some(at) => self.arguments[at + 1] = value.to_string(),
            None => self.arguments.extend([argument.to_owned(), value.to_string()]),
        }
        self
    }

    /// With this variable in its environment.
    pub fn with_variable(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Another executable that takes the same arguments.
    pub fn with_binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// At another address.
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// With its database in another folder.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Started by a command that gets the program's as its last arguments, and
    /// becomes it.
    pub fn started_by(mut self, starter: &[impl ToString]) -> Self {
        self.starter = starter.iter().map(ToString::to_string).collect();
        self
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = match &self.starter[..] {
            [] => Command::new(&self.binary),
            [starter, arguments @ ..] => {
                let mut command = Command::new(starter);
                command.args(arguments).arg(&self.binary);
                command
            }
        };
        command.env_clear().current_dir(&self.folder);
        command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["serve", "--database", "sorteo.db", "--listen", &self.address.to_string()]);
        command.args(&self.arguments);
        command
    }

    /// Starts it, and waits until it listens.
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|ended| panic!("the server did not start: {ended:#?}"))
    }

    /// Starts it; answers how it ended if that was before it listened.
    pub fn try_start(&self) -> Result<Server, Finished> {
        wait_for("a port", || match Server::start_command(&mut self.command()) {
            Err(ended) if ended.stderr.contains("cannot be listened on") => None,
            result => Some(result),
        })
    }
}

/// A free port below those that the system gives to clients: a client that calls
/// a dead server again and again would otherwise one day be given the server's
/// own port, and talk to itself. No two rounds of a run get the same one, which a
/// seed could not promise.
fn free_address() -> SocketAddr {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    wait_for("a free port", || {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        TcpListener::bind(address).ok().map(|_| address)
    })
}
