//! Whether the server can do its work now, part by part.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Watched;
use crate::store::{Store, StoreError};

/// How long a write that changes nothing may take: a disk whose sync takes longer
/// keeps agencies waiting.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server needs to do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// The thread that writes answers.
    Writer,
    /// The database takes a write, and can be read.
    Database,
    /// There is room on the disk.
    Disk,
    /// New connections are taken.
    Listener,
}

impl Part {
    /// Its name in what is scraped.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Database => "database",
            Self::Disk => "disk",
            Self::Listener => "listener",
        }
    }
}

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PartState {
    pub(super) part: Part,
    pub(super) ready: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

/// How the whole server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) parts: Vec<PartState>,
}

/// Asks every part. It waits for the writer, so it belongs on a thread that may wait.
pub(super) fn ask<S: Store>(watched: &Watched<S>, read: Result<(), String>) -> Readiness {
    let (writer, written) = probe(watched.service.store());
    let listener = match watched.handle.is_stopping() {
        true => Err("the server stops".to_owned()),
        false => Ok(()),
    };
    let disk = enough_disk(&watched.database, watched.disk_free_bytes_min);
    let parts = [
        (Part::Writer, writer),
        (Part::Database, written.and(read)),
        (Part::Disk, disk),
        (Part::Listener, listener),
    ];
    let parts: Vec<PartState> = parts
        .into_iter()
        .map(|(part, state)| PartState { part, ready: state.is_ok(), why: state.err() })
        .collect();
    Readiness { ready: parts.iter().all(|part| part.ready), parts }
}

type State = Result<(), String>;

/// Whether the writer answers, and whether the database takes a write.
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
        // Its queue is full: it works, and agencies are told to come again.
        Err(StoreError::Busy) => return (Err("its queue is full".to_owned()), unknown()),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => (Ok(()), Ok(())),
        Err(StoreError::Unknown) => (Err("it has failed, and the server ends".to_owned()), unknown()),
        Err(error) => (Ok(()), Err(error.to_string())),
    }
}

fn enough_disk(database: &Path, wanted: u64) -> State {
    match free_bytes(database) {
        Ok(free) if free >= wanted => Ok(()),
        Ok(free) => Err(format!("{free} bytes free, {wanted} wanted")),
        Err(error) => Err(format!("the free space is not known: {error}")),
    }
}

/// Bytes that the server may still write where the database is.
pub(super) fn free_bytes(database: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(database)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
