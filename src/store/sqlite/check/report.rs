//! The report of a check, and its progress.

use std::fmt;

use crate::store::sqlite::error::is_damage;
use crate::store::sqlite::text::one_line;

/// Most findings that a report lists: what is broken in one place is broken in many.
pub(super) const FINDINGS_MAX: usize = 100;

/// What a check counted, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Draws in the database.
    pub draws: u64,
    /// Batches in the database.
    pub batches: u64,
    /// Bets in the database.
    pub bets: u64,
    /// Winners in the database.
    pub winners: u64,
    /// One line for each thing that is wrong; at most a hundred.
    pub findings: Vec<String>,
    /// Number of findings beyond those.
    pub more: u64,
}

/// Where a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SQLite reads the whole file.
    Integrity,
    /// The smaller tables are compared with each other.
    Tables,
    /// The bets are compared with all other tables.
    Bets {
        /// Bets that were read.
        done: u64,
        /// Bets that the draws count.
        all: u64,
    },
}

/// Receives every step.
pub type Progress<'a> = dyn FnMut(Step) + 'a;

impl Report {
    /// Returns how many things are wrong.
    pub fn findings_total(&self) -> u64 {
        self.findings.len() as u64 + self.more
    }

    /// Adds a finding.
    pub(super) fn add(&mut self, finding: impl fmt::Display) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(one_line(&finding.to_string()));
        } else {
            self.more += 1;
        }
    }

    /// Runs a part of the check. If damage makes it fail, that is a finding.
    pub(super) fn attempt(
        &mut self,
        what: &str,
        part: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        match part(self) {
            Err(error) if is_damage(&error) => {
                self.add(format_args!("integrity: {what} cannot be read: {error}"));
                Ok(())
            }
            other => other,
        }
    }
}
