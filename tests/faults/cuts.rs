//! A connection is cut at every byte of a request and of its reply. Then the agency does
//! what its dialect allows: ask where to continue, send again, or give up.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};

use crate::crowd::{Line, batch_of, frame};
use crate::history::{History, Outcome};
use crate::observed::conclude;
use crate::program::Program;
use crate::proxy::{Close, Proxy, Route, Treatment};
use crate::workplace::{Run, count};

/// Bets in each batch: a request of about 200 bytes.
const BATCH_BETS: u64 = 3;
/// A batch of which so few bytes of the answer arrive wins: stored, and so few that
/// an agency's winners fit a short answer.
const WINNING_CUTS: usize = 3;
const WINNING_NUMBER: u32 = 7574;
const LOSING_NUMBER: u32 = 1234;
const PLACED: u32 = 1;
const FRAMED: u32 = 2;
const COUNTED: u32 = 3;
/// The first of the agencies that only say that they are done.
const FIRST_CLOSING: u32 = 4;

/// Where a connection is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    side: Side,
    after: usize,
    by: Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// So many bytes of the request reach the server.
    Request,
    /// So many bytes of the answer reach the agency.
    Answer,
}

impl Cut {
    fn route(self) -> Route {
        let cut = Treatment::Cut { after: self.after, by: self.by };
        match self.side {
            Side::Request => Route { to_server: cut, to_client: Treatment::Pass },
            Side::Answer => Route { to_server: Treatment::Pass, to_client: cut },
        }
    }

    fn number(self) -> u32 {
        if self.side == Side::Answer && self.after < WINNING_CUTS { WINNING_NUMBER } else { LOSING_NUMBER }
    }

    /// What became of a request of so many bytes, without looking at the database:
    /// what has not arrived whole is not carried out, what is answered has been.
    fn outcome(self, request: usize) -> Outcome {
        match self.side {
            Side::Request if self.after < request => Outcome::Refused(format!("{self:?}")),
            Side::Request => Outcome::Unknown,
            Side::Answer => Outcome::Ok,
        }
    }
}

/// Bytes of an exchange as it travels.
struct Exchange {
    request: usize,
    answer: usize,
}

/// Cuts an exchange, whose size it finds out first, at every offset in both ways.
fn at_every_byte(mut exchange: impl FnMut(Cut) -> Exchange) {
    for by in [Close::Fin, Close::Reset] {
        for side in [Side::Request, Side::Answer] {
            for after in 0.. {
                let sizes = exchange(Cut { side, after, by });
                count("connections cut at a byte", 1);
                let bytes = if side == Side::Request { sizes.request } else { sizes.answer };
                if after >= bytes {
                    break;
                }
            }
        }
    }
}

/// See the module.
pub fn cut_at_every_byte(run: &Run) {
    for workplace in run.rounds(1) {
        let server = Program::new(&workplace).start();
        let mut agencies = Agencies::new(server.address);
        agencies.send_placed_batches();
        agencies.send_framed_batches();
        agencies.send_counted_batches();
        agencies.resume_everywhere();
        agencies.close_framed();
        agencies.close_counted();
        agencies.make_the_draw();
        agencies.read_winners();
        let verdict = conclude(server, &agencies.history, &workplace);
        assert!(verdict.refused > 0 && verdict.acknowledged > 0, "{verdict:?}");
    }
}

/// Agencies that may do one thing after the other.
struct Agencies {
    server: SocketAddr,
    proxy: Proxy,
    routes: Sender<Route>,
    /// A connection that is never cut.
    line: Line,
    history: History,
    batches: u64,
    /// How many agencies are done.
    done: u64,
    placed_rows: u64,
    next_closing: u32,
}

impl Agencies {
    fn new(server: SocketAddr) -> Self {
        let (routes, next_route) = mpsc::channel();
        let proxy = Proxy::start(server, move || next_route.recv().expect("a route for each connection"));
        Self {
            server,
            proxy,
            routes,
            line: Line::new(server),
            history: History::default(),
            batches: 0,
            done: 0,
            placed_rows: 0,
            next_closing: FIRST_CLOSING,
        }
    }

    /// Rows that were never sent before, all of the same length.
    fn rows(&mut self, number: u32) -> Vec<String> {
        self.batches += 1;
        let document = |row| self.batches * BATCH_BETS + row + 10_000_000;
        (0..BATCH_BETS).map(|row| format!("Ana|Paz|{}|1999-03-17|{number}", document(row))).collect()
    }

    /// One conversation on a connection that is cut.
    fn cut<T>(&self, cut: Cut, talk: impl FnOnce(&mut Line) -> io::Result<T>) -> io::Result<T> {
        self.routes.send(cut.route()).unwrap();
        talk(&mut Line::new(self.proxy.address))
    }

