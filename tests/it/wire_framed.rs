//! The framed dialect against its contract: golden bytes of every message, and
//! every rule of the protocol's tables. Each input is also delivered byte by
//! byte and in every split into two (see `wire_support`).

use std::time::Duration;

use sorteo_protocol::wire::framed::{PAGE_BYTES_MAX, decode_reply, encode_request};
use sorteo_protocol::wire::{
    Decoder, Dialect, Hello, Incoming, NotAReply, Reason, Reply, Request, Status, Winners, WireLimits,
};
use sorteo_protocol::{AgencyId, DrawId};
use sorteo_test_support::delivery::deliver;

use crate::wire_support::{
    BAD_NUMBERS, Heard, ROW, ROW_2, ROW_3, answer, answer_then_close, assert_decoded, assert_encoded,
    assert_heard, assert_heard_up_to_every_cut, assert_heard_within, assert_reply_read, assert_same_bytes,
    bad_values, batch, frame, good_values, heard, in_draw, placed_batch, reasons, reply_bytes, row_with,
    upload_id, winners_page,
};

// ---- Golden bytes ------------------------------------------------------------

/// Every request, as an agency sends it.
fn golden_requests() -> Vec<(Request, &'static [u8])> {
    let agency = AgencyId(1);
    let wait = |ms| Request::WaitWinners { agency, wait: Duration::from_millis(ms), draw: None };
    vec![
        (
            Request::Bet(batch(1, &[ROW])),
            b"\x00\x00\x00\x34BET|1|Santiago Lionel|Lorca|30904465|1999-03-17|2201",
        ),
        (
            Request::Bet(batch(4294967295, &["Ñandú|Ávila|007|2000-02-29|4294967295"])),
            b"\x00\x00\x00\x37BET|4294967295|\xc3\x91and\xc3\xba|\xc3\x81vila|007|2000-02-29|4294967295",
        ),
        (
            Request::Batch(batch(5, &[ROW, ROW_2])),
            b"\x00\x00\x00\x09BATCH|5|2\
            \x00\x00\x00\x2eSantiago Lionel|Lorca|30904465|1999-03-17|2201\
            \x00\x00\x00\x1bAna|Paz|007|2000-02-29|7574",
        ),
        (Request::Batch(batch(0, &[])), b"\x00\x00\x00\x09BATCH|0|0"),
        (
            Request::Batch(placed_batch(1, &[ROW_2], "2026-11_agency.1", 250)),
            b"\x00\x00\x00\x1eBATCH|1|1|2026-11_agency.1|250\
            \x00\x00\x00\x1bAna|Paz|007|2000-02-29|7574",
        ),
        (Request::Batch(placed_batch(1, &[], "u", 0)), b"\x00\x00\x00\x0dBATCH|1|0|u|0"),
        (Request::Done { agency, bets: None, draw: None }, b"\x00\x00\x00\x06DONE|1"),
        (Request::Done { agency, bets: Some(10_000), draw: None }, b"\x00\x00\x00\x0cDONE|1|10000"),
        (Request::Winners { agency }, b"\x00\x00\x00\x0dGET_WINNERS|1"),
        (winners_page(1, 0, None), b"\x00\x00\x00\x0fGET_WINNERS|1|0"),
        (winners_page(1, 987, None), b"\x00\x00\x00\x11GET_WINNERS|1|987"),
        (winners_page(1, 987, Some(3)), b"\x00\x00\x00\x13GET_WINNERS|1|987|3"),
        (wait(0), b"\x00\x00\x00\x10WAIT_WINNERS|1|0"),
        (wait(1_500), b"\x00\x00\x00\x13WAIT_WINNERS|1|1500"),
        (wait(60_000), b"\x00\x00\x00\x14WAIT_WINNERS|1|60000"),
        (
            Request::Resume { agency, upload: upload_id("2026-11_agency.1"), draw: None },
            b"\x00\x00\x00\x19RESUME|1|2026-11_agency.1",
        ),
        (Request::Batch(in_draw(3, placed_batch(1, &[], "u", 0))), b"\x00\x00\x00\x0fBATCH|1|0|u|0|3"),
        (Request::Done { agency, bets: Some(5), draw: Some(DrawId(3)) }, b"\x00\x00\x00\x0aDONE|1|5|3"),
        (
            Request::WaitWinners { agency, wait: Duration::from_millis(9), draw: Some(DrawId(3)) },
            b"\x00\x00\x00\x12WAIT_WINNERS|1|9|3",
        ),
        (
            Request::Resume { agency, upload: upload_id("u"), draw: Some(DrawId(3)) },
            b"\x00\x00\x00\x0cRESUME|1|u|3",
        ),
        (Request::Hello, b"\x00\x00\x00\x05HELLO"),
        (Request::Status, b"\x00\x00\x00\x06STATUS"),
    ]
}

