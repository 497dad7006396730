//! The one thread that writes. It takes all that waits, carries it out in one
//! transaction, in which a refused one undoes what it wrote, commits with a sync,
//! and only then answers each: one sync pays for the whole group.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::super::{AppendRefusal, Appended, Closed, DoneBy, DrawStatus, Resolver, StoreError, Ticket};
use super::append::{self, DigestedBatch};
use super::draw;
use super::event::{Announcement, Event, Observer};
use super::options::{Checkpoints, Options};
use super::status::newest_draw;
use super::time::now;
use crate::failpoint::Failpoint;
use crate::metrics::{CheckpointResult, Metrics, seconds_since};
use sorteo_protocol::{AgencyId, Batch};

/// Most commands in one transaction.
const GROUP_COMMANDS_MAX: usize = 256;
/// Pages that a transaction may write before no further command joins it:
/// bounds how long the first waits for the last, whatever the commands hold.
const GROUP_PAGES_MAX: u64 = 2_048;
/// Pages written after which the log is copied into the database: 12 MiB.
const CHECKPOINT_PAGES: u64 = 3_072;
/// Pages that a batch writes beside its bets: the ends of four b-trees.
const BATCH_PAGES: u64 = 4;
/// Bets that fill a page of 4 KiB.
const BETS_PER_PAGE: u64 = 50;
/// Pages (of 4 KiB) in the log from which on readers are waited for, so that it
/// can be reset: 32 MiB, half of the limit.
const WAL_PAGES_MAX: i64 = 8_192;
/// How long a reset may wait for readers. It holds up the writer.
const RESET_TIMEOUT: Duration = Duration::from_millis(500);
/// Quiet time after which the log is copied and cut to nothing.
const IDLE_BEFORE_TRUNCATE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Command {
    Append(Vec<DigestedBatch>, Resolver<Appended>),
    Close(AgencyId, Option<u64>, Resolver<Closed>),
    Probe(Resolver<()>),
}

/// The writing half of the store: its queue and its thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        options: &Options,
        observer: Observer,
        announcement: Announcement,
    ) -> Self {
        let (queue, commands) = mpsc::sync_channel(options.queue_max);
        let task = Task {
            connection,
            commands,
            observer,
            announcement,
            checkpoints: options.checkpoints,
            metrics: Arc::clone(&options.metrics),
            pages_since_checkpoint: 0,
            reset_from_pages: WAL_PAGES_MAX,
            truncated: false,
        };
        let thread = thread::Builder::new()
            .name("sorteo-writer".into())
            .spawn(move || task.run())
            .expect("a process that starts can start its writer");
        Self { queue: Some(queue), thread: Some(thread), metrics: Arc::clone(&options.metrics) }
    }

    pub(super) fn append(&self, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        // Digests are computed here, on the caller's thread: the writer is the bottleneck.
        let batches = batches.into_iter().map(DigestedBatch::from).collect();
        self.submit(Command::Append(batches, resolver))?;
        Ok(ticket)
    }

    pub(super) fn close_agency(
        &self,
        agency: AgencyId,
        bets: Option<u64>,
    ) -> Result<Ticket<Closed>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        self.submit(Command::Close(agency, bets, resolver))?;
        Ok(ticket)
    }

    pub(super) fn probe(&self) -> Result<Ticket<()>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        self.submit(Command::Probe(resolver))?;
        Ok(ticket)
    }

    fn submit(&self, command: Command) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Unknown)?;
        // Before the writer can take it out again.
        self.metrics.queue_writes.inc();
        queue.try_send(command).map_err(|error| {
            self.metrics.queue_writes.dec();
            match error {
                TrySendError::Full(_) => StoreError::Busy,
                // The writer has failed: the process is about to end.
                TrySendError::Disconnected(_) => StoreError::Unknown,
            }
        })
    }

    pub(super) fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the writer's thread owns.
