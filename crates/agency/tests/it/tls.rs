//! TLS: whom a client trusts, what it offers, and what each failure leads to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::date_time_ymd;
use sorteo_agency::{AgencyError, Client, Security, SecurityError, TlsProblem, counted};
use sorteo_protocol::AgencyId;

use crate::authority::{Authority, Issued, token, with_token};
use crate::relay::{self, Way};
use crate::server::{Act, Server, options};
use crate::uploads::{ROWS, upload};

/// The error of a client that trusts this authority, and connects to this server; which
/// must not be tried twice.
fn refusal(server: &Server, authority: &Authority) -> (TlsProblem, String) {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::new(server.options(authority.security(folder.path()))).status().unwrap_err();
    assert_eq!(server.seen().connections.len(), 1, "nothing is tried again");
    problem(&error)
}

/// What is wrong, and what a person is told of it behind the server's address.
fn problem(error: &AgencyError) -> (TlsProblem, String) {
    let AgencyError::Security(SecurityError::Tls(tls)) = error else { panic!("{error}") };
    let told = error.to_string();
    assert!(told.starts_with("127.0.0.1:") && !told.contains('\n'), "{told}");
    (tls.problem().clone(), told.split_once(": ").unwrap().1.to_owned())
}

/// The error of a client that connects to a server with this certificate.
fn refused_certificate(authority: &Authority, issued: &Issued) -> (TlsProblem, String) {
    refusal(&Server::tls(issued.server(), |_, _, _| Act::Serve), authority)
}

#[test]
fn an_upload_over_tls_is_stored_and_offers_what_it_should() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = Server::tls(authority.server(), |_, _, _| Act::Serve);
    let mut security = authority.security(folder.path());
    security.token = with_token(folder.path(), &token(1)).token;
    let (acknowledged, sent) = upload(server.options(security));
    sent.unwrap();
    assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
    assert_eq!(server.seen().handshakes, ["sorteo/1 TLSv1_3 X25519MLKEM768"]);
}

