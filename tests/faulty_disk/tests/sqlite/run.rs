//! Starts the child under a plan, and looks at what it left behind.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, thread};

use faulty_disk::Plan;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::child::{self, Folder};

/// As on every Unix.
const SIGKILL: i32 = 9;

/// How the child uses SQLite.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub journal: &'static str,
    pub synchronous: &'static str,
    /// Connections that read all the while, on threads of their own. With none,
    /// the same operations happen in the same order each time.
    pub readers: usize,
}

/// What was found after a run.
#[derive(Debug)]
pub struct Run {
    /// The plan and the mode.
    #[expect(dead_code, reason = "a failing test prints it")]
    pub scene: String,
    pub status: ExitStatus,
    pub output: String,
    /// The report's lines: none if no fault has struck.
    pub report: Vec<String>,
    /// Rows whose commit succeeded.
    pub committed: BTreeSet<i64>,
    /// SQLite's errors, as the child saw them.
    pub errors: String,
    /// Bytes of the log that was left behind.
    pub log_bytes: Option<u64>,
    /// Whether the shared memory's file was left behind.
    pub left_memory: bool,
    /// Rows that are there, or what is wrong with the database.
    pub found: Result<BTreeSet<i64>, String>,
}

/// The first seed of the random tests: another one by the environment variable
/// `FAULTY_DISK_SEED`.
pub fn first_seed() -> u64 {
    env::var("FAULTY_DISK_SEED").map_or(1, |text| text.parse().expect("FAULTY_DISK_SEED is a number"))
}

/// Runs the child in a new folder under a plan.
pub fn run(mode: Mode, plan: impl FnOnce(&Folder) -> Plan) -> Run {
    let temporary = TempDir::new().unwrap();
    let folder = Folder(temporary.path().to_owned());
    let report = temporary.path().join("report");
    let plan = plan(&folder).reporting_to(&report);
    let Mode { journal, synchronous, readers } = mode;
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "child::workload"])
        .env(faulty_disk::VARIABLE, plan.to_env_value())
        .env(child::VARIABLE, format!("{}|{journal}|{synchronous}|{readers}", folder.0.display()))
        .output()
        .unwrap();
    Run {
        scene: format!("{mode:?} {plan:?}"),
        status: output.status,
        output: [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat(),
        report: lines(&report),
        committed: lines(&folder.committed()).iter().map(|line| line.parse().unwrap()).collect(),
        errors: fs::read_to_string(folder.errors()).unwrap_or_default(),
        log_bytes: fs::metadata(folder.beside("-wal")).map(|log| log.len()).ok(),
        left_memory: folder.beside("-shm").exists(),
        // Last, because it opens the database.
        found: rows(&folder.database()),
    }
}

impl Run {
    /// Rows that were committed and are not there.
    pub fn lost(&self) -> usize {
        self.found.as_ref().map_or(self.committed.len(), |found| self.committed.difference(found).count())
    }

    /// Whether the power was cut.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(SIGKILL)
    }

    pub fn assert_nothing_lost(&self) {
        assert!(self.found.is_ok() && self.lost() == 0, "{self:#?}");
    }

    /// The child came to its own end, and saw errors only if a fault struck.
    pub fn assert_ended_by_itself(&self) {
        let expected = if self.errors.is_empty() { 0 } else { child::SAW_ERRORS };
        assert_eq!(self.status.code(), Some(expected), "{self:#?}");
        assert!(self.errors.is_empty() || !self.report.is_empty(), "{self:#?}");
    }

    /// All rows are there, and nothing went wrong.
    pub fn assert_clean(&self) {
        assert_eq!((self.status.code(), &*self.errors), (Some(0), ""), "{self:#?}");
        assert_eq!(self.found, Ok((1..=child::ROWS).collect()), "{self:#?}");
        assert_eq!(self.committed.len(), child::ROWS as usize, "{self:#?}");
    }
}

/// Tries every operation k = 1, 2, … with as many threads as there are
/// processors, until one says that there are no more. Gives the last that was.
pub fn every_operation(attempt: impl Fn(u64) -> ControlFlow<()> + Sync) -> u64 {
    let next = AtomicU64::new(1);
    let end = Mutex::new(u64::MAX);
    let work = || {
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            if k >= *end.lock().unwrap() {
                return;
            }
            if attempt(k).is_break() {
                let mut end = end.lock().unwrap();
                *end = k.min(*end);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    end.into_inner().unwrap() - 1
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Opens the database as the next process does, and reads everything. A file
/// that is not there holds no rows, and neither does one without the table.
fn rows(path: &Path) -> Result<BTreeSet<i64>, String> {
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let read = || -> rusqlite::Result<Result<BTreeSet<i64>, String>> {
        let connection = Connection::open(path)?;
        // The repaired database is not used again, so syncs would waste time.
        connection.pragma_update(None, "synchronous", "off")?;
        let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(Err(verdict));
        }
        if !connection.table_exists(None, "rows")? {
            return Ok(Ok(BTreeSet::new()));
        }
        let mut statement = connection.prepare("SELECT id, content FROM rows")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let wrong = rows.iter().find(|(id, content)| *content != child::content(*id));
        Ok(wrong.map_or(Ok(rows.iter().map(|(id, _)| *id).collect()), |(id, _)| Err(format!("row {id}"))))
    };
    read().unwrap_or_else(|error| Err(error.to_string()))
}
