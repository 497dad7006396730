//! `sorteo generate`: writes files of made-up bets.

use std::path::PathBuf;

use serde::Serialize;

use super::failure::Failure;
use super::output::{json_path, quantity, say, say_json};
use super::progress::write_bets_files;
use crate::generate;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Existing files are left alone if they hold exactly what would be written; any
other content is an error.

Examples:
  sorteo generate --dir data
  sorteo generate --dir data --agencies 2 --bets 40000 --seed 7")]
pub(super) struct Args {
    /// Folder for agency-1.csv to agency-N.csv, created if missing
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Number of agencies
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    agencies: u32,
    /// Number of bets of all agencies together
    #[arg(long, value_name = "N", default_value_t = generate::BETS)]
    bets: u64,
    /// The same seed writes the same files
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// The result as JSON.
#[derive(Serialize)]
struct Written {
    bets: u64,
    agencies: u32,
    seed: u64,
    files: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let files = write_bets_files(&args.dir, args.agencies, args.bets, args.seed)?;
    if args.json {
        let written = Written {
            bets: args.bets,
            agencies: args.agencies,
            seed: args.seed,
            files: files.iter().map(|file| json_path(file)).collect(),
        };
        return say_json(&written);
    }
    let (bets, agencies) = (quantity(args.bets, "bet"), quantity(args.agencies.into(), "agency"));
    say!("{bets} of {agencies} in {}", args.dir.display())?;
    Ok(())
}
