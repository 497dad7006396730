//! How a connection is opened and set up, and which files are refused.
//!
//! `synchronous` and most other settings belong to the connection, not to the
//! file: one that misses them is silently weaker. So every connection passes
//! through [`configure`], and a test reads the settings back.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{Error as MigrationError, Migrations};

use super::error::{OpenError, open_error, sqlite_error};
use super::files::DatabaseFiles;
use super::header::refuse_foreign_file;
use super::{filesystem, pending_restore, startup};

/// The first SQLite without the WAL-reset race, as `sqlite3_libversion_number`.
const SAFE_SQLITE: i32 = 3_051_003;

/// How long a connection waits for another process's lock. Within one server
/// nothing contends: there is one writer, and readers never wait.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The write-ahead log's file is cut back to this size when it is reset.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 64 << 20;

/// Distinct statements a connection keeps prepared; we have about twenty.
const STATEMENTS_KEPT: usize = 64;

/// `PRAGMA application_id` of our databases: "sort" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x736f_7274;

static MIGRATIONS_DIR: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/migrations");
static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| {
    Migrations::from_directory(&MIGRATIONS_DIR)
        .expect("the built-in migrations are well-formed: a test reads them")
});

/// The newest schema version that this program knows.
pub(super) fn newest_schema() -> i64 {
    MIGRATIONS_DIR.dirs().count() as i64
}

/// Refuses a SQLite that is known to lose commits.
pub(super) fn require_safe_sqlite() -> Result<(), OpenError> {
    match rusqlite::version_number() {
        safe if safe >= SAFE_SQLITE => Ok(()),
        _ => Err(OpenError::UnsafeSqlite(rusqlite::version().to_owned())),
    }
}

/// Opens the one connection that writes, verifies what can be verified at once,
/// and brings the schema up to date. Until [`checkpoint_on_close`] the connection
/// leaves a log that it found as it is, also when it closes.
///
/// This happens before any other connection is opened: connections that open a
/// new database at the same time trip over each other's `journal_mode`.
pub(super) fn open_writer(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let path = files.database();
    let fail = |operation| move |source| open_error(path, operation, source);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let wal_found = files.has_wal();
    let mut connection = Connection::open_with_flags(path, flags).map_err(fail("opening the database"))?;
    // Closing copies the log into the database. One that is refused stays as it is.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, wal_found)
        .and_then(|_| configure(&mut connection))
        .map_err(fail("setting up the writing connection"))?;
    refuse_foreign_schema(&connection, path)?;
    startup::verify(&connection, path)?;
    let modes = set_journal_mode(&connection).map_err(fail("switching to a write-ahead log"))?;
    if modes != ["wal"] {
        return Err(OpenError::Sqlite {
            path: path.to_owned(),
            operation: "switching to a write-ahead log",
            source: rusqlite::Error::InvalidQuery,
        });
    }
    // The writer decides when to checkpoint: after it has answered, not inside a commit.
    connection
        .pragma_update(None, "wal_autocheckpoint", 0)
        .and_then(|()| connection.pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES))
        .map_err(fail("setting up the writing connection"))?;
    MIGRATIONS.to_latest(&mut connection).map_err(|error| migration_error(path, error))?;
    Ok(connection)
}

/// `journal_mode` is a property of the file; the answer is what now holds.
///
/// All rows are read, though there is one: the change is committed when the
/// statement ends, and only a statement that is run to its end tells of a commit
/// that failed.
fn set_journal_mode(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare("PRAGMA journal_mode = wal")?.query_map([], |row| row.get(0))?.collect()
}

/// Whether the connection, when it is the last to close, copies the log into the
/// database and removes it.
pub(super) fn checkpoint_on_close(connection: &Connection, checkpoint: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !checkpoint).map(drop)
}

/// Opens a connection to look at an existing database, beside a running server.
pub(super) fn open_reader(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    open_existing(files, READER_FLAGS)
}

/// Opens a connection to change an existing database, beside a running server or
/// without one. Checkpoints stay with the server.
pub(super) fn open_beside_server(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let path = files.database();
    filesystem::refuse_network(files)?;
    let connection =
        open_existing(files, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    startup::verify(&connection, path)?;
    connection
        .pragma_update(None, "wal_autocheckpoint", 0)
        .map_err(|source| open_error(path, "setting up the writing connection", source))?;
    Ok(connection)
}

/// Opens a connection that reads the database of a store in this process.
///
/// It is opened by SQLite alone, which knows of the store's connections. The system
/// takes all locks of a process on a file away when that process closes the file,
/// however it had opened it: a look at its header would leave the store without
/// locks, and the next program that closes the database would remove the log under it.
pub(super) fn open_beside_store(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let path = files.database();
    let fail = |operation| move |source| open_error(path, operation, source);
    let mut connection =
        Connection::open_with_flags(path, READER_FLAGS).map_err(fail("opening the database"))?;
    configure(&mut connection).map_err(fail("setting up a reading connection"))?;
    Ok(connection)
}

fn open_existing(files: &DatabaseFiles, flags: OpenFlags) -> Result<Connection, OpenError> {
    let path = files.database();
    pending_restore::refuse_if_pending(files)?;
    if !path.exists() {
        return Err(OpenError::NoDatabase(path.to_owned()));
    }
    refuse_foreign_file(files)?;
    let fail = |operation| move |source| open_error(path, operation, source);
    let mut connection = Connection::open_with_flags(path, flags).map_err(fail("opening the database"))?;
    // Before anything may be refused: what is refused stays as it was found.
    checkpoint_on_close(&connection, false)
        .and_then(|()| configure(&mut connection))
        .map_err(fail("setting up the connection"))?;
    refuse_foreign_schema(&connection, path)?;
    match is_new(&connection, path)? {
        true => Err(OpenError::Foreign(path.to_owned())),
        false => Ok(connection),
    }
}

/// Whether nothing was ever made in the database. A schema of a version that this
/// program does not know is refused.
pub(super) fn is_new(connection: &Connection, path: &Path) -> Result<bool, OpenError> {
    let fail = |source| open_error(path, "reading the schema version", source);
    match schema_version(connection).map_err(fail)? {
        version if version > newest_schema() => Err(newer(path, version)),
        0 if !has_tables(connection).map_err(fail)? => Ok(true),
        version if version <= 0 => Err(no_version(path, version)),
        _ => Ok(false),
    }
}

/// An empty database in memory with the schema of a version, to compare another with.
pub(super) fn open_in_memory(version: i64) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    MIGRATIONS
        .to_version(&mut connection, usize::try_from(version).unwrap_or(0))
        .expect("the built-in migrations apply: a test runs them");
    Ok(connection)
}

