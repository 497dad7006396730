//! The server over real sockets: what a peer sends and what comes back, as
//! literal bytes. What is logged meanwhile is tested elsewhere.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use sorteo::server::ServeError;
use sorteo::store::sqlite::SqliteStore;
use sorteo::store::{Appended, Closed, DrawStatus, Store, StoreError, Ticket, WinnersSize, WinningBet};
use sorteo_protocol::{AgencyId, Batch, DrawId, UploadId};

use crate::test_server::{
    Client, DEADLINE, Setup, TestServer, counted, frame, frames, long_winning_lines, raw_frame, until,
};

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

// ---- Whole draws --------------------------------------------------------------

/// One agency as a seed's client plays it: every step is a request and its
/// answer, on one connection or on one for each.
struct Agency<'a> {
    server: &'a TestServer,
    kept: Option<Client>,
}

impl<'a> Agency<'a> {
    fn new(server: &'a TestServer, keeps_its_connection: bool) -> Self {
        Self { server, kept: keeps_its_connection.then(|| server.connect()) }
    }

    fn ask(&mut self, request: &[u8], answer: &[u8]) {
        match &mut self.kept {
            Some(client) => client.ask(request, answer),
            None => self.server.ask_once(request, answer),
        }
    }
}

#[test]
fn agencies_of_both_dialects_complete_a_draw_together() {
    // Told or inferred; a connection kept or one for each message.
    for (agencies, kept) in [(Some(4), false), (Some(4), true), (None, false), (None, true)] {
        let server = Setup { agencies, ..Setup::default() }.start();
        let mut one = Agency::new(&server, kept);
        let mut two = Agency::new(&server, kept);
        let mut three = Agency::new(&server, kept);
        let mut four = Agency::new(&server, kept);
        // Bets: agencies 1 and 2 are framed, 3 and 4 counted.
        one.ask(&winning_batch(1, &["30904465", "007"]), ACK_BATCH_2);
        one.ask(&frame("BET|1|Eva|Sol|31|1999-03-17|1\n"), ACK);
        two.ask(
            &frames(&["BATCH|2|2", "BET|2|Eva|Sol|32|1999-03-17|7574\n", "BET|2|Eva|Sol|33|1999-03-17|1\n"]),
            ACK_BATCH_2,
        );
        let payload =
            "Zoë|Paz|003|1999-03-17|7574|3\nEva|Sol|34|1999-03-17|2|3\nLeo|Luz|35|2000-02-29|7574|3";
        three.ask(&counted(payload), COUNTED_ACK);
        four.ask(&counted("Eva|Sol|36|1999-03-17|3|4\n"), COUNTED_ACK);
        // Nobody has won yet.
        one.ask(&frame("GET_WINNERS|1"), NOT_READY);
        one.ask(&done(1), ACK_DONE);
        three.ask(&counted("GET_WINNERS|3"), COUNTED_NOT_READY);
        two.ask(&done(2), ACK_DONE);
        two.ask(&frame("GET_WINNERS|2"), NOT_READY);
        three.ask(&counted("GET_WINNERS|3"), COUNTED_NOT_READY);
        assert_eq!(server.draws_made(), 0);
        // The last agency's question makes the draw, and is answered: no winners.
        four.ask(&counted("GET_WINNERS|4"), b"0\n");
        assert_eq!(server.draws_made(), 1);
        for _ in 0..2 {
            one.ask(&frame("GET_WINNERS|1"), b"\0\0\0\x18WINNERS|OK|30904465,007\n");
            two.ask(&frame("GET_WINNERS|2"), b"\0\0\0\x0eWINNERS|OK|32\n");
            three.ask(
                &counted("GET_WINNERS|3"),
                "59\nZoë|Paz|003|1999-03-17|7574|3\nLeo|Luz|35|2000-02-29|7574|3".as_bytes(),
            );
            four.ask(&counted("GET_WINNERS|4"), b"0\n");
        }
        assert_eq!(server.draws_made(), 1);
        assert_eq!(server.stored_bets(), 9);
    }
}

// ---- The dialect and its tables -----------------------------------------------

#[test]
fn a_first_byte_of_no_dialect_is_closed_without_an_answer() {
    let server = Setup::agencies(2).start();
    for opening in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"\x16",
        b"GET / HTTP/1.1\r\n\r\n",
        b"G",
        b"\x01\0\0\x06STATUS",
        b"/6\nSTATUS",
        b":6\nSTATUS",
        b"-1\n",
        b"\n",
        b" 3\n",
        b"BET|1|Ana|Paz|1|1999-03-17|7574\n",
        b"\xff",
    ] {
        let mut client = server.connect();
        client.send(opening);
        client.expect_end();
    }
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
    assert_eq!(server.stored_bets(), 0);
}

