//! The operators' HTTP: health, metrics, how the draw stands, and a page that shows
//! it live. Off the path of the bets: one thread with a runtime of its own, and its
//! own connection to the database.
//!
//! It only reads, and asks nobody who he is: who reaches the address sees names and
//! documents of the winners. `docs/operating.md` tells how to keep it to oneself.
//!
//! | file | job |
//! |---|---|
//! | `http` | connections: limits, deadlines, headers |
//! | `routes` | which path is answered by what |
//! | `watch` | what is looked up, and how often at most |
//! | `readiness` | whether the server can do its work, and which part cannot |
//! | `exposition` | the text that Prometheus scrapes |

mod exposition;
mod http;
mod readiness;
mod routes;
mod watch;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use self::watch::Watch;
use crate::server::{Limits, ServerHandle};
use crate::service::Service;
use crate::store::Store;
use crate::store::sqlite::overview::Overview;

/// Open files that it may need: a connection each, and some of its own.
pub const FILES_MAX: u64 = http::CONNECTIONS_MAX as u64 + 16;
/// How long what is being answered may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What operators look at.
#[derive(Debug)]
pub struct Watched<S> {
    /// The lottery; its metrics are shown.
    pub service: Arc<Service<S>>,
    /// Whether its server still takes connections.
    pub handle: ServerHandle,
    /// The database's file.
    pub database: PathBuf,
    /// What the server allows.
    pub limits: Limits,
    /// Writes that may wait for the writer.
    pub queue_max: usize,
    /// Free bytes of disk below which the server is not ready.
    pub disk_free_bytes_min: u64,
    /// When the process began.
    pub started_at: SystemTime,
}

/// An address that is taken, at which nobody answers yet.
#[derive(Debug)]
pub struct Ops {
    listener: TcpListener,
}

/// The operators' HTTP, until it is stopped.
#[derive(Debug)]
pub struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Ops {
    /// Takes the address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// The address taken, with the port the system chose where 0 was asked for.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers from here on, on a thread of its own. The overviews are of the same
    /// database: one for what is asked all the time, one for searches.
    pub fn start<S: Store>(self, watched: Watched<S>, overviews: [Overview; 2]) -> io::Result<Running> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let watch = Arc::new(Watch::new(watched, overviews));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("sorteo-ops".into())
            .spawn(move || run(runtime, listener, watch, stopped))?;
        Ok(Running { stop, thread })
    }
}

impl Running {
    /// Answers no more, and lets go of the service.
    pub fn stop(self) {
        // If its thread is gone already, it said why.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn run<S: Store>(
    runtime: Runtime,
    listener: tokio::net::TcpListener,
    watch: Arc<Watch<S>>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            () = watch.tick() => {}
            () = http::serve(listener, routes::router(Arc::clone(&watch))) => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_timeout(STOP_TIMEOUT);
}
