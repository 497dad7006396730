//! The findings of a check, where several commands run one.

use std::path::Path;

use anyhow::anyhow;

use super::failure::Failure;
use super::output::{quantity, say_findings};
use super::progress::CheckProgress;
use crate::store::sqlite::CopyError;
use crate::store::sqlite::check::{Report, check};

/// Checks a database, and shows the progress on a terminal.
pub(super) fn check_with_progress(database: &Path) -> Result<Report, Failure> {
    let progress = CheckProgress::new();
    Ok(check(database, &mut |step| progress.step(step))?)
}

/// Returns an error with the first finding if there is any.
pub(super) fn require_none(report: &Report, database: &Path) -> Result<(), Failure> {
    match report.findings.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::Failed(anyhow!(
            "{}: {}, the first: {first}; keep the file as it is and restore a backup",
            database.display(),
            quantity(report.findings_total(), "finding")
        ))),
    }
}

/// Prints the findings for which a copy was refused, and passes the result on.
pub(super) fn say_findings_of_copy<T>(result: Result<T, CopyError>) -> anyhow::Result<Result<T, CopyError>> {
    if let Err(CopyError::CheckFailed { report, .. }) = &result {
        say_findings(report)?;
    }
    Ok(result)
}
