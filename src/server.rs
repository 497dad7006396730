//! The server: one reactor thread that accepts and parks connections, and a
//! threadpool that carries out what has arrived.
//!
//! A connection is owned by exactly one of the two at any time. While it has nothing to
//! do it is *parked* with the reactor and costs no thread. When it becomes readable it is
//! handed, whole, to a worker (`Connection::serve`), which hands it back. So a connection
//! never has two jobs: the pool's queue is bounded by `connections_max`, and a slow peer
//! holds a worker for a millisecond at most, and only while no other connection needs one.
//!
//! The caller passes in everything: [`Server::bind`] takes an address,
//! [`Server::listen`] the limits, [`Listening::run`] a service, and a [`ServerHandle`] stops it.
//!
//! | file | job |
//! |---|---|
//! | `reactor`, `deadlines` | accept, park, hand over to workers; what is due when |
//! | `ready` | the connections that wait for a worker: which is next |
//! | `strangers` | the connections that give up their places where all are taken |
//! | `connection` | one peer's bytes, deadlines and limits |
//! | `transport` | its socket: bytes as they are, or within TLS |
//! | [`tls`] | TLS: its files, its sessions, and the agency of a client's certificate |
//! | [`conversation`] | one peer's requests and replies, without a socket |
//! | `token_watch` | notices tokens that were revoked or have expired |
//! | `buffer_budget` | the memory that all half-received requests may take together |
//! | `close_reason` | why a connection ended, and the line that says so |
//! | [`listen`] | the addresses: every address of a name, several names |
//! | `handle` | how other threads stop the server and report draws to it |
//! | `context`, `limits` | what the reactor and the workers share; what a server allows |

mod buffer_budget;
mod close_reason;
mod connection;
mod context;
pub mod conversation;
mod deadlines;
mod handle;
mod limits;
pub mod listen;
mod reactor;
mod ready;
mod strangers;
pub mod tls;
mod token_watch;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Poll, Waker};
use socket2::Socket;
use threadpool::ThreadPool;

use self::context::Context;
pub use self::context::ServeError;
pub use self::handle::ServerHandle;
pub use self::limits::{BUFFER_BYTES_FREE, HANDSHAKES_AT_ONCE, HANDSHAKES_PER_SECOND, Limits};
use self::listen::{Endpoint, ListenError, local_address};
use self::reactor::{Reactor, WAKER};
use self::ready::handshake_workers;
use self::tls::Tls;
use self::token_watch::TokenWatch;
use crate::event;
use crate::logging::limits::LineLimits;
use crate::rate_limit::RateLimit;
use crate::service::Service;
use crate::store::Store;

/// Connections that the system keeps waiting for `accept`, at each address.
pub const BACKLOG: u32 = 1024;
/// What the system keeps of replies that a peer has not read, besides
/// [`Limits::output_bytes_max`]. Linux doubles it for its own needs, and would let it
/// grow to megabytes by itself.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// What the system keeps of requests that are not read yet. A peer 200 ms away sends a
/// megabyte a second with it.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;
/// How long the workers may take to end once all connections are closed.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether they have.
const JOIN_POLL: Duration = Duration::from_millis(1);

