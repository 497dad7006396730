//! Both dialects: whole draws, and each request with its reply.

use super::{
    ACK, ACK_BATCH_1, ACK_BATCH_2, ACK_DONE, COUNTED_ACK, COUNTED_NOT_READY, FRESH_STATUS, NO_WINNERS,
    NO_WINNERS_PAGE, NOT_READY, done, winning_batch,
};
use crate::test_server::{Client, Setup, TestServer, counted, frame, frames, raw_frame};

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
        (one("HELLO"), b"\0\0\0\x25HELLO|OK|1|uploads,draws,pages,waits\n"),
        (one("HELLO|1"), b"\0\0\0\x15HELLO|ERR|bad_header\n"),
        // Anything else.
        (one("HELO"), b"\0\0\0\x10ACK|ERR|unknown\n"),
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
