//! The test vectors of `docs/vectors`: the bytes and the meaning of every request and every
//! reply, for the tests of clients in other languages.
//!
//! They are made from the corpus and written with `UPDATE_EXPECT=1 cargo test --test it
//! vectors`; a diff there is a change of the protocol. The clients' own tests read the same
//! files: `docs/vectors/README.md` has their form.

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::expect_file;
use serde_json::{Value, json};
use sorteo_protocol::wire::{Dialect, Hello, Incoming, Reason, Reply, Request, Winners, WireLimits, framed};
use sorteo_protocol::{Batch, Bet};
use sorteo_test_support::conversation::answers;
use sorteo_test_support::decoder::encoded;
use sorteo_test_support::delivery::deliver;

use crate::corpus::{Input, inputs_of};
use crate::wire_support::{reasons, reply_bytes};

/// Bytes of the longest message that is shown: enough for each kind, and a file that a
/// person can read.
const BYTES_MAX: usize = 1_000;

/// The requests and replies of one dialect, each of them once and as a line of JSON.
#[derive(Default)]
struct Vectors {
    requests: Vec<String>,
    replies: Vec<String>,
    seen: BTreeSet<(String, String)>,
}

impl Vectors {
    fn of(dialect: Dialect, folder: &str) -> Self {
        let mut vectors = Self::default();
        for input in inputs_of(folder) {
            vectors.add_conversation(dialect, &input);
        }
        vectors
    }

    /// Adds what one input of the corpus asks, and what it is answered.
    fn add_conversation(&mut self, dialect: Dialect, Input { name, bytes }: &Input) {
        let limits = WireLimits::default();
        let answers = answers(None, limits, bytes);
        for (index, message) in deliver(limits, [&bytes[..]]).messages.iter().enumerate() {
            let name = format!("{name} {}", index + 1);
            let request = match message {
                // Nothing that a client sends: see `Claim`.
                Incoming::Request(Request::Auth(None)) => None,
                Incoming::Request(request) => Some(request),
                _ => None,
            };
            if let Some(request) = request {
                self.add_request(&name, &encoded(dialect, request), request_meaning(request));
            }
            // What waits for a draw has no answer in the corpus.
            let Some(answer) = answers.get(index) else { continue };
            let (to, meaning) = match dialect {
                Dialect::Framed => framed_meaning(&framed_reply(answer)),
                Dialect::Counted => counted_meaning(answer, request),
            };
            self.add_reply(&name, to, answer, meaning);
        }
    }

