//! What is to go wrong: written by the process that starts the program under
//! test, read back by that program from its environment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The environment variable that carries a [`Plan`] to a child process.
pub const VARIABLE: &str = "FAULTY_DISK";

/// What goes wrong in one process, and when. Without faults, the operations are
/// only counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Decides which unsynced writes survive a power cut or a failed sync. The
    /// same seed and the same operations leave the same bytes; cuts at two
    /// different operations have different chances.
    pub seed: u64,
    /// Each strikes on its own. Where two would strike at one operation, the
    /// first in the list does.
    pub faults: Vec<Fault>,
    /// Where a line is added when a fault strikes for the first time:
    /// `op=17 kind=xWrite file=wal`. A file that does not exist after the run
    /// tells that the plan's faults lie behind the run's last operation.
    pub report: Option<PathBuf>,
}

/// Something that goes wrong. Operations are counted from 1 in each process;
/// the crate's documentation tells which are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An operation fails.
    Fail {
        /// The operation, or the first after it to which the failure applies.
        at: u64,
        /// How it fails.
        error: Failure,
        /// Whether every later operation to which the failure applies fails too.
        lasting: bool,
    },
    /// The disk is full: what would make a file grow fails, all else works.
    Full {
        /// The first operation that finds it full.
        at: u64,
        /// There is room again as soon as this file exists.
        until: PathBuf,
    },
    /// The power is cut right before an operation.
    Cut {
        /// The operation that does not happen any more.
        at: u64,
    },
}

/// How an operation fails. The codes are those that the unix VFS answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Any operation: nothing is done, and the answer is `SQLITE_CANTOPEN` for
    /// an open and the operation's own `SQLITE_IOERR_…` for all others. After a
    /// failed sync, what was unsynced is as uncertain as in a power cut, and
    /// for good: the kernel marks those pages clean, so no later sync writes
    /// them again, while reads still find them in the cache.
    Io,
    /// What makes a file grow: nothing is done, and the answer is `SQLITE_FULL`,
    /// or `SQLITE_IOERR_SHMSIZE` where the shared memory's file grows.
    Full,
    /// A write: half of its bytes are written. The answer is `SQLITE_FULL`,
    /// because the unix VFS writes on after a short write until the system
    /// gives it an error, which is "no space left" on a disk that fills up.
    ShortWrite,
}

impl Plan {
    /// A plan in which nothing goes wrong yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The same plan with one more fault.
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// The same plan with a report.
    pub fn reporting_to(mut self, report: impl Into<PathBuf>) -> Self {
        self.report = Some(report.into());
        self
    }

    /// The text for the environment variable [`VARIABLE`].
    ///
    /// # Panics
    /// If a path is not UTF-8.
    pub fn to_env_value(&self) -> String {
        serde_json::to_string(self).expect("a test's paths are UTF-8")
    }

    /// Reads what [`Plan::to_env_value`] wrote.
    pub fn from_env_value(text: &str) -> Result<Self, BadPlan> {
        serde_json::from_str(text).map_err(|source| BadPlan { text: text.to_owned(), source })
    }
}

/// A text that is no plan.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} holds no plan ({source}): {text}")]
pub struct BadPlan {
    text: String,
    source: serde_json::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_environment() {
        let plan = Plan::new(u64::MAX)
            .with(Fault::Fail { at: 3, error: Failure::ShortWrite, lasting: true })
            .with(Fault::Full { at: 4, until: "/tmp/with space, \"quotes\" and ü".into() })
            .with(Fault::Cut { at: 90 })
            .reporting_to("/tmp/report");
        assert_eq!(Plan::from_env_value(&plan.to_env_value()).unwrap(), plan);
        assert_eq!(Plan::from_env_value(&Plan::new(1).to_env_value()).unwrap(), Plan::new(1));
    }

    #[test]
    fn a_bad_plan_is_refused_with_its_text_and_the_reason() {
        for (text, reason) in [
            ("", "EOF"),
            ("7", "invalid type"),
            (r#"{"seed":1,"faults":[{"cut":{}}]}"#, "missing field `at`"),
            (r#"{"seed":1,"faults":[{"melt":{"at":1}}]}"#, "unknown variant `melt`"),
            (r#"{"seed":1,"faults":[{"cut":{"at":1,"on":2}}]}"#, "unknown field `on`"),
            (r#"{"seed":1,"faults":[],"sead":2}"#, "unknown field `sead`"),
        ] {
            let error = Plan::from_env_value(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.ends_with(text), "{error}");
        }
    }
}
