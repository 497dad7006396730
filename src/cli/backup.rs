//! `sorteo backup`: saves a verified copy of a database to a file, even while a server
//! runs on it.

use std::path::PathBuf;

use serde_json::json;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::findings::say_findings_of_copy;
use super::output::{json_path, quantity, say, say_json};
use super::progress::CopyProgress;
use super::signals::remove_unfinished_on_signals;
use crate::store::sqlite::backup::backup;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The backup contains everything that was acknowledged before it began. It is
verified as `sorteo check` does before FILE gets its name, so FILE is either
complete or absent. It is an ordinary database in a single file. If the database
is damaged, prints the findings and exits with 74.

Examples:
  sorteo backup /backups/monday.db --database lottery.db
  sorteo backup monday.db --force --json")]
pub(super) struct Args {
    /// File to save the backup to
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArg,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let database = args.database.path_to_read()?;
    remove_unfinished_on_signals(&args.file)?;
    let progress = CopyProgress::new();
    let saved = backup(&database, &args.file, args.force, &mut |step| progress.step(step));
    drop(progress);
    let saved = say_findings_of_copy(saved)??;
    let (file, report, bytes) = (args.file.display(), saved.report, saved.bytes);
    if args.json {
        return say_json(&json!({
            "file": json_path(&args.file),
            "draws": report.draws,
            "batches": report.batches,
            "bets": report.bets,
            "winners": report.winners,
            "bytes": bytes,
        }));
    }
    say!(
        "{file}: saved {}, {}, {} in {bytes} bytes",
        quantity(report.draws, "draw"),
        quantity(report.bets, "bet"),
        quantity(report.winners, "winner")
    )?;
    Ok(())
}