/// Framed requests and their answers, in order, on one connection, in a draw of
/// three agencies. Every one of them keeps the connection.
fn framed_table() -> Vec<(Vec<u8>, &'static [u8])> {
    let row = "Ana|Paz|007|1999-03-17|7574";
    let loses = "Eva|Sol|8|2000-02-29|7";
    let bad_date = "Ana|Paz|007|1999-13-17|7574";
    let one = |line: &str| frame(line);
    vec![
        // A single bet.
        (one("BET|1|Ana|Paz|007|1999-03-17|7574"), ACK),
        (one("BET|01|Eva|Sol|8|2000-02-29|7\r\n"), ACK),
        (one("BET|1|Ana|Paz|007|1999-13-17|7574"), b"\0\0\0\x16ACK|ERR|bad_birthdate\n"),
        (one("BET|x|Ana|Paz|007|1999-03-17|7574"), b"\0\0\0\x13ACK|ERR|bad_agency\n"),
        (one("BET|1|Ana|Paz|007|1999-03-17"), b"\0\0\0\x13ACK|ERR|bad_fields\n"),
        (one("BET|1|Ana|Paz|007|1999-03-17|4294967296"), b"\0\0\0\x13ACK|ERR|bad_number\n"),
        (one("BET|1||Paz|007|1999-03-17|7"), b"\0\0\0\x17ACK|ERR|bad_first_name\n"),
        (raw_frame(b"BET|1|\xff|Paz|007|1999-03-17|7"), b"\0\0\0\x11ACK|ERR|bad_utf8\n"),
        // A batch.
        (frames(&["BATCH|1|2", row, loses]), ACK_BATCH_2),
        (
            frames(&["BATCH|1|2\n", "BET|1|Ana|Paz|9|1999-03-17|7574\n", "BET|01|Eva|Sol|8|2000-02-29|7\n"]),
            ACK_BATCH_2,
        ),
        (one("BATCH|1|0"), b"\0\0\0\x0fACK_BATCH|OK|0\n"),
        (
            frames(&["BATCH|1|3", row, bad_date, "nonsense"]),
            b"\0\0\0\x25ACK_BATCH|ERR|3|row 2: bad_birthdate\n",
        ),
        (frames(&["BATCH|1|2", row, "STATUS"]), b"\0\0\0\x22ACK_BATCH|ERR|2|row 2: bad_fields\n"),
        (
            frames(&["BATCH|1|1", "BET|2|Ana|Paz|007|1999-03-17|7574"]),
            b"\0\0\0\x27ACK_BATCH|ERR|1|row 1: agency_mismatch\n",
        ),
        (frames(&["BATCH|x|2", row, row]), b"\0\0\0\x1bACK_BATCH|ERR|2|bad_agency\n"),
        (one("BATCH|1"), b"\0\0\0\x1bACK_BATCH|ERR|0|bad_header\n"),
        (one("BATCH"), b"\0\0\0\x1bACK_BATCH|ERR|0|bad_header\n"),
        (one("BATCH|1|1|u"), b"\0\0\0\x1bACK_BATCH|ERR|0|bad_header\n"),
        (one("BATCH|1|-5"), b"\0\0\0\x1aACK_BATCH|ERR|0|bad_count\n"),
        (one("BATCH|1|"), b"\0\0\0\x1aACK_BATCH|ERR|0|bad_count\n"),
        // A batch that is stored exactly once.
        (frames(&["BATCH|2|1|u.1|0", row]), ACK_BATCH_1),
        (frames(&["BATCH|2|1|u.1|0", row]), ACK_BATCH_1),
        (frames(&["BATCH|2|1|u.1|0", loses]), b"\0\0\0\x19ACK_BATCH|ERR|1|conflict\n"),
        (frames(&["BATCH|2|1|u.1|5", loses]), b"\0\0\0\x16ACK_BATCH|ERR|1|gap|1\n"),
        (frames(&["BATCH|2|1|u/1|0", row]), b"\0\0\0\x1bACK_BATCH|ERR|1|bad_upload\n"),
        (frames(&["BATCH|2|1|u.1|x", row]), b"\0\0\0\x1eACK_BATCH|ERR|1|bad_first_row\n"),
        (one("RESUME|2|u.1"), b"\0\0\0\x0cRESUME|OK|1\n"),
        (one("RESUME|2|v"), b"\0\0\0\x0cRESUME|OK|0\n"),
        (one("RESUME|1|u.1"), b"\0\0\0\x0cRESUME|OK|0\n"),
        (one("RESUME|2"), b"\0\0\0\x16RESUME|ERR|bad_header\n"),
        (one("RESUME|2|u/1"), b"\0\0\0\x16RESUME|ERR|bad_upload\n"),
        // Before the draw.
        (one("GET_WINNERS|1"), NOT_READY),
        (one("GET_WINNERS|1|0"), NOT_READY),
        (one("GET_WINNERS|1|0|1"), NOT_READY),
        (one("WAIT_WINNERS|1|0"), NOT_READY),
        (one("WAIT_WINNERS|1|20"), NOT_READY),
        (one("WAIT_WINNERS|1|60001"), b"\0\0\0\x15WINNERS|ERR|bad_wait\n"),
        (one("WAIT_WINNERS|1"), b"\0\0\0\x17WINNERS|ERR|bad_header\n"),
        (one("GET_WINNERS"), b"\0\0\0\x17WINNERS|ERR|bad_header\n"),
        (one("GET_WINNERS|one"), b"\0\0\0\x17WINNERS|ERR|bad_agency\n"),
        (one("GET_WINNERS|1|x"), b"\0\0\0\x16WINNERS|ERR|bad_after\n"),
        (one("GET_WINNERS|1|0|9"), b"\0\0\0\x15WINNERS|ERR|bad_draw\n"),
        // Anything else.
        (one("HELLO|1"), b"\0\0\0\x10ACK|ERR|unknown\n"),
        (one("bet|1"), b"\0\0\0\x10ACK|ERR|unknown\n"),
        (one("\n"), b"\0\0\0\x10ACK|ERR|unknown\n"),
        (raw_frame(b"\xff\xfe"), b"\0\0\0\x10ACK|ERR|unknown\n"),
        (one(&"x".repeat(8192)), b"\0\0\0\x10ACK|ERR|unknown\n"),
        (one("STATUS"), b"\0\0\0\x17STATUS|OK|1|open|0|3|7\n"),
        (one("STATUS|1"), b"\0\0\0\x16STATUS|ERR|bad_header\n"),
        // Done.
        (one("DONE"), b"\0\0\0\x18ACK_DONE|ERR|bad_header\n"),
        (one("DONE|-1"), b"\0\0\0\x18ACK_DONE|ERR|bad_agency\n"),
        (one("DONE|1|x"), b"\0\0\0\x17ACK_DONE|ERR|bad_count\n"),
        (one("DONE|1|5"), b"\0\0\0\x1eACK_DONE|ERR|count_mismatch|6\n"),
        (one("STATUS"), b"\0\0\0\x17STATUS|OK|1|open|0|3|7\n"),
        (one("DONE|1|6"), ACK_DONE),
        (one("DONE|1"), ACK_DONE),
        (one("BET|1|Ana|Paz|007|1999-03-17|7574"), b"\0\0\0\x14ACK|ERR|agency_done\n"),
        (frames(&["BATCH|1|1", row]), b"\0\0\0\x1cACK_BATCH|ERR|1|agency_done\n"),
        (one("STATUS"), b"\0\0\0\x17STATUS|OK|1|open|1|3|7\n"),
        (one("DONE|2"), ACK_DONE),
        (one("GET_WINNERS|1"), NOT_READY),
        (one("DONE|3"), ACK_DONE),
        // After the draw.
        (one("BET|4|Ana|Paz|007|1999-03-17|7574"), b"\0\0\0\x14ACK|ERR|draw_closed\n"),
        (frames(&["BATCH|1|1", row]), b"\0\0\0\x1cACK_BATCH|ERR|1|draw_closed\n"),
        (frames(&["BATCH|2|1|u.1|0", row]), ACK_BATCH_1),
        (one("DONE|2"), ACK_DONE),
        (one("GET_WINNERS|1"), b"\0\0\0\x15WINNERS|OK|007,007,9\n"),
        (one("GET_WINNERS|01"), b"\0\0\0\x15WINNERS|OK|007,007,9\n"),
        (one("GET_WINNERS|1|0"), b"\0\0\0\x16WINNERS|OK|007,007,9|\n"),
        (one("GET_WINNERS|1|1"), b"\0\0\0\x12WINNERS|OK|007,9|\n"),
        (one("GET_WINNERS|1|0|1"), b"\0\0\0\x16WINNERS|OK|007,007,9|\n"),
        (one("GET_WINNERS|1|0|2"), b"\0\0\0\x15WINNERS|ERR|bad_draw\n"),
        (one("WAIT_WINNERS|1|60000"), b"\0\0\0\x16WINNERS|OK|007,007,9|\n"),
        (one("GET_WINNERS|2"), b"\0\0\0\x0fWINNERS|OK|007\n"),
        (one("GET_WINNERS|3"), NO_WINNERS),
        (one("GET_WINNERS|3|0"), NO_WINNERS_PAGE),
        (one("WAIT_WINNERS|3|0"), NO_WINNERS_PAGE),
        (one("STATUS"), b"\0\0\0\x18STATUS|OK|1|drawn|3|3|7\n"),
    ]
}

