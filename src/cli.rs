//! The command line: what can be typed, and what each way to end exits with.
//!
//! Here is only the grammar; each subcommand has its file below, which reads
//! its settings, calls the library, and shows what came of it.

mod backup;
mod bench;
mod check;
mod config;
mod copying;
mod demo;
mod draw;
mod export;
mod generate;
mod help;
mod import;
mod man;
mod queries;
mod restore;
mod serve;
mod upload;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{FromArgMatches as _, Parser, Subcommand};

use crate::config::{
    ConfigError, Flags, Layers, ServeConfig, database, flags as config_flags, process_environment,
};
use crate::event;
use crate::import::ImportError;
use crate::store::DrawStatus;
use crate::store::sqlite::{CopyError, OpenError, Options};
use crate::unfinished::UnfinishedError;
use sorteo_agency::AgencyError;

/// The central server of a lottery, and all that goes with it.
///
/// Agencies upload bets and say when they are done; the draw happens once, when all
/// are; then each agency reads its own winners. `sorteo COMMAND --help` tells more of
/// a command, `sorteo man` prints the manual.
#[derive(Debug, Parser)]
#[command(name = "sorteo", version, arg_required_else_help = true, after_help = after_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the program exits with. A shell adds 128 where a signal ended it; 143 is
/// also what a server exits with that a second SIGTERM ended at once.
const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed"),
    (2, "wrong usage"),
    (74, "the database failed or was refused"),
    (75, "another server holds it"),
    (78, "wrong configuration"),
    (143, "a second signal ended the server at once"),
];

fn after_help() -> String {
    let codes: String = EXIT_CODES.iter().map(|(code, meaning)| format!("  {code:<5}{meaning}\n")).collect();
    format!(
        "\
Examples:
  sorteo demo                                     A whole draw on this machine
  sorteo serve --agencies 1                       A server,
  sorteo upload --agency 1 --file agency-1.csv    and its only agency

Exit codes:
{}",
        codes.trim_end()
    )
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: take bets, draw once, serve winners
    Serve(Box<serve::Args>),
    /// Be an agency: send a file of bets, say done, wait for the winners
    Upload(upload::Args),
    /// Print an agency's winning documents, one a line
    Winners(queries::WinnersArgs),
    /// Print how the newest draw stands
    Status(queries::StatusArgs),
    /// Open the next draw, look at draws, close a silent agency
    #[command(subcommand)]
    Draw(draw::Command),
    /// Watch a whole draw: a server and five agencies on made-up bets
    Demo(demo::Args),
    /// Write made-up files of bets
    Generate(generate::Args),
    /// Verify a database: its integrity, and that its tables agree
    Check(check::Args),
    /// Save a database to a file, verified, beside a running server
    Backup(backup::Args),
    /// Put a backup in a database's place, and keep what was there
    Restore(restore::Args),
    /// Write out results or bets as CSV or JSON lines
    Export(export::Args),
    /// Store a seed's bets.csv, the bets of all agencies
    Import(import::Args),
    /// Put load on a running server, and measure its answers
    Bench(bench::Args),
    /// Show or check the settings of serve
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// Print the manual, or write its pages
    Man(man::Args),
    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  sorteo completions bash > /etc/bash_completion.d/sorteo
  sorteo completions zsh > /usr/local/share/zsh/site-functions/_sorteo
  sorteo completions fish > ~/.config/fish/completions/sorteo.fish")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Which database a command is about.
#[derive(Debug, clap::Args)]
struct DatabaseArg {
    #[command(flatten)]
    flags: Flags<config_flags::Database>,
}

impl DatabaseArg {
    fn path(&self) -> Result<PathBuf, Failure> {
        Ok(database(&self.flags, &process_environment()?)?)
    }

    /// What `serve` would open it with.
    fn options(&self) -> Result<Options, Failure> {
        Ok(ServeConfig::lower(&Layers::of_serve(&self.flags, None, &process_environment()?)?)?.store)
    }
}

/// Why a command failed, which decides what the program exits with.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Anything that is none of the others.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Several settings are wrong, at least one.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nsorteo: "))]
    Configs(Vec<ConfigError>),
    /// The database was refused.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed while it was in use.
    #[error("the database failed: {0}: start the server again, agencies will send what was not acknowledged")]
    Database(String),
    /// A database was not saved or restored.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A file of bets was not imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An agency's call failed.
    #[error(transparent)]
    Agency(#[from] AgencyError),
}

impl Failure {
    /// The exit code, as sysexits.h names them.
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Agency(_) => 1,
            Self::Config(error) => config_code(error),
            // What serve would end with: it stops at the first.
            Self::Configs(errors) => errors.first().map_or(78, config_code),
            Self::Open(OpenError::Held(_)) | Self::Copy(CopyError::Open(OpenError::Held(_))) => 75,
            Self::Copy(
                CopyError::SameFile(..)
                | CopyError::OwnFile { .. }
                | CopyError::StrayWal { .. }
                | CopyError::File(UnfinishedError::Exists(_) | UnfinishedError::NotAFile(_)),
            ) => 1,
            Self::Open(_) | Self::Database(_) | Self::Copy(_) | Self::Import(ImportError::Store(_)) => 74,
            Self::Import(_) => 1,
        }
    }
}

fn config_code(error: &ConfigError) -> u8 {
    match error {
        ConfigError::Flag { .. } | ConfigError::Missing { .. } => 2,
        _ => 78,
    }
}

/// Prints a line of results. Where they cannot be printed (a closed pipe, a full
/// disk) the command has failed, and says so instead of panicking.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::cli::print_line(format_args!($($line)*))
    };
}
use say;

fn print_line(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("the results cannot be printed")
}

/// The log line of a draw, told by the process that made it.
fn log_draw(status: &DrawStatus) {
    event!(Info, "sorteo", Success, draw = status.draw, bets = status.bets, winners = status.winners);
}

/// Prints a result as one line of JSON.
fn say_json(result: &impl serde::Serialize) -> Result<(), Failure> {
    Ok(say!("{}", serde_json::to_string(result).context("the result has no JSON form")?)?)
}

/// Finds out before the work, not after it, that there is no folder for a file.
fn require_folder_of(path: &Path) -> Result<(), Failure> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(Failure::Failed(anyhow::anyhow!(
                "{} cannot be written: there is no folder {}: make it first",
                path.display(),
                folder.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Written at once: clap itself would panic where nobody reads.
fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut help::command(), "sorteo", &mut text);
    Ok(std::io::stdout().write_all(&text).context("the completions cannot be printed")?)
}

/// Runs what was typed; answers what to exit with.
pub fn main() -> ExitCode {
    // A usage error prints what is wrong and exits with 2; `--help` with 0.
    let matches = help::command().get_matches();
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Upload(args) => upload::run(&args),
        Command::Winners(args) => queries::winners(&args),
        Command::Status(args) => queries::status(&args),
        Command::Draw(command) => draw::run(&command),
        Command::Demo(args) => demo::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Config { command } => config::run(&command),
        Command::Man(args) => man::run(&args),
        Command::Completions { shell } => completions(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be listening; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "sorteo: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
