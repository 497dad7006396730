//! `sorteo demo`: a complete draw in one process, on a database of its own. A server and
//! five agencies, two of which speak the counted dialect; then the winners are compared
//! with the bets that were sent. With `--secure`, all of it over TLS and with tokens.

mod secure;

use std::fs;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{MultiProgress, ProgressBar};
use log::LevelFilter;
use serde::Serialize;

use self::secure::Credentials;
use super::arguments::DialectName;
use super::failure::Failure;
use super::findings::{check_with_progress, require_none};
use super::observer;
use super::output::{json_path, quantity, say, say_json};
use super::progress::{bar, write_bets_files};
use crate::server::{Limits, ServeError, Server, ServerHandle};
use crate::service::{Auth, Service};
use crate::store::sqlite::{Options, SqliteStore};
use crate::{generate, logging};
use sorteo_agency::{ClientOptions, Event, Observer, Upload, counted};
use sorteo_protocol::{AgencyId, DEFAULT_WINNING_NUMBER};

/// Agencies of the demo: as many as in the original exercise.
const AGENCIES: u32 = 5;
/// From this agency on they speak the counted dialect.
const FIRST_COUNTED: u32 = 4;
/// Bets in a batch, as many as the original clients send.
const BATCH: usize = 99;
/// How long an agency tries to reach a server that is in the same process.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two of the agencies speak the counted dialect. The winners are compared with
the bets that were sent, and the database is checked and kept.

With --secure, the server requires TLS, and a token of each agency. Certificates
and tokens are new and only for this demo; they are kept beside the database.

Examples:
  sorteo demo
  sorteo demo --secure
  sorteo demo --dir demo --bets 1000000 --seed 7")]
pub(super) struct Args {
    /// Folder for the database and the agencies' files [default: a new temporary folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Number of bets of all agencies together
    #[arg(long, value_name = "N", default_value_t = generate::BETS)]
    bets: u64,
    /// The same seed gives the same bets
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Require TLS and tokens, and show that no agency reads another's winners
    #[arg(long)]
    secure: bool,
    /// Print only the result, as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The result as JSON.
#[derive(Serialize)]
struct DemoOutput<'a> {
    database: String,
    bets: u64,
    /// From the first bet to the last winner.
    seconds: f64,
    agencies: &'a [Done],
}

/// What one agency did.
#[derive(Serialize)]
struct Done {
    agency: u32,
    dialect: &'static str,
    bets: u64,
    #[serde(skip)]
    expected: Vec<String>,
    winners: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    logging::init(LevelFilter::Warn, logging::Format::Text);
    let folder = fresh_folder(args.dir.as_deref())?;
    let database = folder.join("sorteo.db");
    let say_unless_json = |line: String| if args.json { Ok(()) } else { say!("{line}") };
    say_unless_json(format!("Made-up bets of {AGENCIES} agencies: {}", folder.display()))?;
    let files = write_bets_files(&folder, AGENCIES, args.bets, args.seed)?;
    let credentials = args.secure.then(|| Credentials::write(&folder)).transpose()?;
    let (address, handle, server) = start_server(&database, credentials.as_ref())?;
    if let Some(credentials) = &credentials {
        credentials.add_tokens(&database, AGENCIES)?;
        say_unless_json("TLS is required, and so is a token of each agency.".to_owned())?;
    }
    say_unless_json(format!("A server on {address}, and {AGENCIES} agencies sending at the same time:"))?;
    let site = Site { address, credentials };
    let started = Instant::now();
    let agencies = run_agencies(&site, &files);
    let took = started.elapsed();
    let refused = agencies.as_ref().map_or(Ok(()), |_| require_refusals(&site));
    handle.stop();
    let stopped = server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
    let agencies = agencies?;
    stopped.context("the server failed")?;
    refused?;
    if !args.json {
        say_agencies(&agencies, took)?;
    }
    require_expected_winners(&agencies)?;
    require_none(&check_with_progress(&database)?, &database)?;
    if args.json {
        return say_json(&DemoOutput {
            database: json_path(&database),
            bets: agencies.iter().map(|done| done.bets).sum(),
            seconds: took.as_secs_f64(),
            agencies: &agencies,
        });
    }
    if args.secure {
        say!("With its token, each agency was refused the winners of another: forbidden.")?;
    }
    Ok(say_verdict(&database)?)
}

/// Where the server of the demo is, and how an agency connects to it.
#[derive(Debug)]
struct Site {
    address: SocketAddr,
    credentials: Option<Credentials>,
}

impl Site {
    fn client_options(&self, agency: u32) -> ClientOptions {
        let mut options = ClientOptions::new(self.address.to_string(), GIVE_UP_AFTER);
        if let Some(credentials) = &self.credentials {
            options.security = credentials.security(agency);
        }
        options
    }
}

/// Requires that no agency of a secured demo gets the winners of the next one.
fn require_refusals(site: &Site) -> Result<(), Failure> {
    if site.credentials.is_none() {
        return Ok(());
    }
    for agency in 1..=AGENCIES {
        let next = AgencyId(agency % AGENCIES + 1);
        secure::require_forbidden(site.client_options(agency), next)
            .with_context(|| format!("agency {agency} and the winners of agency {next}"))?;
    }
    Ok(())
}