/// Every form of reply.
fn golden_answers() -> Vec<(Reply, &'static [u8])> {
    let documents = |list: &[&str]| list.iter().map(|document| (*document).to_owned()).collect();
    let page = |list: &[&str], next| Reply::Winners(Ok(Winners::Page { documents: documents(list), next }));
    let batch = |count, result| Reply::Batch { count, result };
    let status =
        |drawn| Reply::Status(Ok(Status { draw: DrawId(3), drawn, done: 4, expected: 5, bets: 78_697 }));
    vec![
        (Reply::Bet(Ok(())), b"\x00\x00\x00\x07ACK|OK\n"),
        (Reply::Unrecognised(Reason::Unknown), b"\x00\x00\x00\x10ACK|ERR|unknown\n"),
        (batch(2, Ok(())), b"\x00\x00\x00\x0fACK_BATCH|OK|2\n"),
        (batch(250, Err(Reason::Gap { next_row: 40 })), b"\x00\x00\x00\x19ACK_BATCH|ERR|250|gap|40\n"),
        (batch(250, Err(Reason::Conflict)), b"\x00\x00\x00\x1bACK_BATCH|ERR|250|conflict\n"),
        (batch(0, Err(Reason::BadHeader)), b"\x00\x00\x00\x1bACK_BATCH|ERR|0|bad_header\n"),
        (Reply::Done(Ok(())), b"\x00\x00\x00\x0cACK_DONE|OK\n"),
        (
            Reply::Done(Err(Reason::CountMismatch { stored: 99 })),
            b"\x00\x00\x00\x1fACK_DONE|ERR|count_mismatch|99\n",
        ),
        (
            Reply::Winners(Ok(Winners::All(documents(&["30904465", "007", "ñ-1"])))),
            b"\x00\x00\x00\x1dWINNERS|OK|30904465,007,\xc3\xb1-1\n",
        ),
        (Reply::Winners(Ok(Winners::All(documents(&["1"])))), b"\x00\x00\x00\x0dWINNERS|OK|1\n"),
        (Reply::Winners(Ok(Winners::All(Vec::new()))), b"\x00\x00\x00\x0cWINNERS|OK|\n"),
        (page(&["1", "2"], Some(987)), b"\x00\x00\x00\x13WINNERS|OK|1,2|987\n"),
        (page(&["3"], None), b"\x00\x00\x00\x0eWINNERS|OK|3|\n"),
        (page(&[], None), b"\x00\x00\x00\x0dWINNERS|OK||\n"),
        (Reply::Winners(Err(Reason::NotReady)), b"\x00\x00\x00\x16WINNERS|ERR|not_ready\n"),
        (Reply::Winners(Err(Reason::UsePages)), b"\x00\x00\x00\x1fWINNERS|ERR|too_many|use_pages\n"),
        (Reply::Resume(Ok(250)), b"\x00\x00\x00\x0eRESUME|OK|250\n"),
        (Reply::Resume(Err(Reason::BadUpload)), b"\x00\x00\x00\x16RESUME|ERR|bad_upload\n"),
        (
            Reply::Hello(Ok(Hello::of_this_version())),
            b"\x00\x00\x00\x25HELLO|OK|1|uploads,draws,pages,waits\n",
        ),
        (Reply::Hello(Err(Reason::BadHeader)), b"\x00\x00\x00\x15HELLO|ERR|bad_header\n"),
        (status(false), b"\x00\x00\x00\x1bSTATUS|OK|3|open|4|5|78697\n"),
        (status(true), b"\x00\x00\x00\x1cSTATUS|OK|3|drawn|4|5|78697\n"),
        (Reply::Status(Err(Reason::Busy)), b"\x00\x00\x00\x10STATUS|ERR|busy\n"),
    ]
}

#[test]
fn every_request_is_encoded_as_its_golden_bytes() {
    assert_encoded(encode_request, &golden_requests());
}

#[test]
fn every_request_is_decoded_from_its_golden_bytes_alone_and_pipelined() {
    assert_decoded(&golden_requests());
}

#[test]
fn the_golden_requests_cut_off_anywhere_are_heard_up_to_the_last_whole_one() {
    assert_heard_up_to_every_cut(&golden_requests());
}

#[test]
fn every_answer_is_encoded_as_its_golden_bytes() {
    for (reply, golden) in golden_answers() {
        assert_same_bytes(&reply_bytes(Dialect::Framed, &reply), golden);
    }
}

#[test]
fn an_agency_reads_every_answer_once_all_its_bytes_are_there() {
    for (reply, golden) in golden_answers() {
        let and_more = [golden, b"\0\0\0"].concat();
        assert_reply_read(decode_reply, &and_more, golden.len(), &reply);
    }
}

#[test]
fn an_agency_refuses_what_is_no_frame_of_text() {
    let answers: [&[u8]; 5] =
        [b"\x00\x00\x00\x00", b"\x00\x00\x20\x01", b"\x00\xff\xff\xff", b"3\nACK", b"\x00\x00\x00\x02\xff\n"];
    for mut bytes in answers {
        assert_eq!(decode_reply(&mut bytes), Err(NotAReply::OtherDialect));
    }
}

#[test]
fn an_agency_refuses_a_frame_that_is_no_reply() {
    for text in [
        "STATUS",
        "ACK",
        "ACK|OK|",
        "ACK|OK|1",
        "ACK|MAYBE",
        "ACK|ERR",
        "ACK|ERR|",
        "ACK|ERR|\u{1b}[2J",
        "ACK_BATCH|OK",
        "ACK_BATCH|OK|-1",
        "ACK_BATCH|ERR|busy",
        "ACK_DONE|OK|1",
        "WINNERS|OK|1|x",
        "WINNERS|OK|1|2|3",
        "RESUME|OK|",
        "RESUME|OK|1|2",
        "STATUS|OK|1|open|0|1",
        "STATUS|OK|1|closed|0|1|0",
        "STATUS|OK|1|open|0|1|0|0",
        "HELLO|OK|1",
    ] {
        let bytes = frame(text);
        let shown = text.escape_debug().to_string();
        assert_eq!(decode_reply(&mut &bytes[..]), Err(NotAReply::Text(shown)), "{text}");
    }
}

#[test]
fn a_reason_of_a_newer_server_is_kept_as_it_came() {
    let mut input = &frame("ACK_BATCH|ERR|3|unknown_agency|7")[..];
    let reason = Reason::Other("unknown_agency|7".into());
    assert_eq!(decode_reply(&mut input), Ok(Some(Reply::Batch { count: 3, result: Err(reason) })));
}

