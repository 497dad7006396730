//! A whole agency in the framed dialect: its file is stored exactly once, whatever breaks
//! in between, then it is done, then it waits for its winners.

use std::path::Path;

use sorteo_protocol::wire::{Dialect, Reason, Reply, Request, encode_request};
use sorteo_protocol::{AgencyId, Batch, Bets, DrawId, UploadPosition};

use crate::backoff::Backoff;
use crate::file::{Batches, Scan};
use crate::window::Window;
use crate::{AgencyError, Client, ClientOptions, Event, ExchangeError, REPLY_TIMEOUT};

/// Bets in a batch where nothing asks for another number: larger ones are hardly faster
/// (docs/performance.md, "One upload"), and others wait longer behind each.
pub const BATCH_BETS: usize = 1_000;

/// Most bytes of a batch, so that it needs little memory on either side: 1,000 of the longest
/// bets fit, or 5,000 of usual length.
const BATCH_BYTES_MAX: usize = 320 << 10;

/// One agency's upload.
#[derive(Debug)]
pub struct Upload {
    client: Client,
    agency: AgencyId,
    draw: DrawId,
    scan: Scan,
    /// Rows of it that the server had when it last said so.
    stored: u64,
}

impl Upload {
    /// Checks the whole file, then finds out which draw the server takes bets for. The
    /// upload belongs to that draw, or to the one that the options name.
    ///
    /// # Errors
    ///
    /// Where the file is malformed, or the server cannot be reached or is of another version
    /// than this client; nothing was sent.
    pub fn start(options: ClientOptions, agency: AgencyId, path: &Path) -> Result<Self, AgencyError> {
        let scan = Scan::of(path, options.allow_empty)?;
        let mut client = Client::new(options);
        let newest = client.newest_draw()?;
        let draw = client.options().draw.unwrap_or(newest);
        Ok(Self { client, agency, draw, scan, stored: 0 })
    }

    /// How many bets the file has.
    pub fn bets(&self) -> u64 {
        self.scan.rows
    }

    /// Sends what is not stored yet, in batches of at most `batch_max` bets, of which
    /// several are in flight: see [`WindowLimits`](crate::WindowLimits).
    ///
    /// After the first failure, whatever it is, nothing of what is in flight behind it
    /// counts: the server refuses it as a gap, or nobody knows. So the connection ends, and
    /// the next one resumes from what the server has, in batches that are cut anew: the
    /// upload is named after its rows, and a batch that was stored is not stored again. The
    /// server may also hold other rows than it acknowledged to this client: fewer, if its
    /// database was restored (`gap`), or rows cut into other batches, if another sender of
    /// the same file was ahead (`conflict`). Where the server takes smaller batches only
    /// (`too_many`), they are halved until it takes them: no request tells its limit.
    ///
    /// # Errors
    ///
    /// Where the file changed, the server cannot be reached or refuses, or the next draw
    /// was opened. What was acknowledged stays stored; calling this again resumes.
    pub fn send(&mut self, path: &Path, mut batch_max: usize) -> Result<(), AgencyError> {
        let mut backoff = Backoff::new(self.client.options());
        while let Err(error) = self.send_rest(path, batch_max, &mut backoff) {
            self.client.disconnect();
            let is_too_large = matches!(error, AgencyError::Refused { reason: Reason::TooMany, .. });
            if is_too_large && batch_max > 1 {
                batch_max /= 2;
            } else if !self.pause_after(&error, &mut backoff) {
                return Err(self.other_draw(&error).unwrap_or(error));
            }
        }
        Ok(())
    }

    /// Sends what the server has not got, on one connection.
    fn send_rest(&mut self, path: &Path, batch_max: usize, backoff: &mut Backoff) -> Result<(), AgencyError> {
        self.resume(backoff)?;
        let mut batches = Batches::open(path, &self.scan, batch_max, BATCH_BYTES_MAX)?;
        batches.skip(self.stored)?;
        let mut window = Window::new(self.client.options().window);
        let mut next_row = self.stored;
        loop {
            while window.has_room()
                && let Some(bets) = batches.next_batch()?
            {
                let count = bets.len() as u64;
                let bytes = self.encode_batch(bets, next_row);
                window.push(count, bytes.len());
                let sent = self.client.send(&bytes, backoff.timeout(REPLY_TIMEOUT));
                while sent.is_err() && !window.is_empty() {
                    // What the server replied before it closed says why.
                    self.receive(&mut window, backoff)?;
                }
                sent.map_err(|error| self.lost(error))?;
                next_row += count;
            }
            if window.is_empty() {
                return Ok(());
            }
            self.receive(&mut window, backoff)?;
        }
    }

