//! The lottery implemented a second time, from `docs/protocol.md`: what a server
//! answers, and what it then has stored. It only searches through lists.

use std::collections::{BTreeMap, BTreeSet};

use crate::reading::{self, Allowed, Asked, Bet, Reading, Speech};

/// The number that wins.
pub const WINNING_NUMBER: u32 = 7574;
/// Most documents of one page.
const PAGE_DOCUMENTS_MAX: usize = 1_000;
/// How many bytes the documents of a page, each with a comma, may take: the rest of the
/// frame is for the words around them and the longest `next`.
const PAGE_BYTES_MAX: usize = 8192 - "WINNERS|OK||\n".len() - "18446744073709551615".len();

/// Most agencies that take part, if no more are expected.
const AGENCIES_MAX: u64 = 10_000;

/// One lottery with one draw.
#[derive(Clone, Debug, Default)]
pub struct Lottery {
    /// How many agencies must be done; `None` if that is inferred.
    agencies: Option<u32>,
    pub drawn: bool,
    /// All bets in stored order, each with its agency.
    pub bets: Vec<(u32, Bet)>,
    pub batches: Vec<Batch>,
    /// The agencies that are done, each with its number of bets.
    pub done: BTreeMap<u32, u64>,
}

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub agency: u32,
    pub position: Option<(String, u64)>,
    pub bets: Vec<Bet>,
}

/// What comes back on one connection.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    pub answers: Vec<Answer>,
    /// Whether the server closes by itself after the last.
    pub closes: bool,
    /// For how long the server waits for a draw that does not happen.
    pub waited_ms: u64,
}

/// An answer, and how many bytes must have arrived before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub due_at: usize,
    pub bytes: Vec<u8>,
}

impl Answers {
    /// All bytes that come back.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_due(usize::MAX)
    }

    /// What has come back once so many bytes have arrived.
    pub fn bytes_due(&self, arrived: usize) -> Vec<u8> {
        let due = self.answers.iter().take_while(|answer| answer.due_at <= arrived);
        due.flat_map(|answer| answer.bytes.iter().copied()).collect()
    }
}

impl Lottery {
    pub fn new(agencies: Option<u32>) -> Self {
        Self { agencies, ..Self::default() }
    }

    /// Carries out all that one connection sends.
    pub fn hear(&mut self, bytes: &[u8], allowed: Allowed) -> Answers {
        let Reading { speech, messages, .. } = reading::read(bytes, allowed);
        let mut answers = Answers::default();
        for message in messages {
            answers.closes = message.asked.ends_the_connection();
            if let Asked::Wait { ms, draw, .. } = message.asked
                && only_draw(draw).is_ok()
                && !self.drawn
            {
                answers.waited_ms += ms;
            }
            if let (Some(speech), Some(words)) = (speech, self.answer(message.asked)) {
                answers.answers.push(Answer { due_at: message.end, bytes: in_bytes(speech, &words) });
            }
        }
        answers
    }

    /// Carries out one message; returns the text of its answer, if there is one.
    pub fn answer(&mut self, asked: Asked) -> Option<String> {
        Some(match asked {
            Asked::Foreign => return None,
            Asked::Refused(words) | Asked::RefusedForGood(words) => words,
            Asked::Bet(agency, bet) => {
                let batch = Batch { agency, position: None, bets: vec![bet] };
                verdict("ACK", self.store(vec![batch]))
            }
            Asked::Hello => "HELLO|OK|1|uploads,draws,pages,waits".to_owned(),
            Asked::Batch { agency, position, draw, bets } => {
                let count = bets.len();
                let batch = Batch { agency, position, bets };
                match only_draw(draw).and_then(|()| self.store(vec![batch])) {
                    Ok(()) => format!("ACK_BATCH|OK|{count}"),
                    Err(reason) => format!("ACK_BATCH|ERR|{count}|{reason}"),
                }
            }
            Asked::Payload(rows) => match self.store(by_agency(rows)) {
                Ok(()) => "ACK".to_owned(),
                Err(_) => "ERROR_INVALID_BATCH".to_owned(),
            },
            Asked::Done { agency, bets, draw } => {
                verdict("ACK_DONE", only_draw(draw).and_then(|()| self.close(agency, bets)))
            }
            Asked::DoneAndWinners { agency } => {
                let closed = self.close(agency, None);
                match (self.drawn, closed) {
                    (true, _) => self.winning_lines(agency),
                    (false, Ok(())) => "ERROR_LOTTERY_HASNT_ENDED".to_owned(),
                    (false, Err(_)) => "ERROR_INVALID_AGENCY".to_owned(),
                }
            }
            Asked::Winners { agency } => winners(self.all_winners(agency)),
            Asked::Page { agency, after, draw } => winners(self.page(agency, after, draw)),
            // No other agency can complete the draw meanwhile.
            Asked::Wait { agency, draw, .. } => winners(self.page(agency, 0, draw)),
            Asked::Resume { agency, upload, draw } => match only_draw(draw) {
                Ok(()) => format!("RESUME|OK|{}", self.next_row(agency, &upload)),
                Err(reason) => format!("RESUME|ERR|{reason}"),
            },
            Asked::Status => self.status(),
        })
    }

