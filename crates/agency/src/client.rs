//! One request after the other in the framed dialect, reconnected and repeated until it
//! is answered.

use std::io;
use std::time::Duration;

use sorteo_protocol::wire::{Dialect, Hello, Reason, Reply, Request, Status, WAIT_MAX, Winners};
use sorteo_protocol::{AgencyId, DrawId};

use crate::backoff::Backoff;
use crate::connection::{CONNECT_TIMEOUT, shown};
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
    /// Whether its files were of use once: then a bad one is being replaced.
    has_connected: bool,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(options: ClientOptions) -> Self {
        Self { options, connection: None, has_connected: false }
    }

    /// Its options.
    pub fn options(&self) -> &ClientOptions {
        &self.options
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
        let wait = WAIT_EACH.min(self.options.give_up_after / 2);
        loop {
            if let Some(documents) = self.winners(agency, Some(draw))? {
                return Ok(documents);
            }
            match self.call(&Request::WaitWinners { agency, wait, draw: Some(draw) })? {
                // Drawn, or time to ask again: in both cases the pages say so.
                Reply::Winners(Ok(_) | Err(Reason::NotReady)) => {}
                other => return Err(self.refused("WAIT_WINNERS", &other)),
            }
        }
    }

    /// Says that an agency is done in a draw; with `bets`, the server records it only if it
    /// holds so many of the agency's bets. Repeating it changes nothing.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses, with `count_mismatch` where it holds
    /// another number of bets.
    pub fn done(&mut self, agency: AgencyId, bets: Option<u64>, draw: DrawId) -> Result<(), AgencyError> {
        match self.call(&Request::Done { agency, bets, draw: Some(draw) })? {
            Reply::Done(Ok(())) => Ok(()),
            other => Err(self.refused("DONE", &other)),
        }
    }

    /// Returns the newest draw, of a server whose requests may name their draw.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached or refuses, and where it is of another version:
    /// [`AgencyError::OlderServer`], [`AgencyError::NewerServer`].
    pub fn newest_draw(&mut self) -> Result<DrawId, AgencyError> {
        let mut backoff = Backoff::new(&self.options);
        let [hello, status] = self.call_all([&Request::Hello, &Request::Status], &mut backoff)?;
        let server = || self.options.server.clone();
        match (hello, status) {
            (Reply::Hello(Ok(hello)), _) if hello.version != Hello::VERSION => {
                Err(AgencyError::NewerServer { server: server() })
            }
            (Reply::Hello(Ok(hello)), Reply::Status(Ok(status))) if hello.has(Hello::DRAWS) => {
                Ok(status.draw)
            }
            (Reply::Hello(Ok(_)) | Reply::Unrecognised(Reason::Unknown), Reply::Status(Ok(_))) => {
                Err(AgencyError::OlderServer { server: server() })
            }
            (Reply::Hello(Ok(_)), other) => Err(self.refused("STATUS", &other)),
            (other, _) => Err(self.refused("HELLO", &other)),
        }
    }

    /// Sends a request until the reply is other than a temporary refusal.
    ///
    /// Only for requests that may be carried out twice: all but a batch without a
    /// position, and a single bet.
    pub(crate) fn call(&mut self, request: &Request) -> Result<Reply, AgencyError> {
        let mut backoff = Backoff::new(&self.options);
        let [reply] = self.call_all([request], &mut backoff)?;
        Ok(reply)
    }

    /// Sends requests together, and all of them again until the reply to each is other than
    /// a temporary refusal, or the time is up.
    ///
    /// Only for requests as in [`Client::call`].
    pub(crate) fn call_all<const N: usize>(
        &mut self,
        requests: [&Request; N],
        backoff: &mut Backoff,
    ) -> Result<[Reply; N], AgencyError> {
        loop {
            match self.exchange(requests, backoff) {
                Ok(replies) => {
                    let temporary =
                        replies.iter().filter_map(Reply::refusal).find(|reason| reason.is_temporary());
                    let Some(reason) = temporary else { return Ok(replies) };
                    if !backoff.pause(&self.options, &io::Error::other(reason.to_string())) {
                        return Ok(replies);
                    }
                }
                Err(error) => {
                    let error = AgencyError::of_exchange(&self.options.server, error);
                    let may_pass = self.may_pass(&error);
                    // Replies behind it may be on their way.
                    self.disconnect();
                    if !may_pass || !backoff.pause_after(&self.options, &error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Returns whether another connection may succeed after this error. A token that the
    /// server refused may have been replaced since this connection read it.
    fn may_pass(&self, error: &AgencyError) -> bool {
        error.is_temporary()
            || (error.is_of_credential_file() && self.has_connected)
            || (error.is_of_token() && self.connection.as_ref().is_some_and(Connection::has_newer_token))
    }

    /// Sends the bytes of a request on the connection that there is, and waits for no reply:
    /// for an upload, which sends ahead.
    pub(crate) fn send(&mut self, request: &[u8], timeout: Duration) -> Result<(), ExchangeError> {
        self.connected()?.send(request, timeout)
    }

    /// Waits for the next reply on the connection that there is.
    pub(crate) fn receive(&mut self, timeout: Duration) -> Result<Reply, ExchangeError> {
        self.connected()?.receive(timeout)
    }

    fn connected(&mut self) -> io::Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Ends the connection, with all that is in flight on it.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Returns the error of a reply that is not the one hoped for: a refusal, or a reply
    /// to another request.
    pub(crate) fn refused(&self, what: &'static str, reply: &Reply) -> AgencyError {
        match reply.refusal() {
            Some(reason) => AgencyError::Refused { what, reason: reason.clone() },
            None => self.protocol_error(shown(reply)),
        }
    }

    /// Returns the error of what is no reply to any request.
    pub(crate) fn protocol_error(&self, answer: String) -> AgencyError {
        AgencyError::Protocol { server: self.options.server.clone(), answer }
    }

    fn exchange<const N: usize>(
        &mut self,
        requests: [&Request; N],
        backoff: &Backoff,
    ) -> Result<[Reply; N], ExchangeError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let timeout = backoff.timeout(CONNECT_TIMEOUT);
                let ClientOptions { server, security, .. } = &self.options;
                none.insert(Connection::open(server, security, Dialect::Framed, timeout)?)
            }
        };
        let replies = connection.exchange_all(requests, backoff.timeout(REPLY_TIMEOUT))?;
        self.has_connected = true;
        Ok(replies)
    }
}
