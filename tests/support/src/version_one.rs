//! Databases as the program wrote them with its first schema version.

use std::path::Path;

use rusqlite::{Connection, params};
use sorteo_protocol::Bets;

const MIGRATION: &str = include_str!("../../../migrations/1-initial/up.sql");
const TIME: &str = "2026-11-21T20:31:05.000Z";

/// Creates a database with one open draw, in which nothing happened yet.
pub fn create_empty(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.execute_batch(MIGRATION).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    open_draw(&connection, None);
    connection.close().unwrap();
}

/// Creates a database with a draw of 3 agencies that is drawn, of which agency 3 had no
/// bets, and one of 2 agencies that is open, in which agency 1 is done and agency 2 is not.
/// Each agency with bets has three in two batches, the first of which wins: `A1` of agency
/// 1, `A2` of agency 2.
pub fn create(path: &Path) {
    create_empty(path);
    let connection = Connection::open(path).unwrap();
    connection.execute("UPDATE draws SET expected_agencies = 3", []).unwrap();
    record_terms(&connection, 1, 3);
    for agency in [1, 2] {
        store(&connection, 1, agency);
        close(&connection, 1, agency, 3);
    }
    close(&connection, 1, 3, 0);
    connection.execute("UPDATE draws SET drawn_at = $1, winners = 2", [TIME]).unwrap();
    connection
        .execute("INSERT INTO winners SELECT draw_id, agency, id FROM bets WHERE number = 7574", [])
        .unwrap();
    open_draw(&connection, Some(2));
    record_terms(&connection, 2, 2);
    store(&connection, 2, 1);
    close(&connection, 2, 1, 3);
    store(&connection, 2, 2);
    connection.close().unwrap();
}

fn open_draw(connection: &Connection, agencies: Option<u32>) {
    connection
        .execute(
            "INSERT INTO draws (winning_number, expected_agencies, opened_at) VALUES (7574, $1, $2)",
            params![agencies, TIME],
        )
        .unwrap();
    if agencies.is_none() {
        record(connection, 1, "serve", "expected_agencies inferred");
        record(connection, 1, "serve", "winning_number set to 7574");
    }
}

fn record_terms(connection: &Connection, draw: i64, agencies: u32) {
    record(connection, draw, "open-draw", &format!("expected_agencies set to {agencies}"));
    record(connection, draw, "open-draw", "winning_number set to 7574");
}

fn record(connection: &Connection, draw: i64, action: &str, detail: &str) {
    connection
        .execute(
            "INSERT INTO audit (at, action, draw_id, detail) VALUES ($1, $2, $3, $4)",
            params![TIME, action, draw, detail],
        )
        .unwrap();
}

fn store(connection: &Connection, draw: i64, agency: u32) {
    let document = format!("A{agency}");
    for (first_row, rows) in [(0, vec![(document.as_str(), 7574), ("B", 1)]), (2, vec![("C", 2)])] {
        let mut bets = Bets::default();
        for (document, number) in rows {
            bets.push(["Ñandú", "Paz", document, "1999-03-17", &number.to_string()]).unwrap();
        }
        for bet in bets.iter() {
            connection
                .execute(
                    "INSERT INTO bets (draw_id, agency, first_name, last_name, document, birthdate, number)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    params![
                        draw,
                        agency,
                        bet.first_name,
                        bet.last_name,
                        bet.document,
                        bet.birthdate,
                        bet.number
                    ],
                )
                .unwrap();
        }
        connection
            .execute(
                "INSERT INTO batches (draw_id, agency, upload, first_row, bet_count, digest, stored_at)
                 VALUES ($1, $2, 'u', $3, $4, $5, $6)",
                params![draw, agency, first_row, bets.len(), bets.digest().0, TIME],
            )
            .unwrap();
        connection
            .execute("UPDATE draws SET bets = bets + $1 WHERE id = $2", params![bets.len(), draw])
            .unwrap();
    }
}

fn close(connection: &Connection, draw: i64, agency: u32, bets: u32) {
    connection
        .execute(
            r#"INSERT INTO done_agencies (draw_id, agency, bet_count, done_at, "by") VALUES ($1, $2, $3, $4, 'agency')"#,
            params![draw, agency, bets, TIME],
        )
        .unwrap();
}
