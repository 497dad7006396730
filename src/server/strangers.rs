//! The connections whose peers must prove who they are and have not yet: the ones that give up
//! their places where all are taken.
//!
//! The place is taken from the address that has most of them, and there from the oldest. So
//! whoever floods the server from one address only takes places from itself.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::rate_limit::Network;

/// The strangers by their addresses. See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    by_network: HashMap<Network, BTreeSet<Stranger>>,
    known: HashMap<usize, (Network, Stranger)>,
    accepted: u64,
}

/// When it was accepted, in the order of all, and its connection's key.
type Stranger = (u64, usize);

impl Strangers {
    /// Adds a connection that was accepted now.
    pub(super) fn add(&mut self, key: usize, ip: IpAddr) {
        let (network, stranger) = (Network::from(ip), (self.accepted, key));
        self.accepted += 1;
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

    /// Returns the connection that gives up its place: the oldest that may be closed, of the
    /// address that has most.
    pub(super) fn next_to_go(&self, may_be_closed: impl Fn(usize) -> bool) -> Option<usize> {
        let most = self.by_network.values().max_by_key(|of_network| of_network.len())?;
        most.iter().map(|(_, key)| *key).find(|key| may_be_closed(*key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_address_with_most_goes_first() {
        let [flood, good] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let mut strangers = Strangers::default();
        strangers.add(7, good);
        (10..13).for_each(|key| strangers.add(key, flood));
        assert_eq!(strangers.next_to_go(|_| true), Some(10));
        assert_eq!(strangers.next_to_go(|key| key > 10), Some(11), "one with a worker stays");
        [10, 11, 99].into_iter().for_each(|key| strangers.remove(key));
        strangers.remove(12);
        assert_eq!(strangers.next_to_go(|_| true), Some(7));
        strangers.remove(7);
        assert_eq!((strangers.next_to_go(|_| true), strangers.by_network.len()), (None, 0));
    }
}