    #[track_caller]
    fn ask(&mut self, request: &[u8]) -> String {
        self.line.ask_framed(request).expect("this connection is not cut")
    }

    /// Exactly once: the batch is sent again, with or without asking where to go
    /// on, and afterwards other rows have no place there.
    fn send_placed_batches(&mut self) {
        at_every_byte(|cut| {
            let (rows, first_row) = (self.rows(cut.number()), self.placed_rows);
            let header = format!("BATCH|{PLACED}|{BATCH_BETS}|caja|{first_row}");
            let request = batch_of(&header, &rows);
            let expected = format!("ACK_BATCH|OK|{BATCH_BETS}");
            if let Ok(answer) = self.cut(cut, |line| line.ask_framed(&request)) {
                assert_eq!(answer, expected, "{cut:?}");
            }
            let outcome = cut.outcome(request.len());
            if cut.after.is_multiple_of(2) {
                self.resume_at(first_row, &outcome, cut);
            }
            self.history.batch(PLACED, &rows, outcome);
            assert_eq!(self.ask(&request), expected, "{cut:?}");
            self.history.batch(PLACED, &rows, Outcome::Ok);
            let others = self.rows(cut.number());
            let refusal = self.ask(&batch_of(&header, &others));
            assert_eq!(refusal, format!("ACK_BATCH|ERR|{BATCH_BETS}|conflict"), "{cut:?}");
            self.history.batch(PLACED, &others, Outcome::Refused(refusal));
            self.placed_rows += BATCH_BETS;
            Exchange { request: request.len(), answer: frame(&expected).len() + 1 }
        });
    }

    /// The upload goes on where the batch's fate says, as far as that is known.
    fn resume_at(&mut self, first_row: u64, outcome: &Outcome, cut: Cut) {
        let answer = self.ask(&frame(&format!("RESUME|{PLACED}|caja")));
        let behind = format!("RESUME|OK|{}", first_row + BATCH_BETS);
        let before = format!("RESUME|OK|{first_row}");
        match outcome {
            Outcome::Ok => assert_eq!(answer, behind, "{cut:?}"),
            Outcome::Refused(_) => assert_eq!(answer, before, "{cut:?}"),
            Outcome::Unknown => assert!([before, behind].contains(&answer), "{cut:?}: {answer}"),
        }
    }

    fn send_framed_batches(&mut self) {
        at_every_byte(|cut| {
            let rows = self.rows(cut.number());
            let request = batch_of(&format!("BATCH|{FRAMED}|{BATCH_BETS}"), &rows);
            let expected = format!("ACK_BATCH|OK|{BATCH_BETS}");
            if let Ok(answer) = self.cut(cut, |line| line.ask_framed(&request)) {
                assert_eq!(answer, expected, "{cut:?}");
            }
            self.history.batch(FRAMED, &rows, cut.outcome(request.len()));
            Exchange { request: request.len(), answer: frame(&expected).len() + 1 }
        });
    }

    fn send_counted_batches(&mut self) {
        at_every_byte(|cut| {
            let rows = self.rows(cut.number());
            let lines: Vec<String> = rows.iter().map(|row| format!("{row}|{COUNTED}")).collect();
            let payload = lines.join("\n");
            if let Ok(answer) = self.cut(cut, |line| line.ask_counted(&payload)) {
                assert_eq!(answer, "ACK", "{cut:?}");
            }
            let request = counted_bytes(&payload);
            self.history.batch(COUNTED, &rows, cut.outcome(request));
            Exchange { request, answer: counted_bytes("ACK") }
        });
    }

    fn resume_everywhere(&mut self) {
        let request = frame(&format!("RESUME|{PLACED}|caja"));
        let expected = format!("RESUME|OK|{}", self.placed_rows);
        self.read_everywhere(&request, &expected);
    }

    /// A framed question about what does not change: asked again, it has the same answer.
    fn read_everywhere(&mut self, request: &[u8], expected: &str) {
        at_every_byte(|cut| {
            if let Ok(answer) = self.cut(cut, |line| line.ask_framed(request)) {
                assert_eq!(answer, expected, "{cut:?}");
            }
            assert_eq!(self.ask(request), expected, "{cut:?}");
            Exchange { request: request.len(), answer: frame(expected).len() + 1 }
        });
    }

