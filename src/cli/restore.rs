//! `sorteo restore`: puts a backup in a database's place.

use std::path::PathBuf;

use serde_json::json;

use super::copying::{Progress, tidy_on_signals, with_findings};
use super::{DatabaseArg, Failure, say, say_json};
use crate::store::sqlite::restore::restore;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
No server may run on the database. FILE is verified as `sorteo check` does
before anything is changed, and stays as it is. What was there before is kept
beside the database as NAME.before-restore-TIME, and is never deleted. A restore
that dies leaves the old database or the new one: the server that starts next
finishes it if need be.

Examples:
  sorteo restore /backups/monday.db --database lottery.db")]
pub(super) struct Args {
    /// What to restore: a backup, or any other database of this program
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArg,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let database = args.database.path()?;
    tidy_on_signals(&database)?;
    let progress = Progress::new();
    let restored = restore(&args.file, &database, &mut |step| progress.step(step));
    drop(progress);
    let restored = with_findings(restored)??;
    let report = restored.report;
    if args.json {
        return say_json(&json!({
            "database": database,
            "from": args.file,
            "draws": report.draws,
            "batches": report.batches,
            "bets": report.bets,
            "winners": report.winners,
            "kept": restored.kept,
        }));
    }
    say!(
        "{}: restored {} draws, {} bets, {} winners from {}",
        database.display(),
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
