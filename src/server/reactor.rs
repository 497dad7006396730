//! The reactor: one thread that accepts, parks every connection that has nothing
//! to do, hands the others to the workers, and keeps everybody's deadlines.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use prometheus_client::metrics::gauge::Gauge;
use slab::Slab;

use super::close_reason::CloseReason;
use super::connection::{Connection, Next};
use super::deadlines::Deadlines;
use super::handle::ServerHandle;
use super::{Context, ServeError, WAKER};
use crate::event;
use crate::metrics::{ConnectionState, Metrics};
use crate::store::Store;

/// Connections accepted before others get their turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Pause after the system refused to accept (no file descriptor, no memory):
/// trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refused connections are counted always, and logged at most this often.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// How often a waiting peer's draw is looked up, in case another process made it.
const DRAW_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Of the peers that waited for the draw, so many are answered at a time: who asks
/// something else does not queue behind thousands.
const DUE_AT_ONCE: usize = 16;
/// Readiness events taken from the system at once.
const EVENTS_PER_POLL: usize = 1024;

const LISTENER: Token = Token(0);
const _: () = assert!(WAKER.0 != LISTENER.0 && WAKER.0 < FIRST_PEER, "tokens must differ");
const FIRST_PEER: usize = 2;

pub(super) struct Reactor<S> {
    poll: Poll,
    listener: Option<TcpListener>,
    accept_again_at: Option<Instant>,
    peers: Slab<Peer>,
    deadlines: Deadlines,
    waiting: Waiting,
    refusals: Refusals,
    /// Connections that are with the workers, or on their way there.
    at_work: usize,
    gauges: Gauges,
    drain_until: Option<Instant>,
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
    /// Here, and watched for what arrives.
    Parked(Box<Connection>),
    /// With a worker, and not watched: the worker reads what arrives.
    AtWork,
}

/// Peers that wait for the draw.
#[derive(Default)]
struct Waiting {
    peers: BTreeSet<usize>,
    /// Those that are to be answered, since the draw is made.
    due: BTreeSet<usize>,
    /// Those of them that are with the workers.
    at_work: BTreeSet<usize>,
    draws_made: u64,
    look_up_at: Option<Instant>,
}

/// Connections refused since the last line about them.
#[derive(Default)]
struct Refusals {
    count: u64,
    logged_at: Option<Instant>,
}

/// Connections by what they do, as they are shown.
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
        // Nobody listens any more when the server has ended.
        let _ = self.returns.send(Return { key: self.key, connection });
        self.handle.wake();
    }
}

impl<S: Store> Reactor<S> {
    pub(super) fn new(poll: Poll, listener: TcpListener, context: Arc<Context<S>>) -> Self {
        let (returns, returned) = mpsc::channel();
        Self {
            poll,
            listener: Some(listener),
            accept_again_at: None,
            peers: Slab::new(),
            deadlines: Deadlines::default(),
            waiting: Waiting::default(),
            refusals: Refusals::default(),
            at_work: 0,
            gauges: Gauges::of(context.service.metrics()),
            drain_until: None,
            returns,
            returned,
            context,
        }
    }

    /// Serves until it is told to stop and has drained.
    pub(super) fn run(&mut self) -> Result<(), ServeError> {
        if let Some(listener) = &mut self.listener {
            self.poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            let timeout = self.next_timer().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.context.handle.awake();
            let now = Instant::now();
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
            self.accept(now)?;
            self.answer_waiting(now);
            self.expire(now);
            self.refusals.log_if_due(now);
            self.show();
            if self.context.handle.stops() && self.drained(now) {
                return Ok(());
            }
        }
    }

    /// Lets those who watch the server see what its connections do.
    fn show(&self) {
        let waiting = self.waiting.peers.len() + self.waiting.due.len();
        let parked = self.peers.len().saturating_sub(waiting + self.at_work);
        self.gauges.parked.set(parked as i64);
        self.gauges.working.set(self.at_work as i64);
        self.gauges.waiting.set(waiting as i64);
    }

    /// The next moment at which something is due without an event.
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

    fn welcome(&mut self, stream: TcpStream, address: SocketAddr, now: Instant) {
        if self.peers.len() >= self.context.limits.connections_max {
            self.refuse(now);
            return;
        }
        // Answers are small and awaited: they leave at once. A peer that is
        // already gone makes this fail, and is noticed when it is read.
        let _ = stream.set_nodelay(true);
        let buffered_bytes = Arc::clone(&self.context.buffered_bytes);
        let mut connection = Connection::new(stream, self.context.limits.wire, buffered_bytes, now);
        let entry = self.peers.vacant_entry();
        if connection.watch(self.poll.registry(), Token(entry.key() + FIRST_PEER)).is_err() {
            // The system watches no more sockets: one connection too many.
            self.refuse(now);
            return;
        }
        self.deadlines.set(entry.key(), connection.deadline(&self.context.limits));
        entry.insert(Peer { address, whereabouts: Whereabouts::Parked(Box::new(connection)) });
        self.context.service.metrics().connections_accepted.inc();
        event!(Info, "accept_connections", Success, ip = address.ip());
    }

