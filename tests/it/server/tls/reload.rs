//! New files while the server runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sorteo::metrics::HandshakeResult;

use super::certificates::{NOW, PAST, Site, authority, crl, crl_until, server_certificate};
use super::client::{TlsClient, config};
use super::sessions::connect;
use crate::server::FRESH_STATUS;
use crate::test_server::{Setup, frame, until};

#[test]
fn new_connections_get_the_new_certificate_and_those_that_there_are_go_on() {
    let site = Site::new();
    let tls = site.load(true);
    let server = Setup { tls: Some(tls.clone()), ..Setup::agencies(2) }.start();
    let mut before = connect(&server, &site);
    before.ask(&frame("STATUS"), FRESH_STATUS);
    // One is in its handshake meanwhile.
    let mut beginning = TlsClient::new(server.address(), config(&site.authority, None));
    beginning.flush().unwrap();
    beginning.handshake_step();
    site.renew();
    tls.reload(&site.files).unwrap();
    let mut after = connect(&server, &site);
    assert_ne!(before.certificate(), after.certificate());
    beginning.handshake().unwrap();
    assert_eq!(beginning.certificate(), before.certificate());
    for client in [&mut before, &mut beginning, &mut after] {
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
}

#[test]
fn every_error_keeps_what_there_was() {
    let site = Site::new().with_clients(&[]);
    let tls = site.load(true);
    let server = Setup { tls: Some(tls.clone()), ..Setup::agencies(2) }.start();
    let mut before = connect(&server, &site);
    let certificate = before.certificate();
    let names = ["cert.pem", "key.pem", "ca.pem", "crl.pem"];
    let good = names.map(|name| std::fs::read_to_string(site.path(name)).unwrap());
    let other = server_certificate(&authority("other"), NOW);
    let expired = server_certificate(&site.authority, PAST);
    for (name, text) in [
        ("cert.pem", "".to_owned()),
        ("cert.pem", other.certificate.pem()),
        ("cert.pem", expired.certificate.pem()),
        ("key.pem", "".to_owned()),
        ("key.pem", other.key.serialize_pem()),
        ("ca.pem", "".to_owned()),
        ("ca.pem", authority("other").pem()),
        ("crl.pem", "".to_owned()),
        ("crl.pem", crl(&site.authority, &[], PAST)),
    ] {
        site.write(name, &text);
        tls.reload(&site.files).expect_err(name);
        assert_eq!(connect(&server, &site).certificate(), certificate, "{name}");
        before.ask(&frame("STATUS"), FRESH_STATUS);
        for (name, text) in names.iter().zip(&good) {
            site.write(name, text);
        }
    }
    tls.reload(&site.files).unwrap();
}

#[test]
fn a_certificate_that_is_revoked_is_refused_from_the_next_reload_on() {
    let site = Site::new().with_clients(&[]);
    let tls = site.load(true);
    let server = Setup { tls: Some(tls.clone()), ..Setup::agencies(2) }.start();
    let issued = site.client(1);
    let client = || TlsClient::new(server.address(), config(&site.authority, Some(&issued)));
    let mut accepted = client();
    accepted.handshake().unwrap();
    accepted.ask(&frame("STATUS"), FRESH_STATUS);
    site.write("crl.pem", &crl(&site.authority, &[&issued], NOW));
    tls.reload(&site.files).unwrap();
    let refusal = client().refusal();
    assert!(refusal.contains("CertificateRevoked"), "{refusal}");
}

#[test]
fn once_a_crl_has_expired_no_client_certificate_is_accepted_and_others_are_served() {
    let site = Site::new().with_clients(&[]);
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(2);
    site.write("crl.pem", &crl_until(&site.authority, &[], 2000, soon));
    let server = Setup { tls: Some(site.load(true)), ..Setup::agencies(2) }.start();
    let issued = site.client(1);
    let client = || TlsClient::new(server.address(), config(&site.authority, Some(&issued)));
    until("the CRL expires", || {
        // Paced by the handshake of the one and the reply to the other.
        let _ = client().handshake();
        connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
        server.handshakes(HandshakeResult::crl_expired) > 0
    });
    assert!(client().refusal().contains("alert"));
}
