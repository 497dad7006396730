//! Whether the server can do its work, part by part.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::context::OpsContext;
use crate::store::{Store, StoreError};

/// How long a write that changes nothing may take. With a slower disk, agencies wait too
/// long for their replies.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the reactor may show no sign of life, which it does every second.
const REACTOR_SILENCE_MAX: Duration = Duration::from_secs(10);

/// A part of the server that its work depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// The writer thread carries out writes.
    Writer,
    /// The database takes a write, and can be read.
    Database,
    /// There is room on the disk.
    Disk,
    /// New connections are taken.
    Listener,
    /// The thread that accepts connections and hands requests to the workers is alive.
    Reactor,
}

impl Part {
    /// Returns the part's name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Database => "database",
            Self::Disk => "disk",
            Self::Listener => "listener",
            Self::Reactor => "reactor",
        }
    }
}

/// The state of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PartState {
    pub(super) part: Part,
    pub(super) ready: bool,
    /// What is wrong, if it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

/// The state of the whole server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) parts: Vec<PartState>,
}

/// Checks every part; `read` is the result of a read of the database. Waits for the
/// writer, so it must run on a thread that may block.
pub(super) fn check<S: Store>(context: &OpsContext<S>, read: Result<(), String>) -> Readiness {
    let (writer, written) = probe(context.service.store());
    let listener = match context.handle.is_stopping() {
        true => Err("the server stops".to_owned()),
        false => Ok(()),
    };
    let disk = enough_disk(&context.database, context.disk_free_bytes_min);
    let parts = [
        (Part::Writer, writer),
        (Part::Database, written.and(read)),
        (Part::Disk, disk),
        (Part::Listener, listener),
        (Part::Reactor, reactor(context.handle.silent_for(Instant::now()))),
    ];
    let parts: Vec<PartState> = parts
        .into_iter()
        .map(|(part, state)| PartState { part, ready: state.is_ok(), why: state.err() })
        .collect();
    Readiness { ready: parts.iter().all(|part| part.ready), parts }
}

type State = Result<(), String>;

/// Returns the states of the writer and of the database, as a write finds them.
fn probe(store: &impl Store) -> (State, State) {
    let unknown = || Err("not known while the writer does not answer".to_owned());
    let answer = match store.probe() {
        Ok(ticket) => match ticket.wait_at_most(PROBE_TIMEOUT) {
            Some(answer) => answer,
            None => {
                let seconds = PROBE_TIMEOUT.as_secs();
                return (Err(format!("a write was not stored within {seconds} s")), unknown());
            }
        },
        // With a full queue it works, but agencies are refused as `busy`.
        Err(StoreError::Busy) => return (Err("its queue is full".to_owned()), unknown()),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => (Ok(()), Ok(())),
        Err(StoreError::Unknown) => (Err("it has failed, and the server ends".to_owned()), unknown()),
        Err(error) => (Ok(()), Err(error.to_string())),
    }
}

/// Returns the state of a reactor that has shown no sign of life for so long.
fn reactor(silent_for: Duration) -> State {
    if silent_for <= REACTOR_SILENCE_MAX {
        return Ok(());
    }
    Err(format!("no sign of life for {} s", silent_for.as_secs()))
}

fn enough_disk(database: &Path, wanted: u64) -> State {
    match free_bytes(database) {
        Ok(free) if free >= wanted => Ok(()),
        Ok(free) => Err(format!("{free} bytes free, {wanted} wanted")),
        Err(error) => Err(format!("the free space is not known: {error}")),
    }
}

/// Returns the bytes that the server may still write on the database's disk.
pub(super) fn free_bytes(database: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(database)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reactor_that_is_silent_for_too_long_is_not_ready() {
        assert_eq!(reactor(Duration::from_secs(10)), Ok(()));
        assert_eq!(reactor(Duration::from_secs(12)), Err("no sign of life for 12 s".to_owned()));
    }
}
