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

pub mod backup;
pub mod check;
mod connection;
mod copy;
mod draw;
pub mod export;
mod filesystem;
mod header;
mod lock;
pub mod operator;
pub mod overview;
mod readers;
pub mod restore;
mod schema;
mod startup;
mod terms;
mod wal_resync;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::Connection;

pub use self::copy::{CopyError, Progress as CopyProgress, Step as CopyStep, refuse_own_files};
pub use self::header::wal_path;
use self::lock::LockFile;
use self::overview::Overview;
use self::readers::Readers;
use self::writer::Writer;
use super::{Appended, Closed, DrawStatus, Store, StoreError, Ticket, WinnersSize, WinningBet};
use crate::metrics::Metrics;
use crate::unfinished::{folder_of, sync_folder_of};
use sorteo_protocol::text::is_bidirectional_control;
use sorteo_protocol::{AgencyId, Batch, DrawId, UploadId};

/// What the store needs to know before it opens a database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database's file; made if its folder exists and it does not.
    pub database: PathBuf,
    /// How many agencies must be done, where the operator says so.
    pub agencies: Option<u32>,
    /// The number that wins, where the operator says so.
    pub winning_number: Option<u32>,
    /// How many connections read.
    pub readers: u32,
    /// Most writes that may wait for the writer; more are refused as `Busy`.
    pub queue_max: usize,
    /// Who copies the write-ahead log into the database.
    pub checkpoints: Checkpoints,
    /// What the writer counts into.
    pub metrics: Arc<Metrics>,
}

/// Who copies the write-ahead log into the database, and so lets it begin anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpoints {
    /// The writer, between commits.
    #[default]
    Server,
    /// Another process, such as a replicator that must see every page of the log
    /// before it is overwritten. The log then grows for as long as it does not.
    External,
}

impl Options {
    /// The defaults for a database file.
    pub fn new(database: impl Into<PathBuf>) -> Self {
        Self {
            database: database.into(),
            agencies: None,
            winning_number: None,
            readers: READERS,
            queue_max: WRITE_QUEUE_MAX,
            checkpoints: Checkpoints::default(),
            metrics: Arc::default(),
        }
    }
}

/// Reading connections: a read is short and mostly in memory, so a few serve
/// all workers.
pub const READERS: u32 = 4;
/// Writes that may wait: at 99 bets each about a hundred thousand bets, which a
/// slow disk stores in a few seconds. More would only wait longer.
pub const WRITE_QUEUE_MAX: usize = 1024;

/// What happened in the store that its owner must know at once.
#[derive(Clone, Debug)]
pub enum Event {
    /// This process made the draw. Told after the commit, and before any read
    /// can see the draw made.
    Drawn(DrawStatus),
    /// A write failed in a way that leaves its outcome unknown. The store
    /// accepts nothing more and the process must end.
    Failed(String),
}

/// Told of every [`Event`], on the thread that met it.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

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

/// Why a database was not opened. Nothing of its contents was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the file does not exist, or is none.
    #[error("there is no folder {}: make it, or give another --database", .0.display())]
    NoFolder(PathBuf),
    /// The path is a folder, or anything else that holds no database.
    #[error("{} is not a file: give a database file in --database", .0.display())]
    NotAFile(PathBuf),
    /// The file does not exist, where it had to.
    #[error("there is no database {}: give the file of one in --database", .0.display())]
    NoDatabase(PathBuf),
    /// The file is on a file system that SQLite's log does not work on.
    #[error("{} is on a network file system ({file_system}), where SQLite can lose commits: it needs memory and \
             locks that all processes share. Give a --database on a disk of this machine", .path.display())]
    NetworkFileSystem {
        /// The database.
        path: PathBuf,
        /// What the file system is called.
        file_system: String,
    },
    /// The file or its folder cannot be read and written.
    #[error("{} cannot be written ({source}): the server needs to create files in that folder", .path.display())]
    NotWritable {
        /// The file that could not be opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another server holds the database.
    #[error("another server holds {}: stop it first, or give another --database", .0.display())]
    Held(PathBuf),
    /// A restore is under way, or its process died.
    #[error("a restore of {path} is under way or was interrupted: start the server, which finishes it, \
             or run `sorteo restore` again", path = .0.display())]
    Restoring(PathBuf),
    /// The file is no SQLite database.
    #[error("{} is not a SQLite database: it was left as it is, give another --database", .0.display())]
    NotSqlite(PathBuf),
    /// The file is another program's SQLite database.
    #[error("{} is a SQLite database of another program, or its header is damaged: it was left as it is, give another --database", .0.display())]
    Foreign(PathBuf),
    /// The database was written by a newer version of this program.
    #[error("{} has schema version {found}, this program knows up to {known}: use the newer program", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// The database is damaged.
    #[error("{path} is damaged ({detail}): it was left as it is. Keep it, see what `sorteo check --database {path}` \
             finds, and restore a backup. What can be read is saved by the `.recover` of sqlite.org's sqlite3, on a copy",
            path = .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The schema is not what the migrations made: somebody changed it.
    #[error("{path} has another schema than this program made ({detail}): it was left as it is. See what \
             `sorteo check --database {path}` finds, and undo the change or restore a backup",
            path = .path.display())]
    Altered {
        /// The database.
        path: PathBuf,
        /// What is different.
        detail: String,
    },
    /// The linked SQLite loses commits when two connections write and checkpoint
    /// (3.7.0 to 3.51.2, the WAL-reset race).
    #[error("SQLite {0} can lose commits: build with the bundled one, at least 3.51.3")]
    UnsafeSqlite(String),
    /// Anything else that SQLite said.
    #[error("{}: {operation} failed: {source}", .path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The pool of readers could not be filled.
    #[error("{}: opening the reading connections failed: {source}", .path.display())]
    Pool {
        /// The database.
        path: PathBuf,
        /// What the pool said.
        source: r2d2::Error,
    },
}

