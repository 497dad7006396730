//! Gives bytes to a decoder in pieces, as a network may deliver them.

use sorteo_protocol::wire::{Decoder, Dialect, Incoming, WireLimits};

/// What a decoder made of all bytes of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub dialect: Option<Dialect>,
    pub messages: Vec<Incoming>,
    /// Bytes of an incomplete message that wait for more.
    pub waiting_bytes: usize,
    pub batch_in_progress: Option<u64>,
}

/// Delivers pieces to a new decoder as `server::connection` does: bytes that it leaves
/// are offered again together with the next piece, and nothing is read after a message
/// that ends the connection.
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
            assert!(messages.len() <= arrived, "there are more messages than bytes: an endless loop");
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        if !open {
            input.clear();
        }
        let held = input.len() + decoder.held_bytes();
        // The offsets of a row's fields take less memory than its text.
        assert!(held <= 2 * arrived, "holds {held} bytes after {arrived} have arrived");
    }
    Delivered {
        dialect: decoder.dialect(),
        messages,
        waiting_bytes: input.len(),
        batch_in_progress: decoder.batch_in_progress(),
    }
}
