//! What peers send, step by step: valid, refused and malformed requests of either
//! dialect. There are so few agencies, uploads and positions that the steps interact, and
//! a given row of an upload is always the same.

use std::ops::Range;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sorteo_test_support::model::WINNING_NUMBER;

use crate::wire_support::{BAD_NUMBERS, bad_values, frame, is_allowed, payload, row_with};

/// The bytes of one step; of a batch, with all its rows.
#[derive(Clone)]
pub struct Step(pub Vec<u8>);

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

// ---- Fields and rows -----------------------------------------------------------

/// Agencies that a lottery expects, and now and then others.
pub fn agencies() -> BoxedStrategy<u32> {
    prop_oneof![30 => 1..=3_u32, 1 => Just(0), 1 => Just(4), 1 => any::<u32>()].boxed()
}

/// The same agency is written in many ways.
fn written(agency: BoxedStrategy<u32>) -> BoxedStrategy<String> {
    let zeros = select(vec!["", "", "", "0", "000000000000"]);
    (zeros, agency).prop_map(|(zeros, agency)| format!("{zeros}{agency}")).boxed()
}

fn name() -> impl Strategy<Value = String> {
    let any_text = vec(any::<char>().prop_map(|c| if is_allowed(c) { c } else { 'x' }), 1..=30);
    let common = select(vec!["Ana", "Bo", "Ñandú", "O'Higgins, José", "BET", "GET_WINNERS "]);
    prop_oneof![8 => common.prop_map(str::to_owned), 1 => any_text.prop_map(String::from_iter)]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(WINNING_NUMBER.to_string()),
        1 => Just(format!("000{WINNING_NUMBER}")),
        2 => (0..10_000_u32).prop_map(|number| number.to_string()),
        1 => any::<u32>().prop_map(|number| number.to_string()),
    ]
}

fn row() -> impl Strategy<Value = String> {
    let document = prop_oneof![8 => "[0-9]{1,8}", 1 => "[ -+.-{]{32}"];
    let date =
        (0..=9999, 1..=12, 1..=28).prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
    (name(), name(), document, date, number()).prop_map(|(first, last, document, date, number)| {
        format!("{first}|{last}|{document}|{date}|{number}")
    })
}

/// So many rows, of which a few come again and again.
fn many(row: impl Strategy<Value = String> + 'static, count: Range<usize>) -> BoxedStrategy<Vec<String>> {
    let cycle = |(rows, count): (Vec<String>, usize)| rows.into_iter().cycle().take(count).collect();
    (vec(row, 1..6), count).prop_map(cycle).boxed()
}

fn bad_row() -> impl Strategy<Value = Vec<u8>> {
    let bad_field = select(bad_values()).prop_map(|(field, value, _)| row_with(field, &value).into_bytes());
    let no_row: Vec<&[u8]> = vec![
        b"",
        b"|",
        b"STATUS",
        b"Ana|Paz|1|2000-01-01",
        b"Ana|Paz|1|2000-01-01|1|2",
        b"BET|1|Ana|Paz|1|2000-01-01|",
        b"BET|one|Ana|Paz|1|2000-01-01|1",
        b"BAT|1|Ana|Paz|1|2000-01-01|1",
        b"An\xff|Paz|1|2000-01-01|1",
        b"\xc3\x28",
    ];
    prop_oneof![2 => bad_field, 1 => select(no_row).prop_map(<[u8]>::to_vec)]
}

/// A row of an upload: which one it is decides what it says.
fn upload_row(agency: u32, upload: &str, row: u64) -> String {
    let number = if row.is_multiple_of(2) { WINNING_NUMBER } else { 1 };
    format!("Ana|Paz|{agency}{upload}{row}|1999-03-17|{number}")
}

// ---- The framed dialect --------------------------------------------------------

type Lines = Vec<Vec<u8>>;

fn line(text: impl Into<Vec<u8>>) -> Lines {
    vec![text.into()]
}

