//! Properties of both dialects for any input: how the first byte selects the dialect,
//! any bytes in any pieces, and any valid request.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sorteo_protocol::wire::{
    Claim, Dialect, Incoming, Reason, Reply, Request, Status, Winners, WinningBet, WinningBets, WireLimits,
    counted, framed,
};
use sorteo_protocol::{AgencyId, Batch, BetError, Bets, DrawId, Token, UploadPosition};
use sorteo_test_support::cases::cases;
use sorteo_test_support::conversation::answered_as_the_model_does;
use sorteo_test_support::decoder::decoded_as_the_protocol_says;
use sorteo_test_support::delivery::deliver;

use crate::wire_support::{
    BAD_NUMBERS, Heard, ROW, ROW_2, assert_heard, assert_heard_up_to_every_cut, frame, heard, is_allowed,
    payload, reasons, reply_bytes, upload_id,
};

// ---- The first byte ------------------------------------------------------------

#[test]
fn the_first_byte_tells_the_dialect() {
    for first in 0..=u8::MAX {
        let expected = match first {
            0x00 => Some(Dialect::Framed),
            0x30..=0x39 => Some(Dialect::Counted),
            _ => None,
        };
        assert_eq!(Dialect::detect(first), expected, "{first:#04x}");
        let delivered = deliver(WireLimits::default(), [&[first][..]]);
        assert_eq!(delivered.dialect, expected, "{first:#04x}");
        assert_eq!(delivered.messages.is_empty(), expected.is_some(), "{first:#04x}");
    }
}

#[test]
fn what_speaks_neither_dialect_is_closed_without_an_answer() {
    let foreign: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"BET|1|Ana|Paz|007|2000-02-29|7574\n",
        b"\x01\x00\x00\x06STATUS",
        b"\xff",
    ];
    for input in foreign {
        assert_heard(input, &[Heard::Close]);
    }
}

#[test]
fn nothing_is_heard_of_nothing() {
    let delivered = deliver(WireLimits::default(), [&[][..], &[]]);
    assert_eq!((delivered.dialect, delivered.messages), (None, Vec::new()));
}

// ---- Valid values ----------------------------------------------------------------

/// Text of 1 to so many bytes that a field may hold.
fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    let character = any::<char>().prop_map(|c| if is_allowed(c) { c } else { 'x' });
    let anything = vec(character, 1..=bytes_max / 4).prop_map(String::from_iter);
    let ascii = vec(b' '..b'|', 1..=bytes_max).prop_map(|bytes| bytes.into_iter().map(char::from).collect());
    prop_oneof![anything, ascii]
}

fn bet() -> impl Strategy<Value = [String; 5]> {
    let document = "[A-Za-z0-9./ -]{1,32}";
    let date =
        (1..=9999, 1..=12, 1..=28).prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
    (text(120), text(120), document, date, any::<u32>())
        .prop_map(|(first, last, document, date, number)| [first, last, document, date, number.to_string()])
}

fn bets_of(rows: &[[String; 5]]) -> Bets {
    let mut bets = Bets::default();
    for row in rows {
        bets.push(row.each_ref().map(String::as_str)).expect("a valid bet");
    }
    bets
}

fn agency() -> impl Strategy<Value = AgencyId> {
    prop_oneof![0..4_u32, any::<u32>()].prop_map(AgencyId)
}

fn stored_number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_000_u64, 0..=i64::MAX as u64]
}

fn position() -> impl Strategy<Value = UploadPosition> {
    ("[A-Za-z0-9._-]{1,64}", stored_number(), draw()).prop_map(|(name, first_row, draw)| UploadPosition {
        upload: upload_id(&name),
        first_row,
        draw,
    })
}

fn draw() -> impl Strategy<Value = Option<DrawId>> {
    proptest::option::of((0..=i64::MAX).prop_map(DrawId))
}

fn batch_of(rows: impl Strategy<Value = Vec<[String; 5]>>) -> impl Strategy<Value = Batch> {
    (agency(), rows, proptest::option::of(position())).prop_map(|(agency, rows, position)| Batch {
        agency,
        bets: bets_of(&rows),
        position,
    })
}

