//! The command line: the grammar of what can be typed, and which subcommand runs.
//!
//! Each subcommand has a file of its own, which reads its settings, calls the library
//! and prints the result. None of them knows another. What several need is in
//! `arguments`, `failure`, `findings`, `observer`, `open_files`, `output`, `progress`,
//! `ready_file`, `security`, `signals` and `threads`.

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
mod ready_file;
mod restore;
mod security;
mod serve;
mod signals;
mod threads;
mod token;
mod upload;

use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};
use rustix::fs::Mode;

use self::failure::EXIT_CODES;
use self::signals::end_as_by_sigpipe;
use crate::logging;

/// The central server of a lottery, and the tools that go with it.
///
/// Agencies upload bets and report when they are done. Once all of them are done, the
/// draw takes place, exactly once, and each agency can read its own winners.
/// `sorteo COMMAND --help` describes a command, `sorteo man` prints the manual.
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
  sorteo demo                                     A complete draw on this machine
  sorteo serve --agencies 1                       A server,
  sorteo upload --agency 1 --file agency-1.csv    and its only agency

Exit codes:
{}",
        codes.trim_end()
    )
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: store bets, draw once, serve winners
    Serve(Box<serve::Args>),
    /// Upload an agency's bets, and wait for its winners
    Upload(upload::Args),
    /// Mark an agency as done, whose bets were sent before
    Done(queries::DoneArgs),
    /// Print an agency's winning documents, one per line
    Winners(queries::WinnersArgs),
    /// Print the state of the newest draw
    Status(queries::StatusArgs),
    /// Open the next draw, show draws, close a silent agency
    #[command(subcommand)]
    Draw(draw::Command),
    /// Give agencies and operators their tokens, rotate and revoke them
    #[command(subcommand)]
    Token(token::Command),
    /// Run a complete draw: a server, five agencies, made-up bets
    Demo(demo::Args),
    /// Write files of made-up bets
    Generate(generate::Args),
    /// Verify a database: its integrity and that its tables agree
    Check(check::Args),
    /// Save a verified copy of a database, even while a server runs
    Backup(backup::Args),
    /// Replace a database with a backup, and keep the old one
    Restore(restore::Args),
    /// Export results or bets as CSV or JSON lines
    Export(export::Args),
    /// Import the bets of all agencies from one file
    Import(import::Args),
    /// Put load on a running server and measure its response times
    Bench(bench::Args),
    /// Show or check the settings of serve
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// Print the manual, or write its pages to a folder
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
    let parsed = grammar().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { command } = parsed.unwrap_or_else(|error| end_without_command(&error));
    signals::survive_file_size_limit();
    // A core dump would hold bets and secrets, and lie in the working folder, which is often the
    // database's. Where the system refuses, there is nothing better to do.
    let _ = rlimit::Resource::CORE.set(0, 0);
    if !matches!(command, Command::Man(_) | Command::Completions(_)) {
        // What the others write holds bets, and is for the user who runs them.
        rustix::process::umask(Mode::from_raw_mode(0o077));
    }
    let result = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Upload(args) => upload::run(&args),
        Command::Done(args) => queries::done(&args),
        Command::Winners(args) => queries::winners(&args),
        Command::Status(args) => queries::status(&args),
        Command::Draw(command) => draw::run(&command),
        Command::Token(command) => token::run(&command),
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
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_output_closed() => end_as_by_sigpipe(),
        Err(failure) => {
            logging::print(&format!("sorteo: {failure}"));
            ExitCode::from(failure.code())
        }
    };
    logging::flush();
    code
}

/// Prints what is wrong with the usage and exits with 2, or prints the help and exits
/// with 0.
fn end_without_command(error: &clap::Error) -> ! {
    match error.print() {
        Err(printing) if printing.kind() == std::io::ErrorKind::BrokenPipe => end_as_by_sigpipe(),
        _ => std::process::exit(error.exit_code()),
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
