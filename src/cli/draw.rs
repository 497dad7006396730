//! `sorteo draw`: what an operator does to the draws of a database, whether a server runs
//! on it or not.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{ArgGroup, Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use log::LevelFilter;

use super::arguments::{DatabaseArg, agency};
use super::failure::Failure;
use super::output::{quantity, say, say_json};
use crate::logging;
use crate::service::log_drawn;
use crate::store::sqlite::operator::{
    ChangedDraw, ClosedAgency, DrawTerms, Operator, OperatorError, is_reason,
};
use crate::store::sqlite::overview::{Agency, Detail, Draw, Overview};
use crate::store::{DrawStatus, ExpectedAgencies};
use sorteo_protocol::text::decimal;
use sorteo_protocol::{AgencyId, DrawId};

/// Maximum number of draws that are listed: one a day for 27 years.
const DRAWS_LISTED_MAX: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Open the next draw, once the newest is drawn
    #[command(after_help = "\
What is not given is taken from the previous draw. The winners of earlier draws
can still be read. The new draw keeps its terms, whatever --agencies and
--winning-number a server is started with later.

Examples:
  sorteo draw open --database lottery.db
  sorteo draw open --agencies 6 --winning-number 4242")]
    Open {
        #[command(flatten)]
        database: DatabaseArg,
        #[command(flatten)]
        terms: TermArgs,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Change which agencies the open draw expects, or which number wins
    #[command(after_help = "\
The table `audit` records the change, and why. Bets that are stored stay. If all
agencies that are expected now are done, the draw takes place. The draw keeps
what was set, whatever --agencies and --winning-number a server is started with
later.

Examples:
  sorteo draw set --agencies 1-5,7 --reason 'agency 22 was a typing error'
  sorteo draw set --winning-number 4242 --reason 'as published on Monday'")]
    #[command(group(ArgGroup::new("terms").args(["agencies", "winning_number"]).required(true).multiple(true)))]
    Set {
        #[command(flatten)]
        database: DatabaseArg,
        #[command(flatten)]
        terms: TermArgs,
        /// Why, in one line, for the table `audit`
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
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
        /// Which draw [default: the newest]
        #[arg(value_name = "ID", value_parser = draw_id)]
        id: Option<i64>,
        #[command(flatten)]
        database: DatabaseArg,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Mark an agency that stays silent as done
    #[command(after_help = "\
The bets that it sent take part in the draw; what it sends later is refused with
`agency_done`. If no other agency is missing, the draw takes place. The reason
is kept in the table `audit`. This cannot be undone.

Examples:
  sorteo draw close-agency 4 --reason 'line down, agreed by telephone'")]
    CloseAgency {
        /// The agency's number
        #[arg(value_name = "ID", value_parser = agency)]
        id: AgencyId,
        /// Why, in one line, for the table `audit`
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// Close it even if it has sent nothing and is not expected
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        database: DatabaseArg,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

/// The terms of a draw.
#[derive(Debug, Args)]
pub(super) struct TermArgs {
    /// Agencies that must be done before the draw: how many, or which (1-5,7)
    #[arg(long, value_name = "AGENCIES", allow_negative_numbers = true)]
    agencies: Option<ExpectedAgencies>,
    /// Number that wins
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    winning_number: Option<u32>,
}

impl TermArgs {
    fn given(&self) -> DrawTerms {
        DrawTerms { agencies: self.agencies.clone(), winning_number: self.winning_number }
    }
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Open { database, terms, json } => open(&database.path()?, terms.given(), *json),
        Command::Set { database, terms, reason, json } => {
            set(&database.path()?, &terms.given(), reason, *json)
        }
        Command::List { database, json } => list(&database.path_to_read()?, *json),
        Command::Show { id, database, json } => show(&database.path_to_read()?, id.map(DrawId), *json),
        Command::CloseAgency { id, reason, force, database, json } => {
            close_agency(&database.path()?, *id, reason, *force, *json)
        }
    }
}

/// Reads a whole number in a range.
fn whole(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let wrong = || format!("not a whole number from {} to {}", range.start(), range.end());
    decimal(text).filter(|number| range.contains(number)).ok_or_else(wrong)
}

fn number(text: &str) -> Result<u32, String> {
    whole(text, 0..=u32::MAX.into()).map(|number| number as u32)
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
    say!("{}", terms_line(&draw))?;
    Ok(())
}

fn set(database: &Path, terms: &DrawTerms, reason: &str, json: bool) -> Result<(), Failure> {
    let ChangedDraw { status, changed, drawn_now } = Operator::open(database)?.set_draw(terms, reason)?;
    if drawn_now {
        log_drawn_here(&status);
    }
    let draw = find(&Overview::open(database)?, Some(status.draw), database)?;
    if json {
        return say_json(&serde_json::json!({ "changed": changed, "draw": draw }));
    }
    if !changed {
        say!("draw {} has these terms already, nothing was changed", draw.id)?;
    }
    match drawn_now {
        true => say_drawn(&status),
        false => Ok(say!("{}", terms_line(&draw))?),
    }
}

/// Returns what an open draw waits for, and which number wins.
fn terms_line(draw: &Draw) -> String {
    let expected = match (&draw.expected_set, draw.expected_inferred) {
        (Some(set), _) => format!("the agencies {set} must be done"),
        (None, true) => "all agencies from 1 to the highest seen must be done".to_owned(),
        (None, false) => format!("{} must be done", quantity(draw.expected, "agency")),
    };
    format!("draw {} is open: {expected}, number {} wins", draw.id, draw.winning_number)
}

/// Logs a draw that took place in this process: the process that draws logs it, and no
/// other.
fn log_drawn_here(status: &DrawStatus) {
    logging::init(LevelFilter::Info, logging::Format::default());
    log_drawn(status);
}

fn say_drawn(status: &DrawStatus) -> Result<(), Failure> {
    let (bets, winners) = (quantity(status.bets, "bet"), quantity(status.winners, "winner"));
    Ok(say!("draw {} is drawn: {bets}, {winners}", status.draw)?)
}

fn list(database: &Path, json: bool) -> Result<(), Failure> {
    let draws = Overview::open(database)?.draws(DRAWS_LISTED_MAX)?;
    if json {
        return say_json(&draws);
    }
    let mut table =
        table(&["draw", "state", "agencies done", "bets", "winners", "number", "opened", "drawn"]);
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
    let detail = overview.detail(id)?;
    let Detail { draw, agencies } = detail.ok_or_else(|| no_draw(id, database))?;
    if json {
        return say_json(&serde_json::json!({ "draw": draw, "agencies": agencies }));
    }
    say!(
        "draw {}: {}, {} agencies done, {}, number {} wins",
        draw.id,
        draw.state,
        done_of_expected(&draw),
        quantity(draw.bets, "bet"),
        draw.winning_number
    )?;
    let drawn =
        draw.drawn_at.as_ref().map(|at| format!(", drawn {at} with {}", quantity(draw.winners, "winner")));
    say!("opened {}{}", draw.opened_at, drawn.unwrap_or_default())?;
    if let Some(set) = &draw.expected_set {
        say!("expected are the agencies {set}")?;
    }
    if agencies.is_empty() {
        say!("no agency has sent anything yet")?;
        return Ok(());
    }
    Ok(say!("{}", agency_table(&draw, agencies).trim_fmt())?)
}

fn agency_table(draw: &Draw, agencies: Vec<Agency>) -> Table {
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
            winners(draw, agency.winners),
        ]);
    }
    table
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
        log_drawn_here(&status);
    }
    if json {
        let draw = find(&Overview::open(database)?, Some(status.draw), database)?;
        return say_json(&serde_json::json!({ "agency": agency.0, "bets": bets, "draw": draw }));
    }
    let draw = status.draw;
    say!("agency {agency} is closed in draw {draw}, with {}", quantity(bets, "bet"))?;
    match drawn_now {
        true => say_drawn(&status),
        false => Ok(say!("{} of {} agencies are done", status.done, status.expected)?),
    }
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

/// Returns the number of winners; nothing before the draw, which is not the same as none.
fn winners(draw: &Draw, winners: u64) -> String {
    if draw.is_drawn() { winners.to_string() } else { String::new() }
}

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for (column, heading) in table.column_iter_mut().zip(headings) {
        if !matches!(*heading, "state" | "opened" | "drawn" | "done") {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
