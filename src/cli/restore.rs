//! `sorteo restore`: replaces a database with a backup.

use std::path::PathBuf;

use serde_json::json;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::findings::say_findings_of_copy;
use super::output::{json_path, quantity, say, say_json};
use super::progress::CopyProgress;
use super::signals::remove_unfinished_on_signals;
use crate::store::sqlite::restore::restore;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
No server may be running on the database. FILE is verified as `sorteo check`
does before anything changes, and is not modified itself. The previous database
is kept beside the new one as NAME.before-restore-TIME, and is never deleted. A
restore that is interrupted leaves either the old or the new database; the next
server to start completes it if necessary.

Examples:
  sorteo restore /backups/monday.db --database lottery.db")]
pub(super) struct Args {
    /// Backup to restore, or any other database of this program
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
            "database": json_path(&database),
            "from": json_path(&args.file),
            "draws": report.draws,
            "batches": report.batches,
            "bets": report.bets,
            "winners": report.winners,
            "kept": restored.kept.as_deref().map(json_path),
        }));
    }
    say!(
        "{}: restored {}, {}, {} from {}",
        database.display(),
        quantity(report.draws, "draw"),
        quantity(report.bets, "bet"),
        quantity(report.winners, "winner"),
        args.file.display()
    )?;
    if let Some(kept) = restored.kept {
        say!("the previous database is kept as {}", kept.display())?;
    }
    Ok(())
}
