//! `sorteo restore`: puts a backup in a database's place.

use std::path::PathBuf;

use serde_json::json;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::findings::say_findings_of_copy;
use super::output::{say, say_json};
use super::progress::CopyProgress;
use super::signals::remove_unfinished_on_signals;
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
    remove_unfinished_on_signals(&database)?;
    let progress = CopyProgress::new();
    let restored = restore(&args.file, &database, &mut |step| progress.step(step));
    drop(progress);
    let restored = say_findings_of_copy(restored)??;
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