/// How many migrations the database has seen; what damage makes of that is refused.
pub(super) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whether anything was ever made in the database.
fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

pub(super) fn newer(path: &Path, found: i64) -> OpenError {
    OpenError::Newer { path: path.to_owned(), found, known: newest_schema() }
}

/// The application's mark and tables, but a version that no migration leaves.
fn no_version(path: &Path, found: i64) -> OpenError {
    OpenError::Corrupt {
        path: path.to_owned(),
        detail: format!("it has tables, but the schema version {found}"),
    }
}

/// Flags of the connections that only read.
pub(super) const READER_FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Sets what every connection must have, reader or writer.
pub(super) fn configure(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What a large transaction puts aside stays in memory: no temporary file
    // that could fail for want of a descriptor or of a folder to write to.
    connection.pragma_update(None, "temp_store", "memory")?;
    // Views and triggers of a file that somebody gave us may not call functions.
    connection.pragma_update(None, "trusted_schema", false)
}

/// A database that is SQLite, but whose tables are not ours, is left alone.
fn refuse_foreign_schema(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let fail = |source| open_error(path, "reading the schema", source);
    let application_id: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fail)?;
    match application_id != APPLICATION_ID && has_tables(connection).map_err(fail)? {
        true => Err(OpenError::Foreign(path.to_owned())),
        false => Ok(()),
    }
}

fn migration_error(path: &Path, error: MigrationError) -> OpenError {
    match error {
        MigrationError::RusqliteError { err, .. } => sqlite_error(path, "migrating the schema", err),
        MigrationError::MigrationDefinition(_) => newer(path, newest_schema() + 1),
        other => OpenError::Corrupt { path: path.to_owned(), detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A migration that has landed is on somebody's disk: it never changes. A
    /// new one gets its line here.
    const LANDED: &[(&str, &str)] =
        &[("1-initial", "f73a92545f351508a62009a20d033d6bb1f306a418335f4ebb6dd91ffe5f8859")];

    #[test]
    fn landed_migrations_do_not_change() {
        let mut found: Vec<(String, String)> = MIGRATIONS_DIR
            .dirs()
            .map(|dir| {
                let name = dir.path().display().to_string();
                let sql =
                    MIGRATIONS_DIR.get_file(format!("{name}/up.sql")).expect("every migration has an up.sql");
                let mut hash = String::new();
                for byte in Sha256::digest(sql.contents()) {
                    write!(hash, "{byte:02x}").unwrap();
                }
                (name, hash)
            })
            .collect();
        found.sort();
        let landed: Vec<(String, String)> =
            LANDED.iter().map(|(name, hash)| ((*name).into(), (*hash).into())).collect();
        assert_eq!(found, landed);
    }

    #[test]
    fn migrations_apply_to_an_empty_database() {
        MIGRATIONS.validate().unwrap();
        assert_eq!(newest_schema(), LANDED.len() as i64);
    }

    #[test]
    fn the_writing_connection_has_every_setting() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&DatabaseFiles::at(folder.path().join("a.db"))).unwrap();
        let pragma = |name: &str| -> String {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map(|value| format!("{value:?}"))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), r#"Text("wal")"#);
        assert_eq!(pragma("synchronous"), "Integer(2)", "FULL");
        assert_eq!(pragma("foreign_keys"), "Integer(1)");
        assert_eq!(pragma("trusted_schema"), "Integer(0)");
        assert_eq!(pragma("temp_store"), "Integer(2)", "MEMORY");
        assert_eq!(pragma("wal_autocheckpoint"), "Integer(0)");
        assert_eq!(pragma("journal_size_limit"), "Integer(67108864)");
        assert_eq!(pragma("busy_timeout"), "Integer(5000)");
        assert_eq!(pragma("application_id"), format!("Integer({APPLICATION_ID})"));
        assert_eq!(pragma("mmap_size"), "Integer(0)", "a torn page must not become a signal");
    }
}
