//! The counted dialect: decimal digits of length, a line feed, then lines.

use std::collections::BTreeSet;

use super::fields::{agency, bet, digits, split, without_line_end};
use super::{Allowed, Asked, Bet, Message, Reading};

const INVALID_BATCH: &str = "ERROR_INVALID_BATCH";
/// Agencies whose rows one payload may hold.
const AGENCIES_MAX: usize = 1_000;

pub(super) fn read_counted(bytes: &[u8], allowed: Allowed, reading: &mut Reading) {
    let mut at = 0;
    loop {
        let digits_end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let too_long = digits_end > at + 10;
        let refused_at = match bytes.get(digits_end) {
            // The eleventh digit is one too many, whatever follows.
            _ if too_long => at + 11,
            None => return,
            Some(b'\n') if digits_end > at => {
                let length = digits(&bytes[at..digits_end]).expect("digits");
                let start = digits_end + 1;
                if length <= u128::from(allowed.payload_bytes) {
                    let end = start + length as usize;
                    let Some(payload) = bytes.get(start..end) else { return };
                    reading.messages.push(Message { end, asked: read_payload(payload) });
                    at = end;
                    continue;
                }
                start
            }
            Some(_) => digits_end + 1,
        };
        let asked = Asked::RefusedForGood(INVALID_BATCH.into());
        reading.messages.push(Message { end: refused_at, asked });
        return;
    }
}

fn read_payload(payload: &[u8]) -> Asked {
    let mut lines: Vec<&[u8]> = payload.split(|b| *b == b'\n').collect();
    // Behind the last line feed: nothing, or a line without an end.
    let last = lines.pop().expect("there is always one");
    let mut lines: Vec<&[u8]> =
        lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    if !last.is_empty() {
        lines.push(last);
    }
    if lines.iter().all(|line| line.is_empty()) {
        return Asked::Refused("ERROR_EMPTY_BATCH".into());
    }
    let first_field = payload.split(|b| b"|\r\n".contains(b)).next();
    if first_field == Some(b"GET_WINNERS") {
        return match &split(without_line_end(payload))[..] {
            [_, id] => agency(id).ok().map(|agency| Asked::DoneAndWinners { agency }),
            _ => None,
        }
        .unwrap_or_else(|| Asked::Refused("ERROR_INVALID_GET_WINNERS".into()));
    }
    let rows: Option<Vec<_>> = lines.into_iter().map(counted_row).collect();
    let agencies = |rows: &[(u32, Bet)]| rows.iter().map(|(id, _)| *id).collect::<BTreeSet<u32>>().len();
    rows.filter(|rows| agencies(rows) <= AGENCIES_MAX)
        .map_or_else(|| Asked::Refused(INVALID_BATCH.into()), Asked::Payload)
}

fn counted_row(line: &[u8]) -> Option<(u32, Bet)> {
    let fields: Vec<&str> = str::from_utf8(line).ok()?.split('|').collect();
    let (id, fields) = fields.split_last()?;
    Some((agency(id.as_bytes()).ok()?, bet(fields).ok()?))
}
