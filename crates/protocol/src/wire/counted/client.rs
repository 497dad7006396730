//! The client's side of the dialect: requests to bytes, bytes to replies.

use super::*;

/// Appends a request as an agency of this dialect sends it.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let payload = match request {
        Request::Payload(batches) => batches
            .iter()
            .flat_map(|batch| batch.bets.iter().map(|bet| winner_line(batch.agency, bet)))
            .collect::<Vec<_>>()
            .join("\n"),
        Request::DoneAndWinners { agency } => format!("GET_WINNERS|{agency}"),
        _ => unreachable!("the framed dialect's requests have no counted form"),
    };
    append_payload(payload.as_bytes(), out);
}

/// An answer's payload as an agency of this dialect reads it.
///
/// `Ok(None)` means that not all of it has arrived; an error, that the peer
/// does not speak this dialect.
pub fn decode_answer<'a>(input: &mut &'a [u8]) -> Result<Option<&'a str>, NotAnAnswer> {
    let Some(read) = read_length(input) else {
        return Ok(None);
    };
    let (length, rest) = read.map_err(|BadLength| NotAnAnswer)?;
    let Some((payload, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
    else {
        return Ok(None);
    };
    *input = rest;
    str::from_utf8(payload).map(Some).map_err(|_| NotAnAnswer)
}

/// What came back is no counted payload of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's answer is not in the counted dialect")]
pub struct NotAnAnswer;