    fn close_framed(&mut self) {
        at_every_byte(|cut| {
            let agency = self.next_agency();
            let request = frame(&format!("DONE|{agency}|{BATCH_BETS}"));
            self.open_until_done(agency, cut.outcome(request.len()), |agencies| {
                let _ = agencies.cut(cut, |line| line.ask_framed(&request));
            });
            assert_eq!(self.ask(&request), "ACK_DONE|OK", "{cut:?}");
            self.note_done(agency, cut);
            Exchange { request: request.len(), answer: frame("ACK_DONE|OK").len() + 1 }
        });
    }

    fn close_counted(&mut self) {
        let not_yet = "ERROR_LOTTERY_HASNT_ENDED";
        at_every_byte(|cut| {
            let agency = self.next_agency();
            let question = format!("GET_WINNERS|{agency}");
            let request = counted_bytes(&question);
            self.open_until_done(agency, cut.outcome(request), |agencies| {
                let _ = agencies.cut(cut, |line| line.ask_counted(&question));
            });
            let answer = Line::new(self.server).ask_counted(&question);
            assert_eq!(answer.expect("this connection is not cut"), not_yet, "{cut:?}");
            self.note_done(agency, cut);
            Exchange { request, answer: counted_bytes(not_yet) }
        });
    }

    fn next_agency(&mut self) -> u32 {
        self.next_closing += 1;
        self.next_closing - 1
    }

    /// An agency whose end may have arrived bets once: before it has said so, if
    /// it cannot have arrived whole the server takes that bet also afterwards.
    fn open_until_done(&mut self, agency: u32, outcome: Outcome, say_done: impl FnOnce(&Self)) {
        let arrived = !matches!(outcome, Outcome::Refused(_));
        let rows = self.rows(LOSING_NUMBER);
        if arrived {
            self.send_whole(agency, &rows, "OK|3");
        }
        say_done(self);
        if !arrived {
            self.send_whole(agency, &rows, "OK|3");
        }
        if outcome == Outcome::Ok {
            let late = self.rows(LOSING_NUMBER);
            self.send_whole(agency, &late, "ERR|3|agency_done");
        }
    }

    fn send_whole(&mut self, agency: u32, rows: &[String], expected: &str) {
        let answer = self.ask(&batch_of(&format!("BATCH|{agency}|{BATCH_BETS}"), rows));
        assert_eq!(answer, format!("ACK_BATCH|{expected}"), "agency {agency}");
        let outcome = if expected.starts_with("OK") { Outcome::Ok } else { Outcome::Refused(answer) };
        self.history.batch(agency, rows, outcome);
    }

    /// This agency is done, and no other that has not been told so: half of its
    /// name is another agency's.
    fn note_done(&mut self, agency: u32, cut: Cut) {
        self.history.done(agency, Some(BATCH_BETS));
        self.done += 1;
        let status = self.ask(&frame("STATUS"));
        let done: u64 = status.split('|').nth(4).and_then(|done| done.parse().ok()).expect("a status");
        assert_eq!(done, self.done, "{cut:?}: {status}");
    }

    /// All agencies up to the highest are done: it is due.
    fn make_the_draw(&mut self) {
        for agency in [PLACED, FRAMED, COUNTED] {
            assert_eq!(self.ask(&frame(&format!("DONE|{agency}"))), "ACK_DONE|OK");
            self.history.done(agency, None);
        }
    }

    fn read_winners(&mut self) {
        for agency in [PLACED, FRAMED] {
            let request = frame(&format!("GET_WINNERS|{agency}|0"));
            let expected = self.ask(&request);
            let documents = expected.strip_prefix("WINNERS|OK|").and_then(|rest| rest.strip_suffix('|'));
            let documents = documents.expect("one page").split(',').map(str::to_owned).collect();
            self.history.winners(agency, documents);
            self.read_everywhere(&request, &expected);
        }
        self.read_counted_winners();
    }

    fn read_counted_winners(&mut self) {
        let question = format!("GET_WINNERS|{COUNTED}");
        let mut line = Line::new(self.server);
        let expected = line.ask_counted(&question).expect("this connection is not cut");
        let documents = expected.lines().filter_map(|line| Some(line.split('|').nth(2)?.to_owned()));
        self.history.winners(COUNTED, documents.collect());
        at_every_byte(|cut| {
            if let Ok(answer) = self.cut(cut, |line| line.ask_counted(&question)) {
                assert_eq!(answer, expected, "{cut:?}");
            }
            let again = line.ask_counted(&question);
            assert_eq!(again.expect("this connection is not cut"), expected, "{cut:?}");
            Exchange { request: counted_bytes(&question), answer: counted_bytes(&expected) }
        });
    }
}

/// Bytes of a counted message: its length's digits, the line end, the payload.
fn counted_bytes(payload: &str) -> usize {
    payload.len().to_string().len() + 1 + payload.len()
}
