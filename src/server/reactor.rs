//! The reactor: one thread that accepts connections, parks every one that has nothing
//! to do, hands the others to the workers, and closes those whose deadline has passed.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use prometheus_client::metrics::gauge::Gauge;
use slab::Slab;
use threadpool::ThreadPool;

use super::close_reason::CloseReason;
use super::connection::{Connection, Next};
use super::context::{Context, ServeError};
use super::deadlines::Deadlines;
use super::handle::ServerHandle;
use super::listen::canonical;
use super::ready::{Ready, Turn, Weight};
use super::strangers::Strangers;
use crate::event;
use crate::logging::limits::{Kind, Peer as LogPeer};
use crate::metrics::{ConnectionState, Metrics};
use crate::rate_limit::{ConcurrencyLimit, Network, Permit};
use crate::service::Auth;
use crate::store::{Store, Submitter};

/// Connections accepted before others get their turn.
const ACCEPTS_PER_TURN: usize = 32;
/// Pause after the system refused to accept (no file descriptor, no memory): to try
/// again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often refused connections are logged at most. All are counted.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// How often the draw that peers wait for is looked up, in case another process drew it.
const DRAW_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Peers that waited for the draw and are answered at a time, so that the requests of
/// others do not queue behind thousands of them.
const DUE_AT_ONCE: usize = 16;
/// How often the reactor shows that it is alive, even if it has nothing to do.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The share of all connections, as a divisor, that may wait for the draw with their
/// sending side closed. One of them may still read the reply; but so does a connection look
/// whose program has gone, and these would leave no place for others. With one more, the
/// oldest is closed.
const HALF_CLOSED_WAITERS_SHARE: usize = 2;
/// The priority of the threads that do handshakes, as of `nice`: under a flood of them, a request
/// would wait for a processor until theirs is used up.
const HANDSHAKE_NICE: i32 = 10;
/// Events taken from the system at once.
const EVENTS_PER_POLL: usize = 1024;

/// The token of the waker that other threads wake the reactor with.
pub(super) const WAKER: Token = Token(1);

/// The token of all listeners: where one is ready, all are tried.
const LISTENER: Token = Token(0);
const _: () = assert!(WAKER.0 != LISTENER.0 && WAKER.0 < FIRST_PEER, "tokens must differ");
const FIRST_PEER: usize = 2;

/// The reactor's state. See the module.
pub(super) struct Reactor<S> {
    poll: Poll,
    /// One for each address; none once the server stops.
    listeners: Vec<TcpListener>,
    accept_again_at: Option<Instant>,
    peers: Slab<Peer>,
    deadlines: Deadlines,
    waiting: Waiting,
    strangers: Strangers,
    address_connections: ConcurrencyLimit<Network>,
    refusals: Refusals,
    /// Connections that wait for a worker, and how many are with one.
    ready: Ready<Box<Connection>>,
    gauges: Gauges,
    drain_until: Option<Instant>,
    returns: Sender<Return>,
    returned: Receiver<Return>,
    context: Arc<Context<S>>,
}

/// One connection, wherever it is.
struct Peer {
    address: SocketAddr,
    /// That its address may have this connection.
    _permit: Permit<Network>,
    state: PeerState,
}

enum PeerState {
    /// With the reactor, which watches what arrives.
    Parked(Box<Connection>),
    /// With a worker, which reads what arrives, or waiting for one. The reactor does not
    /// watch it.
    AtWork,
}

/// Peers that wait for the draw.
#[derive(Default)]
struct Waiting {
    /// Those whose draw is not drawn, as far as is known.
    peers: BTreeSet<usize>,
    /// Those that are to be answered, since a draw was drawn.
    due: BTreeSet<usize>,
    /// Those that were due and are with the workers.
    at_work: BTreeSet<usize>,
    /// Those that have closed their sending side, the oldest first.
    half_closed: VecDeque<usize>,
    /// [`ServerHandle::draws_seen`] when `due` was last filled.
    draws_seen: u64,
    /// When the draw is looked up, in case another process drew it.
    look_up_at: Option<Instant>,
}

/// Connections refused since the last line about them.
#[derive(Default)]
struct Refusals {
    count: u64,
    logged_at: Option<Instant>,
}

/// The gauges of connections by state.
struct Gauges {
    parked: Gauge,
    working: Gauge,
    waiting: Gauge,
}

