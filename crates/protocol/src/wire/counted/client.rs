//! The client's side of the dialect: requests to bytes, bytes to replies.

use std::str;

use super::{BadLength, UNAUTHORIZED, append_payload, read_length, winner_line};
use crate::bets::is_shown_document;
use crate::text::split_exactly;
use crate::wire::{Claim, NotAReply, Reason, Reply, Request, Winners};

/// Appends a request as an agency of this dialect sends it.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let payload = match request {
        Request::Payload(batches) => batches
            .iter()
            .flat_map(|batch| batch.bets.iter().map(|bet| winner_line(batch.agency, bet)))
            .collect::<Vec<_>>()
            .join("\n"),
        Request::DoneAndWinners { agency } => format!("GET_WINNERS|{agency}"),
        Request::Auth(claim) => Claim::line(claim.as_ref()),
        _ => unreachable!("the framed dialect's requests have no counted form"),
    };
    append_payload(payload.as_bytes(), out);
}

/// Reads one reply off the input. `Ok(None)` means that not all of it has arrived.
///
/// This dialect's words stand for several things: `ACK` is a [`Reply::Batch`] that does
/// not say how many bets it had, `ERROR_BUSY` answers bets and winners alike, and a
/// word that stands for several reasons is a [`Reason::Other`]. Of winning bets the
/// documents are read, as [`Winners::All`].
///
/// # Errors
///
/// Where the bytes are no counted payload, or the payload is no reply: see [`NotAReply`].
pub fn decode_reply(input: &mut &[u8]) -> Result<Option<Reply>, NotAReply> {
    let Some(length) = read_length(input) else {
        return Ok(None);
    };
    let (length, rest) = length.map_err(|BadLength| NotAReply::OtherDialect)?;
    let Some((payload, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
    else {
        return Ok(None);
    };
    *input = rest;
    let payload = str::from_utf8(payload).map_err(|_| NotAReply::OtherDialect)?;
    read_reply(payload).map(Some).ok_or_else(|| NotAReply::of(payload))
}

fn read_reply(payload: &str) -> Option<Reply> {
    let batch = |result| Reply::Batch { count: 0, result };
    Some(match payload {
        "ACK" => batch(Ok(())),
        "ERROR_EMPTY_BATCH" => batch(Err(Reason::EmptyBatch)),
        UNAUTHORIZED => batch(Err(Reason::Unauthorized)),
        "ERROR_BUSY" => batch(Err(Reason::Busy)),
        "ERROR_INVALID_BATCH" => batch(Err(Reason::Other(payload.into()))),
        "ERROR_LOTTERY_HASNT_ENDED" => Reply::Winners(Err(Reason::NotReady)),
        error if error.starts_with("ERROR_") => Reply::Winners(Err(error.parse().ok()?)),
        lines => Reply::Winners(Ok(Winners::All(lines.lines().map(read_document).collect::<Option<_>>()?))),
    })
}

/// Reads the document of a winning bet's line.
fn read_document(line: &str) -> Option<String> {
    let [_, _, document, ..]: [&str; 6] = split_exactly(line)?;
    is_shown_document(document).then(|| document.to_owned())
}
