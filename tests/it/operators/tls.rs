//! The operators' HTTP with TLS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use sorteo::ops::{OpsTls, Role};
use sorteo_test_support::process::assert_names;

use super::in_process::{Operators, Setup};
use crate::http::{Response, ask, bearer, cookie};
use crate::test_server::DEADLINE;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Handshakes that one address may begin at once.
const HANDSHAKES_AT_ONCE: usize = 256;

/// A server's certificate, and a client that trusts only it.
fn certificate() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn start(is_required: bool, config: Arc<Mutex<Arc<ServerConfig>>>) -> Operators {
    let config = Arc::new(move || Arc::clone(&config.lock().unwrap()));
    let tls = OpsTls { is_required, config, handshake_timeout: HANDSHAKE_TIMEOUT };
    Setup { tls: Some(tls), has_socket: true, ..Setup::default() }.start()
}

fn encrypted(operators: &Operators, client: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(client), name).unwrap(), operators.connect())
}

fn ask_encrypted(operators: &Operators, client: &Arc<ClientConfig>, path: &str, headers: &str) -> Response {
    ask(encrypted(operators, client), "GET", path, headers, "")
}

#[test]
fn optional_tls_serves_both_and_its_cookie_is_for_tls_alone() {
    let (server, client) = certificate();
    let operators = start(false, Arc::new(Mutex::new(server)));
    let token = operators.tokens.add(Some(Role::Viewer));
    let header = bearer(token.reveal());
    assert_eq!(operators.get("/api/status", &header).code, 200);
    assert_eq!(ask_encrypted(&operators, &client, "/api/status", &header).code, 200);
    let form = format!("token={}", token.reveal());
    let signed_in = ask(encrypted(&operators, &client), "POST", "/sign-in", "", &form);
    assert_names(&signed_in.headers["set-cookie"], &["; HttpOnly; SameSite=Strict; Path=/; Secure"]);
    let session = cookie(signed_in.headers["set-cookie"].split(';').next().unwrap());
    assert_eq!(ask_encrypted(&operators, &client, "/api/me", &session).code, 200);
}

#[test]
fn required_tls_closes_plain_connections_without_a_response_except_on_the_socket() {
    let (server, client) = certificate();
    let operators = start(true, Arc::new(Mutex::new(server)));
    assert_eq!(ask_encrypted(&operators, &client, "/healthz", "").code, 200);
    let mut plain = operators.connect();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    match plain.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(rest, b"");
    let socket = UnixStream::connect(operators.socket()).unwrap();
    assert_eq!(ask(socket, "GET", "/healthz", "", "").code, 200);
}

#[test]
fn a_new_certificate_is_used_for_the_next_connection() {
    let (server, client) = certificate();
    let current = Arc::new(Mutex::new(server));
    let operators = start(true, Arc::clone(&current));
    let mut kept = encrypted(&operators, &client);
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = [0; 12];
    kept.read_exact(&mut head).unwrap();
    let (new_server, new_client) = certificate();
    *current.lock().unwrap() = new_server;
    assert_eq!(ask_encrypted(&operators, &new_client, "/healthz", "").code, 200);
    let refused = encrypted(&operators, &client).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidData, "{refused}");
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    kept.read_exact(&mut head).unwrap();
}

#[test]
fn another_protocol_is_refused_and_a_handshake_that_does_not_end_is_closed() {
    let (server, client) = certificate();
    let operators = start(true, Arc::new(Mutex::new(server)));
    let mut other = (*client).clone();
    other.alpn_protocols = vec![b"sorteo/1".to_vec()];
    let refused = encrypted(&operators, &Arc::new(other)).write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert_names(&refused.unwrap_err().to_string(), &["NoApplicationProtocol"]);
    let mut http = (*client).clone();
    http.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(ask_encrypted(&operators, &Arc::new(http), "/healthz", "").code, 200);
    for sent in [&b""[..], b"\x16\x03\x01"] {
        let since = Instant::now();
        let mut half = operators.connect();
        half.write_all(sent).unwrap();
        let _ = half.read_to_end(&mut Vec::new());
        assert!(since.elapsed() < 3 * HANDSHAKE_TIMEOUT, "{sent:?}");
    }
}

#[test]
fn an_address_that_begins_too_many_handshakes_is_closed_and_no_other_is() {
    let (server, client) = certificate();
    let operators = start(false, Arc::new(Mutex::new(server)));
    let (flood, other) = (Ipv4Addr::new(127, 0, 9, 1), Ipv4Addr::new(127, 0, 9, 2));
    let session = || {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::clone(&client), name).unwrap()
    };
    let mut hello = Vec::new();
    session().write_tls(&mut hello).unwrap();
    // Sent again and again, it costs the peer nothing.
    let is_begun = || {
        let mut stream = operators.connect_from(flood);
        stream.write_all(&hello).unwrap();
        stream.read(&mut [0]).is_ok_and(|length| length > 0)
    };
    let begun = (0..HANDSHAKES_AT_ONCE + 400).filter(|_| is_begun()).count();
    assert!((HANDSHAKES_AT_ONCE..HANDSHAKES_AT_ONCE + 300).contains(&begun), "{begun}");
    assert_eq!(ask(operators.connect_from(flood), "GET", "/healthz", "", "").code, 200, "without TLS");
    let healthy = |from| {
        let mut stream = StreamOwned::new(session(), operators.connect_from(from));
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok()
            && stream.read_exact(&mut [0; 12]).is_ok()
    };
    assert!(healthy(other));
    let since = Instant::now();
    while !healthy(flood) {
        assert!(since.elapsed() < DEADLINE, "the address may never again");
    }
}