    fn refuse(&mut self, now: Instant) {
        self.context.service.metrics().connections_refused.inc();
        self.refusals.add(now);
    }

    fn on_ready(&mut self, key: usize, event: &Event) {
        let Some(peer) = self.peers.get_mut(key) else {
            // Closed earlier in this round.
            return;
        };
        match &peer.whereabouts {
            Whereabouts::AtWork => {}
            Whereabouts::Parked(connection) if event.is_error() && connection.is_waiting() => {
                self.close(key, &CloseReason::Lost(io::ErrorKind::ConnectionReset.into()));
            }
            // What it is not ready to read would bring it back here at once.
            Whereabouts::Parked(connection) if !connection.reads() && !event.is_writable() => {}
            Whereabouts::Parked(_) => self.dispatch(key),
        }
    }

    /// Hands a parked connection to a worker.
    fn dispatch(&mut self, key: usize) {
        match std::mem::replace(&mut self.peers[key].whereabouts, Whereabouts::AtWork) {
            Whereabouts::AtWork => {}
            Whereabouts::Parked(mut connection) => {
                connection.unwatch(self.poll.registry());
                self.hand_over(key, connection);
            }
        }
    }

    /// Gives a connection that is not watched to a worker.
    fn hand_over(&mut self, key: usize, mut connection: Box<Connection>) {
        self.deadlines.clear(key);
        self.waiting.remove(key);
        let lease = Lease {
            key,
            connection: None,
            returns: self.returns.clone(),
            handle: self.context.handle.clone(),
        };
        let context = Arc::clone(&self.context);
        self.at_work += 1;
        self.context.workers.execute(move || {
            let next = connection.serve(&context);
            lease.give_back(connection, next);
        });
    }

    fn take_returned(&mut self, now: Instant) {
        while let Ok(Return { key, connection }) = self.returned.try_recv() {
            self.at_work -= 1;
            self.waiting.at_work.remove(&key);
            let Some((connection, next)) = connection else {
                let ip = self.peers[key].address.ip();
                event!(Error, "close_connection", Fail, ip = ip, error = "a worker panicked");
                self.forget(key);
                continue;
            };
            match next {
                Next::Close(end) => {
                    self.peers[key].whereabouts = Whereabouts::Parked(connection);
                    self.close(key, &end);
                }
                // Who sends on and on does not prolong a request's time.
                Next::Again if !connection.is_late(now, &self.context.limits) => {
                    self.hand_over(key, connection)
                }
                Next::Again | Next::Park => self.park(key, connection, now),
            }
        }
    }

    /// Watches a connection that has nothing to do, until it has.
    fn park(&mut self, key: usize, mut connection: Box<Connection>, now: Instant) {
        let stops = self.drain_until.is_some();
        let waits_since_draws = connection.waits_since_draws();
        if waits_since_draws.is_some_and(|draws| stops || draws < self.context.handle.draws_made_so_far()) {
            // The draw was made, or the end began, while it was on its way here.
            self.hand_over(key, connection);
            return;
        }
        let watched = connection.watch(self.poll.registry(), Token(key + FIRST_PEER));
        let (deadline, is_idle) = (connection.deadline(&self.context.limits), connection.is_idle());
        self.peers[key].whereabouts = Whereabouts::Parked(connection);
        match watched {
            Err(error) => self.close(key, &CloseReason::Lost(error)),
            Ok(()) if stops && is_idle => self.close(key, &CloseReason::Stopped),
            Ok(()) => {
                self.deadlines.set(key, deadline);
                if waits_since_draws.is_some() {
                    self.waiting.add(key, now);
                }
            }
        }
    }

    /// Answers the peers that wait for the draw, when one was made; and looks
    /// from time to time whether another process made it, by asking for one of
    /// them. A worker that comes back wakes us for the next.
    fn answer_waiting(&mut self, now: Instant) {
        let draws_made = self.context.handle.draws_made_so_far();
        if draws_made != self.waiting.draws_made {
            self.waiting.draws_made = draws_made;
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
                self.close(key, &CloseReason::DrainTimeout);
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
                Whereabouts::Parked(connection) if connection.is_idle() => {
                    self.close(key, &CloseReason::Stopped)
                }
                Whereabouts::Parked(_) | Whereabouts::AtWork => {}
            }
        }
    }

    fn keys(&self) -> Vec<usize> {
        self.peers.iter().map(|(key, _)| key).collect()
    }

    fn close(&mut self, key: usize, end: &CloseReason) {
        let peer = &self.peers[key];
        let batch = match &peer.whereabouts {
            Whereabouts::Parked(connection) => connection.batch_in_progress(),
            Whereabouts::AtWork => None,
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
        self.due.remove(&key);
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
