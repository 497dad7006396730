//! Simulated agencies, each on a thread of its own, against a server that may be slow,
//! refuse, cut the connection or die at any moment. What they sent and which replies they
//! got goes into the [`History`].
//!
//! They share no code with the program: what they send is written here byte by byte.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use sorteo_test_support::process::wait_for;

use crate::history::{History, Outcome};
use crate::workplace::{Workplace, longest};

/// The number that wins, and how often a row has it.
const WINNING_NUMBER: u32 = 7574;
const WINS_ONE_IN: u32 = 5;
/// Without an answer for so long, an agency hangs up and takes it for lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// An agency that gets nowhere for so long fails the test: service did not come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause of an agency whose server is gone or refuses for now.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// How an agency speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Framed, with an upload's name and place: retries until it is acknowledged.
    Placed,
    /// Framed as the seed's client: after a lost answer it goes on with the next batch.
    Framed,
    /// Counted, likewise.
    Counted,
}

/// Who comes, and how much they bring.
#[derive(Clone, Debug)]
pub struct Crowd {
    pub dialects: Vec<Dialect>,
    pub batches: u64,
    pub rows_max: u64,
    /// Whether they say that they are done, and wait for their winners.
    pub until_the_draw: bool,
}

impl Crowd {
    /// Two agencies with places, one of each seed.
    pub fn mixed(batches: u64) -> Self {
        let dialects = vec![Dialect::Placed, Dialect::Placed, Dialect::Framed, Dialect::Counted];
        Self { dialects, batches, rows_max: 20, until_the_draw: true }
    }

    /// So many operations are acknowledged when all have ended, if none is lost:
    /// batches, and for each agency that it is done and its winners.
    pub fn operations(&self) -> u64 {
        let of_each = self.batches + if self.until_the_draw { 2 } else { 0 };
        self.dialects.len() as u64 * of_each
    }

    /// Sends them all to the server, agencies 1 to their number.
    pub fn start(&self, server: SocketAddr, workplace: &Workplace) -> Running {
        self.start_beside(&Arc::default(), server, workplace)
    }

    /// The same, with a history that others write to as well.
    pub fn start_beside(&self, history: &Arc<History>, server: SocketAddr, workplace: &Workplace) -> Running {
        let (history, acknowledged) = (Arc::clone(history), Arc::new(AtomicU64::new(0)));
        let agencies = (1..).zip(&self.dialects).map(|(id, dialect)| {
            let agency = Agency {
                id,
                dialect: *dialect,
                line: Line { server, stream: None },
                history: Arc::clone(&history),
                acknowledged: Arc::clone(&acknowledged),
                rng: workplace.rng(id.into()),
                rows: 0,
            };
            let crowd = self.clone();
            thread::spawn(move || agency.work(&crowd))
        });
        Running { agencies: agencies.collect(), history, acknowledged }
    }
}

/// Agencies at work.
pub struct Running {
    agencies: Vec<JoinHandle<()>>,
    history: Arc<History>,
    acknowledged: Arc<AtomicU64>,
}

impl Running {
    /// Waits until so many operations are acknowledged, or all agencies have ended.
    pub fn wait_acknowledged(&self, operations: u64) {
        wait_for("progress of the agencies", || {
            let enough = self.acknowledged.load(Ordering::Relaxed) >= operations;
            (enough || self.have_ended()).then_some(())
        });
    }

    pub fn have_ended(&self) -> bool {
        self.agencies.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all have ended, and returns the history.
    pub fn join(self) -> Arc<History> {
        for agency in self.agencies {
            agency.join().expect("an agency gets through");
        }
        self.history
    }
}

struct Agency {
    id: u32,
    dialect: Dialect,
    line: Line,
    history: Arc<History>,
    acknowledged: Arc<AtomicU64>,
    rng: ChaCha8Rng,
    /// Rows made so far: no two are alike.
    rows: u64,
}

impl Agency {
    fn work(mut self, crowd: &Crowd) {
        let mut stored = 0;
        for _ in 0..crowd.batches {
            if self.history.is_violated() {
                return;
            }
            let rows = self.make_rows(crowd.rows_max);
            match self.dialect {
                Dialect::Placed => self.send_placed(&rows, stored),
                Dialect::Framed | Dialect::Counted => self.send_once(&rows),
            }
            stored += rows.len() as u64;
        }
        if crowd.until_the_draw && self.close(stored) && self.read_winners() {
            self.bet_after_the_draw();
        }
    }

    fn make_rows(&mut self, rows_max: u64) -> Vec<String> {
        let rows = self.rng.random_range(1..=rows_max);
        (0..rows).map(|_| self.make_row()).collect()
    }

    fn make_row(&mut self) -> String {
        self.rows += 1;
        let number = match self.rng.random_ratio(1, WINS_ONE_IN) {
            true => WINNING_NUMBER,
            false => self.rng.random_range(0..7_000),
        };
        format!("Ana {}|de Agencia {}|{}{:07}|1999-03-17|{number}", self.rows, self.id, self.id, self.rows)
    }

