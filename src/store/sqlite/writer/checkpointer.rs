//! Copies the WAL into the database from time to time, so that it stays small.
//!
//! A checkpoint holds up the writer for as long as it copies and syncs. So the [`Copier`]
//! does most of that beside the writer, in several copies: each sync of the database
//! delays the commits that are synced meanwhile, for the longer the more it writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::copier::Copier;
use super::failure::{Fatal, refusal};
use crate::failpoint::Failpoint;
use crate::metrics::{CheckpointResult, Metrics, seconds_since};
use crate::store::sqlite::connection::BUSY_TIMEOUT;
use crate::store::sqlite::files::DatabaseFiles;

/// Pages written after which the WAL starts over: 12 MiB.
const CHECKPOINT_PAGES: u64 = 3_072;
/// Pages written between two copies that are made before: 2 MiB.
const COPY_PAGES: u64 = 512;
/// Pages written from which on the writer waits for a copy that is slower: 16 MiB.
const AHEAD_OF_COPY_PAGES_MAX: u64 = 4_096;
const _: () = assert!(COPY_PAGES < CHECKPOINT_PAGES && CHECKPOINT_PAGES < AHEAD_OF_COPY_PAGES_MAX);
/// Pages (of 4 KiB) in the WAL from which on a checkpoint waits for readers, so that
/// the WAL can start over: 32 MiB, half of the limit.
const WAL_PAGES_MAX: i64 = 8_192;
/// How long a checkpoint may wait for readers. It holds up the writer.
const RESTART_TIMEOUT: Duration = Duration::from_millis(500);
/// How long one try waits. SQLite waits for the slot of a reader of an old state, which a
/// reader of the newest may have taken meanwhile, and others after it without a gap: the
/// next try does not wait for that slot.
const RESTART_TRY: Duration = Duration::from_millis(50);

/// The state of the WAL, as far as the writer knows it.
pub(super) struct Checkpointer {
    /// `None` if another program makes the checkpoints.
    copier: Option<Copier>,
    files: DatabaseFiles,
    metrics: Arc<Metrics>,
    /// An estimate; it may only be too high.
    pages_since_checkpoint: u64,
    /// How many of these were written when the last copy began.
    pages_before_copy: u64,
    /// Pages in the WAL from which on a checkpoint waits for readers.
    restart_from_pages: i64,
    truncated: bool,
    /// Whether truncating has waited for a reader that is still there.
    waited: bool,
}

/// What a checkpoint reports of the WAL.
#[derive(PartialEq, Eq)]
struct WalState {
    /// A reader, or the disk, kept the checkpoint from finishing.
    busy: bool,
    pages: i64,
    /// Pages that are in the database too.
    copied: i64,
}

impl WalState {
    /// Of a checkpoint that the disk kept from beginning.
    const FAILED: Self = Self { busy: true, pages: 0, copied: 0 };

    /// Returns whether a reader keeps the WAL from starting over.
    fn is_read(&self) -> bool {
        self.busy && self.pages > 0
    }
}

impl Checkpointer {
    /// Without a copier, another program makes the checkpoints.
    pub(super) fn new(copier: Option<Copier>, files: DatabaseFiles, metrics: Arc<Metrics>) -> Self {
        Self {
            copier,
            files,
            metrics,
            pages_since_checkpoint: 0,
            pages_before_copy: 0,
            restart_from_pages: WAL_PAGES_MAX,
            truncated: false,
            waited: false,
        }
    }

    /// Returns whether nothing was committed since the WAL was truncated.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Counts a commit of so many pages.
    pub(super) fn count_commit(&mut self, pages: u64) {
        (self.truncated, self.waited) = (false, false);
        self.pages_since_checkpoint += pages;
    }

    /// Has the WAL copied into the database if enough was written since the last copy. When it
    /// has become long enough, copies the rest of it, after which it starts over.
    pub(super) fn checkpoint_if_due(&mut self, connection: &Connection) -> Result<(), Fatal> {
        if !self.copy_if_due()? || self.pages_since_checkpoint < CHECKPOINT_PAGES {
            return Ok(());
        }
        (self.pages_since_checkpoint, self.pages_before_copy) = (0, 0);
        let wal = self.checkpoint(connection)?;
        if wal.pages < self.restart_from_pages {
            return Ok(());
        }
        let wal = self.wait_for_readers(connection, "RESTART", RESTART_TIMEOUT)?;
        if wal.is_read() {
            self.warn_of_reader(&wal);
        }
        // A reader that stays for long (a check, a backup) is not waited for again and
        // again: only once the WAL has grown by as much again.
        self.restart_from_pages = if wal.busy { wal.pages + WAL_PAGES_MAX } else { WAL_PAGES_MAX };
        Ok(())
    }

