//! `sorteo import`: stores a seed's `bets.csv`, while no server runs.

use std::path::PathBuf;

use log::LevelFilter;
use serde_json::json;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::observer;
use super::output::{say, say_json};
use super::progress::bar;
use crate::store::sqlite::operator::Operator;
use crate::store::sqlite::{Options, SqliteStore};
use crate::{import, logging};

/// It asks one question at a time.
const READERS: u32 = 1;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE is CSV without a header: agency, first name, last name, document, birthdate
(YYYY-MM-DD), number. Every row is checked before one is stored. The bets go
into the newest draw, which must be open; no agency is done by it. The same file
is stored once in a draw however often it is imported, and one that was
interrupted goes on. No server may run on the database; it is made if it is
missing.

Examples:
  sorteo import bets.csv --database lottery.db")]
pub(super) struct Args {
    /// The bets of all agencies
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArg,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let options = Options { readers: READERS, ..args.database.options()? };
    logging::init(LevelFilter::Info, logging::Format::default());
    let checked = import::check(&args.file)?;
    // A draw that was due is made as the database is opened.
    let (store, _) = SqliteStore::open(&options, observer::log_only())?;
    let bar = bar("bets stored");
    let imported = checked.store_in(&store, &mut |stored, all| {
        bar.set_length(all);
        bar.set_position(stored);
    });
    bar.finish_and_clear();
    store.close();
    let imported = imported?;
    let stored = format!(
        "{} of {} bets from {}",
        imported.stored,
        imported.stored + imported.before,
        args.file.display()
    );
    Operator::open(&options.database)?.record_import(imported.draw, &stored)?;
    if args.json {
        return say_json(&json!({
            "file": args.file,
            "draw": imported.draw.0,
            "agencies": imported.agencies,
            "stored": imported.stored,
            "before": imported.before,
        }));
    }
    let before = match imported.before {
        0 => String::new(),
        before => format!("; {before} were stored before"),
    };
    say!(
        "{}: {} bets of {} agencies stored in draw {}{before}",
        args.file.display(),
        imported.stored,
        imported.agencies,
        imported.draw
    )?;
    Ok(())
}
