//! The framed dialect: 4 bytes of length, then one line.

use super::fields::{U63, U64, agency, bet, digits, number_up_to, split, upload, without_line_end};
use super::{Allowed, Asked, Bet, Message, Reading};

/// The frames of a connection, one after the other.
struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Frame<'a> {
    Line(&'a [u8]),
    Bad,
    Unfinished,
}

impl<'a> Frames<'a> {
    fn next(&mut self) -> Frame<'a> {
        let rest = &self.bytes[self.at..];
        let &[a, b, c, d, ..] = rest else { return Frame::Unfinished };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length == 0 || length > 8192 {
            self.at += 4;
            return Frame::Bad;
        }
        if rest.len() < 4 + length {
            return Frame::Unfinished;
        }
        self.at += 4 + length;
        Frame::Line(without_line_end(&rest[4..4 + length]))
    }
}

pub(super) fn read_framed(bytes: &[u8], allowed: Allowed, reading: &mut Reading) {
    let mut frames = Frames { bytes, at: 0 };
    // Whether a bet might be a row of a batch whose header could not be read.
    let mut rows_may_follow = false;
    loop {
        let asked = match frames.next() {
            Frame::Unfinished => return,
            Frame::Bad => bad_frame(),
            Frame::Line(line) => match header(line, allowed) {
                Line::Request(asked) => asked,
                Line::BatchHeader(header) => {
                    reading.unfinished_batch = Some(header.count);
                    let Some(asked) = header.read_rows(&mut frames) else { return };
                    rows_may_follow = false;
                    if !asked.ends_the_connection() {
                        reading.unfinished_batch = None;
                    }
                    asked
                }
                Line::UnreadableBatch(words) => {
                    rows_may_follow = true;
                    Asked::Refused(words)
                }
            },
        };
        let asked = match asked {
            Asked::Bet(..) if rows_may_follow => Asked::Refused("ACK|ERR|stray_row".into()),
            Asked::Refused(_) => asked,
            _ => {
                rows_may_follow = false;
                asked
            }
        };
        let is_over = asked.ends_the_connection();
        reading.messages.push(Message { end: frames.at, asked });
        if is_over {
            return;
        }
    }
}

fn bad_frame() -> Asked {
    Asked::RefusedForGood("ACK|ERR|bad_frame".into())
}

enum Line {
    Request(Asked),
    BatchHeader(Header),
    /// How many rows follow is not known.
    UnreadableBatch(String),
}

