//! The server over real sockets: what a peer sends and what comes back, as literal
//! bytes. What is logged meanwhile is tested elsewhere.

mod conversation;
mod dialects;
mod half_closed;
mod limits;
mod long_answers;
mod order;
mod stopping;
mod store_errors;
mod tls;
mod waiting;

use std::time::Duration;

use crate::test_server::{Client, TestServer, frame, frames};

/// Short enough to be waited for, where a test is about a time running out.
const SHORT: Duration = Duration::from_millis(200);
const ACK: &[u8] = b"\0\0\0\x07ACK|OK\n";
const ACK_BATCH_1: &[u8] = b"\0\0\0\x0fACK_BATCH|OK|1\n";
const ACK_BATCH_2: &[u8] = b"\0\0\0\x0fACK_BATCH|OK|2\n";
const ACK_DONE: &[u8] = b"\0\0\0\x0cACK_DONE|OK\n";
const NOT_READY: &[u8] = b"\0\0\0\x16WINNERS|ERR|not_ready\n";
const NO_WINNERS: &[u8] = b"\0\0\0\x0cWINNERS|OK|\n";
const NO_WINNERS_PAGE: &[u8] = b"\0\0\0\x0dWINNERS|OK||\n";
const FRESH_STATUS: &[u8] = b"\0\0\0\x17STATUS|OK|1|open|0|2|0\n";
const COUNTED_ACK: &[u8] = b"3\nACK";
const COUNTED_NOT_READY: &[u8] = b"25\nERROR_LOTTERY_HASNT_ENDED";

/// A batch of `documents` that all win.
fn winning_batch(agency: u32, documents: &[&str]) -> Vec<u8> {
    let mut lines = vec![format!("BATCH|{agency}|{}", documents.len())];
    lines.extend(documents.iter().map(|document| format!("Ana|Paz|{document}|1999-03-17|7574")));
    frames(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

fn done(agency: u32) -> Vec<u8> {
    frame(&format!("DONE|{agency}"))
}

/// A batch's header and less than its rows.
fn half_batch() -> Vec<u8> {
    frames(&["BATCH|1|2", "Ana|Paz|1|1999-03-17|7574"])
}

const SECOND_HALF: &str = "Ana|Paz|2|1999-03-17|7574";

/// Stores winning bets without their batches, which a draw does not look at.
fn store_long_winners(server: &TestServer, agency: u32, bets: u32) {
    let sql = "WITH RECURSIVE counted (document) AS
                 (SELECT 1 UNION ALL SELECT document + 1 FROM counted WHERE document < ?2)
               INSERT INTO bets (draw_id, agency, first_name, last_name, document, birthdate, number)
               SELECT 1, ?1, ?3, ?3, document, '1999-03-17', 7574 FROM counted";
    let name = "n".repeat(120);
    let stored = server.database().execute(sql, rusqlite::params![agency, bets, name]).unwrap();
    assert_eq!(stored, bets as usize);
}

/// A client whose `WAIT_WINNERS` the server has begun: the status before it is
/// answered only after all that came with it was read.
fn waiter(server: &TestServer, agency: u32, status: &[u8]) -> Client {
    let mut client = server.connect();
    let wait = format!("WAIT_WINNERS|{agency}|60000");
    client.ask(&frames(&["STATUS", &wait]), status);
    client
}
