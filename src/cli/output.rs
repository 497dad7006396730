//! Results on standard output: lines for a person, JSON for a program.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::failure::{Failure, OutputClosed};
use crate::store::sqlite::check::Report;

/// Prints a line of results. Where it cannot be printed (a closed pipe, a full
/// disk) the command fails with an error instead of panicking.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::cli::output::print_line(format_args!($($line)*))
    };
}
pub(super) use say;

pub(super) fn print_line(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").map_err(|error| not_printed(error, "the results"))
}

/// Prints a whole text at once.
pub(super) fn print_bytes(bytes: &[u8], what: &str) -> anyhow::Result<()> {
    io::stdout().write_all(bytes).map_err(|error| not_printed(error, what))
}

/// Returns the error of what could not be printed.
pub(super) fn not_printed(error: io::Error, what: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => anyhow::Error::from(error).context(format!("{what} cannot be printed")),
    }
}

/// Prints a result as one line of JSON.
pub(super) fn say_json(result: &impl serde::Serialize) -> Result<(), Failure> {
    Ok(say!("{}", serde_json::to_string(result).context("the result has no JSON form")?)?)
}

/// Returns a path for JSON, which has no form for one that is not UTF-8: what cannot be
/// shown is replaced, so that what was done is never reported as a failure.
pub(super) fn json_path(path: &Path) -> String {
    path.display().to_string()
}

/// Returns a number with its noun: `1 draw`, `2 draws`. The noun is a regular one.
pub(super) fn quantity(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ if noun.ends_with("ch") => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

/// Prints what a check found, a line for each finding.
pub(super) fn say_findings(report: &Report) -> anyhow::Result<()> {
    for finding in &report.findings {
        say!("{finding}")?;
    }
    if report.more > 0 {
        say!("and {} more", report.more)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(quantity(1, "draw"), "1 draw");
        assert_eq!(quantity(0, "draw"), "0 draws");
        assert_eq!(quantity(2, "batch"), "2 batches");
        assert_eq!(quantity(3, "agency"), "3 agencies");
    }
}
