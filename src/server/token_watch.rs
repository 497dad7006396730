//! The thread that notices tokens that were revoked or have expired, in this process or
//! another, and has the reactor close their connections; it also has written when tokens were
//! last used.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::handle::ServerHandle;
use crate::service::Service;
use crate::store::Store;

/// How often it looks: a revoked token's connections are closed within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// The running thread. Dropped, it ends after a last write.
#[derive(Debug)]
pub(super) struct TokenWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TokenWatch {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Where the system has no thread for it.
    pub(super) fn start<S: Store>(service: Arc<Service<S>>, handle: ServerHandle) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("sorteo-tokens".into()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // A store that cannot be read has logged it, and is asked again.
                if service.refresh_tokens().unwrap_or(false) {
                    handle.report_ended_tokens();
                }
            }
            // The server ends: what is lost is when a token was last used.
            let _ = service.write_token_uses();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for TokenWatch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic has been logged.
            let _ = thread.join();
        }
    }
}
