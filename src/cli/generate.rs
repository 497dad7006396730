//! `sorteo generate`: made-up files of bets.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Failure, say};
use crate::generate;

#[derive(Debug, clap::Args)]
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
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let paths = generate::write_files(&args.dir, args.agencies, args.bets, args.seed)
        .with_context(|| format!("bets cannot be written to {}", args.dir.display()))?;
    say!("{} bets of {} agencies in {}", args.bets, paths.len(), args.dir.display())?;
    Ok(())
}
