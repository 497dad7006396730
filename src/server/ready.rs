//! The connections that wait for a worker, in three lanes: what is quickly done does not
//! wait behind what keeps a processor or the writer busy, nor behind handshakes of TLS.
//!
//! Only so many heavy connections are with workers at a time as keep all processors busy,
//! which leaves workers, and reading connections to the database, for the others. Handshakes, and
//! peers that must prove who they are and have not, are taken from each address in turn: whoever
//! begins many delays its own.

use std::num::NonZeroUsize;
use std::thread;

use crate::fair_queue::{FairQueue, FlowId};
use crate::rate_limit::Network;

/// What a turn of a stranger costs at least, in microseconds. As nothing is known of it, it would
/// count as free, and go ahead of all that are known.
const STRANGER_MICROSECONDS: u64 = 50;
/// Tells the flow of an address from those of connections.
const ADDRESS_FLOWS: FlowId = 1 << 63;

/// What waits for a worker, each a connection with its key. See the module.
pub(super) struct Ready<T> {
    light: Lane<T>,
    heavy: Lane<T>,
    handshakes: Lane<T>,
}

struct Lane<T> {
    waiting: FairQueue<(usize, T)>,
    at_work: usize,
    at_work_max: usize,
}

/// How much work a connection is likely to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Little.
    Light,
    /// Enough to keep a processor or the writer busy.
    Heavy,
    /// A handshake of TLS: a fraction of a millisecond of a processor, which costs the peer almost
    /// nothing.
    Handshake,
}

/// The next turn of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// The address of its peer.
    pub(super) network: Network,
    /// Whether the peer must prove who it is, and has not.
    pub(super) is_strangers: bool,
    pub(super) weight: Weight,
    /// What it is likely to cost, in microseconds.
    pub(super) cost: u64,
}

impl Turn {
    /// Returns the flow in which it takes its turn, for the connection with this key.
    fn flow(&self, key: usize) -> FlowId {
        match self.weight == Weight::Handshake || self.is_strangers {
            true => ADDRESS_FLOWS | self.network.number(),
            false => key as FlowId,
        }
    }

    fn cost(&self) -> u64 {
        if self.is_strangers { self.cost.max(STRANGER_MICROSECONDS) } else { self.cost }
    }
}

/// Returns how many of the workers are for handshakes of TLS, at least one: few, and not more than
/// half of the processors, since a flood of handshakes keeps each of these workers busy.
pub(super) fn handshake_workers(workers: usize) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (workers / 32).min(processors / 2).max(1)
}

impl<T> Ready<T> {
    /// Creates empty lanes to so many workers, a sixteenth of which are for the heavy, and so
    /// many for handshakes.
    pub(super) fn new(workers: usize, handshakes: usize) -> Self {
        let heavy = (workers / 16).max(1);
        Self {
            light: Lane::new(workers.saturating_sub(heavy + handshakes).max(1)),
            heavy: Lane::new(heavy),
            handshakes: Lane::new(handshakes),
        }
    }

    /// Adds a connection, which waits for its turn.
    pub(super) fn push(&mut self, key: usize, turn: &Turn, connection: T) {
        self.lane(turn.weight).waiting.push(turn.flow(key), turn.cost(), (key, connection));
    }

    /// Takes the next connection for which there is a worker. It is with that worker until
    /// [`Ready::give_back`].
    pub(super) fn pop(&mut self) -> Option<(usize, Weight, T)> {
        [Weight::Light, Weight::Heavy, Weight::Handshake].into_iter().find_map(|weight| {
            let (key, connection) = self.lane(weight).pop()?;
            Some((key, weight, connection))
        })
    }

    /// Notes that the worker of a connection is free again.
    pub(super) fn give_back(&mut self, weight: Weight) {
        self.lane(weight).at_work -= 1;
    }

    /// Returns how many connections wait.
    pub(super) fn waiting(&self) -> usize {
        self.light.waiting.len() + self.heavy.waiting.len() + self.handshakes.waiting.len()
    }