#[test]
fn every_reason_travels_as_its_code_in_every_answer() {
    for (reason, code, _, _) in reasons() {
        let answers = [
            (Reply::Bet(Err(reason.clone())), "ACK|ERR|"),
            (Reply::Batch { count: 250, result: Err(reason.clone()) }, "ACK_BATCH|ERR|250|"),
            (Reply::Done(Err(reason.clone())), "ACK_DONE|ERR|"),
            (Reply::Winners(Err(reason.clone())), "WINNERS|ERR|"),
            (Reply::Resume(Err(reason.clone())), "RESUME|ERR|"),
            (Reply::Status(Err(reason)), "STATUS|ERR|"),
        ];
        for (reply, before) in answers {
            let expected = frame(format!("{before}{code}\n"));
            assert_eq!(reply_bytes(Dialect::Framed, &reply), expected, "{before}{code}");
        }
    }
}

// ---- Winners that fill a frame -----------------------------------------------

/// Documents whose comma-separated list has exactly so many bytes.
fn documents_of(list_bytes: usize) -> Vec<String> {
    let mut documents = vec!["d".repeat(31); list_bytes / 32];
    documents.push("d".repeat(list_bytes % 32));
    documents
}

#[test]
fn winners_that_fill_a_frame_are_sent_and_one_byte_more_is_told_to_use_pages() {
    // 8192 less `WINNERS|OK|` and the newline.
    let winners = |list_bytes| Reply::Winners(Ok(Winners::All(documents_of(list_bytes))));
    let full = reply_bytes(Dialect::Framed, &winners(8180));
    assert_eq!(full.len(), 4 + 8192);
    assert!(full.starts_with(b"\x00\x00\x20\x00WINNERS|OK|ddd"));
    assert!(full.ends_with(b"d\n"));
    assert_eq!(
        reply_bytes(Dialect::Framed, &winners(8181)),
        b"\x00\x00\x00\x1fWINNERS|ERR|too_many|use_pages\n"
    );
}

#[test]
fn the_longest_page_fits_a_frame_whatever_comes_next() {
    let page = |list_bytes| {
        Reply::Winners(Ok(Winners::Page { documents: documents_of(list_bytes), next: Some(u64::MAX) }))
    };
    let full = reply_bytes(Dialect::Framed, &page(PAGE_BYTES_MAX));
    assert_eq!(full.len(), 4 + 8192);
    assert!(full.starts_with(b"\x00\x00\x20\x00WINNERS|OK|ddd"));
    assert!(full.ends_with(b"|18446744073709551615\n"));
}

// ---- Frames ------------------------------------------------------------------

/// Asserts what is heard of one line, and that the connection goes on after it.
#[track_caller]
fn assert_line(line: impl AsRef<[u8]>, expected: Heard) {
    assert_lines(&[line.as_ref()], expected);
}

/// As [`assert_line`], of a message that takes several frames.
#[track_caller]
fn assert_lines(lines: &[&[u8]], expected: Heard) {
    let mut input: Vec<u8> = lines.iter().flat_map(frame).collect();
    input.extend(frame("STATUS"));
    assert_heard(&input, &[expected, Heard::Request(Request::Status)]);
}

#[test]
fn a_frame_length_of_0_or_over_8192_is_bad_frame_and_closes() {
    let bad: [&[u8]; 6] = [
        b"\x00\x00\x00\x00",
        b"\x00\x00\x20\x01",
        b"\x00\x00\xff\xff",
        b"\x00\x01\x00\x00",
        b"\x00\x01\x00\x06STATUS",
        b"\x00\xff\xff\xff",
    ];
    for length in bad {
        // No byte of the frame is waited for, and nothing behind it is read.
        assert_heard(length, &[answer_then_close("ACK|ERR|bad_frame")]);
        let input = [length, &frame("STATUS")].concat();
        assert_heard(&input, &[answer_then_close("ACK|ERR|bad_frame")]);
    }
}

