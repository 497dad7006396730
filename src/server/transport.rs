//! How a connection's bytes get to its socket and from it: as they are, or within TLS.
//!
//! The first byte decides, where TLS is on at all: a TLS client's is 0x16, which begins neither
//! dialect. What TLS means is [`tls::session`]'s job; the deadlines and
//! the requests are [`connection`](super::connection)'s.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, retry_on_intr};

use super::tls::session::TlsSession;
use super::tls::{self, Tls};
use crate::failpoint::Failpoint;
use sorteo_protocol::AgencyId;

/// Bytes that a read has room for, at least: a full batch of the original servers' clients,
/// with room to spare.
const READ_BYTES: usize = 16 << 10;
/// Bytes of records that a read has room for.
const RECORDS_BYTES: usize = 64 << 10;
/// The first byte of a TLS client: its record is of the handshake.
const TLS_FIRST_BYTE: u8 = 0x16;

thread_local! {
    /// What a worker reads records into: they are plaintext, or within rustls, before it serves
    /// another connection.
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORDS_BYTES].into());
}

/// A socket, and what its bytes are. See the module.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    security: Security,
}

#[derive(Debug)]
enum Security {
    /// Nothing has arrived; if TLS is required, since when.
    Undetected { required_since: Option<Instant> },
    /// The bytes are those of a dialect.
    Plain,
    /// The bytes are records of TLS. In a box, since most connections have none.
    Tls(Box<TlsSession>),
}

/// What the first byte of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstByte {
    /// Nothing has arrived.
    None,
    /// The peer has closed its side without one.
    Eof,
    /// That of a TLS client.
    Tls,
    /// Any other.
    Other,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes of requests.
    Bytes(usize),
    /// Some that are no request yet: there may be more.
    Part,
    /// Nothing: what arrives next is an event.
    Nothing,
    /// The peer sends no more.
    End,
}

/// Why nothing is received any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS failed. What is to be sent says why.
    #[error(transparent)]
    Tls(#[from] tls::Failure),
}

/// What a send came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// Bytes of the output that need not be offered again.
    pub(super) taken: usize,
    /// Whether the socket took any.
    pub(super) has_progressed: bool,
    /// Whether the socket takes no more for now.
    pub(super) is_blocked: bool,
}

impl Transport {
    /// Creates that of a new connection. Where TLS is off, its bytes are taken as they are.
    pub(super) fn new(stream: TcpStream, tls_is_on: bool, tls_is_required: bool, now: Instant) -> Self {
        let security = match tls_is_on {
            true => Security::Undetected { required_since: tls_is_required.then_some(now) },
            false => Security::Plain,
        };
        Self { stream, security }
    }