fn framed_request() -> impl Strategy<Value = Request> {
    let single =
        (agency(), bet()).prop_map(|(agency, bet)| Batch { agency, bets: bets_of(&[bet]), position: None });
    prop_oneof![
        single.prop_map(Request::Bet),
        batch_of(vec(bet(), 0..4)).prop_map(Request::Batch),
        (agency(), any::<Option<u64>>(), draw()).prop_map(|(agency, bets, draw)| Request::Done {
            agency,
            bets,
            draw
        }),
        agency().prop_map(|agency| Request::Winners { agency }),
        (agency(), stored_number(), draw()).prop_map(|(agency, after, draw)| Request::WinnersPage {
            agency,
            after,
            draw
        }),
        (agency(), 0..=60_000_u64, draw()).prop_map(|(agency, ms, draw)| Request::WaitWinners {
            agency,
            wait: Duration::from_millis(ms),
            draw,
        }),
        (agency(), position()).prop_map(|(agency, UploadPosition { upload, draw, .. })| Request::Resume {
            agency,
            upload,
            draw
        }),
        Just(Request::Hello),
        Just(Request::Status),
        auth(),
    ]
}

fn auth() -> impl Strategy<Value = Request> {
    (agency(), any::<[u8; 8]>(), any::<[u8; 32]>()).prop_map(|(agency, id, secret)| {
        Request::Auth(Some(Claim { agency, token: Token::from_random(id, secret) }))
    })
}

/// Bets of up to so many agencies, each with up to so many rows.
fn counted_bets(agencies: usize, rows: usize) -> impl Strategy<Value = Request> {
    vec((agency(), vec(bet(), 1..=rows)), 1..=agencies).prop_map(|batches| {
        let by_agency: BTreeMap<_, _> = batches.into_iter().collect();
        let batch =
            |(agency, rows): (AgencyId, Vec<_>)| Batch { agency, bets: bets_of(&rows), position: None };
        Request::Payload(by_agency.into_iter().map(batch).collect())
    })
}

fn counted_request() -> impl Strategy<Value = Request> {
    let winners = agency().prop_map(|agency| Request::DoneAndWinners { agency });
    prop_oneof![counted_bets(3, 3), winners, auth()]
}

fn encoded(encode: fn(&Request, &mut Vec<u8>), request: Request) -> (Request, Vec<u8>) {
    let mut bytes = Vec::new();
    encode(&request, &mut bytes);
    (request, bytes)
}

/// Valid requests of one connection, each with its bytes.
fn conversation() -> impl Strategy<Value = Vec<(Request, Vec<u8>)>> {
    let framed = framed_request().prop_map(|request| encoded(framed::encode_request, request));
    let counted = counted_request().prop_map(|request| encoded(counted::encode_request, request));
    prop_oneof![vec(framed, 0..6), vec(counted, 0..6)]
}

fn bytes_of(conversation: &[(Request, Vec<u8>)]) -> Vec<u8> {
    conversation.iter().flat_map(|(_, bytes)| bytes).copied().collect()
}

// ---- Any bytes -------------------------------------------------------------------

const TOKEN: &str =
    "sorteo_0123456789abcdef_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Lines that are requests, rows, or nearly so.
fn nearly_a_line() -> impl Strategy<Value = Vec<u8>> {
    let verbs = ["BET", "BATCH", "DONE", "GET_WINNERS", "WAIT_WINNERS", "RESUME", "HELLO", "STATUS", "AUTH"];
    let values = ["1", "2", "3", "up", "Ana", "2000-02-29", "60000", TOKEN, "\u{202e}", "\n", "\r"];
    let field = prop_oneof![select(verbs.to_vec()), select(values.to_vec()), select(&BAD_NUMBERS[..])];
    let fields = vec(field, 0..8).prop_map(|fields| fields.join("|").into_bytes());
    let row = select(vec![ROW.as_bytes().to_vec(), ROW_2.as_bytes().to_vec()]);
    let batch = (0..5).prop_map(|count| format!("BATCH|1|{count}").into_bytes());
    prop_oneof![fields, row, batch, vec(any::<u8>(), 0..20)]
}

