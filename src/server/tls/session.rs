//! One connection's TLS, without its socket: records in, plaintext out, and back.
//!
//! Nothing stays in rustls that nobody waits for: [`TlsSession::receive`] takes all plaintext
//! out at once, since no event of the socket would come for what is left, and
//! [`TlsSession::encrypt`] takes no more than a few records ahead of the socket.
//!
//! rustls's own `Stream`, `complete_io` and `Acceptor` are not used: they loop on what the peer
//! sends, which has been the subject of advisories.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use rustls::{CertificateError, Error, ServerConfig, ServerConnection};

use super::identity::agency_of;
use crate::metrics::HandshakeResult;
use sorteo_protocol::AgencyId;

/// Plaintext that is encrypted at a time: four records, and one call of the system.
const ENCRYPT_BYTES: usize = 64 << 10;
/// Bytes of a record's header.
const HEADER_BYTES: usize = 5;

/// One connection's TLS. See the module.
#[derive(Debug)]
pub struct TlsSession {
    connection: ServerConnection,
    /// When its handshake has to be measured from.
    began_at: Instant,
    is_established: bool,
    agency: Option<AgencyId>,
    record: RecordCursor,
    /// When the first byte of an incomplete record arrived.
    record_since: Option<Instant>,
    /// Bytes received since the last that became plaintext: what rustls holds at most.
    held_bytes: usize,
    /// Bytes that are encrypted and not sent.
    unsent_bytes: usize,
    peer_has_closed: bool,
    has_closed: bool,
}

impl TlsSession {
    /// Begins a handshake, whose time counts from `began_at`.
    ///
    /// # Errors
    ///
    /// The configuration does not fit, which it was checked for.
    pub fn new(config: Arc<ServerConfig>, began_at: Instant) -> Result<Self, Error> {
        let mut connection = ServerConnection::new(config)?;
        // `encrypt` limits it.
        connection.set_buffer_limit(None);
        Ok(Self {
            connection,
            began_at,
            is_established: false,
            agency: None,
            record: RecordCursor::default(),
            record_since: None,
            held_bytes: 0,
            unsent_bytes: 0,
            peer_has_closed: false,
            has_closed: false,
        })
    }

    pub fn began_at(&self) -> Instant {
        self.began_at
    }

    /// Returns whether the handshake is over.
    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// Returns the agency of the client's certificate, if it has one. None before the handshake
    /// is over.
    pub fn agency(&self) -> Option<AgencyId> {
        self.agency
    }

    /// Returns when the first byte of an incomplete record arrived, if there is one.
    pub fn record_since(&self) -> Option<Instant> {
        self.record_since
    }

    /// Lets the time of an incomplete record begin at `now`, if there is one.
    pub fn postpone_record(&mut self, now: Instant) {
        self.record_since = self.record_since.map(|_| now);
    }

    /// Returns the bytes of what is received and not yet plaintext, at most.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Returns the bytes that are encrypted and not sent.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Returns whether something is to be sent.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Returns whether the peer has said that it sends no more.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Takes what arrived, and appends what it becomes to `input`. What comes behind the peer's
    /// last record is ignored.
    ///
    /// # Errors
    ///
    /// The peer breaks the protocol, or its certificate is refused: the connection must end,
    /// and what is to be sent says why.
    pub fn receive(&mut self, mut bytes: &[u8], input: &mut Vec<u8>, now: Instant) -> Result<(), Error> {
        while !bytes.is_empty() && !self.peer_has_closed {
            let before = bytes;
            // It takes only some at a time, and all of them before long, since nothing stays
            // behind that could make it full.
            let taken = self.connection.read_tls(&mut bytes).map_err(|error| too_long(&error))?;
            if taken == 0 {
                return Err(Error::General("a record of an impossible length".to_owned()));
            }
            self.process(&before[..taken], input, now)?;
        }
        if !self.is_established && !self.connection.is_handshaking() {
            self.is_established = true;
            // What its messages held is gone with them.
            self.held_bytes = self.record.seen;
            self.agency = self.connection.peer_certificates().and_then(|chain| agency_of(chain.first()?));
        }
        Ok(())
    }

    fn process(&mut self, taken: &[u8], input: &mut Vec<u8>, now: Instant) -> Result<(), Error> {
        let had = input.len();
        let state = self.connection.process_new_packets()?;
        self.peer_has_closed = state.peer_has_closed();
        self.unsent_bytes = state.tls_bytes_to_write();
        self.drain(input);
        let is_new_record = self.record.advance(taken);
        self.record_since = match self.record_since {
            _ if !self.record.is_inside() => None,
            Some(since) if !is_new_record => Some(since),
            _ => Some(now),
        };
        let has_progressed =
            input.len() > had || !self.record.is_inside() && !self.connection.is_handshaking();
        self.held_bytes = if has_progressed { self.record.seen } else { self.held_bytes + taken.len() };
        Ok(())
    }