#[test]
fn every_framed_request_gets_its_answer_and_keeps_the_connection() {
    let server = Setup::agencies(3).start();
    let mut client = server.connect();
    for (request, answer) in framed_table() {
        client.ask(&request, answer);
    }
    assert_eq!(server.draws_made(), 1);
    assert_eq!(server.stored_bets(), 7);
}

#[test]
fn the_framed_table_is_answered_alike_byte_by_byte_and_all_at_once() {
    let table = framed_table();
    // All at once: answers come in the order of the requests.
    let server = Setup::agencies(3).start();
    let requests: Vec<u8> = table.iter().flat_map(|(request, _)| request.clone()).collect();
    let answers: Vec<u8> = table.iter().flat_map(|(_, answer)| answer.to_vec()).collect();
    server.ask_once(&requests, &answers);
    assert_eq!(server.stored_bets(), 7);
    // Byte by byte, without the one request that is only long.
    let server = Setup::agencies(3).start();
    let mut client = server.connect();
    for (request, answer) in table.iter().filter(|(request, _)| request.len() < 8192) {
        client.send_byte_by_byte(request);
        client.expect(answer);
    }
    assert_eq!(server.stored_bets(), 7);
}

/// Counted requests and their answers, as [`framed_table`], in a draw of two.
fn counted_table() -> Vec<(Vec<u8>, &'static [u8])> {
    const INVALID: &[u8] = b"19\nERROR_INVALID_BATCH";
    const EMPTY: &[u8] = b"17\nERROR_EMPTY_BATCH";
    const BAD_QUESTION: &[u8] = b"25\nERROR_INVALID_GET_WINNERS";
    vec![
        (counted("Ana|Paz|007|1999-03-17|7574|1"), COUNTED_ACK),
        (counted("Ana|Paz|9|1999-03-17|7574|01\r\nEva|Sol|8|2000-02-29|7|2\r\n"), COUNTED_ACK),
        (b"0\n".to_vec(), EMPTY),
        (b"0000000001\n\n".to_vec(), EMPTY),
        (counted("Eva|Sol|8|2000-02-29|7|1\nEva|Sol|8|2000-02-30|7|1"), INVALID),
        (counted("Eva|Sol|8|2000-02-29|7|1\n\nEva|Sol|8|2000-02-29|7|1"), INVALID),
        (counted("Eva|Sol|8|2000-02-29|7"), INVALID),
        (counted("Eva|Sol|8|2000-02-29|7|-1"), INVALID),
        (counted("STATUS"), INVALID),
        (counted("GET_WINNERS"), BAD_QUESTION),
        (counted("GET_WINNERS|x"), BAD_QUESTION),
        (counted("GET_WINNERS|1|0"), BAD_QUESTION),
        (counted("GET_WINNERS|1"), COUNTED_NOT_READY),
        // It said with that that it is done; rows of two are all or none.
        (counted("Eva|Sol|8|2000-02-29|7|2\nEva|Sol|8|2000-02-29|7|1"), INVALID),
        (counted("GET_WINNERS|2"), b"0\n"),
        (counted("Eva|Sol|8|2000-02-29|7|2"), INVALID),
        (counted("GET_WINNERS|1"), b"57\nAna|Paz|007|1999-03-17|7574|1\nAna|Paz|9|1999-03-17|7574|1"),
        (counted("GET_WINNERS|9\n"), b"0\n"),
    ]
}

#[test]
fn every_counted_request_gets_its_answer_however_it_arrives() {
    let table = counted_table();
    let server = Setup::agencies(2).start();
    let mut client = server.connect();
    for (request, answer) in &table {
        client.ask(request, answer);
    }
    assert_eq!(server.stored_bets(), 3);
    let server = Setup::agencies(2).start();
    let mut client = server.connect();
    for (request, answer) in &table {
        client.send_byte_by_byte(request);
        client.expect(answer);
    }
    assert_eq!(server.stored_bets(), 3);
    let server = Setup::agencies(2).start();
    let requests: Vec<u8> = table.iter().flat_map(|(request, _)| request.clone()).collect();
    let answers: Vec<u8> = table.iter().flat_map(|(_, answer)| answer.to_vec()).collect();
    server.ask_once(&requests, &answers);
    assert_eq!((server.stored_bets(), server.draws_made()), (3, 1));
}

#[test]
fn what_cannot_be_skipped_is_answered_and_closed() {
    let server = Setup::agencies(2).start();
    let too_many: &[u8] = b"\0\0\0\x1dACK_BATCH|ERR|10001|too_many\n";
    let rows = winning_batch(1, &["1"; 10_000]);
    /// What it is, the request, its answer, and what the peer sends on.
    type Case<'a> = (&'a str, Vec<u8>, &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 7] = [
        (
            "a frame of nothing",
            b"\0\0\0\0".to_vec(),
            b"\0\0\0\x12ACK|ERR|bad_frame\n",
            b"what follows is thrown away",
        ),
        ("a frame of 8193 bytes", b"\0\0\x20\x01".to_vec(), b"\0\0\0\x12ACK|ERR|bad_frame\n", &[b'x'; 8193]),
        ("a frame of 16 MiB", b"\0\xff\xff\xff".to_vec(), b"\0\0\0\x12ACK|ERR|bad_frame\n", b"x"),
        ("too many rows", frame("BATCH|1|10001"), too_many, &rows),
        (
            "more rows than can be counted",
            frame("BATCH|1|99999999999999999999999"),
            b"\0\0\0\x2cACK_BATCH|ERR|18446744073709551615|too_many\n",
            &rows,
        ),
        ("a payload over the limit", b"1048577\n".to_vec(), b"19\nERROR_INVALID_BATCH", &rows),
        ("a length that is none", b"3x\n".to_vec(), b"19\nERROR_INVALID_BATCH", b"ACK"),
    ];
    for (what, request, answer, follows) in cases {
        println!("{what}");
        // Whether the peer reads before it sends on or after, the answer is there.
        let mut client = server.connect();
        client.ask(&request, answer);
        client.send(follows);
        client.expect_end();
        let mut client = server.connect();
        client.send(&[&request, follows].concat());
        client.expect(answer);
        client.expect_end();
    }
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn requests_before_a_fatal_one_are_carried_out_and_those_behind_it_are_not() {
    let server = Setup::agencies(2).start();
    let mut client = server.connect();
    let behind = winning_batch(1, &["9"]);
    client.send(&[&winning_batch(1, &["1", "2"]), &b"\0\0\0\0"[..], &behind].concat());
    client.expect(ACK_BATCH_2);
    client.expect(b"\0\0\0\x12ACK|ERR|bad_frame\n");
    client.expect_end();
    assert_eq!(server.stored_bets(), 2);
}

