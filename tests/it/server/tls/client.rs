//! A client of rustls, on a blocking socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::certificates::{Authority, Issued};
use crate::test_server::DEADLINE;

/// A configuration that trusts this authority.
pub fn config(authority: &Authority, client: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(Issued { certificate, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"sorteo/1".to_vec()];
    config
}

/// A connection, whatever its state.
pub struct TlsClient {
    pub stream: TcpStream,
    pub tls: ClientConnection,
}

impl TlsClient {
    /// Connects, and begins no handshake.
    pub fn new(address: SocketAddr, config: ClientConfig) -> Self {
        Self::on(TcpStream::connect(address).unwrap(), config)
    }

    /// Connects with a system that takes few bytes that are not read, and gets the handshake
    /// over.
    pub fn connect_with_small_buffer(address: SocketAddr, config: ClientConfig) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut client = Self::on(socket.into(), config);
        client.handshake().unwrap();
        client
    }

    fn on(stream: TcpStream, config: ClientConfig) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config.into(), name).unwrap();
        Self { stream, tls }
    }

    /// Connects, and gets the handshake over.
    pub fn connect(address: SocketAddr, config: ClientConfig) -> Self {
        let mut client = Self::new(address, config);
        client.handshake().unwrap();
        client
    }

    pub fn handshake(&mut self) -> Result<(), String> {
        while self.tls.is_handshaking() {
            self.flush().map_err(|error| error.to_string())?;
            if self.tls.is_handshaking() {
                self.receive()?;
            }
        }
        self.flush().map_err(|error| error.to_string())
    }

    /// Reads once, and goes on with the handshake; sends nothing.
    pub fn handshake_step(&mut self) {
        self.receive().unwrap();
    }

    /// Sends as much as the server takes.
    pub fn send_some(&mut self, request: &[u8]) -> std::io::Result<()> {
        for part in request.chunks(16 << 10) {
            self.tls.writer().write_all(part)?;
            self.flush()?;
        }
        Ok(())
    }

    /// What the client sends next, not sent.
    pub fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// The records of a request, not sent.
    pub fn records_of(&mut self, request: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(request).unwrap();
        self.records()
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        let records = self.records();
        self.stream.write_all(&records)
    }

    /// Sends a request. Large ones are more than rustls takes at a time.
    pub fn send(&mut self, request: &[u8]) {
        self.send_some(request).unwrap();
    }

    /// Reads once; returns the bytes, which are 0 at the end of the stream.
    fn receive(&mut self) -> Result<usize, String> {
        let read = match self.tls.read_tls(&mut self.stream) {
            Ok(0) => return Err("the end of the stream".to_owned()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err("reset".to_owned()),
            Err(error) => panic!("nothing comes: {error}"),
        };
        let processed = self.tls.process_new_packets();
        processed.map(|_| read).map_err(|error| error.to_string())
    }

    /// Reads exactly these bytes.
    pub fn expect(&mut self, answer: &[u8]) {
        let mut read = vec![0; answer.len()];
        self.read_exactly(&mut read);
        assert!(read == answer, "{} is not {}", read.escape_ascii(), answer.escape_ascii());
    }

    pub fn read_exactly(&mut self, answer: &mut [u8]) {
        let mut filled = 0;
        while filled < answer.len() {
            match self.tls.reader().read(&mut answer[filled..]) {
                Ok(0) => panic!("closed after {filled} bytes"),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => _ = self.receive().unwrap(),
                Err(error) => panic!("{error} after {filled} bytes"),
            }
        }
    }

    pub fn ask(&mut self, request: &[u8], answer: &[u8]) {
        self.send(request);
        self.expect(answer);
    }

    /// Nothing comes but the end of TLS, said properly, and then that of the stream.
    pub fn expect_goodbye(&mut self) {
        loop {
            match self.tls.reader().read(&mut [0]) {
                Ok(0) => break,
                Ok(_) => panic!("a byte before the end"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => _ = self.receive().unwrap(),
                Err(error) => panic!("no proper end: {error}"),
            }
        }
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0);
    }

    /// Why the server refuses this client: the alert that it sends, or how the stream ends.
    pub fn refusal(&mut self) -> String {
        if let Err(error) = self.handshake() {
            return error;
        }
        // The server learns of a client's certificate only after the client is done.
        loop {
            match self.receive() {
                Err(error) => return error,
                Ok(_) => assert!(self.tls.reader().read(&mut [0]).is_err(), "it is served"),
            }
        }
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.tls.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Says that it sends no more, and sends this behind it.
    pub fn close(&mut self, garbage: &[u8]) {
        self.tls.send_close_notify();
        let mut records = self.records();
        records.extend_from_slice(garbage);
        self.stream.write_all(&records).unwrap();
    }

    /// Closes its side of the socket, without a word within TLS.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads to the end, however it comes.
    pub fn drain(&mut self) {
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}
