//! How other threads speak to a running server: stop, a draw was made, the store
//! failed. Each sets a flag and wakes the reactor, which looks at all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;

/// Speaks to a running server from other threads.
#[derive(Clone, Debug)]
pub struct ServerHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waker: Waker,
    stop: AtomicBool,
    /// Draws made so far by this process, or seen made by another: lets a
    /// connection that is about to be parked notice that its wait is over.
    draws_made: AtomicU64,
    failure: Mutex<Option<String>>,
    /// Whether a wake-up is on its way already: one is enough for many reasons.
    woken: AtomicBool,
}

impl ServerHandle {
    /// A handle for the server that this waker wakes.
    pub(super) fn new(waker: Waker) -> Self {
        Self(Arc::new(Shared {
            waker,
            stop: AtomicBool::new(false),
            draws_made: AtomicU64::new(0),
            failure: Mutex::new(None),
            woken: AtomicBool::new(false),
        }))
    }

    /// Asks the server to stop: no new connections, finish what is in flight.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Tells the server that a draw was made, so that waiting peers are answered.
    pub fn draw_made(&self) {
        self.0.draws_made.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// Tells the server that the store failed: it ends at once.
    pub fn store_failed(&self, error: String) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.wake();
    }

    pub(super) fn draws_made_so_far(&self) -> u64 {
        self.0.draws_made.load(Ordering::SeqCst)
    }

    /// Whether the server was asked to stop.
    pub fn stops(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// Takes the store's failure, if there was one that nobody has taken.
    pub fn take_failure(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::SeqCst) {
            // It fails only if the server is gone, and then there is nobody to wake.
            let _ = self.0.waker.wake();
        }
    }

    /// From here on a new reason wakes anew: call it before looking for reasons.
    pub(super) fn awake(&self) {
        // A swap, not a store: having read what a waker wrote, we see its reason.
        self.0.woken.swap(false, Ordering::SeqCst);
    }
}
