//! One request after the other in the framed dialect, reconnected and repeated until it
//! is answered.

use std::io;
use std::time::Duration;

use sorteo_protocol::wire::{Dialect, Reason, Reply, Request, Status, WAIT_MAX, Winners, encode_reply};
use sorteo_protocol::{AgencyId, DrawId, UploadId};

use crate::backoff::Backoff;
use crate::connection::CONNECT_TIMEOUT;
use crate::{AgencyError, ClientOptions, Connection, ExchangeError, REPLY_TIMEOUT};

/// Most winners of one agency that are read: more than the bets of any lottery that one
/// server can hold, and few enough to be kept in memory.
const WINNERS_MAX: usize = 10_000_000;
/// How long one `WAIT_WINNERS` waits: well below what a middlebox takes for dead.
const WAIT_EACH: Duration = Duration::from_secs(30);
const _: () = assert!(WAIT_EACH.as_millis() <= WAIT_MAX.as_millis());

/// A client that connects at its first request and reconnects whenever the connection
/// breaks.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    connection: Option<Connection>,
    /// The only draw that it may speak in, if there is one.
    draw: Option<DrawId>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(options: ClientOptions) -> Self {
        Self { options, connection: None, draw: None }
    }

    /// Its options.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// From here on, a new connection is used only while this draw is the newest: what
    /// is repeated after the next one was opened must not go into that one.
    pub(crate) fn stay_in(&mut self, draw: DrawId) {
        self.draw = Some(draw);
    }

    /// From here on, any draw may be the newest.
    pub(crate) fn leave(&mut self) {
        self.draw = None;
    }

    /// Fails where another draw than this is the newest.
    pub(crate) fn require_newest(&mut self, draw: DrawId) -> Result<(), AgencyError> {
        match self.status()?.draw {
            newest if newest == draw => Ok(()),
            newest => Err(AgencyError::OtherDraw { draw, newest }),
        }
    }

    /// Returns how the newest draw stands.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses: see [`AgencyError`].
    pub fn status(&mut self) -> Result<Status, AgencyError> {
        match self.call(&Request::Status)? {
            Reply::Status(Ok(status)) => Ok(status),
            other => Err(self.refused("STATUS", &other)),
        }
    }

    /// Returns the documents of an agency's winning bets in a draw, or in the newest, all
    /// pages; `None` before the draw.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses: see [`AgencyError`].
    pub fn winners(
        &mut self,
        agency: AgencyId,
        draw: Option<DrawId>,
    ) -> Result<Option<Vec<String>>, AgencyError> {
        // Pages are asked of one draw, even if the next one opens meanwhile.
        let draw = match draw {
            Some(draw) => draw,
            None => self.status()?.draw,
        };
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            match self.call(&Request::WinnersPage { agency, after, draw: Some(draw) })? {
                Reply::Winners(Ok(Winners::Page { documents, next })) => {
                    let is_endless = next.is_some_and(|next| next <= after || documents.is_empty());
                    all.extend(documents);
                    match next {
                        _ if is_endless || all.len() > WINNERS_MAX => {
                            return Err(self.protocol_error("pages of winners without end".to_owned()));
                        }
                        Some(next) => after = next,
                        None => return Ok(Some(all)),
                    }
                }
                Reply::Winners(Err(Reason::NotReady)) => return Ok(None),
                other => return Err(self.refused("GET_WINNERS", &other)),
            }
        }
    }

    /// Waits for a draw, then returns the documents of the agency's winning bets. The
    /// server replies when the draw takes place; nothing is polled while the connection
    /// holds.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses: see [`AgencyError`].
    pub fn wait_winners(&mut self, agency: AgencyId, draw: DrawId) -> Result<Vec<String>, AgencyError> {
        loop {
            if let Some(documents) = self.winners(agency, Some(draw))? {
                return Ok(documents);
            }
            match self.call(&Request::WaitWinners { agency, wait: WAIT_EACH, draw: None })? {
                // Drawn, or time to ask again: in both cases the pages say so.
                Reply::Winners(Ok(_) | Err(Reason::NotReady)) => {}
                other => return Err(self.refused("WAIT_WINNERS", &other)),
            }
        }
    }

    /// Says that an agency is done; with `bets`, the server records it only if it holds so
    /// many of the agency's bets. Repeating it changes nothing.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses, with `count_mismatch` where it holds
    /// another number of bets.
    pub fn done(&mut self, agency: AgencyId, bets: Option<u64>) -> Result<(), AgencyError> {
        match self.call(&Request::Done { agency, bets, draw: None })? {
            Reply::Done(Ok(())) => Ok(()),
            other => Err(self.refused("DONE", &other)),
        }
    }

    /// Returns the next row to send of an upload: 0 where none of it is stored.
    pub(crate) fn next_row(&mut self, agency: AgencyId, upload: UploadId) -> Result<u64, AgencyError> {
        match self.call(&Request::Resume { agency, upload, draw: None })? {
            Reply::Resume(Ok(next_row)) => Ok(next_row),
            other => Err(self.refused("RESUME", &other)),
        }
    }

    /// Sends a request until the reply is other than a temporary refusal.
    ///
    /// Only for requests that may be carried out twice: all but a batch without a
    /// position, and a single bet.
    pub(crate) fn call(&mut self, request: &Request) -> Result<Reply, AgencyError> {
        let mut backoff = Backoff::new(&self.options);
        loop {
            if self.connection.is_none()
                && let Some(draw) = self.draw.take()
            {
                // With no draw to stay in, this opens the connection that is used then.
                self.require_newest(draw)?;
                self.draw = Some(draw);
            }
            let failure = match self.exchange(request, &backoff) {
                Ok(reply) => match reply.refusal() {
                    Some(reason)
                        if reason.is_temporary()
                            && backoff.pause(&self.options, &io::Error::other(reason.to_string())) =>
                    {
                        continue;
                    }
                    _ => return Ok(reply),
                },
                Err(ExchangeError::Unexpected(answer)) => return Err(self.protocol_error(answer)),
                Err(ExchangeError::Lost(error)) => {
                    self.connection = None;
                    error
                }
            };
            if !backoff.pause(&self.options, &failure) {
                let server = self.options.server.clone();
                return Err(AgencyError::Unreachable { server, source: failure });
            }
        }
    }

    /// Returns the error of a reply that is not the one hoped for: a refusal, or a reply
    /// to another request.
    pub(crate) fn refused(&self, what: &'static str, reply: &Reply) -> AgencyError {
        match reply.refusal() {
            Some(reason) => AgencyError::Refused { what, reason: reason.clone() },
            None => {
                let mut bytes = Vec::new();
                encode_reply(Dialect::Framed, reply, &mut bytes);
                self.protocol_error(bytes.escape_ascii().to_string())
            }
        }
    }

    fn protocol_error(&self, answer: String) -> AgencyError {
        AgencyError::Protocol { server: self.options.server.clone(), answer }
    }

    fn exchange(&mut self, request: &Request, backoff: &Backoff) -> Result<Reply, ExchangeError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let timeout = backoff.timeout(CONNECT_TIMEOUT);
                none.insert(Connection::open(&self.options.server, Dialect::Framed, timeout)?)
            }
        };
        connection.exchange(request, backoff.timeout(REPLY_TIMEOUT))
    }
}