/// Bytes of a valid conversation, some of them changed, lost or added.
fn damaged_conversation() -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<Index>(), 0..3, any::<u8>());
    (conversation(), vec(damage, 0..4)).prop_map(|(conversation, damages)| {
        let mut bytes = bytes_of(&conversation);
        for (at, kind, byte) in damages {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..200);
    let first = select(vec![0, b'0', b'1', b'9']);
    let begun = (first, noise.clone()).prop_map(|(first, noise)| [vec![first], noise].concat());
    let frames = vec(nearly_a_line().prop_map(frame), 0..12).prop_map(|frames| frames.concat());
    let payloads = vec(nearly_a_line().prop_map(payload), 0..12).prop_map(|payloads| payloads.concat());
    prop_oneof![noise, begun, frames, payloads, damaged_conversation()]
}

/// The input cut at any places, twice at the same for an empty piece.
fn cut<'a>(input: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    places.sort_unstable();
    places.push(input.len());
    let mut from = 0;
    let piece = |to| &input[std::mem::replace(&mut from, to)..to];
    places.into_iter().map(piece).collect()
}

/// Limits that a few lines reach, and the default ones.
fn limits() -> impl Strategy<Value = WireLimits> {
    let tight = WireLimits { batch_bets_max: 3, payload_bytes_max: 150 };
    prop_oneof![Just(tight), Just(WireLimits::default())]
}

proptest! {
    #![proptest_config(cases(256))]

    /// `deliver` also asserts that no more is held than has arrived.
    #[test]
    fn any_bytes_make_the_same_messages_whatever_pieces_they_come_in(
        limits in limits(),
        input in any_bytes(),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let whole = deliver(limits, [&input[..]]);
        prop_assert_eq!(deliver(limits, cut(&input, &cuts)), whole.clone());
        prop_assert_eq!(deliver(limits, input.chunks(1)), whole);
    }

    #[test]
    fn any_bytes_are_understood_and_answered_as_the_protocol_says(
        limits in limits(),
        agencies in proptest::option::of(1..4_u32),
        input in any_bytes(),
    ) {
        decoded_as_the_protocol_says(limits, &input, &deliver(limits, [&input[..]]));
        answered_as_the_model_does(agencies, limits, &input);
    }

    #[test]
    fn every_refusal_of_any_bytes_is_answered_in_plain_words(
        limits in limits(),
        input in any_bytes(),
    ) {
        for heard in heard(&deliver(limits, [&input[..]])) {
            if let Heard::Answer(words) | Heard::AnswerThenClose(words) = heard {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"_| :".contains(&b);
                prop_assert!(words.bytes().all(plain), "{}", words);
            }
        }
    }

    #[test]
    fn valid_requests_come_back_from_their_bytes_whatever_pieces_they_come_in(
        conversation in conversation(),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let bytes = bytes_of(&conversation);
        let delivered = deliver(WireLimits::default(), cut(&bytes, &cuts));
        let requests: Vec<_> =
            conversation.into_iter().map(|(request, _)| Incoming::Request(request)).collect();
        prop_assert_eq!(delivered.messages, requests);
        prop_assert_eq!(delivered.waiting_bytes, 0);
        prop_assert_eq!(delivered.batch_in_progress, None);
    }

    #[test]
    fn the_fields_of_a_batch_come_back_as_they_were_sent(
        agency in agency(),
        rows in vec(bet(), 0..40),
        own_headers in vec(any::<bool>(), 40),
    ) {
        let mut input = frame(format!("BATCH|{agency}|{}", rows.len()));
        for (row, own_header) in rows.iter().zip(own_headers) {
            let header = if own_header { format!("BET|{agency}|") } else { String::new() };
            input.extend(frame(header + &row.join("|")));
        }
        let delivered = deliver(WireLimits::default(), [&input[..]]);
        let [Incoming::Request(Request::Batch(batch))] = &delivered.messages[..] else {
            panic!("{delivered:?}");
        };
        prop_assert_eq!(batch.agency, agency);
        prop_assert_eq!(fields_of(&batch.bets), rows);
    }

    #[test]
    fn the_fields_of_a_payload_come_back_as_they_were_sent(rows in vec((bet(), 0..3_u32), 1..40)) {
        let line = |(row, agency): &([String; 5], u32)| format!("{}|{agency}", row.join("|"));
        let lines: Vec<_> = rows.iter().map(line).collect();
        let input = payload(lines.join("\n"));
        let delivered = deliver(WireLimits::default(), [&input[..]]);
        let [Incoming::Request(Request::Payload(batches))] = &delivered.messages[..] else {
            panic!("{delivered:?}");
        };
        let mut sent: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (row, agency) in rows {
            sent.entry(AgencyId(agency)).or_default().push(row);
        }
        let came = batches.iter().map(|batch| (batch.agency, fields_of(&batch.bets)));
        prop_assert_eq!(came.collect::<BTreeMap<_, _>>(), sent);
    }
}