    /// Sends a batch at its place until it is acknowledged, by sending it again or
    /// by asking where to go on.
    fn send_placed(&mut self, rows: &[String], first_row: u64) {
        let header = format!("BATCH|{}|{}|caja|{first_row}", self.id, rows.len());
        let request = batch_of(&header, rows);
        let expected = format!("ACK_BATCH|OK|{}", rows.len());
        let sent_at = Instant::now();
        self.until_ok("a batch at its place", |agency| {
            let outcome = outcome_of(agency.line.ask_framed(&request), &expected);
            agency.history.batch(agency.id, rows, outcome.clone());
            if outcome == Outcome::Unknown && agency.rng.random() {
                return agency.resume(rows, first_row);
            }
            agency.refuse_only_for_now(&outcome);
            outcome
        });
        longest(
            "longest time until a batch was acknowledged, with all its faults, ms",
            sent_at.elapsed().as_millis() as u64,
        );
    }

    /// Asks where the upload goes on: behind this batch, or with it.
    fn resume(&mut self, rows: &[String], first_row: u64) -> Outcome {
        let behind = first_row + rows.len() as u64;
        match self.line.ask_framed(&frame(&format!("RESUME|{}|caja", self.id))) {
            Ok(answer) if answer == format!("RESUME|OK|{behind}") => {
                self.history.batch(self.id, rows, Outcome::Ok);
                Outcome::Ok
            }
            Ok(answer) if answer == format!("RESUME|OK|{first_row}") => Outcome::Unknown,
            Ok(answer) if is_passing(&answer) => Outcome::Unknown,
            Ok(answer) => {
                self.history.violation(format!("agency {}: {answer} at row {first_row}", self.id));
                Outcome::Unknown
            }
            Err(_) => Outcome::Unknown,
        }
    }

    /// Sends a batch once. Nobody may send it again without a place, so what is
    /// not answered stays unknown, and what is refused is refused.
    fn send_once(&mut self, rows: &[String]) {
        let outcome = match self.dialect {
            Dialect::Counted => {
                let rows: Vec<String> = rows.iter().map(|row| format!("{row}|{}", self.id)).collect();
                outcome_of(self.line.ask_counted(&rows.join("\n")), "ACK")
            }
            _ => {
                let request = batch_of(&format!("BATCH|{}|{}", self.id, rows.len()), rows);
                outcome_of(self.line.ask_framed(&request), &format!("ACK_BATCH|OK|{}", rows.len()))
            }
        };
        self.history.batch(self.id, rows, outcome.clone());
        self.refuse_only_for_now(&outcome);
        match outcome {
            Outcome::Ok => _ = self.acknowledged.fetch_add(1, Ordering::Relaxed),
            _ => self.wait_for_the_server(),
        }
    }

    /// Says that all is sent. The counted dialect says so by asking for winners.
    /// Answers whether to go on.
    fn close(&mut self, stored: u64) -> bool {
        let bets = (self.dialect == Dialect::Placed).then_some(stored);
        let request = match bets {
            Some(bets) => format!("DONE|{}|{bets}", self.id),
            None => format!("DONE|{}", self.id),
        };
        if self.dialect == Dialect::Counted {
            return true;
        }
        let is_done = self.until_ok("done", |agency| {
            let outcome = outcome_of(agency.line.ask_framed(&frame(&request)), "ACK_DONE|OK");
            agency.refuse_only_for_now(&outcome);
            outcome
        });
        if is_done {
            self.history.done(self.id, bets);
        }
        is_done
    }

    /// Asks for the winners until the draw is made, and once more: they never change.
    /// Answers whether to go on.
    fn read_winners(&mut self) -> bool {
        let mut times_told = 0;
        self.until_ok("the winners", |agency| match agency.ask_winners() {
            Ok(Some(documents)) => {
                agency.history.winners(agency.id, documents);
                times_told += 1;
                if times_told == 2 { Outcome::Ok } else { Outcome::Unknown }
            }
            Ok(None) => Outcome::Refused("not_ready".to_owned()),
            Err(_) => Outcome::Unknown,
        })
    }

    /// The documents, or `None` before the draw.
    fn ask_winners(&mut self) -> io::Result<Option<Vec<String>>> {
        match self.dialect {
            Dialect::Counted => {
                let answer = self.line.ask_counted(&format!("GET_WINNERS|{}", self.id))?;
                match answer.as_str() {
                    "ERROR_LOTTERY_HASNT_ENDED" | "ERROR_BUSY" => Ok(None),
                    refused if refused.starts_with("ERROR_") => Err(io::Error::other(answer)),
                    lines => Ok(Some(
                        lines.lines().filter_map(|line| Some(line.split('|').nth(2)?.to_owned())).collect(),
                    )),
                }
            }
            Dialect::Placed | Dialect::Framed => self.ask_pages(),
        }
    }

