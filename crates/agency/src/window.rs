//! What of an upload is in flight: sent, and not answered yet. Pure bookkeeping, for
//! [`Upload`](crate::Upload), which sends and receives.

use std::collections::VecDeque;

/// Batches that may be in flight at first, and again after a failure.
const WINDOW_START: usize = 4;

/// Most that may be in flight: of both limits, the one that is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Batches. With 1, each is sent after the reply to the one before.
    pub batches: usize,
    /// Bytes of batches as they travel. Another batch is sent while it is fewer, so it may
    /// become more by less than one batch.
    pub bytes: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { batches: 64, bytes: 1 << 20 }
    }
}

/// The batches in flight, the oldest first, and how many there may be. It starts small and
/// grows by a batch with each acknowledgement: while the server keeps up, it doubles with
/// each round trip.
#[derive(Debug)]
pub(crate) struct Window {
    limits: WindowLimits,
    /// Batches that may be in flight for now.
    open: usize,
    in_flight: VecDeque<Sent>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    bets: u64,
    bytes: usize,
}

impl Window {
    /// Returns a window with nothing in flight.
    pub(crate) fn new(limits: WindowLimits) -> Self {
        let open = WINDOW_START.min(limits.batches).max(1);
        Self { limits, open, in_flight: VecDeque::new(), bytes: 0 }
    }

    /// Returns whether nothing is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Returns whether another batch may be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.is_empty() || (self.in_flight.len() < self.open && self.bytes < self.limits.bytes)
    }

    /// Records that a batch was sent.
    pub(crate) fn push(&mut self, bets: u64, bytes: usize) {
        self.in_flight.push_back(Sent { bets, bytes });
        self.bytes += bytes;
    }

    /// Returns the bets of the oldest batch in flight; 0 where there is none.
    pub(crate) fn oldest(&self) -> u64 {
        self.in_flight.front().map_or(0, |sent| sent.bets)
    }

    /// Records that the oldest batch in flight was acknowledged, and returns its bets.
    ///
    /// # Panics
    ///
    /// Where nothing is in flight.
    pub(crate) fn acknowledge(&mut self) -> u64 {
        let sent = self.in_flight.pop_front().expect("only what is in flight is acknowledged");
        self.bytes -= sent.bytes;
        self.open = (self.open + 1).min(self.limits.batches.max(1));
        sent.bets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETS: u64 = 10;
    const BYTES: usize = 500;

    /// Sends as many batches as the window has room for, and returns how many.
    fn fill(window: &mut Window) -> usize {
        let before = window.in_flight.len();
        while window.has_room() {
            window.push(BETS, BYTES);
        }
        window.in_flight.len() - before
    }

    /// Acknowledges all that is in flight, as one round trip does, and returns how much.
    fn round_trip(window: &mut Window) -> usize {
        let acknowledged = window.in_flight.len();
        for _ in 0..acknowledged {
            assert_eq!(window.acknowledge(), BETS);
        }
        acknowledged
    }

    #[test]
    fn it_doubles_with_each_round_trip_up_to_its_batches() {
        let mut window = Window::new(WindowLimits { batches: 20, bytes: usize::MAX });
        let trips = [0; 5].map(|_| {
            fill(&mut window);
            round_trip(&mut window)
        });
        assert_eq!(trips, [4, 8, 16, 20, 20]);
    }

    #[test]
    fn each_acknowledgement_makes_room_for_two() {
        let mut window = Window::new(WindowLimits { batches: 6, bytes: usize::MAX });
        assert_eq!(fill(&mut window), WINDOW_START);
        let more = [0; 4].map(|_| {
            window.acknowledge();
            fill(&mut window)
        });
        assert_eq!(more, [2, 2, 1, 1]);
    }

    #[test]
    fn bytes_bound_it_too_but_one_batch_always_goes() {
        let mut window = Window::new(WindowLimits { batches: 20, bytes: 2 * BYTES + 1 });
        assert_eq!(fill(&mut window), 3, "two are fewer bytes than allowed");
        window.acknowledge();
        assert_eq!(fill(&mut window), 1, "what was acknowledged is in flight no longer");
        let mut small = Window::new(WindowLimits { batches: 20, bytes: 1 });
        assert_eq!(fill(&mut small), 1);
        assert_eq!((round_trip(&mut small), small.is_empty(), small.bytes), (1, true, 0));
    }

    #[test]
    fn of_one_batch_it_waits_for_each_reply() {
        for batches in [0, 1] {
            let mut window = Window::new(WindowLimits { batches, bytes: usize::MAX });
            for _ in 0..3 {
                assert_eq!(fill(&mut window), 1, "{batches}");
                assert_eq!(round_trip(&mut window), 1);
            }
        }
    }

    #[test]
    fn the_oldest_is_acknowledged_first() {
        let mut window = Window::new(WindowLimits::default());
        for bets in 1..=3 {
            window.push(bets, BYTES);
        }
        assert_eq!([0; 3].map(|_| window.acknowledge()), [1, 2, 3]);
    }
}
