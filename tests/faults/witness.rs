//! An agency that must not be affected: whatever others do to the server, each of its
//! requests is answered and each of its batches is stored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crowd::{Line, batch_of, frame};
use crate::history::{History, Outcome};

/// See the module. It keeps one connection, which must never break.
pub struct Witness {
    id: u32,
    line: Line,
    history: Arc<History>,
    rows: u64,
}

impl Witness {
    /// Connects, and is served.
    pub fn new(id: u32, server: SocketAddr, history: &Arc<History>) -> Self {
        let mut witness = Self { id, line: Line::new(server), history: Arc::clone(history), rows: 0 };
        witness.resume();
        witness
    }

    /// Goes on with another server on the same database.
    pub fn reconnect(&mut self, server: SocketAddr) {
        self.line = Line::new(server);
        self.resume();
    }

    /// Sends a batch at its place; answers how long its acknowledgement took.
    pub fn send(&mut self, rows: u64) -> Duration {
        let first_row = self.rows;
        let rows: Vec<String> = (first_row..first_row + rows).map(|row| self.row(row)).collect();
        let header = format!("BATCH|{}|{}|testigo|{first_row}", self.id, rows.len());
        let sent_at = Instant::now();
        self.ask(&batch_of(&header, &rows), &format!("ACK_BATCH|OK|{}", rows.len()));
        let took = sent_at.elapsed();
        self.history.batch(self.id, &rows, Outcome::Ok);
        self.rows += rows.len() as u64;
        took
    }

    /// Every tenth wins.
    fn row(&self, row: u64) -> String {
        let number = if row.is_multiple_of(10) { 7574 } else { row % 7000 };
        format!("Ana|de Testigo|{}{row:07}|1999-03-17|{number}", self.id)
    }

    /// Asks where its upload goes on: behind all that it sent.
    pub fn resume(&mut self) {
        let expected = format!("RESUME|OK|{}", self.rows);
        self.ask(&frame(&format!("RESUME|{}|testigo", self.id)), &expected);
    }

    /// Says that all is sent.
    pub fn close(&mut self) {
        let rows = self.rows;
        self.ask(&frame(&format!("DONE|{}|{rows}", self.id)), "ACK_DONE|OK");
        self.history.done(self.id, Some(rows));
    }

    /// Asks for its winners after the draw.
    pub fn read_winners(&mut self) {
        let documents: Vec<String> =
            (0..self.rows).step_by(10).map(|row| format!("{}{row:07}", self.id)).collect();
        let expected = format!("WINNERS|OK|{}|", documents.join(","));
        self.ask(&frame(&format!("GET_WINNERS|{}|0", self.id)), &expected);
        self.history.winners(self.id, documents);
    }

    #[track_caller]
    fn ask(&mut self, request: &[u8], expected: &str) {
        let answer = self.line.ask_framed(request);
        assert_eq!(answer.expect("the witness is answered"), expected, "agency {}", self.id);
    }
}
