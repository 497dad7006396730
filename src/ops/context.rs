//! What the operators' HTTP shows, given by its caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::identity::Gatekeeper;
use super::tls::OpsTls;
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
    /// Knows the operators' tokens; `None` if whoever reaches the HTTP may use it.
    pub gatekeeper: Option<Arc<dyn Gatekeeper>>,
    /// Host names by which it may be asked, in lower case, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// TLS, if it is on.
    pub tls: Option<OpsTls>,
    /// What of the server is open to everybody on a network, a line for each: the setting and
    /// its value, a colon, and what follows from it.
    pub unprotected: Vec<String>,
}
