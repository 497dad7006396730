//! `sorteo check`: verifies a database, beside a running server or without one.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::upload::bar;
use super::{Failure, say};
use crate::config::database_path;
use crate::store::sqlite::check::{Report, Step, check};

/// Between two pictures of the spinner: SQLite says nothing while it reads.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Verifies SQLite's integrity and the schema, then that the tables agree: bets
against batches, digests against rows, winners against bets, done agencies against
the draw. One line a finding; exits with 0 only if there is none, with 1 if there
are, with 74 if the file cannot be opened as a database. It writes nothing to the
database; where no server runs, SQLite leaves its FILE-shm and FILE-wal beside it.")]
pub(super) struct Args {
    /// The database file
    #[arg(long, value_name = "FILE", value_parser = database_path)]
    database: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let shown = Shown::new(std::io::stderr().is_terminal());
    let report = check(&args.database, &mut |step| shown.step(step));
    shown.0.finish_and_clear();
    let report = report?;
    for finding in &report.findings {
        say!("{finding}")?;
    }
    if report.more > 0 {
        say!("and {} more", report.more)?;
    }
    conclude(&report, &args.database)?;
    say!(
        "{}: fine: {} draws, {} batches, {} bets, {} winners",
        args.database.display(),
        report.draws,
        report.batches,
        report.bets,
        report.winners
    )?;
    Ok(())
}

/// Checks quietly; the first finding is the error.
pub(super) fn verify(database: &Path) -> Result<(), Failure> {
    let report = check(database, &mut |_| {})?;
    conclude(&report, database)
}

fn conclude(report: &Report, database: &Path) -> Result<(), Failure> {
    match report.findings.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::Failed(anyhow::anyhow!(
            "{}: {} findings, the first: {first}; keep the file as it is and restore a backup",
            database.display(),
            report.found_all()
        ))),
    }
}

/// What a terminal shows: a spinner while the length of the work is not known,
/// then a bar.
struct Shown(ProgressBar);

impl Shown {
    fn new(terminal: bool) -> Self {
        Self(if terminal { bar("bets checked") } else { ProgressBar::hidden() })
    }

    fn step(&self, step: Step) {
        match step {
            Step::Integrity => self.spin("reading the whole file"),
            Step::Tables => self.spin("holding the tables against each other"),
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
