//! A whole agency in the framed dialect: its file is stored exactly once, whatever breaks
//! in between, then it is done, then it waits for its winners.

use std::io;
use std::path::Path;

use sorteo_protocol::wire::{FRAME_BYTES_MAX, Reason, Reply, Request};
use sorteo_protocol::{AgencyId, Batch, DrawId, UploadPosition};

use crate::backoff::Backoff;
use crate::file::{Batches, Scan};
use crate::{AgencyError, Client, ClientOptions, Event};

/// One agency's upload.
#[derive(Debug)]
pub struct Upload {
    client: Client,
    agency: AgencyId,
    draw: DrawId,
    scan: Scan,
}

impl Upload {
    /// Checks the whole file, then finds out which draw the server takes bets for. The
    /// upload belongs to that draw.
    ///
    /// # Errors
    ///
    /// Where the file is malformed or the server cannot be reached; nothing was sent.
    pub fn start(options: ClientOptions, agency: AgencyId, path: &Path) -> Result<Self, AgencyError> {
        let scan = Scan::of(path, options.allow_empty)?;
        let mut client = Client::new(options);
        let draw = client.status()?.draw;
        client.stay_in(draw);
        Ok(Self { client, agency, draw, scan })
    }

    /// How many bets the file has.
    pub fn bets(&self) -> u64 {
        self.scan.rows
    }

    /// Sends what is not stored yet, in batches of at most `batch_max` bets.
    ///
    /// A batch whose reply was lost is repeated; its position in the upload makes that
    /// harmless. The server may hold other rows of the upload than it acknowledged to
    /// this client: fewer, if its database was restored (`gap`), or rows cut into other
    /// batches, if another sender of the same file was ahead (`conflict`). The upload is
    /// named after its rows, so in both cases it resumes from what the server has.
    ///
    /// # Errors
    ///
    /// Where the file changed, the server cannot be reached or refuses, or the next draw
    /// was opened. What was acknowledged stays stored; calling this again resumes.
    pub fn send(&mut self, path: &Path, batch_max: usize) -> Result<(), AgencyError> {
        let (mut backoff, mut furthest) = (None, 0);
        loop {
            let mut reached = 0;
            let reason = match self.send_from_next_row(path, batch_max, &mut reached) {
                Err(AgencyError::Refused {
                    reason: reason @ (Reason::Gap { .. } | Reason::Conflict),
                    ..
                }) => reason,
                result => return result,
            };
            if reached > furthest {
                (backoff, furthest) = (None, reached);
            }
            let options = self.client.options();
            let backoff = backoff.get_or_insert_with(|| Backoff::new(options));
            if !backoff.pause(options, &io::Error::other(reason.to_string())) {
                return Err(AgencyError::Refused { what: "BATCH", reason });
            }
        }
    }

    /// Sends what the server has not got; `reached` becomes the rows that are stored.
    fn send_from_next_row(
        &mut self,
        path: &Path,
        batch_max: usize,
        reached: &mut u64,
    ) -> Result<(), AgencyError> {
        // Rows are counted anew in each draw: in the next one, these would start at 0.
        self.client.require_newest(self.draw)?;
        let (upload, total) = (&self.scan.upload, self.scan.rows);
        let mut stored = self.client.next_row(self.agency, upload.clone())?;
        let mut batches = Batches::open(path, &self.scan, batch_max, FRAME_BYTES_MAX)?;
        batches.skip(stored)?;
        *reached = stored;
        self.client.options().observer.report(&Event::Resumed { stored, total });
        while let Some(batch) = batches.next_batch()? {
            let bets = batch.len() as u64;
            let position = Some(UploadPosition { upload: upload.clone(), first_row: stored, draw: None });
            let request = Request::Batch(Batch { agency: self.agency, bets: batch, position });
            match self.client.call(&request)? {
                Reply::Batch { result: Ok(()), .. } => {}
                other => return Err(self.client.refused("BATCH", &other)),
            }
            stored += bets;
            *reached = stored;
            self.client.options().observer.report(&Event::Stored { bets, stored, total });
        }
        Ok(())
    }

    /// Says that the agency is done, and how many bets it sent: the server records it
    /// only if it holds as many.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses, with `count_mismatch` where it
    /// holds another number of bets.
    pub fn done(&mut self) -> Result<(), AgencyError> {
        self.client.done(self.agency, Some(self.scan.rows))
    }

    /// Waits for the draw, then returns the winning documents in stored order.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses.
    pub fn wait_winners(&mut self) -> Result<Vec<String>, AgencyError> {
        // Winners can be asked of any draw.
        self.client.leave();
        self.client.wait_winners(self.agency, self.draw)
    }
}
