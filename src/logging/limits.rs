//! How many lines the peers that store nothing may cause: a few bytes sent must not
//! become megabytes of log.
//!
//! The lines of a connection's beginning and end, and of refusals, are limited for each
//! connection and for each address, by kind. Those left out are counted, and told of in
//! one line for each address and kind when the time is over. What is stored is always
//! logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event;

/// The time to which the limits apply.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one kind that a connection may cause in [`WINDOW`]: enough to see what is
/// wrong with its requests.
const LINES_PER_CONNECTION: u8 = 20;
/// Lines of one kind that all connections of an address may cause in [`WINDOW`].
const LINES_PER_ADDRESS: u32 = 200;
/// Addresses that are told apart in [`WINDOW`]; all others share one limit. With these
/// limits, the worst that any number of addresses can cause is 8,000 lines a second.
const ADDRESSES_MAX: usize = 64;

/// The kinds of lines that a peer can cause without storing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its connection was accepted.
    Accepted,
    /// Its connection was closed.
    Closed,
    /// A `BET` was refused.
    Bet,
    /// A batch was refused, or is empty.
    Batch,
    /// A `DONE` was refused.
    Done,
    /// A message was no request.
    Message,
    /// It did not prove who it is.
    Auth,
    /// A token was not accepted by the operators' HTTP.
    SignIn,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Closed,
        Self::Bet,
        Self::Batch,
        Self::Done,
        Self::Message,
        Self::Auth,
        Self::SignIn,
    ];

    /// Returns the action of these lines.
    fn action(self) -> &'static str {
        match self {
            Self::Accepted => "accept_connections",
            Self::Closed => "close_connection",
            Self::Bet => "apuesta_almacenada",
            Self::Batch => "apuesta_recibida",
            Self::Done => "agencia_terminada",
            Self::Message => "mensaje_recibido",
            Self::Auth => "authenticate",
            Self::SignIn => "sign_in",
        }
    }
}

/// The limits of all addresses.
#[derive(Debug, Default)]
pub struct LineLimits(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// When the window began; `None` while nothing is counted.
    since: Option<Instant>,
    addresses: HashMap<IpAddr, Counts>,
    others: Counts,
}

/// Lines by [`Kind`].
type Counts = [Count; Kind::ALL.len()];

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    logged: u32,
    left_out: u64,
}

impl Table {
    fn count(&mut self, ip: IpAddr, kind: Kind, now: Instant) -> &mut Count {
        self.since.get_or_insert(now);
        let has_room = self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(&ip);
        let counts = if has_room { self.addresses.entry(ip).or_default() } else { &mut self.others };
        &mut counts[kind as usize]
    }
}

impl LineLimits {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a line may be logged, and counts it.
    pub fn allow(&self, ip: IpAddr, kind: Kind) -> bool {
        self.allow_at(ip, kind, Instant::now())
    }

    fn allow_at(&self, ip: IpAddr, kind: Kind, now: Instant) -> bool {
        let mut table = self.lock();
        let count = table.count(ip, kind, now);
        let allowed = count.logged < LINES_PER_ADDRESS;
        match allowed {
            true => count.logged += 1,
            false => count.left_out += 1,
        }
        allowed
    }

    /// Logs how many lines were left out, once the time is over; the counts start anew.
    pub fn report_if_due(&self, now: Instant) {
        if self.lock().since.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.report();
        }
    }

    /// Logs how many lines were left out; the counts start anew.
    pub fn report(&self) {
        for (ip, kind, lines) in self.take_left_out() {
            let ip = ip.map_or("others".to_owned(), |ip| ip.to_string());
            event!(Warn, "log", Fail, suppressed = lines, line = kind.action(), ip = ip);
        }
    }

    /// Returns how many lines of each address (`None`: of the others) were left out.
    fn take_left_out(&self) -> Vec<(Option<IpAddr>, Kind, u64)> {
        let Table { addresses, others, .. } = std::mem::take(&mut *self.lock());
        let named = addresses.into_iter().map(|(ip, counts)| (Some(ip), counts));
        let all = named.chain([(None, others)]);
        let of_kinds =
            all.flat_map(|(ip, counts)| Kind::ALL.map(|kind| (ip, kind, counts[kind as usize].left_out)));
        of_kinds.filter(|(.., lines)| *lines > 0).collect()
    }
}