fn fields_of(bets: &Bets) -> Vec<[String; 5]> {
    let fields = |bet: sorteo_protocol::Bet<'_>| {
        let texts = [bet.first_name, bet.last_name, bet.document, bet.birthdate].map(str::to_owned);
        let [first, last, document, birthdate] = texts;
        [first, last, document, birthdate, bet.number.to_string()]
    };
    bets.iter().map(fields).collect()
}

proptest! {
    // Every cut of every conversation is decoded from the start: few are enough.
    #![proptest_config(cases(24))]

    #[test]
    fn a_conversation_cut_off_anywhere_is_heard_up_to_its_last_whole_request(conversation in conversation()) {
        assert_heard_up_to_every_cut(&conversation);
    }

    #[test]
    fn large_batches_come_back_from_their_bytes(
        batch in batch_of(vec(bet(), 200..400)),
        payload in counted_bets(20, 20),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        for (request, bytes) in [
            encoded(framed::encode_request, Request::Batch(batch)),
            encoded(counted::encode_request, payload),
        ] {
            let delivered = deliver(WireLimits::default(), cut(&bytes, &cuts));
            prop_assert_eq!(delivered.messages, [Incoming::Request(request)]);
        }
    }
}

// ---- Answers ---------------------------------------------------------------------

fn framed_reply() -> impl Strategy<Value = Reply> {
    fn result<T: Clone + std::fmt::Debug>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Result<T, Reason>> {
        let reason = select(reasons()).prop_map(|(reason, ..)| reason);
        prop_oneof![value.prop_map(Ok), reason.prop_map(Err)]
    }
    let documents = vec(text(32).prop_map(|text| text.replace(',', ".")), 0..400);
    let winners = (documents, any::<Option<Option<u64>>>()).prop_map(|(documents, page)| match page {
        None => Winners::All(documents),
        Some(next) => Winners::Page { documents, next },
    });
    let status = (any::<bool>(), any::<[u64; 3]>()).prop_map(|(drawn, [done, expected, bets])| Status {
        draw: DrawId(1),
        drawn,
        done,
        expected,
        bets,
    });
    prop_oneof![
        result(Just(())).prop_map(Reply::Bet),
        select(&[Reason::Unknown, Reason::BadFrame]).prop_map(Reply::Unrecognised),
        (any::<u64>(), result(Just(()))).prop_map(|(count, result)| Reply::Batch { count, result }),
        result(Just(())).prop_map(Reply::Done),
        result(winners).prop_map(Reply::Winners),
        result(any::<u64>()).prop_map(Reply::Resume),
        result(status).prop_map(Reply::Status),
    ]
}

fn counted_reply() -> impl Strategy<Value = Reply> {
    let reason = || select(reasons()).prop_map(|(reason, ..)| reason);
    let winning_bet = bet().prop_map(|[first_name, last_name, document, birthdate, _]| WinningBet {
        first_name,
        last_name,
        document,
        birthdate,
        number: 7574,
    });
    let winners = (agency(), vec(winning_bet, 0..20))
        .prop_map(|(agency, bets)| Winners::Bets { first: WinningBets { agency, bets }, total: None });
    prop_oneof![
        prop_oneof![Just(Ok(())), reason().prop_map(Err)]
            .prop_map(|result| Reply::Batch { count: 0, result }),
        Just(Reply::Unrecognised(Reason::BadLength)),
        prop_oneof![winners.prop_map(Ok), reason().prop_map(Err)].prop_map(Reply::Winners),
    ]
}

