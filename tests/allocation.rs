//! What a decoder allocates is bounded by what has arrived, whatever was announced.
//!
//! A binary of its own, because its allocator counts (each thread separately). The input
//! buffer of a connection is not the decoder's and is not counted: here it is the test's
//! input itself. Each message is dropped at once, as if it had been carried out.

use allocation_counter::{AllocationInfo, measure};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sorteo_protocol::wire::{Decoder, Incoming, WireLimits};
use sorteo_test_support::cases::cases;

/// A batch's header boxed, and the fields of a line.
const ANYWAY_BYTES: u64 = 1 << 10;

/// Bytes for each byte of the longest frame: a line is split into slices of 16
/// bytes, at worst one for each byte, in a vector that doubles; while it moves,
/// its old half is there too.
const PER_FRAME_BYTE: u64 = 16 * (2 + 1);
const FRAME_BYTES_MAX: u64 = 4 + 8192;

/// Bytes for each byte of a batch: the shortest row is 22 bytes and is kept as 19
/// bytes of text and 24 of offsets, both in buffers that double (43 × 3 / 22).
const PER_BATCH_BYTE: u64 = 6;

/// Bytes for each byte of a payload. The most is taken by rows of an agency each:
/// of 22 bytes or so, with a batch, two buffers and an entry in a map for each.
const PER_PAYLOAD_BYTE: u64 = 20;

/// The most that may be allocated at once when so many bytes have arrived.
fn bound(first_byte: u8, arrived: usize) -> u64 {
    let arrived = arrived as u64;
    ANYWAY_BYTES
        + match first_byte {
            0 => PER_FRAME_BYTE * arrived.min(FRAME_BYTES_MAX) + PER_BATCH_BYTE * arrived,
            _ => PER_PAYLOAD_BYTE * arrived,
        }
}

/// What decoding allocates where the input comes in pieces of so many bytes.
fn decoding(limits: WireLimits, input: &[u8], piece_bytes: usize) -> AllocationInfo {
    measure(|| {
        let mut decoder = Decoder::new(limits);
        let (mut used, mut arrived) = (0, 0);
        while arrived < input.len() {
            arrived = input.len().min(arrived + piece_bytes);
            let mut rest = &input[used..arrived];
            while let Some(incoming) = decoder.decode(&mut rest) {
                if matches!(incoming, Incoming::RefusedForGood(_) | Incoming::Foreign) {
                    return;
                }
            }
            used = arrived - rest.len();
        }
    })
}

#[track_caller]
fn assert_within(most: u64, limits: WireLimits, input: &[u8], piece_bytes: usize) {
    let allocated = decoding(limits, input, piece_bytes);
    assert!(
        allocated.bytes_max <= most,
        "{} bytes allocated, not {most} at most, of {} that came by {piece_bytes}: {}",
        allocated.bytes_max,
        input.len(),
        input[..input.len().min(200)].escape_ascii()
    );
    assert_eq!(allocated.bytes_current, 0, "something is never freed");
}

/// Limits that refuse no announcement.
const NO_LIMITS: WireLimits = WireLimits { batch_bets_max: u64::MAX, payload_bytes_max: u64::MAX };

fn frame(line: impl AsRef<[u8]>) -> Vec<u8> {
    let line = line.as_ref();
    [&u32::try_from(line.len()).unwrap().to_be_bytes(), line].concat()
}

fn payload(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [format!("{}\n", text.len()).as_bytes(), text].concat()
}

#[test]
fn announced_lengths_take_no_memory() {
    let announced: [&[u8]; 12] = [
        b"\0\0\x20\0",
        b"\0\0\x20\0STATUS",
        b"\0\0\x20\x01STATUS",
        b"\0\xff\xff\xffSTATUS",
        b"\0\0\0\x06STATUS\xff\xff\xff\xffSTATUS",
        b"1048576\n",
        b"1048576\nAna|Paz|1|2000-01-01|7574|1\n",
        b"1048577\n",
        b"9999999999\n",
        b"9999999999\nAna|Paz|1|2000-01-01|7574|1\n",
        b"99999999999999999999999999\n",
        b"0000000000000000000000000001\n",
    ];
    for input in announced {
        for limits in [WireLimits::default(), NO_LIMITS] {
            for piece_bytes in [1, 3, input.len()] {
                assert_within(0, limits, input, piece_bytes);
            }
        }
    }
}

#[test]
fn announced_counts_take_no_memory() {
    for count in
        ["10000", "10001", "4294967295", "4294967296", "18446744073709551615", "99999999999999999999"]
    {
        for (agency, place) in [("1", ""), ("1", "|up|0"), ("1", "|up|9223372036854775807"), ("x", "")] {
            let header = frame(format!("BATCH|{agency}|{count}{place}"));
            let and_a_row = [&header[..], &frame("Ana|Paz|1|2000-01-01|7574")].concat();
            for limits in [WireLimits::default(), NO_LIMITS] {
                for piece_bytes in [1, 3, usize::MAX / 2] {
                    assert_within(ANYWAY_BYTES, limits, &header, piece_bytes);
                    assert_within(ANYWAY_BYTES, limits, &and_a_row, piece_bytes);
                }
            }
        }
    }
}

