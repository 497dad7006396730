//! The operators' HTTP: health, metrics, the state of the draw, and a page that shows it
//! live. It is off the path of the bets: a thread with a runtime of its own, and its own
//! connections to the database.
//!
//! It only reads, and does not authenticate: everybody who reaches the address sees names
//! and documents of the winners. `docs/operating.md` explains how to protect it.
//!
//! | file | job |
//! |---|---|
//! | `http` | connections: limits, deadlines, headers |
//! | `routes` | the paths, and the response to each |
//! | `places` | which connections are served, and which make room |
//! | `monitor` | looks up what is asked for, some of it at most every two seconds |
//! | `readiness` | whether the server can do its work, and if not, which part cannot |
//! | `exposition` | the text that Prometheus scrapes |

mod context;
mod exposition;
mod http;
mod monitor;
mod places;
mod readiness;
mod routes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::Socket;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

pub use self::context::OpsContext;
use self::monitor::Monitor;
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
}

/// Stops the running operators' HTTP.
#[derive(Debug)]
pub struct OpsHandle {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Ops {
    /// Takes the addresses and listens. Returns also those that a name has and this
    /// machine has not.
    ///
    /// # Errors
    ///
    /// An address is taken, or this machine has none of a name's addresses.
    pub fn bind(endpoints: &[Endpoint]) -> Result<(Self, Vec<SocketAddr>), ListenError> {
        let bound = listen::bind(endpoints)?;
        listen::listen(&bound.sockets, BACKLOG)?;
        Ok((Self { sockets: bound.sockets }, bound.unavailable))
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
        let listeners = {
            let _inside = runtime.enter();
            let sockets = self.sockets.into_iter();
            sockets.map(|socket| TcpListener::from_std(socket.into())).collect::<io::Result<_>>()?
        };
        let monitor = Arc::new(Monitor::new(context, overviews));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("sorteo-ops".into())
            .spawn(move || run(runtime, listeners, monitor, stopped))?;
        Ok(OpsHandle { stop, thread })
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

fn run<S: Store>(
    runtime: Runtime,
    listeners: Vec<TcpListener>,
    monitor: Arc<Monitor<S>>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            () = monitor.tick() => {}
            () = http::serve(listeners, routes::router(Arc::clone(&monitor))) => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_timeout(STOP_TIMEOUT);
}
