//! TLS on the client's side: all of rustls is here.
//!
//! The session is driven by hand over a blocking socket: each call reads or writes at most
//! once what the socket gives or takes, so that the caller's deadline is looked at in
//! between.

mod problem;

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

pub use self::problem::{TlsError, TlsProblem};
use crate::secret::{Credential, CredentialError, Problem};

/// The application protocol that the client offers.
const ALPN: &[u8] = b"sorteo/1";
/// First bytes of what a server that speaks TLS sends: a handshake message, or an alert.
const TLS_RECORDS: [u8; 2] = [0x16, 0x15];
/// Shortest time-out that a socket is given.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The files by which client and server know each other, in PEM form.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authorities that may have issued the server's certificate, which has to be for the
    /// name or the IP address that the client connects to.
    pub ca: PathBuf,
    /// The certificate by which the server knows the client, if it has one.
    pub certificate: Option<ClientCertificate>,
}

/// The certificate of a client, and its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate, and those of the authorities between it and one that the server trusts.
    pub chain: PathBuf,
    /// Its private key, without a passphrase: a file that only its owner may read.
    pub key: PathBuf,
}

/// Why a TLS connection is of no use.
pub(crate) enum TlsFailure {
    /// It may be another time.
    Lost(io::Error),
    /// It will not be.
    Refused(TlsError),
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// What is read of the files, for one connection.
pub(crate) struct TlsConfig {
    config: Arc<ClientConfig>,
    server: String,
    ca: PathBuf,
}

impl Tls {
    /// Reads the files, for a connection to `HOST:PORT`.
    pub(crate) fn read(&self, server: &str) -> Result<TlsConfig, CredentialError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider has TLS 1.3");
        let builder = builder.with_root_certificates(self.authorities()?);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = own.read()?;
                let refused = |_| own.key_file().wrong(Problem::Content(KEY_MISMATCH));
                builder.with_client_auth_cert(chain, key).map_err(refused)?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(TlsConfig { config: Arc::new(config), server: server.to_owned(), ca: self.ca.clone() })
    }

    fn authorities(&self) -> Result<RootCertStore, CredentialError> {
        let file = Credential { what: "file of certificate authorities", path: &self.ca };
        let mut store = RootCertStore::empty();
        for certificate in certificates(&file)? {
            store.add(certificate).map_err(|_| file.wrong(Problem::Content(BAD_CERTIFICATE)))?;
        }
        Ok(store)
    }
}

const NO_CERTIFICATE: &str = "holds no certificate in PEM form";
const BAD_CERTIFICATE: &str = "holds a certificate that is not valid";
const NO_KEY: &str = "holds no private key in PEM form without a passphrase";
const KEY_MISMATCH: &str = "holds a key that is not the one of the client's certificate";

impl ClientCertificate {
    fn key_file(&self) -> Credential<'_> {
        Credential { what: "key file", path: &self.key }
    }

    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CredentialError> {
        let chain = certificates(&Credential { what: "certificate file", path: &self.chain })?;
        let file = self.key_file();
        let key = PrivateKeyDer::from_pem_slice(&file.read_secret()?);
        Ok((chain, key.map_err(|_| file.wrong(Problem::Content(NO_KEY)))?))
    }
}

fn certificates(file: &Credential<'_>) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.read_public()?).collect();
    match read {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(file.wrong(Problem::Content(NO_CERTIFICATE))),
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct TlsStream {
    socket: TcpStream,
    session: ClientConnection,
    server: String,
    ca: PathBuf,
}

impl TlsConfig {
    /// Does the handshake until this time, and checks that the server is the one that the
    /// client connected to.
    pub(crate) fn connect(&self, socket: TcpStream, until: Instant) -> Result<TlsStream, TlsFailure> {
        let refused = |problem| TlsFailure::Refused(TlsError::new(&self.server, problem));
        let name = server_name(&self.server).ok_or_else(|| refused(TlsProblem::NoName))?;
        let session = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|error| TlsFailure::Lost(io::Error::other(error)))?;
        let (server, ca) = (self.server.clone(), self.ca.clone());
        let mut stream = TlsStream { socket, session, server, ca };
        stream.handshake(until).map_err(in_handshake)?;
        Ok(stream)
    }
}

/// Returns the name or the address in `HOST:PORT`.
fn server_name(server: &str) -> Option<ServerName<'static>> {
    let (host, _) = server.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// Says of a connection that ended in its handshake what may be the cause.
fn in_handshake(failure: TlsFailure) -> TlsFailure {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock,
    };
    let TlsFailure::Lost(error) = failure else { return failure };
    let told = match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => {
            "the server closed the connection during the TLS handshake: TLS may be off there"
        }
        WouldBlock | TimedOut => {
            return io::Error::new(TimedOut, "the TLS handshake did not end in time").into();
        }
        _ => return error.into(),
    };
    io::Error::new(error.kind(), told).into()
}

