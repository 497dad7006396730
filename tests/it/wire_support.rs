//! What the wire tests share: messages put together by hand, bytes delivered in every
//! way that a network may choose, and values that each field accepts or refuses. The
//! encoders under test are used only for the texts of refusals, which have golden bytes.

use sorteo_protocol::wire::{Dialect, Incoming, NotAReply, Reason, Reply, Request, WireLimits, encode_reply};
use sorteo_protocol::{AgencyId, Batch, BetError, Bets, DrawId, UploadId, UploadPosition};
use sorteo_test_support::decoder::words;
use sorteo_test_support::delivery::{Delivered, deliver};

/// What a peer notices of one message that the decoder made of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A request to carry out.
    Request(Request),
    /// Answered so, and the connection stays.
    Answer(String),
    /// Answered so, then closed.
    AnswerThenClose(String),
    /// Closed without an answer.
    Close,
}

/// A refusal after which the connection stays, in the words of its answer.
pub(crate) fn answer(words: &str) -> Heard {
    Heard::Answer(words.to_owned())
}

/// A refusal that ends the connection, in the words of its answer.
pub(crate) fn answer_then_close(words: &str) -> Heard {
    Heard::AnswerThenClose(words.to_owned())
}

impl Heard {
    fn of(dialect: Option<Dialect>, incoming: &Incoming) -> Self {
        let words = |reply| words(dialect.expect("an answer has a dialect"), reply);
        match incoming {
            Incoming::Request(request) => Self::Request(request.clone()),
            Incoming::Refused(reply) => Self::Answer(words(reply)),
            Incoming::RefusedForGood(reply) => Self::AnswerThenClose(words(reply)),
            Incoming::Foreign => Self::Close,
        }
    }
}

/// A reply as the code under test writes it.
pub(crate) fn reply_bytes(dialect: Dialect, reply: &Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_reply(dialect, reply, &mut bytes);
    bytes
}

/// What a peer notices of all messages.
pub(crate) fn heard(delivered: &Delivered) -> Vec<Heard> {
    delivered.messages.iter().map(|incoming| Heard::of(delivered.dialect, incoming)).collect()
}

/// Asserts what is heard of the input, all of which must be used: delivered
/// whole, byte by byte, and in every split into two.
#[track_caller]
pub(crate) fn assert_heard(input: &[u8], expected: &[Heard]) {
    assert_heard_within(WireLimits::default(), input, expected);
}

/// As [`assert_heard`], with other limits than the default ones.
#[track_caller]
pub(crate) fn assert_heard_within(limits: WireLimits, input: &[u8], expected: &[Heard]) {
    let shown = input.escape_ascii();
    let whole = deliver(limits, [input]);
    assert_eq!(heard(&whole), expected, "{shown}");
    assert_eq!(whole.waiting_bytes, 0, "{shown}");
    assert_eq!(deliver(limits, input.chunks(1)), whole, "byte by byte: {shown}");
    for cut in 1..input.len() {
        let (head, tail) = input.split_at(cut);
        assert_eq!(deliver(limits, [head, tail]), whole, "cut at {cut}: {shown}");
    }
}

/// Writes one request, as a dialect's client does.
pub(crate) type EncodeRequest = fn(&Request, &mut Vec<u8>);

/// Asserts that every request is encoded as the bytes beside it.
#[track_caller]
pub(crate) fn assert_encoded(encode: EncodeRequest, golden: &[(Request, &[u8])]) {
    for (request, golden) in golden {
        let mut bytes = Vec::new();
        encode(request, &mut bytes);
        assert_same_bytes(&bytes, golden);
    }
}

/// Asserts that every request is decoded from the bytes beside it, alone and
/// with all the others before and behind it.
#[track_caller]
pub(crate) fn assert_decoded(golden: &[(Request, &[u8])]) {
    for (request, golden) in golden {
        assert_heard(golden, &[Heard::Request(request.clone())]);
    }
    let (requests, bytes): (Vec<_>, Vec<_>) = golden.iter().cloned().unzip();
    let requests: Vec<_> = requests.into_iter().map(Heard::Request).collect();
    assert_heard(&bytes.concat(), &requests);
}

