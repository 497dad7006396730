//! One connection's bytes to messages, whatever pieces they come in.

use super::{Dialect, Reply, Request, WireLimits, counted, framed};

/// What a [`Decoder`] makes of the bytes that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request to carry out.
    Request(Request),
    /// A message that cannot be carried out, with the answer it gets.
    Refused(Reply),
    /// As `Refused`, and what follows cannot be understood: answer, then close.
    RefusedForGood(Reply),
    /// Neither dialect: answer nothing and close.
    Foreign,
}

/// Turns one connection's bytes into messages, in order.
///
/// The decoder keeps what a half-received batch needs and nothing else; bytes
/// of an incomplete frame or payload stay with the caller, who offers them
/// again with more behind them.
#[derive(Debug)]
pub struct Decoder {
    limits: WireLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Undetected,
    Framed(framed::Decoder),
    Counted,
}

impl Decoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: WireLimits) -> Self {
        Self { limits, state: State::Undetected }
    }

    /// The connection's dialect, once its first byte is known.
    pub fn dialect(&self) -> Option<Dialect> {
        match self.state {
            State::Undetected => None,
            State::Framed(_) => Some(Dialect::Framed),
            State::Counted => Some(Dialect::Counted),
        }
    }

    /// Reads from `input` up to the end of the next message, which it answers;
    /// `None` means that more bytes are needed. Either way `input` is moved past
    /// what was used.
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
            State::Framed(decoder) => decoder.decode(input, &self.limits),
            State::Counted => counted::decode(input, &self.limits),
            State::Undetected => unreachable!("detected above"),
        }
    }

    /// How many bets the half-received framed batch announced, if there is one.
    pub fn batch_in_progress(&self) -> Option<u64> {
        match &self.state {
            State::Framed(decoder) => decoder.batch_in_progress(),
            _ => None,
        }
    }

    /// Forgets a half-received batch; what follows is read as requests.
    pub fn abandon_batch(&mut self) {
        if let State::Framed(decoder) = &mut self.state {
            *decoder = framed::Decoder::default();
        }
    }

    /// Bytes that the half-received batch holds on to.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Framed(decoder) => decoder.held_bytes(),
            _ => 0,
        }
    }
}
