//! The loop of the writer's thread: takes the commands that wait, carries them out in
//! one transaction, commits with a sync, and only then resolves each.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::checkpointer::Checkpointer;
use super::command::Command;
use super::execute::execute_all;
use super::failure::{Fatal, refusal};
use super::queue::{Closed, CommandQueue};
use crate::failpoint::Failpoint;
use crate::metrics::{Metrics, seconds_since};
use crate::store::sqlite::append::DrawLimits;
use crate::store::sqlite::event::{Announcement, Event, Observer};
use crate::store::sqlite::files::DatabaseFiles;
use crate::store::sqlite::identity::ServedFiles;
use crate::store::{DrawStatus, StoreError};

/// Most commands in one transaction.
const GROUP_COMMANDS_MAX: usize = 256;
/// Pages that a transaction writes at most, if it is not of one command that writes more:
/// bounds how long the first waits for the last, whatever the commands hold.
const GROUP_PAGES_MAX: u64 = 2_048;
/// Quiet time after which the WAL is copied and truncated.
const IDLE_BEFORE_TRUNCATE: Duration = Duration::from_secs(1);
/// How often a writer without work looks whether its files are still where they were: a
/// server whose files are gone ends within a second.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// What the writer's thread owns.
pub(super) struct Task {
    // Before the connection: the last one to close removes the WAL, and the copier's would not.
    pub(super) checkpointer: Checkpointer,
    pub(super) connection: Connection,
    pub(super) files: DatabaseFiles,
    pub(super) served: ServedFiles,
    pub(super) queue: Arc<CommandQueue>,
    pub(super) observer: Observer,
    pub(super) announcement: Announcement,
    pub(super) limits: DrawLimits,
    pub(super) metrics: Arc<Metrics>,
}

impl Task {
    /// Runs until the queue is closed and empty, or a write fails for good.
    pub(super) fn run(mut self) {
        let _end = OnEnd { queue: Arc::clone(&self.queue), observer: Arc::clone(&self.observer) };
        if let Err(Fatal(error)) = self.serve() {
            // Closing would checkpoint, which is a write: leave everything as it is for
            // the next process to recover.
            std::mem::forget(self.connection);
            (self.observer)(Event::Failed(error));
        }
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        while let Some(first) = self.next_command()? {
            let group = self.collect_group(first);
            self.commit(group)?;
            self.checkpointer.checkpoint_if_due(&self.connection)?;
        }
        // Closing removes the WAL by its name, which may be another server's by now.
        self.require_files()?;
        self.checkpointer.truncate(&self.connection)
    }

    /// Waits for the next command; `None` when the queue is closed and empty.
    fn next_command(&mut self) -> Result<Option<Command>, Fatal> {
        let idle_since = Instant::now();
        loop {
            match self.queue.next(IDLE_CHECK_INTERVAL) {
                Ok(Some(command)) => return Ok(Some(command)),
                Ok(None) => self.require_files()?,
                Err(Closed) => return Ok(None),
            }
            if idle_since.elapsed() >= IDLE_BEFORE_TRUNCATE && !self.checkpointer.is_truncated() {
                self.checkpointer.truncate(&self.connection)?;
            }
        }
    }

    /// Fails if what was committed is not where the next server looks for it.
    fn require_files(&self) -> Result<(), Fatal> {
        self.served.verify().map_err(Fatal)
    }

    /// Returns the command and those that wait behind it and are not too much for one
    /// transaction. It does not wait for more: while one group is synced, the next one
    /// gathers by itself.
    fn collect_group(&self, first: Command) -> Vec<Command> {
        let mut pages = first.pages();
        let mut group = vec![first];
        while group.len() < GROUP_COMMANDS_MAX
            && let Some(command) = self.queue.next_within(GROUP_PAGES_MAX.saturating_sub(pages))
        {
            pages += command.pages();
            group.push(command);
        }
        self.metrics.queue_writes.dec_by(group.len() as i64);
        group
    }

    /// Carries out a group in one transaction and resolves every command of it.
    ///
    /// Nothing is resolved before the commit has returned, and nothing is committed to files
    /// that the next server would not open. A failure before the commit stores nothing,
    /// and is refused as such; a failure in it leaves the outcome unknown, which is what a
    /// dropped resolver means.
    fn commit(&mut self, group: Vec<Command>) -> Result<(), Fatal> {
        let began = Instant::now();
        let transaction = match self.connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => return refuse_or_fail("BEGIN", &error, refusal(&error, &self.files), group),
        };
        Failpoint::BeforeInsert.pass();
        let executed = match execute_all(&transaction, &group, self.limits) {
            Ok(executed) => executed,
            Err(error) => {
                // SQLite has rolled it back already if the disk filled up in a
                // statement: `finish` rolls back only what is still open.
                let rolled_back = transaction.finish();
                refuse_or_fail("a write", &error, refusal(&error, &self.files), group)?;
                return rolled_back.map_err(|error| Fatal::new("ROLLBACK", &error));
            }
        };
        // Not after it: what happens to the files during the sync is no other than what
        // happens right after the reply, and a thread that has slept does this far slower.
        self.served.verify().map_err(Fatal)?;
        let announcing = executed.drawn.is_some().then(|| self.announcement.begin());
        Failpoint::BeforeCommit.pass();
        if let Err(error) = transaction.commit() {
            // The WAL could not take the commit's frames, so there is no commit. After any
            // other failure there may be one.
            let refusal = refusal(&error, &self.files).filter(|refusal| *refusal == StoreError::Full);
            return refuse_or_fail("COMMIT", &error, refusal, group);
        }
        Failpoint::AfterCommit.pass();
        self.metrics.commit_seconds.observe(seconds_since(began));
        self.metrics.commit_writes.observe(group.len() as f64);
        self.metrics.bets.inc_by(executed.bets);
        if let Some(status) = executed.drawn {
            self.announce(status);
        }
        drop(announcing);
        self.checkpointer.count_commit(group.iter().map(Command::pages).sum());
        for (command, outcome) in group.into_iter().zip(executed.outcomes) {
            outcome.resolve(command);
        }
        Ok(())
    }

    fn announce(&self, status: DrawStatus) {
        self.metrics.draws.inc();
        Failpoint::BeforeAnnouncement.pass();
        (self.observer)(Event::Drawn(status));
        Failpoint::AfterAnnouncement.pass();
    }
}

/// Refuses every command of a group of which nothing was stored, if that is certain and
/// a retry makes sense; otherwise the writer has failed.
fn refuse_or_fail(
    operation: &str,
    error: &rusqlite::Error,
    refusal: Option<StoreError>,
    group: Vec<Command>,
) -> Result<(), Fatal> {
    let refusal = refusal.ok_or_else(|| Fatal::new(operation, error))?;
    crate::event!(Error, "write_database", Fail, operation = operation, error = error);
    for command in group {
        command.refuse(refusal);
    }
    Ok(())
}

/// The end of the thread. Nothing that waits is carried out any more; and a panic of the
/// writer must not leave a server behind that never replies.
struct OnEnd {
    queue: Arc<CommandQueue>,
    observer: Observer,
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.queue.abandon();
        if thread::panicking() {
            (self.observer)(Event::Failed("the writer panicked".to_owned()));
        }
    }
}