    fn add_request(&mut self, name: &str, bytes: &[u8], meaning: Value) {
        if self.is_new("", bytes) {
            let (name, hex) = (json!(name), hex(bytes));
            self.requests.push(format!(r#"{{"name":{name},"meaning":{meaning},"hex":"{hex}"}}"#));
        }
    }

    fn add_reply(&mut self, name: &str, to: &str, bytes: &[u8], meaning: Value) {
        if self.is_new(to, bytes) {
            let (name, hex) = (json!(name), hex(bytes));
            self.replies.push(format!(r#"{{"name":{name},"to":"{to}","meaning":{meaning},"hex":"{hex}"}}"#));
        }
    }

    /// Returns whether a message is to be shown. `to` is empty for a request.
    fn is_new(&mut self, to: &str, bytes: &[u8]) -> bool {
        bytes.len() <= BYTES_MAX && self.seen.insert((to.to_owned(), hex(bytes)))
    }

    /// A vector a line, so that a change is easy to see.
    fn text(&self) -> String {
        let (requests, replies) = (self.requests.join(",\n"), self.replies.join(",\n"));
        format!("{{\"requests\": [\n{requests}\n],\n\"replies\": [\n{replies}\n]}}\n")
    }

    /// Asserts that the messages are of these kinds, each of which occurs; `key` is where the
    /// meaning has its kind.
    fn assert_has_each(vectors: &[String], key: &str, kinds: &[&str]) {
        let kind = |line: &String| {
            let vector: Value = serde_json::from_str(line).unwrap();
            vector["meaning"][key].as_str().unwrap().to_owned()
        };
        let found: BTreeSet<_> = vectors.iter().map(kind).collect();
        assert_eq!(found, kinds.iter().map(|kind| (*kind).to_owned()).collect());
    }
}

#[test]
fn the_framed_vectors_are_those_of_the_corpus_and_have_every_request_reply_and_reason() {
    let mut vectors = Vectors::of(Dialect::Framed, "framed");
    for (reason, text, ..) in reasons() {
        // The other dialect's: no framed reply has them.
        if matches!(reason, Reason::BadLength | Reason::EmptyBatch) {
            continue;
        }
        let bytes = reply_bytes(Dialect::Framed, &refusal(reason));
        let (to, meaning) = framed_meaning(&framed_reply(&bytes));
        vectors.add_reply(&format!("reason {text}"), to, &bytes, meaning);
    }
    for (name, line) in [
        ("a newer server's reason", "ACK_BATCH|ERR|2|unheard_of\n"),
        ("a newer server's words", "HELLO|OK|1|draws,far_sight,pages,uploads,waits\n"),
    ] {
        let bytes = crate::test_server::frame(line);
        let (to, meaning) = framed_meaning(&framed_reply(&bytes));
        vectors.add_reply(name, to, &bytes, meaning);
    }
    let verbs = ["AUTH", "BET", "BATCH", "DONE", "GET_WINNERS", "WAIT_WINNERS", "RESUME", "HELLO", "STATUS"];
    Vectors::assert_has_each(&vectors.requests, "request", &verbs);
    let verbs = ["ACK", "ACK_BATCH", "ACK_DONE", "WINNERS", "RESUME", "HELLO", "STATUS"];
    Vectors::assert_has_each(&vectors.replies, "reply", &verbs);
    assert_file("framed.json", &vectors);
}

#[test]
fn the_counted_vectors_are_those_of_the_corpus_and_have_every_request_and_reply() {
    let mut vectors = Vectors::of(Dialect::Counted, "counted");
    for (to, reply) in [
        ("BETS", Reply::Batch { count: 1, result: Err(Reason::Busy) }),
        ("GET_WINNERS", Reply::Winners(Err(Reason::Busy))),
        ("GET_WINNERS", Reply::Winners(Err(Reason::UnknownAgency))),
        ("AUTH", Reply::Auth(Ok(()))),
        ("AUTH", Reply::Auth(Err(Reason::Unauthorized))),
        ("BETS", Reply::Batch { count: 1, result: Err(Reason::Forbidden) }),
    ] {
        let bytes = reply_bytes(Dialect::Counted, &reply);
        vectors.add_reply("refused", to, &bytes, json!({ "reply": payload(&bytes) }));
    }
    Vectors::assert_has_each(&vectors.requests, "request", &["AUTH", "BETS", "GET_WINNERS"]);
    let words = [
        "ACK",
        "WINNERS",
        "ERROR_BUSY",
        "ERROR_EMPTY_BATCH",
        "ERROR_INVALID_AGENCY",
        "ERROR_INVALID_BATCH",
        "ERROR_INVALID_GET_WINNERS",
        "ERROR_LOTTERY_HASNT_ENDED",
        "ERROR_UNAUTHORIZED",
    ];
    Vectors::assert_has_each(&vectors.replies, "reply", &words);
    assert_file("counted.json", &vectors);
}

#[test]
fn our_own_client_reads_every_framed_reply_of_the_vectors_and_writes_every_request() {
    let vectors: Value = serde_json::from_str(include_str!("../../docs/vectors/framed.json")).unwrap();
    for vector in vectors["replies"].as_array().unwrap() {
        let (_, meaning) = framed_meaning(&framed_reply(&unhex(&vector["hex"])));
        assert_eq!(meaning, vector["meaning"], "{}", vector["name"]);
    }
    for vector in vectors["requests"].as_array().unwrap() {
        let bytes = unhex(&vector["hex"]);
        let messages = deliver(WireLimits::default(), [&bytes[..]]).messages;
        let [Incoming::Request(request)] = &messages[..] else { panic!("{vector}: {messages:?}") };
        assert_eq!(request_meaning(request), vector["meaning"], "{}", vector["name"]);
        let mut written = Vec::new();
        framed::encode_request(request, &mut written);
        assert_eq!(written, bytes, "{}", vector["name"]);
    }
}

fn assert_file(name: &str, vectors: &Vectors) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vectors").join(name);
    expect_file![path].assert_eq(&vectors.text());
}

/// Returns a reply that has this reason, of a kind that may have it.
fn refusal(reason: Reason) -> Reply {
    match reason {
        Reason::Unknown | Reason::BadFrame => Reply::Unrecognised(reason),
        Reason::Bet(_) | Reason::StrayRow => Reply::Bet(Err(reason)),
        Reason::CountMismatch { .. } => Reply::Done(Err(reason)),
        Reason::BadAfter | Reason::BadWait | Reason::NotReady | Reason::UsePages => {
            Reply::Winners(Err(reason))
        }
        reason => Reply::Batch { count: 2, result: Err(reason) },
    }
}

// ---- Meanings ------------------------------------------------------------------

fn request_meaning(request: &Request) -> Value {
    match request {
        Request::Bet(batch) => json!({
            "request": "BET", "agency": batch.agency.0, "bet": bets_meaning(batch)[0],
        }),
        Request::Batch(batch) => {
            let mut fields = json!({
                "request": "BATCH", "agency": batch.agency.0, "bets": bets_meaning(batch),
            });
            if let Some(position) = &batch.position {
                fields["upload"] = position.upload.as_str().into();
                fields["first_row"] = position.first_row.into();
                add(&mut fields, "draw", position.draw.map(|draw| draw.0));
            }
            fields
        }
        Request::Payload(batches) => {
            let bets = batches.iter().flat_map(|batch| {
                bets_meaning(batch).into_iter().map(|mut bet| {
                    bet["agency"] = batch.agency.0.into();
                    bet
                })
            });
            json!({ "request": "BETS", "bets": bets.collect::<Vec<_>>() })
        }
        Request::Done { agency, bets, draw } => {
            let mut fields = json!({ "request": "DONE", "agency": agency.0 });
            add(&mut fields, "count", *bets);
            add(&mut fields, "draw", draw.map(|draw| draw.0));
            fields
        }
        Request::Winners { agency } | Request::DoneAndWinners { agency } => {
            json!({ "request": "GET_WINNERS", "agency": agency.0 })
        }
        Request::WinnersPage { agency, after, draw } => {
            let mut fields = json!({ "request": "GET_WINNERS", "agency": agency.0, "after": after });
            add(&mut fields, "draw", draw.map(|draw| draw.0));
            fields
        }
        Request::WaitWinners { agency, wait, draw } => {
            let ms = wait.as_millis() as u64;
            let mut fields = json!({ "request": "WAIT_WINNERS", "agency": agency.0, "max_ms": ms });
            add(&mut fields, "draw", draw.map(|draw| draw.0));
            fields
        }
        Request::Resume { agency, upload, draw } => {
            let mut fields = json!({ "request": "RESUME", "agency": agency.0, "upload": upload.as_str() });
            add(&mut fields, "draw", draw.map(|draw| draw.0));
            fields
        }
        Request::Hello => json!({ "request": "HELLO" }),
        Request::Status => json!({ "request": "STATUS" }),
        Request::Auth(claim) => json!({
            "request": "AUTH",
            "agency": claim.as_ref().map(|claim| claim.agency.0),
            "token": claim.as_ref().map(|claim| claim.token.reveal()),
        }),
    }
}

fn bets_meaning(batch: &Batch) -> Vec<Value> {
    let bet = |Bet { first_name, last_name, document, birthdate, number }| {
        json!({
            "first_name": first_name, "last_name": last_name, "document": document,
            "birthdate": birthdate, "number": number,
        })
    };
    batch.bets.iter().map(bet).collect()
}

/// Returns which request a framed reply belongs to, and its meaning.
fn framed_meaning(reply: &Reply) -> (&'static str, Value) {
    let (to, verb) = match reply {
        Reply::Bet(_) | Reply::Unrecognised(_) | Reply::Auth(_) => ("BET", "ACK"),
        Reply::Batch { .. } => ("BATCH", "ACK_BATCH"),
        Reply::Done(_) => ("DONE", "ACK_DONE"),
        Reply::Winners(_) => ("GET_WINNERS", "WINNERS"),
        Reply::Resume(_) => ("RESUME", "RESUME"),
        Reply::Hello(_) => ("HELLO", "HELLO"),
        Reply::Status(_) => ("STATUS", "STATUS"),
    };
    let refusal = reply.refusal();
    let mut fields = json!({ "reply": verb, "ok": refusal.is_none() });
    if let Some(reason) = refusal {
        add_reason(&mut fields, &reason.to_string());
    }
    match reply {
        Reply::Batch { count, .. } => fields["count"] = (*count).into(),
        Reply::Resume(Ok(next_row)) => fields["next_row"] = (*next_row).into(),
        Reply::Winners(Ok(Winners::All(documents))) => fields["documents"] = documents.clone().into(),
        Reply::Winners(Ok(Winners::Page { documents, next })) => {
            fields["documents"] = documents.clone().into();
            fields["next"] = (*next).into();
        }
        Reply::Hello(Ok(Hello { version, words })) => {
            fields["version"] = (*version).into();
            fields["words"] = words.clone().into();
        }
        Reply::Status(Ok(status)) => {
            fields["draw"] = status.draw.0.into();
            fields["state"] = if status.drawn { "drawn" } else { "open" }.into();
            fields["done"] = status.done.into();
            fields["expected"] = status.expected.into();
            fields["bets"] = status.bets.into();
        }
        _ => {}
    }
    (to, fields)
}

/// Adds a reason's code, and its row and its detail if it has them.
fn add_reason(fields: &mut Value, reason: &str) {
    let (row, reason) = match reason.strip_prefix("row ").and_then(|rest| rest.split_once(": ")) {
        Some((row, code)) => (Some(row.parse::<u64>().expect("a row's number")), code),
        None => (None, reason),
    };
    let (code, detail) = match reason.split_once('|') {
        Some((code, detail)) => (code, Some(detail.to_owned())),
        None => (reason, None),
    };
    fields["reason"] = code.into();
    add(fields, "row", row);
    add(fields, "detail", detail);
}

/// Returns which request a counted reply belongs to, and its meaning.
fn counted_meaning(answer: &[u8], request: Option<&Request>) -> (&'static str, Value) {
    let text = payload(answer);
    let is_winners = matches!(request, Some(Request::DoneAndWinners { .. })) || text.contains("GET_WINNERS");
    match (is_winners, text.starts_with("ERROR_")) {
        (true, false) => ("GET_WINNERS", json!({ "reply": "WINNERS", "bets": winning_bets(&text) })),
        (true, true) => ("GET_WINNERS", json!({ "reply": text })),
        (false, _) => ("BETS", json!({ "reply": text })),
    }
}

fn winning_bets(text: &str) -> Vec<Value> {
    let bet = |line: &str| {
        let fields: Vec<_> = line.split('|').collect();
        let [first_name, last_name, document, birthdate, number, agency] = fields[..] else {
            panic!("{line}")
        };
        let [number, agency] = [number, agency].map(|number| number.parse::<u32>().unwrap());
        json!({
            "first_name": first_name, "last_name": last_name, "document": document,
            "birthdate": birthdate, "number": number, "agency": agency,
        })
    };
    text.lines().map(bet).collect()
}

/// Adds a field that a message may leave out.
fn add(fields: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields[name] = value.into();
    }
}

// ---- Bytes ---------------------------------------------------------------------

fn framed_reply(bytes: &[u8]) -> Reply {
    let mut rest = bytes;
    let reply = framed::decode_reply(&mut rest).unwrap().expect("a whole reply");
    assert!(rest.is_empty());
    reply
}

/// Returns the text of a counted message.
fn payload(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    text.split_once('\n').expect("a length").1.to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