#[test]
fn the_dialect_stays_framed_whatever_a_later_frame_begins_with() {
    let later: [&[u8]; 4] = [b"6\nSTATUS", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02", b"\xff\xff\xff\xff"];
    for later in later {
        let input = [&frame("STATUS"), later].concat();
        let expected = [Heard::Request(Request::Status), answer_then_close("ACK|ERR|bad_frame")];
        assert_heard(&input, &expected);
    }
}

#[test]
fn a_frame_of_8192_bytes_is_read_and_the_connection_stays() {
    let before = "BET|1|Ana|Paz|007|2000-02-29|";
    let line = format!("{before}{:0>1$}", 7574, 8192 - before.len());
    assert_eq!(line.len(), 8192);
    assert_line(line, Heard::Request(Request::Bet(batch(1, &[ROW_2]))));
    assert_line([b'x'; 8192], answer("ACK|ERR|unknown"));
}

#[test]
fn a_bad_frame_inside_a_batch_closes_and_the_batch_is_still_known() {
    let input = [frame("BATCH|1|3"), frame(ROW), vec![0; 4], frame(ROW)].concat();
    assert_heard(&input, &[answer_then_close("ACK|ERR|bad_frame")]);
    let delivered = deliver(WireLimits::default(), [&input[..]]);
    assert_eq!(delivered.batch_in_progress, Some(3));
}

#[test]
fn one_trailing_line_end_is_not_part_of_a_message() {
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let messages = [
        (owned(&[&format!("BET|1|{ROW}")]), Request::Bet(batch(1, &[ROW]))),
        (owned(&["BATCH|1|2", ROW, &format!("BET|1|{ROW_2}")]), Request::Batch(batch(1, &[ROW, ROW_2]))),
        (owned(&["BATCH|1|0|up|7"]), Request::Batch(placed_batch(1, &[], "up", 7))),
        (owned(&["DONE|1"]), Request::Done { agency: AgencyId(1), bets: None, draw: None }),
        (owned(&["GET_WINNERS|1"]), Request::Winners { agency: AgencyId(1) }),
        (owned(&["GET_WINNERS|1|0"]), winners_page(1, 0, None)),
        (
            owned(&["WAIT_WINNERS|1|9"]),
            Request::WaitWinners { agency: AgencyId(1), wait: Duration::from_millis(9), draw: None },
        ),
        (
            owned(&["RESUME|1|up"]),
            Request::Resume { agency: AgencyId(1), upload: upload_id("up"), draw: None },
        ),
        (owned(&["STATUS"]), Request::Status),
    ];
    for (lines, request) in messages {
        for end in ["\n", "\r\n"] {
            let ended: Vec<_> = lines.iter().map(|line| format!("{line}{end}")).collect();
            let ended: Vec<_> = ended.iter().map(String::as_bytes).collect();
            assert_lines(&ended, Heard::Request(request.clone()));
        }
    }
}

#[test]
fn what_stands_before_the_one_trailing_line_end_is_part_of_the_message() {
    for (line, words) in [
        ("DONE|1\n\n", "ACK_DONE|ERR|bad_agency"),
        ("DONE|1\n\r\n", "ACK_DONE|ERR|bad_agency"),
        ("DONE|1\r\r\n", "ACK_DONE|ERR|bad_agency"),
        ("DONE|1 \n", "ACK_DONE|ERR|bad_agency"),
        ("\nDONE|1", "ACK|ERR|unknown"),
        ("STATUS\n\n", "ACK|ERR|unknown"),
    ] {
        assert_line(line, answer(words));
    }
}

#[test]
fn a_carriage_return_without_a_newline_is_no_line_end() {
    assert_line("DONE|1\r", answer("ACK_DONE|ERR|bad_agency"));
    assert_line(format!("BET|1|{ROW}\r"), answer("ACK|ERR|bad_number"));
    assert_line("STATUS\r", answer("ACK|ERR|unknown"));
}

#[test]
fn what_is_no_request_is_answered_unknown_and_the_connection_stays() {
    let lines: [&[u8]; 18] = [
        b"\n",
        b"\r\n",
        b" ",
        b"|",
        b"||||||",
        b"PING",
        b"PING|1",
        b"ACK|OK",
        b"WINNERS|OK|",
        b"bet|1|Ana|Paz|007|2000-02-29|7574",
        b" BET|1|Ana|Paz|007|2000-02-29|7574",
        b"BETS|1|Ana|Paz|007|2000-02-29|7574",
        b"Ana|Paz|007|2000-02-29|7574",
        b"BATCHES|1|1",
        b"GET_WINNERS |1",
        b"STATUSES",
        b"\xff\xfe",
        b"\x00\x00\x00\x06STATUS",
    ];
    for line in lines {
        assert_line(line, answer("ACK|ERR|unknown"));
    }
}

// ---- The agency in every request -----------------------------------------------

#[test]
fn an_agency_is_decimal_digits_up_to_32_bits_and_leading_zeros_do_not_count() {
    for (text, number) in
        [("0", 0), ("1", 1), ("01", 1), ("0000000000000000000000001", 1), ("4294967295", 4294967295)]
    {
        let agency = AgencyId(number);
        let requests = [
            (format!("BET|{text}|{ROW}"), Request::Bet(batch(number, &[ROW]))),
            (format!("BATCH|{text}|0"), Request::Batch(batch(number, &[]))),
            (format!("DONE|{text}"), Request::Done { agency, bets: None, draw: None }),
            (format!("GET_WINNERS|{text}"), Request::Winners { agency }),
            (format!("GET_WINNERS|{text}|0"), winners_page(number, 0, None)),
            (
                format!("WAIT_WINNERS|{text}|0"),
                Request::WaitWinners { agency, wait: Duration::ZERO, draw: None },
            ),
            (format!("RESUME|{text}|u"), Request::Resume { agency, upload: upload_id("u"), draw: None }),
        ];
        for (line, request) in requests {
            assert_line(line, Heard::Request(request));
        }
    }
}

#[test]
fn what_is_no_agency_is_refused_in_every_request() {
    for text in BAD_NUMBERS.into_iter().chain(["4294967296", "a"]) {
        for (line, words) in [
            (format!("BET|{text}|{ROW}"), "ACK|ERR|bad_agency"),
            (format!("BATCH|{text}|0"), "ACK_BATCH|ERR|0|bad_agency"),
            (format!("DONE|{text}"), "ACK_DONE|ERR|bad_agency"),
            (format!("DONE|{text}|1"), "ACK_DONE|ERR|bad_agency"),
            (format!("GET_WINNERS|{text}"), "WINNERS|ERR|bad_agency"),
            (format!("GET_WINNERS|{text}|0"), "WINNERS|ERR|bad_agency"),
            (format!("GET_WINNERS|{text}|0|1"), "WINNERS|ERR|bad_agency"),
            (format!("WAIT_WINNERS|{text}|0"), "WINNERS|ERR|bad_agency"),
            (format!("RESUME|{text}|u"), "RESUME|ERR|bad_agency"),
        ] {
            assert_line(line, answer(words));
        }
    }
}

// ---- BET -----------------------------------------------------------------------

#[test]
fn a_bet_takes_every_good_value_in_every_field() {
    for (field, value) in good_values() {
        let row = row_with(field, &value);
        let expected = Request::Bet(batch(1, &[&row]));
        assert_line(format!("BET|1|{row}"), Heard::Request(expected));
    }
}

#[test]
fn a_bet_refuses_every_bad_value_in_every_field() {
    for (field, value, code) in bad_values() {
        let line = format!("BET|1|{}", row_with(field, &value));
        assert_line(line, answer(&format!("ACK|ERR|{code}")));
    }
}

#[test]
fn a_bet_has_exactly_six_fields_after_its_verb() {
    for line in [
        "BET",
        "BET|",
        "BET|1",
        "BET|1|Ana|Paz|007|2000-02-29",
        "BET|1|Ana|Paz|007|2000-02-29|7574|",
        "BET|1|Ana|Paz|007|2000-02-29|7574|x",
        "BET|1|An|a|Paz|007|2000-02-29|7574",
        "BET|Ana|Paz|007|2000-02-29|7574",
    ] {
        assert_line(line, answer("ACK|ERR|bad_fields"));
    }
}

#[test]
fn a_bet_that_is_not_utf_8_is_told_so() {
    let bets: [&[u8]; 3] = [
        b"BET|1|Jos\xe9|Paz|007|2000-02-29|7574",
        b"BET|1|Ana|\xc3|007|2000-02-29|7574",
        b"BET|1|\xed\xa0\x80|Paz|007|2000-02-29|7574",
    ];
    for bet in bets {
        assert_line(bet, answer("ACK|ERR|bad_utf8"));
    }
}

#[test]
fn of_several_bad_fields_the_first_is_named() {
    for (line, words) in [
        ("BET|x||||x|x", "ACK|ERR|bad_agency"),
        ("BET|1||||x|x", "ACK|ERR|bad_first_name"),
        ("BET|1|Ana|||x|x", "ACK|ERR|bad_last_name"),
        ("BET|1|Ana|Paz||x|x", "ACK|ERR|bad_document"),
        ("BET|1|Ana|Paz|007|x|x", "ACK|ERR|bad_birthdate"),
    ] {
        assert_line(line, answer(words));
    }
}

// ---- BATCH ---------------------------------------------------------------------

#[test]
fn a_batch_takes_rows_of_five_fields_and_of_seven() {
    let with_header = |agency: &str, row: &str| format!("BET|{agency}|{row}");
    for second in [ROW_2.to_owned(), with_header("1", ROW_2), with_header("01", ROW_2)] {
        for third in [ROW_3.to_owned(), with_header("1", ROW_3)] {
            let lines = ["BATCH|1|3", ROW, &second, &third].map(str::as_bytes);
            let expected = Request::Batch(batch(1, &[ROW, ROW_2, ROW_3]));
            assert_lines(&lines, Heard::Request(expected));
        }
    }
}

#[test]
fn a_row_of_five_fields_may_begin_with_a_bettor_named_like_a_verb() {
    for row in ["BET|Paz|007|2000-02-29|1", "DONE|1|1|2000-02-29|1", "BATCH|1|1|2000-02-29|1"] {
        let expected = Request::Batch(batch(1, &[row]));
        assert_lines(&[b"BATCH|1|1", row.as_bytes()], Heard::Request(expected));
    }
}

#[test]
fn a_batch_takes_every_good_value_in_every_field() {
    for (field, value) in good_values() {
        let row = row_with(field, &value);
        let expected = Request::Batch(batch(1, &[ROW_2, &row]));
        assert_lines(&[b"BATCH|1|2", ROW_2.as_bytes(), row.as_bytes()], Heard::Request(expected));
    }
}

#[test]
fn a_batch_names_the_row_with_a_bad_value_and_stays_in_step() {
    for (field, value, code) in bad_values() {
        let row = row_with(field, &value);
        let lines = [b"BATCH|1|2", ROW.as_bytes(), row.as_bytes()];
        assert_lines(&lines, answer(&format!("ACK_BATCH|ERR|2|row 2: {code}")));
    }
}

#[test]
fn a_batch_names_a_row_that_is_no_row_and_stays_in_step() {
    let rows: [(&[u8], &str); 15] = [
        (b"\n", "bad_fields"),
        (b"|", "bad_fields"),
        (b"Ana|Paz|007|2000-02-29", "bad_fields"),
        (b"Ana|Paz|007|2000-02-29|7574|1", "bad_fields"),
        (b"BET|1|Ana|Paz|007|2000-02-29", "bad_fields"),
        (b"BET|1|Ana|Paz|007|2000-02-29|7574|1", "bad_fields"),
        (b"bet|1|Ana|Paz|007|2000-02-29|7574", "bad_fields"),
        (b"DONE|1", "bad_fields"),
        (b"BATCH|1|3", "bad_fields"),
        (b"STATUS", "bad_fields"),
        (b"BET|2|Ana|Paz|007|2000-02-29|7574", "agency_mismatch"),
        (b"BET|x|Ana|Paz|007|2000-02-29|7574", "bad_agency"),
        (b"BET|+1|Ana|Paz|007|2000-02-29|7574", "bad_agency"),
        (b"BET|1|Ana|Paz|007|2000-02-30|7574", "bad_birthdate"),
        (b"Jos\xe9|Paz|007|2000-02-29|7574", "bad_utf8"),
    ];
    let good = ROW.as_bytes();
    for (bad, code) in rows {
        let header = b"BATCH|1|3";
        for (lines, row) in
            [([header, bad, good, good], 1), ([header, good, bad, good], 2), ([header, good, good, bad], 3)]
        {
            assert_lines(&lines, answer(&format!("ACK_BATCH|ERR|3|row {row}: {code}")));
        }
    }
}

#[test]
fn of_several_bad_rows_the_first_is_named() {
    let lines: [&[u8]; 5] = [b"BATCH|1|4", ROW.as_bytes(), b"x", b"BET|2|a", b"\xff"];
    assert_lines(&lines, answer("ACK_BATCH|ERR|4|row 2: bad_fields"));
}

#[test]
fn a_batch_after_a_bad_batch_is_stored_whole() {
    let lines: Vec<_> = ["BATCH|1|2", ROW, "x", "BATCH|2|1", ROW_2].into_iter().flat_map(frame).collect();
    let expected = Request::Batch(batch(2, &[ROW_2]));
    assert_heard(&lines, &[answer("ACK_BATCH|ERR|2|row 2: bad_fields"), Heard::Request(expected)]);
}

#[test]
fn a_batch_of_no_rows_is_whole_with_its_header() {
    for (header, expected) in [
        ("BATCH|1|0", batch(1, &[])),
        ("BATCH|1|000", batch(1, &[])),
        ("BATCH|1|0|up|3", placed_batch(1, &[], "up", 3)),
    ] {
        assert_line(header, Heard::Request(Request::Batch(expected)));
    }
}

#[test]
fn a_count_may_have_leading_zeros() {
    let lines = [b"BATCH|1|00000000000000000000002", ROW.as_bytes(), ROW_2.as_bytes()];
    assert_lines(&lines, Heard::Request(Request::Batch(batch(1, &[ROW, ROW_2]))));
}

#[test]
fn a_batch_header_with_missing_or_excess_fields_is_bad_header() {
    for header in ["BATCH", "BATCH|", "BATCH|1", "BATCH|1|2|up", "BATCH|1|2|up|0|1|", "BATCH|1|2|up|0|1|x"] {
        assert_line(header, answer("ACK_BATCH|ERR|0|bad_header"));
    }
}

#[test]
fn a_count_that_is_no_decimal_number_is_bad_count() {
    // Digits alone are a number, however many: too many, not bad.
    let not_digits = BAD_NUMBERS.into_iter().filter(|text| !text.starts_with('9'));
    for count in not_digits.chain(["-5", "x", "0x", "-0"]) {
        assert_line(format!("BATCH|1|{count}"), answer("ACK_BATCH|ERR|0|bad_count"));
        assert_line(format!("BATCH|1|{count}|up|0"), answer("ACK_BATCH|ERR|0|bad_count"));
    }
}

#[test]
fn rows_behind_a_header_that_cannot_be_read_are_not_stored_as_single_bets() {
    let bet = format!("BET|1|{ROW}");
    let stray = answer("ACK|ERR|stray_row");
    for (header, refused) in [
        ("BATCH|1|x", "ACK_BATCH|ERR|0|bad_count"),
        ("BATCH|1", "ACK_BATCH|ERR|0|bad_header"),
        ("BATCH|1|2|up", "ACK_BATCH|ERR|0|bad_header"),
    ] {
        let lines = [header, &bet, ROW, &bet, "STATUS", &bet].map(frame).concat();
        let heard = [
            answer(refused),
            stray.clone(),
            answer("ACK|ERR|unknown"),
            stray.clone(),
            Heard::Request(Request::Status),
            // Another request shows that the rows are over: this one is a bet.
            Heard::Request(Request::Bet(batch(1, &[ROW]))),
        ];
        assert_heard(&lines, &heard);
        let lines = [header, "BATCH|1|1", ROW, &bet].map(frame).concat();
        let heard = [
            answer(refused),
            Heard::Request(Request::Batch(batch(1, &[ROW]))),
            Heard::Request(Request::Bet(batch(1, &[ROW]))),
        ];
        assert_heard(&lines, &heard);
    }
}

#[test]
fn what_is_not_utf_8_is_refused_as_what_it_is() {
    for (line, refused) in [
        (&b"DONE|\xff"[..], "ACK_DONE|ERR|bad_agency"),
        (b"GET_WINNERS|\xff", "WINNERS|ERR|bad_agency"),
        (b"RESUME|1|\xff", "RESUME|ERR|bad_upload"),
        (b"STATUS\xff", "ACK|ERR|unknown"),
        (b"BATCH|1|0|\xff|0", "ACK_BATCH|ERR|0|bad_upload"),
    ] {
        assert_heard(
            &[frame(line), frame("STATUS")].concat(),
            &[answer(refused), Heard::Request(Request::Status)],
        );
    }
}

#[test]
fn a_count_over_the_limit_is_too_many_at_the_header_and_closes() {
    for (count, told) in [
        ("10001", "10001"),
        ("010001", "10001"),
        ("18446744073709551615", "18446744073709551615"),
        // A count that does not fit is replaced by the largest that does.
        ("99999999999999999999999", "18446744073709551615"),
    ] {
        let refused = [answer_then_close(&format!("ACK_BATCH|ERR|{told}|too_many"))];
        for header in [format!("BATCH|1|{count}"), format!("BATCH|1|{count}|up|0")] {
            assert_heard(&frame(&header), &refused);
            // What may be rows is not taken for requests.
            assert_heard(&[frame(&header), frame("STATUS")].concat(), &refused);
        }
    }
}

#[test]
fn a_count_at_the_limit_is_taken_and_one_more_is_too_many() {
    let limits = WireLimits { batch_bets_max: 2, ..WireLimits::default() };
    let rows = ["BATCH|1|2", ROW, ROW_2].map(frame).concat();
    assert_heard_within(limits, &rows, &[Heard::Request(Request::Batch(batch(1, &[ROW, ROW_2])))]);
    let refused = [answer_then_close("ACK_BATCH|ERR|3|too_many")];
    assert_heard_within(limits, &frame("BATCH|1|3"), &refused);
}

#[test]
fn ten_thousand_bets_are_taken_by_default() {
    let mut input = frame("BATCH|1|10000");
    (0..10_000).for_each(|_| input.extend(frame(ROW_3)));
    let delivered = deliver(WireLimits::default(), input.chunks(16 << 10));
    let expected = Heard::Request(Request::Batch(batch(1, &[ROW_3; 10_000])));
    assert!(heard(&delivered) == [expected], "a batch of 10,000 is taken whole");
}

#[test]
fn a_bad_batch_header_with_a_good_count_takes_its_rows_along() {
    let long = "a".repeat(65);
    for (header, code) in [
        ("BATCH|x|2".to_owned(), "bad_agency"),
        ("BATCH|4294967296|2".to_owned(), "bad_agency"),
        ("BATCH|x|2|a b|-1".to_owned(), "bad_agency"),
        ("BATCH|1|2||0".to_owned(), "bad_upload"),
        ("BATCH|1|2|a b|-1".to_owned(), "bad_upload"),
        ("BATCH|1|2|ñ|0".to_owned(), "bad_upload"),
        (format!("BATCH|1|2|{long}|0"), "bad_upload"),
        ("BATCH|1|2|up|-1".to_owned(), "bad_first_row"),
        ("BATCH|1|2|up|".to_owned(), "bad_first_row"),
    ] {
        let expected = answer(&format!("ACK_BATCH|ERR|2|{code}"));
        assert_lines(&[header.as_bytes(), ROW.as_bytes(), ROW.as_bytes()], expected.clone());
        // The header came first: its reason stays, whatever the rows hold.
        assert_lines(&[header.as_bytes(), b"\xff", b"DONE|1"], expected);
    }
}

#[test]
fn an_upload_is_1_to_64_letters_digits_dots_underscores_and_hyphens() {
    let longest = "aZ09._-x".repeat(8);
    for good in ["a", "Z", "0", ".", "_", "-", "2026-11-21_agency.1", &longest] {
        let resume = Request::Resume { agency: AgencyId(1), upload: upload_id(good), draw: None };
        assert_line(format!("RESUME|1|{good}"), Heard::Request(resume));
        let batch = Request::Batch(placed_batch(1, &[], good, 0));
        assert_line(format!("BATCH|1|0|{good}|0"), Heard::Request(batch));
    }
    let too_long = format!("{longest}a");
    for bad in
        ["", " ", "a b", "a/b", "a\\b", "a:b", "a,b", "a+b", "ñ", "a\tb", "a\nb", "a\u{202e}b", &too_long]
    {
        assert_line(format!("RESUME|1|{bad}"), answer("RESUME|ERR|bad_upload"));
        assert_line(format!("BATCH|1|0|{bad}|0"), answer("ACK_BATCH|ERR|0|bad_upload"));
    }
}

#[test]
fn a_first_row_is_decimal_digits_up_to_63_bits() {
    for (text, first_row) in
        [("0", 0), ("007", 7), ("250", 250), ("9223372036854775807", 9223372036854775807)]
    {
        let expected = Request::Batch(placed_batch(1, &[ROW], "up", first_row));
        let header = format!("BATCH|1|1|up|{text}");
        assert_lines(&[header.as_bytes(), ROW.as_bytes()], Heard::Request(expected));
    }
    for bad in BAD_NUMBERS.into_iter().chain(["9223372036854775808"]) {
        let header = format!("BATCH|1|1|up|{bad}");
        let expected = answer("ACK_BATCH|ERR|1|bad_first_row");
        assert_lines(&[header.as_bytes(), ROW.as_bytes()], expected);
    }
}

#[test]
fn a_batch_that_the_stream_ends_in_is_no_message_but_its_count_is_known() {
    let lines = [frame("BATCH|1|3"), frame(ROW), frame("a bad row"), frame(ROW)];
    for whole_lines in 1..lines.len() {
        let next = &lines[whole_lines];
        for piece in [&[][..], &next[..2], &next[..next.len() - 1]] {
            let input = [&lines[..whole_lines].concat(), piece].concat();
            let delivered = deliver(WireLimits::default(), [&input[..]]);
            assert_eq!(delivered.messages, []);
            assert_eq!(delivered.batch_in_progress, Some(3));
            assert_eq!(delivered.waiting_bytes, piece.len());
        }
    }
    let delivered = deliver(WireLimits::default(), [&lines.concat()[..]]);
    assert_eq!(delivered.batch_in_progress, None, "it is whole");
}

#[test]
fn a_batch_holds_its_good_rows_and_from_the_first_bad_one_on_nothing() {
    // The row, its line end, and the places of its six fields.
    const ROW_BYTES: usize = ROW.len() + 1 + 6 * 4;
    let mut decoder = Decoder::new(WireLimits::default());
    for (line, held) in [("BATCH|1|10000", 0), (ROW, ROW_BYTES), (ROW, 2 * ROW_BYTES), ("x", 0), (ROW, 0)] {
        let bytes = frame(line);
        let mut input = &bytes[..];
        assert_eq!(decoder.decode(&mut input), None);
        assert_eq!(input, b"", "a row is used as it comes");
        assert_eq!(decoder.held_bytes(), held, "after {line}");
    }
}

#[test]
fn after_a_batch_is_abandoned_requests_are_read_again() {
    let mut decoder = Decoder::new(WireLimits::default());
    let bytes = [frame("BATCH|1|3"), frame(ROW)].concat();
    assert_eq!(decoder.decode(&mut &bytes[..]), None);
    decoder.abandon_batch();
    assert_eq!((decoder.batch_in_progress(), decoder.held_bytes()), (None, 0));
    let status = frame("STATUS");
    assert_eq!(decoder.decode(&mut &status[..]), Some(Incoming::Request(Request::Status)));
}

// ---- DONE, GET_WINNERS, WAIT_WINNERS, RESUME, STATUS ------------------------------

#[test]
fn done_has_an_agency_perhaps_a_count_and_perhaps_a_draw() {
    let done = |bets, draw: Option<i64>| {
        Heard::Request(Request::Done { agency: AgencyId(1), bets, draw: draw.map(DrawId) })
    };
    assert_line("DONE|1", done(None, None));
    assert_line("DONE|1||3", done(None, Some(3)));
    assert_line("DONE|1|", answer("ACK_DONE|ERR|bad_count"));
    for (text, count) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
        assert_line(format!("DONE|1|{text}"), done(Some(count), None));
        assert_line(format!("DONE|1|{text}|03"), done(Some(count), Some(3)));
    }
    for bad in BAD_NUMBERS {
        assert_line(format!("DONE|1|{bad}"), answer("ACK_DONE|ERR|bad_count"));
        assert_line(format!("DONE|1|0|{bad}"), answer("ACK_DONE|ERR|bad_draw"));
    }
    for bad in BAD_NUMBERS.into_iter().filter(|text| !text.is_empty()) {
        assert_line(format!("DONE|1|{bad}|1"), answer("ACK_DONE|ERR|bad_count"));
    }
    for line in ["DONE", "DONE|1|2|3|4", "DONE|1|2|3|"] {
        assert_line(line, answer("ACK_DONE|ERR|bad_header"));
    }
}

