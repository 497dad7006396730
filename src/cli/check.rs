//! `sorteo check`: verifies a database, whether a server runs on it or not.

use serde::Serialize;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::findings::{check_with_progress, require_none};
use super::output::{json_path, quantity, say, say_findings, say_json};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Verifies SQLite's integrity and the schema, then that the tables agree: bets
with batches, digests with rows, winners with bets, done agencies with the draw.
Prints one line per finding. Exits with 0 if there are none, with 1 if there are
some, with 74 if the file cannot be opened as a database. It writes nothing to
the database; where no server runs, SQLite leaves its FILE-shm and FILE-wal
beside it.

Examples:
  sorteo check --database sorteo.db
  sorteo check --database sorteo.db --json | jq .findings")]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArg,
    /// Print one line of JSON, including the findings
    #[arg(long)]
    json: bool,
}

/// What was found, for a program.
#[derive(Serialize)]
struct CheckOutput<'a> {
    database: String,
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
    let database = args.database.path_to_read()?;
    let report = check_with_progress(&database)?;
    if args.json {
        say_json(&CheckOutput {
            database: json_path(&database),
            fine: report.findings_total() == 0,
            draws: report.draws,
            batches: report.batches,
            bets: report.bets,
            winners: report.winners,
            findings: &report.findings,
            more: report.more,
        })?;
        return require_none(&report, &database);
    }
    say_findings(&report)?;
    require_none(&report, &database)?;
    say!(
        "{}: OK: {}, {}, {}, {}",
        database.display(),
        quantity(report.draws, "draw"),
        quantity(report.batches, "batch"),
        quantity(report.bets, "bet"),
        quantity(report.winners, "winner")
    )?;
    Ok(())
}
