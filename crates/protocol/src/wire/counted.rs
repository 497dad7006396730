//! The counted dialect, of the second of the original servers: the payload's length in
//! decimal digits, `\n`, the payload. A payload is bets, one a line, or `GET_WINNERS`.

mod client;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write as _;
use std::str;

use super::{
    Claim, Incoming, Reason, Reply, Request, Sender, Winners, WinnersSize, WinningBet, WinningBets,
    WireLimits,
};
use crate::text::{split_exactly, without_line_end};
use crate::{AgencyId, Batch, Bet, BetError, Bets};

pub use client::{decode_reply, encode_request};

/// Most digits of a payload's length.
const LENGTH_DIGITS_MAX: usize = 10;

/// Most agencies whose rows one payload may have. The rows of each are a batch of their
/// own: 41,000 batches, which fit a payload, would occupy the writer for more than half a
/// second.
pub const PAYLOAD_AGENCIES_MAX: usize = 1_000;

/// The word for a peer that has not proved who it is.
const UNAUTHORIZED: &str = "ERROR_UNAUTHORIZED";

/// The counted half of [`super::Decoder`].
pub(super) fn decode(input: &mut &[u8], limits: &WireLimits, refused: &mut Sender) -> Option<Incoming> {
    let (length, rest) = match read_length(input)? {
        Ok((length, rest)) if length <= limits.payload_bytes_max => (length, rest),
        _ => {
            *refused = Sender::default();
            return Some(Incoming::RefusedForGood(Reply::Unrecognised(Reason::BadLength)));
        }
    };
    let length = usize::try_from(length).expect("below the payload limit");
    let (payload, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(match read_payload(payload) {
        Ok(request) => Incoming::Request(request),
        Err(reply) => {
            *refused = Sender::of_payload(payload);
            Incoming::Refused(reply)
        }
    })
}

struct BadLength;

/// Reads the length and its `\n`, or returns `None` if not all of it has arrived.
fn read_length(input: &[u8]) -> Option<Result<(u64, &[u8]), BadLength>> {
    let digits = input.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > LENGTH_DIGITS_MAX {
        return Some(Err(BadLength));
    }
    match input.get(digits)? {
        b'\n' if digits > 0 => {
            let length = input[..digits].iter().fold(0, |sum, b| sum * 10 + u64::from(b - b'0'));
            Some(Ok((length, &input[digits + 1..])))
        }
        _ => Some(Err(BadLength)),
    }
}

fn read_payload(payload: &[u8]) -> Result<Request, Reply> {
    if payload.split_inclusive(|b| *b == b'\n').all(|line| without_line_end(line).is_empty()) {
        return Err(refused(Reason::EmptyBatch));
    }
    if payload.split(|b| matches!(b, b'|' | b'\r' | b'\n')).next() == Some(b"GET_WINNERS") {
        let question = String::from_utf8_lossy(without_line_end(payload));
        return read_get_winners(&question).map_err(|reason| Reply::Winners(Err(reason)));
    }
    if let Some(claim) = read_auth(payload) {
        return Ok(Request::Auth(claim));
    }
    read_batches(str::from_utf8(payload).map_err(|_| refused(BetError::Utf8.into()))?)
}

/// Reads an `AUTH`; `None` where the payload is none. A bettor may be called so: a row has six
/// fields.
fn read_auth(payload: &[u8]) -> Option<Option<Claim>> {
    let payload = without_line_end(payload);
    let fields = payload.strip_prefix(b"AUTH|").filter(|fields| !fields.contains(&b'\n'))?;
    let [agency, token] = split_exactly(str::from_utf8(fields).ok()?)?;
    Some(Claim::read(agency, token))
}

fn read_get_winners(text: &str) -> Result<Request, Reason> {
    let [_, agency] = split_exactly(text).ok_or(Reason::BadHeader)?;
    let agency = agency.parse().map_err(|_| Reason::BadAgency)?;
    Ok(Request::DoneAndWinners { agency })
}

/// Reads rows `first|last|document|birthdate|number|agency` into one batch for each
/// agency, in the order of each agency's first row.
fn read_batches(text: &str) -> Result<Request, Reply> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut batch_of: HashMap<AgencyId, usize> = HashMap::new();
    let rows = text.split_inclusive('\n').count() as u64;
    for (index, line) in text.lines().enumerate() {
        let pushed = split_exactly(line).ok_or(BetError::Fields).and_then(
            |[first, last, document, birthdate, number, agency]| {
                let agency: AgencyId = agency.parse()?;
                let batch = match batch_of.entry(agency) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        batches.push(Batch { agency, bets: Bets::default(), position: None });
                        *new.insert(batches.len() - 1)
                    }
                };
                batches[batch].bets.push([first, last, document, birthdate, number])
            },
        );
        if let Err(error) = pushed {
            let row = index as u64 + 1;
            return Err(Reply::Batch { count: rows, result: Err(Reason::Row { row, error }) });
        }
        if batches.len() > PAYLOAD_AGENCIES_MAX {
            return Err(Reply::Batch { count: rows, result: Err(Reason::TooMany) });
        }
    }
    Ok(Request::Payload(batches))
}