#[test]
fn get_winners_has_an_agency_perhaps_a_place_and_perhaps_a_draw() {
    for (line, request) in [
        ("GET_WINNERS|1", Request::Winners { agency: AgencyId(1) }),
        ("GET_WINNERS|1|0", winners_page(1, 0, None)),
        ("GET_WINNERS|1|007", winners_page(1, 7, None)),
        ("GET_WINNERS|1|9223372036854775807", winners_page(1, 9223372036854775807, None)),
        ("GET_WINNERS|1|0|1", winners_page(1, 0, Some(1))),
        ("GET_WINNERS|1|5|9223372036854775807", winners_page(1, 5, Some(9223372036854775807))),
    ] {
        assert_line(line, Heard::Request(request));
    }
    for line in ["GET_WINNERS", "GET_WINNERS|1|0|1|", "GET_WINNERS|1|0|1|2"] {
        assert_line(line, answer("WINNERS|ERR|bad_header"));
    }
    for bad in BAD_NUMBERS.into_iter().chain(["9223372036854775808"]) {
        assert_line(format!("GET_WINNERS|1|{bad}"), answer("WINNERS|ERR|bad_after"));
        assert_line(format!("GET_WINNERS|1|{bad}|1"), answer("WINNERS|ERR|bad_after"));
        assert_line(format!("GET_WINNERS|1|0|{bad}"), answer("WINNERS|ERR|bad_draw"));
    }
}

