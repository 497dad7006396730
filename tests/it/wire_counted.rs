//! The counted dialect against its contract: golden bytes of every message, and
//! every rule of the protocol's table. Each input is also delivered byte by byte
//! and in every split into two (see `wire_support`).

use sorteo_protocol::wire::counted::{append_payload, decode_reply, encode_request, winner_line};
use sorteo_protocol::wire::{
    Decoder, Dialect, Incoming, NotAReply, Reason, Reply, Request, Winners, WinnersSize, WinningBet,
    WinningBets, WireLimits,
};
use sorteo_protocol::{AgencyId, Bet, BetError};
use sorteo_test_support::delivery::deliver;

use crate::wire_support::{
    BAD_NUMBERS, Heard, ROW, ROW_2, ROW_3, answer, answer_then_close, assert_decoded, assert_encoded,
    assert_heard, assert_heard_up_to_every_cut, assert_heard_within, assert_reply_read, assert_same_bytes,
    bad_values, batch, bets, good_values, heard, payload, reasons, reply_bytes, row_with,
};

const INVALID_BATCH: &str = "ERROR_INVALID_BATCH";
const EMPTY_BATCH: &str = "ERROR_EMPTY_BATCH";
const INVALID_GET_WINNERS: &str = "ERROR_INVALID_GET_WINNERS";

fn done_and_winners(agency: u32) -> Request {
    Request::DoneAndWinners { agency: AgencyId(agency) }
}

// ---- Golden bytes ------------------------------------------------------------

/// Every request, as an agency sends it.
fn golden_requests() -> Vec<(Request, &'static [u8])> {
    vec![
        (Request::Payload(vec![batch(1, &[ROW])]), b"48\nSantiago Lionel|Lorca|30904465|1999-03-17|2201|1"),
        (
            Request::Payload(vec![batch(4294967295, &["Ñandú|Ávila|007|2000-02-29|4294967295"])]),
            b"51\n\xc3\x91and\xc3\xba|\xc3\x81vila|007|2000-02-29|4294967295|4294967295",
        ),
        (
            Request::Payload(vec![batch(2, &[ROW_2, ROW_3]), batch(0, &[ROW_3])]),
            b"75\nAna|Paz|007|2000-02-29|7574|2\nBo|Li|9|1980-12-31|0|2\nBo|Li|9|1980-12-31|0|0",
        ),
        (done_and_winners(1), b"13\nGET_WINNERS|1"),
        (done_and_winners(4294967295), b"22\nGET_WINNERS|4294967295"),
    ]
}

/// Winning bets of agency 1.
fn winning_bets(rows: &[&str]) -> WinningBets {
    let winning_bet = |bet: Bet<'_>| {
        let texts = [bet.first_name, bet.last_name, bet.document, bet.birthdate].map(str::to_owned);
        let [first_name, last_name, document, birthdate] = texts;
        WinningBet { first_name, last_name, document, birthdate, number: bet.number }
    };
    WinningBets { agency: AgencyId(1), bets: bets(rows).iter().map(winning_bet).collect() }
}

