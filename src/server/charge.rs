//! The bytes that half-received requests of all connections hold together.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one connection holds of the bytes that all may hold together.
#[derive(Debug)]
pub(super) struct Charge {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self { total, bytes: 0 }
    }

    /// Whether it holds more than is free.
    pub(super) fn is_charged(&self) -> bool {
        self.bytes > 0
    }

    /// Holds so many from now on; answers what all connections hold.
    pub(super) fn set(&mut self, bytes: usize) -> usize {
        let before = mem::replace(&mut self.bytes, bytes);
        // Wrapping, as atomics do: adding the difference may subtract.
        let change = bytes.wrapping_sub(before);
        self.total.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}