struct Task {
    connection: Connection,
    commands: Receiver<Command>,
    observer: Observer,
    announcement: Announcement,
    checkpoints: Checkpoints,
    metrics: Arc<Metrics>,
    /// An estimate; what counts is that it never falls behind.
    pages_since_checkpoint: u64,
    /// Pages in the log from which on a reset waits for readers.
    reset_from_pages: i64,
    truncated: bool,
}

/// A failure after which nothing more may be written.
struct Fatal(String);

impl Task {
    fn run(mut self) {
        let _report = ReportPanic(Arc::clone(&self.observer));
        if let Err(Fatal(error)) = self.serve() {
            // Closing would checkpoint, which is a write: leave all as it is for
            // the next process to recover.
            std::mem::forget(self.connection);
            (self.observer)(Event::Failed(error));
        }
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        while let Some(first) = self.next_command()? {
            let group = self.collect_group(first);
            self.commit(group)?;
            self.checkpoint_if_due()?;
        }
        self.truncate_log()
    }

    /// The next command, or `None` when the store is closed and all is done.
    fn next_command(&mut self) -> Result<Option<Command>, Fatal> {
        if !self.truncated {
            match self.commands.recv_timeout(IDLE_BEFORE_TRUNCATE) {
                Ok(command) => return Ok(Some(command)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.truncate_log()?,
            }
        }
        Ok(self.commands.recv().ok())
    }

    /// The command and all that wait behind it. There is no lingering for
    /// company: while one group is synced, the next one gathers by itself.
    fn collect_group(&self, first: Command) -> Vec<Command> {
        let mut pages = first.pages();
        let mut group = vec![first];
        while group.len() < GROUP_COMMANDS_MAX && pages < GROUP_PAGES_MAX {
            let Ok(command) = self.commands.try_recv() else { break };
            pages += command.pages();
            group.push(command);
        }
        self.metrics.queue_writes.dec_by(group.len() as i64);
        group
    }

    /// Carries out a group in one transaction and answers every command of it.
    ///
    /// Nothing is answered before the commit has returned. A failure before the
    /// commit stores nothing, which can be said; one in it leaves the outcome
    /// unknown, and dropping the resolvers says exactly that.
    fn commit(&mut self, group: Vec<Command>) -> Result<(), Fatal> {
        let began = Instant::now();
        let transaction = match self.connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => return refuse_or_fail("BEGIN", &error, group),
        };
        Failpoint::BeforeInsert.pass();
        let executed = match execute_all(&transaction, &group) {
            Ok(executed) => executed,
            Err(error) => {
                // SQLite has undone it already if the disk filled up in a statement:
                // `finish` rolls back only what is still open.
                let rolled_back = transaction.finish();
                refuse_or_fail("a write", &error, group)?;
                return rolled_back.map_err(|error| fatal("ROLLBACK", &error));
            }
        };
        let announcing = executed.drawn.is_some().then(|| self.announcement.begin());
        Failpoint::BeforeCommit.pass();
        if let Err(error) = transaction.commit() {
            return match error.sqlite_error_code() {
                // The log could not take the commit's frames, so there is none.
                Some(ErrorCode::DiskFull) => refuse_or_fail("COMMIT", &error, group),
                _ => Err(fatal("COMMIT", &error)),
            };
        }
        Failpoint::AfterCommit.pass();
        self.metrics.commit_seconds.observe(seconds_since(began));
        self.metrics.commit_writes.observe(group.len() as f64);
        self.metrics.bets.inc_by(executed.bets);
        if let Some(status) = executed.drawn {
            self.metrics.draws.inc();
            Failpoint::BeforeAnnouncement.pass();
            (self.observer)(Event::Drawn(status));
            Failpoint::AfterAnnouncement.pass();
        }
        drop(announcing);
        self.truncated = false;
        self.pages_since_checkpoint += group.iter().map(Command::pages).sum::<u64>();
        for (command, outcome) in group.into_iter().zip(executed.outcomes) {
            outcome.resolve(command);
        }
        Ok(())
    }