/// One connection's peer, as the log knows it: its address, and its share of the lines.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub ip: IpAddr,
    limits: Arc<LineLimits>,
    since: Option<Instant>,
    logged: [u8; Kind::ALL.len()],
}

impl Peer {
    /// Creates the peer of a new connection.
    pub fn new(ip: IpAddr, limits: Arc<LineLimits>) -> Self {
        Self { ip, limits, since: None, logged: Default::default() }
    }

    /// Returns whether a line about it may be logged, and counts it.
    pub fn allow(&mut self, kind: Kind) -> bool {
        self.allow_at(kind, Instant::now())
    }

    fn allow_at(&mut self, kind: Kind, now: Instant) -> bool {
        if now.saturating_duration_since(*self.since.get_or_insert(now)) >= WINDOW {
            (self.since, self.logged) = (Some(now), Default::default());
        }
        let logged = &mut self.logged[kind as usize];
        if *logged >= LINES_PER_CONNECTION {
            self.limits.lock().count(self.ip, kind, now).left_out += 1;
            return false;
        }
        *logged += 1;
        self.limits.allow_at(self.ip, kind, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Returns how many of so many lines may be logged.
    fn logged(lines: usize, mut allow: impl FnMut() -> bool) -> usize {
        (0..lines).filter(|_| allow()).count()
    }

    #[test]
    fn a_connection_may_cause_some_lines_of_each_kind_and_as_many_after_a_while() {
        let (limits, start) = (Arc::<LineLimits>::default(), Instant::now());
        let mut peer = Peer::new(IP, Arc::clone(&limits));
        for kind in [Kind::Bet, Kind::Message] {
            assert_eq!(logged(1_000, || peer.allow_at(kind, start)), 20, "{kind:?}");
        }
        let later = start + WINDOW;
        assert_eq!(logged(1_000, || peer.allow_at(Kind::Bet, later - Duration::from_millis(1))), 0);
        assert_eq!(logged(1_000, || peer.allow_at(Kind::Bet, later)), 20);
        let left_out = limits.take_left_out();
        assert_eq!(left_out, [(Some(IP), Kind::Bet, 980 + 1_000 + 980), (Some(IP), Kind::Message, 980)]);
        assert_eq!(limits.take_left_out(), [], "it is told once");
    }

    #[test]
    fn new_connections_bring_an_address_no_more_lines() {
        let (limits, now) = (Arc::<LineLimits>::default(), Instant::now());
        let of_one = |_| logged(30, || limits.allow_at(IP, Kind::Accepted, now));
        assert_eq!((0..100).map(of_one).sum::<usize>(), 200);
        let connect = |_| {
            let mut peer = Peer::new(IP, Arc::clone(&limits));
            logged(30, || peer.allow_at(Kind::Batch, now))
        };
        assert_eq!((0..100).map(connect).sum::<usize>(), 200);
        let left_out = limits.take_left_out();
        assert_eq!(left_out, [(Some(IP), Kind::Accepted, 2_800), (Some(IP), Kind::Batch, 2_800)]);
    }

    #[test]
    fn more_addresses_than_are_told_apart_share_one_limit_and_one_entry() {
        let (limits, now) = (LineLimits::default(), Instant::now());
        let ip = |index: u32| IpAddr::from(Ipv4Addr::from(index));
        let allowed = logged(100_000, {
            let mut index = 0;
            let limits = &limits;
            move || {
                index += 1;
                limits.allow_at(ip(index), Kind::Closed, now)
            }
        });
        assert_eq!(allowed, ADDRESSES_MAX + 200);
        assert!(limits.allow_at(ip(1), Kind::Closed, now), "one that is known has its own");
        assert_eq!(limits.lock().addresses.len(), ADDRESSES_MAX);
        assert_eq!(limits.take_left_out(), [(None, Kind::Closed, 100_000 - allowed as u64)]);
    }

    #[test]
    fn the_counts_start_anew_when_the_time_is_over() {
        let (limits, start) = (LineLimits::default(), Instant::now());
        assert_eq!(logged(300, || limits.allow_at(IP, Kind::Closed, start)), 200);
        limits.report_if_due(start + WINDOW / 2);
        assert!(!limits.allow_at(IP, Kind::Closed, start + WINDOW / 2));
        limits.report_if_due(start + WINDOW);
        assert!(limits.allow_at(IP, Kind::Closed, start + WINDOW));
    }
}