#[test]
fn a_certificate_of_an_authority_that_is_not_trusted_is_refused() {
    let (problem, told) =
        refused_certificate(&Authority::new(), &Authority::new().issue(&["127.0.0.1"], |_| {}));
    assert!(matches!(problem, TlsProblem::Untrusted(_)), "{told}");
    assert!(told.starts_with("the server's certificate is not trusted: no authority in /"), "{told}");
    assert!(told.ends_with("/ca.pem issued it"), "{told}");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    for other in ["127.0.0.2", "localhost"] {
        let (problem, told) = refused_certificate(&authority, &authority.issue(&[other], |_| {}));
        assert_eq!(problem, TlsProblem::WrongName);
        assert!(told.starts_with("the server's certificate is for another name: connect by"), "{told}");
    }
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let authority = Authority::new();
    let expired = authority.issue(&["127.0.0.1"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let (problem, told) = refused_certificate(&authority, &expired);
    assert_eq!(problem, TlsProblem::Expired);
    assert_eq!(told, "the server's certificate has expired, or this machine's clock is wrong");
    let early = authority.issue(&["127.0.0.1"], |params| params.not_before = date_time_ymd(2200, 1, 1));
    assert_eq!(refused_certificate(&authority, &early).0, TlsProblem::NotYetValid);
}

/// A server that reads a little, and sends these bytes.
fn sending(bytes: &'static [u8]) -> Server {
    Server::start(|mut socket: TcpStream, _, _| {
        let _ = socket.read(&mut [0; 4096]);
        let _ = socket.write_all(bytes);
        let _ = socket.read(&mut [0; 4096]);
    })
}

#[test]
fn a_server_that_replies_in_plain_text_is_refused() {
    for reply in [&b"\0\0\0\x12ACK|ERR|bad_frame\n"[..], b"19\nERROR_INVALID_BATCH", b"HTTP/1.1 400\r\n\r\n"]
    {
        let (problem, told) = refusal(&sending(reply), &Authority::new());
        assert_eq!(problem, TlsProblem::PlainText);
        assert_eq!(told, "the server replied in plain text: it does not speak TLS there");
    }
}

#[test]
fn a_server_of_an_older_tls_is_refused() {
    // The alert `protocol_version`; and the beginning of a handshake in TLS 1.2, with the
    // cipher suite 0x1301 and no extension.
    let mut hello = b"\x16\x03\x03\0\x2a\x02\0\0\x26\x03\x03".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\0\x13\x01\0");
    for bytes in [&b"\x15\x03\x03\0\x02\x02\x46"[..], hello.leak()] {
        let (problem, told) = refusal(&sending(bytes), &Authority::new());
        assert_eq!((problem, &*told), (TlsProblem::Version, "the server does not speak TLS 1.3"));
    }
}

#[test]
fn a_server_of_another_protocol_is_refused_and_one_that_names_none_is_not() {
    let authority = Authority::new();
    let mut config = authority.server();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (problem, _) = refusal(&Server::tls(config, |_, _, _| Act::Serve), &authority);
    assert_eq!(problem, TlsProblem::Protocol);
    let (folder, mut config) = (tempfile::tempdir().unwrap(), authority.server());
    config.alpn_protocols.clear();
    let server = Server::tls(config, |_, _, _| Act::Serve);
    Client::new(server.options(authority.security(folder.path()))).status().unwrap();
}

#[test]
fn a_server_that_closes_in_the_handshake_is_tried_again_and_told_of() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = Server::start(|mut socket, _, _| _ = socket.read(&mut [0; 4096]));
    let mut options = server.options(authority.security(folder.path()));
    options.give_up_after = Duration::from_millis(500);
    let error = Client::new(options).status().unwrap_err();
    assert!(matches!(error, AgencyError::Unreachable { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("closed the connection during the TLS handshake: TLS may be off there"), "{told}");
    assert!(server.seen().connections.len() > 1);
}

#[test]
fn a_server_that_is_restarted_is_reached() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = Server::tls(authority.server(), |_, _, _| Act::Serve);
    // It takes the first connections down in their handshakes.
    let relay = relay::start(server.address.clone(), |at| {
        let bytes = [0, 700, 2_000].get(at).copied().unwrap_or(i64::MAX);
        Way { bytes, at_once: 4096 }
    });
    Client::new(options(&relay, authority.security(folder.path()))).status().unwrap();
    assert_eq!(server.seen().handshakes.len(), 1);
}

#[test]
fn a_server_that_never_ends_its_handshake_is_given_up() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    // Bytes of a record that never ends, each in time for itself.
    let server = Server::start(|mut socket, _, _| {
        let _ = socket.write_all(b"\x16\x03\x03\x40\0");
        while socket.write_all(b"\0").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut options = server.options(authority.security(folder.path()));
    options.give_up_after = Duration::from_millis(400);
    let started = Instant::now();
    let error = Client::new(options).status().unwrap_err().to_string();
    assert!(error.contains("the TLS handshake did not end in time"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn a_plain_client_that_gets_no_reply_is_told_of_tls() {
    for security in [Security::default(), with_token(&tempfile::tempdir().unwrap().keep(), &token(1))] {
        let server = Server::start(|mut socket, _, _| _ = socket.read(&mut [0; 4096]));
        let mut options = server.options(security);
        options.give_up_after = Duration::from_millis(300);
        let error = Client::new(options).status().unwrap_err().to_string();
        assert!(error.contains("before any reply: if it requires TLS, give --tls"), "{error}");
    }
}

#[test]
fn a_handshake_may_arrive_in_any_pieces() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = Server::tls(authority.server(), |_, _, _| Act::Serve);
    for at_once in [1, 2, 7, 1000] {
        let relay = relay::start(server.address.clone(), move |_| Way { bytes: i64::MAX, at_once });
        Client::new(options(&relay, authority.security(folder.path()))).status().unwrap();
    }
    assert_eq!(server.seen().handshakes.len(), 4, "each at its first try");
}

#[test]
fn a_long_reply_arrives_whole() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let winners: String = (0..20_000).map(|row| format!("Ana|Paz|{row}|2000-01-01|7|1\n")).collect();
    let payload = winners.trim_end();
    let reply = format!("{}\n{payload}", payload.len()).into_bytes();
    let config = std::sync::Arc::new(authority.server());
    let server = Server::start(move |socket, _, _| {
        let session = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, socket);
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            let is_question = bytes[..read].windows(11).any(|text| text == b"GET_WINNERS");
            let _ = stream.write_all(if is_question { &reply } else { b"3\nACK" });
        }
    });
    let file = folder.path().join("bets.csv");
    std::fs::write(&file, "Ana,Paz,1,2000-01-01,1\n").unwrap();
    let options = server.options(authority.security(folder.path()));
    let documents = counted::upload(&options, AgencyId(1), &file, 99).unwrap();
    assert_eq!(documents.len(), 20_000);
    assert_eq!(documents.last().unwrap(), "19999");
}

#[test]
fn a_client_proves_who_it_is_by_its_certificate() {
    let authority = Authority::new();
    let status = |certificate: Option<Issued>| {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::tls(authority.server_with_client_certificates(), |_, _, _| Act::Serve);
        let mut security = authority.security(folder.path());
        security.tls.as_mut().unwrap().certificate = certificate.map(|own| own.write(folder.path()));
        Client::new(server.options(security)).status()
    };
    status(Some(authority.issue(&["agency"], |_| {}))).unwrap();
    let (none, told) = problem(&status(None).unwrap_err());
    assert_eq!(none, TlsProblem::CertificateRequired, "{told}");
    let (other, told) = problem(&status(Some(Authority::new().issue(&["agency"], |_| {}))).unwrap_err());
    assert!(matches!(other, TlsProblem::CertificateRefused(_)), "{told}");
}

#[test]
fn the_files_are_read_anew_for_each_connection() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = Server::tls(authority.server(), |_, _, _| Act::Serve);
    let options = server.options(Authority::new().security(folder.path()));
    assert!(matches!(
        problem(&Client::new(options.clone()).status().unwrap_err()).0,
        TlsProblem::Untrusted(_)
    ));
    // The same options, and a file with another authority.
    authority.write(folder.path());
    Client::new(options).status().unwrap();
}