impl Gauges {
    fn of(metrics: &Metrics) -> Self {
        Self {
            parked: metrics.connections_in(ConnectionState::parked),
            working: metrics.connections_in(ConnectionState::working),
            waiting: metrics.connections_in(ConnectionState::waiting),
        }
    }
}

/// A connection that comes back from a worker.
struct Return {
    key: usize,
    weight: Weight,
    /// `None` if the worker panicked.
    connection: Option<(Box<Connection>, Next)>,
}

/// A worker's hold on a connection. Dropping it reports to the reactor, even when the
/// worker panics.
struct Lease {
    key: usize,
    weight: Weight,
    connection: Option<(Box<Connection>, Next)>,
    returns: Sender<Return>,
    handle: ServerHandle,
}

impl Lease {
    fn give_back(mut self, connection: Box<Connection>, next: Next) {
        self.connection = Some((connection, next));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = self.connection.take();
        // It fails only if the server has ended.
        let _ = self.returns.send(Return { key: self.key, weight: self.weight, connection });
        self.handle.wake();
    }
}

impl<S: Store> Reactor<S> {
    pub(super) fn new(poll: Poll, listeners: Vec<TcpListener>, context: Arc<Context<S>>) -> Self {
        let (returns, returned) = mpsc::channel();
        let handshakes_at_once = context.handshakers.as_ref().map_or(0, ThreadPool::max_count);
        Self {
            poll,
            listeners,
            accept_again_at: None,
            peers: Slab::new(),
            deadlines: Deadlines::default(),
            waiting: Waiting::default(),
            strangers: Strangers::default(),
            address_connections: ConcurrencyLimit::new(context.limits.address_connections_max),
            refusals: Refusals::default(),
            ready: Ready::new(context.limits.workers, handshakes_at_once),
            gauges: Gauges::of(context.service.metrics()),
            drain_until: None,
            returns,
            returned,
            context,
        }
    }