    /// Copies the log into the database from time to time, after the answers.
    fn checkpoint_if_due(&mut self) -> Result<(), Fatal> {
        if self.checkpoints == Checkpoints::External || self.pages_since_checkpoint < CHECKPOINT_PAGES {
            return Ok(());
        }
        self.pages_since_checkpoint = 0;
        let log = self.checkpoint("PASSIVE")?;
        if log.pages < self.reset_from_pages {
            return Ok(());
        }
        let log = self.wait_for_readers(RESET_TIMEOUT, "RESTART")?;
        // A reader that holds on for long (a check, a backup) is not waited for
        // again and again: only once the log has grown by as much again.
        self.reset_from_pages = if log.busy { log.pages + WAL_PAGES_MAX } else { WAL_PAGES_MAX };
        Ok(())
    }

    /// When all is quiet, the log is emptied: a backup by copy is then whole,
    /// and the next start has nothing to recover.
    fn truncate_log(&mut self) -> Result<(), Fatal> {
        self.truncated = true;
        if self.checkpoints == Checkpoints::External {
            return Ok(());
        }
        self.pages_since_checkpoint = 0;
        self.wait_for_readers(RESET_TIMEOUT, "TRUNCATE").map(|_| ())
    }

    fn wait_for_readers(&mut self, timeout: Duration, mode: &str) -> Result<Log, Fatal> {
        let with_timeout = |connection: &Connection, timeout| {
            connection.busy_timeout(timeout).map_err(|error| fatal("busy_timeout", &error))
        };
        with_timeout(&self.connection, timeout)?;
        let log = self.checkpoint(mode)?;
        with_timeout(&self.connection, super::connection::BUSY_TIMEOUT)?;
        Ok(log)
    }

    /// Runs a checkpoint; answers what it says of the log.
    ///
    /// A reader in the way is no error, and neither is a full disk: the log
    /// keeps everything, and the next checkpoint tries again.
    fn checkpoint(&mut self, mode: &str) -> Result<Log, Fatal> {
        Failpoint::BeforeCheckpoint.pass();
        let began = Instant::now();
        let result = self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok(Log { busy: row.get(0)?, pages: row.get(1)?, copied: row.get(2)? })
        });
        self.metrics.checkpoint_seconds.observe(seconds_since(began));
        Failpoint::AfterCheckpoint.pass();
        match result {
            Ok(log) => {
                let whole = !log.busy && log.copied == log.pages;
                let result = if whole { CheckpointResult::done } else { CheckpointResult::busy };
                self.metrics.count_checkpoint(result);
                Ok(log)
            }
            Err(error) if is_refusable(&error).is_some() => {
                self.metrics.count_checkpoint(CheckpointResult::failed);
                crate::event!(Warn, "checkpoint", Fail, error = error);
                Ok(Log { busy: true, pages: 0, copied: 0 })
            }
            Err(error) => Err(fatal("a checkpoint", &error)),
        }
    }
}

/// What a checkpoint says of the write-ahead log.
struct Log {
    /// A reader, or the disk, kept it from ending.
    busy: bool,
    pages: i64,
    /// Those that are in the database too.
    copied: i64,
}

/// A writer that panics must not leave a server behind that answers nobody.
struct ReportPanic(Observer);

impl Drop for ReportPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)(Event::Failed("the writer panicked".to_owned()));
        }
    }
}

impl Command {
    /// Pages that it writes, roughly and at most.
    fn pages(&self) -> u64 {
        match self {
            Self::Append(batches, _) => {
                batches.iter().map(|one| BATCH_PAGES + one.batch.bets.len() as u64 / BETS_PER_PAGE).sum()
            }
            Self::Close(..) | Self::Probe(_) => BATCH_PAGES,
        }
    }
}

/// What a transaction that is about to be committed did.
struct Executed {
    outcomes: Vec<Outcome>,
    /// Bets that were stored; of a batch that was stored before, none.
    bets: u64,
    drawn: Option<DrawStatus>,
}

