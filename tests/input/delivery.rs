//! Bytes brought to a decoder in the pieces that a network may make of them.

use sorteo_protocol::wire::{Decoder, Dialect, Incoming, WireLimits};

/// What became of all the bytes that one connection received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub dialect: Option<Dialect>,
    pub messages: Vec<Incoming>,
    /// Bytes of an incomplete message that wait for more.
    pub waiting_bytes: usize,
    pub batch_in_progress: Option<u64>,
}

/// Delivers pieces to a fresh decoder as `server::connection` does: what is left
/// over is offered again with the next piece behind it, and nothing is read
/// after a refusal for good.
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
            assert!(messages.len() <= arrived, "a message that uses no byte comes for ever");
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        if !open {
            input.clear();
        }
        let held = input.len() + decoder.held_bytes();
        // Where the fields of a row are is kept beside its text: less than as much again.
        assert!(held <= 2 * arrived, "holds {held} bytes of {arrived} that arrived");
    }
    Delivered {
        dialect: decoder.dialect(),
        messages,
        waiting_bytes: input.len(),
        batch_in_progress: decoder.batch_in_progress(),
    }
}
