//! `sorteo bench`: puts load on a running server and measures its response times.

use std::time::Duration;

use anyhow::Context as _;

use super::arguments::DialectName;
use super::failure::Failure;
use super::open_files;
use super::output::{quantity, say, say_json};
use super::progress::bets_counter;
use super::security::SecurityArgs;
use crate::bench::{Agencies, Plan, Report, Until, run as run_plan};
use sorteo_protocol::AgencyId;
use sorteo_protocol::wire::Dialect;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The bets are stored like any others: use a server whose database you can throw
away. With --rate, latency is measured from the moment a batch was due to be
sent, so that a stall of the server shows in every batch that it delayed.

Examples:
  sorteo bench --connections 64 --duration 30
  sorteo bench --rate 100000 --json
  sorteo bench --agency 1 --token-file agency-1.token --tls --tls-ca ca.pem")]
pub(super) struct Args {
    /// The server's address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:12345")]
    server: String,
    /// Dialect to speak
    #[arg(long, value_enum, default_value_t = DialectName::Framed)]
    dialect: DialectName,
    /// Number of connections that send at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Bets in a batch
    #[arg(long, value_name = "N", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Number of agencies that the connections are spread over
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    agencies: u32,
    /// Send all bets as this agency; a token and a client's certificate are of one
    #[arg(long, value_name = "N", conflicts_with = "agencies")]
    agency: Option<u32>,
    /// Open a new connection for every batch, as the original clients do
    #[arg(long)]
    fresh: bool,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Stop after this many bets instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    bets: Option<u64>,
    /// Bets per second to send over all connections [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    security: SecurityArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let agency = args.agency.map(AgencyId);
    let plan = Plan {
        server: args.server.clone(),
        security: args.security.of_agency(agency, "--agency")?,
        dialect: match args.dialect {
            DialectName::Framed => Dialect::Framed,
            DialectName::Counted => Dialect::Counted,
        },
        connections: args.connections as usize,
        batch: args.batch as usize,
        agencies: match agency {
            Some(agency) => Agencies::One(agency),
            None => Agencies::First(args.agencies),
        },
        fresh: args.fresh,
        until: match args.bets {
            Some(bets) => Until::Bets(bets),
            None => Until::Elapsed(Duration::from_secs(args.duration)),
        },
        rate: args.rate,
    };
    // Each connection is an open file, and only the hard limit bounds them.
    let _ = open_files::raise_limit();
    let line = bets_counter();
    let report = run_plan(plan, &mut |bets| line.set_position(bets))
        .with_context(|| format!("the run against {} failed", args.server))?;
    line.finish_and_clear();
    if args.json {
        say_json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(())
}

fn show(report: &Report) -> Result<(), Failure> {
    let latency = report.latency_us;
    let milliseconds = |micros: u64| micros as f64 / 1000.0;
    say!(
        "{}, batches of {}: {} in {:.2} s, {:.0} bets/s, {} busy",
        quantity(report.connections as u64, "connection"),
        report.batch,
        quantity(report.bets, "bet"),
        report.seconds,
        report.bets_per_second,
        report.busy
    )?;
    say!(
        "latency in ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
        milliseconds(latency.p50),
        milliseconds(latency.p99),
        milliseconds(latency.p99_9),
        milliseconds(latency.max)
    )?;
    Ok(())
}
