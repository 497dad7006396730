//! What a database consists of, held against what the migrations make. Without
//! its triggers, say, a database takes changes that it must not; with another
//! view, a draw is made at the wrong moment.

use std::collections::BTreeMap;
use std::fmt;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::connection;

/// Something that is not as the migrations make it.
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
    /// Whether a server could store or draw wrongly because of it. A table, a
    /// view or an index that somebody added for himself keeps no lottery from
    /// coming back after a power cut.
    pub(super) fn is_harmful(&self) -> bool {
        self.how != How::NotOurs || self.is_a("trigger")
    }

    /// Whether questions to the tables may fail or be answered wrongly.
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

/// Compares with what the migrations up to the database's own version make.
pub(super) fn differences(connection: &Connection) -> rusqlite::Result<Vec<Difference>> {
    let made = read(&connection::open_in_memory(connection::schema_version(connection)?)?)?;
    let mut found = read(connection)?;
    let mut differences = Vec::new();
    for (what, definition) in made {
        match found.remove(&what) {
            None => differences.push(Difference { what, how: How::Missing }),
            Some(other) if other != definition => differences.push(Difference { what, how: How::Changed }),
            Some(_) => {}
        }
    }
    differences.extend(found.into_keys().map(|what| Difference { what, how: How::NotOurs }));
    Ok(differences)
}

/// Everything by type and name: the table it belongs to, and its SQL. What
/// `ANALYZE` makes is left out, and the two tables that Litestream makes in what it
/// replicates: one it writes to when the log is empty, one it locks.
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

/// The value as text. What is none, as damage leaves it, looks like none of ours.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    })
}
