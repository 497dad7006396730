//! One connection to a server, in either dialect.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use sorteo_protocol::wire::{Dialect, NotAReply, Reply, Request, decode_reply, encode_request};

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to reply, beyond what the request asks it to wait.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;

/// A connection, and what was received on it and not read yet.
#[derive(Debug)]
pub struct Connection {
    dialect: Dialect,
    stream: TcpStream,
    input: Vec<u8>,
    /// The time-out that the socket has, so that it is set only where it changes.
    reply_timeout: Option<Duration>,
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
    /// Connects to `HOST:PORT`, trying each address of the host in turn.
    ///
    /// # Errors
    ///
    /// Where no address accepts within 5 seconds: the last one's failure.
    pub fn open(server: &str, dialect: Dialect) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in server.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
                    return Ok(Self { dialect, stream, input: Vec::new(), reply_timeout: None });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    ///
    /// Where there is none in time: see [`ExchangeError`]. The connection is of no use then.
    pub fn exchange(&mut self, request: &Request) -> Result<Reply, ExchangeError> {
        let mut bytes = Vec::new();
        encode_request(self.dialect, request, &mut bytes);
        let wait = match request {
            Request::WaitWinners { wait, .. } => *wait,
            _ => Duration::ZERO,
        };
        self.exchange_bytes(&bytes, REPLY_TIMEOUT + wait)
    }

    /// Sends the bytes of one request and waits for its reply, at most so long.
    ///
    /// # Errors
    ///
    /// As [`Connection::exchange`].
    pub fn exchange_bytes(&mut self, request: &[u8], timeout: Duration) -> Result<Reply, ExchangeError> {
        self.stream.write_all(request)?;
        if self.reply_timeout != Some(timeout) {
            self.stream.set_read_timeout(Some(timeout))?;
            self.reply_timeout = Some(timeout);
        }
        self.receive()
    }

    fn receive(&mut self) -> Result<Reply, ExchangeError> {
        loop {
            let mut rest = &self.input[..];
            let decoded = decode_reply(self.dialect, &mut rest)?;
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            if let Some(reply) = decoded {
                return Ok(reply);
            }
            let mut bytes = [0; READ_BYTES];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
