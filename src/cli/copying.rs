//! What commands share that write a file which is whole or not there: what a
//! terminal shows meanwhile, what a refused copy tells, and leaving nothing behind
//! when they are told to end.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressDrawTarget;
use signal_hook::consts::{SIGHUP, TERM_SIGNALS};
use signal_hook::iterator::Signals;

use super::check::{Shown, tell_findings};
use crate::store::sqlite::{CopyError, CopyStep};
use crate::unfinished::{abandon_all_in, folder_of};

/// What is done sooner needs no bar.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// A process that a signal ended exits with this and the signal's number.
const SIGNALLED: i32 = 128;

/// The progress of a copy, on a terminal, once it has taken a while.
pub(super) struct Progress {
    shown: Shown,
    /// Dropped, it ends the wait for that while.
    _done: Sender<()>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shown = Shown::new(terminal);
        let (done, waited) = mpsc::channel();
        if terminal {
            shown.0.set_draw_target(ProgressDrawTarget::hidden());
            let bar = shown.0.clone();
            // SQLite copies without telling anybody: the clock needs a thread.
            thread::spawn(move || {
                if waited.recv_timeout(SHOWN_AFTER) == Err(RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
            });
        }
        Self { shown, _done: done }
    }

    pub(super) fn step(&self, step: CopyStep) {
        match step {
            CopyStep::Copying => self.shown.spin("copying"),
            CopyStep::Checking(step) => self.shown.step(step),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shown.0.finish_and_clear();
    }
}

/// Prints what was found where a copy was refused for it, one line each.
pub(super) fn with_findings<T>(result: Result<T, CopyError>) -> anyhow::Result<Result<T, CopyError>> {
    if let Err(CopyError::NotFine { report, .. }) = &result {
        tell_findings(report)?;
    }
    Ok(result)
}

/// From here on, a signal that ends the process removes what it has begun to write
/// beside this file.
pub(super) fn tidy_on_signals(file: &Path) -> anyhow::Result<()> {
    let folder = folder_of(file);
    let mut signals =
        Signals::new(TERM_SIGNALS.iter().chain(&[SIGHUP])).context("signals cannot be handled")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            abandon_all_in(&folder);
            std::process::exit(SIGNALLED + signal);
        }
    });
    Ok(())
}
