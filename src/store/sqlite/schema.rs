//! The schema: its migrations, its version, and the comparison of a database's schema
//! with the one that the migrations create.
//!
//! Without its triggers, say, a database accepts changes that it must refuse; with
//! another view, a draw happens at the wrong moment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use include_dir::{Dir, include_dir};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use rusqlite_migration::{Error as MigrationError, Migrations};

use super::error::{OpenError, open_error, sqlite_error};
use crate::event;
use crate::failpoint::Failpoint;

/// `PRAGMA application_id` of our databases: "sort" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x736f_7274;

/// How often a migration that lasts is logged.
const MIGRATION_LOGGED_EVERY: Duration = Duration::from_secs(5);
/// Instructions of SQLite's machine between two looks at the clock: some microseconds.
const MIGRATION_STEPS: i32 = 100;

static MIGRATIONS_DIR: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/migrations");
static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| {
    Migrations::from_directory(&MIGRATIONS_DIR)
        .expect("the built-in migrations are well-formed: a test reads them")
});

/// Returns the newest schema version that this program knows.
pub(super) fn newest_version() -> i64 {
    MIGRATIONS_DIR.dirs().count() as i64
}

/// Brings the schema up to date, in one transaction for each migration. Says so in the
/// log if there is something to bring up to date, and goes on saying it while that lasts.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let fail = |source| sqlite_error(path, "migrating the schema", source);
    let (from, to) = (version(connection).map_err(fail)?, newest_version());
    if from == 0 || from == to {
        return MIGRATIONS.to_latest(connection).map_err(|error| migration_error(path, error));
    }
    let began = Instant::now();
    event!(Info, "migrate", InProgress, from = from, to = to);
    let mut last_line = began;
    let progress = move || {
        Failpoint::InsideMigration.pass();
        if last_line.elapsed() >= MIGRATION_LOGGED_EVERY {
            last_line = Instant::now();
            event!(Info, "migrate", InProgress, from = from, to = to, seconds = began.elapsed().as_secs());
        }
        const GO_ON: bool = false;
        GO_ON
    };
    connection.progress_handler(MIGRATION_STEPS, Some(progress)).map_err(fail)?;
    let migrated = MIGRATIONS.to_latest(connection).map_err(|error| migration_error(path, error));
    connection.progress_handler(0, None::<fn() -> bool>).map_err(fail)?;
    migrated?;
    event!(Info, "migrate", Success, from = from, to = to, seconds = began.elapsed().as_secs());
    Ok(())
}

/// Creates an empty database in memory with the schema of a version, to compare
/// another with.
pub(super) fn create_in_memory(version: i64) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    MIGRATIONS
        .to_version(&mut connection, usize::try_from(version).unwrap_or(0))
        .expect("the built-in migrations apply: a test runs them");
    Ok(connection)
}

/// Refuses a SQLite database whose tables are not ours.
pub(super) fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let fail = |source| open_error(path, "reading the schema", source);
    let application_id: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fail)?;
    match application_id != APPLICATION_ID && has_tables(connection).map_err(fail)? {
        true => Err(OpenError::Foreign(path.to_owned())),
        false => Ok(()),
    }
}

/// Returns whether nothing was ever created in the database. Refuses a schema version
/// that this program does not know.
pub(super) fn is_new(connection: &Connection, path: &Path) -> Result<bool, OpenError> {
    let fail = |source| open_error(path, "reading the schema version", source);
    match version(connection).map_err(fail)? {
        version if version > newest_version() => Err(newer(path, version)),
        0 if !has_tables(connection).map_err(fail)? => Ok(true),
        version if version <= 0 => Err(no_version(path, version)),
        _ => Ok(false),
    }
}

/// Refuses a database with an older schema version, which lacks what this program reads.
pub(super) fn refuse_older(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found =
        version(connection).map_err(|source| open_error(path, "reading the schema version", source))?;
    match found < newest_version() {
        true => Err(OpenError::Older { path: path.to_owned(), found, known: newest_version() }),
        false => Ok(()),
    }
}

/// Returns whether the database has sets of agencies and totals, which came with the second
/// migration.
pub(super) fn has_sets_and_totals(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(version(connection)? >= 2)
}

/// Returns whether the database has tokens, which came with the third migration.
pub(super) fn has_tokens(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(version(connection)? >= 3)
}

/// Returns the error of a database with a newer schema version.
pub(super) fn newer(path: &Path, found: i64) -> OpenError {
    OpenError::Newer { path: path.to_owned(), found, known: newest_version() }
}

