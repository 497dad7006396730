//! The framed dialect, of the first of the original servers: a big-endian `u32` length of
//! 1 to 8192, then one line of `|`-separated fields.
//!
//! The decoder takes a batch row by row, so that a batch never needs more memory than its
//! valid rows. From the first bad row on it only counts rows, so that the connection stays
//! in step whatever they hold.

mod client;

use std::borrow::Cow;
use std::slice;
use std::str;
use std::time::Duration;

use super::{
    Claim, FRAME_BYTES_MAX, Hello, Incoming, Reason, Reply, Request, Sender, Status, WAIT_MAX, Winners,
    WireLimits,
};
use crate::text::{decimal, split_exactly, without_line_end};
use crate::{AgencyId, Batch, BetError, Bets, DrawId, UploadId, UploadPosition};

pub use client::{decode_reply, encode_request};

/// Bytes that a frame's length takes.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of the shortest row, `a|b|1|2000-01-01|0`, and its length.
const ROW_BYTES_MIN: usize = LENGTH_BYTES + 18;

/// The framed half of [`super::Decoder`].
#[derive(Debug, Default)]
pub(super) struct Decoder {
    batch: Option<Box<PartialBatch>>,
    /// Whether the header of the last batch was malformed. Its rows cannot be distinguished
    /// from requests then: a `BET` is taken for one of them and refused, until another
    /// request shows that the rows are over.
    stray_rows: bool,
}

/// A batch whose header has arrived and whose rows are arriving.
#[derive(Debug)]
struct PartialBatch {
    count: u64,
    received: u64,
    batch: Batch,
    refusal: Option<Reason>,
}

impl Decoder {
    /// Decodes the next message; of one that is refused, `refused` becomes the sender.
    pub(super) fn decode(
        &mut self,
        input: &mut &[u8],
        limits: &WireLimits,
        refused: &mut Sender,
    ) -> Option<Incoming> {
        loop {
            let frame = match next_frame(input)? {
                Ok(frame) => frame,
                Err(BadFrame) => {
                    *refused = Sender::default();
                    return Some(Incoming::RefusedForGood(Reply::Unrecognised(Reason::BadFrame)));
                }
            };
            let complete = match &mut self.batch {
                Some(partial) => {
                    partial.take_row(frame);
                    partial.is_complete()
                }
                None => match read_request(frame, limits) {
                    Message::Whole(incoming) => {
                        let incoming = self.without_stray_rows(incoming);
                        if !matches!(incoming, Incoming::Request(_)) {
                            *refused = Sender::of_frame(frame);
                        }
                        return Some(incoming);
                    }
                    Message::BatchHeader(mut partial) => {
                        self.stray_rows = false;
                        // Room for what has arrived, whatever was announced.
                        let bets = partial.count.min((input.len() / ROW_BYTES_MIN) as u64);
                        partial.batch.bets.reserve(input.len(), bets as usize);
                        let complete = partial.is_complete();
                        self.batch = Some(partial);
                        complete
                    }
                },
            };
            if complete {
                let partial = self.batch.take()?;
                if partial.refusal.is_some() {
                    *refused = partial.sender();
                }
                return Some(partial.finish());
            }
        }
    }

    /// Refuses a bet that may be a row of a batch whose header was malformed.
    fn without_stray_rows(&mut self, incoming: Incoming) -> Incoming {
        match &incoming {
            Incoming::Refused(Reply::Batch { .. }) => self.stray_rows = true,
            Incoming::Request(Request::Bet(_)) if self.stray_rows => {
                return Incoming::Refused(Reply::Bet(Err(Reason::StrayRow)));
            }
            // It may be unknown here: a server that has no use for it refuses it as such.
            Incoming::Request(Request::Auth(_)) => {}
            Incoming::Request(_) => self.stray_rows = false,
            _ => {}
        }
        incoming
    }

    pub(super) fn batch_in_progress(&self) -> Option<u64> {
        self.batch.as_ref().map(|partial| partial.count)
    }

    pub(super) fn batch_sender(&self) -> Sender {
        self.batch.as_ref().map(|partial| partial.sender()).unwrap_or_default()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.batch.as_ref().map_or(0, |partial| partial.batch.bets.held_bytes())
    }
}

impl PartialBatch {
    fn is_complete(&self) -> bool {
        self.received == self.count
    }

    fn take_row(&mut self, frame: &[u8]) {
        self.received += 1;
        if self.refusal.is_some() {
            return;
        }
        if let Err(error) = push_row(&mut self.batch, frame) {
            let row = self.received;
            self.refuse(Reason::Row { row, error });
        }
    }

