//! What must hold for a decoder and any bytes. Each function panics with the input
//! for which it does not.

use std::slice;

use sorteo_protocol::wire::{
    Dialect, Incoming, Reason, Reply, Request, WireLimits, counted, encode_reply, framed,
};
use sorteo_protocol::{Batch, Bet as ProtocolBet, DrawId};

use crate::delivery::{Delivered, deliver};
use crate::model::{self, by_agency};
use crate::reading::{Allowed, Asked, Bet, Reading, Speech, read};

/// Inputs up to so many bytes are cut at every offset.
pub(crate) const CUT_EVERYWHERE_BYTES_MAX: usize = 160;
/// Longer ones are cut into random pieces so many times.
const CUTTINGS: u64 = 6;

/// Limits that a few lines exceed.
pub const TIGHT: WireLimits = WireLimits { batch_bets_max: 3, payload_bytes_max: 150 };

/// Returns the limits in the model's types.
pub fn allowed(limits: WireLimits) -> Allowed {
    Allowed { batch_bets: limits.batch_bets_max, payload_bytes: limits.payload_bytes_max }
}

/// Asserts that the same bytes make the same messages, whatever pieces they arrive in.
pub fn same_messages_in_any_pieces(limits: WireLimits, input: &[u8]) -> Delivered {
    let shown = input.escape_ascii();
    let whole = deliver(limits, [input]);
    assert_eq!(deliver(limits, input.chunks(1)), whole, "byte by byte: {shown}");
    if input.len() <= CUT_EVERYWHERE_BYTES_MAX {
        for cut in 1..input.len() {
            let (head, tail) = input.split_at(cut);
            assert_eq!(deliver(limits, [head, tail]), whole, "cut at {cut}: {shown}");
        }
    } else {
        for seed in 0..CUTTINGS {
            assert_eq!(deliver(limits, pieces(input, seed)), whole, "cutting {seed}: {shown}");
        }
    }
    whole
}

/// Cuts the input into pieces, always the same for the same input and seed.
pub(crate) fn pieces(input: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ input.len() as u64;
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        // Knuth's MMIX constants. The upper bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Both short and long pieces.
        let longest = 1 << ((state >> 60) & 7);
        let (piece, behind) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % longest));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Asserts that the decoder reads the bytes as the protocol defines them.
pub fn decoded_as_the_protocol_says(limits: WireLimits, input: &[u8], delivered: &Delivered) {
    let Reading { speech, messages, unfinished_batch } = read(input, allowed(limits));
    let expected: Vec<_> = messages.into_iter().map(|message| gathered(message.asked)).collect();
    let came: Vec<_> = delivered.messages.iter().map(|message| asked(delivered.dialect, message)).collect();
    assert_eq!(came, expected, "{}", input.escape_ascii());
    assert_eq!(delivered.dialect.map(speech_of), speech, "{}", input.escape_ascii());
    assert_eq!(delivered.batch_in_progress, unfinished_batch, "{}", input.escape_ascii());
}

/// Asserts that each decoded request, encoded as our clients do, is decoded as the same.
pub fn requests_survive_encoding(delivered: &Delivered) {
    for message in &delivered.messages {
        let Incoming::Request(request) = message else { continue };
        let bytes = encoded(delivered.dialect.expect("a request has one"), request);
        let again = deliver(WireLimits::default(), [&bytes[..]]);
        assert_eq!(again.messages, slice::from_ref(message), "{}", bytes.escape_ascii());
    }
}

/// Returns a request as a client of the dialect writes it.
pub fn encoded(dialect: Dialect, request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    match dialect {
        Dialect::Framed => framed::encode_request(request, &mut bytes),
        Dialect::Counted => counted::encode_request(request, &mut bytes),
    }
    bytes
}

// ---- The decoder's messages in the types of `reading` ---------------------------