/// What becomes of one command once its group is committed.
enum Outcome {
    Appended(Appended),
    Closed(Closed),
    Probed,
}

impl Outcome {
    fn resolve(self, command: Command) {
        match (self, command) {
            (Self::Appended(outcome), Command::Append(_, resolver)) => resolver.resolve(Ok(outcome)),
            (Self::Closed(outcome), Command::Close(_, _, resolver)) => resolver.resolve(Ok(outcome)),
            (Self::Probed, Command::Probe(resolver)) => resolver.resolve(Ok(())),
            _ => unreachable!("outcomes are in the order of their commands"),
        }
    }
}

fn execute_all(transaction: &Transaction<'_>, group: &[Command]) -> rusqlite::Result<Executed> {
    let stored_at = now();
    let mut executed = Executed { outcomes: Vec::with_capacity(group.len()), bets: 0, drawn: None };
    for command in group {
        let outcome = match command {
            Command::Append(batches, _) => {
                let appended = append_all_or_none(transaction, batches, &stored_at)?;
                executed.bets += appended.unwrap_or(0);
                Outcome::Appended(appended.map(drop))
            }
            Command::Close(agency, bets, _) => {
                let (closed, drawn) = draw::close_agency(transaction, *agency, *bets, DoneBy::Agency)?;
                if drawn {
                    executed.drawn = Some(newest_draw(transaction)?);
                }
                Outcome::Closed(closed)
            }
            Command::Probe(_) => {
                no_op_write(transaction)?;
                Outcome::Probed
            }
        };
        executed.outcomes.push(outcome);
    }
    Ok(executed)
}

/// A refusal of one batch undoes the append's other batches, and nothing else. One
/// alone is refused before it has written anything: it needs no savepoint, which
/// would keep a copy of every page that it changes.
fn append_all_or_none(
    transaction: &Transaction<'_>,
    batches: &[DigestedBatch],
    stored_at: &str,
) -> rusqlite::Result<Result<u64, AppendRefusal>> {
    if let [_] = batches {
        return append::append(transaction, batches, stored_at);
    }
    let run = |sql| transaction.prepare_cached(sql)?.execute([]);
    run("SAVEPOINT batch")?;
    let appended = append::append(transaction, batches, stored_at)?;
    if appended.is_err() {
        run("ROLLBACK TO batch")?;
    }
    run("RELEASE batch")?;
    Ok(appended)
}

/// Writes what is there already: a row that stays as it is passes through the log
/// and the sync like any other.
fn no_op_write(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE draws SET bets = bets WHERE id = (SELECT max(id) FROM draws)")?
        .execute([])
        .map(drop)
}

/// Answers every command that nothing was stored, where that is certain and a
/// retry makes sense; otherwise the writer has failed.
fn refuse_or_fail(operation: &str, error: &rusqlite::Error, group: Vec<Command>) -> Result<(), Fatal> {
    let refusal = is_refusable(error).ok_or_else(|| fatal(operation, error))?;
    crate::event!(Error, "write_database", Fail, operation = operation, error = error);
    for command in group {
        match command {
            Command::Append(_, resolver) => resolver.resolve(Err(refusal)),
            Command::Close(_, _, resolver) => resolver.resolve(Err(refusal)),
            Command::Probe(resolver) => resolver.resolve(Err(refusal)),
        }
    }
    Ok(())
}

/// Failures that leave the database as it was and pass by themselves.
fn is_refusable(error: &rusqlite::Error) -> Option<StoreError> {
    match error.sqlite_error_code()? {
        ErrorCode::DiskFull => Some(StoreError::Full),
        // Another process holds the write lock for longer than the busy timeout.
        ErrorCode::DatabaseBusy => Some(StoreError::Busy),
        _ => None,
    }
}

fn fatal(operation: &str, error: &rusqlite::Error) -> Fatal {
    Fatal(format!("{operation} failed: {error}"))
}
