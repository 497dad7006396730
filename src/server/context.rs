//! What the reactor and the workers share, and how a server ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use threadpool::ThreadPool;

use super::handle::ServerHandle;
use super::limits::Limits;
use super::tls::Tls;
use crate::logging::limits::LineLimits;
use crate::rate_limit::{Network, RateLimit};
use crate::service::Service;

/// What the reactor and the workers share.
pub(super) struct Context<S> {
    pub(super) service: Arc<Service<S>>,
    pub(super) limits: Limits,
    /// What TLS is offered with; off without it.
    pub(super) tls: Option<Arc<Tls>>,
    /// How many handshakes of TLS peers may begin.
    pub(super) handshakes: RateLimit<Network>,
    pub(super) handle: ServerHandle,
    /// Bytes that count towards [`Limits::buffer_bytes_max`].
    pub(super) buffered_bytes: Arc<AtomicUsize>,
    pub(super) workers: ThreadPool,
    /// Those that do handshakes of TLS, if it is on, at a lower priority.
    pub(super) handshakers: Option<ThreadPool>,
    /// Connections that wait for a worker.
    pub(super) connections_ready: AtomicUsize,
    /// How many lines peers may cause.
    pub(super) lines: Arc<LineLimits>,
}

impl<S> Context<S> {
    /// Returns whether a worker may wait for its peer, since no connection waits for a
    /// worker.
    pub(super) fn has_spare_worker(&self) -> bool {
        self.connections_ready.load(Ordering::Relaxed) == 0 && !self.handle.is_stopping()
    }
}

/// Why a server ended though it was not stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system's poll or the listening socket failed.
    #[error("the listening socket failed: {0}")]
    Io(#[from] io::Error),
    /// The store failed in a way that leaves the outcome of a write unknown. Agencies
    /// that got no reply send again.
    #[error("the database failed: {0}")]
    StoreFailed(String),
}