    /// Discards the rows: none will be stored, and those that follow are only counted.
    fn refuse(&mut self, reason: Reason) {
        self.refusal = Some(reason);
        self.batch.bets = Bets::default();
    }

    fn sender(&self) -> Sender {
        match self.refusal {
            Some(Reason::BadAgency) => Sender::default(),
            _ => Sender::of_batches(slice::from_ref(&self.batch)),
        }
    }

    fn finish(self) -> Incoming {
        match self.refusal {
            None => Incoming::Request(Request::Batch(self.batch)),
            Some(reason) => Incoming::Refused(Reply::Batch { count: self.count, result: Err(reason) }),
        }
    }
}

/// Adds a row of a batch: five fields, or seven with the bet's own header.
fn push_row(batch: &mut Batch, frame: &[u8]) -> Result<(), BetError> {
    let line = str::from_utf8(frame).map_err(|_| BetError::Utf8)?;
    match line.strip_prefix("BET|").and_then(split_exactly::<6>) {
        Some([agency, first, last, document, birthdate, number]) => {
            if agency.parse::<AgencyId>()? != batch.agency {
                return Err(BetError::AgencyMismatch);
            }
            batch.bets.push([first, last, document, birthdate, number])
        }
        None => batch.bets.push_line(line),
    }
}

struct BadFrame;

/// Takes one frame off the input and returns it without its line end, or `None` if not
/// all of it has arrived.
fn next_frame<'a>(input: &mut &'a [u8]) -> Option<Result<&'a [u8], BadFrame>> {
    let (length, rest) = input.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if !(1..=FRAME_BYTES_MAX).contains(&length) {
        return Some(Err(BadFrame));
    }
    let (frame, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(Ok(without_line_end(frame)))
}

enum Message {
    Whole(Incoming),
    BatchHeader(Box<PartialBatch>),
}

fn read_request(frame: &[u8], limits: &WireLimits) -> Message {
    let line = match str::from_utf8(frame) {
        Ok(line) => Cow::Borrowed(line),
        Err(_) if frame.starts_with(b"BET|") => {
            return Message::Whole(Incoming::Refused(Reply::Bet(Err(BetError::Utf8.into()))));
        }
        // It is refused like other malformed requests: only the fields of a bet may hold
        // more than ASCII.
        Err(_) => String::from_utf8_lossy(frame),
    };
    let (verb, fields) = line.split_once('|').unwrap_or((&line, ""));
    let fields: Vec<&str> = match line.len() == verb.len() {
        true => Vec::new(),
        false => fields.split('|').collect(),
    };
    let read = match verb {
        "BATCH" => return read_batch_header(&fields, limits),
        "BET" => read_bet(&fields).map_err(|reason| Reply::Bet(Err(reason))),
        "DONE" => read_done(&fields).map_err(|reason| Reply::Done(Err(reason))),
        "GET_WINNERS" => read_get_winners(&fields).map_err(|reason| Reply::Winners(Err(reason))),
        "WAIT_WINNERS" => read_wait_winners(&fields).map_err(|reason| Reply::Winners(Err(reason))),
        "RESUME" => read_resume(&fields).map_err(|reason| Reply::Resume(Err(reason))),
        "AUTH" => Ok(Request::Auth(match *fields {
            [agency, token] => Claim::read(agency, token),
            _ => None,
        })),
        "HELLO" if fields.is_empty() => Ok(Request::Hello),
        "HELLO" => Err(Reply::Hello(Err(Reason::BadHeader))),
        "STATUS" if fields.is_empty() => Ok(Request::Status),
        "STATUS" => Err(Reply::Status(Err(Reason::BadHeader))),
        _ => Err(Reply::Unrecognised(Reason::Unknown)),
    };
    Message::Whole(match read {
        Ok(request) => Incoming::Request(request),
        Err(reply) => Incoming::Refused(reply),
    })
}

fn read_bet(fields: &[&str]) -> Result<Request, Reason> {
    let &[agency, first, last, document, birthdate, number] = fields else {
        return Err(BetError::Fields.into());
    };
    let agency = agency.parse()?;
    let mut bets = Bets::default();
    bets.push([first, last, document, birthdate, number])?;
    Ok(Request::Bet(Batch { agency, bets, position: None }))
}

