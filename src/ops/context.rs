//! What the operators' HTTP shows, given by its caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::server::{Limits, ServerHandle};
use crate::service::Service;

/// What the operators' HTTP shows.
#[derive(Debug)]
pub struct OpsContext<S> {
    /// The lottery and its metrics.
    pub service: Arc<Service<S>>,
    /// The server, which may be stopping.
    pub handle: ServerHandle,
    /// The path of the database.
    pub database: PathBuf,
    /// The server's limits.
    pub limits: Limits,
    /// Most writes that may wait for the writer.
    pub queue_max: usize,
    /// Free bytes of disk below which the server is not ready.
    pub disk_free_bytes_min: u64,
    /// When the process started.
    pub started_at: SystemTime,
}
