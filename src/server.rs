//! The server: one reactor thread that accepts and parks connections, and a
//! threadpool that carries out what has arrived.
//!
//! A connection is owned by exactly one of the two at any time. While it has
//! nothing to say it is *parked* here and costs no thread. When it becomes
//! readable it is handed, whole, to a worker (`Connection::advance`),
//! which hands it back. So a connection never has two jobs: the pool's queue is
//! bounded by `connections_max`, and a slow peer never holds a worker.
//!
//! The caller passes in everything: [`Server::bind`] takes an address,
//! [`Listening::run`] a service and limits, and a [`Remote`] stops it.

mod connection;
mod deadlines;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};
use threadpool::ThreadPool;

use self::connection::{Connection, End, Next};
use self::deadlines::Deadlines;
use crate::event;
use crate::service::Service;
use crate::store::Store;
use crate::wire::WireLimits;

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
/// Connections accepted before others get their turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Pause after the system refused to accept (no file descriptor, no memory):
/// trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refused connections are counted always, and logged at most this often.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// How often a waiting peer's draw is looked up, in case another process made it.
const DRAW_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the workers may take to end after their last job.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Readiness events taken from the system at once.
const EVENTS_PER_POLL: usize = 1024;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_PEER: usize = 2;

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

/// Speaks to a running server from other threads.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waker: Waker,
    stop: AtomicBool,
    /// Draws made so far by this process, or seen made by another: lets a
    /// connection that is about to be parked notice that its wait is over.
    draws_made: AtomicU64,
    failure: Mutex<Option<String>>,
    /// Whether a wake-up is on its way already: one is enough for many reasons.
    woken: AtomicBool,
}

impl Remote {
    /// Asks the server to stop: no new connections, finish what is in flight.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Tells the server that a draw was made, so that waiting peers are answered.
    pub fn draw_made(&self) {
        self.0.draws_made.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// Tells the server that the store failed: it ends at once.
    pub fn store_failed(&self, error: String) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.wake();
    }

    fn draws_made_so_far(&self) -> u64 {
        self.0.draws_made.load(Ordering::SeqCst)
    }

    fn stops(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// Takes the store's failure, if there was one that nobody has taken.
    pub fn take_failure(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::SeqCst) {
            // It fails only if the server is gone, and then there is nobody to wake.
            let _ = self.0.waker.wake();
        }
    }

    /// From here on a new reason wakes anew: call it before looking for reasons.
    fn awake(&self) {
        self.0.woken.store(false, Ordering::SeqCst);
    }
}

/// A server that has its address, but does not listen yet.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    socket: Socket,
    remote: Remote,
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
        let remote = Remote(Arc::new(Shared {
            waker,
            stop: AtomicBool::new(false),
            draws_made: AtomicU64::new(0),
            failure: Mutex::new(None),
            woken: AtomicBool::new(false),
        }));
        Ok(Self { poll, socket, remote })
    }

    /// The address taken, with the port the system chose where 0 was asked for.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address.as_socket().ok_or_else(|| io::Error::other("the socket has no internet address"))
    }

    /// What stops this server and tells it of draws.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
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
    /// Serves until the [`Remote`] says stop, then drains.
    pub fn run<S: Store>(self, service: Arc<Service<S>>, limits: Limits) -> Result<(), ServeError> {
        let Self(Server { poll, socket, remote }) = self;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (returns, returned) = mpsc::channel();
        let context =
            Arc::new(Context { service, limits, remote: remote.clone(), buffered_bytes: Arc::default() });
        let workers = threadpool::Builder::new()
            .num_threads(limits.workers)
            .thread_name("sorteo-worker".into())
            .build();
        event!(Info, "accept_connections", InProgress);
        let mut reactor = Reactor {
            poll,
            listener: Some(listener),
            accept_again_at: None,
            peers: Slab::new(),
            deadlines: Deadlines::default(),
            waiting: Waiting::default(),
            refusals: Refusals::default(),
            drain_until: None,
            workers,
            returns,
            returned,
            context,
        };
        let result = reactor.run();
        if result.is_ok() {
            join_workers(reactor.workers);
        }
        result
    }
}

