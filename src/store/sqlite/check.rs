//! Verifies a database: SQLite's own integrity, the schema, and every promise of the
//! store that the tables can show. Reads one snapshot, beside a running server too, and
//! changes nothing.
//!
//! Whatever the file holds, the result is a [`Report`]: a page or a value that cannot be
//! read is a finding like any other. Only a file that cannot be opened as a database of
//! ours, and a system that fails, are errors.
//!
//! What the tables record only once cannot be verified: times (beyond their form), the
//! name of an upload with one batch, which of two agencies with as many bets is done in
//! an open draw, and what the audit records besides the terms of a draw.

mod bets;
mod report;
mod tables;

use std::path::Path;

use rusqlite::Connection;

use self::report::FINDINGS_MAX;
pub use self::report::{Progress, Report, Step};
use super::error::{OpenError, sqlite_error};
use super::files::DatabaseFiles;
use super::text::integrity_problems;
use super::{open, schema};

/// Verifies a database.
///
/// # Errors
///
/// Fails if the file cannot be opened as a database of ours, or if the system fails.
pub fn check(path: &Path, progress: &mut Progress<'_>) -> Result<Report, OpenError> {
    check_open(open::open_reader(&DatabaseFiles::resolve(path))?, path, progress)
}

/// Verifies the database of a connection, which errors name by `path`.
pub(super) fn check_open(
    mut connection: Connection,
    path: &Path,
    progress: &mut Progress<'_>,
) -> Result<Report, OpenError> {
    let fail = |source| sqlite_error(path, "checking", source);
    // One snapshot for all reads, whatever a server writes meanwhile.
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
        // The rows then mean little, and not what they seem to.
        return Ok(());
    }
    progress(Step::Tables);
    tables::check(connection, report)?;
    report.attempt("bets", |report| bets::check(connection, report, progress))
}

/// Adds what SQLite's own check finds. It leaves out two things, which are read elsewhere:
///
/// - The CHECKs: a connection that only reads does not even parse them, so
///   [`tables`] reads them.
/// - The list of free pages, if the last object of the schema is a view, as in ours: its
///   root page is 0, which SQLite 3.53 takes for the mark of a partial check. For the
///   schema's table alone it does read the list.
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
                    report.add(finding);
                }
            }
        }
    }
    Ok(())
}

/// Compares the schema. Returns whether reads of the tables can give wrong results.
fn check_schema(connection: &Connection, report: &mut Report) -> rusqlite::Result<bool> {
    let differences = schema::differences(connection)?;
    for difference in &differences {
        report.add(format_args!("schema: {difference}"));
    }
    Ok(differences.iter().any(schema::Difference::misleads))
}