impl TlsStream {
    /// The socket below, to set its time-outs.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Returns whether bytes that were taken are not sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Takes as many bytes as there is room for, sends some of what it has taken, and returns
    /// how many it has taken.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsFailure> {
        let taken = self.session.writer().write(bytes)?;
        self.send_some()?;
        Ok(taken)
    }

    /// Reads what has been decrypted, or else reads the socket once. Returns `None` where that
    /// did not complete anything, and 0 bytes at the end.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, TlsFailure> {
        match self.session.reader().read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Ok(Some(read?)),
        }
        // Such as the reply to an update of the keys.
        self.send_some()?;
        self.receive_some()?;
        Ok(None)
    }

    fn handshake(&mut self, until: Instant) -> Result<(), TlsFailure> {
        let mut has_heard = false;
        while self.session.is_handshaking() || self.session.wants_write() {
            self.limit_to(until)?;
            if self.session.wants_write() {
                self.send_some()?;
                continue;
            }
            if !has_heard {
                self.require_tls()?;
                has_heard = true;
            }
            self.receive_some()?;
            if self.session.is_handshaking() && !self.session.wants_read() && !self.session.wants_write() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    }

    /// Lets the next read or write take until this time.
    fn limit_to(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left.max(TIMEOUT_MIN)))?;
        self.socket.set_write_timeout(Some(left.max(TIMEOUT_MIN)))
    }

    /// Waits for the first byte, by which plain text is told from TLS.
    fn require_tls(&self) -> Result<(), TlsFailure> {
        let mut first = [0];
        match retry(|| self.socket.peek(&mut first))? {
            1 if !TLS_RECORDS.contains(&first[0]) => self.refused(TlsProblem::PlainText),
            _ => Ok(()),
        }
    }

    fn send_some(&mut self) -> Result<(), TlsFailure> {
        if self.session.wants_write() && retry(|| self.session.write_tls(&mut self.socket))? == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        Ok(())
    }

    fn receive_some(&mut self) -> Result<(), TlsFailure> {
        let read = retry(|| self.session.read_tls(&mut self.socket))?;
        if let Err(error) = self.session.process_new_packets() {
            // So that the server's log says why.
            let _ = self.session.write_tls(&mut self.socket);
            return match TlsProblem::of(&error, &self.ca) {
                Some(problem) => self.refused(problem),
                None => Err(io::Error::other(format!("the TLS connection failed: {error}")).into()),
            };
        }
        if read == 0 && self.session.is_handshaking() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }

    fn refused(&self, problem: TlsProblem) -> Result<(), TlsFailure> {
        Err(TlsFailure::Refused(TlsError::new(&self.server, problem)))
    }
}

/// Says that the connection ends here on purpose, as far as that needs no waiting.
impl Drop for TlsStream {
    fn drop(&mut self) {
        self.session.send_close_notify();
        if self.socket.set_nonblocking(true).is_ok() {
            let _ = self.session.write_tls(&mut self.socket);
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}

/// Repeats what a signal interrupted.
fn retry(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_verified_by_its_host() {
        let name = |server| server_name(server).map(|name| name.to_str().into_owned());
        assert_eq!(name("lottery:12345").as_deref(), Some("lottery"));
        assert_eq!(name("10.0.0.1:12345").as_deref(), Some("10.0.0.1"));
        assert_eq!(name("[::1]:12345").as_deref(), Some("::1"));
        assert_eq!(name("a b:12345"), None);
    }

    #[test]
    fn only_tls_1_3_and_first_the_hybrid_key_exchange_are_offered() {
        let provider = aws_lc_rs::default_provider();
        assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
