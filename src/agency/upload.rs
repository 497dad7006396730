//! A whole agency in the framed dialect: its file is stored exactly once,
//! whatever breaks in between, then it is done, then it waits for its winners.

use std::path::Path;

use super::file::{self, Batches, Scan};
use super::{AgencyError, Backoff, Client, ClientOptions};
use crate::event;
use sorteo_protocol::wire::Request;
use sorteo_protocol::{AgencyId, Batch, DrawId, UploadPosition};

/// Told how many of how many rows are stored, as they are.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// One agency's upload.
#[derive(Debug)]
pub struct Upload {
    client: Client,
    options: ClientOptions,
    agency: AgencyId,
    draw: DrawId,
    scan: Scan,
}

impl Upload {
    /// Checks the file, then finds out which draw the server takes bets for.
    /// The whole upload belongs to that draw.
    pub fn start(options: ClientOptions, agency: AgencyId, path: &Path) -> Result<Self, AgencyError> {
        let scan = file::scan(path)?;
        let mut client = Client::new(options.clone());
        let draw = client.status()?.draw;
        client.stay_in(draw);
        Ok(Self { client, options, agency, draw, scan })
    }

    /// Bets in the file.
    pub fn bets(&self) -> u64 {
        self.scan.rows
    }

    /// Sends what is not stored yet, in batches of at most `batch_max` bets.
    ///
    /// The client repeats a batch whose answer got lost; the batch's place in
    /// the upload makes that harmless. The server may yet hold other rows of the
    /// upload than we were told: fewer, if its database was restored (`gap`), or
    /// the same cut in other batches, if another sender of this file was ahead
    /// (`conflict`). The upload is named after its rows, so in either case it goes
    /// on from what the server has.
    pub fn send(
        &mut self,
        path: &Path,
        batch_max: usize,
        progress: &mut Progress<'_>,
    ) -> Result<(), AgencyError> {
        let (mut backoff, mut furthest) = (None, 0);
        loop {
            let mut reached = 0;
            let result = self.send_from_next_row(path, batch_max, &mut |sent, all| {
                reached = sent;
                progress(sent, all);
            });
            let reason = match result {
                Err(AgencyError::Refused { reason, .. })
                    if reason.starts_with("gap") || reason == "conflict" =>
                {
                    reason
                }
                result => return result,
            };
            if reached > furthest {
                (backoff, furthest) = (None, reached);
            }
            let options = self.options.give_up_after;
            let backoff = backoff.get_or_insert_with(|| Backoff::new(options));
            if !backoff.pause(&std::io::Error::other(reason.clone())) {
                return Err(AgencyError::Refused { what: "BATCH", reason });
            }
        }
    }

    fn send_from_next_row(
        &mut self,
        path: &Path,
        batch_max: usize,
        progress: &mut Progress<'_>,
    ) -> Result<(), AgencyError> {
        // Rows are counted anew in each draw: those of this one would begin again there.
        self.client.require_newest(self.draw)?;
        let mut first_row = self.next_row()?;
        let mut batches = Batches::open(path, &self.scan, batch_max)?;
        batches.skip(first_row)?;
        progress(first_row, self.scan.rows);
        while let Some(bets) = batches.next_batch()? {
            let count = bets.len() as u64;
            let position = Some(UploadPosition { upload: self.scan.upload.clone(), first_row });
            let request = Request::Batch(Batch { agency: self.agency, bets, position });
            self.client.ask("BATCH", &request)?;
            event!(Info, "apuesta_enviada", Success, cantidad = count);
            first_row += count;
            progress(first_row, self.scan.rows);
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<u64, AgencyError> {
        let request = Request::Resume { agency: self.agency, upload: self.scan.upload.clone() };
        let fields = self.client.ask("RESUME", &request)?;
        let next_row = fields.first().and_then(|field| field.parse().ok());
        next_row.ok_or_else(|| self.client.protocol_error(&fields.join("|")))
    }

    /// Says that the agency is done, and how many bets it sent, so that the
    /// server closes nothing if it holds another number.
    pub fn done(&mut self) -> Result<(), AgencyError> {
        let request = Request::Done { agency: self.agency, bets: Some(self.scan.rows) };
        self.client.ask("DONE", &request).map(|_| ())
    }

    /// Waits for the draw, then answers the winning documents in stored order.
    pub fn wait_winners(&mut self) -> Result<Vec<String>, AgencyError> {
        // Winners can be asked of any draw.
        self.client.leave();
        let documents = self.client.wait_winners(self.agency, self.draw)?;
        event!(Info, "consulta_ganadores", Success, cant_ganadores = documents.len());
        Ok(documents)
    }
}
