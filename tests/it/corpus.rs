//! Replays the inputs of `tests/corpus`: in all pieces, compared with the protocol and
//! with a running server, and listed with what the decoder makes of each.
//! `tests/corpus/README.md` describes how to add one.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use expect_test::expect_file;
use sorteo_protocol::wire::{Incoming, WireLimits};
use sorteo_test_support::conversation::{answered_as_the_model_does, answers};
use sorteo_test_support::decoder::{
    TIGHT, allowed, decoded_as_the_protocol_says, encoded, requests_survive_encoding,
    same_messages_in_any_pieces,
};
use sorteo_test_support::delivery::{Delivered, deliver};
use sorteo_test_support::model::Lottery;

use crate::test_server::Setup;

/// The longest wait for a draw that does not happen: a fuzzer may have found a longer one.
const WAITED_MS_MAX: u64 = 1_000;

/// What an input is named, and its bytes.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// All inputs by name: those of the corpus, or of a fuzzer's in `SORTEO_CORPUS`.
fn inputs() -> Vec<Input> {
    match std::env::var_os("SORTEO_CORPUS") {
        Some(folder) => inputs_in(Path::new(&folder)),
        None => folders().flat_map(|folder| inputs_in(&folder)).collect(),
    }
}

/// Those of one folder of the corpus, by name.
pub(crate) fn inputs_of(folder: &str) -> Vec<Input> {
    inputs_in(&corpus().join(folder))
}

fn folders() -> impl Iterator<Item = PathBuf> {
    ["any", "counted", "framed"].into_iter().map(|dialect| corpus().join(dialect))
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn inputs_in(folder: &Path) -> Vec<Input> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let input = |path: PathBuf| {
        let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
        Input { name: format!("{}/{}", parts[1], parts[0]), bytes: fs::read(&path).unwrap() }
    };
    let inputs: Vec<_> = paths.into_iter().map(input).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

#[test]
fn every_input_is_understood_the_same_in_any_pieces_and_as_the_protocol_says() {
    for Input { name, bytes } in inputs() {
        println!("{name}");
        for limits in [WireLimits::default(), TIGHT] {
            let delivered = same_messages_in_any_pieces(limits, &bytes);
            decoded_as_the_protocol_says(limits, &bytes, &delivered);
            requests_survive_encoding(&delivered);
            for agencies in [None, Some(2)] {
                answered_as_the_model_does(agencies, limits, &bytes);
            }
        }
    }
}

/// The real server with its database: one for each input, and a few at once,
/// for most of the time is the disk's.
#[test]
fn every_input_is_answered_by_a_server_as_the_protocol_says() {
    let inputs = inputs();
    thread::scope(|scope| {
        for share in inputs.chunks(inputs.len().div_ceil(8)) {
            scope.spawn(|| share.iter().for_each(assert_answered_by_a_server));
        }
    });
}

fn assert_answered_by_a_server(Input { name, bytes }: &Input) {
    let answers = Lottery::new(None).hear(bytes, allowed(WireLimits::default()));
    if answers.waited_ms > WAITED_MS_MAX {
        println!("{name}: left out, for it waits {} ms", answers.waited_ms);
        return;
    }
    println!("{name}");
    let server = Setup::default().start();
    let mut client = server.connect();
    client.try_send(bytes);
    client.expect(&answers.bytes());
    if answers.closes {
        client.expect_gone();
    } else {
        client.half_close();
        client.expect_end();
    }
}

#[test]
fn what_the_decoder_makes_of_the_corpus_is_what_was_last_agreed() {
    let inputs = folders().flat_map(|folder| inputs_in(&folder));
    let listing: Vec<_> = inputs.map(|Input { name, bytes }| listed(&name, &bytes)).collect();
    expect_file![corpus().join("expected.txt")].assert_eq(&listing.join("\n"));
}

/// One input's part of the listing: each message, and what a service that expects
/// all agencies seen answers it.
fn listed(name: &str, bytes: &[u8]) -> String {
    let delivered = deliver(WireLimits::default(), [bytes]);
    let mut lines = Vec::new();
    let mut answers = answers(None, WireLimits::default(), bytes).into_iter();
    for message in &delivered.messages {
        let answer = answers.next().unwrap_or_default();
        lines.push(listed_message(&delivered, message, &answer));
    }
    if delivered.waiting_bytes > 0 {
        lines.push(format!("waits for more than {} bytes", delivered.waiting_bytes));
    }
    if let Some(count) = delivered.batch_in_progress {
        lines.push(format!("in a batch of {count}"));
    }
    let mut part = format!("{name}\n");
    for same in lines.chunk_by(|line, next| line == next) {
        let times = if same.len() > 1 { format!("{} × ", same.len()) } else { String::new() };
        part += &format!("    {times}{}\n", same[0]);
    }
    part
}

fn listed_message(delivered: &Delivered, message: &Incoming, answer: &[u8]) -> String {
    match message {
        Incoming::Request(request) => {
            let bytes = encoded(delivered.dialect.expect("a request has one"), request);
            format!("request {}\n        answer {}", shown(&bytes), shown(answer))
        }
        Incoming::Refused(_) => format!("refused {}", shown(answer)),
        Incoming::RefusedForGood(_) => format!("refused {}, closed", shown(answer)),
        Incoming::Foreign => "closed".to_owned(),
    }
}

fn shown(bytes: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 150;
    let text = bytes.escape_ascii().to_string();
    match text.get(..CHARACTERS_MAX) {
        Some(start) => format!("{start}… {} bytes", bytes.len()),
        None => text,
    }
}