fn say_verdict(database: &Path) -> anyhow::Result<()> {
    say!("Every bet is stored once, the draw took place once, and all winners are correct.\n")?;
    say!("To look at it:")?;
    say!("  sqlite3 -readonly {} 'SELECT * FROM results'", database.display())?;
    say!("  sqlite3 -readonly {} 'SELECT * FROM agencies'", database.display())
}

/// Returns a folder without a database: the demo starts from nothing.
fn fresh_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(folder) = given else {
        let folder = tempfile::Builder::new()
            .prefix("sorteo-demo-")
            .tempdir()
            .context("no temporary folder can be created")?;
        // It is kept: the demo is there to be looked at.
        return Ok(folder.keep());
    };
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    if folder.join("sorteo.db").exists() {
        Err(anyhow::anyhow!("{} already holds a database: give another --dir", folder.display()))?;
    }
    Ok(folder.to_owned())
}

type Serving = thread::JoinHandle<Result<(), ServeError>>;

fn start_server(
    database: &Path,
    credentials: Option<&Credentials>,
) -> Result<(SocketAddr, ServerHandle, Serving), Failure> {
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("no port can be listened on")?;
    let server = server.with_tls(credentials.map(Credentials::tls).transpose()?);
    let address = server.local_addresses().context("the socket has no address")?[0];
    let handle = server.handle();
    let options = Options { agencies: Some(AGENCIES.into()), ..Options::new(database) };
    let (store, _) = SqliteStore::open(&options, observer::log_and_notify(&handle))?;
    let auth = if credentials.is_some() { Auth::Required } else { Auth::Off };
    let service = Arc::new(Service::new(store, options.metrics).with_auth(auth));
    let listening = server.listen(Limits::default()).context("the port cannot be listened on")?;
    // The service goes with the thread: when it ends, the database is closed.
    let serving = thread::spawn(move || listening.run(service));
    Ok((address, handle, serving))
}

fn run_agencies(site: &Site, files: &[PathBuf]) -> Result<Vec<Done>, Failure> {
    let bars = MultiProgress::new();
    if !std::io::stderr().is_terminal() {
        bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let results: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (1..)
            .zip(files)
            .map(|(agency, file)| {
                let bar = bars.add(bar("").with_prefix(format!("agency {agency} ")));
                scope.spawn(move || run_agency(site, agency, file, &bar))
            })
            .collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let panicked = |_| Failure::Failed(anyhow::anyhow!("an agency panicked"));
    results.into_iter().map(|joined| joined.map_err(panicked)?).collect()
}

fn run_agency(site: &Site, agency: u32, file: &Path, bar: &ProgressBar) -> Result<Done, Failure> {
    let mut options = site.client_options(agency);
    let dialect = if agency < FIRST_COUNTED { DialectName::Framed } else { DialectName::Counted };
    let shown = bar.clone();
    options.observer = Observer::new(move |event| {
        observer::log_client_event(event);
        if let Event::Resumed { stored, total } | Event::Stored { stored, total, .. } = event {
            shown.set_length(*total);
            shown.set_position(*stored);
        }
    });
    let id = AgencyId(agency);
    let winners = match dialect {
        DialectName::Framed => {
            let mut upload = Upload::start(options, id, file)?;
            upload.send(file, BATCH)?;
            upload.done()?;
            bar.set_message("waiting for the draw");
            upload.wait_winners()?
        }
        DialectName::Counted => counted::upload(&options, id, file, BATCH)?,
    };
    bar.finish_with_message(quantity(winners.len() as u64, "winner"));
    Ok(Done {
        agency,
        dialect: if dialect == DialectName::Framed { "framed" } else { "counted" },
        bets: bar.position(),
        expected: winners_of_file(file)?,
        winners,
    })
}

/// Returns the documents that win in a file, read without any of the server's code.
fn winners_of_file(file: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let winning = format!(",{DEFAULT_WINNING_NUMBER}");
    let document = |line: &str| line.split(',').nth(2).map(str::to_owned);
    Ok(text.lines().filter(|line| line.ends_with(&winning)).filter_map(document).collect())
}

fn say_agencies(agencies: &[Done], took: Duration) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "agency",
        "dialect",
        "bets",
        "winners",
        "documents",
    ]);
    for done in agencies {
        table.add_row([
            done.agency.to_string(),
            done.dialect.to_owned(),
            done.bets.to_string(),
            done.winners.len().to_string(),
            done.winners.join(", "),
        ]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let bets: u64 = agencies.iter().map(|done| done.bets).sum();
    say!("{table}")?;
    let (bets, seconds) = (quantity(bets, "bet"), took.as_secs_f64());
    say!("{bets} and the draw of number {DEFAULT_WINNING_NUMBER} took {seconds:.2} s.")?;
    Ok(())
}

fn require_expected_winners(agencies: &[Done]) -> Result<(), Failure> {
    let check = || -> anyhow::Result<()> {
        for Done { agency, expected, winners, .. } in agencies {
            if winners != expected {
                bail!("agency {agency} received the winners {winners:?}, its file has {expected:?}");
            }
        }
        Ok(())
    };
    Ok(check()?)
}