/// Asserts that of a conversation cut off anywhere, exactly those messages are
/// heard whose last byte has arrived.
#[track_caller]
pub(crate) fn assert_heard_up_to_every_cut<B: AsRef<[u8]>>(conversation: &[(Request, B)]) {
    let bytes: Vec<&[u8]> = conversation.iter().map(|(_, bytes)| bytes.as_ref()).collect();
    let (mut end, mut ends) = (0, Vec::new());
    for bytes in &bytes {
        end += bytes.len();
        ends.push(end);
    }
    let bytes = bytes.concat();
    for cut in 0..=bytes.len() {
        let whole = ends.iter().take_while(|end| **end <= cut).count();
        let request = |(request, _): &(Request, B)| Incoming::Request(request.clone());
        let expected: Vec<_> = conversation[..whole].iter().map(request).collect();
        let delivered = deliver(WireLimits::default(), [&bytes[..cut]]);
        assert_eq!(delivered.messages, expected, "cut at {cut}: {}", bytes.escape_ascii());
    }
}

/// Asserts that the client's side makes nothing of the first bytes of a reply, and the
/// expected of all of them, leaving what stands behind.
#[track_caller]
pub(crate) fn assert_reply_read(
    decode_reply: impl Fn(&mut &[u8]) -> Result<Option<Reply>, NotAReply>,
    reply_and_more: &[u8],
    reply_bytes: usize,
    expected: &Reply,
) {
    for cut in 0..reply_bytes {
        let mut input = &reply_and_more[..cut];
        assert_eq!(decode_reply(&mut input), Ok(None), "cut at {cut}");
        assert_eq!(input.len(), cut, "nothing is used of half a reply");
    }
    let mut input = reply_and_more;
    assert_eq!(decode_reply(&mut input).as_ref(), Ok(&Some(expected.clone())));
    assert_eq!(input, &reply_and_more[reply_bytes..], "the next reply stays");
}