// ---- Order ----------------------------------------------------------------------

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Setup::agencies(1).start();
    let mut client = server.connect();
    let requests = [
        winning_batch(1, &["1", "2"]),
        winning_batch(1, &["3"]),
        frame("STATUS"),
        frame("BET|1|Ana|Paz|4|1999-03-17|7574"),
        frames(&["BATCH|1|2", "bad", "Ana|Paz|5|1999-03-17|7574"]),
        frame("GET_WINNERS|1"),
        frame("DONE|1|4"),
        frame("BET|1|Ana|Paz|6|1999-03-17|7574"),
        frame("STATUS"),
        frame("GET_WINNERS|1"),
        frame("DONE|1"),
    ];
    let answers = [
        ACK_BATCH_2,
        ACK_BATCH_1,
        b"\0\0\0\x17STATUS|OK|1|open|0|1|3\n",
        ACK,
        b"\0\0\0\x22ACK_BATCH|ERR|2|row 1: bad_fields\n",
        NOT_READY,
        ACK_DONE,
        b"\0\0\0\x14ACK|ERR|draw_closed\n",
        b"\0\0\0\x18STATUS|OK|1|drawn|1|1|4\n",
        b"\0\0\0\x13WINNERS|OK|1,2,3,4\n",
        ACK_DONE,
    ];
    client.ask(&requests.concat(), &answers.concat());
    // The connection is as good as new.
    client.ask(&frame("GET_WINNERS|2"), NO_WINNERS);
}

#[test]
fn long_pipelines_on_many_connections_are_never_answered_out_of_turn() {
    const STEPS: u64 = 150;
    let server = Setup::agencies(99).start();
    thread::scope(|scope| {
        for agency in 1..=8 {
            let mut client = server.connect();
            scope.spawn(move || {
                let (mut requests, mut answers) = (Vec::new(), Vec::new());
                for step in 0..STEPS {
                    // Each answer can only be right in its place: what is read
                    // depends on what was written just before.
                    let row = format!("Ana|Paz|{step}|1999-03-17|7574");
                    requests.extend(frames(&[&format!("BATCH|{agency}|1|u|{step}"), &row]));
                    answers.extend(frame("ACK_BATCH|OK|1\n"));
                    requests.extend(frames(&[&format!("BATCH|{agency}|1|u|{}", step + 2), &row]));
                    answers.extend(frame(&format!("ACK_BATCH|ERR|1|gap|{}\n", step + 1)));
                    if step % 7 == 0 {
                        requests.extend(frame(&format!("RESUME|{agency}|u")));
                        answers.extend(frame(&format!("RESUME|OK|{}\n", step + 1)));
                    }
                    if step % 11 == 0 {
                        requests.extend(frame("what?"));
                        answers.extend(frame("ACK|ERR|unknown\n"));
                    }
                }
                // Cut anywhere, and differently for each.
                for piece in requests.chunks(97 + 400 * agency) {
                    client.send(piece);
                }
                client.expect(&answers);
            });
        }
    });
    assert_eq!(server.stored_bets(), 8 * STEPS);
}

#[test]
fn requests_behind_a_long_answer_are_answered_after_it() {
    let server = Setup::agencies(1).start();
    let lines = long_winning_lines(1, 0, 1000);
    let mut client = server.connect();
    client.ask(&counted(&lines), COUNTED_ACK);
    let winners = counted(&lines);
    // Sent at once: four long answers, and short ones between them.
    let bet_too_late = counted("Ana|Paz|1|1999-03-17|7574|1");
    let question = counted("GET_WINNERS|1");
    let other = counted("GET_WINNERS|2");
    let requests =
        [&question, &bet_too_late, &question, &question, &other, &question].map(|bytes| &bytes[..]);
    let answers = [&winners[..], b"19\nERROR_INVALID_BATCH", &winners, &winners, b"0\n", &winners];
    client.ask(&requests.concat(), &answers.concat());
    client.ask(&other, b"0\n");
}

// ---- Time limits and bounds -------------------------------------------------------

