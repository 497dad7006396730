//! How many threads a server needs, and whether the system allows them.

use std::fs;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::config::ServeConfig;

/// Threads beside the workers: the writer, the copier of its WAL, the log, signals, the
/// pool of readers, the watch of tokens, the operators' HTTP, and some to spare.
const BESIDE_WORKERS: usize = 16;

/// How long the system may take to forget threads that have ended.
const FORGET_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks that the system allows the threads of a server, by starting as many, which end
/// at once. The pools cannot report that they got too few, and would panic.
///
/// # Errors
///
/// Where it does not.
pub(super) fn require(config: &ServeConfig) -> anyhow::Result<()> {
    let workers = config.limits.workers;
    let needed = workers + BESIDE_WORKERS;
    let (started, error) = start_and_end(needed);
    let Some(error) = error else { return Ok(()) };
    Err(anyhow!(
        "the system allows {started} more threads, and the server needs {needed} ({workers} of them are \
         `workers`): {error}. Allow more (`ulimit -u`, TasksMax of a systemd unit, pids_limit of a \
         container), or set fewer `workers`"
    ))
}

/// Starts so many threads, which all exist at the same time, and ends them. Returns how
/// many there were, and why there were no more.
fn start_and_end(threads: usize) -> (usize, Option<io::Error>) {
    let before = threads_now();
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (mut started, mut failed) = (Vec::new(), None);
    while started.len() < threads && failed.is_none() {
        let gate = Arc::clone(&gate);
        match thread::Builder::new().spawn(move || drop(gate.read())) {
            Ok(thread) => started.push(thread),
            Err(error) => failed = Some(error),
        }
    }
    drop(closed);
    let count = started.len();
    for thread in started {
        // It does nothing that could panic.
        let _ = thread.join();
    }
    wait_until_forgotten(before);
    (count, failed)
}

/// Waits until the ended threads are no longer counted, which may be after `join`.
fn wait_until_forgotten(before: Option<usize>) {
    let until = Instant::now() + FORGET_TIMEOUT;
    while threads_now() > before && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns how many threads the process has; `None` where that is not known.
fn threads_now() -> Option<usize> {
    fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_were_tried_are_gone_afterwards() {
        let (started, error) = start_and_end(100);
        assert_eq!((started, error.map(|error| error.to_string())), (100, None));
    }
}
