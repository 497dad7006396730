//! `sorteo generate`: made-up files of bets.

use std::path::PathBuf;

use serde::Serialize;

use super::failure::Failure;
use super::output::{say, say_json};
use super::progress::write_bets_files;
use crate::generate;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files that are there already are left as they are if they hold just what would
be written, and are an error if they hold anything else.

Examples:
  sorteo generate --dir data
  sorteo generate --dir data --agencies 2 --bets 40000 --seed 7")]
pub(super) struct Args {
    /// Folder for agency-1.csv to agency-N.csv, made if it is missing
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// How many agencies
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    agencies: u32,
    /// How many bets they have together
    #[arg(long, value_name = "N", default_value_t = generate::BETS)]
    bets: u64,
    /// The same seed writes the same files
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// What was written, for a program.
#[derive(Serialize)]
struct Written<'a> {
    bets: u64,
    agencies: u32,
    seed: u64,
    files: &'a [PathBuf],
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let files = write_bets_files(&args.dir, args.agencies, args.bets, args.seed)?;
    if args.json {
        let written = Written { bets: args.bets, agencies: args.agencies, seed: args.seed, files: &files };
        return say_json(&written);
    }
    say!("{} bets of {} agencies in {}", args.bets, files.len(), args.dir.display())?;
    Ok(())
}