    fn ask_pages(&mut self) -> io::Result<Option<Vec<String>>> {
        let mut documents = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let request = format!("GET_WINNERS|{}|{after}", self.id);
            let answer = self.line.ask_framed(&frame(&request))?;
            let Some((page, next)) = answer.strip_prefix("WINNERS|OK|").and_then(|rest| rest.split_once('|'))
            else {
                let passing = answer == "WINNERS|ERR|not_ready" || is_passing(&answer);
                return if passing { Ok(None) } else { Err(io::Error::other(answer)) };
            };
            documents.extend(page.split(',').filter(|document| !document.is_empty()).map(str::to_owned));
            if next.is_empty() {
                return Ok(Some(documents));
            }
            after = next.to_owned();
        }
    }

    /// Nobody bets after the draw: the refusal is a part of the history.
    fn bet_after_the_draw(&mut self) {
        let rows = [self.make_row()];
        let outcome = match self.dialect {
            Dialect::Counted => outcome_of(self.line.ask_counted(&format!("{}|{}", rows[0], self.id)), "ACK"),
            _ => {
                let request = batch_of(&format!("BATCH|{}|1", self.id), &rows);
                outcome_of(self.line.ask_framed(&request), "ACK_BATCH|OK|1")
            }
        };
        if outcome == Outcome::Ok {
            self.history.violation(format!("agency {}: a bet after the draw was acknowledged", self.id));
        }
        self.history.batch(self.id, &rows, outcome);
    }

    /// Tries until it is acknowledged, and counts that. Answers whether it was: once
    /// the history is violated, trying on only hides that.
    fn until_ok(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Outcome) -> bool {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let outcome = attempt(self);
            if outcome == Outcome::Ok {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            if self.history.is_violated() {
                return false;
            }
            assert!(Instant::now() < give_up_at, "agency {}: {what}: {outcome:?} for {PATIENCE:?}", self.id);
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Without this an agency that may not repeat a batch would spend all of them on
    /// a dead server.
    fn wait_for_the_server(&mut self) {
        let id = self.id;
        wait_for("the server's return", || match self.dialect {
            Dialect::Counted => TcpStream::connect(self.line.server).ok().map(drop),
            _ => match self.line.ask_framed(&frame("STATUS")) {
                Ok(answer) if answer.starts_with("STATUS|OK|") => Some(()),
                Ok(answer) if is_passing(&answer) => None,
                Ok(answer) => panic!("agency {id}: {answer}"),
                Err(_) => None,
            },
        });
    }

    /// A valid batch may be refused only for what passes by itself.
    fn refuse_only_for_now(&mut self, outcome: &Outcome) {
        if let Outcome::Refused(answer) = outcome
            && !is_passing(answer)
        {
            self.history.violation(format!("agency {}: {answer}", self.id));
        }
    }
}

fn is_passing(answer: &str) -> bool {
    ["busy", "storage_full", "unavailable", "ERROR_BUSY"].iter().any(|reason| answer.ends_with(reason))
}

fn outcome_of(answer: io::Result<String>, ok: &str) -> Outcome {
    match answer {
        Ok(answer) if answer == ok => Outcome::Ok,
        Ok(answer) => Outcome::Refused(answer),
        Err(_) => Outcome::Unknown,
    }
}

/// One frame: the line's length as four bytes, and the line.
pub fn frame(line: &str) -> Vec<u8> {
    let mut frame = (line.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(line.as_bytes());
    frame
}

/// A batch: its header and its rows, each a frame.
pub fn batch_of(header: &str, rows: &[String]) -> Vec<u8> {
    let mut request = frame(header);
    request.extend(rows.iter().flat_map(|row| frame(row)));
    request
}

/// A connection that is opened again whenever it breaks. After a failure it is never used
/// again, because a late reply must not be taken for the reply to the next request.
pub struct Line {
    server: SocketAddr,
    stream: Option<TcpStream>,
}

impl Line {
    pub fn new(server: SocketAddr) -> Self {
        Self { server, stream: None }
    }

    /// Sends frames, and reads one frame without its line end.
    pub fn ask_framed(&mut self, request: &[u8]) -> io::Result<String> {
        self.on_stream(|stream| {
            stream.write_all(request)?;
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let answer = read_text(stream, u32::from_be_bytes(length) as usize)?;
            Ok(answer.trim_end_matches('\n').to_owned())
        })
    }

    /// Sends one counted payload, and reads one.
    pub fn ask_counted(&mut self, payload: &str) -> io::Result<String> {
        self.on_stream(|stream| {
            stream.write_all(format!("{}\n{payload}", payload.len()).as_bytes())?;
            let mut length = 0;
            loop {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                match byte[0] {
                    b'\n' => break,
                    digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
                    other => {
                        return Err(io::Error::new(ErrorKind::InvalidData, format!("{other} in a length")));
                    }
                }
            }
            read_text(stream, length)
        })
    }

    fn on_stream<T>(&mut self, talk: impl FnOnce(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.server)?,
        };
        let result = talk(&mut stream)?;
        self.stream = Some(stream);
        Ok(result)
    }
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_text(stream: &mut TcpStream, bytes: usize) -> io::Result<String> {
    let mut text = vec![0; bytes];
    stream.read_exact(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}