/// What every worker needs.
struct Context<S> {
    service: Arc<Service<S>>,
    limits: Limits,
    remote: Remote,
    /// Bytes charged against [`Limits::buffer_bytes_max`].
    buffered_bytes: Arc<AtomicUsize>,
}

struct Reactor<S> {
    poll: Poll,
    listener: Option<TcpListener>,
    accept_again_at: Option<Instant>,
    peers: Slab<Peer>,
    deadlines: Deadlines,
    waiting: Waiting,
    refusals: Refusals,
    drain_until: Option<Instant>,
    workers: ThreadPool,
    returns: Sender<Return>,
    returned: Receiver<Return>,
    context: Arc<Context<S>>,
}

/// One connection's place.
struct Peer {
    address: SocketAddr,
    whereabouts: Whereabouts,
}

enum Whereabouts {
    Parked(Box<Connection>),
    /// With a worker; `ready_again` if something arrived meanwhile.
    AtWork {
        ready_again: bool,
    },
}

/// Peers that wait for the draw.
#[derive(Default)]
struct Waiting {
    peers: std::collections::BTreeSet<usize>,
    draws_made: u64,
    look_up_at: Option<Instant>,
}

/// Connections refused since the last line about them.
#[derive(Default)]
struct Refusals {
    count: u64,
    logged_at: Option<Instant>,
}

/// A connection on its way back from a worker.
struct Return {
    key: usize,
    /// `None` if it is closed, or was lost to a panic.
    connection: Option<(Box<Connection>, Next)>,
}

/// A connection on its way through a worker. Whatever happens there, the
/// reactor hears of it.
struct Lease {
    key: usize,
    connection: Option<(Box<Connection>, Next)>,
    returns: Sender<Return>,
    remote: Remote,
}

impl Lease {
    fn give_back(mut self, connection: Box<Connection>, next: Next) {
        self.connection = Some((connection, next));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = self.connection.take();
        // Nobody listens any more when the server has ended.
        let _ = self.returns.send(Return { key: self.key, connection });
        self.remote.wake();
    }
}

