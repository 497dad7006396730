//! The store on SQLite: one writing connection that commits in groups, a pool of
//! reading connections on the write-ahead log's snapshots.
//!
//! Why one writer: SQLite has one write lock, and connections that fight for it
//! sleep and poll (`busy_timeout`) where a queue serves them in order, and one
//! sync pays for all that waited. Correctness does not rest on there being one:
//! every rule is checked inside the write transaction, so that a second process
//! on the same file changes nothing.
//!
//! [`SqliteStore::open`] is the only way in for the server. Beside it, [`check`],
//! [`overview`], [`backup`] and [`export`] read a database, and [`operator`] is how a
//! person changes it; [`restore`] puts another in its place.

mod append;
pub mod backup;
pub mod check;
mod connection;
mod copy;
mod draw;
mod error;
mod event;
pub mod export;
mod files;
mod filesystem;
mod header;
mod lock;
mod open;
pub mod operator;
mod options;
pub mod overview;
mod pending_restore;
mod prepare;
mod readers;
pub mod restore;
mod schema;
mod status;
mod terms;
mod text;
mod time;
mod verify;
mod wal_resync;
mod writer;

use std::path::Path;

pub use self::copy::{CopyError, Progress as CopyProgress, Step as CopyStep, refuse_own_files};
pub use self::error::OpenError;
use self::error::sqlite_error;
use self::event::Announcement;
pub use self::event::{Event, Observer};
use self::files::DatabaseFiles;
pub use self::files::wal_path;
use self::lock::LockFile;
pub use self::options::{Checkpoints, Options, READERS, WRITE_QUEUE_MAX};
use self::overview::Overview;
use self::readers::Readers;
use self::writer::Writer;
use super::{Appended, Closed, DrawStatus, Store, StoreError, Ticket, WinnersSize, WinningBet};
use crate::unfinished::{folder_of, sync_folder_of};
use sorteo_protocol::{AgencyId, Batch, DrawId, UploadId};

/// What was found when a database was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the database was made now.
    pub created: bool,
    /// How the newest draw stands.
    pub status: DrawStatus,
    /// Whether the draw was due and made while opening.
    pub drawn_now: bool,
}

/// The lottery's database in one SQLite file. See the module.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    files: DatabaseFiles,
    readers: Readers,
    announcement: Announcement,
    // Last, so that the lock is let go after the connections are closed.
    _lock: LockFile,
}

impl SqliteStore {
    /// Opens or makes the database, brings its schema up to date, makes a draw
    /// that is due, and starts the writer.
    pub fn open(options: &Options, observer: Observer) -> Result<(Self, Recovery), OpenError> {
        let files = DatabaseFiles::resolve(&options.database);
        let path = files.database();
        open::require_safe_sqlite()?;
        filesystem::refuse_network(&files)?;
        pending_restore::finish_interrupted(&files)?;
        header::refuse_foreign_file(&files)?;
        let lock = LockFile::take(&files)?;
        // Another restore may have ended between the two.
        pending_restore::finish(&files)?;
        let created = !path.exists();
        let mut writing = open::open_writer(&files)?;
        sync_folder(path)?;
        let (status, drawn_now) = prepare::prepare(&mut writing, options)
            .map_err(|source| sqlite_error(path, "preparing the draw", source))?;
        // Not before all that may refuse the database, which stays as it was found.
        wal_resync::resync(&writing, &files, options.checkpoints)?;
        connection::checkpoint_on_close(&writing, options.checkpoints == Checkpoints::Server)
            .map_err(|source| sqlite_error(path, "setting up the writing connection", source))?;
        if drawn_now {
            observer(Event::Drawn(status));
        }
        let readers = Readers::open(&files, options.readers)?;
        let announcement = Announcement::default();
        let writer = Writer::start(writing, options, observer, announcement.clone());
        let store = Self { files, writer, readers, announcement, _lock: lock };
        let recovery = Recovery { created, status, drawn_now };
        Ok((store, recovery))
    }

    /// A connection of its own for those who look at the database.
    pub fn overview(&self) -> Result<Overview, OpenError> {
        Overview::of_store(&self.files, self.announcement.clone())
    }

    /// Lets the writer finish what waits, checkpoints and closes everything.
    pub fn close(self) {
        // The readers first: SQLite removes the log when the last connection
        // closes, and one that only reads cannot.
        drop(self.readers);
        self.writer.close();
    }

    /// A draw that a read saw made has been announced when this returns.
    fn after_announcement(&self, status: DrawStatus) -> DrawStatus {
        if status.drawn {
            self.announcement.wait();
        }
        status
    }
}

impl Store for SqliteStore {
    fn append(&self, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        self.writer.append(batches)
    }

    fn close_agency(&self, agency: AgencyId, bets: Option<u64>) -> Result<Ticket<Closed>, StoreError> {
        self.writer.close_agency(agency, bets)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        self.writer.probe()
    }

    fn next_row(&self, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError> {
        self.readers.next_row(agency, upload)
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        self.readers.newest_draw().map(|status| self.after_announcement(status))
    }

    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        let found = self.readers.draw(draw)?;
        Ok(found.map(|status| self.after_announcement(status)))
    }

    fn draw_before(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        // Made before the newest was opened, and so announced long ago.
        self.readers.draw_before(agency)
    }

    fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError> {
        self.readers.winners(draw, agency, after, bets_max)
    }

    fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError> {
        self.readers.winners_size(draw, agency)
    }
}

/// Syncs the folder once its files are there: SQLite syncs them, but does not fail
/// when the folder's own sync does, or when there is no file descriptor left for
/// it. Not only after making the database: who made it may have died, or failed,
/// before this.
fn sync_folder(database: &Path) -> Result<(), OpenError> {
    sync_folder_of(database).map_err(|source| OpenError::NotWritable { path: folder_of(database), source })
}
