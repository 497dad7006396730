//! `sorteo check`: verifies a database, beside a running server or without one.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::upload::bar;
use super::{DatabaseArg, Failure, say, say_json};
use crate::store::sqlite::check::{Report, Step, check};

/// Between two pictures of the spinner: SQLite says nothing while it reads.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Verifies SQLite's integrity and the schema, then that the tables agree: bets
against batches, digests against rows, winners against bets, done agencies
against the draw. One line a finding; exits with 0 only if there is none, with 1
if there are, with 74 if the file cannot be opened as a database. It writes
nothing to the database; where no server runs, SQLite leaves its FILE-shm and
FILE-wal beside it.

Examples:
  sorteo check --database sorteo.db
  sorteo check --database sorteo.db --json | jq .findings")]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArg,
    /// Print one line of JSON, with the findings too
    #[arg(long)]
    json: bool,
}

/// What was found, for a program.
#[derive(Serialize)]
struct CheckOutput<'a> {
    database: &'a Path,
    fine: bool,
    draws: u64,
    batches: u64,
    bets: u64,
    winners: u64,
    findings: &'a [String],
    /// Findings beyond those.
    more: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let database = args.database.path()?;
    let report = check_shown(&database)?;
    if args.json {
        say_json(&CheckOutput {
            database: &database,
            fine: report.found_all() == 0,
            draws: report.draws,
            batches: report.batches,
            bets: report.bets,
            winners: report.winners,
            findings: &report.findings,
            more: report.more,
        })?;
        return conclude(&report, &database);
    }
    tell_findings(&report)?;
    conclude(&report, &database)?;
    say!(
        "{}: fine: {} draws, {} batches, {} bets, {} winners",
        database.display(),
        report.draws,
        report.batches,
        report.bets,
        report.winners
    )?;
    Ok(())
}

/// One line a finding.
pub(super) fn tell_findings(report: &Report) -> anyhow::Result<()> {
    for finding in &report.findings {
        say!("{finding}")?;
    }
    if report.more > 0 {
        say!("and {} more", report.more)?;
    }
    Ok(())
}

/// Checks without a word of the result; the first finding is the error.
pub(super) fn verify(database: &Path) -> Result<(), Failure> {
    conclude(&check_shown(database)?, database)
}

/// Checks, and shows on a terminal how far it is.
fn check_shown(database: &Path) -> Result<Report, Failure> {
    let shown = Shown::new(std::io::stderr().is_terminal());
    let report = check(database, &mut |step| shown.step(step));
    shown.0.finish_and_clear();
    Ok(report?)
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
pub(super) struct Shown(pub(super) ProgressBar);

impl Shown {
    pub(super) fn new(terminal: bool) -> Self {
        Self(if terminal { bar("bets checked") } else { ProgressBar::hidden() })
    }

    pub(super) fn step(&self, step: Step) {
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

    pub(super) fn spin(&self, what: &str) {
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
