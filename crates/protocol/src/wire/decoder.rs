//! Decodes the bytes of one connection, however they are split.

use super::{Dialect, Incoming, Sender, WireLimits, counted, framed};

/// Decodes the messages of one connection, in order.
///
/// The decoder keeps the rows of a half-received batch and nothing else. The bytes of an
/// incomplete frame or payload stay with the caller, which offers them again together
/// with those that arrive next.
#[derive(Debug)]
pub struct Decoder {
    limits: WireLimits,
    state: State,
    /// Who sent the last message that was refused.
    refused: Sender,
}

#[derive(Debug)]
enum State {
    Undetected,
    Framed(framed::Decoder),
    Counted,
}

impl Decoder {
    /// Creates the decoder of a new connection.
    pub fn new(limits: WireLimits) -> Self {
        Self { limits, state: State::Undetected, refused: Sender::default() }
    }

    /// Returns the connection's dialect, once its first byte was decoded.
    pub fn dialect(&self) -> Option<Dialect> {
        match self.state {
            State::Undetected => None,
            State::Framed(_) => Some(Dialect::Framed),
            State::Counted => Some(Dialect::Counted),
        }
    }

    /// Decodes the next message at the beginning of `input` and moves `input` past what was
    /// used. Returns `None` if more bytes are needed; then the rows of a batch that have
    /// arrived are used, and must not be offered again.
    pub fn decode(&mut self, input: &mut &[u8]) -> Option<Incoming> {
        let first = *input.first()?;
        if let State::Undetected = self.state {
            self.state = match Dialect::detect(first) {
                Some(Dialect::Framed) => State::Framed(framed::Decoder::default()),
                Some(Dialect::Counted) => State::Counted,
                None => return Some(Incoming::Foreign),
            };
        }
        match &mut self.state {
            State::Framed(decoder) => decoder.decode(input, &self.limits, &mut self.refused),
            State::Counted => counted::decode(input, &self.limits, &mut self.refused),
            State::Undetected => unreachable!("detected above"),
        }
    }

    /// Returns how many bets a half-received framed batch announced, if there is one.
    pub fn batch_in_progress(&self) -> Option<u64> {
        match &self.state {
            State::Framed(decoder) => decoder.batch_in_progress(),
            _ => None,
        }
    }

    /// Returns who sends the half-received framed batch, if there is one.
    pub fn batch_sender(&self) -> Sender {
        match &self.state {
            State::Framed(decoder) => decoder.batch_sender(),
            _ => Sender::default(),
        }
    }

    /// Returns who sent the last message that was [`Incoming::Refused`] or
    /// [`Incoming::RefusedForGood`].
    pub fn refused_sender(&self) -> &Sender {
        &self.refused
    }

    /// Discards a half-received batch; what follows is decoded as requests.
    pub fn abandon_batch(&mut self) {
        if let State::Framed(decoder) = &mut self.state {
            *decoder = framed::Decoder::default();
        }
    }

    /// Returns the bytes of memory that a half-received batch takes.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Framed(decoder) => decoder.held_bytes(),
            _ => 0,
        }
    }
}
