//! The memory that the half-received requests of all connections may take together.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One connection's share of the memory for half-received requests. It is given back
/// when the connection is dropped.
#[derive(Debug)]
pub(super) struct BufferShare {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl BufferShare {
    /// Creates a share of 0 bytes of this total.
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self { total, bytes: 0 }
    }

    /// Returns whether the share is more than 0 bytes.
    pub(super) fn is_used(&self) -> bool {
        self.bytes > 0
    }

    /// Changes the share to this many bytes, and returns the shares of all connections
    /// together.
    pub(super) fn set(&mut self, bytes: usize) -> usize {
        let before = mem::replace(&mut self.bytes, bytes);
        // Wrapping, as atomics do: adding the difference may subtract.
        let change = bytes.wrapping_sub(before);
        self.total.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
    }
}

impl Drop for BufferShare {
    fn drop(&mut self) {
        self.set(0);
    }
}