/// Frames of one step, all with the same line end.
fn framed_step(lines: impl Strategy<Value = Lines>) -> impl Strategy<Value = Step> {
    let line_end = select(vec!["", "", "\n", "\r\n"]);
    (lines, line_end).prop_map(|(lines, line_end)| {
        let in_frame = |line: Vec<u8>| frame([&line[..], line_end.as_bytes()].concat());
        // A frame of no bytes is none: that is another step.
        let lines = lines.into_iter().map(|line| if line.is_empty() { b"|".to_vec() } else { line });
        Step(lines.flat_map(in_frame).collect())
    })
}

/// Requests of the framed dialect by these agencies.
pub fn framed(agency: BoxedStrategy<u32>) -> BoxedStrategy<Step> {
    let id = || written(agency.clone());
    let lines = prop_oneof![
        6 => (id(), row()).prop_map(|(id, row)| line(format!("BET|{id}|{row}"))),
        2 => (id(), bad_row()).prop_map(|(id, row)| line([format!("BET|{id}|").as_bytes(), &row].concat())),
        6 => batch(id(), vec(row(), 0..6).boxed()),
        1 => batch(id(), many(row(), 30..110)),
        3 => bad_batch(id()),
        12 => upload_batch(agency.clone()),
        2 => bad_header(id()),
        2 => done(id()),
        6 => question(id()),
        2 => (id(), "[a-b]").prop_map(|(id, upload)| line(format!("RESUME|{id}|{upload}"))),
        3 => select(malformed()).prop_map(line),
    ];
    framed_step(lines).boxed()
}

/// Asks for the status of the whole lottery, which others may change.
pub fn framed_status() -> BoxedStrategy<Step> {
    framed_step(select(vec![line("STATUS"), line("STATUS\r"), line("STATUS\n")])).boxed()
}

/// The last that a connection is heard of.
pub fn framed_end() -> BoxedStrategy<Step> {
    let too_many = line("BATCH|1|10001");
    let huge_count = line(format!("BATCH|1|{}", "9".repeat(30)));
    let bad_lengths: Vec<&[u8]> =
        vec![b"\0\0\0\0", b"\0\0\x20\x01", b"\0\x01\0\0STATUS", b"\xff\xff\xff\xff"];
    prop_oneof![
        framed_step(select(vec![too_many, huge_count])),
        select(bad_lengths).prop_map(|bytes| Step(bytes.to_vec())),
    ]
    .boxed()
}

fn batch(id: BoxedStrategy<String>, rows: BoxedStrategy<Vec<String>>) -> impl Strategy<Value = Lines> {
    (id, rows, any::<u64>()).prop_map(|(id, rows, own_headers)| {
        let header = format!("BATCH|{id}|{}", rows.len());
        let row = |(at, row): (usize, String)| {
            let has_own_header = own_headers >> (at % 64) & 1 == 1;
            if has_own_header { format!("BET|{id}|{row}") } else { row }
        };
        std::iter::once(header).chain(rows.into_iter().enumerate().map(row)).map(String::into_bytes).collect()
    })
}

/// A batch with one row that is bad, or of another agency, and perhaps another.
fn bad_batch(id: BoxedStrategy<String>) -> impl Strategy<Value = Lines> {
    let other_agency = row().prop_map(|row| format!("BET|77|{row}").into_bytes());
    let bad = prop_oneof![3 => bad_row(), 1 => other_agency];
    let rows = vec(row().prop_map(String::into_bytes), 0..5);
    (id, rows, vec((bad, any::<prop::sample::Index>()), 1..3)).prop_map(|(id, mut rows, bad)| {
        for (row, at) in bad {
            rows.insert(at.index(rows.len() + 1), row);
        }
        rows.insert(0, format!("BATCH|{id}|{}", rows.len()).into_bytes());
        rows
    })
}

