//! Who is refused, and how: with an alert where TLS has begun, else without a reply.

use sorteo::metrics::HandshakeResult;

use super::certificates::{FUTURE, NOW, PAST, Site, authority, client_certificate};
use super::client::{TlsClient, config};
use super::sessions::{connect, start};
use crate::server::FRESH_STATUS;
use crate::test_server::{Setup, frame, until};

#[test]
fn where_tls_is_required_a_plain_peer_is_closed_without_a_reply() {
    let site = Site::new();
    let server = start(&site, 2, true);
    for request in [frame("STATUS"), b"13\nGET_WINNERS|1".to_vec(), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut client = server.connect();
        client.try_send(&request);
        client.expect_gone();
    }
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn where_tls_is_off_a_peer_that_starts_it_is_closed_without_a_reply() {
    let site = Site::new();
    let server = Setup::agencies(2).start();
    let mut client = TlsClient::new(server.address(), config(&site.authority, None));
    let hello = client.records();
    let mut client = server.connect();
    client.send(&hello);
    client.expect_gone();
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_client_certificate_that_is_not_right_is_refused_with_an_alert_and_counted() {
    let mut site = Site::new();
    let agency = "urn:sorteo:agency:1";
    let issue = |site: &Site, uris: &[&str], years| client_certificate(&site.authority, uris, years);
    let revoked = issue(&site, &[agency], NOW);
    site = site.with_clients(&[&revoked]);
    let server = start(&site, 2, true);
    let foreign = client_certificate(&authority("foreign"), &[agency], NOW);
    let namesake = client_certificate(&authority("site"), &[agency], NOW);
    for (issued, alert, result) in [
        (revoked, "CertificateRevoked", HandshakeResult::certificate_revoked),
        (issue(&site, &[agency], PAST), "CertificateExpired", HandshakeResult::certificate_expired),
        (issue(&site, &[agency], FUTURE), "CertificateExpired", HandshakeResult::certificate_not_yet_valid),
        (foreign, "UnknownCA", HandshakeResult::certificate_unknown_issuer),
        (namesake, "", HandshakeResult::certificate_unknown_issuer),
        (issue(&site, &[], NOW), "AccessDenied", HandshakeResult::certificate_without_agency),
        (
            issue(&site, &[agency, "urn:sorteo:agency:2"], NOW),
            "AccessDenied",
            HandshakeResult::certificate_without_agency,
        ),
        (issue(&site, &[agency, agency], NOW), "AccessDenied", HandshakeResult::certificate_without_agency),
        (
            issue(&site, &["urn:sorteo:agency:01"], NOW),
            "AccessDenied",
            HandshakeResult::certificate_without_agency,
        ),
        (
            issue(&site, &["urn:sorteo:agency:1", "urn:sorteo:operator:1"], NOW),
            "AccessDenied",
            HandshakeResult::certificate_without_agency,
        ),
    ] {
        let before = server.handshakes(result);
        let mut client = TlsClient::new(server.address(), config(&site.authority, Some(&issued)));
        // A request behind the handshake, as a client sends it, is not carried out.
        let refusal = client.refusal();
        assert!(refusal.contains(alert) && refusal.contains("alert"), "{result}: {refusal}");
        until("it is counted", || server.handshakes(result) == before + 1);
    }
    // Names of others do not matter.
    let good = issue(&site, &[agency, "spiffe://example.org/agency"], NOW);
    let mut client = TlsClient::connect(server.address(), config(&site.authority, Some(&good)));
    client.ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_request_right_behind_a_refused_certificate_is_not_carried_out() {
    let site = Site::new().with_clients(&[]);
    let server = start(&site, 2, true);
    let issued = client_certificate(&site.authority, &[], NOW);
    let mut client = TlsClient::new(server.address(), config(&site.authority, Some(&issued)));
    client.handshake().unwrap();
    let _ = client.send_some(&frame("BET|1|Ana|Paz|4|1999-03-17|7574"));
    assert!(client.refusal().contains("AccessDenied"));
    assert_eq!(server.stored_bets(), 0);
}

#[test]
fn a_protocol_that_is_not_ours_is_refused() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut config = config(&site.authority, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"sorteo/2".to_vec()];
    let refusal = TlsClient::new(server.address(), config).refusal();
    assert!(refusal.contains("NoApplicationProtocol"), "{refusal}");
    until("it is counted", || server.handshakes(HandshakeResult::alpn_mismatch) == 1);
}

#[test]
fn a_damaged_record_ends_the_session_and_nothing_of_it_is_stored() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = connect(&server, &site);
    let mut records = client.records_of(&frame("BET|1|Ana|Paz|4|1999-03-17|7574"));
    *records.last_mut().unwrap() ^= 1;
    std::io::Write::write_all(&mut client.stream, &records).unwrap();
    let refusal = client.refusal();
    assert!(refusal.contains("BadRecordMac"), "{refusal}");
    assert_eq!(server.stored_bets(), 0);
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn an_address_that_begins_too_many_handshakes_is_closed_and_counted_and_plain_peers_are_not() {
    let site = Site::new();
    let server = start(&site, 2, false);
    let mut closed = 0;
    for _ in 0..sorteo::server::HANDSHAKES_AT_ONCE.get() + 400 {
        let mut client = server.connect();
        client.try_send(&[0x16]);
        closed += u64::from(client.has_answer());
    }
    until("some are refused", || server.handshakes(HandshakeResult::rate_limited) > 0);
    assert!(closed <= server.handshakes(HandshakeResult::rate_limited));
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
    until("the address may again", || {
        TlsClient::new(server.address(), config(&site.authority, None)).handshake().is_ok()
    });
}
