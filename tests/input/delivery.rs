//! Bytes brought to a decoder, or to a whole conversation, in the pieces that a network
//! may make of them.

use std::mem;
use std::time::Instant;

use sorteo::server::conversation::{Conversation, Pause, Turn, Unanswerable};
use sorteo::service::Service;
use sorteo_protocol::wire::{Decoder, Dialect, Incoming, WireLimits};

use super::memory_store::MemoryStore;
use super::model::WINNING_NUMBER;

/// What a decoder makes of all the bytes of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub dialect: Option<Dialect>,
    pub messages: Vec<Incoming>,
    /// Bytes of an incomplete message that wait for more.
    pub waiting_bytes: usize,
    pub batch_in_progress: Option<u64>,
}

/// Delivers pieces to a new decoder: what is left over is offered again with the next
/// piece behind it, and nothing is read after a refusal for good.
pub fn deliver<'a>(limits: WireLimits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Delivered {
    let mut decoder = Decoder::new(limits);
    let mut messages = Vec::new();
    let mut input = Vec::new();
    let (mut open, mut arrived) = (true, 0);
    for piece in pieces {
        if !open {
            break;
        }
        arrived += piece.len();
        input.extend_from_slice(piece);
        let mut rest = &input[..];
        while open {
            let Some(incoming) = decoder.decode(&mut rest) else {
                break;
            };
            open = !matches!(incoming, Incoming::RefusedForGood(_) | Incoming::Foreign);
            messages.push(incoming);
            assert!(messages.len() <= arrived, "messages that use no byte never end");
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        if !open {
            input.clear();
        }
        let held = input.len() + decoder.held_bytes();
        // Besides a row's text, the offsets of its fields are kept: less than as much again.
        assert!(held <= 2 * arrived, "holds {held} bytes of {arrived} that arrived");
    }
    Delivered {
        dialect: decoder.dialect(),
        messages,
        waiting_bytes: input.len(),
        batch_in_progress: decoder.batch_in_progress(),
    }
}

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
        let store = MemoryStore::new(agencies, WINNING_NUMBER, || {});
        Self {
            service: Service::new(store, std::sync::Arc::default()),
            conversation: Conversation::new(limits),
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
        let mut turn = Turn::new(&self.service, self.now, OUTPUT_BYTES_MAX);
        turn.requests_left = turn.requests_left.min(requests_max);
        let input = mem::take(&mut self.input);
        let (mut rest, mut replies) = (&input[..], Vec::new());
        let pause = match self.conversation.advance(&mut rest, &mut replies, &mut turn) {
            Ok(pause) => pause,
            Err(Unanswerable::UnknownDialect) => Pause::Closed,
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
