//! `sorteo check`: verifies a database, beside a running server or without one.

use std::path::Path;

use serde::Serialize;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::findings::{check_with_progress, require_none};
use super::output::{say, say_findings, say_json};

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
    let report = check_with_progress(&database)?;
    if args.json {
        say_json(&CheckOutput {
            database: &database,
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
        "{}: fine: {} draws, {} batches, {} bets, {} winners",
        database.display(),
        report.draws,
        report.batches,
        report.bets,
        report.winners
    )?;
    Ok(())
}