impl<S: Store> Reactor<S> {
    fn run(&mut self) -> Result<(), ServeError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            let timeout = self.next_timer().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.context.remote.awake();
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => _ = self.accept_again_at.get_or_insert(now),
                    WAKER => {}
                    Token(token) => self.on_ready(token - FIRST_PEER, event),
                }
            }
            if let Some(error) = self.context.remote.take_failure() {
                return Err(ServeError::StoreFailed(error));
            }
            self.take_returned(now);
            self.accept(now)?;
            self.answer_waiting(now);
            self.expire(now);
            self.refusals.log_if_due(now);
            if self.context.remote.stops() && self.drained(now) {
                return Ok(());
            }
        }
    }

    /// The next moment at which something is due without an event.
    fn next_timer(&self) -> Option<Instant> {
        let timers = [self.deadlines.next(), self.accept_again_at, self.waiting.look_up_at, self.drain_until];
        timers.into_iter().flatten().min()
    }

    fn accept(&mut self, now: Instant) -> Result<(), ServeError> {
        if self.accept_again_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.accept_again_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else {
                return Ok(());
            };
            match listener.accept() {
                Ok((stream, address)) => self.welcome(stream, address, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        event!(Error, "accept_connections", Fail, error = error);
                        self.accept_again_at = Some(now + ACCEPT_PAUSE);
                        return Ok(());
                    }
                },
            }
        }
        // More may wait, and edge-triggered readiness will not say so again.
        self.accept_again_at = Some(now);
        Ok(())
    }

    fn welcome(&mut self, mut stream: mio::net::TcpStream, address: SocketAddr, now: Instant) {
        if self.peers.len() >= self.context.limits.connections_max {
            self.refusals.add(now);
            return;
        }
        // Answers are small and awaited: they leave at once. A peer that is
        // already gone makes this fail, and is noticed when it is read.
        let _ = stream.set_nodelay(true);
        let entry = self.peers.vacant_entry();
        let token = Token(entry.key() + FIRST_PEER);
        if self.poll.registry().register(&mut stream, token, Interest::READABLE).is_err() {
            // The system watches no more sockets: one connection too many.
            self.refusals.add(now);
            return;
        }
        let buffered_bytes = Arc::clone(&self.context.buffered_bytes);
        let connection = Connection::new(stream, self.context.limits.wire, buffered_bytes, now);
        self.deadlines.set(entry.key(), connection.deadline(&self.context.limits));
        entry.insert(Peer { address, whereabouts: Whereabouts::Parked(Box::new(connection)) });
        event!(Info, "accept_connections", Success, ip = address.ip());
    }

    fn on_ready(&mut self, key: usize, event: &Event) {
        let Some(peer) = self.peers.get_mut(key) else {
            // Closed earlier in this round.
            return;
        };
        match &mut peer.whereabouts {
            Whereabouts::AtWork { ready_again } => *ready_again = true,
            Whereabouts::Parked(connection) if event.is_error() && connection.is_waiting() => {
                self.close(key, &End::Lost(io::ErrorKind::ConnectionReset.into()));
            }
            Whereabouts::Parked(_) => self.dispatch(key),
        }
    }

    /// Hands a parked connection to a worker.
    fn dispatch(&mut self, key: usize) {
        let at_work = Whereabouts::AtWork { ready_again: false };
        let connection = match std::mem::replace(&mut self.peers[key].whereabouts, at_work) {
            Whereabouts::Parked(connection) => connection,
            at_work @ Whereabouts::AtWork { .. } => {
                self.peers[key].whereabouts = at_work;
                return;
            }
        };
        self.deadlines.clear(key);
        self.waiting.remove(key);
        let lease = Lease {
            key,
            connection: None,
            returns: self.returns.clone(),
            remote: self.context.remote.clone(),
        };
        let context = Arc::clone(&self.context);
        self.workers.execute(move || {
            let mut connection = connection;
            let next = connection.advance(&context);
            lease.give_back(connection, next);
        });
    }

    fn take_returned(&mut self, now: Instant) {
        while let Ok(Return { key, connection }) = self.returned.try_recv() {
            let Some((connection, next)) = connection else {
                let ip = self.peers[key].address.ip();
                event!(Error, "close_connection", Fail, ip = ip, error = "a worker panicked");
                self.forget(key);
                continue;
            };
            let was_ready = matches!(self.peers[key].whereabouts, Whereabouts::AtWork { ready_again: true });
            self.peers[key].whereabouts = Whereabouts::Parked(connection);
            match next {
                Next::Close(end) => self.close(key, &end),
                Next::Again => self.dispatch(key),
                Next::Park if was_ready => self.dispatch(key),
                Next::Park => self.park(key, now),
            }
        }
    }

    fn park(&mut self, key: usize, now: Instant) {
        let Whereabouts::Parked(connection) = &mut self.peers[key].whereabouts else {
            unreachable!("just returned");
        };
        if connection.wants_writable() {
            let token = Token(key + FIRST_PEER);
            let both = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = connection.reregister(self.poll.registry(), token, both) {
                self.close(key, &End::Lost(error));
                return;
            }
        }
        let stops = self.drain_until.is_some();
        match connection.waits_since_draws() {
            Some(_) if stops => self.dispatch(key),
            // The draw was made while the connection was on its way here.
            Some(draws_made) if draws_made < self.context.remote.draws_made_so_far() => self.dispatch(key),
            Some(_) => {
                self.deadlines.set(key, connection.deadline(&self.context.limits));
                self.waiting.add(key, now);
            }
            None if stops && connection.is_idle() => self.close(key, &End::Stopped),
            None => self.deadlines.set(key, connection.deadline(&self.context.limits)),
        }
    }

    /// Answers the peers that wait for the draw, when one was made; and looks
    /// from time to time whether another process made it, by asking for one of
    /// them.
    fn answer_waiting(&mut self, now: Instant) {
        let draws_made = self.context.remote.draws_made_so_far();
        if draws_made != self.waiting.draws_made {
            self.waiting.draws_made = draws_made;
            for key in std::mem::take(&mut self.waiting.peers) {
                self.dispatch(key);
            }
        } else if self.waiting.look_up_at.is_some_and(|at| at <= now) {
            self.waiting.look_up_at = Some(now + DRAW_POLL_INTERVAL);
            if let Some(&key) = self.waiting.peers.first() {
                self.dispatch(key);
            }
        }
        if self.waiting.peers.is_empty() {
            self.waiting.look_up_at = None;
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.take_expired(now) {
            let Whereabouts::Parked(connection) = &self.peers[key].whereabouts else {
                unreachable!("only parked connections have a deadline");
            };
            match connection.expired() {
                // Its wait is over: a worker tells it so.
                None => self.dispatch(key),
                Some(end) => self.close(key, &end),
            }
        }
    }

    /// Stops step by step: no new connections, idle ones closed, the others
    /// finished. Answers whether all are gone, or the time is up.
    fn drained(&mut self, now: Instant) -> bool {
        let Some(until) = self.drain_until else {
            self.start_draining(now);
            return self.peers.is_empty();
        };
        if now >= until {
            for key in self.keys() {
                self.close(key, &End::DrainTimeout);
            }
        }
        self.peers.is_empty() || now >= until
    }

    fn start_draining(&mut self, now: Instant) {
        self.drain_until = Some(now + self.context.limits.drain_timeout);
        self.accept_again_at = None;
        if self.listener.take().is_some() {
            event!(Info, "close_listener", Success);
        }
        for key in self.keys() {
            match &self.peers[key].whereabouts {
                Whereabouts::Parked(connection) if connection.is_waiting() => self.dispatch(key),
                Whereabouts::Parked(connection) if connection.is_idle() => self.close(key, &End::Stopped),
                Whereabouts::Parked(_) | Whereabouts::AtWork { .. } => {}
            }
        }
    }

    fn keys(&self) -> Vec<usize> {
        self.peers.iter().map(|(key, _)| key).collect()
    }

    fn close(&mut self, key: usize, end: &End) {
        let peer = &self.peers[key];
        let batch = match &peer.whereabouts {
            Whereabouts::Parked(connection) => connection.batch_in_progress(),
            Whereabouts::AtWork { .. } => None,
        };
        end.log(peer.address.ip(), batch);
        self.forget(key);
    }

    /// Drops the connection, which closes its socket.
    fn forget(&mut self, key: usize) {
        self.deadlines.clear(key);
        self.waiting.remove(key);
        self.peers.remove(key);
    }
}

impl Waiting {
    fn add(&mut self, key: usize, now: Instant) {
        self.peers.insert(key);
        self.look_up_at.get_or_insert(now + DRAW_POLL_INTERVAL);
    }

    fn remove(&mut self, key: usize) {
        self.peers.remove(&key);
    }
}

impl Refusals {
    fn add(&mut self, now: Instant) {
        self.count += 1;
        self.log_if_due(now);
    }

    /// When the next line is due, if there is anything to tell.
    fn due(&self) -> Option<Instant> {
        self.logged_at.filter(|_| self.count > 0).map(|at| at + REFUSALS_LOGGED_EVERY)
    }

    fn log_if_due(&mut self, now: Instant) {
        if self.count == 0 || self.due().is_some_and(|due| now < due) {
            return;
        }
        event!(Warn, "accept_connections", Fail, error = "too_many_connections", refused = self.count);
        self.count = 0;
        self.logged_at = Some(now);
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
