//! `sorteo check`: verifies a database, beside a running server or without one.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::upload::bar;
use super::{Failure, say};
use crate::config::database_path;
use crate::store::sqlite::check::{Report, check};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Verifies SQLite's integrity, then that the tables agree: bets against batches,
digests against rows, winners against bets, done agencies against the draw. One
line a finding; exits with 0 only if there is none. It writes nothing to the
database; where no server runs, SQLite leaves its FILE-shm and FILE-wal beside it.")]
pub(super) struct Args {
    /// The database file
    #[arg(long, value_name = "FILE", value_parser = database_path)]
    database: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let bar = if std::io::stderr().is_terminal() { bar("bets checked") } else { ProgressBar::hidden() };
    let report = check(&args.database, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    for finding in &report.findings {
        say!("{finding}")?;
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
    let report = check(database, &mut |_, _| {})?;
    conclude(&report, database)
}

fn conclude(report: &Report, database: &Path) -> Result<(), Failure> {
    match report.findings.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::Failed(anyhow::anyhow!(
            "{}: {} findings, the first: {first}; keep the file as it is and restore a backup",
            database.display(),
            report.findings.len()
        ))),
    }
}