/// What a client of the counted dialect makes of a reply: few words stand for all reasons,
/// and of winning bets it reads the documents.
fn as_read_counted(reply: &Reply) -> Reply {
    let batch = |reason| Reply::Batch { count: 0, result: Err(reason) };
    let other = |word: &str| Reason::Other(word.into());
    match reply {
        Reply::Winners(Ok(Winners::Bets { first, .. })) => {
            let documents = first.bets.iter().map(|bet| bet.document.clone()).collect();
            Reply::Winners(Ok(Winners::All(documents)))
        }
        Reply::Winners(Err(Reason::NotReady)) => Reply::Winners(Err(Reason::NotReady)),
        reply => match reply.refusal() {
            None => reply.clone(),
            Some(Reason::Busy | Reason::StorageFull | Reason::Unavailable) => batch(Reason::Busy),
            Some(Reason::Unauthorized) => batch(Reason::Unauthorized),
            Some(Reason::Forbidden) => Reply::Winners(Err(other("ERROR_INVALID_AGENCY"))),
            Some(_) if matches!(reply, Reply::Winners(_)) => {
                Reply::Winners(Err(other(match reply.refusal() {
                    Some(Reason::UnknownAgency | Reason::TooManyAgencies) => "ERROR_INVALID_AGENCY",
                    _ => "ERROR_INVALID_GET_WINNERS",
                })))
            }
            Some(Reason::EmptyBatch) => batch(Reason::EmptyBatch),
            Some(_) => batch(other("ERROR_INVALID_BATCH")),
        },
    }
}

/// What a client of the framed dialect makes of a reply: two reasons share a code, and
/// winners that do not fit a frame are refused.
fn as_read(mut reply: Reply) -> Reply {
    let too_long = match &reply {
        Reply::Winners(Ok(Winners::All(documents))) => {
            documents.join(",").len() + "WINNERS|OK|\n".len() > 8192
        }
        Reply::Winners(Ok(Winners::Page { documents, next })) => {
            let next = next.map(|next| next.to_string()).unwrap_or_default();
            documents.join(",").len() + next.len() + "WINNERS|OK||\n".len() > 8192
        }
        _ => false,
    };
    if too_long {
        return Reply::Winners(Err(Reason::UsePages));
    }
    if let Reply::Bet(Err(reason @ (Reason::Unknown | Reason::BadFrame))) = reply {
        return Reply::Unrecognised(reason);
    }
    let reason = match &mut reply {
        Reply::Bet(Err(reason)) | Reply::Batch { result: Err(reason), .. } | Reply::Done(Err(reason)) => {
            reason
        }
        Reply::Winners(Err(reason)) | Reply::Resume(Err(reason)) | Reply::Status(Err(reason)) => reason,
        _ => return reply,
    };
    if *reason == Reason::Bet(BetError::Agency) {
        *reason = Reason::BadAgency;
    }
    reply
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_replies_come_back_in_order_and_each_fits_its_frame(replies in vec(framed_reply(), 0..5)) {
        let encoded: Vec<_> = replies.iter().map(|reply| reply_bytes(Dialect::Framed, reply)).collect();
        let all = encoded.concat();
        let mut input = &all[..];
        for (reply, bytes) in replies.into_iter().zip(encoded) {
            prop_assert!(bytes.len() <= 4 + 8192);
            let decoded = framed::decode_reply(&mut input).expect("a reply").expect("a whole one");
            prop_assert_eq!(&reply_bytes(Dialect::Framed, &decoded), &bytes);
            prop_assert_eq!(decoded, as_read(reply));
        }
        prop_assert_eq!(framed::decode_reply(&mut input), Ok(None));
    }

    #[test]
    fn any_counted_replies_come_back_in_order(replies in vec(counted_reply(), 0..5)) {
        let all: Vec<u8> =
            replies.iter().flat_map(|reply| reply_bytes(Dialect::Counted, reply)).collect();
        let mut input = &all[..];
        for reply in &replies {
            let decoded = counted::decode_reply(&mut input).expect("a reply").expect("a whole one");
            prop_assert_eq!(decoded, as_read_counted(reply));
        }
        prop_assert_eq!(counted::decode_reply(&mut input), Ok(None));
    }

    #[test]
    fn any_bytes_are_an_answer_or_none_but_never_a_panic(input in any_bytes()) {
        for cut in 0..=input.len().min(64) {
            let mut rest = &input[..cut];
            while let Ok(Some(_)) = framed::decode_reply(&mut rest) {}
            let mut rest = &input[..cut];
            while let Ok(Some(_)) = counted::decode_reply(&mut rest) {}
        }
    }
}