#[test]
fn a_request_that_does_not_arrive_whole_in_time_is_closed_and_an_idle_peer_is_not() {
    let server = Setup::agencies(2).limits(|limits| limits.request_timeout = SHORT).start();
    let mut idle = server.connect();
    let mut idle_after_a_request = server.connect();
    idle_after_a_request.ask(&frame("STATUS"), FRESH_STATUS);
    let halves: [&[u8]; 6] = [
        b"\0",
        b"\0\0\0\x06STA",
        &half_batch(),
        b"3",
        b"10\nAna",
        // A whole request before it does not help.
        b"\0\0\0\x06STATUS\0\0",
    ];
    for half in halves {
        let mut client = server.connect();
        client.send(half);
        if half.starts_with(b"\0\0\0\x06STATUS") {
            client.expect(FRESH_STATUS);
        }
        client.expect_end();
    }
    for client in [&mut idle, &mut idle_after_a_request] {
        assert!(!client.has_answer(), "an idle connection was closed");
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
}

#[test]
fn a_dripping_peer_is_closed_though_it_always_sends_something() {
    let server = Setup::agencies(2).limits(|limits| limits.request_timeout = SHORT).start();
    for opening in [b"1000\n".to_vec(), frame("BATCH|1|10000")] {
        let mut client = server.connect();
        client.send(&opening);
        let mut dripped = 0;
        until("the dripping peer is closed", || {
            dripped += 1;
            // Whole frames too: rows that arrive do not prolong their batch.
            let drip = if opening[0] == 0 { frame(SECOND_HALF) } else { b"x".to_vec() };
            client.has_answer() || !client.try_send(&drip)
        });
        assert!(dripped > 1);
        client.expect_gone();
    }
}

#[test]
fn an_idle_peer_is_closed_when_its_time_is_up() {
    let server = Setup::agencies(2).limits(|limits| limits.idle_timeout = 3 * SHORT).start();
    let mut fresh = server.connect();
    let mut after_a_request = server.connect();
    after_a_request.ask(&frame("STATUS"), FRESH_STATUS);
    fresh.expect_end();
    after_a_request.expect_end();
}

#[test]
fn one_connection_too_many_is_closed_without_a_byte_until_another_leaves() {
    let server = Setup::agencies(2).limits(|limits| limits.connections_max = 2).start();
    let mut first = server.connect();
    let mut second = server.connect();
    for client in [&mut first, &mut second] {
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
    for _ in 0..3 {
        server.connect().expect_end();
    }
    first.ask(&frame("STATUS"), FRESH_STATUS);
    drop(second);
    until("the place is free", || {
        let mut next = server.connect();
        // A refused peer may find out while it sends.
        next.try_send(&frame("STATUS")) && next.answers_or_ends(FRESH_STATUS)
    });
    first.ask(&frame("STATUS"), FRESH_STATUS);
}

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

#[test]
fn a_peer_that_never_reads_is_closed_once_too_many_answers_wait() {
    let server = Setup::agencies(1).start();
    let mut loader = server.connect();
    loader.ask(&counted(&long_winning_lines(1, 0, 800)), COUNTED_ACK);
    server.ask_once(&done(1), ACK_DONE);
    // Answers of 7,200 bytes soon fill what the two systems take in between.
    for requests in [frame("GET_WINNERS|1"), frame("GET_WINNERS|1|0")] {
        let requests = requests.repeat(100);
        let mut client = server.connect_with_small_buffer();
        until("the peer is closed", || !client.try_send(&requests));
    }
    // Nobody else noticed.
    loader.ask(&counted("GET_WINNERS|2"), b"0\n");
}

#[test]
fn a_peer_that_never_reads_its_statuses_is_closed() {
    let server = Setup::agencies(2).start();
    let requests = frame("STATUS").repeat(1000);
    let mut client = server.connect_with_small_buffer();
    let mut sent = 0;
    while client.try_send(&requests) {
        sent += 1;
        assert!(sent < 1000, "a million answers wait");
    }
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_peer_that_asks_once_and_never_reads_is_closed_in_time() {
    let server = Setup::agencies(1)
        .limits(|limits| {
            limits.request_timeout = SHORT;
            limits.connections_max = 1;
        })
        .start();
    // More than the system takes in between, which is at most 4 MiB here.
    store_long_winners(&server, 1, 30_000);
    let mut client = server.connect_with_small_buffer();
    client.send(&counted("GET_WINNERS|1"));
    // Its place is free when it is closed.
    until("the peer that does not read is closed", || {
        let mut next = server.connect();
        next.try_send(&counted("GET_WINNERS|2")) && next.answers_or_ends(b"0\n")
    });
    let announced = client.read_length();
    assert!(client.read_to_any_end().len() < announced);
}

#[test]
fn half_received_requests_of_all_together_are_bounded_and_the_excess_is_told_busy() {
    let server = Setup::agencies(2).limits(|limits| limits.buffer_bytes_max = 1000).start();
    // 64 KiB are free for each connection: these are well above.
    let mut client = server.connect();
    client.send(&counted(&long_winning_lines(1, 0, 1000)));
    client.expect(b"10\nERROR_BUSY");
    client.expect_end();
    let mut client = server.connect();
    client.send(&winning_batch(1, &["12345678"; 9000]));
    client.expect(b"\0\0\0\x18ACK_BATCH|ERR|9000|busy\n");
    client.expect_end();
    assert_eq!(server.stored_bets(), 0);
    // What is given back can be used again, and a small batch is never refused.
    server.ask_once(&counted(&long_winning_lines(1, 0, 200)), COUNTED_ACK);
    server.ask_once(&winning_batch(1, &["12345678"; 1000]), b"\0\0\0\x12ACK_BATCH|OK|1000\n");
    assert_eq!(server.stored_bets(), 1200);
}

#[test]
fn what_a_cut_off_peer_had_sent_is_no_longer_counted() {
    let server = Setup::agencies(2).limits(|limits| limits.buffer_bytes_max = 300_000).start();
    let request = counted(&long_winning_lines(1, 0, 1000));
    for _ in 0..10 {
        let mut client = server.connect();
        client.send(&request[..200_000]);
        client.half_close();
        client.expect_end();
    }
    server.ask_once(&request, COUNTED_ACK);
    assert_eq!(server.stored_bets(), 1000);
}

#[test]
fn hundreds_of_idle_and_half_sent_connections_hold_up_nobody() {
    let server = Setup::agencies(2).start();
    let mut idle: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    let mut half_sent: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = server.connect();
            client.send(&half_batch());
            client
        })
        .collect();
    server.ask_once(&winning_batch(1, &["1", "2"]), ACK_BATCH_2);
    for client in &mut half_sent {
        client.ask(&frame(SECOND_HALF), ACK_BATCH_2);
    }
    for client in &mut idle {
        client.ask(&frame("BET|1|Ana|Paz|4|1999-03-17|7574"), ACK);
    }
    assert_eq!(server.stored_bets(), 2 + 2 * 300 + 300);
}

// ---- Waiting for the draw ---------------------------------------------------------

/// A client whose `WAIT_WINNERS` the server has begun: the status before it is
/// answered only after all that came with it was read.
fn waiter(server: &TestServer, agency: u32, status: &[u8]) -> Client {
    let mut client = server.connect();
    let wait = format!("WAIT_WINNERS|{agency}|60000");
    client.ask(&frames(&["STATUS", &wait]), status);
    client
}

#[test]
fn whoever_waits_is_answered_when_the_draw_is_made() {
    let server = Setup::agencies(2).limits(|limits| limits.workers = 2).start();
    let mut waiters: Vec<Client> = (0..200).map(|i| waiter(&server, 1 + i % 2, FRESH_STATUS)).collect();
    // With two workers and two hundred who wait, others are still served.
    server.ask_once(&winning_batch(1, &["007"]), ACK_BATCH_1);
    server.ask_once(&done(1), ACK_DONE);
    assert!(waiters.iter().all(|client| !client.has_answer()));
    server.ask_once(&done(2), ACK_DONE);
    // Together, not one after the other.
    until("all are answered", || waiters.iter().all(Client::has_answer));
    for (i, client) in waiters.iter_mut().enumerate() {
        match i % 2 {
            0 => client.expect(b"\0\0\0\x10WINNERS|OK|007|\n"),
            _ => client.expect(NO_WINNERS_PAGE),
        }
        client.ask(&frame("GET_WINNERS|2"), NO_WINNERS);
    }
}

#[test]
fn a_wait_ends_with_not_ready_and_can_be_repeated() {
    let server = Setup::agencies(1).start();
    let mut client = server.connect();
    for _ in 0..3 {
        client.ask(&frame("WAIT_WINNERS|1|30"), NOT_READY);
    }
    client.send(&frames(&["WAIT_WINNERS|1|30", "WAIT_WINNERS|1|30", "DONE|1", "WAIT_WINNERS|1|60000"]));
    client.expect(&[NOT_READY, NOT_READY, ACK_DONE, NO_WINNERS_PAGE].concat());
}

#[test]
fn requests_behind_a_wait_are_answered_after_it() {
    let server = Setup::agencies(1).start();
    let mut client = server.connect();
    let requests = frames(&[
        "BET|1|Ana|Paz|007|1999-03-17|7574",
        "WAIT_WINNERS|1|60000",
        "STATUS",
        "BET|1|Ana|Paz|8|1999-03-17|7574",
        "WAIT_WINNERS|1|60000",
        "GET_WINNERS|1",
    ]);
    client.ask(&requests, ACK);
    // One more behind them, in pieces, while it waits.
    let more = frame("DONE|1");
    client.send(&more[..3]);
    server.ask_once(&frame("STATUS"), b"\0\0\0\x17STATUS|OK|1|open|0|1|1\n");
    client.send(&more[3..]);
    assert!(!client.has_answer());
    server.ask_once(&done(1), ACK_DONE);
    let answers: [&[u8]; 6] = [
        b"\0\0\0\x10WINNERS|OK|007|\n",
        b"\0\0\0\x18STATUS|OK|1|drawn|1|1|1\n",
        b"\0\0\0\x14ACK|ERR|draw_closed\n",
        b"\0\0\0\x10WINNERS|OK|007|\n",
        b"\0\0\0\x0fWINNERS|OK|007\n",
        ACK_DONE,
    ];
    client.expect(&answers.concat());
}

#[test]
fn whoever_waits_is_answered_when_another_process_makes_the_draw() {
    let server = Setup::agencies(1).start();
    server.ask_once(&winning_batch(1, &["007"]), ACK_BATCH_1);
    let mut waiters: Vec<Client> =
        (0..100).map(|_| waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|1\n")).collect();
    let mut database = server.database();
    let transaction = database.transaction().unwrap();
    transaction
        .execute_batch(
            "INSERT INTO winners (draw_id, agency, bet_id) SELECT draw_id, agency, id FROM bets;
             UPDATE draws SET drawn_at = '2026-11-21T20:31:05.000Z', winners = 1",
        )
        .unwrap();
    transaction.commit().unwrap();
    until("all are answered", || waiters.iter().all(Client::has_answer));
    for client in &mut waiters {
        client.expect(b"\0\0\0\x10WINNERS|OK|007|\n");
    }
    assert_eq!(server.draws_made(), 0, "it was not this process");
}

#[test]
fn a_waiter_that_goes_away_harms_nobody_and_one_that_half_closed_is_answered() {
    let server = Setup::agencies(1).start();
    for _ in 0..20 {
        drop(waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|0\n"));
    }
    let mut half_closed = waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|0\n");
    half_closed.send(&frame("STATUS"));
    half_closed.half_close();
    let mut whole = waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|0\n");
    server.ask_once(&done(1), ACK_DONE);
    whole.expect(NO_WINNERS_PAGE);
    half_closed.expect(NO_WINNERS_PAGE);
    half_closed.expect(b"\0\0\0\x18STATUS|OK|1|drawn|1|1|0\n");
    half_closed.expect_end();
}

#[test]
fn a_wait_that_races_with_the_draw_is_always_answered() {
    for _ in 0..20 {
        let server = Setup::agencies(1).start();
        let start = Barrier::new(9);
        thread::scope(|scope| {
            for _ in 0..8 {
                let mut client = server.connect();
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    client.ask(&frame("WAIT_WINNERS|1|60000"), NO_WINNERS_PAGE);
                });
            }
            let mut closer = server.connect();
            start.wait();
            closer.ask(&done(1), ACK_DONE);
        });
    }
}

// ---- Ends of connections ----------------------------------------------------------

#[test]
fn a_half_closed_peer_still_gets_all_its_answers() {
    let server = Setup::agencies(1).start();
    let mut framed = server.connect();
    framed.send(&[winning_batch(1, &["1", "2"]), frame("STATUS"), b"\0\0".to_vec()].concat());
    framed.half_close();
    framed.expect(ACK_BATCH_2);
    framed.expect(b"\0\0\0\x17STATUS|OK|1|open|0|1|2\n");
    framed.expect_end();
    let lines = long_winning_lines(2, 0, 3000);
    let mut counting = server.connect_with_small_buffer();
    counting.send(&[counted(&lines), counted("GET_WINNERS|2"), counted("GET_WINNERS|3")].concat());
    counting.half_close();
    counting.expect(COUNTED_ACK);
    counting.expect(&counted(&lines));
    counting.expect(b"0\n");
    counting.expect_end();
}

#[test]
fn a_half_closed_peer_gets_answers_that_the_system_could_not_take_at_once() {
    const QUESTIONS: usize = 2000;
    // 14 MB of answers: more than the system takes, less than we may keep.
    let server = Setup::agencies(1).limits(|limits| limits.output_bytes_max = 64 << 20).start();
    let documents: Vec<String> = (0..800).map(|document| format!("{document:08}")).collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    server.ask_once(&winning_batch(1, &documents), &frame("ACK_BATCH|OK|800\n"));
    server.ask_once(&done(1), ACK_DONE);
    let mut client = server.connect_with_small_buffer();
    client.send(&frame("GET_WINNERS|1").repeat(QUESTIONS));
    client.half_close();
    // Others are served meanwhile, so the end has been read when this is answered often.
    for _ in 0..20 {
        server.ask_once(&frame("GET_WINNERS|2"), NO_WINNERS);
    }
    let answer = frame(&format!("WINNERS|OK|{}\n", documents.join(",")));
    for _ in 0..QUESTIONS {
        client.expect(&answer);
    }
    client.expect_end();
}

#[test]
fn the_end_inside_a_request_stores_nothing_of_it() {
    let server = Setup::agencies(2).start();
    let batch = winning_batch(1, &["1", "2"]);
    let payload = counted("Ana|Paz|1|1999-03-17|7574|1\nAna|Paz|2|1999-03-17|7574|1");
    for request in [&batch, &payload] {
        for cut in 1..request.len() {
            let mut client = server.connect();
            client.send(&request[..cut]);
            client.half_close();
            client.expect_end();
        }
    }
    assert_eq!(server.stored_bets(), 0);
    server.ask_once(&batch, ACK_BATCH_2);
    server.ask_once(&payload, COUNTED_ACK);
}

#[test]
fn an_agency_that_was_cut_off_resumes_where_its_upload_ends() {
    let server = Setup::agencies(1).start();
    let rows: Vec<String> = (0..10).map(|i| format!("Ana|Paz|{i}|1999-03-17|7574")).collect();
    // Each connection dies within its second batch, at another byte.
    for next in 0..5 {
        let batch = |first: usize| {
            let header = format!("BATCH|1|2|u|{first}");
            frames(&[&header, &rows[first], &rows[first + 1]])
        };
        let mut client = server.connect();
        let resumed = format!("RESUME|OK|{}\n", 2 * next);
        client.ask(&frame("RESUME|1|u"), &frame(&resumed));
        client.ask(&batch(2 * next), ACK_BATCH_2);
        // The same again, as one whose answer was lost.
        client.ask(&batch(2 * next), ACK_BATCH_2);
        if next < 4 {
            let second = batch(2 * next + 2);
            client.send(&second[..second.len() - 1 - 7 * next]);
        }
    }
    server.ask_once(&frame("DONE|1|10"), ACK_DONE);
    server.ask_once(&frame("GET_WINNERS|1"), b"\0\0\0\x1fWINNERS|OK|0,1,2,3,4,5,6,7,8,9\n");
}

// ---- Sharing the workers ----------------------------------------------------------

#[test]
fn two_that_ask_again_and_again_take_turns_at_the_only_worker() {
    const QUESTIONS: usize = 1_000;
    // So that the worker waits for each question, and not so long that it gives up.
    const THOUGHT: Duration = Duration::from_micros(100);
    let server = Setup::agencies(2).limits(|limits| limits.workers = 1).start();
    let answered = Mutex::new(Vec::new());
    let begin = Barrier::new(2);
    thread::scope(|scope| {
        for asker in 0..2 {
            let mut client = server.connect();
            let (answered, begin) = (&answered, &begin);
            scope.spawn(move || {
                begin.wait();
                for _ in 0..QUESTIONS {
                    thread::sleep(THOUGHT);
                    client.ask(&frame("STATUS"), FRESH_STATUS);
                    answered.lock().unwrap().push(asker);
                }
            });
        }
    });
    let turns = answered.into_inner().unwrap().chunk_by(|one, next| one == next).count();
    assert!(turns > QUESTIONS / 10, "{turns} turns");
}

// ---- Long answers -----------------------------------------------------------------

#[test]
fn ten_thousand_winners_arrive_whole_in_both_dialects() {
    const WINNERS: usize = 10_000;
    let server = Setup::agencies(1).limits(|limits| limits.workers = 1).start();
    let mut loader = server.connect();
    for first in (0..WINNERS).step_by(2500) {
        let lines = long_winning_lines(1, first, 2500);
        loader.ask(&counted(&lines), COUNTED_ACK);
    }
    loader.ask(&counted("Eva|Sol|8|2000-02-29|7|1\nEva|Sol|8|2000-02-29|7574|2"), COUNTED_ACK);
    // Counted: one answer, of which the peer takes a little at a time, while
    // the only worker serves others.
    let mut slow = server.connect_with_small_buffer();
    slow.send(&counted("GET_WINNERS|1"));
    let expected = long_winning_lines(1, 0, WINNERS);
    assert_eq!(slow.read_length(), expected.len());
    let mut read = Vec::new();
    while read.len() < expected.len() {
        let piece = slow.read_exactly(1000.min(expected.len() - read.len()));
        read.extend(piece);
        if read.len() % 500_000 == 0 {
            loader.ask(&counted("GET_WINNERS|9"), b"0\n");
        }
    }
    assert!(read == expected.as_bytes(), "the winners in stored order");
    slow.ask(&counted("GET_WINNERS|2"), b"27\nEva|Sol|8|2000-02-29|7574|2");
    // Framed: too many for one answer, but not for pages.
    let mut framed = server.connect();
    framed.ask(&frame("GET_WINNERS|1"), b"\0\0\0\x1fWINNERS|ERR|too_many|use_pages\n");
    let (mut documents, mut next, mut pages) = (Vec::new(), "0".to_owned(), 0);
    while !next.is_empty() {
        framed.send(&frame(&format!("GET_WINNERS|1|{next}")));
        let line = framed.read_frame();
        let fields: Vec<&str> = line.trim_end().split('|').collect();
        let ["WINNERS", "OK", page, after] = fields[..] else {
            panic!("{line:?} is no page");
        };
        documents.extend(page.split(',').map(str::to_owned));
        after.clone_into(&mut next);
        pages += 1;
        assert!(documents.len() <= WINNERS, "a page repeats what was on another");
    }
    let expected: Vec<String> = (0..WINNERS).map(|document| format!("{document:08}")).collect();
    assert_eq!(documents, expected);
    assert!(pages >= WINNERS * 9 / 8192, "{pages} pages cannot hold them");
    framed.send(&frame("WAIT_WINNERS|1|0"));
    assert!(framed.read_frame().starts_with("WINNERS|OK|00000000,00000001,"));
}

#[test]
fn as_many_winners_as_fit_one_frame_are_answered_in_one() {
    let server = Setup::agencies(1).start();
    // A frame has 8192 bytes: "WINNERS|OK|", the documents, and the line end.
    let documents_bytes = 8192 - 11 - 1;
    let full = vec!["1234567"; documents_bytes / 8];
    let left = documents_bytes - (8 * full.len() - 1);
    assert_eq!(left, 5, "a comma and four more bytes fit");
    let fits = [full.clone(), vec!["1234"]].concat();
    let fits_not = [full, vec!["12345"]].concat();
    for (agency, documents) in [(1, &fits), (2, &fits_not)] {
        let answer = format!("ACK_BATCH|OK|{}\n", documents.len());
        server.ask_once(&winning_batch(agency, documents), &frame(&answer));
    }
    server.ask_once(&done(1), ACK_DONE);
    let whole = format!("WINNERS|OK|{}\n", fits.join(","));
    assert_eq!(whole.len(), 8192);
    server.ask_once(&frame("GET_WINNERS|1"), &frame(&whole));
    server.ask_once(&frame("GET_WINNERS|2"), b"\0\0\0\x1fWINNERS|ERR|too_many|use_pages\n");
}

#[test]
fn pages_add_up_where_the_store_is_read_more_often_than_a_frame_is_full() {
    let server = Setup::agencies(1).start();
    let documents: Vec<String> = (0..2500).map(|document| format!("{document:03}")).collect();
    let batch: Vec<&str> = documents.iter().map(String::as_str).collect();
    server.ask_once(&winning_batch(1, &batch), &frame("ACK_BATCH|OK|2500\n"));
    server.ask_once(&done(1), ACK_DONE);
    let mut client = server.connect();
    let (mut paged, mut next) = (Vec::new(), "0".to_owned());
    while !next.is_empty() {
        client.send(&frame(&format!("GET_WINNERS|1|{next}")));
        let line = client.read_frame();
        let ["WINNERS", "OK", page, after] = line.trim_end().split('|').collect::<Vec<_>>()[..] else {
            panic!("{line:?} is no page");
        };
        paged.extend(page.split(',').filter(|document| !document.is_empty()).map(str::to_owned));
        after.clone_into(&mut next);
        assert!(paged.len() <= documents.len(), "a page repeats what was on another");
    }
    assert_eq!(paged, documents);
}

// ---- A store that is slow, full or gone ---------------------------------------------

#[test]
fn a_full_queue_is_answered_busy_and_stores_nothing_of_it() {
    let setup = Setup { queue_max: 1, ..Setup::agencies(2) };
    let server = setup.limits(|limits| limits.workers = 64).start();
    let mut database = server.database();
    // While another process holds the write lock nothing is committed, so
    // whoever is answered now is answered `busy`.
    let lock = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut clients: Vec<Client> = (0..20)
        .map(|document: u32| {
            let mut client = server.connect();
            client.send(&winning_batch(1, &[&document.to_string()]));
            client
        })
        .collect();
    until("somebody is told `busy`", || clients.iter().any(Client::has_answer));
    let early: Vec<bool> = clients.iter().map(Client::has_answer).collect();
    lock.commit().unwrap();
    let mut stored = 0;
    for (client, early) in clients.iter_mut().zip(early) {
        match client.read_frame().as_str() {
            "ACK_BATCH|OK|1\n" if !early => stored += 1,
            "ACK_BATCH|ERR|1|busy\n" => {}
            other => panic!("{other:?}, early: {early}"),
        }
    }
    assert_eq!(server.stored_bets(), stored);
    clients[0].ask(&winning_batch(1, &["again"]), ACK_BATCH_1);
}

/// A store that refuses as it is told, in front of a real one.
struct Failing {
    store: SqliteStore,
    error: StoreError,
}

impl Store for Failing {
    fn append(&self, _: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        // As the writer does it: the submission succeeds, the commit does not.
        let (resolver, ticket) = Ticket::new();
        resolver.resolve(Err(self.error));
        Ok(ticket)
    }

    fn close_agency(&self, _: AgencyId, _: Option<u64>) -> Result<Ticket<Closed>, StoreError> {
        Err(self.error)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        Err(self.error)
    }

    fn next_row(&self, _: AgencyId, _: &UploadId) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        self.store.newest_draw()
    }

    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        self.store.draw(draw)
    }

    fn previous_draw_for(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        self.store.previous_draw_for(agency)
    }

    fn winners(&self, _: DrawId, _: AgencyId, _: u64, _: usize) -> Result<Vec<WinningBet>, StoreError> {
        Err(StoreError::Unavailable)
    }

    fn winners_size(&self, _: DrawId, _: AgencyId) -> Result<WinnersSize, StoreError> {
        Err(StoreError::Unavailable)
    }
}

