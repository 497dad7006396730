//! The store on SQLite: one writing connection that commits in groups, and a pool of
//! reading connections, each on a snapshot of the WAL.
//!
//! Why one writer: SQLite has one write lock, and connections that compete for it sleep
//! and poll (`busy_timeout`), where a queue serves them in order and one sync pays for
//! all that waited. Correctness does not depend on there being one: every rule is
//! checked inside the write transaction, so that a second process on the same file
//! changes nothing.
//!
//! [`SqliteStore::open`] is the server's only way in. Beside a server, [`check`],
//! [`overview`], [`export`] and [`backup`] read a database, and [`operator`] is how a
//! person changes it; without one, [`restore`] puts another in its place.
//!
//! The files stand in floors, here from the top: none imports a file of its own floor or
//! of a floor above.
//!
//! | floor | files |
//! |---|---|
//! | the store | this file |
//! | copies of a database | `backup`, `restore` |
//! | what both are made with | `copy` |
//! | beside a server | `check`, `export`, `operator`, `overview` |
//! | inside a server | `prepare`, `readers`, `wal_resync`, `writer` |
//! | inside a write transaction | `append`, `draw` |
//! | opening, for each purpose | `open` |
//! | what must hold before | `pending_restore`, `verify` |
//! | single rules | `admission`, `audit`, `filesystem`, `header`, `identity`, `lock`, `options`, `room`, `terms`, `tokens` |
//! | what a database is made of | `schema`, `totals` |
//! | what all use | `actor`, `connection`, `error`, `event`, `files`, `holder`, `status`, `text`, `time` |

mod actor;
mod admission;
mod append;
mod audit;
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
mod holder;
mod identity;
mod lock;
mod open;
pub mod operator;
mod options;
pub mod overview;
mod pending_restore;
mod prepare;
mod readers;
pub mod restore;
mod room;
mod schema;
mod status;
mod terms;
mod text;
mod time;
mod tokens;
mod totals;
mod verify;
mod wal_resync;
mod writer;

pub use self::copy::{CopyError, Progress as CopyProgress, Step as CopyStep, refuse_own_files};
pub use self::error::OpenError;
pub use self::event::{Event, Observer};
pub use self::files::wal_path;
pub use self::holder::Holder;
pub use self::identity::other_names;
pub use self::options::{AGENCIES_MAX, Checkpoints, Options, READERS, WRITE_QUEUE_MAX};
pub use self::terms::{DrawTerm, NotTakenReason, TermNotTaken};

use std::collections::BTreeMap;
use std::time::SystemTime;

use self::connection::checkpoint_on_close;
use self::error::sqlite_error;
use self::event::Announcement;
use self::files::DatabaseFiles;
use self::identity::ServedFiles;
use self::lock::DatabaseLock;
use self::overview::Overview;
use self::prepare::Prepared;
use self::readers::Readers;
use self::writer::Writer;
use super::{
    Appended, Closed, DrawStatus, Store, StoreError, StoredToken, Submitter, Ticket, TokenUse, Tokens,
    WinnersSize, WinningBet,
};
use sorteo_protocol::{AgencyId, Batch, DrawId, TokenId, UploadId};

/// The lottery's database in one SQLite file. See the module.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    files: DatabaseFiles,
    readers: Readers,
    announcement: Announcement,
    // Last, so that the lock is released after the connections are closed.
    _lock: DatabaseLock,
}

/// What was found when a database was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the database was created now.
    pub created: bool,
    /// The status of the newest draw.
    pub status: DrawStatus,
    /// Whether the draw was due, and was drawn while opening.
    pub drawn_now: bool,
    /// Terms given in [`Options`] that the newest draw, which is open, did not take.
    pub terms_not_taken: Vec<TermNotTaken>,
}