#[test]
fn wait_winners_waits_at_most_60000_milliseconds() {
    for (text, ms) in [("0", 0), ("1", 1), ("0500", 500), ("60000", 60_000)] {
        let request = |draw| {
            let (agency, wait) = (AgencyId(1), Duration::from_millis(ms));
            Heard::Request(Request::WaitWinners { agency, wait, draw })
        };
        assert_line(format!("WAIT_WINNERS|1|{text}"), request(None));
        assert_line(format!("WAIT_WINNERS|1|{text}|2"), request(Some(DrawId(2))));
    }
    for bad in BAD_NUMBERS {
        assert_line(format!("WAIT_WINNERS|1|0|{bad}"), answer("WINNERS|ERR|bad_draw"));
    }
    for bad in BAD_NUMBERS.into_iter().chain(["60001", "4294967296", "18446744073709551615"]) {
        assert_line(format!("WAIT_WINNERS|1|{bad}"), answer("WINNERS|ERR|bad_wait"));
    }
    for line in ["WAIT_WINNERS", "WAIT_WINNERS|1", "WAIT_WINNERS|1|0|1|", "WAIT_WINNERS|1|0|1|2"] {
        assert_line(line, answer("WINNERS|ERR|bad_header"));
    }
}

#[test]
fn resume_has_an_agency_an_upload_and_perhaps_a_draw() {
    let request =
        |draw| Heard::Request(Request::Resume { agency: AgencyId(1), upload: upload_id("up"), draw });
    assert_line("RESUME|1|up", request(None));
    assert_line("RESUME|1|up|3", request(Some(DrawId(3))));
    for bad in BAD_NUMBERS {
        assert_line(format!("RESUME|1|up|{bad}"), answer("RESUME|ERR|bad_draw"));
    }
    for line in ["RESUME", "RESUME|", "RESUME|1", "RESUME|1|up|1|", "RESUME|1|up|1|2"] {
        assert_line(line, answer("RESUME|ERR|bad_header"));
    }
}

