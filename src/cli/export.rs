//! `sorteo export`: writes out results or bets for other programs.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::arguments::DatabaseArg;
use super::failure::Failure;
use super::output::{not_printed, quantity, say};
use super::signals::remove_unfinished_on_signals;
use crate::atomic_file::{AtomicFile, refuse_database};
use crate::store::sqlite::export::{Export, ExportedBet, Subject};
use crate::store::sqlite::refuse_own_files;
use sorteo_protocol::{AgencyId, DrawId};

/// The columns of the CSV, in the order of [`record`].
const COLUMNS: [&str; 8] =
    ["draw", "bet", "agency", "first_name", "last_name", "document", "birthdate", "number"];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The CSV has a header. A name, document or birthdate that a spreadsheet would
take for a formula (it begins with = + - @, a tab or a carriage return) is
prefixed with an apostrophe; JSON lines hold exactly what is stored. Works while
a server runs; of an open draw, the bets are exported that are stored when the
export begins.

Examples:
  sorteo export results --draw 1 --out winners.csv
  sorteo export bets --format jsonl --agency 3 | gzip > bets-3.jsonl.gz")]
pub(super) struct Args {
    /// What to export: the winning bets of a draw, or all its bets
    #[arg(value_enum, default_value_t = SubjectName::Results)]
    subject: SubjectName,
    #[command(flatten)]
    database: DatabaseArg,
    /// Which draw [default: the newest; for results, the newest drawn one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    draw: Option<i64>,
    /// Only the bets of this agency
    #[arg(long, value_name = "N")]
    agency: Option<u32>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Write to this file, completely or not at all, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long, requires = "out")]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SubjectName {
    Results,
    Bets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let database = args.database.path_to_read()?;
    let subject = match args.subject {
        SubjectName::Results => Subject::Results,
        SubjectName::Bets => Subject::Bets,
    };
    let export = Export::open(&database, subject, args.draw.map(DrawId), args.agency.map(AgencyId))?;
    match &args.out {
        Some(path) => {
            refuse_own_files(&database, path)?;
            refuse_database(path)?;
            write_file(export, args.format, path, args.force)
        }
        None => {
            write(export, args.format, io::stdout().lock(), |error| not_printed(error, "the export"))?;
            Ok(())
        }
    }
}

fn write_file(export: Export, format: Format, path: &Path, replace: bool) -> Result<(), Failure> {
    remove_unfinished_on_signals(path)?;
    let draw = export.draw();
    let file = AtomicFile::create(path, replace)?;
    let failed = |error| anyhow::Error::from(error).context(format!("{} cannot be written", path.display()));
    let rows = write(export, format, file.file(), failed)?;
    file.finish()?;
    say!("{}: {} of draw {draw}", path.display(), quantity(rows, "bet"))?;
    Ok(())
}

/// Writes all rows, and returns how many they were.
fn write(
    mut export: Export,
    format: Format,
    out: impl Write,
    failed: impl Fn(io::Error) -> anyhow::Error,
) -> Result<u64, Failure> {
    let mut sink = Sink::new(format, out).map_err(&failed)?;
    let mut count = 0;
    loop {
        let rows = export.next_rows()?;
        if rows.is_empty() {
            break;
        }
        rows.iter().try_for_each(|row| sink.write(row)).map_err(&failed)?;
        count += rows.len() as u64;
    }
    sink.flush().map_err(&failed)?;
    Ok(count)
}

/// A writer of rows in one of the formats.
enum Sink<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Jsonl(BufWriter<W>),
}

impl<W: Write> Sink<W> {
    fn new(format: Format, out: W) -> io::Result<Self> {
        Ok(match format {
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(COLUMNS).map_err(io_error)?;
                Self::Csv(Box::new(writer))
            }
            Format::Jsonl => Self::Jsonl(BufWriter::new(out)),
        })
    }

    fn write(&mut self, row: &ExportedBet) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                writer.write_record(record(row).iter().map(|field| field.as_bytes())).map_err(io_error)
            }
            Self::Jsonl(writer) => {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Csv(writer) => writer.flush(),
            Self::Jsonl(writer) => writer.flush(),
        }
    }
}

/// Returns what the system reported, which says more than the CSV writer's own error.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => io::Error::other(format!("{kind:?}")),
    }
}

fn record(row: &ExportedBet) -> [Cow<'_, str>; 8] {
    let number = |number: i64| Cow::Owned(number.to_string());
    [
        number(row.draw),
        number(row.bet),
        number(row.agency.into()),
        no_formula(&row.first_name),
        no_formula(&row.last_name),
        no_formula(&row.document),
        no_formula(&row.birthdate),
        number(row.number.into()),
    ]
}

/// Returns the text, so that no spreadsheet takes it for a formula: bettors choose their
/// names, and a formula would run for whoever opens the file.
fn no_formula(text: &str) -> Cow<'_, str> {
    // Some split a field at `;` too, and some take the wide forms of these characters.
    let is_formula = text.split(';').any(|part| {
        part.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
            || part.starts_with(['\t', '\r'])
    });
    match is_formula {
        true => Cow::Owned(format!("'{text}")),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_takes_for_a_formula_gets_an_apostrophe() {
        for formula in [
            "=1+1", "+54", "-1", "@SUM(A1)", "\t=1", "\r=1", "=", " =1+1", "\u{a0}=1", "＝1+1", "＠A",
            "Ana;=1+1", "a; -1",
        ] {
            assert_eq!(no_formula(formula), format!("'{formula}"));
        }
        for harmless in ["", "Ana", "O'Hara", "1-2", "a=1", "'=1", "ñ", "a;b", "; a"] {
            assert_eq!(no_formula(harmless), harmless);
        }
    }
}
