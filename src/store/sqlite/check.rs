//! Verifies a database: SQLite's own integrity, the schema, and every promise of
//! the store that the tables can show. Reads one snapshot, beside a running
//! server too, and changes nothing.
//!
//! Whatever the file holds, the answer is a [`Report`]: a page or a value that
//! cannot be read is a finding like any other. Only a file that cannot be opened
//! as a database of ours, and a system that fails, are errors.
//!
//! What the tables tell once cannot be verified: times (beyond their form), the
//! name of an upload with one batch, which of two agencies with as many bets is
//! done in an open draw, and what the audit tells beside a draw's settings.

mod bets;
mod tables;

use std::fmt;
use std::path::Path;

use rusqlite::Connection;

use super::error::{OpenError, is_damage, sqlite_error};
use super::files::DatabaseFiles;
use super::text::{integrity_problems, one_line};
use super::{open, schema};

/// Findings that are told; what is broken in one place is broken in many.
const FINDINGS_MAX: usize = 100;

/// What was counted, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Draws there are.
    pub draws: u64,
    /// Batches there are.
    pub batches: u64,
    /// Bets there are.
    pub bets: u64,
    /// Winners there are.
    pub winners: u64,
    /// One line for each thing that is wrong; at most a hundred.
    pub findings: Vec<String>,
    /// How many more findings there are.
    pub more: u64,
}

/// What the check is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SQLite reads the whole file.
    Integrity,
    /// The smaller tables are held against each other.
    Tables,
    /// So many of so many bets were held against all else.
    Bets {
        /// Bets that were read.
        done: u64,
        /// Bets that the draws count.
        all: u64,
    },
}

/// Told of every step.
pub type Progress<'a> = dyn FnMut(Step) + 'a;

/// Verifies the database.
pub fn check(path: &Path, progress: &mut Progress<'_>) -> Result<Report, OpenError> {
    check_open(open::open_reader(&DatabaseFiles::resolve(path))?, path, progress)
}

/// Verifies the database of a connection, and tells of it as `path`.
pub(super) fn check_open(
    mut connection: Connection,
    path: &Path,
    progress: &mut Progress<'_>,
) -> Result<Report, OpenError> {
    let fail = |source| sqlite_error(path, "checking", source);
    // One snapshot for all questions, whatever a server writes meanwhile.
    let snapshot = connection.transaction().map_err(fail)?;
    let mut report = Report::default();
    check_all(&snapshot, &mut report, progress).map_err(fail)?;
    Ok(report)
}

fn check_all(
    connection: &Connection,
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> rusqlite::Result<()> {
    progress(Step::Integrity);
    report.attempt("the file", |report| check_integrity(connection, report))?;
    let damaged = !report.findings.is_empty();
    let mut misleading = false;
    report.attempt("the schema", |report| {
        misleading = check_schema(connection, report)?;
        Ok(())
    })?;
    if damaged || misleading {
        // Then the rows say little, and not what they seem to.
        return Ok(());
    }
    progress(Step::Tables);
    tables::check(connection, report)?;
    report.attempt("bets", |report| bets::check(connection, report, progress))
}

impl Report {
    /// How many things are wrong.
    pub fn found_all(&self) -> u64 {
        self.findings.len() as u64 + self.more
    }

    fn found(&mut self, finding: impl fmt::Display) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(one_line(&finding.to_string()));
        } else {
            self.more += 1;
        }
    }

    /// Runs a part of the check. Where damage makes it fail, that is a finding.
    fn attempt(
        &mut self,
        what: &str,
        part: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        match part(self) {
            Err(error) if is_damage(&error) => {
                self.found(format_args!("integrity: {what} cannot be read: {error}"));
                Ok(())
            }
            other => other,
        }
    }
}

/// SQLite's own verdict. It leaves out two things that are asked for elsewhere:
///
/// - The CHECKs: a connection that only reads does not even parse them, so
///   [`tables`] asks about them.
/// - The list of free pages, where the youngest object is a view, as with us: its
///   root page is 0, which SQLite 3.53 takes for the mark of a check in part. Asked
///   for the schema's table alone, it does look at the list.
fn check_integrity(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let max = FINDINGS_MAX + 1;
    for pragma in ["PRAGMA integrity_check(sqlite_schema)", &format!("PRAGMA integrity_check({max})")] {
        let mut statement = connection.prepare(pragma)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?);
            for line in integrity_problems(&text) {
                let finding = format!("integrity: {line}");
                if !report.findings.contains(&finding) {
                    report.found(finding);
                }
            }
        }
    }
    Ok(())
}

/// Answers whether questions to the tables can be answered wrongly.
fn check_schema(connection: &Connection, report: &mut Report) -> rusqlite::Result<bool> {
    let differences = schema::differences(connection)?;
    for difference in &differences {
        report.found(format_args!("schema: {difference}"));
    }
    Ok(differences.iter().any(schema::Difference::misleads))
}
