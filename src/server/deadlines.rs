//! The deadlines of parked connections, in order.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// At most one deadline for each connection's key.
#[derive(Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Instant, usize)>,
    by_key: HashMap<usize, Instant>,
}

impl Deadlines {
    /// Sets a connection's deadline, in place of the one it had.
    pub(super) fn set(&mut self, key: usize, at: Instant) {
        self.clear(key);
        self.by_time.insert((at, key));
        self.by_key.insert(key, at);
    }

    /// Removes a connection's deadline.
    pub(super) fn clear(&mut self, key: usize) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Removes one deadline that has passed, and returns its connection's key.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<usize> {
        let &(at, key) = self.by_time.first()?;
        (at <= now).then(|| {
            self.clear(key);
            key
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deadlines_come_in_order_and_can_be_moved_or_taken_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.set(7, at(3));
        deadlines.set(8, at(1));
        deadlines.set(9, at(2));
        deadlines.set(8, at(5));
        deadlines.clear(7);
        assert_eq!(deadlines.next(), Some(at(2)));
        assert_eq!(deadlines.take_expired(at(1)), None);
        assert_eq!(deadlines.take_expired(at(9)), Some(9));
        assert_eq!(deadlines.take_expired(at(9)), Some(8));
        assert_eq!(deadlines.take_expired(at(9)), None);
        assert_eq!(deadlines.next(), None);
    }
}
