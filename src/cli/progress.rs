//! Progress on a terminal: bars and spinners on standard error. Where standard
//! error is no terminal, nothing is shown.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::failure::Failure;
use crate::generate;
use crate::store::sqlite::CopyStep;
use crate::store::sqlite::check::Step;

/// Between two pictures of the spinner: SQLite reports nothing while it reads.
const TICK: Duration = Duration::from_millis(200);
/// A copy that takes less time than this shows no progress.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Returns the bar that all commands show: done of all, speed, what is going on.
pub(super) fn bar(message: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix}{wide_bar} {human_pos}/{human_len} {rate:>11} {msg}")
        .expect("the template is well-formed")
        .with_key("rate", write_rate);
    ProgressBar::new(0).with_style(style).with_message(message.to_owned())
}

/// Returns a counter for work whose end is not known: time, bets so far, speed.
pub(super) fn bets_counter() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{elapsed} {human_pos} bets {rate}")
        .expect("the template is well-formed")
        .with_key("rate", write_rate);
    ProgressBar::no_length().with_style(style)
}

/// The speed in whole units.
fn write_rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // Writing to a line of text cannot fail.
    let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
}

/// Writes the files of made-up bets behind a bar.
pub(super) fn write_bets_files(
    dir: &Path,
    agencies: u32,
    bets: u64,
    seed: u64,
) -> Result<Vec<PathBuf>, Failure> {
    let bar = bar("bets written");
    bar.set_length(bets);
    let written = generate::write_files(dir, agencies, bets, seed, &mut |bets| bar.set_position(bets));
    bar.finish_and_clear();
    Ok(written.with_context(|| format!("bets cannot be written to {}", dir.display()))?)
}

/// The progress of a check: a spinner while the length of the work is not known,
/// then a bar. Dropped, it is cleared.
pub(super) struct CheckProgress(ProgressBar);

impl CheckProgress {
    pub(super) fn new() -> Self {
        Self(bar("bets checked"))
    }

    pub(super) fn step(&self, step: Step) {
        match step {
            Step::Integrity => self.spin("reading the whole file"),
            Step::Tables => self.spin("comparing the tables with each other"),
            Step::Bets { done, all } => {
                if self.0.length() != Some(all) {
                    self.count_to(all);
                }
                self.0.set_position(done);
            }
        }
    }

    fn spin(&self, what: &str) {
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed");
        self.0.set_style(style);
        self.0.set_message(what.to_owned());
        self.0.enable_steady_tick(TICK);
    }

    fn count_to(&self, all: u64) {
        let counting = bar("bets checked");
        self.0.disable_steady_tick();
        self.0.set_style(counting.style());
        self.0.set_message(counting.message());
        self.0.set_length(all);
        self.0.reset_eta();
    }
}

impl Drop for CheckProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The progress of a copy and its check, shown once it has taken a while.
pub(super) struct CopyProgress {
    check: CheckProgress,
    /// Dropped, it ends the wait for that while.
    _done: Sender<()>,
}

impl CopyProgress {
    pub(super) fn new() -> Self {
        let check = CheckProgress::new();
        let (done, waited) = mpsc::channel();
        if std::io::stderr().is_terminal() {
            check.0.set_draw_target(ProgressDrawTarget::hidden());
            let bar = check.0.clone();
            // SQLite copies without reporting progress: the clock needs a thread.
            thread::spawn(move || {
                if waited.recv_timeout(SHOWN_AFTER) == Err(RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
            });
        }
        Self { check, _done: done }
    }

    pub(super) fn step(&self, step: CopyStep) {
        match step {
            CopyStep::Copying => self.check.spin("copying"),
            CopyStep::Checking(step) => self.check.step(step),
        }
    }
}
