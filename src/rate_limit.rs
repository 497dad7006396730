//! How often something may happen, and how many there may be at once, for each key: an address,
//! or an agency.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter as Governor};

/// Keys from which on those are forgotten that have done nothing for a while.
const KEYS_KEPT: usize = 1_000;
/// How often that is done at most: it looks at every key.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// A limit for each key: so many a second on average, and so many at once.
#[derive(Debug)]
pub struct RateLimit<K: Clone + Eq + Hash> {
    governor: Governor<K, HashMapStateStore<K>, DefaultClock>,
    forgot_at: Mutex<Instant>,
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    /// Creates a limit of `per_second` on average, and of `burst` at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self::of(Quota::per_second(per_second).allow_burst(burst))
    }

    fn of(quota: Quota) -> Self {
        let governor = Governor::hashmap_with_clock(quota, DefaultClock::default());
        Self { governor, forgot_at: Mutex::new(Instant::now()) }
    }

    /// Creates a limit of one in each `period` on average, and of `burst` at once.
    ///
    /// # Panics
    ///
    /// Where the period is 0.
    pub fn one_in(period: Duration, burst: NonZeroU32) -> Self {
        let quota = Quota::with_period(period).expect("a period takes time");
        Self::of(quota.allow_burst(burst))
    }

    /// Creates a limit of so many in any second.
    pub fn per_second(number: NonZeroU32) -> Self {
        Self::new(number, number)
    }

    /// Returns whether it may happen once more now, and counts that it does.
    pub fn allows(&self, key: &K) -> bool {
        self.check(key).is_ok()
    }

    /// Counts that it happens once more, if it may now.
    ///
    /// # Errors
    ///
    /// Where it may not: how long until it may.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        if self.governor.len() >= KEYS_KEPT {
            self.forget_idle();
        }
        self.governor
            .check_key(key)
            .map_err(|not_until| not_until.wait_time_from(self.governor.clock().now()))
    }

    /// Forgets the keys that have their whole burst again. Another thread may do it already.
    fn forget_idle(&self) {
        let Ok(mut forgot_at) = self.forgot_at.try_lock() else { return };
        if forgot_at.elapsed() >= FORGET_INTERVAL {
            *forgot_at = Instant::now();
            self.governor.retain_recent();
        }
    }
}

/// A limit for each key of how many there may be at once. Without a limit, nothing is counted.
#[derive(Debug)]
pub struct ConcurrencyLimit<K> {
    max: Option<u32>,
    counts: Counts<K>,
}

type Counts<K> = Arc<Mutex<HashMap<K, u32>>>;

/// One of those that there may be at once; dropped, another may take its place.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash>(Option<(K, Counts<K>)>);

impl<K: Copy + Eq + Hash> ConcurrencyLimit<K> {
    /// Creates a limit of `max` at once; `None`: of any number.
    pub fn new(max: Option<u32>) -> Self {
        Self { max, counts: Counts::default() }
    }

    /// Takes a permit for one more; `None` if there are as many as there may be.
    pub fn take(&self, key: K) -> Option<Permit<K>> {
        let Some(max) = self.max else { return Some(Permit(None)) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Permit(Some((key, Arc::clone(&self.counts)))))
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let Some((key, counts)) = &self.0 else { return };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
            }
        }
    }
}

/// The address by which a peer is limited: of IPv6, the first 64 bits, since whoever has one
/// such address has all of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        const NETWORK: u128 = u128::MAX << 64;
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
            ip => ip,
        })
    }
}

impl Network {
    /// Returns a number that only this network has, among those of its family.
    pub fn number(self) -> u64 {
        match self.0 {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_burst() {
        let once_a_second = RateLimit::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let allowed = |key| (0..10).filter(|_| once_a_second.allows(&key)).count();
        assert_eq!((allowed('a'), allowed('b')), (3, 3));
    }

    #[test]
    fn each_key_has_its_own_permits_and_one_that_is_dropped_can_be_taken_again() {
        let two = ConcurrencyLimit::new(Some(2));
        let permits = [two.take('a'), two.take('a'), two.take('b')].map(Option::unwrap);
        assert!(two.take('a').is_none() && two.take('b').is_some());
        drop(permits);
        assert!(two.take('a').is_some());
        assert!(two.counts.lock().unwrap().is_empty(), "keys without a permit are forgotten");
        let unlimited = ConcurrencyLimit::new(None);
        let _permits: Vec<_> = (0..1_000).map(|_| unlimited.take('a').unwrap()).collect();
        assert!(unlimited.counts.lock().unwrap().is_empty(), "nothing is counted in vain");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let network = |ip: &str| Network::from(ip.parse::<IpAddr>().unwrap()).0.to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
    }
}
