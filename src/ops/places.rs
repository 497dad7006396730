//! Who has a place among the connections of the operators' HTTP. Where all are taken, a
//! new connection gets the place of the one that has been without a request for longest:
//! so peers that send slowly, or nothing, cannot keep a health check waiting, even if all
//! of them come from the address of one proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a new connection waits, where each of the others has a request in progress,
/// before it looks for one without again.
const RETRY: Duration = Duration::from_millis(50);

/// The places. See the module.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Connections without a request in progress, the one that has been so for longest first.
#[derive(Debug, Default)]
struct Idle {
    next_turn: u64,
    by_turn: BTreeMap<u64, Arc<Notify>>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// Its key among the idle ones, if it is one.
    turn: Mutex<Option<u64>>,
    close: Arc<Notify>,
    _taken: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(connections_max)), idle: Mutex::default() })
    }

    /// Takes a place for a new connection, which is idle until its first request.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Place> {
        let free = || Arc::clone(&self.free);
        let taken = loop {
            if let Ok(taken) = free().try_acquire_owned() {
                break taken;
            }
            self.close_longest_idle();
            if let Ok(Ok(taken)) = timeout(RETRY, free().acquire_owned()).await {
                break taken;
            }
        };
        let place =
            Place { places: Arc::clone(self), turn: Mutex::default(), close: Arc::default(), _taken: taken };
        place.set_idle();
        Arc::new(place)
    }

    fn close_longest_idle(&self) {
        if let Some((_, close)) = self.lock().by_turn.pop_first() {
            close.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until another connection needs the place.
    pub(super) async fn is_needed(&self) {
        self.close.notified().await;
    }

    /// Keeps the place while a request is in progress.
    pub(super) fn set_busy(&self) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(turn) = turn {
            self.places.lock().by_turn.remove(&turn);
        }
    }

    /// Lets the place be taken by another connection.
    pub(super) fn set_idle(&self) {
        let mut idle = self.places.lock();
        let turn = idle.next_turn;
        idle.next_turn += 1;
        idle.by_turn.insert(turn, Arc::clone(&self.close));
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.set_busy();
    }
}
