//! What a server reads: a request, or what it replies to a message that is none.

use super::{Reply, Request};

/// A message as a [`Decoder`](super::Decoder) reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request to carry out.
    Request(Request),
    /// A message that is refused without being carried out, and the reply to it.
    Refused(Reply),
    /// As `Refused`, but what follows cannot be decoded: reply, then close.
    RefusedForGood(Reply),
    /// The first byte belongs to neither dialect: close without a reply.
    Foreign,
}