/// Asserts that two byte strings are equal, and shows both as text if not.
#[track_caller]
pub(crate) fn assert_same_bytes(bytes: &[u8], expected: &[u8]) {
    assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// One frame of the framed dialect.
pub(crate) fn frame(line: impl AsRef<[u8]>) -> Vec<u8> {
    let line = line.as_ref();
    let length = u32::try_from(line.len()).expect("a test's frame is small");
    [&length.to_be_bytes(), line].concat()
}

/// One payload of the counted dialect.
pub(crate) fn payload(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [format!("{}\n", text.len()).as_bytes(), text].concat()
}

/// Bets given as `first|last|document|birthdate|number`.
pub(crate) fn bets(rows: &[&str]) -> Bets {
    let mut bets = Bets::default();
    for row in rows {
        bets.push_line(row).unwrap_or_else(|error| panic!("{row}: {error}"));
    }
    bets
}

/// A batch without a place in an upload.
pub(crate) fn batch(agency: u32, rows: &[&str]) -> Batch {
    Batch { agency: AgencyId(agency), bets: bets(rows), position: None }
}

/// A batch of an upload.
pub(crate) fn placed_batch(agency: u32, rows: &[&str], upload: &str, first_row: u64) -> Batch {
    Batch {
        position: Some(UploadPosition { upload: upload_id(upload), first_row, draw: None }),
        ..batch(agency, rows)
    }
}

/// The same batch, which names the draw that it is meant for.
pub(crate) fn in_draw(draw: i64, mut batch: Batch) -> Batch {
    batch.position.as_mut().expect("a batch of an upload").draw = Some(DrawId(draw));
    batch
}

/// A name that is one.
pub(crate) fn upload_id(name: &str) -> UploadId {
    UploadId::new(name).unwrap_or_else(|| panic!("{name} is no upload id"))
}

/// A page of an agency's winners.
pub(crate) fn winners_page(agency: u32, after: u64, draw: Option<i64>) -> Request {
    Request::WinnersPage { agency: AgencyId(agency), after, draw: draw.map(DrawId) }
}

/// A valid row of five fields, and two more.
pub(crate) const ROW: &str = "Santiago Lionel|Lorca|30904465|1999-03-17|2201";
pub(crate) const ROW_2: &str = "Ana|Paz|007|2000-02-29|7574";
pub(crate) const ROW_3: &str = "Bo|Li|9|1980-12-31|0";

/// [`ROW`] with another value in one of its five fields.
pub(crate) fn row_with(field: usize, value: &str) -> String {
    let mut fields: Vec<&str> = ROW.split('|').collect();
    fields[field] = value;
    fields.join("|")
}

const NAMES: [(usize, &str); 2] = [(0, "bad_first_name"), (1, "bad_last_name")];
const TEXTS: [(usize, &str); 3] = [NAMES[0], NAMES[1], (2, "bad_document")];

/// The first and last of each range of characters that no field may hold, but for those
/// below U+0020.
const INVISIBLE: [char; 34] = [
    '\u{7f}',
    '\u{9f}',
    '\u{ad}',
    '\u{34f}',
    '\u{61c}',
    '\u{115f}',
    '\u{1160}',
    '\u{17b4}',
    '\u{17b5}',
    '\u{180b}',
    '\u{180f}',
    '\u{200b}',
    '\u{200f}',
    '\u{2028}',
    '\u{2029}',
    '\u{202a}',
    '\u{202e}',
    '\u{2060}',
    '\u{2066}',
    '\u{206f}',
    '\u{2800}',
    '\u{3164}',
    '\u{fe00}',
    '\u{fe0f}',
    '\u{feff}',
    '\u{ffa0}',
    '\u{fff0}',
    '\u{fffb}',
    '\u{1bca0}',
    '\u{1bca3}',
    '\u{1d173}',
    '\u{1d17a}',
    '\u{e0000}',
    '\u{e0fff}',
];

/// Whether a name may hold the character.
pub(crate) fn is_allowed(c: char) -> bool {
    c != '|' && !sorteo_protocol::text::is_invisible(c)
}

/// Fields of [`ROW`] with values that are fine there.
pub(crate) fn good_values() -> Vec<(usize, String)> {
    let mut values = Vec::new();
    for (field, _) in NAMES {
        values.extend([(field, "x".repeat(120)), (field, "ñ".repeat(60))]);
        values.push((field, "O'Higgins, José".to_owned()));
    }
    values.push((2, "x".repeat(32)));
    for (field, _) in NAMES {
        values.extend([(field, "x".to_owned()), (field, " ~\u{a0}".to_owned())]);
        // The neighbours of what is invisible.
        values.push((
            field,
            "\u{ac}\u{ae}\u{34e}\u{350}\u{61b}\u{61d}\u{115e}\u{1161}\u{17b3}\u{17b6}".to_owned(),
        ));
        values.push((
            field,
            "\u{180a}\u{1810}\u{200a}\u{2010}\u{2027}\u{202f}\u{205f}\u{2070}\u{27ff}\u{2801}".to_owned(),
        ));
        values.push((
            field,
            "\u{3163}\u{3165}\u{fdff}\u{fe10}\u{fefe}\u{ff00}\u{ff9f}\u{ffa1}\u{ffef}\u{fffc}".to_owned(),
        ));
        values.push((field, "\u{1bc9f}\u{1bca4}\u{1d172}\u{1d17b}\u{dffff}\u{e1000}".to_owned()));
    }
    let documents = ["007", "7", "AB-1.x y", "A/1", "-", " "].map(|text| (2, text.to_owned()));
    let dates = ["2000-02-29", "2024-02-29", "1999-12-31", "0001-01-01", "9999-12-31"];
    let numbers = ["0", "4294967295", "007", "00000000000000000000000000000000000005"];
    values.extend(documents);
    values.extend(dates.map(|text| (3, text.to_owned())));
    values.extend(numbers.map(|text| (4, text.to_owned())));
    values
}

/// Fields of [`ROW`] with values that are refused there, and the reason.
pub(crate) fn bad_values() -> Vec<(usize, String, &'static str)> {
    let mut values = Vec::new();
    for c in ('\0'..' ').chain(INVISIBLE) {
        values.extend(TEXTS.map(|(field, code)| (field, format!("a{c}b"), code)));
    }
    for (field, code) in TEXTS {
        values.push((field, String::new(), code));
    }
    for (field, code) in NAMES {
        values.extend([(field, "x".repeat(121), code), (field, "ñ".repeat(61), code)]);
        values.push((field, "€".repeat(41), code));
    }
    for document in [&*"x".repeat(33), "ñ", "1,2", "１", "1_2", "1+2", "O'1", "\u{a0}1"] {
        values.push((2, document.to_owned(), "bad_document"));
    }
    for date in [
        "",
        "1999-02-29",
        "1900-02-29",
        "2000-02-30",
        "2000-04-31",
        "2000-13-01",
        "2000-00-10",
        "2000-01-00",
        "2000-01-32",
        "2000-1-1",
        "20000101",
        "2000/01/01",
        "01-01-2000",
        "2000-01-01 ",
        " 2000-01-01",
        "2000-01-01T00:00",
        "+200-01-01",
        "-200-01-01",
        "2000-01-0١",
        "hoy",
    ] {
        values.push((3, date.to_owned(), "bad_birthdate"));
    }
    for number in BAD_NUMBERS.into_iter().chain(["4294967296"]) {
        values.push((4, number.to_owned(), "bad_number"));
    }
    values
}

/// What is no number in decimal digits, or too large a one for anything.
pub(crate) const BAD_NUMBERS: [&str; 11] =
    ["", "-1", "+1", " 1", "1 ", "1x", "1.0", "0x1", "1e3", "１", "99999999999999999999999"];

/// Every reason with its code as it travels in the framed dialect, and the word
/// that the counted dialect has for it in answer to bets and to `GET_WINNERS`.
pub(crate) fn reasons() -> Vec<(Reason, &'static str, &'static str, &'static str)> {
    const BATCH: &str = "ERROR_INVALID_BATCH";
    const EMPTY: &str = "ERROR_EMPTY_BATCH";
    const WINNERS: &str = "ERROR_INVALID_GET_WINNERS";
    const NOT_ENDED: &str = "ERROR_LOTTERY_HASNT_ENDED";
    const BUSY: &str = "ERROR_BUSY";
    let row = |row, error| Reason::Row { row, error };
    vec![
        (Reason::Bet(BetError::Utf8), "bad_utf8", BATCH, WINNERS),
        (Reason::Bet(BetError::Fields), "bad_fields", BATCH, WINNERS),
        (Reason::Bet(BetError::Agency), "bad_agency", BATCH, WINNERS),
        (Reason::Bet(BetError::AgencyMismatch), "agency_mismatch", BATCH, WINNERS),
        (Reason::Bet(BetError::FirstName), "bad_first_name", BATCH, WINNERS),
        (Reason::Bet(BetError::LastName), "bad_last_name", BATCH, WINNERS),
        (Reason::Bet(BetError::Document), "bad_document", BATCH, WINNERS),
        (Reason::Bet(BetError::Birthdate), "bad_birthdate", BATCH, WINNERS),
        (Reason::Bet(BetError::Number), "bad_number", BATCH, WINNERS),
        (row(1, BetError::Utf8), "row 1: bad_utf8", BATCH, WINNERS),
        (row(17, BetError::Birthdate), "row 17: bad_birthdate", BATCH, WINNERS),
        (row(10_000, BetError::AgencyMismatch), "row 10000: agency_mismatch", BATCH, WINNERS),
        (Reason::Unknown, "unknown", BATCH, WINNERS),
        (Reason::BadFrame, "bad_frame", BATCH, WINNERS),
        (Reason::BadLength, "bad_length", BATCH, WINNERS),
        (Reason::BadHeader, "bad_header", BATCH, WINNERS),
        (Reason::BadAgency, "bad_agency", BATCH, WINNERS),
        (Reason::BadCount, "bad_count", BATCH, WINNERS),
        (Reason::BadUpload, "bad_upload", BATCH, WINNERS),
        (Reason::BadFirstRow, "bad_first_row", BATCH, WINNERS),
        (Reason::BadAfter, "bad_after", BATCH, WINNERS),
        (Reason::BadDraw, "bad_draw", BATCH, WINNERS),
        (Reason::BadWait, "bad_wait", BATCH, WINNERS),
        (Reason::TooMany, "too_many", BATCH, WINNERS),
        (Reason::EmptyBatch, "empty_batch", EMPTY, WINNERS),
        (Reason::Gap { next_row: 0 }, "gap|0", BATCH, WINNERS),
        (Reason::Gap { next_row: 250 }, "gap|250", BATCH, WINNERS),
        (Reason::Conflict, "conflict", BATCH, WINNERS),
        (Reason::AgencyDone, "agency_done", BATCH, WINNERS),
        (Reason::UnknownAgency, "unknown_agency", BATCH, "ERROR_INVALID_AGENCY"),
        (Reason::TooManyAgencies, "too_many_agencies", BATCH, "ERROR_INVALID_AGENCY"),
        (Reason::DrawClosed, "draw_closed", BATCH, WINNERS),
        (Reason::CountMismatch { stored: 41 }, "count_mismatch|41", BATCH, WINNERS),
        (Reason::NotReady, "not_ready", BATCH, NOT_ENDED),
        (Reason::UsePages, "too_many|use_pages", BATCH, WINNERS),
        (Reason::Busy, "busy", BUSY, BUSY),
        (Reason::StorageFull, "storage_full", BUSY, BUSY),
        (Reason::Unavailable, "unavailable", BUSY, BUSY),
        (Reason::Unauthorized, "unauthorized", "ERROR_UNAUTHORIZED", "ERROR_UNAUTHORIZED"),
        (Reason::Forbidden, "forbidden", "ERROR_INVALID_AGENCY", "ERROR_INVALID_AGENCY"),
    ]
}