    /// Returns how many connections wait or are with a worker.
    pub(super) fn len(&self) -> usize {
        self.waiting() + self.light.at_work + self.heavy.at_work + self.handshakes.at_work
    }

    fn lane(&mut self, weight: Weight) -> &mut Lane<T> {
        match weight {
            Weight::Light => &mut self.light,
            Weight::Heavy => &mut self.heavy,
            Weight::Handshake => &mut self.handshakes,
        }
    }
}

impl<T> Lane<T> {
    fn new(at_work_max: usize) -> Self {
        Self { waiting: FairQueue::default(), at_work: 0, at_work_max }
    }

    fn pop(&mut self) -> Option<(usize, T)> {
        if self.at_work >= self.at_work_max {
            return None;
        }
        let next = self.waiting.pop()?;
        self.at_work += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// A turn of a peer at 192.0.2.`host`.
    fn turn(host: u8, weight: Weight, cost: u64) -> Turn {
        Turn { network: IpAddr::from([192, 0, 2, host]).into(), is_strangers: false, weight, cost }
    }

    fn drain(ready: &mut Ready<()>) -> Vec<usize> {
        std::iter::from_fn(|| ready.pop()).map(|(key, ..)| key).collect()
    }

    #[test]
    fn however_many_are_heavy_a_light_one_finds_a_worker() {
        let mut ready = Ready::new(32, 0);
        (0..100).for_each(|key| ready.push(key, &turn(1, Weight::Heavy, 1_000), ()));
        let taken = drain(&mut ready);
        assert_eq!(taken, [0, 1], "a sixteenth of the workers");
        ready.push(100, &turn(1, Weight::Light, 1), ());
        assert_eq!(ready.pop(), Some((100, Weight::Light, ())));
        assert_eq!((ready.pop(), ready.waiting(), ready.len()), (None, 98, 101));
        ready.give_back(Weight::Light);
        assert_eq!(ready.pop(), None, "the worker of a light one is not for a heavy one");
        ready.give_back(Weight::Heavy);
        assert_eq!(ready.pop(), Some((2, Weight::Heavy, ())));
    }

    #[test]
    fn however_many_are_light_a_heavy_one_finds_a_worker() {
        for workers in [1, 2, 64] {
            let mut ready = Ready::new(workers, 1);
            (0..100).for_each(|key| ready.push(key, &turn(1, Weight::Light, 1), ()));
            ready.push(100, &turn(1, Weight::Heavy, 1_000), ());
            let taken = drain(&mut ready);
            assert!(taken.contains(&100) && taken.len() >= 2, "{workers}: {taken:?}");
        }
    }

    #[test]
    fn a_flood_of_handshakes_from_one_address_delays_no_other_and_takes_few_workers() {
        let mut ready = Ready::new(64, 2);
        (0..500).for_each(|key| ready.push(key, &turn(1, Weight::Handshake, 200), ()));
        ready.push(500, &turn(2, Weight::Handshake, 200), ());
        ready.push(501, &turn(1, Weight::Light, 10), ());
        let taken = drain(&mut ready);
        assert_eq!(taken, [501, 0, 500], "so many workers, and each address in turn");
        ready.give_back(Weight::Handshake);
        assert_eq!(ready.pop(), Some((1, Weight::Handshake, ())));
    }

    #[test]
    fn a_flood_of_strangers_delays_no_agency_and_no_other_address() {
        let mut ready = Ready::new(64, 0);
        let stranger = |host| Turn { is_strangers: true, ..turn(host, Weight::Light, 0) };
        (0..500).for_each(|key| ready.push(key, &stranger(1), ()));
        ready.push(500, &turn(3, Weight::Light, 300), ());
        ready.push(501, &stranger(2), ());
        let taken = drain(&mut ready);
        let place = |key| taken.iter().position(|taken| *taken == key).unwrap();
        assert!(place(501) <= 1 && place(500) <= 7, "{taken:?}");
    }
}
