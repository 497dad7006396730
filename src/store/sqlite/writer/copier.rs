//! Copies the WAL into the database while the writer goes on, on a thread and a
//! connection of its own. (The module `copy` copies whole databases.)
//!
//! A copy frees nothing: the WAL starts over only after a checkpoint that leaves nothing
//! to copy, which is the writer's, between two commits. The copies before it leave it
//! little to do.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::failure::{Fatal, refusal};
use crate::store::sqlite::files::DatabaseFiles;

/// The thread that copies.
#[derive(Debug)]
pub(super) struct Copier {
    /// `None` only while it ends.
    begin: Option<Sender<()>>,
    ended: Receiver<Result<(), Fatal>>,
    copying: bool,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// Starts the thread. `database` is the open database file.
    ///
    /// The file is not opened here: to close it would release SQLite's locks.
    ///
    /// # Errors
    ///
    /// Where the system has no thread for it.
    pub(super) fn start(
        connection: Connection,
        database: Arc<File>,
        files: DatabaseFiles,
    ) -> io::Result<Self> {
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let copy_each = move || {
            while begun.recv().is_ok() && end.send(copy(&connection, &database, &files)).is_ok() {}
        };
        let thread = thread::Builder::new().name("sorteo-copier".into()).spawn(copy_each)?;
        Ok(Self { begin: Some(begin), ended, copying: false, thread: Some(thread) })
    }

    /// Returns whether a copy was begun, and neither waited for nor found to have ended.
    pub(super) fn is_copying(&self) -> bool {
        self.copying
    }

    /// Begins a copy.
    pub(super) fn begin(&mut self) {
        if let Some(begin) = &self.begin {
            // If the thread has ended, whoever looks for the end of the copy learns of it.
            let _ = begin.send(());
            self.copying = true;
        }
    }

    /// Returns whether the copy that was begun has ended.
    ///
    /// # Errors
    ///
    /// Fails if the copy did.
    pub(super) fn has_ended(&mut self) -> Result<bool, Fatal> {
        match self.ended.try_recv() {
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(gone()),
            Ok(result) => {
                self.copying = false;
                result.map(|()| true)
            }
        }
    }

    /// Waits for the end of the copy, if one was begun.
    ///
    /// # Errors
    ///
    /// Fails if the copy did.
    pub(super) fn wait(&mut self) -> Result<(), Fatal> {
        if !self.copying {
            return Ok(());
        }
        self.copying = false;
        self.ended.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, the panic was printed, and nothing more is copied.
            let _ = thread.join();
        }
    }
}

/// Copies what is committed, as far as no reader needs the old pages, and syncs it.
///
/// SQLite itself syncs the database only when nothing is left to copy, and before it lets
/// the WAL start over. This sync is not instead of that one: it leaves little to it.
fn copy(connection: &Connection, database: &File, files: &DatabaseFiles) -> Result<(), Fatal> {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        Ok(()) => database.sync_data().map_err(|error| Fatal(format!("the sync of a copy failed: {error}"))),
        // The checkpoint that follows finds the disk full too, and reports it.
        Err(error) if refusal(&error, files).is_some() => Ok(()),
        Err(error) => Err(Fatal::new("a copy of the WAL", &error)),
    }
}

fn gone() -> Fatal {
    Fatal("the thread that copies the WAL has ended".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::sqlite::open;

    #[test]
    fn what_is_committed_is_copied_while_the_writer_is_in_a_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let files = DatabaseFiles::at(folder.path().join("a.db"));
        let writer = open::open_writer(&files).unwrap();
        let database = Arc::new(File::open(files.database()).unwrap());
        let copying = open::open_beside_writer(&files).unwrap();
        let mut copier = Copier::start(copying, database, files.clone()).unwrap();
        assert!(copier.wait().is_ok(), "none was begun");
        writer
            .execute_batch("CREATE TABLE stored (x); INSERT INTO stored VALUES (1); BEGIN IMMEDIATE")
            .unwrap();
        copier.begin();
        assert!(copier.is_copying());
        copier.wait().unwrap();
        assert!(!copier.is_copying());
        assert!(!copier.has_ended().unwrap(), "its end is reported once");
        let alone = folder.path().join("copy.db");
        fs::copy(files.database(), &alone).unwrap();
        let copied: i64 = Connection::open(&alone)
            .unwrap()
            .query_row("SELECT x FROM stored", [], |row| row.get(0))
            .unwrap();
        assert_eq!(copied, 1, "without the WAL");
    }
}
