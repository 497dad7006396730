//! `sorteo winners`, `sorteo done` and `sorteo status`: a request to a running server.

use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::output::{quantity, say, say_json};
use super::security::SecurityArgs;
use crate::config::flags::AgencyQuestion;
use crate::config::{AgencyConfig, Flags, Layers, process_environment};
use sorteo_agency::{AgencyError, Client, ClientOptions};
use sorteo_protocol::DrawId;
use sorteo_protocol::wire::{Reason, Status};

/// How long a request is retried: a person, or a health check, is waiting.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Fails with not_ready before the draw. The original variables CLI_ID and
CLI_SERVER_ADDRESS work too.

Examples:
  sorteo winners --agency 1
  sorteo winners --agency 1 --draw 2 --json")]
pub(super) struct WinnersArgs {
    #[command(flatten)]
    settings: Flags<AgencyQuestion>,
    #[command(flatten)]
    security: SecurityArgs,
    /// Which draw [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    draw: Option<i64>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// An agency's winners as JSON.
#[derive(Serialize)]
struct Winners {
    agency: u32,
    /// The draw that was given, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    draw: Option<i64>,
    documents: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An upload marks its agency as done by itself. This command is for an agency
whose bets were sent in several uploads, with --not-done, or by other programs.
It cannot be taken back: the agency's betting is closed.

Examples:
  sorteo done --agency 7 --bets 1500
  sorteo done --agency 7")]
pub(super) struct DoneArgs {
    #[command(flatten)]
    settings: Flags<AgencyQuestion>,
    #[command(flatten)]
    security: SecurityArgs,
    /// Refuse if the server does not hold exactly so many bets of the agency in this draw
    #[arg(long, value_name = "N")]
    bets: Option<u64>,
    /// Draw in which the agency is done, so that a repeated command never falls into the next
    /// one [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    draw: Option<i64>,
}

/// How the newest draw stands, for a program.
#[derive(Serialize)]
struct StatusOutput {
    draw: i64,
    state: &'static str,
    done: u64,
    expected: u64,
    bets: u64,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 1 if no server answers, and so serves as a health check. Only a token
needs an agency.

Examples:
  sorteo status
  sorteo status --server lottery:12345 --json")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    settings: Flags<AgencyQuestion>,
    #[command(flatten)]
    security: SecurityArgs,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn winners(args: &WinnersArgs) -> Result<(), Failure> {
    let config = read(&args.settings)?;
    let agency = config.require_agency()?;
    match client(&config, &args.security)?.winners(agency, args.draw.map(DrawId))? {
        Some(documents) if args.json => say_json(&Winners { agency: agency.0, draw: args.draw, documents }),
        Some(documents) => {
            for document in documents {
                say!("{document}")?;
            }
            Ok(())
        }
        None => Err(AgencyError::Refused { what: "GET_WINNERS", reason: Reason::NotReady }.into()),
    }
}

pub(super) fn done(args: &DoneArgs) -> Result<(), Failure> {
    let config = read(&args.settings)?;
    let agency = config.require_agency()?;
    let mut client = client(&config, &args.security)?;
    // Repeated after a lost reply, it must not close the agency in a draw that was opened since.
    let newest = client.newest_draw()?;
    let draw = args.draw.map_or(newest, DrawId);
    client.done(agency, args.bets, draw)?;
    Ok(say!("agency {agency} is done")?)
}

pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let config = read(&args.settings)?;
    let status = client(&config, &args.security)?.status()?;
    let state = if status.drawn { "drawn" } else { "open" };
    let Status { draw, done, expected, bets, .. } = status;
    if args.json {
        return say_json(&StatusOutput { draw: draw.0, state, done, expected, bets });
    }
    let bets = quantity(bets, "bet");
    Ok(say!("draw {draw}: {state}, {done} of {expected} agencies done, {bets}")?)
}

fn read<T>(settings: &Flags<T>) -> Result<AgencyConfig, Failure> {
    Ok(AgencyConfig::lower(&Layers::of_agency(settings, &process_environment()?)?)?)
}

fn client(config: &AgencyConfig, security: &SecurityArgs) -> Result<Client, Failure> {
    let mut options = ClientOptions::new(config.server.as_str(), QUESTION_TIMEOUT);
    options.security = security.read(config)?;
    Ok(Client::new(options))
}
