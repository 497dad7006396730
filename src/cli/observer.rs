//! Log lines for the events of a store and of an agency's client, neither of which
//! logs them by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::server::ServerHandle;
use crate::service::log_drawn;
use crate::store::sqlite::{Event, Observer};
use crate::{event, logging};
use sorteo_agency as agency;

/// Between two lines of an upload's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Returns an observer that logs events and passes them on to a server.
pub(super) fn log_and_notify(handle: &ServerHandle) -> Observer {
    let handle = handle.clone();
    Arc::new(move |event| {
        log(&event);
        match event {
            Event::Drawn(_) => handle.report_draw(),
            Event::Failed(error) => {
                handle.store_failed(error);
            }
        }
    })
}

/// Returns an observer for a store that has no server: it only logs.
pub(super) fn log_only() -> Observer {
    Arc::new(|event| log(&event))
}

fn log(event: &Event) {
    match event {
        Event::Drawn(status) => {
            log_drawn(status);
            // No agency learns of the draw before this returns.
            logging::flush();
        }
        Event::Failed(error) => event!(Error, "write_database", Fail, error = error),
    }
}

/// Logs an event of an agency's client.
pub(super) fn log_client_event(event: &agency::Event<'_>) {
    match event {
        agency::Event::Stored { bets, .. } => event!(Debug, "apuesta_enviada", Success, cantidad = bets),
        agency::Event::Retrying { error } => event!(Warn, "connect", Fail, error = error),
        _ => {}
    }
}

/// The progress of an upload in the log: a line now and then, and one when all is
/// acknowledged.
pub(super) struct ProgressLines(Mutex<Instant>);

impl ProgressLines {
    /// Starts the time until the first line.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Logs how many bets are acknowledged, of how many, if a line is due.
    pub(super) fn report(&self, acknowledged: u64, total: u64) {
        if acknowledged >= total {
            event!(Info, "progreso", Success, enviadas = acknowledged, total = total);
        } else if self.is_due(Instant::now()) {
            event!(Info, "progreso", InProgress, enviadas = acknowledged, total = total);
        }
    }

    /// Returns whether the last line was long ago; if so, this is the time of the next.
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = now.saturating_duration_since(*last) >= PROGRESS_INTERVAL;
        if is_due {
            *last = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_line_in_each_interval() {
        let lines = ProgressLines::new();
        let start = *lines.0.lock().unwrap();
        let after = |seconds| start + Duration::from_secs(seconds);
        let due = [0, 1, 4, 5, 6, 9, 10, 30, 31].map(|seconds| lines.is_due(after(seconds)));
        assert_eq!(due, [false, false, false, true, false, false, true, true, false]);
    }
}
