//! Peers that end their side of the connection, or vanish.

use super::{ACK_BATCH_2, ACK_DONE, COUNTED_ACK, NO_WINNERS, done, winning_batch};
use crate::test_server::{Setup, counted, frame, frames, long_winning_lines};

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
