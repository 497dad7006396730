//! What the decoder and the service promise of any bytes. Each function panics
//! where it does not hold, and says of which input.

use std::slice;

use sorteo::server::conversation::Pause;
use sorteo_protocol::wire::{
    Dialect, Incoming, Reply, Request, WireLimits, counted, decode_reply, encode_reply, framed,
};
use sorteo_protocol::{Batch, Bet as ProtocolBet};

use super::delivery::{Delivered, Peer, deliver};
use super::model::{self, Lottery, by_agency};
use super::reading::{Allowed, Asked, Bet, Reading, Speech, read};

/// Inputs up to so many bytes are cut at every place there is.
const CUT_EVERYWHERE_BYTES_MAX: usize = 160;
/// Longer ones are cut so many times.
const CUTTINGS: u64 = 6;
/// A conversation, which costs more than decoding, is cut so many times.
const CONVERSATION_CUTTINGS: u64 = 2;

/// Limits that a few lines reach.
pub const TIGHT: WireLimits = WireLimits { batch_bets_max: 3, payload_bytes_max: 150 };

/// The limits in the model's words.
pub fn allowed(limits: WireLimits) -> Allowed {
    Allowed { batch_bets: limits.batch_bets_max, payload_bytes: limits.payload_bytes_max }
}

/// Whatever pieces they come in, the same bytes make the same messages.
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

/// Pieces that only the input and the seed decide.
fn pieces(input: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ input.len() as u64;
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        // Knuth's MMIX constants; the upper bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Short pieces and long ones alike.
        let longest = 1 << ((state >> 60) & 7);
        let (piece, behind) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % longest));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// The decoder makes of the bytes what the protocol says of them.
pub fn decoded_as_the_protocol_says(limits: WireLimits, input: &[u8], delivered: &Delivered) {
    let Reading { speech, messages, unfinished_batch } = read(input, allowed(limits));
    let expected: Vec<_> = messages.into_iter().map(|message| gathered(message.asked)).collect();
    let came: Vec<_> = delivered.messages.iter().map(|message| asked(delivered.dialect, message)).collect();
    assert_eq!(came, expected, "{}", input.escape_ascii());
    assert_eq!(delivered.dialect.map(speech_of), speech, "{}", input.escape_ascii());
    assert_eq!(delivered.batch_in_progress, unfinished_batch, "{}", input.escape_ascii());
}

/// Whatever request was understood is understood the same as our clients write it.
pub fn requests_survive_encoding(delivered: &Delivered) {
    for message in &delivered.messages {
        let Incoming::Request(request) = message else { continue };
        let bytes = encoded(delivered.dialect.expect("a request has one"), request);
        let again = deliver(WireLimits::default(), [&bytes[..]]);
        assert_eq!(again.messages, slice::from_ref(message), "{}", bytes.escape_ascii());
    }
}

/// A request as a client of the dialect writes it.
pub fn encoded(dialect: Dialect, request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    match dialect {
        Dialect::Framed => framed::encode_request(request, &mut bytes),
        Dialect::Counted => counted::encode_request(request, &mut bytes),
    }
    bytes
}

/// In whatever pieces the bytes come, a server replies what the model does, each reply
/// once its request is whole; and a client of the dialect can read all of it.
pub fn answered_as_the_model_does(agencies: Option<u32>, limits: WireLimits, input: &[u8]) {
    let model = Lottery::new(agencies).hear(input, allowed(limits));
    let replied_in = |pieces: &[&[u8]]| {
        let mut peer = Peer::new(agencies, limits);
        let (mut replies, mut arrived) = (Vec::new(), 0);
        for piece in pieces {
            if peer.is_closed() {
                break;
            }
            replies.extend(peer.send(piece));
            arrived += piece.len();
            let due = model.bytes_due(arrived);
            assert_eq!(shown(&replies), shown(&due), "in {} pieces: {}", pieces.len(), shown(input));
        }
        assert_eq!(peer.is_closed(), model.closes, "in {} pieces: {}", pieces.len(), shown(input));
    };
    replied_in(&[input]);
    for seed in 0..CONVERSATION_CUTTINGS {
        replied_in(&pieces(input, seed));
    }
    if input.len() <= CUT_EVERYWHERE_BYTES_MAX {
        replied_in(&input.chunks(1).collect::<Vec<_>>());
    }
    clients_read_all_of(&model.bytes());
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Asserts that the client's side of the dialect can read all of these replies.
fn clients_read_all_of(replies: &[u8]) {
    let mut rest = replies;
    while let Some(first) = rest.first() {
        let dialect = Dialect::detect(*first).expect("a reply has a dialect");
        decode_reply(dialect, &mut rest).expect("a reply").expect("a whole one");
    }
}

/// Returns what a server replies to each message that is answered at all.
pub fn answers(agencies: Option<u32>, limits: WireLimits, input: &[u8]) -> Vec<Vec<u8>> {
    let mut peer = Peer::new(agencies, limits);
    peer.offer(input);
    let mut answers = Vec::new();
    loop {
        let mut answer = Vec::new();
        let pause = peer.advance(1, &mut answer);
        if let Some(wait) = peer.conversation.wait() {
            // Nobody else is there to have the draw drawn.
            peer.now = wait.until;
        }
        if !answer.is_empty() {
            answers.push(answer);
        }
        if matches!(pause, Pause::Input | Pause::Closed) {
            return answers;
        }
    }
}

// ---- The decoder's messages in the reading's words ------------------------------

/// The decoder gathers a payload's rows by agency.
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
            bets: bets(batch),
        },
        Request::Payload(batches) => {
            let rows = |batch: &Batch| bets(batch).into_iter().map(|bet| (batch.agency.0, bet)).collect();
            Asked::Payload(batches.iter().flat_map::<Vec<_>, _>(rows).collect())
        }
        Request::Done { agency, bets } => Asked::Done { agency: agency.0, bets: *bets },
        Request::Winners { agency } => Asked::Winners { agency: agency.0 },
        Request::WinnersPage { agency, after, draw } => {
            let draw = draw.map(|draw| u64::try_from(draw.0).expect("no draw is negative"));
            Asked::Page { agency: agency.0, after: *after, draw }
        }
        Request::WaitWinners { agency, wait } => {
            let ms = u64::try_from(wait.as_millis()).expect("at most a minute");
            Asked::Wait { agency: agency.0, ms }
        }
        Request::DoneAndWinners { agency } => Asked::DoneAndWinners { agency: agency.0 },
        Request::Resume { agency, upload } => {
            Asked::Resume { agency: agency.0, upload: upload.as_str().to_owned() }
        }
        Request::Status => Asked::Status,
    }
}

fn bets(batch: &Batch) -> Vec<Bet> {
    let bet = |bet: ProtocolBet<'_>| {
        let texts = [bet.first_name, bet.last_name, bet.document, bet.birthdate].map(str::to_owned);
        let [first_name, last_name, document, birthdate] = texts;
        Bet { first_name, last_name, document, birthdate, number: bet.number }
    };
    batch.bets.iter().map(bet).collect()
}

/// An answer without its frame.
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