    /// Begins a copy if enough was written since the last one began. Returns whether one has
    /// just ended: then there is the least left to copy.
    fn copy_if_due(&mut self) -> Result<bool, Fatal> {
        let Some(copier) = &mut self.copier else { return Ok(false) };
        let pages = self.pages_since_checkpoint;
        if !copier.is_copying() {
            if pages - self.pages_before_copy < COPY_PAGES {
                return Ok(false);
            }
            self.pages_before_copy = pages;
            copier.begin();
        }
        if pages < AHEAD_OF_COPY_PAGES_MAX {
            return copier.has_ended();
        }
        let began = Instant::now();
        copier.wait()?;
        self.metrics.checkpoint_seconds.observe(seconds_since(began));
        Ok(true)
    }

    /// Copies the WAL into the database and empties it: then a copy of the one file is
    /// a whole backup, and the next start has nothing to recover.
    pub(super) fn truncate(&mut self, connection: &Connection) -> Result<(), Fatal> {
        let Some(copier) = &mut self.copier else {
            self.truncated = true;
            return Ok(());
        };
        copier.wait()?;
        // While a reader stays, it is tried again and again: that must not hold up a write.
        let timeout = if self.waited { Duration::ZERO } else { RESTART_TIMEOUT };
        (self.pages_since_checkpoint, self.pages_before_copy) = (0, 0);
        let wal = self.wait_for_readers(connection, "TRUNCATE", timeout)?;
        (self.truncated, self.waited) = (!wal.is_read(), wal.is_read());
        Ok(())
    }

    /// Names the reason for which the WAL grows: only a person can end another program.
    fn warn_of_reader(&self, wal: &WalState) {
        crate::event!(
            Warn,
            "checkpoint",
            Fail,
            wal_pages = wal.pages,
            error = format_args!(
                "a program has been reading an old state, and the WAL grows as long as it does: \
                 `fuser -v {}` lists the programs",
                self.files.database().display()
            )
        );
    }

    fn wait_for_readers(
        &self,
        connection: &Connection,
        mode: &str,
        timeout: Duration,
    ) -> Result<WalState, Fatal> {
        let set_timeout =
            |timeout| connection.busy_timeout(timeout).map_err(|error| Fatal::new("busy_timeout", &error));
        let began = Instant::now();
        let until = began + timeout;
        set_timeout(timeout.min(RESTART_TRY))?;
        let mut wal = self.run(connection, mode)?;
        while wal.is_read() && Instant::now() < until {
            wal = self.run(connection, mode)?;
        }
        set_timeout(BUSY_TIMEOUT)?;
        self.count(&wal, began);
        Ok(wal)
    }

    /// Runs a checkpoint that waits for nobody.
    fn checkpoint(&self, connection: &Connection) -> Result<WalState, Fatal> {
        let began = Instant::now();
        let wal = self.run(connection, "PASSIVE")?;
        self.count(&wal, began);
        Ok(wal)
    }

    /// Tries a checkpoint once.
    ///
    /// A reader in the way is no error, and neither is a full disk: the WAL keeps
    /// everything, and the next checkpoint tries again.
    fn run(&self, connection: &Connection, mode: &str) -> Result<WalState, Fatal> {
        Failpoint::BeforeCheckpoint.pass();
        let result = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok(WalState { busy: row.get(0)?, pages: row.get(1)?, copied: row.get(2)? })
        });
        Failpoint::AfterCheckpoint.pass();
        match result {
            Ok(wal) => Ok(wal),
            Err(error) if refusal(&error, &self.files).is_some() => {
                crate::event!(Warn, "checkpoint", Fail, error = error);
                Ok(WalState::FAILED)
            }
            Err(error) => Err(Fatal::new("a checkpoint", &error)),
        }
    }

    /// Counts a checkpoint, and the time for which it blocked the writer.
    fn count(&self, wal: &WalState, began: Instant) {
        self.metrics.checkpoint_seconds.observe(seconds_since(began));
        self.metrics.count_checkpoint(match wal {
            &WalState::FAILED => CheckpointResult::failed,
            wal if !wal.busy && wal.copied == wal.pages => CheckpointResult::done,
            _ => CheckpointResult::busy,
        });
    }
}