/// A part of the schema that is not as the migrations create it.
#[derive(Debug)]
pub(super) struct Difference {
    /// Its type and its name.
    what: String,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Missing,
    Changed,
    NotOurs,
}

impl Difference {
    /// Returns whether a server could store or draw wrongly because of it. A table, a view
    /// or an index that a person added for their own use must not keep a lottery from
    /// starting again after a power cut.
    pub(super) fn is_harmful(&self) -> bool {
        self.how != How::NotOurs || self.is_a("trigger")
    }

    /// Returns whether reads of our tables may fail or give wrong results.
    pub(super) fn misleads(&self) -> bool {
        self.how != How::NotOurs && (self.is_a("table") || self.is_a("view"))
    }

    fn is_a(&self, kind: &str) -> bool {
        self.what.split(' ').next() == Some(kind)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match self.how {
            How::Missing => write!(f, "the {what} is missing"),
            How::Changed => write!(f, "the {what} was changed"),
            How::NotOurs => write!(f, "the {what} is not one of ours"),
        }
    }
}

/// Compares the schema with what the migrations up to the database's version create.
pub(super) fn differences(connection: &Connection) -> rusqlite::Result<Vec<Difference>> {
    let expected = read(&create_in_memory(version(connection)?)?)?;
    let mut found = read(connection)?;
    let mut differences = Vec::new();
    for (what, definition) in expected {
        match found.remove(&what) {
            None => differences.push(Difference { what, how: How::Missing }),
            Some(other) if other != definition => differences.push(Difference { what, how: How::Changed }),
            Some(_) => {}
        }
    }
    differences.extend(found.into_keys().map(|what| Difference { what, how: How::NotOurs }));
    Ok(differences)
}

/// Returns how many migrations the database has seen; damage may have changed it.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Returns whether anything was ever created in the database.
fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// The error of a database with our mark and tables, but a version that no migration
/// leaves.
fn no_version(path: &Path, found: i64) -> OpenError {
    OpenError::Corrupt {
        path: path.to_owned(),
        detail: format!("it has tables, but its schema version is {found}"),
    }
}

fn migration_error(path: &Path, error: MigrationError) -> OpenError {
    match error {
        MigrationError::RusqliteError { err, .. } => sqlite_error(path, "migrating the schema", err),
        MigrationError::MigrationDefinition(_) => newer(path, newest_version() + 1),
        other => OpenError::Corrupt { path: path.to_owned(), detail: other.to_string() },
    }
}

/// Reads the schema by type and name: the table that each part belongs to, and its SQL.
/// The tables that `ANALYZE` creates are left out, and the two that Litestream creates in
/// a database that it replicates: one it writes to when the WAL is empty, one it locks.
fn read(connection: &Connection) -> rusqlite::Result<BTreeMap<String, [String; 2]>> {
    connection
        .prepare(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema
              WHERE name NOT LIKE 'sqlite_stat%'
                AND NOT (type = 'table' AND name IN ('_litestream_seq', '_litestream_lock'))",
        )?
        .query_map([], |row| {
            let text = |column| text(row, column);
            Ok((format!("{} {}", text(0)?, text(1)?), [text(2)?, text(3)?]))
        })?
        .collect()
}

/// Returns a value as text. A value that is not text, as damage leaves it, becomes one
/// that no schema of ours has.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use sorteo_protocol::text::hexadecimal;

    use super::*;

    /// A migration that was released is on users' disks: it never changes. A
    /// new one gets its line here.
    const LANDED: &[(&str, &str)] = &[
        ("1-initial", "f73a92545f351508a62009a20d033d6bb1f306a418335f4ebb6dd91ffe5f8859"),
        ("2-totals", "1eb213d68ebb3995004e2e5e0df96f2f54700f600433005ad5e0a4caacc29844"),
        ("3-identity", "6e7ce8668a61647f0a9ebc4fd62aa3f5fe5f9fdc241f6a1f1b60764b23ff2e9c"),
    ];

    #[test]
    fn landed_migrations_do_not_change() {
        let mut found: Vec<(String, String)> = MIGRATIONS_DIR
            .dirs()
            .map(|dir| {
                let name = dir.path().display().to_string();
                let sql =
                    MIGRATIONS_DIR.get_file(format!("{name}/up.sql")).expect("every migration has an up.sql");
                (name, hexadecimal(&Sha256::digest(sql.contents())))
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
        assert_eq!(newest_version(), LANDED.len() as i64);
    }
}
