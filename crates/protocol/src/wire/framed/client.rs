//! The client's side of the dialect: requests to bytes, bytes to replies.

use std::str;

use super::{BadFrame, append_frame, next_frame};
use crate::bets::is_shown_document;
use crate::text::{decimal, split_exactly};
use crate::wire::{Claim, Hello, NotAReply, Reason, Reply, Request, Status, Winners};
use crate::{Batch, DrawId, UploadPosition};

/// Appends a request as an agency sends it: a batch is a frame for its header
/// and one for each row.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let line = match request {
        Request::Bet(batch) => {
            let line = batch.bets.lines().next().expect("a BET holds one bet");
            format!("BET|{}|{line}", batch.agency)
        }
        Request::Batch(batch) => {
            encode_batch(batch, out);
            return;
        }
        Request::Done { agency, bets: None, draw: None } => format!("DONE|{agency}"),
        Request::Done { agency, bets, draw } => {
            let bets = bets.map(|bets| bets.to_string()).unwrap_or_default();
            with_draw(format!("DONE|{agency}|{bets}"), *draw)
        }
        Request::Winners { agency } => format!("GET_WINNERS|{agency}"),
        Request::WinnersPage { agency, after, draw } => {
            with_draw(format!("GET_WINNERS|{agency}|{after}"), *draw)
        }
        Request::WaitWinners { agency, wait, draw } => {
            with_draw(format!("WAIT_WINNERS|{agency}|{}", wait.as_millis()), *draw)
        }
        Request::Resume { agency, upload, draw } => {
            with_draw(format!("RESUME|{agency}|{}", upload.as_str()), *draw)
        }
        Request::Hello => "HELLO".to_owned(),
        Request::Status => "STATUS".to_owned(),
        Request::Auth(claim) => Claim::line(claim.as_ref()),
        Request::Payload(_) | Request::DoneAndWinners { .. } => {
            unreachable!("the counted dialect's requests have no frame")
        }
    };
    append_frame(&[line.as_bytes()], out);
}

fn encode_batch(batch: &Batch, out: &mut Vec<u8>) {
    let count = batch.bets.len();
    let header = match &batch.position {
        None => format!("BATCH|{}|{count}", batch.agency),
        Some(UploadPosition { upload, first_row, draw }) => {
            with_draw(format!("BATCH|{}|{count}|{}|{first_row}", batch.agency, upload.as_str()), *draw)
        }
    };
    append_frame(&[header.as_bytes()], out);
    for line in batch.bets.lines() {
        append_frame(&[line.as_bytes()], out);
    }
}

/// Adds the last field, where a request names its draw.
fn with_draw(line: String, draw: Option<DrawId>) -> String {
    match draw {
        None => line,
        Some(draw) => format!("{line}|{draw}"),
    }
}

/// Reads one reply off the input. `Ok(None)` means that not all of it has arrived.
///
/// # Errors
///
/// Where the bytes are no frame, or the frame is no reply: see [`NotAReply`].
pub fn decode_reply(input: &mut &[u8]) -> Result<Option<Reply>, NotAReply> {
    match next_frame(input) {
        None => Ok(None),
        Some(Err(BadFrame)) => Err(NotAReply::OtherDialect),
        Some(Ok(frame)) => {
            let line = str::from_utf8(frame).map_err(|_| NotAReply::OtherDialect)?;
            read_reply(line).map(Some).ok_or_else(|| NotAReply::of(line))
        }
    }
}

fn read_reply(line: &str) -> Option<Reply> {
    let (verb, rest) = line.split_once('|')?;
    let (outcome, rest) = match rest.split_once('|') {
        Some((outcome, rest)) => (outcome, Some(rest)),
        None => (rest, None),
    };
    Some(match (verb, outcome, rest) {
        ("ACK", "OK", None) => Reply::Bet(Ok(())),
        ("ACK", "ERR", Some(reason)) => match reason.parse().ok()? {
            reason @ (Reason::Unknown | Reason::BadFrame) => Reply::Unrecognised(reason),
            reason => Reply::Bet(Err(reason)),
        },
        ("ACK_BATCH", "OK", Some(count)) => Reply::Batch { count: decimal(count)?, result: Ok(()) },
        ("ACK_BATCH", "ERR", Some(rest)) => {
            let (count, reason) = rest.split_once('|')?;
            Reply::Batch { count: decimal(count)?, result: Err(reason.parse().ok()?) }
        }
        ("ACK_DONE", "OK", None) => Reply::Done(Ok(())),
        ("ACK_DONE", "ERR", Some(reason)) => Reply::Done(Err(reason.parse().ok()?)),
        ("WINNERS", "OK", Some(winners)) => Reply::Winners(Ok(read_winners(winners)?)),
        ("WINNERS", "ERR", Some(reason)) => Reply::Winners(Err(reason.parse().ok()?)),
        ("RESUME", "OK", Some(next_row)) => Reply::Resume(Ok(decimal(next_row)?)),
        ("RESUME", "ERR", Some(reason)) => Reply::Resume(Err(reason.parse().ok()?)),
        ("HELLO", "OK", Some(hello)) => Reply::Hello(Ok(read_hello(hello)?)),
        ("HELLO", "ERR", Some(reason)) => Reply::Hello(Err(reason.parse().ok()?)),
        ("STATUS", "OK", Some(status)) => Reply::Status(Ok(read_status(status)?)),
        ("STATUS", "ERR", Some(reason)) => Reply::Status(Err(reason.parse().ok()?)),
        _ => return None,
    })
}

fn read_winners(text: &str) -> Option<Winners> {
    let documents = |list: &str| match list {
        "" => Some(Vec::new()),
        list => {
            list.split(',').map(|document| is_shown_document(document).then(|| document.to_owned())).collect()
        }
    };
    let Some((list, next)) = text.split_once('|') else {
        return Some(Winners::All(documents(text)?));
    };
    let next = if next.is_empty() { None } else { Some(decimal(next)?) };
    Some(Winners::Page { documents: documents(list)?, next })
}

fn read_hello(text: &str) -> Option<Hello> {
    let [version, words] = split_exactly(text)?;
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_letter);
    let words: Vec<_> = words.split(',').map(str::to_owned).collect();
    words.iter().all(|word| is_word(word)).then_some(Hello { version: decimal(version)?, words })
}

fn read_status(text: &str) -> Option<Status> {
    let [draw, state, done, expected, bets] = split_exactly(text)?;
    let drawn = match state {
        "open" => false,
        "drawn" => true,
        _ => return None,
    };
    Some(Status {
        draw: DrawId(decimal(draw)?),
        drawn,
        done: decimal(done)?,
        expected: decimal(expected)?,
        bets: decimal(bets)?,
    })
}
