//! How often an address may present a bad token before it is told to wait. It is by address
//! alone, never by token, and a good token is accepted at any time: nobody can lock out the
//! holder of one, not even from behind the same proxy. Nobody can guess a token either; this
//! tells a program that tries an old one again and again to slow down, and spares the log.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failures that an address may have at once.
const FAILURES_MAX: u32 = 10;
/// How long it takes until an address may have one failure more.
const FAILURE_REFILL: Duration = Duration::from_secs(6);
/// Addresses that are told apart; all others share one limit.
const ADDRESSES_MAX: usize = 10_000;

/// A token bucket for each address.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// When each bucket is full again; `None` is the bucket of all others.
    full_at: HashMap<Option<IpAddr>, Instant>,
}

impl Failures {
    /// Counts a failure; or returns how long the address must wait until it may have one more.
    pub(super) fn count(&mut self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.full_at.len() >= ADDRESSES_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let full_at = self.full_at.entry(self.key(ip)).or_insert(now);
        let until_full = full_at.saturating_duration_since(now) + FAILURE_REFILL;
        match until_full.saturating_sub(FAILURE_REFILL * FAILURES_MAX) {
            Duration::ZERO => *full_at = now + until_full,
            wait => return Err(wait),
        }
        Ok(())
    }

    fn key(&self, ip: IpAddr) -> Option<IpAddr> {
        let key = Some(network_of(ip));
        let has_room = self.full_at.len() < ADDRESSES_MAX;
        if has_room || self.full_at.contains_key(&key) { key } else { None }
    }
}

/// Returns the address, or the /64 of an IPv6 address: one peer has all of it.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Returns how many attempts an address has until it must wait.
    fn attempts(failures: &mut Failures, ip: IpAddr, now: Instant) -> usize {
        std::iter::from_fn(|| failures.count(ip, now).ok()).take(1_000).count()
    }

    #[test]
    fn an_address_fails_ten_times_and_then_once_in_six_seconds() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let peer = ip("192.0.2.1");
        assert_eq!(attempts(&mut failures, peer, start), 10);
        assert_eq!(failures.count(peer, start), Err(FAILURE_REFILL));
        let (later, moment) = (start + FAILURE_REFILL, Duration::from_millis(1));
        assert_eq!(failures.count(peer, later - moment), Err(moment));
        assert_eq!(attempts(&mut failures, peer, later), 1);
        assert_eq!(attempts(&mut failures, peer, later + 20 * FAILURE_REFILL), 10, "never more");
    }

    #[test]
    fn a_network_is_one_address_and_others_have_their_own() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        assert_eq!(attempts(&mut failures, ip("2001:db8::1"), now), 10);
        assert_eq!(attempts(&mut failures, ip("2001:db8::2:1"), now), 0);
        assert_eq!(attempts(&mut failures, ip("2001:db8:0:1::1"), now), 10);
        assert_eq!(attempts(&mut failures, ip("192.0.2.1"), now), 10);
        assert_eq!(attempts(&mut failures, ip("::ffff:192.0.2.1"), now), 0, "the same");
    }

    #[test]
    fn however_many_addresses_fail_the_memory_is_bounded() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for index in 0..2 * ADDRESSES_MAX as u32 {
            let _ = failures.count(Ipv4Addr::from_bits(index).into(), now);
        }
        assert_eq!(failures.full_at.len(), ADDRESSES_MAX + 1);
        assert!(failures.count(ip("203.0.113.1"), now).is_err(), "the others share one");
        assert!(failures.count(ip("0.0.0.1"), now).is_ok(), "one that is known has its own");
        let later = now + FAILURE_REFILL * FAILURES_MAX;
        failures.count(ip("203.0.113.1"), later).unwrap();
        assert_eq!(failures.full_at.len(), 1, "full buckets are forgotten");
    }
}
