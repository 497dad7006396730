//! `sorteo draw`: what an operator does to the draws of a database, beside a
//! running server or without one.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Subcommand;
use comfy_table::{CellAlignment, Table, presets};
use log::LevelFilter;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::output::{say, say_json};
use crate::logging;
use crate::service::log_drawn;
use crate::store::sqlite::operator::{ClosedAgency, DrawTerms, Operator, OperatorError, is_reason};
use crate::store::sqlite::overview::{Detail, Draw, Overview, Tally};
use sorteo_protocol::text::decimal;
use sorteo_protocol::{AgencyId, DrawId};

/// Draws that are listed; a lottery with one each day has as many in 27 years.
const DRAWS_LISTED_MAX: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Open the next draw, once the newest is made
    #[command(after_help = "\
What is not told is as in the draw before. Everything stays by draw: the winners
of earlier ones can still be read. A draw opened so keeps these numbers,
whatever --agencies and --winning-number a server is started with later.

Examples:
  sorteo draw open --database lottery.db
  sorteo draw open --agencies 6 --winning-number 4242")]
    Open {
        #[command(flatten)]
        database: DatabaseArg,
        /// Agencies that must be done before the draw
        #[arg(long, value_name = "N", value_parser = agencies, allow_negative_numbers = true)]
        agencies: Option<u32>,
        /// Number that wins
        #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
        winning_number: Option<u32>,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List the draws, newest first
    #[command(after_help = "\
Examples:
  sorteo draw list --database lottery.db
  sorteo draw list --json | jq '.[] | select(.state == \"drawn\") | .id'")]
    List {
        #[command(flatten)]
        database: DatabaseArg,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a draw and its agencies
    #[command(after_help = "\
Examples:
  sorteo draw show              the newest draw
  sorteo draw show 1 --json     draw 1, for a script")]
    Show {
        /// The draw; without it, the newest
        #[arg(value_name = "ID", value_parser = draw_id)]
        id: Option<i64>,
        #[command(flatten)]
        database: DatabaseArg,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Say for an agency that stays silent that it is done
    #[command(after_help = "\
The bets that it sent take part in the draw; what it sends later is refused with
`agency_done`. If it was the last one, this makes the draw. The reason is kept
in the table `audit`. It cannot be undone.

Examples:
  sorteo draw close-agency 4 --reason 'line down, agreed by telephone'")]
    CloseAgency {
        /// The agency's number
        #[arg(value_name = "ID", value_parser = agency)]
        id: AgencyId,
        /// Why, for the audit: one line
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// Close it though it has sent nothing and is not one of those expected
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        database: DatabaseArg,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Open { database, agencies, winning_number, json } => {
            open(&database.path()?, DrawTerms { agencies: *agencies, winning_number: *winning_number }, *json)
        }
        Command::List { database, json } => list(&database.path()?, *json),
        Command::Show { id, database, json } => show(&database.path()?, id.map(DrawId), *json),
        Command::CloseAgency { id, reason, force, database, json } => {
            close_agency(&database.path()?, *id, reason, *force, *json)
        }
    }
}

/// A whole number in a range, or what it should have been.
fn whole(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let wrong = || format!("not a whole number from {} to {}", range.start(), range.end());
    decimal(text).filter(|number| range.contains(number)).ok_or_else(wrong)
}

fn number(text: &str) -> Result<u32, String> {
    whole(text, 0..=u32::MAX.into()).map(|number| number as u32)
}

fn agencies(text: &str) -> Result<u32, String> {
    whole(text, 1..=u32::MAX.into()).map(|number| number as u32)
}

fn agency(text: &str) -> Result<AgencyId, String> {
    number(text).map(AgencyId)
}

fn draw_id(text: &str) -> Result<i64, String> {
    whole(text, 1..=i64::MAX as u64).map(|number| number as i64)
}

fn reason(text: &str) -> Result<String, String> {
    match is_reason(text) {
        true => Ok(text.to_owned()),
        false => Err(OperatorError::BadReason.to_string()),
    }
}

fn open(database: &Path, terms: DrawTerms, json: bool) -> Result<(), Failure> {
    let status = Operator::open(database)?.open_draw(terms)?;
    let draw = find(&Overview::open(database)?, Some(status.draw), database)?;
    if json {
        return say_json(&draw);
    }
    say!(
        "draw {} is open: {}, number {} wins",
        draw.id,
        match draw.expected_inferred {
            true => "all agencies from 1 to the highest seen must be done".to_owned(),
            false => format!("{} agencies must be done", draw.expected),
        },
        draw.winning_number
    )?;
    Ok(())
}

fn list(database: &Path, json: bool) -> Result<(), Failure> {
    let draws = Overview::open(database)?.draws(DRAWS_LISTED_MAX)?;
    if json {
        return say_json(&draws);
    }
    let mut table = table(&["draw", "state", "agencies done", "bets", "winners", "number", "opened", "made"]);
    for draw in draws {
        table.add_row([
            draw.id.to_string(),
            draw.state.clone(),
            done_of_expected(&draw),
            draw.bets.to_string(),
            winners(&draw, draw.winners),
            draw.winning_number.to_string(),
            draw.opened_at.clone(),
            draw.drawn_at.clone().unwrap_or_default(),
        ]);
    }
    say!("{}", table.trim_fmt())?;
    Ok(())
}

fn show(database: &Path, id: Option<DrawId>, json: bool) -> Result<(), Failure> {
    let overview = Overview::open(database)?;
    let detail = overview.detail(id, &mut Tally::default())?;
    let Detail { draw, agencies } = detail.ok_or_else(|| no_draw(id, database))?;
    if json {
        return say_json(&serde_json::json!({ "draw": draw, "agencies": agencies }));
    }
    say!(
        "draw {}: {}, {} agencies done, {} bets, number {} wins",
        draw.id,
        draw.state,
        done_of_expected(&draw),
        draw.bets,
        draw.winning_number
    )?;
    let made = draw.drawn_at.as_ref().map(|at| format!(", made {at} with {} winners", draw.winners));
    say!("opened {}{}", draw.opened_at, made.unwrap_or_default())?;
    if agencies.is_empty() {
        say!("no agency has sent anything yet")?;
        return Ok(());
    }
    let mut table = table(&["agency", "bets", "batches", "done", "winners"]);
    for agency in agencies {
        let done = match (&agency.done_at, agency.done_by.as_deref()) {
            (Some(at), Some("operator")) => format!("{at}, closed by an operator"),
            (Some(at), _) => at.clone(),
            (None, _) => String::new(),
        };
        table.add_row([
            agency.agency.to_string(),
            agency.bets.to_string(),
            agency.batches.to_string(),
            done,
            winners(&draw, agency.winners),
        ]);
    }
    say!("{}", table.trim_fmt())?;
    Ok(())
}

fn close_agency(
    database: &Path,
    agency: AgencyId,
    reason: &str,
    force: bool,
    json: bool,
) -> Result<(), Failure> {
    let closed = Operator::open(database)?.close_agency(agency, reason, force)?;
    let ClosedAgency { bets, status, drawn_now } = closed;
    if drawn_now {
        // Told by whoever makes a draw, and by nobody else.
        logging::init(LevelFilter::Info, logging::Format::default());
        log_drawn(&status);
    }
    if json {
        let draw = find(&Overview::open(database)?, Some(status.draw), database)?;
        return say_json(&serde_json::json!({ "agency": agency.0, "bets": bets, "draw": draw }));
    }
    let draw = status.draw;
    say!("agency {agency} is closed in draw {draw}, with {bets} bets")?;
    match drawn_now {
        true => say!("draw {draw} is made: {} bets, {} winners", status.bets, status.winners)?,
        false => say!("{} of {} agencies are done", status.done, status.expected)?,
    }
    Ok(())
}

fn find(overview: &Overview, id: Option<DrawId>, path: &Path) -> Result<Draw, Failure> {
    Ok(overview.draw(id)?.ok_or_else(|| no_draw(id, path))?)
}

fn no_draw(id: Option<DrawId>, path: &Path) -> anyhow::Error {
    match id {
        Some(id) => anyhow!("{} has no draw {id}: see `sorteo draw list`", path.display()),
        None => OperatorError::NoDraw(PathBuf::from(path)).into(),
    }
}

fn done_of_expected(draw: &Draw) -> String {
    let so_far = if draw.expected_inferred && !draw.is_drawn() { " so far" } else { "" };
    format!("{} of {}{so_far}", draw.done, draw.expected)
}

/// Nobody has won before the draw: that is not the same as no winners.
fn winners(draw: &Draw, winners: u64) -> String {
    if draw.is_drawn() { winners.to_string() } else { String::new() }
}

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for (column, heading) in table.column_iter_mut().zip(headings) {
        if !matches!(*heading, "state" | "opened" | "made" | "done") {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
