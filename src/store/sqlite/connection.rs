//! The flags and pragmas of connections.
//!
//! `synchronous` and most other settings belong to the connection, not to the file: a
//! connection that misses them is silently weaker. So every connection passes through
//! [`configure`], and a test reads the settings back.

use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Flags of the connections that only read.
pub(super) const READER_FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Flags of the connections that change an existing database.
pub(super) const WRITER_FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Flags of the connection that also creates a database.
pub(super) const CREATOR_FLAGS: OpenFlags = WRITER_FLAGS.union(OpenFlags::SQLITE_OPEN_CREATE);

/// How long a connection waits for another process's lock. Within one server nothing
/// contends: there is one writer, and readers never wait.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The WAL's file is cut back to this size when the WAL starts over.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 64 << 20;

/// Distinct statements that a connection keeps prepared; we have about twenty.
const STATEMENTS_KEPT: usize = 64;

/// Sets what every connection must have, reader or writer.
pub(super) fn configure(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What a large transaction sets aside stays in memory: no temporary file that
    // could fail for want of a descriptor or of a folder to write to.
    connection.pragma_update(None, "temp_store", "memory")?;
    // Views and triggers of a file from elsewhere may not call functions.
    connection.pragma_update(None, "trusted_schema", false)
}

/// Switches the database to a WAL. Returns the journal modes that SQLite reports.
///
/// All rows are read, though there is one: the change is committed when the statement
/// ends, and only a statement that runs to its end reports a commit that failed.
pub(super) fn use_wal(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare("PRAGMA journal_mode = wal")?.query_map([], |row| row.get(0))?.collect()
}

/// Leaves checkpoints to the writer, which runs them after its replies, not inside a
/// commit.
pub(super) fn disable_auto_checkpoints(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Limits the file of a WAL that has started over.
pub(super) fn limit_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES)
}

/// Sets whether the connection, when it is the last to close, copies the WAL into the
/// database and removes it.
pub(super) fn checkpoint_on_close(connection: &Connection, checkpoint: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !checkpoint).map(drop)
}