impl SqliteStore {
    /// Opens or creates the database, brings its schema up to date, draws if that is
    /// due, and starts the writer.
    ///
    /// # Errors
    ///
    /// Fails if the database is not ours, is damaged, is held by another server or
    /// cannot be read and written. Its contents are then as they were.
    pub fn open(options: &Options, observer: Observer) -> Result<(Self, Recovery), OpenError> {
        let files = DatabaseFiles::resolve(&options.database);
        let path = files.database();
        open::require_safe_sqlite()?;
        filesystem::refuse_network(&files)?;
        identity::refuse_other_names(&files)?;
        pending_restore::finish_interrupted(&files)?;
        header::refuse_foreign_file(&files)?;
        let mut lock = DatabaseLock::take(&files)?;
        // Another restore may have ended between the two.
        pending_restore::finish(&files)?;
        let created = !path.exists();
        let (held_id, held) = lock.hold_database(&files)?;
        let mut writing = open::open_writer(&files)?;
        let Prepared { status, drawn_now, terms_not_taken } =
            prepare::prepare(&mut writing, &options.terms())
                .map_err(|source| sqlite_error(path, "preparing the draw", source))?;
        // Not before all that may refuse the database, which stays as it was found.
        wal_resync::resync(&writing, &files, options.checkpoints)?;
        checkpoint_on_close(&writing, options.checkpoints == Checkpoints::Server)
            .map_err(|source| sqlite_error(path, "setting up the writing connection", source))?;
        let served = ServedFiles::new(&options.database, &files, held_id)?;
        if drawn_now {
            observer(Event::Drawn(status));
        }
        let readers = Readers::open(&files, options.readers)?;
        let announcement = Announcement::default();
        let writer =
            Writer::start(writing, files.clone(), served, held, options, observer, announcement.clone())?;
        let store = Self { writer, files, readers, announcement, _lock: lock };
        Ok((store, Recovery { created, status, drawn_now, terms_not_taken }))
    }

    /// Opens a connection of its own for operators who look at the database.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be opened once more.
    pub fn overview(&self) -> Result<Overview, OpenError> {
        Overview::of_store(&self.files, self.announcement.clone())
    }

    /// Lets the writer finish the writes that wait, checkpoints and closes everything.
    pub fn close(self) {
        // The readers first: SQLite removes the WAL when the last connection closes,
        // and a connection that only reads cannot.
        drop(self.readers);
        self.writer.close();
    }

    /// Returns a status that was read; a draw in it has been announced by then.
    fn after_announcement(&self, status: DrawStatus) -> DrawStatus {
        if status.drawn {
            self.announcement.wait();
        }
        status
    }
}

impl Store for SqliteStore {
    fn append_from(&self, submitter: Submitter, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        self.writer.append(submitter, batches)
    }

    fn close_agency_from(
        &self,
        submitter: Submitter,
        agency: AgencyId,
        bets: Option<u64>,
        draw: Option<DrawId>,
    ) -> Result<Ticket<Closed>, StoreError> {
        self.writer.close_agency(submitter, agency, bets, draw)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        self.writer.probe()
    }

    fn next_row(&self, draw: DrawId, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError> {
        self.readers.next_row(draw, agency, upload)
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        self.readers.newest_draw().map(|status| self.after_announcement(status))
    }

    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        let found = self.readers.draw(draw)?;
        Ok(found.map(|status| self.after_announcement(status)))
    }

    fn previous_draw_for(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        // It was drawn before the newest was opened, and so announced long ago.
        self.readers.previous_draw_for(agency)
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

    fn tokens(&self) -> &dyn Tokens {
        self
    }
}

impl Tokens for SqliteStore {
    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        self.readers.token(id)
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.readers.tokens_version()
    }

    fn ends(&self) -> Result<BTreeMap<TokenId, SystemTime>, StoreError> {
        self.readers.token_ends()
    }

    fn record_uses(&self, uses: Vec<TokenUse>) -> Result<Ticket<()>, StoreError> {
        self.writer.record_token_uses(uses)
    }
}
