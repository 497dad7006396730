//! The server: one reactor thread that accepts and parks connections, and a
//! threadpool that carries out what has arrived.
//!
//! A connection is owned by exactly one of the two at any time. While it has
//! nothing to say it is *parked* here and costs no thread. When it becomes
//! readable it is handed, whole, to a worker (`Connection::serve`),
//! which hands it back. So a connection never has two jobs: the pool's queue is
//! bounded by `connections_max`, and a slow peer holds a worker for a millisecond at
//! most, and only while nobody else needs one.
//!
//! The caller passes in everything: [`Server::bind`] takes an address,
//! [`Listening::run`] a service and limits, and a [`ServerHandle`] stops it.

mod charge;
mod close_reason;
mod connection;
mod deadlines;
mod handle;
mod reactor;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};
use threadpool::ThreadPool;

pub use self::handle::ServerHandle;
use self::reactor::Reactor;
use crate::event;
use crate::service::Service;
use crate::store::Store;
use sorteo_protocol::wire::WireLimits;

/// What one server allows. Every wait, queue and buffer has its name here.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that carry out requests.
    pub workers: usize,
    /// Most connections at once; one more is closed without an answer.
    pub connections_max: usize,
    /// A request arrives whole within this time from its first byte.
    pub request_timeout: Duration,
    /// A connection without a request may stay this long.
    pub idle_timeout: Duration,
    /// What is in flight when the server stops is finished within this time.
    pub drain_timeout: Duration,
    /// Most bytes of answers that may wait for a peer to read them.
    pub output_bytes_max: usize,
    /// Bytes of half-received requests of all connections together, beyond
    /// [`BUFFER_BYTES_FREE`] for each.
    pub buffer_bytes_max: usize,
    /// What one message may hold.
    pub wire: WireLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 64,
            connections_max: 10_000,
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(15 * 60),
            drain_timeout: Duration::from_secs(8),
            output_bytes_max: 64 << 10,
            buffer_bytes_max: 256 << 20,
            wire: WireLimits::default(),
        }
    }
}

/// Bytes of half-received requests that each connection may hold free of charge.
/// It covers every batch of the seeds' clients, so no flood of large requests
/// can crowd out a small one.
pub const BUFFER_BYTES_FREE: usize = 64 << 10;
/// Connections that the system keeps waiting for `accept`.
const BACKLOG: i32 = 1024;
/// How long the workers may take to end after their last job.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What the reactor is woken by.
const WAKER: Token = Token(1);

/// Why a server ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system's readiness interface or the listening socket failed.
    #[error("the listening socket failed: {0}")]
    Io(#[from] io::Error),
    /// The store failed in a way that leaves a write's outcome unknown. Every
    /// agency that got no answer sends again.
    #[error("the database failed: {0}")]
    StoreFailed(String),
}

/// A server that has its address, but does not listen yet.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    socket: Socket,
    handle: ServerHandle,
}

impl Server {
    /// Takes the address. Nobody can connect before [`Server::listen`], so the
    /// database may be opened, and a due draw made, in between.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted server takes its port back though old connections linger.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let handle = ServerHandle::new(waker);
        Ok(Self { poll, socket, handle })
    }

    /// The address taken, with the port the system chose where 0 was asked for.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address.as_socket().ok_or_else(|| io::Error::other("the socket has no internet address"))
    }

    /// What stops this server and tells it of draws.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Starts to listen: from here on peers can connect, though nobody answers
    /// before [`Listening::run`].
    pub fn listen(self) -> io::Result<Listening> {
        self.socket.listen(BACKLOG)?;
        Ok(Listening(self))
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Listening(Server);

impl Listening {
    /// Serves until the [`ServerHandle`] says stop, then drains.
    pub fn run<S: Store>(self, service: Arc<Service<S>>, limits: Limits) -> Result<(), ServeError> {
        let Self(Server { poll, socket, handle }) = self;
        let listener = TcpListener::from_std(socket.into());
        let workers = threadpool::Builder::new()
            .num_threads(limits.workers)
            .thread_name("sorteo-worker".into())
            .build();
        let buffered_bytes = Arc::default();
        let context = Arc::new(Context { service, limits, handle, buffered_bytes, workers: workers.clone() });
        event!(Info, "accept_connections", InProgress);
        Reactor::new(poll, listener, context).run()?;
        join_workers(workers);
        Ok(())
    }
}

/// What every worker needs.
struct Context<S> {
    service: Arc<Service<S>>,
    limits: Limits,
    handle: ServerHandle,
    /// Bytes charged against [`Limits::buffer_bytes_max`].
    buffered_bytes: Arc<AtomicUsize>,
    workers: ThreadPool,
}

impl<S> Context<S> {
    /// Whether a worker may wait for its peer, because nobody waits for a worker.
    fn has_spare_worker(&self) -> bool {
        self.workers.queued_count() == 0 && !self.handle.stops()
    }
}

/// Waits for the workers on a thread of its own: `join` has no deadline.
fn join_workers(workers: ThreadPool) {
    let (joined, wait) = mpsc::channel();
    thread::spawn(move || {
        workers.join();
        let _ = joined.send(());
    });
    match wait.recv_timeout(JOIN_TIMEOUT) {
        Ok(()) => event!(Info, "close_workers", Success),
        Err(_) => event!(Warn, "close_workers", Fail, error = "a worker is still busy"),
    }
}
