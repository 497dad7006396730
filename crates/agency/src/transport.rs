//! The bytes of one connection: over TCP, plain or in TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::tls::{TlsConfig, TlsFailure, TlsStream};

#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Transport {
    /// Connects to `HOST:PORT` within `timeout`, the handshake included, trying each address
    /// of the host in turn: one that does not answer leaves the others their share of the
    /// time.
    pub(crate) fn connect(
        server: &str,
        tls: Option<&TlsConfig>,
        timeout: Duration,
    ) -> Result<Self, TlsFailure> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses: Vec<_> = server.to_socket_addrs()?.collect();
        let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for address in addresses {
            let until = Instant::now() + share;
            let connected = TcpStream::connect_timeout(&address, share).map_err(TlsFailure::Lost);
            match connected.and_then(|socket| Self::over(socket, tls, until)) {
                Err(TlsFailure::Lost(error)) => last = error,
                other => return other,
            }
        }
        Err(last.into())
    }

    fn over(socket: TcpStream, tls: Option<&TlsConfig>, until: Instant) -> Result<Self, TlsFailure> {
        socket.set_nodelay(true)?;
        match tls {
            None => Ok(Self::Plain(socket)),
            Some(tls) => Ok(Self::Tls(Box::new(tls.connect(socket, until)?))),
        }
    }

    /// Returns whether it is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Lets each read and each write take so long.
    pub(crate) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        };
        socket.set_write_timeout(Some(timeout))?;
        socket.set_read_timeout(Some(timeout))
    }

    /// Returns whether bytes that it has taken are not sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.has_unsent(),
        }
    }

    /// Takes some of the bytes, and returns how many; with none, sends what it has taken.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsFailure> {
        match self {
            Self::Plain(socket) => Ok(socket.write(bytes)?),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// Reads some bytes: `None` where what arrived completes none, and 0 at the end.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, TlsFailure> {
        match self {
            Self::Plain(socket) => Ok(Some(socket.read(bytes)?)),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}
