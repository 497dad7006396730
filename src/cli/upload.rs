//! `sorteo upload`: one agency from its file to its winners. Without a file, one bet from
//! the variables of the original client.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::ProgressBar;
use log::LevelFilter;

use super::arguments::DialectName;
use super::failure::Failure;
use super::observer::{ProgressLines, log_client_event};
use super::output::quantity;
use super::progress::bar;
use super::security::SecurityArgs;
use super::signals::exit_on_signals;
use crate::atomic_file;
use crate::config::settings::FILE;
use crate::config::{AgencyConfig, AgencySettings, ConfigError, Environment, Layers, process_environment};
use crate::{event, logging};
use sorteo_agency::rows::FileError;
use sorteo_agency::{AgencyError, ClientOptions, Event, Observer, Upload, counted};
use sorteo_protocol::{AgencyId, Batch, Bets, DrawId};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An upload is identified by the content of its file: sent twice in one draw, it
is stored once. If client or server is interrupted, it resumes where it stopped.
If it may be run again after the next draw was opened, give --draw. The
variables of the original client work too: CLI_ID, CLI_SERVER_ADDRESS,
CLI_BATCH_MAXAMOUNT and CLI_LOG_LEVEL. Without a file, a single bet is sent:
NOMBRE, APELLIDO, DOCUMENTO, NACIMIENTO and NUMERO.

Exits with 0 only if every bet was acknowledged and the winners were received.

An agency with several files uploads each of them with --not-done, and then runs
`sorteo done`. One without bets uploads an empty file with --allow-empty.

Examples:
  sorteo upload --agency 1 --file agency-1.csv --winners-out winners-1.txt
  sorteo upload --server lottery:12345 --agency 1 --file agency-1.csv --no-wait")]
pub(super) struct Args {
    #[command(flatten)]
    settings: AgencySettings,
    #[command(flatten)]
    security: SecurityArgs,
    /// Do not wait for the draw
    #[arg(long)]
    no_wait: bool,
    /// Do not mark the agency as done, since more bets follow; do not wait for the draw
    #[arg(long)]
    not_done: bool,
    /// Accept a file without bets: the agency is done with none
    #[arg(long)]
    allow_empty: bool,
    /// Write the winning documents to this file, one per line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_wait", "not_done"])]
    winners_out: Option<PathBuf>,
    /// Draw that the file is for, so that a repeated upload never falls into the next one
    /// [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    draw: Option<i64>,
    /// Dialect to speak; the counted one cannot resume and always waits for the draw
    #[arg(long, value_enum, default_value_t = DialectName::Framed)]
    dialect: DialectName,
}

/// The original client's variables of a single bet, in the order of its fields.
const BET_VARIABLES: [&str; 5] = ["NOMBRE", "APELLIDO", "DOCUMENTO", "NACIMIENTO", "NUMERO"];

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let environment = process_environment()?;
    let config = AgencyConfig::lower(&Layers::of_agency(&args.settings, &environment)?)?;
    let agency = config.require_agency()?;
    exit_on_signals()?;
    if let Some(path) = &args.winners_out {
        atomic_file::require_target(path)?;
        refuse_own_bets(path, config.file.as_deref())?;
    }
    let mut options = ClientOptions::new(config.server.as_str(), config.give_up_after);
    options.security = args.security.read(&config)?;
    options.allow_empty = args.allow_empty;
    options.draw = args.draw.map(DrawId);
    if args.draw.is_some() && (config.file.is_none() || args.dialect == DialectName::Counted) {
        let problem = "only a file in the framed dialect can be for a certain draw: leave out --draw";
        return Err(Failure::Failed(anyhow::anyhow!(problem)));
    }
    options.window = config.window;
    let Some(path) = &config.file else {
        logging::init(config.log_level, config.log_format);
        options.observer = Observer::new(log_client_event);
        return send_one_bet(&options, agency, &environment);
    };
    let bar = Bar(bar("bets sent"));
    // Lines would break up the bar: beside one, only failures are logged.
    let level = if bar.shown() { config.log_level.min(LevelFilter::Warn) } else { config.log_level };
    logging::init(level, config.log_format);
    let (shown, lines) = (bar.clone(), ProgressLines::new());
    options.observer = Observer::new(move |event| {
        log_client_event(event);
        if let Event::Resumed { stored, total } | Event::Stored { stored, total, .. } = event {
            shown.set(*stored, *total);
            lines.report(*stored, *total);
        }
    });
    match send_file(args, &config, agency, path, &options, &bar) {
        Ok(()) => {
            event!(Info, "loop_finished", Success);
            Ok(())
        }
        Err(failure) => {
            bar.abandon();
            event!(Info, "loop_finished", Fail);
            Err(failure)
        }
    }
}

