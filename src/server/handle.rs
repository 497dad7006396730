//! How other threads reach a running server: stop, a draw is drawn, the store failed.
//! Each sets a flag and wakes the reactor, which looks at all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::Waker;

/// Controls a running server from other threads.
#[derive(Clone, Debug)]
pub struct ServerHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waker: Waker,
    stop: AtomicBool,
    /// Draws drawn so far by this process, or found drawn by another: from it a
    /// connection that is about to be parked learns that its wait is over.
    draws: AtomicU64,
    failure: Mutex<Option<String>>,
    /// Whether a token may have ended since the reactor last looked.
    tokens_ended: AtomicBool,
    /// Whether the reactor was woken and has not looked yet: one wake-up is enough for
    /// many reasons.
    woken: AtomicBool,
    /// When the reactor last showed that it is alive: milliseconds since `created_at`.
    beat_at: AtomicU64,
    created_at: Instant,
}

impl ServerHandle {
    /// Creates the handle of the server that this waker wakes.
    pub(super) fn new(waker: Waker) -> Self {
        Self(Arc::new(Shared {
            waker,
            stop: AtomicBool::new(false),
            draws: AtomicU64::new(0),
            failure: Mutex::new(None),
            tokens_ended: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            beat_at: AtomicU64::new(0),
            created_at: Instant::now(),
        }))
    }

    /// Stops the server: it takes no new connections and finishes what is in flight.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Reports that a draw is drawn, so that waiting peers are answered.
    pub fn report_draw(&self) {
        self.0.draws.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// Reports that the store failed, which ends the server at once.
    pub fn store_failed(&self, error: String) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.wake();
    }

    /// Reports that a token may have ended, so that its connections are closed.
    pub(super) fn report_ended_tokens(&self) {
        self.0.tokens_ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Returns whether that was reported since the last call.
    pub(super) fn take_ended_tokens(&self) -> bool {
        self.0.tokens_ended.swap(false, Ordering::SeqCst)
    }

    /// Returns how many draws were reported so far.
    pub(super) fn draws_seen(&self) -> u64 {
        self.0.draws.load(Ordering::SeqCst)
    }

    /// Returns whether [`ServerHandle::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// Takes the reported failure of the store, if there is one that was not taken yet.
    pub fn take_failure(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records that the reactor is alive.
    pub(super) fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.created_at).as_millis();
        self.0.beat_at.store(since as u64, Ordering::Relaxed);
    }

    /// Returns for how long the reactor has shown no sign of life. It shows one every
    /// second, as long as the server runs.
    pub fn silent_for(&self, now: Instant) -> Duration {
        let beat_at = Duration::from_millis(self.0.beat_at.load(Ordering::Relaxed));
        now.saturating_duration_since(self.0.created_at).saturating_sub(beat_at)
    }

    /// Wakes the reactor.
    pub(super) fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::SeqCst) {
            // It fails only if the server has ended, and then there is nobody to wake.
            let _ = self.0.waker.wake();
        }
    }

    /// Makes the next reason wake the reactor anew: to be called before it looks at the
    /// reasons there are.
    pub(super) fn set_awake(&self) {
        // A swap, not a store: having read what the waking thread wrote, the reactor sees
        // that thread's reason.
        self.0.woken.swap(false, Ordering::SeqCst);
    }
}