    /// Stores all, or nothing and returns the reason of the first that is refused.
    fn store(&mut self, batches: Vec<Batch>) -> Result<(), String> {
        let before = (self.bets.len(), self.batches.len());
        let stored = batches.into_iter().try_for_each(|batch| self.store_one(batch));
        if stored.is_err() {
            self.bets.truncate(before.0);
            self.batches.truncate(before.1);
        }
        stored
    }

    fn store_one(&mut self, batch: Batch) -> Result<(), String> {
        if batch.position.is_some() {
            let stored = self
                .batches
                .iter()
                .find(|other| other.agency == batch.agency && other.position == batch.position);
            match stored {
                Some(stored) if *stored == batch => return Ok(()),
                Some(_) => return Err("conflict".into()),
                None => {}
            }
        }
        if self.drawn {
            return Err("draw_closed".into());
        }
        if self.done.contains_key(&batch.agency) {
            return Err("agency_done".into());
        }
        self.admit(batch.agency)?;
        if let Some((upload, first_row)) = &batch.position {
            let next_row = self.next_row(batch.agency, upload);
            if *first_row > next_row {
                return Err(format!("gap|{next_row}"));
            }
            if *first_row < next_row {
                return Err("conflict".into());
            }
        }
        if !batch.bets.is_empty() {
            self.bets.extend(batch.bets.iter().map(|bet| (batch.agency, bet.clone())));
            self.batches.push(batch);
        }
        Ok(())
    }

    fn admit(&self, agency: u32) -> Result<(), String> {
        let seen: BTreeSet<u32> =
            self.batches.iter().map(|batch| batch.agency).chain(self.done.keys().copied()).collect();
        let most = AGENCIES_MAX.max(self.agencies.unwrap_or(0).into());
        let is_beyond = self.agencies.is_none() && u64::from(agency) > most;
        let is_full = seen.len() as u64 >= most && !seen.contains(&agency);
        if is_beyond || is_full { Err("too_many_agencies".into()) } else { Ok(()) }
    }

    fn close(&mut self, agency: u32, bets: Option<u64>) -> Result<(), String> {
        if !self.drawn && !self.done.contains_key(&agency) {
            self.admit(agency)?;
        }
        let stored = self.bets.iter().filter(|(other, _)| *other == agency).count() as u64;
        if bets.is_some_and(|bets| bets != stored) {
            return Err(format!("count_mismatch|{stored}"));
        }
        if !self.drawn {
            self.done.insert(agency, stored);
            self.drawn = self.expected() >= 1 && self.done_and_expected() >= self.expected();
        }
        Ok(())
    }

    fn expected(&self) -> u64 {
        self.agencies.unwrap_or_else(|| self.highest_seen()).into()
    }

    /// Agency 0 is not expected where all from 1 on are.
    fn done_and_expected(&self) -> u64 {
        self.done.keys().filter(|agency| self.agencies.is_some() || **agency >= 1).count() as u64
    }

