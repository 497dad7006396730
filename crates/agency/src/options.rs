//! What a client is given: where the server is, how long to try, whom to report to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sorteo_protocol::DrawId;

use crate::{Security, WindowLimits};

/// Where the server is, and how long to go on trying.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `HOST:PORT`; looked up anew with every connection.
    pub server: String,
    /// How connections are protected, and how the client proves who it is.
    pub security: Security,
    /// How long to go on trying without any success.
    pub give_up_after: Duration,
    /// Whether a file may have no bets: its agency is done with none.
    pub allow_empty: bool,
    /// The draw that an upload is meant for; the newest if it is not given. An upload that may
    /// be repeated after the next draw was opened needs it: there it would be stored again.
    pub draw: Option<DrawId>,
    /// How much of an upload may be in flight.
    pub window: WindowLimits,
    /// Is given what happens.
    pub observer: Observer,
}

impl ClientOptions {
    /// Options of plain connections without a token, and with an observer that ignores
    /// everything; a file must have bets.
    pub fn new(server: impl Into<String>, give_up_after: Duration) -> Self {
        let server = server.into();
        Self {
            server,
            security: Security::default(),
            give_up_after,
            allow_empty: false,
            draw: None,
            window: WindowLimits::default(),
            observer: Observer::default(),
        }
    }
}

/// What happens while a client works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An upload starts or resumes: `stored` of its `total` bets are stored already.
    Resumed {
        /// Bets of the upload that are stored.
        stored: u64,
        /// Bets of the whole upload.
        total: u64,
    },
    /// The server acknowledged a batch.
    Stored {
        /// Bets in the batch.
        bets: u64,
        /// Bets of the upload that are stored, these included.
        stored: u64,
        /// Bets of the whole upload.
        total: u64,
    },
    /// A try failed, and another follows after a pause.
    Retrying {
        /// Why it failed.
        error: &'a io::Error,
    },
}

/// Is given every [`Event`], on the thread that works.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Report>>);

type Report = dyn Fn(&Event<'_>) + Send + Sync;

impl Observer {
    /// An observer that calls this function.
    pub fn new(function: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(function)))
    }

    pub(crate) fn report(&self, event: &Event<'_>) {
        if let Some(function) = &self.0 {
            function(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer(function)" } else { "Observer(none)" })
    }
}
