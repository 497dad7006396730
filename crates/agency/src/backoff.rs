//! Growing pauses between tries.

use std::io;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::{AgencyError, ClientOptions, Event};

/// First pause before a retry; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a retry.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Shortest time that a try is given.
const TRY_MIN: Duration = Duration::from_millis(100);

/// Pauses that grow, with jitter, until the time is up.
#[derive(Debug)]
pub(crate) struct Backoff {
    give_up_at: Instant,
    pause: Duration,
}

impl Backoff {
    /// Starts the time that the options allow.
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self { give_up_at: Instant::now() + options.give_up_after, pause: PAUSE_MIN }
    }

    /// Returns how long the next try may take: at most `longest`, and no longer than the
    /// time that is left, but for a moment in which a try can succeed.
    pub(crate) fn timeout(&self, longest: Duration) -> Duration {
        self.give_up_at.saturating_duration_since(Instant::now()).clamp(TRY_MIN.min(longest), longest)
    }

    /// As [`Backoff::pause`], after this error.
    pub(crate) fn pause_after(&mut self, options: &ClientOptions, error: &AgencyError) -> bool {
        match error {
            AgencyError::Unreachable { source, .. } => self.pause(options, source),
            AgencyError::Refused { reason, .. } => self.pause(options, &io::Error::other(reason.to_string())),
            other => self.pause(options, &io::Error::other(other.to_string())),
        }
    }

    /// Reports the failure and pauses before the next try. Returns false, at once, where
    /// there is no time left for another.
    pub(crate) fn pause(&mut self, options: &ClientOptions, failure: &io::Error) -> bool {
        let left = self.give_up_at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        options.observer.report(&Event::Retrying { error: failure });
        // Agencies that lost the same server must not all come back at once.
        let jittered = self.pause.mul_f64(rand::rng().random_range(0.5..1.0));
        std::thread::sleep(jittered.min(left));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}