#[test]
fn what_the_store_refuses_is_told_and_the_connection_stays() {
    for (error, code) in [(StoreError::Busy, "busy"), (StoreError::Full, "storage_full")] {
        let server = TestServer::start(Setup::agencies(2), |store| Failing { store, error });
        let mut framed = server.connect();
        for (request, answer) in [
            (frame("BET|1|Ana|Paz|4|1999-03-17|7574"), format!("ACK|ERR|{code}\n")),
            (winning_batch(1, &["1", "2"]), format!("ACK_BATCH|ERR|2|{code}\n")),
            (done(1), format!("ACK_DONE|ERR|{code}\n")),
            (frame("RESUME|1|u"), "RESUME|ERR|unavailable\n".to_owned()),
        ] {
            framed.ask(&request, &frame(&answer));
        }
        framed.ask(&frame("STATUS"), FRESH_STATUS);
        let mut counting = server.connect();
        counting.ask(&counted("Ana|Paz|1|1999-03-17|7574|1"), b"10\nERROR_BUSY");
        counting.ask(&counted("GET_WINNERS|1"), b"10\nERROR_BUSY");
    }
}

#[test]
fn an_unknown_outcome_is_never_answered() {
    let server = TestServer::start(Setup::agencies(2), |store| Failing { store, error: StoreError::Unknown });
    for request in [
        frame("BET|1|Ana|Paz|4|1999-03-17|7574"),
        winning_batch(1, &["1", "2"]),
        done(1),
        counted("Ana|Paz|1|1999-03-17|7574|1"),
        counted("GET_WINNERS|1"),
    ] {
        let mut client = server.connect();
        client.send(&request);
        client.expect_end();
    }
}

