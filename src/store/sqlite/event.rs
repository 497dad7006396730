//! Events of a store that its owner must hear of at once, and the lock that orders
//! the announcement of a draw before every read of it.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::store::DrawStatus;

/// An event in the store that its owner must hear of at once.
#[derive(Clone, Debug)]
pub enum Event {
    /// This process drew a draw. Sent after the commit, and before any read can see
    /// the draw as drawn.
    Drawn(DrawStatus),
    /// A write failed in a way that leaves its outcome unknown. The store accepts
    /// nothing more, and the process must end.
    Failed(String),
}

/// Receives every [`Event`], on the thread where it happened.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// Orders a draw's announcement before every read of that draw: no agency can learn
/// of a draw before its log line is written.
///
/// It orders output, not facts: what is true is decided in the database alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcement(Arc<RwLock<()>>);

impl Announcement {
    /// Begins an announcement, before the draw's commit. It ends when the guard is
    /// dropped.
    pub(super) fn begin(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a draw that was read as drawn has been announced.
    pub(super) fn wait(&self) {
        drop(self.0.read().unwrap_or_else(PoisonError::into_inner));
    }
}
