//! `sorteo import`: stores a seed's `bets.csv`, while no server runs.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressBar;
use log::LevelFilter;

use super::upload::bar;
use super::{Failure, say};
use crate::config::database_path;
use crate::store::sqlite::{Event, Options, SqliteStore};
use crate::{event, import, logging};

/// It asks one question at a time.
const READERS: u32 = 1;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE is CSV without a header: agency, first name, last name, document, birthdate
(YYYY-MM-DD), number. Every row is checked before one is stored. The bets go into the
newest draw, which must be open; no agency is done by it. The same file is stored once
however often it is imported, and one that was interrupted goes on. No server may run
on the database; it is made if it is missing.")]
pub(super) struct Args {
    /// The bets of all agencies
    file: PathBuf,
    /// The database file
    #[arg(long, value_name = "FILE", value_parser = database_path)]
    database: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    logging::init(LevelFilter::Info, logging::Format::default());
    let checked = import::check(&args.file)?;
    let options = Options { readers: READERS, ..Options::new(&args.database) };
    // A draw that was due is made as the database is opened.
    let (store, _) = SqliteStore::open(
        &options,
        Arc::new(|told| match told {
            Event::Drawn(standing) => event!(
                Info,
                "sorteo",
                Success,
                draw = standing.draw,
                bets = standing.bets,
                winners = standing.winners
            ),
            Event::Failed(error) => event!(Error, "write_database", Fail, error = error),
        }),
    )?;
    let bar = if std::io::stderr().is_terminal() { bar("bets stored") } else { ProgressBar::hidden() };
    let imported = checked.store_in(&store, &mut |stored, all| {
        bar.set_length(all);
        bar.set_position(stored);
    });
    bar.finish_and_clear();
    store.close();
    let imported = imported?;
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
