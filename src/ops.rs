//! The operators' HTTP: health, metrics, the state of the draw, and a page that shows it
//! live. It is off the path of the bets: a thread with a runtime of its own, and its own
//! connections to the database.
//!
//! It only reads: all that a request changes is when its token was last used, which the server
//! writes to the database later, and who is signed in, in memory. Who may read what is decided by a token and its role, unless its caller lets in whoever
//! reaches it (see [`OpsContext::gatekeeper`]). It knows no store of tokens, only a
//! [`Gatekeeper`].
//!
//! | file | job |
//! |---|---|
//! | `http` | connections: limits, deadlines, headers |
//! | `tls` | the same port with TLS |
//! | `socket` | the file of the Unix socket |
//! | `routes` | the paths, who may ask for each, and the responses |
//! | `admit` | lets a request in, or refuses it: its host, its origin, its role |
//! | `hosts` | which host names are served, and which pages may send a form |
//! | `gate` | who is asking: the token or the session of a request |
//! | `identity` | roles, and what the gate asks about a token |
//! | `sessions` | who is signed in with a browser |
//! | `sign_in` | the form for a token, and what is done with it |
//! | `forms` | which forms are taken where there are too many |
//! | `places` | which connections are served, and which make room |
//! | `monitor` | looks up what is asked for, some of it at most every two seconds |
//! | `readiness` | whether the server can do its work, and if not, which part cannot |
//! | `exposition` | the text that Prometheus scrapes |

mod admit;
mod context;
mod exposition;
mod forms;
mod gate;
mod hosts;
mod http;
mod identity;
mod monitor;
mod places;
mod readiness;
mod routes;
mod sessions;
mod sign_in;
mod socket;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

pub use self::admit::Access;
pub use self::context::OpsContext;
use self::gate::Gate;
use self::http::Listener;
pub use self::identity::{Gatekeeper, Role};
use self::monitor::Monitor;
use self::routes::Serving;
pub use self::routes::paths;
use self::socket::SocketFile;
pub use self::tls::{OpsTls, TlsConfigSource};
use crate::server::listen::{self, Endpoint, ListenError};
use crate::store::Store;
use crate::store::sqlite::overview::Overview;

/// Most files that it has open: one for each connection, and some of its own.
pub const FILES_MAX: u64 = http::CONNECTIONS_MAX as u64 + 16;
/// Connections that the system keeps waiting at each address. They are accepted at once.
const BACKLOG: i32 = 128;
/// Threads that look up what is asked for. Each kind of lookup takes its turns.
const LOOKUP_THREADS: usize = 4;
/// How long requests may still take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The operators' HTTP with its addresses taken, before it responds.
#[derive(Debug)]
pub struct Ops {
    sockets: Vec<Socket>,
    unix: Option<(StdUnixListener, SocketFile)>,
}

/// The operators' HTTP cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// At an address.
    #[error(transparent)]
    Address(#[from] ListenError),
    /// At a Unix socket: its path leads to something else, another process listens there, or
    /// the system refuses it.
    #[error("{path} cannot be listened on", path = .path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Stops the running operators' HTTP.
#[derive(Debug)]
pub struct OpsHandle {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    _file: Option<SocketFile>,
}

impl Ops {
    /// Takes the addresses, and the path of a Unix socket, and listens. Returns also the
    /// addresses that a name has and this machine has not.
    ///
    /// # Errors
    ///
    /// An address is taken, this machine has none of a name's addresses, or there can be no
    /// socket at the path.
    pub fn bind(endpoints: &[Endpoint], socket: Option<&Path>) -> Result<(Self, Vec<SocketAddr>), BindError> {
        let bound = listen::bind(endpoints)?;
        listen::listen(&bound.sockets, BACKLOG)?;
        let failed = |path: &Path, source| BindError::Socket { path: path.to_owned(), source };
        let listen = |path| socket::listen(path, BACKLOG).map_err(|source| failed(path, source));
        let unix = socket.map(listen).transpose()?;
        Ok((Self { sockets: bound.sockets, unix }, bound.unavailable))
    }

    /// Returns the addresses, with the port that the system chose if 0 was given.
    ///
    /// # Errors
    ///
    /// Where the system does not know a socket's address.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(listen::local_address).collect()
    }

    /// Starts to respond, on a thread of its own. Both overviews are of the server's
    /// database: the first for frequent lookups, the second for searches.
    ///
    /// # Errors
    ///
    /// Where the system provides no thread or no poll.
    pub fn start<S: Store>(self, context: OpsContext<S>, overviews: [Overview; 2]) -> io::Result<OpsHandle> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(LOOKUP_THREADS)
            .thread_keep_alive(Duration::MAX)
            .build()?;
        // The first of these threads must exist: without it, a lookup would panic where the
        // system has none left. The others start when they are needed, if they can.
        runtime.spawn_blocking(|| ());
        let (unix, file) = self.unix.unzip();
        let listeners = {
            let _inside = runtime.enter();
            listeners(self.sockets, unix)?
        };
        let (gate, tls) = (Arc::new(Gate::new(&context)), context.tls.clone());
        let monitor = Arc::new(Monitor::new(context, overviews));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("sorteo-ops".into())
            .spawn(move || run(runtime, listeners, tls, Serving { monitor, gate }, stopped))?;
        Ok(OpsHandle { stop, thread, _file: file })
    }
}

impl OpsHandle {
    /// Stops responding, and drops the service.
    pub fn stop(self) {
        // If the thread has ended already, its panic was logged.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Returns the listeners of the runtime that is entered.
fn listeners(sockets: Vec<Socket>, unix: Option<StdUnixListener>) -> io::Result<Vec<Listener>> {
    let tcp = sockets.into_iter().map(|socket| TcpListener::from_std(socket.into()).map(Listener::Tcp));
    let unix = unix.into_iter().map(|socket| UnixListener::from_std(socket).map(Listener::Unix));
    tcp.chain(unix).collect()
}

fn run<S: Store>(
    runtime: Runtime,
    listeners: Vec<Listener>,
    tls: Option<OpsTls>,
    serving: Serving<S>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            () = serving.monitor.tick() => {}
            () = serving.gate.tick() => {}
            () = http::serve(listeners, routes::router(serving.clone()), tls) => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_timeout(STOP_TIMEOUT);
}