/// Refuses to write the winners over the bets.
fn refuse_own_bets(out: &Path, bets: Option<&Path>) -> Result<(), Failure> {
    match (fs::canonicalize(out), bets.map(fs::canonicalize)) {
        (Ok(out), Some(Ok(bets))) if out == bets => Err(Failure::Failed(anyhow::anyhow!(
            "{} is the file of the bets: give another --winners-out",
            out.display()
        ))),
        _ => Ok(()),
    }
}

fn send_file(
    args: &Args,
    config: &AgencyConfig,
    agency: AgencyId,
    path: &Path,
    options: &ClientOptions,
    bar: &Bar,
) -> Result<(), Failure> {
    let documents = match args.dialect {
        DialectName::Counted if args.not_done => {
            return Err(Failure::Failed(anyhow::anyhow!(
                "the counted dialect marks its agency as done: leave out --not-done or --dialect counted"
            )));
        }
        DialectName::Counted => {
            counted::upload(options, agency, path, config.batch).map_err(name_allow_empty)?
        }
        DialectName::Framed => {
            let mut upload = Upload::start(options.clone(), agency, path).map_err(name_allow_empty)?;
            upload.send(path, config.batch)?;
            if !args.not_done {
                upload.done()?;
            }
            if args.no_wait || args.not_done {
                bar.finish(&format!("{} stored", quantity(upload.bets(), "bet")));
                return Ok(());
            }
            bar.wait("waiting for the draw");
            upload.wait_winners()?
        }
    };
    event!(Info, "consulta_ganadores", Success, cant_ganadores = documents.len());
    bar.finish(&quantity(documents.len() as u64, "winner"));
    if let Some(out) = &args.winners_out {
        let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
        atomic_file::write(out, lines.as_bytes())?;
    }
    Ok(())
}

/// Returns the failure; where the file has no bets, it names the flag that allows that.
fn name_allow_empty(error: AgencyError) -> Failure {
    match error {
        AgencyError::File(error @ FileError::Empty(_)) => {
            Failure::Failed(anyhow::anyhow!("{error}: if the agency has none, give --allow-empty"))
        }
        error => error.into(),
    }
}

fn send_one_bet(options: &ClientOptions, agency: AgencyId, environment: &Environment) -> Result<(), Failure> {
    if !BET_VARIABLES.iter().any(|name| environment.contains_key(*name)) {
        return Err(ConfigError::missing(&FILE).into());
    }
    let mut fields = [""; 5];
    for (field, name) in fields.iter_mut().zip(BET_VARIABLES) {
        *field = environment
            .get(name)
            .with_context(|| format!("{name} is missing: a single bet needs {}", BET_VARIABLES.join(", ")))?;
    }
    let mut bets = Bets::default();
    bets.push(fields).map_err(|error| {
        anyhow::anyhow!("the bet given by {} is not valid: {error}", BET_VARIABLES.join(", "))
    })?;
    let bet = bets.iter().next().context("a bet was pushed")?;
    let (document, number) = (bet.document.to_owned(), bet.number);
    let sent = counted::send_bet(options, Batch { agency, bets, position: None });
    match &sent {
        Ok(()) => event!(Info, "apuesta_enviada", Success, dni = document, numero = number),
        Err(error) => event!(Info, "apuesta_enviada", Fail, dni = document, numero = number, error = error),
    }
    Ok(sent?)
}

/// A progress bar on a terminal, and nothing elsewhere.
#[derive(Clone)]
struct Bar(ProgressBar);

impl Bar {
    fn shown(&self) -> bool {
        !self.0.is_hidden()
    }

    fn set(&self, sent: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(sent);
    }

    fn wait(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.enable_steady_tick(std::time::Duration::from_millis(200));
    }

    fn finish(&self, what: &str) {
        self.0.finish_with_message(what.to_owned());
    }

    fn abandon(&self) {
        self.0.abandon();
    }
}