/// A batch of an upload. Few places and counts, so that some follow each other,
/// some are repeated, some leave a hole and some are cut in another way.
fn upload_batch(agency: BoxedStrategy<u32>) -> impl Strategy<Value = Lines> {
    let first_row =
        prop_oneof![4 => Just(0), 4 => Just(2), 3 => Just(4), 2 => 0..7_u64, 1 => Just(i64::MAX as u64)];
    let count = prop_oneof![8 => Just(2_u64), 1 => 0..5_u64];
    let are_others = prop::bool::weighted(0.1);
    (agency, "[a-b]", first_row, count, are_others).prop_map(
        |(agency, upload, first_row, count, are_others)| {
            let mut lines = line(format!("BATCH|{agency}|{count}|{upload}|{first_row}"));
            for row in 0..count {
                let row = upload_row(agency, &upload, first_row.saturating_add(row));
                let row = if are_others { row.replacen("Ana", "Eva", 1) } else { row };
                lines.push(row.into_bytes());
            }
            lines
        },
    )
}

/// A batch whose header is wrong, with rows behind it in both forms.
fn bad_header(id: BoxedStrategy<String>) -> impl Strategy<Value = Lines> {
    let long_name = "x".repeat(65);
    let headers = ["|2|", "|2|up|", "|2|a b|0", "|2||0", "|-5", "|+2", "|", "|2x|a|0"].map(str::to_owned);
    let skipped = [format!("|2|{long_name}|0"), "|2|a|9223372036854775808".into(), "|2|a|-1".into()];
    let tail = select([&headers[..], &skipped[..]].concat());
    (id, tail, vec(row(), 2), any::<[bool; 3]>()).prop_map(|(id, tail, rows, [bad_agency, first, second])| {
        let agency = if bad_agency { "4294967296" } else { &id };
        let mut lines = line(format!("BATCH|{agency}{tail}"));
        for (row, has_own_header) in rows.into_iter().zip([first, second]) {
            let header = if has_own_header { format!("BET|{id}|") } else { String::new() };
            lines.push(format!("{header}{row}").into_bytes());
        }
        lines
    })
}

fn done(id: BoxedStrategy<String>) -> impl Strategy<Value = Lines> {
    let count = option::of(prop_oneof![4 => 0..8_u64, 1 => any::<u64>()]);
    (id, count).prop_map(|(id, count)| {
        let count = count.map(|count| format!("|{count}")).unwrap_or_default();
        line(format!("DONE|{id}{count}"))
    })
}

fn question(id: BoxedStrategy<String>) -> impl Strategy<Value = Lines> {
    let after = || prop_oneof![3 => Just(0), 2 => 0..30_u64, 1 => 0..=i64::MAX as u64];
    let draw = prop_oneof![2 => Just(1), 1 => 0..=i64::MAX as u64];
    let rest = prop_oneof![
        2 => Just(String::new()),
        2 => after().prop_map(|after| format!("|{after}")),
        1 => (after(), draw).prop_map(|(after, draw)| format!("|{after}|{draw}")),
    ];
    let get = (id.clone(), rest).prop_map(|(id, rest)| line(format!("GET_WINNERS|{id}{rest}")));
    let wait = (id, 0..15_u64).prop_map(|(id, ms)| line(format!("WAIT_WINNERS|{id}|{ms}")));
    prop_oneof![3 => get, 1 => wait]
}

