//! One connection to a server, in either dialect.

use std::io;
use std::time::{Duration, Instant};

use sorteo_protocol::wire::{
    Dialect, NotAReply, Reason, Reply, Request, decode_reply, encode_reply, encode_request,
};

use crate::secret::CredentialError;
use crate::security::{Security, SecurityError};
use crate::tls::TlsFailure;
use crate::token_file::{Auth, NotAccepted};
use crate::transport::Transport;

/// How long one address may take to accept a connection, at most.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to reply, beyond what the request asks it to wait.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;
/// Largest reply: a million winners in the counted dialect. What is larger is no reply.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// What a plain client is told that gets no reply at all.
const CLOSED: &str = "the server closed the connection before any reply: if it requires TLS, give --tls";

/// A connection, and what was received on it and not read yet.
#[derive(Debug)]
pub struct Connection {
    dialect: Dialect,
    transport: Transport,
    auth: Option<Auth>,
    input: Vec<u8>,
    has_received: bool,
    /// The time-outs that the socket has, so that they are set only where they change.
    timeout: Option<Duration>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection failed, or what is at its other end speaks another protocol. The
    /// request may have been carried out.
    #[error(transparent)]
    Lost(#[from] io::Error),
    /// The server sent a message that is no reply to the request: its text, escaped.
    #[error("`{0}` is not a reply to the request")]
    Unexpected(String),
    /// The server refused the client's token, and carries out nothing on this connection.
    #[error("the server refused the token: {0}")]
    Unauthenticated(Reason),
    /// A file is of no use, or TLS failed for a reason that a retry does not change. If the
    /// server refused the client's certificate, that may be told only after the request.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

impl From<NotAReply> for ExchangeError {
    fn from(error: NotAReply) -> Self {
        match error {
            NotAReply::OtherDialect => Self::Lost(io::Error::other(error)),
            NotAReply::Text(text) => Self::Unexpected(text),
        }
    }
}

impl From<CredentialError> for ExchangeError {
    fn from(error: CredentialError) -> Self {
        Self::Security(error.into())
    }
}

impl From<TlsFailure> for ExchangeError {
    fn from(failure: TlsFailure) -> Self {
        match failure {
            TlsFailure::Lost(error) => Self::Lost(error),
            TlsFailure::Refused(error) => Self::Security(error.into()),
        }
    }
}

impl Connection {
    /// Reads the files of `security`, and connects to `HOST:PORT` within `timeout`, trying each
    /// address of the host in turn: one that does not answer leaves the others their share of
    /// the time. A TLS handshake is part of it. A token is sent with the first request, and
    /// the reply to it awaited before the one to that.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Lost`] where no address accepts in time: the last one's failure;
    /// [`ExchangeError::Security`] where a file is of no use, or the server is not the one that
    /// it should be.
    pub fn open(
        server: &str,
        security: &Security,
        dialect: Dialect,
        timeout: Duration,
    ) -> Result<Self, ExchangeError> {
        let auth = security.token.as_ref().map(Auth::read).transpose()?;
        let tls = security.tls.as_ref().map(|tls| tls.read(server)).transpose()?;
        let transport = Transport::connect(server, tls.as_ref(), timeout)?;
        Ok(Self { dialect, transport, auth, input: Vec::new(), has_received: false, timeout: None })
    }

    /// Sends the token, if there is one, and waits for the reply for at most `timeout`: for a
    /// client whose first request comes later, or must not be sent in vain.
    ///
    /// # Errors
    ///
    /// As [`Connection::exchange`].
    pub fn authenticate(&mut self, timeout: Duration) -> Result<(), ExchangeError> {
        self.send(&[], timeout)?;
        self.receive_auth(timeout)
    }

    /// Returns whether the file of the token that this connection sent holds another one now.
    pub(crate) fn has_newer_token(&self) -> bool {
        self.auth.as_ref().is_some_and(Auth::is_replaced)
    }

    /// Sends a request and waits for its reply for at most `timeout`, and as long as the
    /// request asks the server to wait.
    ///
    /// # Errors
    ///
    /// Where there is none in time: see [`ExchangeError`]. The connection is of no use then.
    pub fn exchange(&mut self, request: &Request, timeout: Duration) -> Result<Reply, ExchangeError> {
        let [reply] = self.exchange_all([request], timeout)?;
        Ok(reply)
    }

    /// Sends requests together, and returns the reply to each: in one round trip. Waits for
    /// each as [`Connection::exchange`] does.
    ///
    /// # Errors
    ///
    /// As [`Connection::exchange`].
    pub fn exchange_all<const N: usize>(
        &mut self,
        requests: [&Request; N],
        timeout: Duration,
    ) -> Result<[Reply; N], ExchangeError> {
        let mut bytes = Vec::new();
        for request in requests {
            encode_request(self.dialect, request, &mut bytes);
        }
        self.send(&bytes, timeout)?;
        let mut replies = Vec::with_capacity(N);
        for request in requests {
            let wait = match request {
                Request::WaitWinners { wait, .. } => *wait,
                _ => Duration::ZERO,
            };
            replies.push(self.receive(timeout + wait)?);
        }
        Ok(replies.try_into().expect("a reply was received to each request"))
    }

    /// Sends the bytes of one request and waits for its reply for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Connection::exchange`].
    pub fn exchange_bytes(&mut self, request: &[u8], timeout: Duration) -> Result<Reply, ExchangeError> {
        self.send(request, timeout)?;
        self.receive(timeout)
    }

    /// Sends the bytes of requests within `timeout`, and waits for no reply.
    ///
    /// # Errors
    ///
    /// Where the peer does not take them in time. The connection is of no use then.
    pub fn send(&mut self, requests: &[u8], timeout: Duration) -> Result<(), ExchangeError> {
        let sent = match &mut self.auth {
            Some(auth) if !auth.is_sent() => {
                let mut bytes = auth.encode(self.dialect);
                bytes.extend_from_slice(requests);
                self.transmit(&bytes, timeout)
            }
            _ => self.transmit(requests, timeout),
        };
        match sent {
            Err(ExchangeError::Lost(error)) if is_closed(&error) => Err(self.why_closed(error, timeout)),
            sent => sent,
        }
    }

    /// Returns why the server closed the connection, if it said so before.
    fn why_closed(&mut self, error: io::Error, timeout: Duration) -> ExchangeError {
        let told = match self.transport.is_tls() && !self.auth.as_ref().is_some_and(Auth::is_unanswered) {
            true => self.read_some(timeout),
            false => self.receive_auth(timeout),
        };
        match told {
            Err(why @ (ExchangeError::Unauthenticated(_) | ExchangeError::Security(_))) => why,
            _ => error.into(),
        }
    }

    fn transmit(&mut self, mut bytes: &[u8], timeout: Duration) -> Result<(), ExchangeError> {
        self.set_timeout(timeout)?;
        let started = Instant::now();
        while !bytes.is_empty() || self.transport.has_unsent() {
            match self.transport.write(bytes) {
                Ok(0) if !bytes.is_empty() && !self.transport.has_unsent() => {
                    return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                }
                Ok(sent) => bytes = &bytes[sent..],
                Err(TlsFailure::Lost(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(failure) => return Err(self.lost(failure, timeout)),
            }
            if started.elapsed() > timeout && (!bytes.is_empty() || self.transport.has_unsent()) {
                return Err(timed_out(timeout));
            }
        }
        Ok(())
    }

    /// Waits for the next reply for at most `timeout`, and before it as long for the one to the
    /// token.
    ///
    /// # Errors
    ///
    /// Where there is none in time: see [`ExchangeError`]. The connection is of no use then.
    pub fn receive(&mut self, timeout: Duration) -> Result<Reply, ExchangeError> {
        self.receive_auth(timeout)?;
        self.receive_next(timeout)
    }

    /// Waits for the reply to the token, if it is sent and not answered yet.
    fn receive_auth(&mut self, timeout: Duration) -> Result<(), ExchangeError> {
        if !self.auth.as_ref().is_some_and(Auth::is_unanswered) {
            return Ok(());
        }
        let reply = self.receive_next(timeout)?;
        let answered = self.auth.as_mut().map_or(Ok(()), |auth| auth.answer(reply));
        answered.map_err(|error| match error {
            NotAccepted::Refused(reason) => ExchangeError::Unauthenticated(reason),
            NotAccepted::Unexpected(reply) => ExchangeError::Unexpected(shown(&reply)),
        })
    }

    fn receive_next(&mut self, timeout: Duration) -> Result<Reply, ExchangeError> {
        self.set_timeout(timeout)?;
        let started = Instant::now();
        loop {
            let mut rest = &self.input[..];
            let decoded = decode_reply(self.dialect, &mut rest)?;
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            if let Some(reply) = decoded {
                return Ok(reply);
            }
            if started.elapsed() > timeout {
                return Err(timed_out(timeout));
            }
            if self.input.len() > REPLY_BYTES_MAX {
                return Err(ExchangeError::Unexpected(format!("more than {REPLY_BYTES_MAX} bytes")));
            }
            self.read_some(timeout)?;
        }
    }

    fn read_some(&mut self, timeout: Duration) -> Result<(), ExchangeError> {
        let mut bytes = [0; READ_BYTES];
        match self.transport.read(&mut bytes) {
            Ok(None) => {}
            Ok(Some(0)) => {
                return Err(self.lost(io::Error::from(io::ErrorKind::UnexpectedEof).into(), timeout));
            }
            Ok(Some(read)) => {
                self.has_received = true;
                self.input.extend_from_slice(&bytes[..read]);
            }
            Err(TlsFailure::Lost(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(failure) => return Err(self.lost(failure, timeout)),
        }
        Ok(())
    }

    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        if self.timeout != Some(timeout) {
            self.transport.set_timeout(timeout)?;
            self.timeout = Some(timeout);
        }
        Ok(())
    }

    /// Returns what a failed read or write means.
    fn lost(&self, failure: TlsFailure, timeout: Duration) -> ExchangeError {
        match failure {
            // What the system calls it where a time-out of the socket is over.
            TlsFailure::Lost(error) if error.kind() == io::ErrorKind::WouldBlock => timed_out(timeout),
            TlsFailure::Lost(error)
                if is_closed(&error) && !self.has_received && !self.transport.is_tls() =>
            {
                io::Error::new(error.kind(), CLOSED).into()
            }
            failure => failure.into(),
        }
    }
}

/// Returns whether the peer has ended the connection.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Returns a reply as a person may see it.
pub(crate) fn shown(reply: &Reply) -> String {
    let mut bytes = Vec::new();
    encode_reply(Dialect::Framed, reply, &mut bytes);
    bytes.escape_ascii().to_string()
}

fn timed_out(timeout: Duration) -> ExchangeError {
    let message = format!("no reply within {} s", timeout.as_secs_f64());
    ExchangeError::Lost(io::Error::new(io::ErrorKind::TimedOut, message))
}