/// A server that has its addresses, but does not listen yet.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    sockets: Vec<Socket>,
    handle: ServerHandle,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Takes sockets that have the addresses: see [`listen::bind`]. No peer can connect
    /// before [`Server::listen`], so that the database can be opened, and a due draw be
    /// drawn, in between.
    ///
    /// # Errors
    ///
    /// Where the system provides no poll, or no buffers of the sizes that connections have.
    pub fn new(sockets: Vec<Socket>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        // Connections have the sizes of the socket that they come from.
        for socket in &sockets {
            socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        let handle = ServerHandle::new(waker);
        Ok(Self { poll, sockets, handle, tls: None })
    }

    /// Offers TLS, or requires it: see [`Tls`]. Without it, TLS is off.
    pub fn with_tls(mut self, tls: Option<Arc<Tls>>) -> Self {
        self.tls = tls;
        self
    }

    /// Takes one address: see [`Server::new`].
    ///
    /// # Errors
    ///
    /// Where the address is taken or is not one of this machine.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let bound = listen::bind(&[Endpoint::from(address)]).map_err(|error| error.source)?;
        Self::new(bound.sockets)
    }

    /// Returns the addresses, with the port that the system chose if 0 was given.
    ///
    /// # Errors
    ///
    /// Where the system does not know a socket's address.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(local_address).collect()
    }

    /// Returns a handle that stops this server and reports draws to it.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Starts the workers, then to listen: from here on peers can connect, though they are
    /// not served before [`Listening::run`].
    ///
    /// # Errors
    ///
    /// Where the system refuses to listen at an address.
    ///
    /// # Panics
    ///
    /// Where the system has not enough threads for the workers: the pool cannot report it.
    pub fn listen(self, limits: Limits) -> Result<Listening, ListenError> {
        let handshakers = self.tls.as_ref().map(|_| handshake_workers(limits.workers));
        // One at least for what is quickly done, and one for what is not.
        let workers = (limits.workers - handshakers.unwrap_or(0)).max(limits.workers.min(2));
        let handshakers = handshakers.map(|threads| start_pool("sorteo-tls", threads));
        let workers = start_pool("sorteo-worker", workers);
        listen::listen(&self.sockets, BACKLOG as i32)?;
        self.handle.beat(Instant::now());
        Ok(Listening { server: self, limits, workers, handshakers })
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Listening {
    server: Server,
    limits: Limits,
    workers: ThreadPool,
    handshakers: Option<ThreadPool>,
}

impl Listening {
    /// Serves until [`ServerHandle::stop`] is called, then drains.
    ///
    /// # Errors
    ///
    /// Where the store or the listening socket fails: see [`ServeError`].
    pub fn run<S: Store>(self, service: Arc<Service<S>>) -> Result<(), ServeError> {
        let Self { server: Server { poll, sockets, handle, tls }, limits, workers, handshakers } = self;
        let listeners = sockets.into_iter().map(|socket| TcpListener::from_std(socket.into())).collect();
        let lines = Arc::<LineLimits>::default();
        let context = Arc::new(Context {
            service,
            limits,
            tls,
            handshakes: RateLimit::new(HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE),
            handle,
            buffered_bytes: Arc::default(),
            workers: workers.clone(),
            handshakers: handshakers.clone(),
            connections_ready: AtomicUsize::new(0),
            lines: Arc::clone(&lines),
        });
        // The operators' tokens end too, where agencies need none.
        let watch = TokenWatch::start(Arc::clone(&context.service), context.handle.clone())?;
        event!(Info, "accept_connections", InProgress);
        let served = Reactor::new(poll, listeners, context).run();
        lines.report();
        drop(watch);
        served?;
        wait_for_workers(&workers, handshakers.as_ref());
        Ok(())
    }
}

fn start_pool(name: &str, threads: usize) -> ThreadPool {
    threadpool::Builder::new().num_threads(threads).thread_name(name.into()).build()
}

/// Waits until no worker has anything to do. The pool's own `join` has no deadline, and
/// there may be no thread left to call it on.
fn wait_for_workers(workers: &ThreadPool, handshakers: Option<&ThreadPool>) {
    let until = Instant::now() + JOIN_TIMEOUT;
    let is_busy =
        || [workers].into_iter().chain(handshakers).any(|pool| pool.active_count() + pool.queued_count() > 0);
    while is_busy() && Instant::now() < until {
        thread::sleep(JOIN_POLL);
    }
    match is_busy() {
        false => event!(Info, "close_workers", Success),
        true => event!(Warn, "close_workers", Fail, error = "a worker is still busy"),
    }
}
