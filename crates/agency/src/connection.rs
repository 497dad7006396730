//! One connection to a server, in either dialect.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use sorteo_protocol::wire::{Dialect, NotAReply, Reply, Request, decode_reply, encode_request};

/// How long one address may take to accept a connection, at most.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to reply, beyond what the request asks it to wait.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;
/// Largest reply: a million winners in the counted dialect. What is larger is no reply.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A connection, and what was received on it and not read yet.
#[derive(Debug)]
pub struct Connection {
    dialect: Dialect,
    stream: TcpStream,
    input: Vec<u8>,
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
}

impl From<NotAReply> for ExchangeError {
    fn from(error: NotAReply) -> Self {
        match error {
            NotAReply::OtherDialect => Self::Lost(io::Error::other(error)),
            NotAReply::Text(text) => Self::Unexpected(text),
        }
    }
}

impl Connection {
    /// Connects to `HOST:PORT` within `timeout`, trying each address of the host in turn:
    /// one that does not answer leaves the others their share of the time.
    ///
    /// # Errors
    ///
    /// Where no address accepts in time: the last one's failure.
    pub fn open(server: &str, dialect: Dialect, timeout: Duration) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses: Vec<_> = server.to_socket_addrs()?.collect();
        let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for address in addresses {
            match TcpStream::connect_timeout(&address, share) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self { dialect, stream, input: Vec::new(), timeout: None });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
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
    pub fn send(&mut self, mut requests: &[u8], timeout: Duration) -> Result<(), ExchangeError> {
        self.set_timeout(timeout)?;
        let started = Instant::now();
        while !requests.is_empty() {
            match self.stream.write(requests) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(sent) => requests = &requests[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error, timeout)),
            }
            if !requests.is_empty() && started.elapsed() > timeout {
                return Err(timed_out(timeout));
            }
        }
        Ok(())
    }

    /// Waits for the next reply for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Where there is none in time: see [`ExchangeError`]. The connection is of no use then.
    pub fn receive(&mut self, timeout: Duration) -> Result<Reply, ExchangeError> {
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
            let mut bytes = [0; READ_BYTES];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error, timeout)),
            }
        }
    }

    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        if self.timeout != Some(timeout) {
            self.stream.set_write_timeout(Some(timeout))?;
            self.stream.set_read_timeout(Some(timeout))?;
            self.timeout = Some(timeout);
        }
        Ok(())
    }
}

/// Returns what a failed read or write means.
fn lost(error: io::Error, timeout: Duration) -> ExchangeError {
    match error.kind() {
        // What the system calls it where a time-out of the socket is over.
        io::ErrorKind::WouldBlock => timed_out(timeout),
        _ => error.into(),
    }
}

fn timed_out(timeout: Duration) -> ExchangeError {
    let message = format!("no reply within {} s", timeout.as_secs_f64());
    ExchangeError::Lost(io::Error::new(io::ErrorKind::TimedOut, message))
}