#[test]
fn a_batch_may_name_its_draw() {
    let named = in_draw(3, placed_batch(1, &[], "up", 0));
    assert_line("BATCH|1|0|up|0|3", Heard::Request(Request::Batch(named)));
    for bad in BAD_NUMBERS {
        assert_line(format!("BATCH|1|0|up|0|{bad}"), answer("ACK_BATCH|ERR|0|bad_draw"));
    }
}

#[test]
fn hello_has_no_field_and_a_client_takes_words_that_it_does_not_know() {
    assert_line("HELLO", Heard::Request(Request::Hello));
    for line in ["HELLO|", "HELLO|1"] {
        assert_line(line, answer("HELLO|ERR|bad_header"));
    }
    let read = |line: &str| decode_reply(&mut &frame(line)[..]).ok().flatten();
    let newer = Hello { version: 2, words: vec!["draws".to_owned(), "far_sight".to_owned()] };
    assert_eq!(read("HELLO|OK|2|draws,far_sight"), Some(Reply::Hello(Ok(newer))));
    for line in
        ["HELLO|OK|1", "HELLO|OK|1|", "HELLO|OK|x|draws", "HELLO|OK|1|a,,b", "HELLO|OK|1|a|b", "HELLO|OK|1|A"]
    {
        assert_eq!(read(line), None, "{line}");
    }
}

#[test]
fn status_has_no_field() {
    assert_line("STATUS", Heard::Request(Request::Status));
    for line in ["STATUS|", "STATUS|x", "STATUS|1|2"] {
        assert_line(line, answer("STATUS|ERR|bad_header"));
    }
}
