//! One agency whose every step a test controls: batches at their positions, and that it is
//! done.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

use crate::crowd::{Line, batch_of, frame};
use crate::history::{History, Outcome, Verdict};

/// The only agency, and its upload's name.
const AGENCY: u32 = 1;
const UPLOAD: &str = "caja";

/// What the agency does, step by step, and which replies it got.
pub struct Upload {
    server: SocketAddr,
    line: Line,
    history: History,
    batches: u64,
    rows: u64,
}

impl Upload {
    /// So many batches of so many rows.
    pub fn new(server: SocketAddr, batches: u64, rows: u64) -> Self {
        Self { server, line: Line::new(server), history: History::default(), batches, rows }
    }

    /// Its steps: each batch, and that it is done.
    pub fn steps(&self) -> impl Iterator<Item = u64> + use<> {
        0..=self.batches
    }

    /// Tries one step once; returns the reply.
    pub fn attempt(&mut self, step: u64) -> io::Result<String> {
        if step == self.batches {
            return self.say_done();
        }
        let rows = self.rows_of(step);
        let header = format!("BATCH|{AGENCY}|{}|{UPLOAD}|{}", self.rows, step * self.rows);
        let answer = self.line.ask_framed(&batch_of(&header, &rows));
        let outcome = match &answer {
            Ok(answer) if *answer == self.acknowledgement(step) => Outcome::Ok,
            Ok(refusal) => Outcome::Refused(refusal.clone()),
            Err(_) => Outcome::Unknown,
        };
        self.history.batch(AGENCY, &rows, outcome);
        answer
    }

    fn rows_of(&self, batch: u64) -> Vec<String> {
        (0..self.rows).map(|row| make_row(batch * self.rows + row)).collect()
    }

    fn say_done(&mut self) -> io::Result<String> {
        let bets = self.batches * self.rows;
        let answer = self.line.ask_framed(&frame(&format!("DONE|{AGENCY}|{bets}")))?;
        if answer == self.acknowledgement(self.batches) {
            self.history.done(AGENCY, Some(bets));
        }
        Ok(answer)
    }

    /// What a step is answered if it is carried out.
    pub fn acknowledgement(&self, step: u64) -> String {
        match step < self.batches {
            true => format!("ACK_BATCH|OK|{}", self.rows),
            false => "ACK_DONE|OK".to_owned(),
        }
    }

    /// Takes the steps in order until one is not answered; answers which that was.
    /// Every answer must be a success.
    pub fn until_silence(&mut self) -> Option<u64> {
        self.steps().find(|step| match self.attempt(*step) {
            Ok(answer) => {
                assert_eq!(answer, self.acknowledgement(*step), "step {step}");
                false
            }
            Err(error) => {
                let silent = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
                assert!(!silent, "step {step}: the connection was left open without an answer");
                true
            }
        })
    }

    /// Whether this step holds, says the server that has come back: by the upload's
    /// next row, or by telling of the draw. What it says is a part of the history.
    pub fn holds(&mut self, step: u64) -> bool {
        self.line = Line::new(self.server);
        if step == self.batches {
            return self.read_winners();
        }
        let answer = self.line.ask_framed(&frame(&format!("RESUME|{AGENCY}|{UPLOAD}"))).unwrap();
        let next_row: u64 = answer.strip_prefix("RESUME|OK|").expect("an answer").parse().unwrap();
        assert!([step, step + 1].map(|step| step * self.rows).contains(&next_row), "{answer} at step {step}");
        let holds = next_row > step * self.rows;
        if holds {
            self.history.batch(AGENCY, &self.rows_of(step), Outcome::Ok);
        }
        holds
    }

    /// Takes all steps from this one on with another server than before; all are
    /// acknowledged, and the draw is made.
    pub fn finish_from(&mut self, step: u64) {
        self.line = Line::new(self.server);
        for step in step..=self.batches {
            let answer = self.attempt(step).unwrap();
            assert_eq!(answer, self.acknowledgement(step), "step {step}");
        }
        assert!(self.read_winners(), "all are done, and there is no draw");
    }

    /// Whether the draw is made; its winners, if so, are a part of the history.
    fn read_winners(&mut self) -> bool {
        let answer = self.line.ask_framed(&frame(&format!("GET_WINNERS|{AGENCY}"))).unwrap();
        match answer.strip_prefix("WINNERS|OK|") {
            Some(documents) => {
                let documents = documents.split(',').filter(|document| !document.is_empty());
                self.history.winners(AGENCY, documents.map(str::to_owned).collect());
                true
            }
            None => {
                assert_eq!(answer, "WINNERS|ERR|not_ready");
                false
            }
        }
    }

    /// Compares the replies with the database.
    #[track_caller]
    pub fn hold_against(&self, database: &Path) -> Verdict {
        self.history.hold_against(database)
    }
}

/// No two rows are alike; one in a thousand wins, and the first does.
fn make_row(row: u64) -> String {
    let number = if row.is_multiple_of(1_000) { 7574 } else { 1 };
    format!("Ana {row}|Paz|{}|1999-03-17|{number}", 10_000_000 + row)
}