    fn highest_seen(&self) -> u32 {
        let with_bets = self.batches.iter().map(|batch| batch.agency);
        with_bets.chain(self.done.keys().copied()).max().unwrap_or(0)
    }

    fn next_row(&self, agency: u32, upload: &str) -> u64 {
        let of_the_upload = |batch: &&Batch| {
            batch.agency == agency && batch.position.as_ref().is_some_and(|(name, _)| name == upload)
        };
        self.batches.iter().filter(of_the_upload).map(|batch| batch.bets.len() as u64).sum()
    }

    fn status(&self) -> String {
        let state = if self.drawn { "drawn" } else { "open" };
        let (done, expected) = (self.done_and_expected(), self.expected());
        format!("STATUS|OK|1|{state}|{done}|{expected}|{}", self.bets.len())
    }

    /// An agency's winning bets, each with its number among all bets, from 1.
    pub fn winning_bets(&self, agency: u32) -> impl Iterator<Item = (u64, &Bet)> {
        let wins = move |(_, (other, bet)): &(u64, &(u32, Bet))| {
            self.drawn && *other == agency && bet.number == WINNING_NUMBER
        };
        (1..).zip(&self.bets).filter(wins).map(|(position, (_, bet))| (position, bet))
    }

    fn all_winners(&self, agency: u32) -> Result<String, &'static str> {
        if !self.drawn {
            return Err("not_ready");
        }
        let documents: Vec<&str> = self.winning_bets(agency).map(|(_, bet)| &*bet.document).collect();
        let list = documents.join(",");
        if "WINNERS|OK|\n".len() + list.len() > 8192 { Err("too_many|use_pages") } else { Ok(list) }
    }

    fn page(&self, agency: u32, after: u64, draw: Option<u64>) -> Result<String, &'static str> {
        only_draw(draw).map_err(|_| "bad_draw")?;
        if !self.drawn {
            return Err("not_ready");
        }
        let all: Vec<_> = self.winning_bets(agency).filter(|(position, _)| *position > after).collect();
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (_, bet) in all.iter().take(PAGE_DOCUMENTS_MAX) {
            bytes += bet.document.len() + 1;
            if bytes > PAGE_BYTES_MAX {
                break;
            }
            page.push(&*bet.document);
        }
        let is_full = page.len() < all.len() || page.len() == PAGE_DOCUMENTS_MAX;
        let next = if is_full { all[page.len() - 1].0.to_string() } else { String::new() };
        Ok(format!("{}|{next}", page.join(",")))
    }

    fn winning_lines(&self, agency: u32) -> String {
        let line = |(_, bet): (u64, &Bet)| {
            let Bet { first_name, last_name, document, birthdate, number } = bet;
            format!("{first_name}|{last_name}|{document}|{birthdate}|{number}|{agency}")
        };
        self.winning_bets(agency).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// One batch for each agency, agencies in the order of their first row.
pub fn by_agency(rows: Vec<(u32, Bet)>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (agency, bet) in rows {
        match batches.iter_mut().find(|batch| batch.agency == agency) {
            Some(batch) => batch.bets.push(bet),
            None => batches.push(Batch { agency, position: None, bets: vec![bet] }),
        }
    }
    batches
}

/// There is only one draw, the first.
fn only_draw(draw: Option<u64>) -> Result<(), String> {
    if draw.is_none_or(|draw| draw == 1) { Ok(()) } else { Err("bad_draw".into()) }
}

fn verdict(verb: &str, result: Result<(), String>) -> String {
    match result {
        Ok(()) => format!("{verb}|OK"),
        Err(reason) => format!("{verb}|ERR|{reason}"),
    }
}

fn winners(result: Result<String, &'static str>) -> String {
    match result {
        Ok(list) => format!("WINNERS|OK|{list}"),
        Err(reason) => format!("WINNERS|ERR|{reason}"),
    }
}

fn in_bytes(speech: Speech, words: &str) -> Vec<u8> {
    match speech {
        Speech::Framed => {
            let length = u32::try_from(words.len() + 1).expect("a short line").to_be_bytes();
            [&length, words.as_bytes(), b"\n"].concat()
        }
        Speech::Counted => format!("{}\n{words}", words.len()).into_bytes(),
    }
}