/// Every form of answer, and the text that an agency reads in it.
fn golden_answers() -> Vec<(Reply, &'static [u8], &'static str)> {
    let batch = |result| Reply::Batch { count: 2, result };
    let lines = |rows: &[&str]| Reply::Winners(Ok(Winners::Bets { first: winning_bets(rows), total: None }));
    vec![
        (batch(Ok(())), b"3\nACK", "ACK"),
        (Reply::Bet(Ok(())), b"3\nACK", "ACK"),
        (batch(Err(Reason::DrawClosed)), b"19\nERROR_INVALID_BATCH", "ERROR_INVALID_BATCH"),
        (Reply::Bet(Err(Reason::DrawClosed)), b"19\nERROR_INVALID_BATCH", "ERROR_INVALID_BATCH"),
        (batch(Err(Reason::EmptyBatch)), b"17\nERROR_EMPTY_BATCH", "ERROR_EMPTY_BATCH"),
        (batch(Err(Reason::Busy)), b"10\nERROR_BUSY", "ERROR_BUSY"),
        (
            Reply::Winners(Err(Reason::NotReady)),
            b"25\nERROR_LOTTERY_HASNT_ENDED",
            "ERROR_LOTTERY_HASNT_ENDED",
        ),
        (
            Reply::Winners(Err(Reason::BadAgency)),
            b"25\nERROR_INVALID_GET_WINNERS",
            "ERROR_INVALID_GET_WINNERS",
        ),
        (Reply::Winners(Err(Reason::Busy)), b"10\nERROR_BUSY", "ERROR_BUSY"),
        (lines(&[]), b"0\n", ""),
        (
            lines(&["Ana|Paz|007|2000-02-29|7574", "Ñandú|Li|9|1980-12-31|7574"]),
            b"60\nAna|Paz|007|2000-02-29|7574|1\n\xc3\x91and\xc3\xba|Li|9|1980-12-31|7574|1",
            "Ana|Paz|007|2000-02-29|7574|1\nÑandú|Li|9|1980-12-31|7574|1",
        ),
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
    for (reply, golden, _) in golden_answers() {
        assert_same_bytes(&reply_bytes(Dialect::Counted, &reply), golden);
    }
}

#[test]
fn winners_longer_than_their_head_announce_their_whole_length() {
    // 100,000 lines of 29 bytes, and a line end between them.
    let total = WinnersSize { bets: 100_000, text_bytes: 1_900_000 };
    let first = winning_bets(&["Ana|Paz|007|2000-02-29|7574"]);
    let reply = Reply::Winners(Ok(Winners::Bets { first, total: Some(total) }));
    assert_eq!(reply_bytes(Dialect::Counted, &reply), b"2999999\nAna|Paz|007|2000-02-29|7574|1");
}

#[test]
fn a_winning_bet_is_answered_in_the_form_it_was_sent_in() {
    let bets = bets(&["Ñandú|Ávila|007|2000-02-29|0007574"]);
    let bet = bets.iter().next().expect("one bet");
    assert_eq!(winner_line(AgencyId(5), bet), "Ñandú|Ávila|007|2000-02-29|7574|5");
}

#[test]
fn a_payload_is_counted_in_bytes() {
    let mut bytes = b"3\nACK".to_vec();
    append_payload("ñandú".as_bytes(), &mut bytes);
    assert_eq!(bytes, b"3\nACK7\n\xc3\xb1and\xc3\xba");
}

#[test]
fn an_agency_reads_every_answer_once_all_its_bytes_are_there() {
    for (_, golden, text) in golden_answers() {
        let and_more = [golden, b"3\nA"].concat();
        assert_reply_read(decode_reply, &and_more, golden.len(), &read_by_an_agency(text));
    }
}

/// What an agency makes of a payload: this dialect has few words.
fn read_by_an_agency(payload: &str) -> Reply {
    let batch = |result| Reply::Batch { count: 0, result };
    match payload {
        "ACK" => batch(Ok(())),
        "ERROR_EMPTY_BATCH" => batch(Err(Reason::EmptyBatch)),
        "ERROR_BUSY" => batch(Err(Reason::Busy)),
        "ERROR_INVALID_BATCH" => batch(Err(Reason::Other(payload.into()))),
        "ERROR_LOTTERY_HASNT_ENDED" => Reply::Winners(Err(Reason::NotReady)),
        "ERROR_INVALID_GET_WINNERS" => Reply::Winners(Err(Reason::Other(payload.into()))),
        lines => {
            let documents = lines.lines().map(|line| line.split('|').nth(2).unwrap().to_owned());
            Reply::Winners(Ok(Winners::All(documents.collect())))
        }
    }
}

#[test]
fn an_agency_refuses_a_payload_that_is_no_reply() {
    for text in [
        "NACK",
        "ACK\n",
        "a|b|c",
        "Ana|Paz|007|2000-02-29|7574",
        "Ana|Paz|007|2000-02-29|7574|1\n\n",
        "ERROR_\u{7}",
    ] {
        let bytes = payload(text);
        let shown = text.escape_debug().to_string();
        assert_eq!(decode_reply(&mut &bytes[..]), Err(NotAReply::Text(shown)), "{text}");
    }
}

#[test]
fn an_agency_refuses_what_is_no_counted_payload_of_text() {
    let answers: [&[u8]; 8] = [
        b"\n",
        b"\x00\x00\x00\x07ACK|OK\n",
        b"+3\nACK",
        b"-1\n",
        b"3 \nACK",
        b"3\r\nACK",
        b"00000000003\nACK",
        b"2\n\xff\xff",
    ];
    for mut bytes in answers {
        assert_eq!(decode_reply(&mut bytes), Err(NotAReply::OtherDialect));
    }
}

#[test]
fn every_reason_is_told_in_the_few_words_of_the_dialect() {
    for (reason, _, to_bets, to_get_winners) in reasons() {
        for (reply, word) in [
            (Reply::Bet(Err(reason.clone())), to_bets),
            (Reply::Batch { count: 2, result: Err(reason.clone()) }, to_bets),
            (Reply::Winners(Err(reason)), to_get_winners),
        ] {
            assert_eq!(reply_bytes(Dialect::Counted, &reply), payload(word), "{reply:?}");
        }
    }
}

// ---- Lengths -----------------------------------------------------------------

#[test]
fn a_length_is_1_to_10_digits() {
    for length in ["13", "013", "00000013", "0000000013"] {
        let input = format!("{length}\nGET_WINNERS|1").repeat(2);
        let request = Heard::Request(done_and_winners(1));
        assert_heard(input.as_bytes(), &[request.clone(), request]);
    }
    let input = b"007\nnothing13\nGET_WINNERS|1";
    assert_heard(input, &[answer(INVALID_BATCH), Heard::Request(done_and_winners(1))]);
}

#[test]
fn a_length_that_is_none_is_refused_and_closes() {
    let bad: [&[u8]; 9] = [
        b"00000000013",
        b"00000000013\nGET_WINNERS|1",
        b"13 \nGET_WINNERS|1",
        b"13\r\nGET_WINNERS|1",
        b"13\tGET_WINNERS|1",
        b"1x\nGET_WINNERS|1",
        b"1.3\nGET_WINNERS|1",
        b"13GET_WINNERS|1",
        b"1\x00",
    ];
    for input in bad {
        assert_heard(input, &[answer_then_close(INVALID_BATCH)]);
    }
}

#[test]
fn a_length_without_a_digit_is_foreign_at_first_and_refused_later() {
    let bad: [&[u8]; 9] = [
        b"\n",
        b"\r\n",
        b"+5\nhello",
        b"-1\n",
        b" 5\nhello",
        b"x",
        b"GET_WINNERS|1",
        b"\xff",
        "５\nhello".as_bytes(),
    ];
    for input in bad {
        assert_heard(input, &[Heard::Close]);
        let later = [b"13\nGET_WINNERS|1", input].concat();
        assert_heard(&later, &[Heard::Request(done_and_winners(1)), answer_then_close(INVALID_BATCH)]);
    }
}

#[test]
fn the_dialect_stays_counted_whatever_a_later_message_begins_with() {
    let later = [b"0\n", &b"\x00\x00\x00\x06STATUS"[..]].concat();
    assert_heard(&later, &[answer(EMPTY_BATCH), answer_then_close(INVALID_BATCH)]);
}

#[test]
fn a_payload_at_the_limit_is_taken_and_one_byte_more_is_refused_before_it_arrives() {
    let text = format!("{ROW}|1");
    let within = |payload_bytes_max| WireLimits { payload_bytes_max, ..WireLimits::default() };
    let expected = [Heard::Request(Request::Payload(vec![batch(1, &[ROW])]))];
    let length = text.len() as u64;
    assert_heard_within(within(length), &payload(&text), &expected);
    let refused = [answer_then_close(INVALID_BATCH)];
    assert_heard_within(within(length - 1), format!("{length}\n").as_bytes(), &refused);
    assert_heard_within(within(length - 1), &payload(&text), &refused);
}

#[test]
fn the_limit_is_one_mebibyte_by_default() {
    let zeros = "0".repeat(1_048_576 - format!("{ROW_2}|1").len());
    let text = format!("Ana|Paz|007|2000-02-29|{zeros}7574|1");
    let input = [b"1048576\n", text.as_bytes()].concat();
    assert_eq!(input.len(), 8 + 1_048_576);
    let delivered = deliver(WireLimits::default(), input.chunks(16 << 10));
    let expected = Heard::Request(Request::Payload(vec![batch(1, &[ROW_2])]));
    assert_eq!(heard(&delivered), [expected]);

    for too_long in ["1048577\n", "9999999999\n"] {
        assert_heard(too_long.as_bytes(), &[answer_then_close(INVALID_BATCH)]);
    }
}

#[test]
fn a_payload_holds_rows_of_a_thousand_agencies_and_not_of_one_more() {
    let rows =
        |agencies: u32| -> String { (0..agencies).map(|agency| format!("{ROW}|{agency}\n")).collect() };
    let heard = |text: &str| {
        let mut input = &payload(text)[..];
        Decoder::new(WireLimits::default()).decode(&mut input).expect("a whole payload")
    };
    assert!(
        matches!(heard(&rows(1_000)), Incoming::Request(Request::Payload(batches)) if batches.len() == 1_000)
    );
    let refusal = Reply::Batch { count: 1_001, result: Err(Reason::TooMany) };
    assert_eq!(heard(&rows(1_001)), Incoming::Refused(refusal), "the connection stays");
}

#[test]
fn an_announced_payload_waits_for_its_last_byte() {
    for input in ["1", "1048576", "1048576\n", "51\nSantiago Lionel|Lorca"] {
        let delivered = deliver(WireLimits::default(), [input.as_bytes()]);
        assert_eq!(delivered.messages, [], "{input:?}");
        assert_eq!(delivered.waiting_bytes, input.len(), "{input:?}");
        assert_eq!(delivered.batch_in_progress, None, "{input:?}");
    }
}

// ---- Bets ----------------------------------------------------------------------

/// Asserts what is heard of one payload, and that the connection goes on after it.
#[track_caller]
fn assert_payload(text: impl AsRef<[u8]>, expected: Heard) {
    let input = [payload(text), payload("GET_WINNERS|9")].concat();
    assert_heard(&input, &[expected, Heard::Request(done_and_winners(9))]);
}

#[test]
fn a_row_takes_every_good_value_in_every_field() {
    for (field, value) in good_values() {
        let row = row_with(field, &value);
        let expected = Request::Payload(vec![batch(1, &[ROW_2, &row])]);
        assert_payload(format!("{ROW_2}|1\n{row}|1"), Heard::Request(expected));
    }
}

#[test]
fn a_row_with_a_bad_value_makes_an_invalid_batch_and_the_connection_stays() {
    for (field, value, _) in bad_values() {
        let row = row_with(field, &value);
        assert_payload(format!("{ROW_2}|1\n{row}|1"), answer(INVALID_BATCH));
    }
}

#[test]
fn the_first_bad_row_is_known_by_its_number_and_reason() {
    // A newline is no bad value of a field here: it ends the row.
    for (field, value, code) in bad_values().into_iter().filter(|(_, value, _)| !value.contains('\n')) {
        let row = row_with(field, &value);
        let input = payload(format!("{ROW_2}|1\n{row}|1\n|||||\n"));
        let delivered = deliver(WireLimits::default(), [&input[..]]);
        let [Incoming::Refused(Reply::Batch { count: 3, result: Err(reason) })] = &delivered.messages[..]
        else {
            panic!("{row}: {delivered:?}");
        };
        assert_eq!(reason.to_string(), format!("row 2: {code}"), "{row}");
    }
}

#[test]
fn what_is_no_row_makes_an_invalid_batch_and_the_connection_stays() {
    let rows: [&[u8]; 22] = [
        b" ",
        b"|",
        b"|||||",
        b"hello",
        b"Ana|Paz|007|2000-02-29|7574",
        b"Ana|Paz|007|2000-02-29|7574|",
        b"Ana|Paz|007|2000-02-29|7574|x",
        b"Ana|Paz|007|2000-02-29|7574|+1",
        b"Ana|Paz|007|2000-02-29|7574|-1",
        b"Ana|Paz|007|2000-02-29|7574|1 ",
        b"Ana|Paz|007|2000-02-29|7574|4294967296",
        b"Ana|Paz|007|2000-02-29|7574|1|",
        b"Ana|Paz|007|2000-02-29|7574|1|2",
        b"BET|1|Ana|Paz|007|2000-02-29|7574",
        b"An\na|Paz|007|2000-02-29|7574|1",
        b"Ana|Paz|007|2000-02-29|7574|1\x00",
        b"Jos\xe9|Paz|007|2000-02-29|7574|1",
        b"\xff",
        b"STATUS",
        b"DONE|1",
        b"BATCH|1|0",
        b"ACK",
    ];
    let good = format!("{ROW}|1");
    let good = good.as_bytes();
    for bad in rows {
        assert_payload(bad, answer(INVALID_BATCH));
        assert_payload([bad, good].join(&b'\n'), answer(INVALID_BATCH));
        assert_payload([good, bad].join(&b'\n'), answer(INVALID_BATCH));
    }
}

#[test]
fn a_payload_that_is_not_utf_8_is_known_as_such() {
    let input = payload(b"Jos\xe9|Paz|007|2000-02-29|7574|1");
    let delivered = deliver(WireLimits::default(), [&input[..]]);
    let reply = Reply::Batch { count: 0, result: Err(Reason::Bet(BetError::Utf8)) };
    assert_eq!(delivered.messages, [Incoming::Refused(reply)]);
}

#[test]
fn rows_are_gathered_by_agency_in_the_order_of_each_agency_s_first_row() {
    let text = format!("{ROW}|2\n{ROW_2}|1\n{ROW_3}|2\n{ROW_3}|01\n{ROW}|4294967295\n{ROW}|002");
    let expected = Request::Payload(vec![
        batch(2, &[ROW, ROW_3, ROW]),
        batch(1, &[ROW_2, ROW_3]),
        batch(4294967295, &[ROW]),
    ]);
    assert_payload(text, Heard::Request(expected));
}

#[test]
fn rows_may_end_in_a_newline_or_a_carriage_return_and_a_newline() {
    for text in [
        format!("{ROW}|1\n{ROW_2}|1"),
        format!("{ROW}|1\n{ROW_2}|1\n"),
        format!("{ROW}|1\n{ROW_2}|1\r\n"),
        format!("{ROW}|1\r\n{ROW_2}|1"),
        format!("{ROW}|1\r\n{ROW_2}|1\r\n"),
    ] {
        let expected = Request::Payload(vec![batch(1, &[ROW, ROW_2])]);
        assert_payload(text, Heard::Request(expected));
    }
}

#[test]
fn an_empty_line_before_or_between_or_after_rows_is_a_bad_row() {
    for text in [
        format!("\n{ROW}|1"),
        format!("\r\n{ROW}|1"),
        format!("{ROW}|1\n\n{ROW_2}|1"),
        format!("{ROW}|1\r\n\r\n{ROW_2}|1"),
        format!("{ROW}|1\n\n"),
        format!("{ROW}|1\r\n\r\n"),
        format!("{ROW}|1\r\r\n{ROW_2}|1"),
        format!("{ROW}|1\n \n"),
    ] {
        assert_payload(text, answer(INVALID_BATCH));
    }
}

#[test]
fn a_carriage_return_without_a_newline_is_no_line_end() {
    assert_payload(format!("{ROW}|1\r"), answer(INVALID_BATCH));
    assert_payload(format!("{ROW}|1\r\r\n"), answer(INVALID_BATCH));
    assert_payload("GET_WINNERS|1\r", answer(INVALID_GET_WINNERS));
}

#[test]
fn a_payload_without_a_row_is_an_empty_batch_and_the_connection_stays() {
    for text in ["", "\n", "\r\n", "\n\n", "\r\n\r\n", "\n\n\n\n\n"] {
        assert_payload(text, answer(EMPTY_BATCH));
    }
}

// ---- GET_WINNERS -----------------------------------------------------------------

#[test]
fn get_winners_names_one_agency() {
    for (text, agency) in [
        ("GET_WINNERS|0", 0),
        ("GET_WINNERS|1", 1),
        ("GET_WINNERS|01", 1),
        ("GET_WINNERS|4294967295", 4294967295),
        ("GET_WINNERS|1\n", 1),
        ("GET_WINNERS|1\r\n", 1),
    ] {
        assert_payload(text, Heard::Request(done_and_winners(agency)));
    }
}

#[test]
fn a_malformed_get_winners_is_told_so_and_the_connection_stays() {
    for bad in BAD_NUMBERS.into_iter().chain(["4294967296", "a", "1|", "1|2", "1\n\n", "1\nGET_WINNERS|2"]) {
        assert_payload(format!("GET_WINNERS|{bad}"), answer(INVALID_GET_WINNERS));
    }
    for text in ["GET_WINNERS", "GET_WINNERS\n", "GET_WINNERS\r\n"] {
        assert_payload(text, answer(INVALID_GET_WINNERS));
    }
}

#[test]
fn what_only_resembles_get_winners_is_an_invalid_batch() {
    for text in [
        "get_winners|1".to_owned(),
        "GET_WINNERSX|1".to_owned(),
        " GET_WINNERS|1".to_owned(),
        "GET_WINNERS 1".to_owned(),
        "WAIT_WINNERS|1|0".to_owned(),
        "\nGET_WINNERS|1".to_owned(),
        format!("{ROW}|1\nGET_WINNERS|1"),
    ] {
        assert_payload(text, answer(INVALID_BATCH));
    }
}
