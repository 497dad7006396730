//! The command line: what can be typed, and what each way to end exits with.
//!
//! Here is only the grammar; each subcommand has its file below, which reads
//! its settings, calls the library, and shows what came of it.

mod arguments;
mod backup;
mod bench;
mod check;
mod completions;
mod config;
mod demo;
mod draw;
mod export;
mod failure;
mod findings;
mod generate;
mod help;
mod import;
mod man;
mod observer;
mod open_files;
mod output;
mod progress;
mod queries;
mod restore;
mod serve;
mod signals;
mod upload;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use self::failure::EXIT_CODES;

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
    Completions(completions::Args),
}

/// Returns the whole grammar, with its grouped page of help.
fn grammar() -> clap::Command {
    help::with_grouped_page::<Cli>()
}

/// Runs what was typed, and returns the exit code.
pub fn main() -> ExitCode {
    // A usage error prints what is wrong and exits with 2; `--help` with 0.
    let matches = grammar().get_matches();
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
        Command::Man(args) => man::run(&args, grammar()),
        Command::Completions(args) => completions::run(&args, grammar()),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::help::{NAME_WIDTH, OTHERS, grouped};
    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        grammar().debug_assert();
    }

    #[test]
    fn every_subcommand_is_under_one_heading_and_its_line_is_short() {
        let mut command = Cli::command();
        command.build();
        let groups = grouped(&command);
        assert!(groups.iter().all(|(heading, _)| *heading != OTHERS), "a subcommand has no heading");
        let listed: Vec<_> = groups.iter().flat_map(|(_, commands)| commands).collect();
        assert_eq!(listed.len(), command.get_subcommands().count());
        for subcommand in listed {
            let about = subcommand.get_about().expect("a subcommand says what it does").to_string();
            assert!(NAME_WIDTH + about.len() <= 80, "{about}");
            assert!(subcommand.get_name().len() + 4 <= NAME_WIDTH, "{}", subcommand.get_name());
        }
    }

    /// All subcommands but `help`, at any depth.
    fn leaves(command: &clap::Command) -> Vec<clap::Command> {
        if !command.has_subcommands() {
            return vec![command.clone()];
        }
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        below.flat_map(leaves).collect()
    }

    #[test]
    fn every_subcommand_shows_an_example_of_itself() {
        let mut command = Cli::command();
        command.build();
        for leaf in leaves(&command) {
            let name = leaf.get_bin_name().unwrap_or_default();
            let after = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = after.split_once("Examples:\n").unwrap_or_else(|| panic!("{name}: {after}"));
            assert!(examples.contains(name), "{name}: {examples}");
            assert!(after.lines().all(|line| line.chars().count() <= 80), "{name}: {after}");
        }
    }
}
