//! Log lines for the events of a store and of an agency's client, neither of which
//! logs them by itself.

use std::sync::Arc;

use crate::server::ServerHandle;
use crate::service::log_drawn;
use crate::store::sqlite::{Event, Observer};
use crate::{event, logging};
use sorteo_agency as agency;

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
        agency::Event::Stored { bets, .. } => event!(Info, "apuesta_enviada", Success, cantidad = bets),
        agency::Event::Retrying { error } => event!(Warn, "connect", Fail, error = error),
        _ => {}
    }
}