    /// Finds out what the server has.
    fn resume(&mut self, backoff: &mut Backoff) -> Result<(), AgencyError> {
        let (agency, upload, draw) = (self.agency, self.scan.upload.clone(), Some(self.draw));
        let [reply] = self.client.call_all([&Request::Resume { agency, upload, draw }], backoff)?;
        let Reply::Resume(Ok(stored)) = reply else {
            return Err(self.client.refused("RESUME", &reply));
        };
        if stored > self.scan.rows {
            return Err(self.client.protocol_error(format!("RESUME|OK|{stored}")));
        }
        self.set_stored(stored, backoff);
        self.client.options().observer.report(&Event::Resumed { stored, total: self.scan.rows });
        Ok(())
    }

    fn encode_batch(&self, bets: Bets, first_row: u64) -> Vec<u8> {
        let (upload, draw) = (self.scan.upload.clone(), Some(self.draw));
        let position = Some(UploadPosition { upload, first_row, draw });
        let request = Request::Batch(Batch { agency: self.agency, bets, position });
        let mut bytes = Vec::new();
        encode_request(Dialect::Framed, &request, &mut bytes);
        bytes
    }

    /// Waits for the reply to the oldest batch in flight.
    fn receive(&mut self, window: &mut Window, backoff: &mut Backoff) -> Result<(), AgencyError> {
        match self.client.receive(backoff.timeout(REPLY_TIMEOUT)) {
            Ok(Reply::Batch { result: Ok(()), count }) if count == window.oldest() => {}
            Ok(other) => return Err(self.client.refused("BATCH", &other)),
            Err(error) => return Err(self.lost(error)),
        }
        let bets = window.acknowledge();
        self.set_stored(self.stored + bets, backoff);
        let (stored, total) = (self.stored, self.scan.rows);
        self.client.options().observer.report(&Event::Stored { bets, stored, total });
        Ok(())
    }

    /// Records how many rows the server has. More than it had are progress, and with it
    /// the time in which there must be some starts anew.
    fn set_stored(&mut self, stored: u64, backoff: &mut Backoff) {
        if stored > self.stored {
            *backoff = Backoff::new(self.client.options());
        }
        self.stored = stored;
    }

    /// Pauses where an upload may resume after this error, and returns whether it may.
    fn pause_after(&self, error: &AgencyError, backoff: &mut Backoff) -> bool {
        let may_resume = match error {
            AgencyError::Refused { reason, .. } => may_resume_after(reason),
            error => error.is_temporary(),
        };
        may_resume && backoff.pause_after(self.client.options(), error)
    }

    /// Returns the error that another draw is the newest, where that is why bets of this one
    /// were refused.
    fn other_draw(&mut self, error: &AgencyError) -> Option<AgencyError> {
        let AgencyError::Refused { reason: Reason::DrawClosed | Reason::AgencyDone, .. } = error else {
            return None;
        };
        let (draw, newest) = (self.draw, self.client.status().ok()?.draw);
        (newest != draw).then_some(AgencyError::OtherDraw { draw, newest })
    }

    fn lost(&self, error: ExchangeError) -> AgencyError {
        AgencyError::of_exchange(&self.client.options().server, error)
    }

    /// Says that the agency is done, and how many bets it sent: the server records it
    /// only if it holds as many.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses, with `count_mismatch` where it
    /// holds another number of bets.
    pub fn done(&mut self) -> Result<(), AgencyError> {
        self.client.done(self.agency, Some(self.scan.rows), self.draw)
    }

    /// Waits for the draw, then returns the winning documents in stored order.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses.
    pub fn wait_winners(&mut self) -> Result<Vec<String>, AgencyError> {
        self.client.wait_winners(self.agency, self.draw)
    }
}

/// Returns whether an upload goes on by itself after a batch was refused for this reason.
fn may_resume_after(reason: &Reason) -> bool {
    reason.is_temporary() || matches!(reason, Reason::Gap { .. } | Reason::Conflict)
}