#[test]
fn a_server_whose_database_fails_ends_with_that_error_and_without_an_answer() {
    let mut server = Setup::agencies(2).start();
    let mut client = server.connect();
    client.ask(&winning_batch(1, &["1"]), ACK_BATCH_1);
    server
        .database()
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'broken'); END",
        )
        .unwrap();
    client.send(&winning_batch(1, &["2"]));
    client.expect_gone();
    match server.wait_end() {
        Err(ServeError::StoreFailed(error)) => assert!(error.contains("broken"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.stored_bets(), 1);
}

// ---- The stop ---------------------------------------------------------------------

/// A store whose appends wait at a gate, in front of a real one.
struct Gated {
    store: SqliteStore,
    arrived: Mutex<Sender<()>>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Store for Gated {
    fn append(&self, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        self.arrived.lock().unwrap().send(()).unwrap();
        // Opened once for each, or for good when its sender is gone.
        let _ = self.gate.lock().unwrap().recv_timeout(DEADLINE);
        self.store.append(batches)
    }

    fn close_agency(&self, agency: AgencyId, bets: Option<u64>) -> Result<Ticket<Closed>, StoreError> {
        self.store.close_agency(agency, bets)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        self.store.probe()
    }

    fn next_row(&self, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError> {
        self.store.next_row(agency, upload)
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        self.store.newest_draw()
    }

    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        self.store.draw(draw)
    }

    fn previous_draw_for(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        self.store.previous_draw_for(agency)
    }

    fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError> {
        self.store.winners(draw, agency, after, bets_max)
    }

    fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError> {
        self.store.winners_size(draw, agency)
    }
}

#[test]
fn stopping_finishes_what_is_in_flight_and_closes_the_rest() {
    let (arrived, arrivals) = mpsc::channel();
    let (open_gate, gate) = mpsc::channel();
    let mut server = TestServer::start(Setup::agencies(2), |store| Gated {
        store,
        arrived: Mutex::new(arrived),
        gate: Arc::new(Mutex::new(gate)),
    });
    let mut idle = server.connect();
    idle.ask(&frame("STATUS"), FRESH_STATUS);
    let mut waiting = waiter(&server, 1, FRESH_STATUS);
    let mut slow = server.connect();
    slow.send(&[frame("STATUS"), half_batch()].concat());
    slow.expect(FRESH_STATUS);
    let mut busy = server.connect();
    busy.send(&winning_batch(1, &["3", "4"]));
    arrivals.recv_timeout(DEADLINE).unwrap();

    server.begin_to_stop();
    idle.expect_end();
    waiting.expect(NOT_READY);
    waiting.expect_end();
    assert!(!busy.has_answer() && !slow.has_answer(), "both are waited for");
    open_gate.send(()).unwrap();
    busy.expect(ACK_BATCH_2);
    busy.expect_end();
    assert_eq!(server.stored_bets(), 2, "what is acknowledged is stored");
    drop(open_gate);
    slow.ask(&frame(SECOND_HALF), ACK_BATCH_2);
    slow.expect_end();
    server.wait_end().unwrap();
    assert_eq!(server.stored_bets(), 4);
}

#[test]
fn stopping_waits_no_longer_than_the_drain_limit_for_a_slow_peer() {
    let setup = Setup::agencies(2).limits(|limits| limits.drain_timeout = SHORT);
    let mut server = setup.start();
    let mut slow = server.connect();
    slow.send(&[frame("STATUS"), half_batch()].concat());
    slow.expect(FRESH_STATUS);
    server.stop().unwrap();
    slow.expect_end();
    assert_eq!(server.stored_bets(), 0);
}

#[test]
fn stopping_a_server_that_nobody_talks_to_ends_at_once() {
    let mut fresh = Setup::default().start();
    fresh.stop().unwrap();
    let mut server = Setup::agencies(2).start();
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
    server.stop().unwrap();
    for client in &mut clients {
        client.expect_end();
    }
}

#[test]
fn every_acknowledged_batch_of_a_server_that_stops_under_load_is_stored_once() {
    let mut server = Setup::agencies(99).start();
    let acknowledged: u64 = thread::scope(|scope| {
        let (begun, beginnings) = mpsc::channel();
        let clients: Vec<_> = (1..=8)
            .map(|agency| {
                let mut client = server.connect();
                let begun = begun.clone();
                scope.spawn(move || {
                    let mut acknowledged = 0;
                    // Until the server closes: whole answers only, each for its batch.
                    while client.try_send(&winning_batch(agency, &["1", "2"])) {
                        match client.answers_or_ends(ACK_BATCH_2) {
                            true => acknowledged += 2,
                            false => break,
                        }
                        if acknowledged == 20 {
                            begun.send(()).unwrap();
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        for _ in &clients {
            beginnings.recv_timeout(DEADLINE).unwrap();
        }
        server.stop().unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let stored = server.stored_bets();
    // One batch of each may be stored without its answer having arrived.
    assert!(
        (acknowledged..=acknowledged + 8 * 2).contains(&stored),
        "{acknowledged} were acknowledged, {stored} stored"
    );
    assert_eq!(stored % 2, 0, "whole batches only");
}

#[test]
fn a_peer_that_was_told_goodbye_and_sends_on_for_ever_is_closed() {
    let server = Setup::agencies(2).limits(|limits| limits.workers = 1).start();
    let mut talkative = server.connect();
    talkative.ask(b"99999999999\n", b"19\nERROR_INVALID_BATCH");
    // `until` is the deadline: a peer that is read for ever never gets here.
    until("the peer is cut off", || !talkative.try_send(&[b'x'; 1 << 16]));
}
