//! Databases as the program wrote them with its second schema version: with totals and with
//! sets of agencies, but without tokens.

use std::path::Path;

use rusqlite::Connection;

use crate::version_one;

const MIGRATION: &str = include_str!("../../../migrations/2-totals/up.sql");

/// Creates the database of [`version_one::create`] in the next version, whose second draw expects
/// agencies 1 and 7 alone: so agency 2, which has bets in it, is not waited for.
pub fn create(path: &Path) {
    version_one::create(path);
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    connection.execute_batch(MIGRATION).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    connection
        .execute_batch(
            "INSERT INTO expected_ranges VALUES (2, 1, 1), (2, 7, 7);
             UPDATE draws SET done = (SELECT done FROM expected_done WHERE draw = 2) WHERE id = 2;
             INSERT INTO audit (at, action, draw_id, detail)
             VALUES ('2026-11-21T20:31:05.000Z', 'set-draw', 2, 'expected_agencies set to 1,7');",
        )
        .unwrap();
    connection.close().unwrap();
}