/// Groups a payload's rows by agency, as the decoder does.
fn gathered(asked: Asked) -> Asked {
    let Asked::Payload(rows) = asked else { return asked };
    let rows_of = |batch: model::Batch| batch.bets.into_iter().map(move |bet| (batch.agency, bet));
    Asked::Payload(by_agency(rows).into_iter().flat_map(rows_of).collect())
}

fn speech_of(dialect: Dialect) -> Speech {
    match dialect {
        Dialect::Framed => Speech::Framed,
        Dialect::Counted => Speech::Counted,
    }
}

fn asked(dialect: Option<Dialect>, message: &Incoming) -> Asked {
    let words = |reply| words(dialect.expect("an answer has a dialect"), reply);
    match message {
        Incoming::Refused(reply) => Asked::Refused(words(reply)),
        Incoming::RefusedForGood(reply) => Asked::RefusedForGood(words(reply)),
        Incoming::Foreign => Asked::Foreign,
        // The model is of a server without authentication, which knows no such request.
        Incoming::Request(Request::Auth(_)) => Asked::Refused(words(&Reply::Unrecognised(Reason::Unknown))),
        Incoming::Request(request) => requested(request),
    }
}

fn requested(request: &Request) -> Asked {
    match request {
        Request::Bet(batch) => Asked::Bet(batch.agency.0, bets(batch).remove(0)),
        Request::Batch(batch) => Asked::Batch {
            agency: batch.agency.0,
            position: batch
                .position
                .as_ref()
                .map(|position| (position.upload.as_str().to_owned(), position.first_row)),
            draw: batch.position.as_ref().and_then(|position| number(position.draw)),
            bets: bets(batch),
        },
        Request::Payload(batches) => {
            let rows = |batch: &Batch| bets(batch).into_iter().map(|bet| (batch.agency.0, bet)).collect();
            Asked::Payload(batches.iter().flat_map::<Vec<_>, _>(rows).collect())
        }
        Request::Done { agency, bets, draw } => {
            Asked::Done { agency: agency.0, bets: *bets, draw: number(*draw) }
        }
        Request::Winners { agency } => Asked::Winners { agency: agency.0 },
        Request::WinnersPage { agency, after, draw } => {
            Asked::Page { agency: agency.0, after: *after, draw: number(*draw) }
        }
        Request::WaitWinners { agency, wait, draw } => {
            let ms = u64::try_from(wait.as_millis()).expect("at most a minute");
            Asked::Wait { agency: agency.0, ms, draw: number(*draw) }
        }
        Request::DoneAndWinners { agency } => Asked::DoneAndWinners { agency: agency.0 },
        Request::Resume { agency, upload, draw } => {
            let upload = upload.as_str().to_owned();
            Asked::Resume { agency: agency.0, upload, draw: number(*draw) }
        }
        Request::Hello => Asked::Hello,
        Request::Status => Asked::Status,
        Request::Auth(_) => unreachable!("read as a refusal"),
    }
}

fn number(draw: Option<DrawId>) -> Option<u64> {
    draw.map(|draw| u64::try_from(draw.0).expect("no draw is negative"))
}

fn bets(batch: &Batch) -> Vec<Bet> {
    let bet = |bet: ProtocolBet<'_>| {
        let texts = [bet.first_name, bet.last_name, bet.document, bet.birthdate].map(str::to_owned);
        let [first_name, last_name, document, birthdate] = texts;
        Bet { first_name, last_name, document, birthdate, number: bet.number }
    };
    batch.bets.iter().map(bet).collect()
}

/// Returns the text of an answer, without its frame.
pub fn words(dialect: Dialect, reply: &Reply) -> String {
    let mut bytes = Vec::new();
    encode_reply(dialect, reply, &mut bytes);
    let text = match dialect {
        Dialect::Framed => bytes[4..].strip_suffix(b"\n").expect("a framed answer ends in a newline"),
        Dialect::Counted => {
            let length_end = bytes.iter().position(|b| *b == b'\n').expect("a length ends in a newline");
            &bytes[length_end + 1..]
        }
    };
    String::from_utf8(text.to_vec()).expect("answers are text")
}
