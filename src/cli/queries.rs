//! `sorteo winners` and `sorteo status`: one question to a running server.

use std::time::Duration;

use anyhow::Context as _;

use super::{Failure, say};
use crate::agency::{AgencyError, Client, Patience};
use crate::config::{AgencyConfig, AgencySettings, Layers, process_environment};
use crate::lottery::DrawId;

/// How long a question is retried: a person, or a health check, waits.
const QUESTION_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(super) struct WinnersArgs {
    /// The server's address [default: 127.0.0.1:12345]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<crate::config::Text>,
    /// The agency's number
    #[arg(long, value_name = "N")]
    agency: Option<crate::config::Text>,
    /// An earlier draw; without it, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    draw: Option<i64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The server's address [default: 127.0.0.1:12345]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<crate::config::Text>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn winners(args: &WinnersArgs) -> Result<(), Failure> {
    let settings = AgencySettings {
        server: args.server.clone(),
        agency: args.agency.clone(),
        ..AgencySettings::default()
    };
    let config = read(&settings)?;
    let agency = config.require_agency()?;
    match client(&config).winners(agency, args.draw.map(DrawId))? {
        Some(documents) => {
            for document in documents {
                say!("{document}")?;
            }
            Ok(())
        }
        None => Err(AgencyError::Refused { what: "GET_WINNERS", reason: "not_ready".to_owned() }.into()),
    }
}

pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let settings = AgencySettings { server: args.server.clone(), ..AgencySettings::default() };
    let status = client(&read(&settings)?).status()?;
    if args.json {
        say!("{}", serde_json::to_string(&status).context("the status has no JSON form")?)?;
    } else {
        say!(
            "draw {}: {}, {} of {} agencies done, {} bets",
            status.draw,
            status.state,
            status.done,
            status.expected,
            status.bets
        )?;
    }
    Ok(())
}

fn read(settings: &AgencySettings) -> Result<AgencyConfig, Failure> {
    Ok(AgencyConfig::lower(&Layers::of_agency(settings, &process_environment()?)?)?)
}

fn client(config: &AgencyConfig) -> Client {
    Client::new(Patience { server: config.server.clone(), give_up_after: QUESTION_PATIENCE })
}