    /// Serves until the server is stopped and has drained.
    pub(super) fn run(&mut self) -> Result<(), ServeError> {
        for listener in &mut self.listeners {
            self.poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            match self.poll.poll(&mut events, Some(self.poll_timeout())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.context.handle.set_awake();
            let now = Instant::now();
            self.context.handle.beat(now);
            for event in &events {
                match event.token() {
                    LISTENER => _ = self.accept_again_at.get_or_insert(now),
                    WAKER => {}
                    Token(token) => self.on_ready(token - FIRST_PEER, event),
                }
            }
            if let Some(error) = self.context.handle.take_failure() {
                return Err(ServeError::StoreFailed(error));
            }
            self.take_returned(now);
            if self.context.handle.take_ended_tokens() {
                self.close_ended();
            }
            self.accept(now);
            self.answer_waiting(now);
            self.expire(now);
            self.hand_over_ready();
            self.refusals.log_if_due(now);
            self.context.lines.report_if_due(now);
            self.update_gauges();
            if self.context.handle.is_stopping() && self.drain(now) {
                return Ok(());
            }
        }
    }

    fn update_gauges(&self) {
        let waiting = self.waiting.peers.len() + self.waiting.due.len();
        let working = self.ready.len();
        let parked = self.peers.len().saturating_sub(waiting + working);
        self.gauges.parked.set(parked as i64);
        self.gauges.working.set(working as i64);
        self.gauges.waiting.set(waiting as i64);
    }

    /// Returns how long to wait for an event.
    fn poll_timeout(&self) -> Duration {
        let next = self.next_timer().map(|at| at.saturating_duration_since(Instant::now()));
        next.unwrap_or(HEARTBEAT_INTERVAL).min(HEARTBEAT_INTERVAL)
    }

    /// Returns the next time at which something is due without an event.
    fn next_timer(&self) -> Option<Instant> {
        let timers = [
            self.deadlines.next(),
            self.accept_again_at,
            self.waiting.look_up_at,
            self.refusals.due(),
            self.drain_until,
        ];
        timers.into_iter().flatten().min()
    }

    /// Accepts the connections that wait, if a pause is not on.
    fn accept(&mut self, now: Instant) {
        if self.accept_again_at.is_none_or(|at| at > now) {
            return;
        }
        self.accept_again_at = None;
        for at in 0..self.listeners.len() {
            let again_at = self.accept_from(at, now);
            // The later of two: a system that refuses one listener refuses all.
            self.accept_again_at = self.accept_again_at.max(again_at);
        }
    }

    /// Accepts connections of one listener, and returns when to try it again even if the
    /// edge-triggered poll reports nothing.
    fn accept_from(&mut self, at: usize, now: Instant) -> Option<Instant> {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listeners[at].accept() {
                Ok((stream, address)) => self.add_peer(stream, canonical(address), now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return None,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        event!(Error, "accept_connections", Fail, error = error);
                        return Some(now + ACCEPT_PAUSE);
                    }
                },
            }
        }
        // More may wait.
        Some(now)
    }

    /// Parks a new connection, or refuses it if there are too many.
    fn add_peer(&mut self, stream: TcpStream, address: SocketAddr, now: Instant) {
        let Some(permit) = self.address_connections.take(address.ip().into()) else {
            self.refuse(now);
            return;
        };
        if self.peers.len() >= self.context.limits.connections_max && !self.close_a_stranger(now) {
            self.refuse(now);
            return;
        }
        // Replies are small and awaited, so they are sent at once. It fails if the peer
        // is already gone, which the first read reports.
        let _ = stream.set_nodelay(true);
        let entry = self.peers.vacant_entry();
        let submitter = Submitter(entry.key() as u64);
        let log_peer = LogPeer::new(address.ip(), Arc::clone(&self.context.lines));
        let mut connection = Connection::new(stream, log_peer, submitter, &self.context, now);
        if connection.watch(self.poll.registry(), Token(entry.key() + FIRST_PEER)).is_err() {
            // The system watches no more sockets, so this is one connection too many.
            self.refuse(now);
            return;
        }
        self.deadlines.set(entry.key(), connection.deadline(&self.context.limits));
        if self.context.service.auth() == Auth::Required {
            self.strangers.add(entry.key(), address.ip(), now);
        }
        entry.insert(Peer { address, _permit: permit, state: PeerState::Parked(Box::new(connection)) });
        self.context.service.metrics().connections_accepted.inc();
        if self.context.lines.allow(address.ip(), Kind::Accepted) {
            event!(Info, "accept_connections", Success, ip = address.ip());
        }
    }

    /// Closes a connection whose peer has not proved who it is, to make room for another.
    /// Returns whether there was one.
    fn close_a_stranger(&mut self, now: Instant) -> bool {
        let is_parked = |key: usize| matches!(self.peers[key].state, PeerState::Parked(_));
        let stranger = self.strangers.next_to_go(now, is_parked);
        if let Some(key) = stranger {
            self.close(key, &CloseReason::PlaceNeeded);
        }
        stranger.is_some()
    }

    /// Closes the parked connections of tokens that count no more. Those with a worker are
    /// closed there, or when they are parked.
    fn close_ended(&mut self) {
        for key in self.keys() {
            if let PeerState::Parked(connection) = &self.peers[key].state
                && !connection.is_live(&self.context.service)
            {
                self.close(key, &CloseReason::AuthEnded);
            }
        }
    }

    /// Counts a connection that is closed at once.
    fn refuse(&mut self, now: Instant) {
        self.context.service.metrics().connections_refused.inc();
        self.refusals.add(now);
    }

    /// Hands over a connection whose socket is ready, if it can go on.
    fn on_ready(&mut self, key: usize, event: &Event) {
        let Some(peer) = self.peers.get_mut(key) else {
            // It was closed earlier in this round.
            return;
        };
        match &peer.state {
            PeerState::AtWork => {}
            PeerState::Parked(connection) if event.is_error() && connection.is_waiting() => {
                self.close(key, &CloseReason::Lost(io::ErrorKind::ConnectionReset.into()));
            }
            PeerState::Parked(connection) if event.is_read_closed() && connection.is_waiting() => {
                let waiters_max = self.context.limits.connections_max / HALF_CLOSED_WAITERS_SHARE;
                if let Some(oldest) = self.waiting.add_half_closed(key, waiters_max) {
                    self.close(oldest, &CloseReason::TooManyHalfClosed);
                }
            }
            // It would read nothing of what arrived, and come back here at once.
            PeerState::Parked(connection) if !connection.reads() && !event.is_writable() => {}
            PeerState::Parked(_) => self.dispatch(key),
        }
    }

    /// Has a parked connection served.
    fn dispatch(&mut self, key: usize) {
        match std::mem::replace(&mut self.peers[key].state, PeerState::AtWork) {
            PeerState::AtWork => {}
            PeerState::Parked(mut connection) => {
                connection.unwatch(self.poll.registry());
                self.make_ready(key, connection);
            }
        }
    }

    /// Lets a connection that is not watched wait for a worker.
    fn make_ready(&mut self, key: usize, connection: Box<Connection>) {
        self.deadlines.clear(key);
        // The others pay nothing for those that wait.
        if connection.is_waiting() {
            self.waiting.remove(key);
        }
        let turn = Turn {
            network: self.peers[key].address.ip().into(),
            is_strangers: self.strangers.contains(key),
            weight: connection.weight(),
            cost: connection.turn_cost(),
        };
        self.ready.push(key, &turn, connection);
    }

    /// Hands the connections that wait to the workers that are free.
    fn hand_over_ready(&mut self) {
        while let Some((key, weight, connection)) = self.ready.pop() {
            self.hand_over(key, weight, connection);
        }
        self.context.connections_ready.store(self.ready.waiting(), Ordering::Relaxed);
    }

    fn hand_over(&mut self, key: usize, weight: Weight, mut connection: Box<Connection>) {
        let lease = Lease {
            key,
            weight,
            connection: None,
            returns: self.returns.clone(),
            handle: self.context.handle.clone(),
        };
        let context = Arc::clone(&self.context);
        let handshakers = self.context.handshakers.as_ref().filter(|_| weight == Weight::Handshake);
        handshakers.unwrap_or(&self.context.workers).execute(move || {
            if weight == Weight::Handshake {
                // It is the thread's own, on Linux. Where the system refuses, they compete.
                let _ = rustix::process::setpriority_process(None, HANDSHAKE_NICE);
            }
            // After a panic, which is logged, the lease reports to the reactor. The pool would
            // replace the thread, and abort the process if the system has none left.
            let _ = catch_unwind(AssertUnwindSafe(move || {
                let next = connection.serve(&context);
                lease.give_back(connection, next);
            }));
        });
    }

    /// Parks, closes or hands over again what the workers have given back.
    fn take_returned(&mut self, now: Instant) {
        while let Ok(Return { key, weight, connection }) = self.returned.try_recv() {
            self.ready.give_back(weight);
            self.waiting.at_work.remove(&key);
            let Some((connection, next)) = connection else {
                let ip = self.peers[key].address.ip();
                event!(Error, "close_connection", Fail, ip = ip, error = "a worker panicked");
                self.forget(key);
                continue;
            };
            match next {
                Next::Close(reason) => {
                    self.peers[key].state = PeerState::Parked(connection);
                    self.close(key, &reason);
                }
                // A peer that never stops sending does not prolong its request's deadline.
                Next::Again if !connection.is_late(now, &self.context.limits) => {
                    self.make_ready(key, connection)
                }
                Next::Again | Next::Park => self.park(key, connection, now),
            }
        }
    }

    /// Parks a connection that has nothing to do.
    fn park(&mut self, key: usize, mut connection: Box<Connection>, now: Instant) {
        if connection.is_proved() {
            self.strangers.remove(key);
        }
        let is_draining = self.drain_until.is_some();
        let waits_since_draws = connection.waits_since_draws();
        let draws_seen = self.context.handle.draws_seen();
        if waits_since_draws.is_some_and(|draws| is_draining || draws < draws_seen) {
            // A draw was drawn, or the server was stopped, while it came back.
            self.make_ready(key, connection);
            return;
        }
        let watched = connection.watch(self.poll.registry(), Token(key + FIRST_PEER));
        let (deadline, is_idle) = (connection.deadline(&self.context.limits), connection.is_idle());
        // A token may have ended while it came back.
        let is_live = connection.is_live(&self.context.service);
        self.peers[key].state = PeerState::Parked(connection);
        match watched {
            Err(error) => self.close(key, &CloseReason::Lost(error)),
            Ok(()) if !is_live => self.close(key, &CloseReason::AuthEnded),
            Ok(()) if is_draining && is_idle => self.close(key, &CloseReason::Stopped),
            Ok(()) => {
                self.deadlines.set(key, deadline);
                if waits_since_draws.is_some() {
                    self.waiting.add(key, now);
                }
            }
        }
    }

    /// Hands over the peers that wait for the draw once one was drawn, some at a time: a
    /// worker that comes back wakes the reactor for the next. Until then, hands over one
    /// of them from time to time, which finds out whether another process drew it.
    fn answer_waiting(&mut self, now: Instant) {
        let draws_seen = self.context.handle.draws_seen();
        if draws_seen != self.waiting.draws_seen {
            self.waiting.draws_seen = draws_seen;
            self.waiting.due.append(&mut self.waiting.peers);
        } else if self.waiting.look_up_at.is_some_and(|at| at <= now) {
            self.waiting.look_up_at = Some(now + DRAW_POLL_INTERVAL);
            if let Some(&key) = self.waiting.peers.first() {
                self.dispatch(key);
            }
        }
        if self.waiting.peers.is_empty() {
            self.waiting.look_up_at = None;
        }
        while self.waiting.at_work.len() < DUE_AT_ONCE
            && let Some(key) = self.waiting.due.pop_first()
        {
            self.dispatch(key);
            self.waiting.at_work.insert(key);
        }
    }

    /// Closes the connections whose deadline has passed.
    fn expire(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.take_expired(now) {
            let PeerState::Parked(connection) = &self.peers[key].state else {
                unreachable!("only parked connections have a deadline");
            };
            match connection.expired() {
                // Only its wait is over, which a worker answers.
                None => self.dispatch(key),
                Some(reason) => self.close(key, &reason),
            }
        }
    }

    /// Stops step by step: takes no new connections, closes those that are idle, lets the
    /// others finish. Returns whether all are closed or the time is up.
    fn drain(&mut self, now: Instant) -> bool {
        let Some(until) = self.drain_until else {
            self.start_draining(now);
            return self.peers.is_empty();
        };
        if now >= until {
            for key in self.keys() {
                self.close(key, &CloseReason::DrainTimeout);
            }
        }
        self.peers.is_empty() || now >= until
    }

    fn start_draining(&mut self, now: Instant) {
        self.drain_until = Some(now + self.context.limits.drain_timeout);
        self.accept_again_at = None;
        self.listeners.clear();
        event!(Info, "close_listener", Success);
        for key in self.keys() {
            match &self.peers[key].state {
                PeerState::Parked(connection) if connection.is_waiting() => self.dispatch(key),
                PeerState::Parked(connection) if connection.is_idle() => {
                    self.close(key, &CloseReason::Stopped)
                }
                PeerState::Parked(_) | PeerState::AtWork => {}
            }
        }
    }

    fn keys(&self) -> Vec<usize> {
        self.peers.iter().map(|(key, _)| key).collect()
    }

    /// Logs why a connection ends, and closes it.
    fn close(&mut self, key: usize, reason: &CloseReason) {
        let peer = &mut self.peers[key];
        let batch = match &mut peer.state {
            PeerState::Parked(connection) => {
                connection.say_goodbye();
                connection.batch_in_progress()
            }
            PeerState::AtWork => None,
        };
        if let Some(result) = reason.handshake_result() {
            self.context.service.metrics().count_handshake(result);
        }
        let mut log_peer = LogPeer::new(peer.address.ip(), Arc::clone(&self.context.lines));
        reason.log(&mut log_peer, batch);
        self.forget(key);
    }

    /// Drops the connection, which closes its socket.
    fn forget(&mut self, key: usize) {
        self.deadlines.clear(key);
        self.waiting.remove(key);
        self.strangers.remove(key);
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
        self.due.remove(&key);
        self.half_closed.retain(|other| *other != key);
    }

    /// Adds a peer that has closed its sending side, and returns the one that must make
    /// room for it, if there are too many.
    fn add_half_closed(&mut self, key: usize, waiters_max: usize) -> Option<usize> {
        if !self.half_closed.contains(&key) {
            self.half_closed.push_back(key);
        }
        let is_too_many = self.half_closed.len() > waiters_max;
        is_too_many.then(|| self.half_closed.pop_front()).flatten()
    }
}

impl Refusals {
    fn add(&mut self, now: Instant) {
        self.count += 1;
        self.log_if_due(now);
    }

    /// Returns when the next line is due, if there is anything to log.
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
