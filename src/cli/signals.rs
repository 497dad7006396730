//! Signals that end a command.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGPIPE, SIGXFSZ, TERM_SIGNALS};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{self, emulate_default_handler};

use crate::atomic_file::{folder_of, remove_unfinished_in};
use crate::logging;

/// A process that a signal ended exits with this and the signal's number.
const SIGNALLED: i32 = 128;

/// Keeps the system from killing the process without a word where a file may not grow
/// (`ulimit -f`): the write fails instead, and what fails is reported.
pub(super) fn survive_file_size_limit() {
    // The flag is never read: it is enough that there is a handler. It cannot fail, as the
    // signal exists and may be handled.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Makes SIGTERM, SIGINT and SIGHUP end the process, with 128 and the signal's number. The
/// system does so by itself, but not for the first process of a container.
///
/// # Errors
///
/// The system does not let signals be handled.
pub(super) fn exit_on_signals() -> anyhow::Result<()> {
    on_first_signal(|| {})
}

/// Makes a signal that ends the process first remove the unfinished files that the
/// process has in this file's folder.
///
/// # Errors
///
/// The system does not let signals be handled.
pub(super) fn remove_unfinished_on_signals(file: &Path) -> anyhow::Result<()> {
    let folder = folder_of(file);
    on_first_signal(move || remove_unfinished_in(&folder))
}

/// Ends the process as SIGPIPE does, which Rust's start-up code ignores: a shell sees 141,
/// as of any other program whose reader has gone.
pub(super) fn end_as_by_sigpipe() -> ! {
    let _ = emulate_default_handler(SIGPIPE);
    std::process::exit(SIGNALLED + SIGPIPE)
}

fn on_first_signal(tidy: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let mut signals =
        Signals::new(TERM_SIGNALS.iter().chain(&[SIGHUP])).context("signals cannot be handled")?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            logging::flush();
            tidy();
            // At once: the other threads are still at work.
            low_level::exit(SIGNALLED + signal);
        }
    };
    let thread = thread::Builder::new().name("sorteo-signals".into()).spawn(wait);
    thread.map(drop).context("the system has no thread that handles signals")
}
