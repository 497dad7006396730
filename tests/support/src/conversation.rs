//! One connection to a service on a store in memory, served by the program's own
//! conversation, and compared with the model.

use std::cell::Cell;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use sorteo::logging::limits::Peer as LogPeer;
use sorteo::server::conversation::{Conversation, Pause, Turn, Unanswerable};
use sorteo::service::Service;
use sorteo::store::sqlite::AGENCIES_MAX;
use sorteo::store::{ExpectedAgencies, Submitter};
use sorteo_protocol::wire::{Dialect, WireLimits, decode_reply};

use crate::decoder::{CUT_EVERYWHERE_BYTES_MAX, allowed, pieces};
use crate::memory_store::MemoryStore;
use crate::model::{Lottery, WINNING_NUMBER};

/// A conversation, which costs more than decoding, is cut so many times.
const CONVERSATION_CUTTINGS: u64 = 2;

/// Bytes of replies after which the conversation has them sent: less than a few replies,
/// so that it must go on where it was.
const OUTPUT_BYTES_MAX: usize = 100;

/// One connection to a service on a store in memory, served by the program's own
/// conversation: bytes in, bytes out.
pub struct Peer {
    pub service: Service<MemoryStore>,
    pub conversation: Conversation,
    /// The time that the conversation is given.
    pub now: Instant,
    /// What it did not take yet.
    input: Vec<u8>,
    is_closed: bool,
}

impl Peer {
    pub fn new(agencies: Option<u32>, limits: WireLimits) -> Self {
        let store =
            MemoryStore::new(agencies.map(ExpectedAgencies::from), AGENCIES_MAX, WINNING_NUMBER, || {});
        Self::of(Service::new(store, Arc::default()), limits)
    }

    /// One connection to this service.
    pub fn of(service: Service<MemoryStore>, limits: WireLimits) -> Self {
        Self {
            service,
            conversation: Conversation::new(
                limits,
                Submitter::default(),
                LogPeer::new(Ipv4Addr::LOCALHOST.into(), Arc::default()),
            ),
            now: Instant::now(),
            input: Vec::new(),
            is_closed: false,
        }
    }

    /// Whether the server closes the connection.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Sends a piece, and returns all that comes back. No other peer is there to have the
    /// draw drawn, so a wait for it is over at once.
    pub fn send(&mut self, piece: &[u8]) -> Vec<u8> {
        self.offer(piece);
        let mut output = Vec::new();
        while self.advance(usize::MAX, &mut output) != Pause::Input && !self.is_closed {
            if let Some(wait) = self.conversation.wait() {
                self.now = wait.until;
            }
        }
        output
    }

    /// Adds a piece to what has arrived, and leaves it there.
    pub fn offer(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
    }

    /// Has at most so many requests carried out of what has arrived, and appends all that
    /// comes back, a long reply to its end.
    pub fn advance(&mut self, requests_max: usize, output: &mut Vec<u8>) -> Pause {
        let requests = Cell::new(0);
        let time_is_up = || requests.replace(requests.get() + 1) >= requests_max;
        let mut turn = Turn::new(&self.service, self.now, OUTPUT_BYTES_MAX, &time_is_up);
        let input = mem::take(&mut self.input);
        let (mut rest, mut replies) = (&input[..], Vec::new());
        let pause = match self.conversation.advance(&mut rest, &mut replies, &mut turn) {
            Ok(pause) => pause,
            Err(
                Unanswerable::UnknownDialect | Unanswerable::Unauthorized | Unanswerable::TooManyConnections,
            ) => Pause::Closed,
            Err(error @ Unanswerable::UnknownOutcome) => panic!("nothing fails in memory: {error}"),
        };
        self.input = rest.to_vec();
        let append_more = |peer: &mut Self, replies: &mut Vec<u8>| {
            peer.conversation.append_more(replies, &peer.service).expect("nothing fails in memory")
        };
        while append_more(self, &mut replies) {}
        output.append(&mut replies);
        self.is_closed |= pause == Pause::Closed;
        pause
    }
}

/// Asserts that a server replies what the model does, in whatever pieces the bytes arrive,
/// each reply as soon as its request is whole; and that a client can read all replies.
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
            // No other peer can complete the draw.
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