fn read_batch_header(fields: &[&str], limits: &WireLimits) -> Message {
    let refused = |count, reason| Incoming::Refused(Reply::Batch { count, result: Err(reason) });
    let (agency, count, position) = match *fields {
        [agency, count] => (agency, count, None),
        [agency, count, upload, first_row] => (agency, count, Some((upload, first_row, None))),
        [agency, count, upload, first_row, draw] => (agency, count, Some((upload, first_row, Some(draw)))),
        _ => return Message::Whole(refused(0, Reason::BadHeader)),
    };
    if !count.bytes().all(|b| b.is_ascii_digit()) || count.is_empty() {
        return Message::Whole(refused(0, Reason::BadCount));
    }
    // A number that overflows is still a number, and over every limit.
    let count: u64 = decimal(count).unwrap_or(u64::MAX);
    if count > limits.batch_bets_max {
        return Message::Whole(Incoming::RefusedForGood(Reply::Batch {
            count,
            result: Err(Reason::TooMany),
        }));
    }
    // The count is known, so the rows can be skipped whatever else is wrong.
    let (agency, position, refusal) = match (read_agency(agency), read_position(position)) {
        (Ok(agency), Ok(position)) => (agency, position, None),
        (Ok(agency), Err(reason)) => (agency, None, Some(reason)),
        (Err(reason), _) => (AgencyId(0), None, Some(reason)),
    };
    Message::BatchHeader(Box::new(PartialBatch {
        count,
        received: 0,
        batch: Batch { agency, bets: Bets::default(), position },
        refusal,
    }))
}

fn read_position(position: Option<(&str, &str, Option<&str>)>) -> Result<Option<UploadPosition>, Reason> {
    let Some((upload, first_row, draw)) = position else {
        return Ok(None);
    };
    let upload = UploadId::new(upload).ok_or(Reason::BadUpload)?;
    let first_row = read_stored_number(first_row).ok_or(Reason::BadFirstRow)?;
    let draw = read_draw(draw)?;
    Ok(Some(UploadPosition { upload, first_row, draw }))
}

fn read_done(fields: &[&str]) -> Result<Request, Reason> {
    let (agency, bets, draw) = match *fields {
        [agency] => (agency, None, None),
        [agency, count] => (agency, Some(count), None),
        // The count is optional also before a draw.
        [agency, "", draw] => (agency, None, Some(draw)),
        [agency, count, draw] => (agency, Some(count), Some(draw)),
        _ => return Err(Reason::BadHeader),
    };
    let agency = read_agency(agency)?;
    let bets = match bets {
        None => None,
        Some(count) => Some(decimal(count).ok_or(Reason::BadCount)?),
    };
    Ok(Request::Done { agency, bets, draw: read_draw(draw)? })
}

fn read_get_winners(fields: &[&str]) -> Result<Request, Reason> {
    let (agency, after, draw) = match *fields {
        [agency] => {
            let agency = read_agency(agency)?;
            return Ok(Request::Winners { agency });
        }
        [agency, after] => (agency, after, None),
        [agency, after, draw] => (agency, after, Some(draw)),
        _ => return Err(Reason::BadHeader),
    };
    let agency = read_agency(agency)?;
    let after = read_stored_number(after).ok_or(Reason::BadAfter)?;
    Ok(Request::WinnersPage { agency, after, draw: read_draw(draw)? })
}

fn read_wait_winners(fields: &[&str]) -> Result<Request, Reason> {
    let (agency, wait, draw) = match *fields {
        [agency, wait] => (agency, wait, None),
        [agency, wait, draw] => (agency, wait, Some(draw)),
        _ => return Err(Reason::BadHeader),
    };
    let agency = read_agency(agency)?;
    let wait = decimal(wait).map(Duration::from_millis).ok_or(Reason::BadWait)?;
    if wait > WAIT_MAX {
        return Err(Reason::BadWait);
    }
    Ok(Request::WaitWinners { agency, wait, draw: read_draw(draw)? })
}

fn read_resume(fields: &[&str]) -> Result<Request, Reason> {
    let (agency, upload, draw) = match *fields {
        [agency, upload] => (agency, upload, None),
        [agency, upload, draw] => (agency, upload, Some(draw)),
        _ => return Err(Reason::BadHeader),
    };
    Ok(Request::Resume {
        agency: read_agency(agency)?,
        upload: UploadId::new(upload).ok_or(Reason::BadUpload)?,
        draw: read_draw(draw)?,
    })
}

fn read_agency(text: &str) -> Result<AgencyId, Reason> {
    text.parse().map_err(|_| Reason::BadAgency)
}

/// Reads the draw that a request names, if it names one.
fn read_draw(text: Option<&str>) -> Result<Option<DrawId>, Reason> {
    text.map(|text| decimal(text).map(DrawId).ok_or(Reason::BadDraw)).transpose()
}

