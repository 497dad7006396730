//! `sorteo restore`: puts a backup in a database's place.

use std::path::PathBuf;

use super::copying::{Progress, tidy_on_signals, with_findings};
use super::{Failure, say};
use crate::config::database_path;
use crate::store::sqlite::restore::restore;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
No server may run on the database. FILE is verified as `sorteo check` does before
anything is changed, and stays as it is. What was there before is kept beside the
database as NAME.before-restore-TIME, and is never deleted. A restore that dies leaves
the old database or the new one: the server that starts next finishes it if need be.")]
pub(super) struct Args {
    /// What to restore: a backup, or any other database of this program
    file: PathBuf,
    /// The database file
    #[arg(long, value_name = "FILE", value_parser = database_path)]
    database: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    tidy_on_signals(&args.database)?;
    let progress = Progress::new();
    let restored = restore(&args.file, &args.database, &mut |step| progress.step(step));
    drop(progress);
    let restored = with_findings(restored)??;
    let report = restored.report;
    say!(
        "{}: restored {} draws, {} bets, {} winners from {}",
        args.database.display(),
        report.draws,
        report.bets,
        report.winners,
        args.file.display()
    )?;
    if let Some(kept) = restored.kept {
        say!("what was there before is kept as {}", kept.display())?;
    }
    Ok(())
}