fn refused(reason: Reason) -> Reply {
    Reply::Batch { count: 0, result: Err(reason) }
}

/// Appends the reply as one payload; of a long reply, the length and the first piece.
pub(super) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    let payload = match reply {
        Reply::Bet(Ok(())) | Reply::Batch { result: Ok(()), .. } => "ACK",
        Reply::Bet(Err(reason)) | Reply::Batch { result: Err(reason), .. } => match reason {
            Reason::EmptyBatch => "ERROR_EMPTY_BATCH",
            Reason::Unauthorized => UNAUTHORIZED,
            Reason::Forbidden => "ERROR_INVALID_AGENCY",
            Reason::Busy | Reason::StorageFull | Reason::Unavailable => "ERROR_BUSY",
            _ => "ERROR_INVALID_BATCH",
        },
        Reply::Auth(Ok(())) => "ACK",
        Reply::Auth(Err(Reason::Busy | Reason::Unavailable)) => "ERROR_BUSY",
        Reply::Unrecognised(Reason::Unauthorized) | Reply::Auth(Err(_)) => UNAUTHORIZED,
        Reply::Unrecognised(_) => "ERROR_INVALID_BATCH",
        Reply::Winners(Ok(Winners::Bets { first, total })) => return encode_winners(first, *total, out),
        Reply::Winners(Err(reason)) => match reason {
            Reason::NotReady => "ERROR_LOTTERY_HASNT_ENDED",
            Reason::Unauthorized => UNAUTHORIZED,
            Reason::UnknownAgency | Reason::TooManyAgencies | Reason::Forbidden => "ERROR_INVALID_AGENCY",
            Reason::Busy | Reason::StorageFull | Reason::Unavailable => "ERROR_BUSY",
            _ => "ERROR_INVALID_GET_WINNERS",
        },
        Reply::Winners(Ok(Winners::All(_) | Winners::Page { .. }))
        | Reply::Done(_)
        | Reply::Resume(_)
        | Reply::Hello(_)
        | Reply::Status(_) => unreachable!("the counted dialect cannot ask for this"),
    };
    append_payload(payload.as_bytes(), out);
}

/// Appends the length of all winning bets, and the first of them.
fn encode_winners(first: &WinningBets, total: Option<WinnersSize>, out: &mut Vec<u8>) {
    let total = total.unwrap_or_else(|| size_of_all(&first.bets));
    out.extend_from_slice(payload_bytes(first, total).to_string().as_bytes());
    out.push(b'\n');
    let mut separator = "";
    for bet in &first.bets {
        append_winner(first.agency, bet, separator, out);
        separator = "\n";
    }
}

/// Appends a further piece of a reply whose length and first piece were sent before.
pub fn encode_more_winners(piece: &WinningBets, out: &mut Vec<u8>) {
    for bet in &piece.bets {
        append_winner(piece.agency, bet, "\n", out);
    }
}

fn append_winner(agency: AgencyId, bet: &WinningBet, separator: &str, out: &mut Vec<u8>) {
    let WinningBet { first_name, last_name, document, birthdate, number } = bet;
    write!(out, "{separator}{first_name}|{last_name}|{document}|{birthdate}|{number}|{agency}")
        .expect("a Vec takes all bytes");
}

fn size_of_all(bets: &[WinningBet]) -> WinnersSize {
    let text_bytes = |bet: &WinningBet| {
        let texts = [&bet.first_name, &bet.last_name, &bet.document, &bet.birthdate];
        texts.map(|text| text.len() as u64).into_iter().sum::<u64>()
    };
    WinnersSize { bets: bets.len() as u64, text_bytes: bets.iter().map(text_bytes).sum() }
}

/// Returns the length of the payload of all winning bets, of which `first` has some.
fn payload_bytes(WinningBets { agency, bets }: &WinningBets, total: WinnersSize) -> u64 {
    // The winning number, the agency and the separators are the same in every line.
    let Some(WinningBet { number, .. }) = bets.first() else { return 0 };
    let same = format!("||||{number}|{agency}").len() as u64;
    let line_ends = total.bets.saturating_sub(1);
    total.text_bytes + total.bets * same + line_ends
}

/// Returns a bet's line in this dialect, without its line end.
pub fn winner_line(agency: AgencyId, bet: Bet<'_>) -> String {
    let Bet { first_name, last_name, document, birthdate, number } = bet;
    format!("{first_name}|{last_name}|{document}|{birthdate}|{number}|{agency}")
}

/// Appends a payload and its length.
pub fn append_payload(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(payload.len().to_string().as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload);
}