    /// Returns the socket, to wait for events.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Returns the socket, to register it.
    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Returns whether the connection is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.security, Security::Tls(_))
    }

    /// Returns whether requests can be received: there is no handshake to wait for.
    pub(super) fn is_ready(&self) -> bool {
        match &self.security {
            Security::Undetected { .. } => false,
            Security::Plain => true,
            Security::Tls(session) => session.is_established(),
        }
    }

    /// Returns whether a handshake has begun and is not over.
    pub(super) fn is_handshaking(&self) -> bool {
        self.is_tls() && !self.is_ready()
    }

    /// Returns since when the peer should have got its handshake over, if it has not: since its
    /// first byte or, where TLS is required, since the connection was accepted.
    pub(super) fn handshake_since(&self) -> Option<Instant> {
        match &self.security {
            Security::Undetected { required_since } => *required_since,
            Security::Tls(session) if !session.is_established() => Some(session.began_at()),
            Security::Plain | Security::Tls(_) => None,
        }
    }

    /// Returns the agency of the client's certificate; `None` without one.
    pub(super) fn client_agency(&self) -> Option<AgencyId> {
        self.session().and_then(TlsSession::agency)
    }

    /// Returns when the first byte of an incomplete record arrived, if there is one.
    pub(super) fn record_since(&self) -> Option<Instant> {
        self.session().and_then(TlsSession::record_since)
    }

    /// Lets the time of an incomplete record begin at `now`, if there is one.
    pub(super) fn postpone_record(&mut self, now: Instant) {
        if let Security::Tls(session) = &mut self.security {
            session.postpone_record(now);
        }
    }

    /// Returns the bytes of what is received and is no request's bytes yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.session().map_or(0, TlsSession::held_bytes)
    }

    /// Returns the bytes that are encrypted and not sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.session().map_or(0, TlsSession::unsent_bytes)
    }

    /// Returns whether something that was taken is to be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.session().is_some_and(TlsSession::wants_write)
    }

    fn session(&self) -> Option<&TlsSession> {
        match &self.security {
            Security::Tls(session) => Some(session),
            Security::Undetected { .. } | Security::Plain => None,
        }
    }

    /// Looks at the first byte, and leaves it where it is.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub(super) fn first_byte(&self) -> io::Result<FirstByte> {
        let mut byte = [0];
        match self.stream.peek(&mut byte) {
            Ok(0) => Ok(FirstByte::Eof),
            Ok(_) if byte[0] == TLS_FIRST_BYTE => Ok(FirstByte::Tls),
            Ok(_) => Ok(FirstByte::Other),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(FirstByte::None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the bytes as they are from here on.
    pub(super) fn set_plain(&mut self) {
        self.security = Security::Plain;
    }

    /// Takes the bytes as records of TLS from here on.
    ///
    /// # Errors
    ///
    /// The configuration does not fit, which it was checked for.
    pub(super) fn start_tls(&mut self, tls: &Tls, now: Instant) -> Result<(), tls::Failure> {
        let began_at = self.handshake_since().unwrap_or(now);
        self.security = Security::Tls(Box::new(TlsSession::new(tls.for_agencies(), began_at)?));
        Ok(())
    }

    /// Reads once, and appends what arrived to `input`.
    ///
    /// # Errors
    ///
    /// The connection broke, or TLS failed.
    pub(super) fn receive(&mut self, input: &mut Vec<u8>) -> Result<Received, ReceiveError> {
        let Security::Tls(session) = &mut self.security else {
            return Ok(receive_plain(&self.stream, input)?);
        };
        if session.peer_has_closed() {
            return Ok(Received::End);
        }
        RECORDS.with_borrow_mut(|records| receive_records(&self.stream, session, records, input))
    }

    /// Sends the beginning of the output, and what was taken before: as much as the socket
    /// takes.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub(super) fn send(&mut self, output: &[u8]) -> io::Result<Sent> {
        let mut sent = Sent::default();
        loop {
            let rest = &output[sent.taken..];
            let written = match &mut self.security {
                Security::Tls(session) => {
                    sent.taken += session.encrypt(rest);
                    if !session.wants_write() {
                        return Ok(sent);
                    }
                    Failpoint::BeforeAnswer.pass();
                    session.write_to(&mut self.stream)
                }
                Security::Undetected { .. } | Security::Plain if rest.is_empty() => return Ok(sent),
                Security::Undetected { .. } | Security::Plain => {
                    Failpoint::BeforeAnswer.pass();
                    self.stream.write(rest).inspect(|written| sent.taken += written)
                }
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {
                    sent.has_progressed = true;
                    Failpoint::AfterAnswer.pass();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    sent.is_blocked = true;
                    return Ok(sent);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads once and throws it away; returns the bytes read, which are 0 if nothing has
    /// arrived, or `None` at the peer's end.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub(super) fn discard(&mut self) -> io::Result<Option<usize>> {
        let result =
            RECORDS.with_borrow_mut(|records| retry_on_intr(|| read(&self.stream, &mut records[..])));
        match result {
            Ok(0) => Ok(None),
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN) => Ok(Some(0)),
            Err(error) => Err(error.into()),
        }
    }

    /// Within TLS, says that we send no more; returns whether the socket has taken that. To be
    /// called once all output is sent.
    pub(super) fn say_goodbye(&mut self) -> bool {
        if let Security::Tls(session) = &mut self.security {
            session.close();
        }
        // If the connection is gone already, the next read reports it.
        self.send(&[]).map_or(true, |sent| !sent.is_blocked)
    }

    /// Closes our side.
    pub(super) fn shut_down(&mut self) {
        // If the connection is gone already, the next read reports it.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

fn receive_plain(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<Received> {
    input.reserve(READ_BYTES);
    match retry_on_intr(|| read(stream, spare_capacity(input))) {
        Ok(0) => Ok(Received::End),
        Ok(read) => Ok(Received::Bytes(read)),
        Err(Errno::AGAIN) => {
            // A peer that sends byte by byte must not hold a whole read's memory.
            input.shrink_to_fit();
            Ok(Received::Nothing)
        }
        Err(error) => Err(error.into()),
    }
}

fn receive_records(
    stream: &TcpStream,
    session: &mut TlsSession,
    records: &mut [u8],
    input: &mut Vec<u8>,
) -> Result<Received, ReceiveError> {
    let arrived = match retry_on_intr(|| read(stream, &mut *records)) {
        Ok(0) => return Ok(Received::End),
        Ok(arrived) => arrived,
        Err(Errno::AGAIN) => {
            input.shrink_to_fit();
            session.shrink();
            return Ok(Received::Nothing);
        }
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let had = input.len();
    session.receive(&records[..arrived], input, Instant::now())?;
    match input.len() - had {
        0 if session.peer_has_closed() => Ok(Received::End),
        0 => Ok(Received::Part),
        bytes => Ok(Received::Bytes(bytes)),
    }
}
