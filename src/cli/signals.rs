//! Signals that end a command while it writes a file.

use std::path::Path;
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, TERM_SIGNALS};
use signal_hook::iterator::Signals;

use crate::atomic_file::{folder_of, remove_unfinished_in};

/// A process that a signal ended exits with this and the signal's number.
const SIGNALLED: i32 = 128;

/// Makes a signal that ends the process first remove the unfinished files that the
/// process has in this file's folder.
///
/// # Errors
///
/// The system does not let signals be handled.
pub(super) fn remove_unfinished_on_signals(file: &Path) -> anyhow::Result<()> {
    let folder = folder_of(file);
    let mut signals =
        Signals::new(TERM_SIGNALS.iter().chain(&[SIGHUP])).context("signals cannot be handled")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            remove_unfinished_in(&folder);
            std::process::exit(SIGNALLED + signal);
        }
    });
    Ok(())
}