/// A batch of which the count is known.
struct Header {
    count: u64,
    agency: Result<u32, &'static str>,
    position: Option<(Result<String, &'static str>, Option<u64>)>,
    draw: Result<Option<u64>, &'static str>,
}

fn header(line: &[u8], allowed: Allowed) -> Line {
    let fields = split(line);
    if fields[0] != b"BATCH" {
        return Line::Request(request(line, &fields));
    }
    let (agency_field, count, position, draw_field) = match fields[1..] {
        [agency, count] => (agency, count, None, None),
        [agency, count, upload, first_row] => (agency, count, Some((upload, first_row)), None),
        [agency, count, upload, first_row, draw] => (agency, count, Some((upload, first_row)), Some(draw)),
        _ => return Line::UnreadableBatch("ACK_BATCH|ERR|0|bad_header".into()),
    };
    let Some(count) = digits(count) else {
        return Line::UnreadableBatch("ACK_BATCH|ERR|0|bad_count".into());
    };
    let count = count.min(U64) as u64;
    if count > allowed.batch_bets {
        return Line::Request(Asked::RefusedForGood(format!("ACK_BATCH|ERR|{count}|too_many")));
    }
    let position = position.map(|(name, first_row)| (upload(name), number_up_to(first_row, U63)));
    Line::BatchHeader(Header { count, agency: agency(agency_field), position, draw: draw(draw_field) })
}

impl Header {
    /// Takes the rows, good or bad. `None`: the bytes end before the last.
    fn read_rows(self, frames: &mut Frames<'_>) -> Option<Asked> {
        let (mut bets, mut bad_row) = (Vec::new(), None);
        for number in 1..=self.count {
            match frames.next() {
                Frame::Unfinished => return None,
                Frame::Bad => return Some(bad_frame()),
                Frame::Line(line) => match row(line, self.agency) {
                    Ok(bet) => bets.push(bet),
                    Err(reason) => _ = bad_row.get_or_insert(format!("row {number}: {reason}")),
                },
            }
        }
        let refused = |reason: &str| Asked::Refused(format!("ACK_BATCH|ERR|{}|{reason}", self.count));
        let position = match self.position {
            None => None,
            Some((Ok(upload), Some(first_row))) => Some((upload, first_row)),
            _ if self.agency.is_err() => return Some(refused("bad_agency")),
            Some((Err(reason), _)) => return Some(refused(reason)),
            Some((_, None)) => return Some(refused("bad_first_row")),
        };
        Some(match (self.agency, self.draw, bad_row) {
            (Err(reason), ..) | (_, Err(reason), _) => refused(reason),
            (.., Some(reason)) => refused(&reason),
            (Ok(agency), Ok(draw), None) => Asked::Batch { agency, position, draw, bets },
        })
    }
}

fn row(line: &[u8], batch: Result<u32, &'static str>) -> Result<Bet, &'static str> {
    let line = str::from_utf8(line).map_err(|_| "bad_utf8")?;
    let fields: Vec<&str> = line.split('|').collect();
    if fields.len() == 7 && fields[0] == "BET" {
        if agency(fields[1].as_bytes())? != batch? {
            return Err("agency_mismatch");
        }
        return bet(&fields[2..]);
    }
    bet(&fields)
}

fn request(line: &[u8], fields: &[&[u8]]) -> Asked {
    let (verb, fields) = (fields[0], &fields[1..]);
    let (read, answer) = match verb {
        b"BET" => (single_bet(line), "ACK"),
        b"DONE" => (done(fields), "ACK_DONE"),
        b"GET_WINNERS" => (get_winners(fields), "WINNERS"),
        b"WAIT_WINNERS" => (wait_winners(fields), "WINNERS"),
        b"RESUME" => (resume(fields), "RESUME"),
        b"HELLO" if fields.is_empty() => (Ok(Asked::Hello), "HELLO"),
        b"HELLO" => (Err("bad_header"), "HELLO"),
        b"STATUS" if fields.is_empty() => (Ok(Asked::Status), "STATUS"),
        b"STATUS" => (Err("bad_header"), "STATUS"),
        _ => (Err("unknown"), "ACK"),
    };
    read.unwrap_or_else(|reason| Asked::Refused(format!("{answer}|ERR|{reason}")))
}

fn single_bet(line: &[u8]) -> Result<Asked, &'static str> {
    // Without a field, there is nothing that could be text or not.
    let Some(fields) = line.strip_prefix(b"BET|") else { return Err("bad_fields") };
    let fields: Vec<&str> = str::from_utf8(fields).map_err(|_| "bad_utf8")?.split('|').collect();
    if fields.len() != 6 {
        return Err("bad_fields");
    }
    let agency = agency(fields[0].as_bytes())?;
    Ok(Asked::Bet(agency, bet(&fields[1..])?))
}

fn done(fields: &[&[u8]]) -> Result<Asked, &'static str> {
    let (id, count, named) = match *fields {
        [id] => (id, None, None),
        [id, count] => (id, Some(count), None),
        [id, b"", named] => (id, None, Some(named)),
        [id, count, named] => (id, Some(count), Some(named)),
        _ => return Err("bad_header"),
    };
    let agency = agency(id)?;
    let bets = match count {
        None => None,
        Some(count) => Some(number_up_to(count, U64).ok_or("bad_count")?),
    };
    Ok(Asked::Done { agency, bets, draw: draw(named)? })
}

fn get_winners(fields: &[&[u8]]) -> Result<Asked, &'static str> {
    let (id, after, named) = match *fields {
        [id] => return Ok(Asked::Winners { agency: agency(id)? }),
        [id, after] => (id, after, None),
        [id, after, draw] => (id, after, Some(draw)),
        _ => return Err("bad_header"),
    };
    let agency = agency(id)?;
    let after = number_up_to(after, U63).ok_or("bad_after")?;
    Ok(Asked::Page { agency, after, draw: draw(named)? })
}

fn wait_winners(fields: &[&[u8]]) -> Result<Asked, &'static str> {
    let (id, ms, named) = match *fields {
        [id, ms] => (id, ms, None),
        [id, ms, named] => (id, ms, Some(named)),
        _ => return Err("bad_header"),
    };
    let agency = agency(id)?;
    let ms = number_up_to(ms, 60_000).ok_or("bad_wait")?;
    Ok(Asked::Wait { agency, ms, draw: draw(named)? })
}

fn resume(fields: &[&[u8]]) -> Result<Asked, &'static str> {
    let (id, name, named) = match *fields {
        [id, name] => (id, name, None),
        [id, name, named] => (id, name, Some(named)),
        _ => return Err("bad_header"),
    };
    Ok(Asked::Resume { agency: agency(id)?, upload: upload(name)?, draw: draw(named)? })
}

/// The draw that a request names, if it names one.
fn draw(field: Option<&[u8]>) -> Result<Option<u64>, &'static str> {
    field.map(|field| number_up_to(field, U63).ok_or("bad_draw")).transpose()
}