#[test]
fn a_batch_takes_memory_only_as_its_rows_arrive() {
    let mut input = frame("BATCH|1|10000");
    for row in 0..300 {
        for piece_bytes in [1, 5, 22, usize::MAX / 2] {
            assert_within(ANYWAY_BYTES + PER_BATCH_BYTE * input.len() as u64, NO_LIMITS, &input, piece_bytes);
        }
        input.extend(frame(format!("a|b|{}|2000-01-01|0", row % 10)));
    }
}

#[test]
fn a_payload_takes_no_memory_before_it_is_whole() {
    let rows = "Ana|Paz|1|2000-01-01|7574|1\n".repeat(30_000);
    let whole = payload(&rows);
    for piece_bytes in [16 << 10, whole.len()] {
        assert_within(0, WireLimits::default(), &whole[..whole.len() - 1], piece_bytes);
    }
}

/// What takes the most, as far as anybody has found.
#[test]
fn the_greediest_inputs_known_stay_within_the_bounds() {
    let batch = |rows: usize, row: &str| {
        let rows = std::iter::once(frame(format!("BATCH|1|{rows}"))).chain((0..rows).map(|_| frame(row)));
        rows.flatten().collect::<Vec<_>>()
    };
    let agencies = |count: usize| {
        payload((0..count).map(|agency| format!("a|b|1|2000-01-01|0|{agency}\n")).collect::<String>())
    };
    let mut greedy: Vec<Vec<u8>> = Vec::new();
    // Just over a power of two, where a vector has just doubled.
    greedy.extend((0..13).map(|power| frame("|".repeat((1 << power) + 1))));
    greedy.extend(["BET", "BATCH", "DONE"].map(|verb| frame(verb.to_owned() + &"|".repeat(4097))));
    greedy.extend([frame([0xff; 8192]), frame([b"DONE".as_slice(), &b"|\xff".repeat(4000)].concat())]);
    greedy.extend([1, 4, 5, 100, 10_000].map(|rows| batch(rows, "a|b|1|2000-01-01|0")));
    greedy.extend([5, 1000].map(|rows| batch(rows, &format!("{0}|{0}|1|2000-01-01|0", "n".repeat(120)))));
    greedy.extend([1, 2, 5, 100, 7_169, 14_337, 28_673, 32_769, 40_000].map(agencies));
    greedy.push(payload("a|b|1|2000-01-01|0|1\n".repeat(40_000)));
    greedy.push(payload("\n".repeat(1 << 20)));
    greedy.push(payload([b"GET_WINNERS|".as_slice(), &[0xff; 1_000_000]].concat()));
    for input in greedy {
        for piece_bytes in [22, 16 << 10, input.len()] {
            assert_within(bound(input[0], input.len()), WireLimits::default(), &input, piece_bytes);
        }
    }
}

/// Lines that announce, and lines that keep something.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        "BATCH|1|10000",
        "BATCH|1|4000000000",
        "BATCH|x|3",
        "BATCH|1",
        "BET|1|a|b|1|2000-01-01|0",
        "a|b|1|2000-01-01|0",
        "GET_WINNERS|1",
        "STATUS",
        "DONE|1|",
        "||||||||||||||||||||||||||||||||||||||||",
    ]);
    let words = words.prop_map(|words| words.as_bytes().to_vec());
    let row = any::<u32>().prop_map(|agency| format!("a|b|1|2000-01-01|0|{agency}\n").into_bytes());
    let rows = vec(row, 1..80).prop_map(|rows| rows.concat());
    let same = (any::<u8>(), 0..1000_usize).prop_map(|(byte, count)| vec![byte; count]);
    prop_oneof![4 => words, 2 => rows, 1 => same, 1 => vec(any::<u8>(), 0..60)]
}

/// Messages of one dialect, or bytes of none, and a length that is a lie.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let frames = vec(line().prop_map(frame), 0..40).prop_map(|frames| frames.concat());
    let payloads = vec(line().prop_map(payload), 0..20).prop_map(|payloads| payloads.concat());
    let lie = select(vec![&b""[..], b"\0\0\x20\0", b"\0\0\0\0", b"1048576\n", b"9999999999\n", b"\xff"]);
    let tail = vec(any::<u8>(), 0..60);
    (prop_oneof![frames, payloads, Just(Vec::new())], lie, tail)
        .prop_map(|(messages, lie, tail)| [&messages[..], lie, &tail].concat())
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn any_bytes_take_no_more_than_a_small_multiple_of_what_arrived(
        input in any_bytes(),
        piece_bytes in prop_oneof![Just(1), 1..100_usize, Just(usize::MAX / 2)],
        limits in prop_oneof![Just(WireLimits::default()), Just(NO_LIMITS)],
    ) {
        let first = input.first().copied().unwrap_or(0);
        assert_within(bound(first, input.len()), limits, &input, piece_bytes);
    }
}