/// The lottery's database in one SQLite file. See the module.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    path: PathBuf,
    readers: Readers,
    announcement: Announcement,
    // Last, so that the lock is let go after the connections are closed.
    _lock: LockFile,
}

/// Held for writing from before a draw's commit until it is announced, so that
/// nobody can be told of a draw before its log line is written. It orders
/// words, not facts: what is true is decided in the database alone.
type Announcement = Arc<RwLock<()>>;

impl SqliteStore {
    /// Opens or makes the database, brings its schema up to date, makes a draw
    /// that is due, and starts the writer.
    pub fn open(options: &Options, observer: Observer) -> Result<(Self, Recovery), OpenError> {
        let path = &filesystem::follow_links(&options.database);
        connection::require_safe_sqlite()?;
        filesystem::refuse_network(path)?;
        restore::finish_interrupted(path)?;
        header::refuse_foreign_file(path)?;
        let lock = LockFile::take(path)?;
        // Another restore may have ended between the two.
        restore::finish(path)?;
        let created = !path.exists();
        let mut writing = connection::open_writer(path)?;
        sync_folder(path)?;
        let (status, drawn_now) = draw::prepare(&mut writing, options)
            .map_err(|source| sqlite_error(path, "preparing the draw", source))?;
        // Not before all that may refuse the database, which stays as it was found.
        match options.checkpoints {
            Checkpoints::Server => sync_what_was_found(&writing)
                .map_err(|source| sqlite_error(path, "syncing its log", source))?,
            Checkpoints::External => wal_resync::write_again(&writing, path)?,
        }
        connection::checkpoint_on_close(&writing, options.checkpoints == Checkpoints::Server)
            .map_err(|source| sqlite_error(path, "setting up the writing connection", source))?;
        if drawn_now {
            observer(Event::Drawn(status));
        }
        let readers = Readers::open(path, options.readers)?;
        let announcement = Announcement::default();
        let writer = Writer::start(writing, options, observer, Arc::clone(&announcement));
        let store = Self { path: path.clone(), writer, readers, announcement, _lock: lock };
        let recovery = Recovery { created, status, drawn_now };
        Ok((store, recovery))
    }

    /// A connection of its own for those who look at the database.
    pub fn overview(&self) -> Result<Overview, OpenError> {
        Overview::of_store(&self.path, Arc::clone(&self.announcement))
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
            drop(self.announcement.read().unwrap_or_else(PoisonError::into_inner));
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

/// Copies the log into the database, with a sync of both.
///
/// A process that died, or failed, between writing a commit and syncing it leaves
/// the commit in the log, where from now on everybody sees it: it must be safe
/// before anybody is told. A sync of the log alone would not do: where the last
/// one failed, Linux may hold for written what never reached the disk.
fn sync_what_was_found(connection: &Connection) -> rusqlite::Result<()> {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        // No room to copy; the log itself is synced first.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => Ok(()),
        result => result,
    }
}

/// Names what failed, and tells damage from other failures.
fn sqlite_error(path: &Path, operation: &'static str, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match is_damage(&source) {
        true => OpenError::Corrupt { path, detail: format!("{operation}: {source}") },
        false => OpenError::Sqlite { path, operation, source },
    }
}

/// Whether a failure is the file's own: a damaged page, a table that is missing,
/// a value that no column of ours has. The others are the system's, and pass.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::{Error, ErrorCode};
    match error {
        Error::SqliteFailure(cause, _) | Error::SqlInputError { error: cause, .. } => matches!(
            cause.code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::Unknown
        ),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::QueryReturnedNoRows => true,
        _ => false,
    }
}

/// What is wrong according to an answer of `PRAGMA integrity_check`: what it
/// finds in all b-trees comes as one text, under a heading.
fn integrity_lines(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| *line != "ok" && !line.starts_with("***"))
}

/// Whether a text can stand in a line without ending it or reordering what is seen.
fn is_one_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || is_bidirectional_control(c))
}

/// Text from a database or from SQLite as one line that shows what it is.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() || is_bidirectional_control(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    line
}

/// The time as it is stored: UTC, to the millisecond.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Whether a time is as [`now`] writes it.
fn is_time(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok_and(|time| format!("{time:.3}") == text)
}

/// Reads one row of the view `standings`.
fn read_draw_status(row: &rusqlite::Row<'_>) -> rusqlite::Result<DrawStatus> {
    Ok(DrawStatus {
        draw: DrawId(row.get("draw")?),
        drawn: row.get::<_, String>("state")? == "drawn",
        done: row.get("done")?,
        expected: row.get("expected")?,
        bets: row.get("bets")?,
        winners: row.get("winners")?,
        winning_number: row.get("winning_number")?,
    })
}

/// How the newest draw stands, as this connection sees it.
fn newest_draw(connection: &Connection) -> rusqlite::Result<DrawStatus> {
    connection
        .prepare_cached("SELECT * FROM standings ORDER BY draw DESC LIMIT 1")?
        .query_row([], read_draw_status)
}
