//! The ways of opening a database: to serve it, to read it, to change it beside a server,
//! and, inside the server's process, to read it and to copy its WAL.
//!
//! Each refuses what is not a database of ours before anything is changed.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{self, Path};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::Access;

use super::connection::{
    CREATOR_FLAGS, READER_FLAGS, WRITER_FLAGS, checkpoint_on_close, configure, disable_auto_checkpoints,
    limit_wal, use_wal,
};
use super::error::{OpenError, open_error};
use super::files::DatabaseFiles;
use super::header::refuse_foreign_file;
use super::{filesystem, identity, pending_restore, schema, verify};
use crate::atomic_file::sync_folder_of;

/// The first SQLite without the WAL-reset race, as `sqlite3_libversion_number`.
const SAFE_SQLITE: i32 = 3_051_003;

/// Refuses a SQLite that is known to lose commits.
pub(super) fn require_safe_sqlite() -> Result<(), OpenError> {
    match rusqlite::version_number() {
        safe if safe >= SAFE_SQLITE => Ok(()),
        _ => Err(OpenError::UnsafeSqlite(rusqlite::version().to_owned())),
    }
}

/// Opens the server's one writing connection, verifies what can be verified in
/// milliseconds, and brings the schema up to date. Creates the database if need be.
///
/// Until [`checkpoint_on_close`] the connection leaves a WAL that it found as it is,
/// also when it closes.
///
/// This happens before any other connection is opened: connections that open a new
/// database at the same time interfere with each other's `journal_mode`.
pub(super) fn open_writer(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let path = files.database();
    let fail = |operation| move |source| open_error(path, operation, source);
    let wal_found = files.has_wal();
    let mut connection =
        Connection::open_with_flags(path, CREATOR_FLAGS).map_err(fail("opening the database"))?;
    // Closing copies the WAL into the database. One that is refused stays as it is.
    checkpoint_on_close(&connection, !wal_found)
        .and_then(|()| configure(&mut connection))
        .map_err(fail("setting up the writing connection"))?;
    schema::refuse_foreign(&connection, path)?;
    verify::verify(&connection, path)?;
    let modes = use_wal(&connection).map_err(fail("switching to a write-ahead log"))?;
    if modes != ["wal"] {
        return Err(fail("switching to a write-ahead log")(rusqlite::Error::InvalidQuery));
    }
    disable_auto_checkpoints(&connection)
        .and_then(|()| limit_wal(&connection))
        .map_err(fail("setting up the writing connection"))?;
    schema::migrate(&mut connection, path)?;
    sync_folder(files)?;
    Ok(connection)
}

/// Opens a connection that reads an existing database, beside a running server or
/// without one.
pub(super) fn open_reader(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let connection = open_source(files)?;
    schema::refuse_older(&connection, files.database())?;
    Ok(connection)
}

/// Opens a connection that copies an existing database, of this schema version or of an
/// older one.
pub(super) fn open_source(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let flags = match can_only_be_read(files)? {
        true => READER_FLAGS | OpenFlags::SQLITE_OPEN_URI,
        false => READER_FLAGS,
    };
    open_existing(files, flags)
}

/// Returns whether SQLite must be told that nobody changes the file: it is on read-only
/// media, and so is its folder, where SQLite cannot create the WAL and the index of that.
///
/// If both are there, SQLite reads them. While a server runs they are, and its database is
/// never taken for one that nobody changes.
fn can_only_be_read(files: &DatabaseFiles) -> Result<bool, OpenError> {
    let writable = rustix::fs::access(files.folder(), Access::WRITE_OK).is_ok();
    if writable || files.has_journal() || files.wal_index().exists() && files.wal().exists() {
        return Ok(false);
    }
    match files.has_wal() {
        true => Err(OpenError::ReadOnlyWal { path: files.database().to_owned(), wal: files.wal() }),
        false => Ok(true),
    }
}

/// Opens a connection that changes an existing database, beside a running server or
/// without one. Checkpoints stay with the server.
pub(super) fn open_beside_server(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let path = files.database();
    filesystem::refuse_network(files)?;
    identity::refuse_other_names(files)?;
    let connection = open_existing(files, WRITER_FLAGS)?;
    schema::refuse_older(&connection, path)?;
    verify::verify(&connection, path)?;
    disable_auto_checkpoints(&connection)
        .map_err(|source| open_error(path, "setting up the writing connection", source))?;
    Ok(connection)
}

/// Opens the connection that copies the WAL into the database beside the writer's. SQLite
/// alone opens the file here, for the reason given at [`open_beside_store`].
pub(super) fn open_beside_writer(files: &DatabaseFiles) -> Result<Connection, OpenError> {
    let path = files.database();
    let fail = |operation| move |source| open_error(path, operation, source);
    let mut connection =
        Connection::open_with_flags(path, WRITER_FLAGS).map_err(fail("opening the database"))?;
    configure(&mut connection)
        .and_then(|()| disable_auto_checkpoints(&connection))
        .and_then(|()| checkpoint_on_close(&connection, false))
        .map_err(fail("setting up the copying connection"))?;
    Ok(connection)
}

/// Opens a connection that reads the database of a store in this process.
///
/// SQLite alone opens the file, because it knows of the store's connections. When a
/// process closes a file, the system releases all locks of that process on it, however
/// it was opened: reading its header would leave the store without locks, and the next
/// program that closes the database would remove the WAL under it.
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
    let name = match flags.contains(OpenFlags::SQLITE_OPEN_URI) {
        true => immutable_uri(path).into(),
        false => path.to_owned(),
    };
    let mut connection = Connection::open_with_flags(name, flags).map_err(fail("opening the database"))?;
    // Before anything may be refused: what is refused stays as it was found.
    checkpoint_on_close(&connection, false)
        .and_then(|()| configure(&mut connection))
        .map_err(fail("setting up the connection"))?;
    schema::refuse_foreign(&connection, path)?;
    match schema::is_new(&connection, path)? {
        true => Err(OpenError::Foreign(path.to_owned())),
        false => Ok(connection),
    }
}

/// Returns the name by which SQLite opens a file that nobody changes.
fn immutable_uri(path: &Path) -> String {
    let absolute = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let encode = |byte: &u8| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    let encoded: String = absolute.as_os_str().as_bytes().iter().map(encode).collect();
    format!("file://{encoded}?immutable=1")
}

/// Syncs the folder once its files are there: SQLite syncs them, but does not fail when
/// the folder's own sync does, or when no file descriptor is left for it. Not only
/// after creating the database: the process that created it may have died, or failed,
/// before this.
fn sync_folder(files: &DatabaseFiles) -> Result<(), OpenError> {
    sync_folder_of(files.database()).map_err(|source| OpenError::NotWritable { path: files.folder(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema::APPLICATION_ID;

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