    /// Takes all plaintext out of rustls.
    fn drain(&mut self, input: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // An error says that there is nothing, or no more: `peer_has_closed` has said so.
        while let Ok(chunk) = io::BufRead::fill_buf(&mut reader) {
            let bytes = chunk.len();
            if bytes == 0 {
                return;
            }
            input.extend_from_slice(chunk);
            io::BufRead::consume(&mut reader, bytes);
        }
    }

    /// Encrypts the beginning of `output`, if all that was encrypted before is sent. Returns
    /// the bytes that were taken.
    pub fn encrypt(&mut self, output: &[u8]) -> usize {
        if self.wants_write() {
            return 0;
        }
        let some = &output[..output.len().min(ENCRYPT_BYTES)];
        // It has no limit, so it takes all and cannot fail.
        let taken = self.connection.writer().write(some).unwrap_or(0);
        self.unsent_bytes = taken;
        taken
    }

    /// Sends what is encrypted with one call of the system, and returns the bytes sent.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn write_to(&mut self, socket: &mut dyn Write) -> io::Result<usize> {
        let sent = self.connection.write_tls(socket)?;
        self.unsent_bytes =
            if self.wants_write() { self.unsent_bytes.saturating_sub(sent).max(1) } else { 0 };
        Ok(sent)
    }

    /// Prepares the record that says that we send no more, once.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.has_closed, true) {
            self.connection.send_close_notify();
        }
    }

    /// Gives back the memory of large records. To be called where nothing is expected soon.
    pub fn shrink(&mut self) {
        // rustls sizes its buffer before each read. Within a record, it would make it larger.
        if !self.record.is_inside() && self.is_established {
            let _ = self.connection.read_tls(&mut NothingYet);
        }
    }
}

/// Has no bytes, like a socket on which nothing has arrived.
struct NothingYet;

impl Read for NothingYet {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

fn too_long(error: &io::Error) -> Error {
    Error::General(error.to_string())
}

/// Where in a record the bytes that have arrived end.
#[derive(Debug, Default)]
struct RecordCursor {
    header: [u8; HEADER_BYTES],
    /// Bytes of the current record so far, its header included.
    seen: usize,
}

impl RecordCursor {
    fn is_inside(&self) -> bool {
        self.seen > 0
    }

    /// Goes on by these bytes, and returns whether a record ended or began in them.
    fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_new = !self.is_inside();
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.seen < HEADER_BYTES {
                self.header[self.seen] = byte;
                self.seen += 1;
                bytes = rest;
            } else {
                let taken = bytes.len().min(self.record_bytes() - self.seen);
                self.seen += taken;
                bytes = &bytes[taken..];
            }
            if self.seen >= HEADER_BYTES && self.seen == self.record_bytes() {
                self.seen = 0;
                is_new = true;
            }
        }
        is_new
    }

    fn record_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(u16::from_be_bytes([self.header[3], self.header[4]]))
    }
}

/// Returns what a handshake that failed with this error counts as.
pub fn result_of(error: &Error) -> HandshakeResult {
    match error {
        Error::InvalidCertificate(certificate) => result_of_certificate(certificate),
        Error::NoApplicationProtocol => HandshakeResult::alpn_mismatch,
        Error::PeerIncompatible(_) => HandshakeResult::incompatible,
        Error::AlertReceived(_) => HandshakeResult::refused_by_peer,
        _ => HandshakeResult::protocol_error,
    }
}

fn result_of_certificate(error: &CertificateError) -> HandshakeResult {
    use CertificateError as Wrong;
    match error {
        Wrong::Expired | Wrong::ExpiredContext { .. } => HandshakeResult::certificate_expired,
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => HandshakeResult::certificate_not_yet_valid,
        Wrong::Revoked => HandshakeResult::certificate_revoked,
        Wrong::UnknownIssuer | Wrong::BadSignature => HandshakeResult::certificate_unknown_issuer,
        Wrong::ApplicationVerificationFailure => HandshakeResult::certificate_without_agency,
        Wrong::ExpiredRevocationList | Wrong::ExpiredRevocationListContext { .. } => {
            HandshakeResult::crl_expired
        }
        _ => HandshakeResult::certificate_invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_followed_wherever_it_is_cut() {
        // Records of 3, 0 and 300 bytes.
        let mut bytes = vec![23, 3, 3, 0, 3, 1, 2, 3, 23, 3, 3, 0, 0, 23, 3, 3, 1, 44];
        bytes.extend([9; 300]);
        let ends = [0, 8, 13, bytes.len()];
        for cut in 0..=bytes.len() {
            let mut cursor = RecordCursor::default();
            cursor.advance(&bytes[..cut]);
            assert_eq!(cursor.is_inside(), !ends.contains(&cut), "{cut}");
            cursor.advance(&bytes[cut..]);
            assert!(!cursor.is_inside(), "{cut}");
        }
    }

    #[test]
    fn a_record_that_only_goes_on_is_not_a_new_one() {
        let mut cursor = RecordCursor::default();
        assert!(cursor.advance(&[23, 3]));
        assert!(!cursor.advance(&[3, 0, 4, 1]));
        assert!(!cursor.advance(&[1]));
        assert!(cursor.advance(&[1, 1, 23]));
        assert_eq!(cursor.seen, 1);
    }
}
