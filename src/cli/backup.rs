//! `sorteo backup`: saves a database to a file, beside a running server.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::copying::{Progress, tidy_on_signals, with_findings};
use super::{Failure, say};
use crate::config::database_path;
use crate::store::sqlite::backup::backup;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
All that was acknowledged before it began is in it. The copy is verified as `sorteo
check` does before FILE has its name: FILE is whole, or not there. It is a database
like any other, in one file. Exits with 74, and prints what was found, where the
database is damaged.")]
pub(super) struct Args {
    /// Where to save it
    file: PathBuf,
    /// The database file
    #[arg(long, value_name = "FILE", value_parser = database_path)]
    database: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    /// Print what was saved as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    tidy_on_signals(&args.file)?;
    let progress = Progress::new();
    let saved = backup(&args.database, &args.file, args.force, &mut |step| progress.step(step));
    drop(progress);
    let saved = with_findings(saved)??;
    let (file, report, bytes) = (args.file.display(), saved.report, saved.bytes);
    if args.json {
        let saved = json!({
            "file": args.file.to_str().context("the backup is made; its name is not UTF-8")?,
            "draws": report.draws,
            "batches": report.batches,
            "bets": report.bets,
            "winners": report.winners,
            "bytes": bytes,
        });
        say!("{saved}")?;
        return Ok(());
    }
    say!(
        "{file}: saved {} draws, {} bets, {} winners in {bytes} bytes",
        report.draws,
        report.bets,
        report.winners
    )?;
    Ok(())
}
