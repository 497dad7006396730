//! The writing half of the store: a bounded queue, and the one thread that writes.
//!
//! The thread carries out all commands that wait in one transaction, in which a refused
//! command is rolled back alone: one sync pays for the whole group. A second thread copies
//! the WAL into the database meanwhile.

mod checkpointer;
mod command;
mod copier;
mod execute;
mod failure;
mod queue;
mod task;

use std::fs::File;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use self::checkpointer::Checkpointer;
use self::command::Command;
use self::copier::Copier;
use self::queue::CommandQueue;
use self::task::Task;
use super::append::{DigestedBatch, DrawLimits};
use super::error::OpenError;
use super::event::{Announcement, Observer};
use super::files::DatabaseFiles;
use super::identity::ServedFiles;
use super::open;
use super::options::{Checkpoints, Options};
use crate::metrics::Metrics;
use crate::store::{Appended, Closed, StoreError, Submitter, Ticket, TokenUse};
use sorteo_protocol::{AgencyId, Batch, DrawId};

/// The queue of writes, and the thread that carries them out.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<CommandQueue>,
    thread: Option<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// Starts the threads. `held` is the database file that is locked.
    ///
    /// # Errors
    ///
    /// Where the system has no threads for them, or the database cannot be opened once more.
    pub(super) fn start(
        connection: Connection,
        files: DatabaseFiles,
        served: ServedFiles,
        held: Arc<File>,
        options: &Options,
        observer: Observer,
        announcement: Announcement,
    ) -> Result<Self, OpenError> {
        let no_thread = |source| OpenError::NoThread { path: files.database().to_owned(), source };
        let queue = Arc::new(CommandQueue::new(options.queue_max));
        let metrics = Arc::clone(&options.metrics);
        let copier = match options.checkpoints {
            Checkpoints::Server => {
                let copying = open::open_beside_writer(&files)?;
                Some(Copier::start(copying, held, files.clone()).map_err(no_thread)?)
            }
            Checkpoints::External => None,
        };
        let checkpointer = Checkpointer::new(copier, files.clone(), Arc::clone(&metrics));
        let task = Task {
            checkpointer,
            connection,
            files: files.clone(),
            served,
            queue: Arc::clone(&queue),
            observer,
            announcement,
            limits: DrawLimits {
                agencies_max: options.agencies_max,
                agency_bets_max: options.agency_bets_max,
            },
            metrics: Arc::clone(&metrics),
        };
        let thread = thread::Builder::new()
            .name("sorteo-writer".into())
            .spawn(move || task.run())
            .map_err(no_thread)?;
        Ok(Self { queue, thread: Some(thread), metrics })
    }

    /// Submits batches to be stored all or none.
    pub(super) fn append(
        &self,
        submitter: Submitter,
        batches: Vec<Batch>,
    ) -> Result<Ticket<Appended>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        // Digests are computed here, on the caller's thread: the writer is the bottleneck.
        let batches = batches.into_iter().map(DigestedBatch::from).collect();
        self.submit(submitter, Command::Append(batches, resolver))?;
        Ok(ticket)
    }

    /// Submits that an agency is done.
    pub(super) fn close_agency(
        &self,
        submitter: Submitter,
        agency: AgencyId,
        bets: Option<u64>,
        draw: Option<DrawId>,
    ) -> Result<Ticket<Closed>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        self.submit(submitter, Command::Close { agency, bets, draw, resolver })?;
        Ok(ticket)
    }

    /// Submits a write that changes nothing.
    pub(super) fn probe(&self) -> Result<Ticket<()>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        self.submit(Submitter::default(), Command::Probe(resolver))?;
        Ok(ticket)
    }

    /// Submits when tokens were last used.
    pub(super) fn record_token_uses(&self, uses: Vec<TokenUse>) -> Result<Ticket<()>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        self.submit(Submitter::default(), Command::TokenUses(uses, resolver))?;
        Ok(ticket)
    }

    /// Lets the thread finish the writes that wait, and waits for its end.
    pub(super) fn close(mut self) {
        self.stop();
    }

    fn submit(&self, submitter: Submitter, command: Command) -> Result<(), StoreError> {
        // Before the writer can take it out again.
        self.metrics.queue_writes.inc();
        self.queue.submit(submitter, command).inspect_err(|_| _ = self.metrics.queue_writes.dec())
    }

    fn stop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has reported it; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}