/// Reads a number that a database can hold: rows and bets are counted in 63 bits.
fn read_stored_number(text: &str) -> Option<u64> {
    decimal(text).filter(|number| *number <= i64::MAX as u64)
}

/// Appends the reply as one frame.
pub(super) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    let line = match reply {
        Reply::Bet(result) | Reply::Auth(result) => verdict("ACK", result),
        Reply::Unrecognised(reason) => format!("ACK|ERR|{reason}"),
        Reply::Batch { count, result: Ok(()) } => format!("ACK_BATCH|OK|{count}"),
        Reply::Batch { count, result: Err(reason) } => format!("ACK_BATCH|ERR|{count}|{reason}"),
        Reply::Done(result) => verdict("ACK_DONE", result),
        Reply::Winners(Ok(winners)) => match winners_line(winners) {
            line if line.len() < FRAME_BYTES_MAX => line,
            _ => format!("WINNERS|ERR|{}", Reason::UsePages),
        },
        Reply::Winners(Err(reason)) => format!("WINNERS|ERR|{reason}"),
        Reply::Resume(Ok(next_row)) => format!("RESUME|OK|{next_row}"),
        Reply::Resume(Err(reason)) => format!("RESUME|ERR|{reason}"),
        Reply::Hello(Ok(Hello { version, words })) => format!("HELLO|OK|{version}|{}", words.join(",")),
        Reply::Hello(Err(reason)) => format!("HELLO|ERR|{reason}"),
        Reply::Status(Ok(status)) => status_line(status),
        Reply::Status(Err(reason)) => format!("STATUS|ERR|{reason}"),
    };
    append_frame(&[line.as_bytes(), b"\n"], out);
}

fn verdict(verb: &str, result: &Result<(), Reason>) -> String {
    match result {
        Ok(()) => format!("{verb}|OK"),
        Err(reason) => format!("{verb}|ERR|{reason}"),
    }
}

fn winners_line(winners: &Winners) -> String {
    match winners {
        Winners::All(documents) => format!("WINNERS|OK|{}", documents.join(",")),
        Winners::Page { documents, next } => {
            let next = next.map(|next| next.to_string()).unwrap_or_default();
            format!("WINNERS|OK|{}|{next}", documents.join(","))
        }
        Winners::Bets { .. } => unreachable!("only the counted dialect asks for whole bets"),
    }
}

fn status_line(status: &Status) -> String {
    let Status { draw, drawn, done, expected, bets } = status;
    let state = if *drawn { "drawn" } else { "open" };
    format!("STATUS|OK|{draw}|{state}|{done}|{expected}|{bets}")
}

/// Appends one frame that consists of the given parts.
fn append_frame(parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    debug_assert!((1..=FRAME_BYTES_MAX).contains(&length), "frame of {length} bytes");
    let length = u32::try_from(length).expect("a frame is far below 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Bytes of documents, each with a comma, that fit any page: `WINNERS|OK|`, the
/// documents, `|`, the next page's start of up to 20 digits, and the line end.
pub const PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - "WINNERS|OK|".len() - "|".len() - 20 - "\n".len();

/// Bytes of documents, each with a comma, that fit a list without pages. The last
/// document has no comma.
const LIST_BYTES_MAX: usize = FRAME_BYTES_MAX - "WINNERS|OK|".len() - "\n".len() + ",".len();

/// Collects the documents of one [`Winners`] reply, as many as its frame holds.
#[derive(Debug)]
pub struct Documents {
    documents: Vec<String>,
    bytes_left: usize,
}

impl Documents {
    /// Creates an empty [`Winners::All`].
    pub fn of_all() -> Self {
        Self { documents: Vec::new(), bytes_left: LIST_BYTES_MAX }
    }

    /// Creates an empty [`Winners::Page`].
    pub fn of_page() -> Self {
        Self { documents: Vec::new(), bytes_left: PAGE_BYTES_MAX }
    }

    /// Adds a document if there is room for it, and returns whether there was.
    #[must_use = "a document that does not fit is not added"]
    pub fn push(&mut self, document: String) -> bool {
        let Some(bytes_left) = self.bytes_left.checked_sub(document.len() + ",".len()) else {
            return false;
        };
        self.bytes_left = bytes_left;
        self.documents.push(document);
        true
    }

    /// Returns the documents in the order in which they were added.
    pub fn into_vec(self) -> Vec<String> {
        self.documents
    }
}
