//! Replies that are longer than a buffer.

use super::{ACK_DONE, COUNTED_ACK, done, winning_batch};
use crate::test_server::{Setup, counted, frame, long_winning_lines};

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
