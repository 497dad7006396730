//! The connections whose peers must prove who they are and have not yet: the ones that give up
//! their places where all are taken.
//!
//! The place is taken from the address that has most of them, and there from the oldest: whoever
//! floods the server from one address takes places from itself. One that was accepted a moment
//! ago keeps its place, so that a flood from many addresses does not take it from an agency in the
//! middle of its proof; where all were, the new connection is refused.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::rate_limit::Network;

/// The strangers by their addresses. See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    by_network: HashMap<Network, BTreeSet<Stranger>>,
    known: HashMap<usize, (Network, Stranger)>,
}

/// When it was accepted, and its connection's key.
type Stranger = (Instant, usize);

/// How long a stranger keeps its place whatever happens: a handshake of TLS and an `AUTH` over a
/// line of 200 ms, with room to spare.
const GRACE: Duration = Duration::from_secs(1);

impl Strangers {
    /// Adds a connection that was accepted now.
    pub(super) fn add(&mut self, key: usize, ip: IpAddr, now: Instant) {
        let (network, stranger) = (Network::from(ip), (now, key));
        self.by_network.entry(network).or_default().insert(stranger);
        self.known.insert(key, (network, stranger));
    }

    /// Removes a connection, which has ended or whose peer has proved who it is.
    pub(super) fn remove(&mut self, key: usize) {
        let Some((network, stranger)) = self.known.remove(&key) else { return };
        if let Some(of_network) = self.by_network.get_mut(&network) {
            of_network.remove(&stranger);
            if of_network.is_empty() {
                self.by_network.remove(&network);
            }
        }
    }

    /// Returns whether it is of a peer that must prove who it is, and has not.
    pub(super) fn contains(&self, key: usize) -> bool {
        self.known.contains_key(&key)
    }

    /// Returns the connection that gives up its place, if one may be closed: the oldest of the
    /// address that has most or, where that was accepted a moment ago, the oldest of all.
    pub(super) fn next_to_go(&self, now: Instant, may_be_closed: impl Fn(usize) -> bool) -> Option<usize> {
        let may_go = |(accepted_at, key): &Stranger| now >= *accepted_at + GRACE && may_be_closed(*key);
        let oldest = |of_network: &BTreeSet<Stranger>| of_network.iter().copied().find(may_go);
        let most = self.by_network.values().max_by_key(|of_network| of_network.len())?;
        let stranger = oldest(most).or_else(|| self.by_network.values().filter_map(oldest).min())?;
        Some(stranger.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_address_with_most_goes_first() {
        let [flood, good] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let start = Instant::now();
        let later = start + GRACE;
        let mut strangers = Strangers::default();
        strangers.add(7, good, start);
        (10..13).for_each(|key| strangers.add(key, flood, start));
        assert_eq!(strangers.next_to_go(later, |_| true), Some(10));
        assert_eq!(strangers.next_to_go(later, |key| key > 10), Some(11), "one with a worker stays");
        [10, 11, 99].into_iter().for_each(|key| strangers.remove(key));
        strangers.remove(12);
        assert_eq!(strangers.next_to_go(later, |_| true), Some(7));
        strangers.remove(7);
        assert_eq!((strangers.next_to_go(later, |_| true), strangers.by_network.len()), (None, 0));
    }

    #[test]
    fn one_that_was_accepted_a_moment_ago_keeps_its_place() {
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let start = Instant::now();
        let now = start + GRACE;
        let mut strangers = Strangers::default();
        (0..3).for_each(|key| strangers.add(key, ip(1), now));
        assert_eq!(strangers.next_to_go(now, |_| true), None, "the new one is refused");
        strangers.add(9, ip(2), start);
        assert_eq!(strangers.next_to_go(now, |_| true), Some(9), "an older one of another address goes");
    }
}
