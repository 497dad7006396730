//! How many connections are with the workers, or on their way to them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections that were handed over and not given back.
#[derive(Debug, Default)]
pub(super) struct Workload(AtomicUsize);

impl Workload {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connections(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