/// What is no request, or a request with a field that is wrong.
fn malformed() -> Lines {
    let mut lines: Vec<String> = [
        "",
        "|",
        "bet|1",
        "BET",
        "BET|1",
        "BATCHES|1|2",
        "HELO",
        "STATUS|",
        "STATUS|1",
        "AUTH|1|x",
        "BATCH",
        "BATCH|1",
        "BATCH|1|2|a|0|x",
        "DONE",
        "DONE|1|2|3",
        "GET_WINNERS",
        "GET_WINNERS|1|0|1|1",
        "GET_WINNERS|1|9223372036854775808",
        "GET_WINNERS|1|0|9223372036854775808",
        "WAIT_WINNERS|1",
        "WAIT_WINNERS|1|60001",
        "RESUME|1",
        "RESUME|1|",
        "RESUME|1|a|0",
        " STATUS",
        "Ana|Paz|1|2000-01-01|7574",
    ]
    .map(str::to_owned)
    .into();
    for bad in BAD_NUMBERS {
        lines.push(format!("DONE|{bad}"));
        lines.push(format!("DONE|1|{bad}"));
        lines.push(format!("GET_WINNERS|{bad}"));
        lines.push(format!("GET_WINNERS|1|{bad}"));
        lines.push(format!("WAIT_WINNERS|1|{bad}"));
        lines.push(format!("RESUME|{bad}|a"));
    }
    let not_utf_8: [&[u8]; 4] = [b"\xff", b"DONE|\xff", b"BET|1|\xff|Paz|1|2000-01-01|1", b"RESUME|1|\xc3"];
    let lines = lines.into_iter().map(String::into_bytes);
    lines.chain(not_utf_8.map(<[u8]>::to_vec)).collect()
}

// ---- The counted dialect -------------------------------------------------------

fn counted_step(text: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Step> {
    let zeros = prop_oneof![9 => Just(""), 1 => Just("00")];
    (text, zeros).prop_map(|(text, zeros)| Step([zeros.as_bytes(), &payload(text)].concat()))
}

/// Requests of the counted dialect by these agencies.
pub fn counted(agency: BoxedStrategy<u32>) -> BoxedStrategy<Step> {
    let id = || written(agency.clone());
    let rows = |rows| (vec((row(), id()), rows), select(vec!["\n", "\r\n"]), any::<bool>());
    let lines = |(rows, line_end, ends): (Vec<(String, String)>, &str, bool)| {
        let lines: Vec<_> = rows.iter().map(|(row, id)| format!("{row}|{id}")).collect();
        lines.join(line_end) + if ends { line_end } else { "" }
    };
    let bad = (rows(0..4), bad_row(), rows(0..4)).prop_map(move |(before, bad, behind)| {
        [lines(before).as_bytes(), b"\n", &bad, b"|1\n", lines(behind).as_bytes()].concat()
    });
    let get_winners = (id(), select(vec!["", "", "\n", "\r\n"]))
        .prop_map(|(id, line_end)| format!("GET_WINNERS|{id}{line_end}").into_bytes());
    let text = prop_oneof![
        10 => rows(1..7).prop_map(move |rows| lines(rows).into_bytes()),
        2 => (many(row(), 1..400), id()).prop_map(|(rows, id)| of_one_agency(rows, &id)),
        3 => bad,
        3 => get_winners,
        3 => select(malformed_payloads()),
    ];
    counted_step(text).boxed()
}

/// The last that a connection is heard of.
pub fn counted_end() -> BoxedStrategy<Step> {
    let bad: Vec<&[u8]> =
        vec![b"x", b"\n", b"1x\n", b"12345678901", b"0000000000001\na", b"1048577\n", b" 3\nACK"];
    select(bad).prop_map(|bytes| Step(bytes.to_vec())).boxed()
}

fn of_one_agency(rows: Vec<String>, id: &str) -> Vec<u8> {
    rows.iter().map(|row| format!("{row}|{id}\n")).collect::<String>().into_bytes()
}

fn malformed_payloads() -> Lines {
    let texts: [&[u8]; 16] = [
        b"",
        b"\n",
        b"\r\n\n\r\n",
        b"\r",
        b" ",
        b"|||||",
        b"STATUS",
        b"DONE|1",
        b"GET_WINNERS",
        b"GET_WINNERS|",
        b"GET_WINNERS|x",
        b"GET_WINNERS|1|2",
        b"GET_WINNERS|1\n\n",
        b"GET_WINNERS|1\nAna|Paz|1|2000-01-01|7574|1",
        b"Ana|Paz|1|2000-01-01|7574|4294967296",
        b"A\xff|Paz|1|2000-01-01|7574|1",
    ];
    texts.map(<[u8]>::to_vec).into()
}
