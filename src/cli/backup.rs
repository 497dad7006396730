//! `sorteo backup`: saves a database to a file, beside a running server.

use std::path::PathBuf;

use serde_json::json;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::findings::say_findings_of_copy;
use super::output::{say, say_json};
use super::progress::CopyProgress;
use super::signals::remove_unfinished_on_signals;
use crate::store::sqlite::backup::backup;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
All that was acknowledged before it began is in it. The copy is verified as
`sorteo check` does before FILE has its name: FILE is whole, or not there. It is
a database like any other, in one file. Exits with 74, and prints what was
found, where the database is damaged.

Examples:
  sorteo backup /backups/monday.db --database lottery.db
  sorteo backup monday.db --force --json")]
pub(super) struct Args {
    /// Where to save it
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
    let database = args.database.path()?;
    remove_unfinished_on_signals(&args.file)?;
    let progress = CopyProgress::new();
    let saved = backup(&database, &args.file, args.force, &mut |step| progress.step(step));
    drop(progress);
    let saved = say_findings_of_copy(saved)??;
    let (file, report, bytes) = (args.file.display(), saved.report, saved.bytes);
    if args.json {
        return say_json(&json!({
            "file": args.file,
            "draws": report.draws,
            "batches": report.batches,
            "bets": report.bets,
            "winners": report.winners,
            "bytes": bytes,
        }));
    }
    say!(
        "{file}: saved {} draws, {} bets, {} winners in {bytes} bytes",
        report.draws,
        report.bets,
        report.winners
    )?;
    Ok(())
}
