//! `sorteo import`: stores the bets of all agencies from one file, such as the `bets.csv`
//! of the original servers, while no server runs.

use std::path::PathBuf;

use log::LevelFilter;
use serde_json::json;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::observer;
use super::output::{json_path, quantity, say, say_json};
use super::progress::bar;
use crate::import::Imported;
use crate::store::sqlite::operator::Operator;
use crate::store::sqlite::{Options, SqliteStore};
use crate::{import, logging};

/// An import makes one query at a time.
const READERS: u32 = 1;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE is CSV without a header: agency, first name, last name, document, birthdate
(YYYY-MM-DD), number. All rows are checked before any is stored. The bets go
into the newest draw, which must be open; no agency is marked as done. However
often a file is imported into a draw, it is stored once, and an import that was
interrupted is resumed. No server may be running on the database, which is
created if missing.

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
    // Opening the database draws if the draw is due: the observer logs it.
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
            "file": json_path(&args.file),
            "draw": imported.draw.0,
            "agencies": imported.agencies,
            "stored": imported.stored,
            "before": imported.before,
        }));
    }
    print_imported(args, &imported)
}

fn print_imported(args: &Args, imported: &Imported) -> Result<(), Failure> {
    let before = match imported.before {
        0 => String::new(),
        1 => "; 1 was stored before".to_owned(),
        before => format!("; {before} were stored before"),
    };
    say!(
        "{}: {} of {} stored in draw {}{before}",
        args.file.display(),
        quantity(imported.stored, "bet"),
        quantity(imported.agencies, "agency"),
        imported.draw
    )?;
    Ok(())
}
