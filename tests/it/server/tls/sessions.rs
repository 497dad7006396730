//! What goes well: whole draws, large requests and replies, records cut anywhere, both ends.

use rustls::NamedGroup;
use sorteo::metrics::HandshakeResult;
use sorteo::server::Limits;

use super::certificates::{NOW, Site, intermediate, server_certificate};
use super::client::{TlsClient, config};
use crate::server::{
    ACK_BATCH_2, ACK_DONE, COUNTED_ACK, FRESH_STATUS, NO_WINNERS, NOT_READY, SECOND_HALF, SHORT, done,
    half_batch, store_long_winners, winning_batch,
};
use crate::test_server::{
    Client, DEADLINE, Setup, TestServer, counted, frame, frames, long_winning_lines, until,
};

pub fn start(site: &Site, agencies: u32, is_required: bool) -> TestServer {
    Setup { tls: Some(site.load(is_required)), ..Setup::agencies(agencies) }.start()
}

pub fn start_with(site: &Site, set: impl FnOnce(&mut Limits)) -> TestServer {
    Setup { tls: Some(site.load(false)), ..Setup::agencies(2) }.limits(set).start()
}

pub fn connect(server: &TestServer, site: &Site) -> TlsClient {
    TlsClient::connect(server.address(), config(&site.authority, None))
}

#[test]
fn a_whole_draw_of_two_agencies_one_of_them_without_tls() {
    let site = Site::new();
    let server = start(&site, 2, false);
    let mut encrypted = connect(&server, &site);
    let mut plain = server.connect();
    encrypted.ask(&winning_batch(1, &["1", "2"]), ACK_BATCH_2);
    plain.ask(&winning_batch(2, &["3", "4"]), ACK_BATCH_2);
    encrypted.ask(&done(1), ACK_DONE);
    encrypted.ask(&frame("GET_WINNERS|1"), NOT_READY);
    encrypted.send(&frame("WAIT_WINNERS|1|60000"));
    plain.ask(&done(2), ACK_DONE);
    encrypted.expect(&frame("WINNERS|OK|1,2|\n"));
    plain.ask(&frame("GET_WINNERS|2"), &frame("WINNERS|OK|3,4\n"));
    // The other dialect, on the same port.
    connect(&server, &site).ask(&counted("GET_WINNERS|3"), b"0\n");
    assert_eq!(server.draws_made(), 1);
    assert_eq!(server.handshakes(HandshakeResult::success), 2);
}

#[test]
fn the_key_exchange_is_the_hybrid_one_and_the_protocol_tls_1_3_without_tickets() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = connect(&server, &site);
    assert_eq!(client.tls.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(client.tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.tls.alpn_protocol(), Some(&b"sorteo/1"[..]));
    client.ask(&frame("STATUS"), FRESH_STATUS);
    assert_eq!(client.tls.tls13_tickets_received(), 0);
}

#[test]
fn a_client_that_names_no_protocol_is_served() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut config = config(&site.authority, None);
    config.alpn_protocols.clear();
    TlsClient::connect(server.address(), config).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_client_certificate_of_an_agency_is_accepted_and_so_is_none() {
    let site = Site::new().with_clients(&[]);
    let server = start(&site, 2, true);
    let issued = site.client(7);
    let mut client = TlsClient::connect(server.address(), config(&site.authority, Some(&issued)));
    client.ask(&frame("STATUS"), FRESH_STATUS);
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_large_upload_and_large_winners_are_whole() {
    let site = Site::new();
    let server = start(&site, 1, true);
    let mut client = connect(&server, &site);
    // Far more than a record, and than a read.
    let lines = long_winning_lines(1, 0, 3000);
    client.ask(&counted(&lines), COUNTED_ACK);
    assert_eq!(server.stored_bets(), 3000);
    client.ask(&done(1)[..0], b"");
    let request = counted("GET_WINNERS|1");
    client.send(&request);
    let expected = [format!("{}\n", lines.len()).into_bytes(), lines.into_bytes()].concat();
    client.expect(&expected);
}

#[test]
fn many_requests_in_one_record_and_one_request_in_many_records() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = connect(&server, &site);
    client.ask(&frame("STATUS").repeat(200), &FRESH_STATUS.repeat(200));
    let records: Vec<u8> =
        winning_batch(1, &["1", "2"]).iter().flat_map(|byte| client.records_of(&[*byte])).collect();
    std::io::Write::write_all(&mut client.stream, &records).unwrap();
    client.expect(ACK_BATCH_2);
}

#[test]
fn what_arrives_byte_by_byte_is_served_from_the_first_byte_of_the_handshake() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = TlsClient::new(server.address(), config(&site.authority, None));
    while client.tls.is_handshaking() {
        for byte in client.records() {
            std::io::Write::write_all(&mut client.stream, &[byte]).unwrap();
        }
        if client.tls.is_handshaking() {
            client.handshake_step();
        }
    }
    // The last of the handshake, and a request with it.
    let mut records = client.records();
    records.extend(client.records_of(&winning_batch(1, &["1", "2"])));
    for byte in records {
        std::io::Write::write_all(&mut client.stream, &[byte]).unwrap();
    }
    client.expect(ACK_BATCH_2);
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_answered() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = TlsClient::new(server.address(), config(&site.authority, None));
    client.flush().unwrap();
    while client.tls.is_handshaking() {
        client.handshake_step();
    }
    client.ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn both_ends_of_a_session_are_said() {
    let site = Site::new();
    let server = start(&site, 2, true);
    // The client's: it gets its reply and the server's, whatever comes behind.
    for garbage in [&b""[..], b"\x17\x03\x03\0\x05hello", &[0; 100_000]] {
        let mut client = connect(&server, &site);
        client.send(&frame("STATUS"));
        client.close(garbage);
        client.expect(FRESH_STATUS);
        client.expect_goodbye();
    }
    // A bare end of the stream.
    let mut client = connect(&server, &site);
    client.send(&frame("STATUS"));
    client.half_close();
    client.expect(FRESH_STATUS);
    client.expect_goodbye();
    // The server's, after its last reply.
    let mut client = connect(&server, &site);
    client.send(b"99999999999\n");
    client.expect(b"19\nERROR_INVALID_BATCH");
    client.expect_goodbye();
}

#[test]
fn a_server_that_stops_says_so_to_an_idle_peer_and_finishes_a_half_received_batch() {
    let site = Site::new();
    let mut server = start_with(&site, |limits| {
        (limits.drain_timeout, limits.handshake_timeout) = (6 * DEADLINE, 6 * DEADLINE);
    });
    let mut idle = connect(&server, &site);
    idle.ask(&frame("STATUS"), FRESH_STATUS);
    let mut busy = connect(&server, &site);
    busy.ask(&[frame("STATUS"), half_batch()].concat(), FRESH_STATUS);
    // One that is in its handshake is not waited for.
    let mut beginning = TlsClient::new(server.address(), config(&site.authority, None));
    std::io::Write::write_all(&mut beginning.stream, &[0x16, 3, 1]).unwrap();
    server.begin_to_stop();
    idle.expect_goodbye();
    busy.ask(&frame(SECOND_HALF), ACK_BATCH_2);
    busy.expect_goodbye();
    server.wait_end().unwrap();
    assert_eq!(server.stored_bets(), 2);
}

#[test]
fn a_half_received_batch_of_a_peer_that_goes_is_not_stored() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut half = connect(&server, &site);
    half.ask(&[frame("STATUS"), half_batch()].concat(), FRESH_STATUS);
    half.close(b"");
    half.expect_goodbye();
    // Cut within a record.
    let mut cut = connect(&server, &site);
    let records = cut.records_of(&winning_batch(1, &["1", "2"]));
    std::io::Write::write_all(&mut cut.stream, &records[..records.len() - 1]).unwrap();
    cut.half_close();
    cut.expect_goodbye();
    assert_eq!(server.stored_bets(), 0);
    connect(&server, &site).ask(&winning_batch(1, &["1", "2"]), ACK_BATCH_2);
}

#[test]
fn a_peer_that_never_reads_is_closed() {
    let site = Site::new();
    let server = start(&site, 1, true);
    let mut client = connect(&server, &site);
    client.ask(&done(1), ACK_DONE);
    let request = frame("STATUS").repeat(100);
    until("the peer is closed", || {
        let records = client.records_of(&request);
        std::io::Write::write_all(&mut client.stream, &records).is_err()
    });
}

#[test]
fn a_peer_that_asks_once_and_never_reads_is_closed_in_time() {
    let site = Site::new();
    let server = Setup { tls: Some(site.load(true)), ..Setup::agencies(1) }
        .limits(|limits| {
            limits.request_timeout = SHORT;
            limits.connections_max = 1;
        })
        .start();
    store_long_winners(&server, 1, 30_000);
    let mut client = connect(&server, &site);
    client.send(&counted("GET_WINNERS|1"));
    // Its place is free when it is closed.
    until("the peer that does not read is closed", || {
        let mut next = TlsClient::new(server.address(), config(&site.authority, None));
        next.handshake().is_ok()
    });
}

#[test]
fn a_record_that_does_not_arrive_whole_in_time_is_closed() {
    let site = Site::new();
    let server = start_with(&site, |limits| limits.request_timeout = SHORT);
    let mut idle = connect(&server, &site);
    let mut dripping = connect(&server, &site);
    let records = dripping.records_of(&[b'1'; 16 << 10]);
    let mut drops = records.iter();
    until("the dripping peer is closed", || {
        std::io::Write::write_all(&mut dripping.stream, &[*drops.next().unwrap()]).is_err()
    });
    idle.ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn half_received_requests_within_tls_are_bounded_too() {
    let site = Site::new();
    let server = start_with(&site, |limits| limits.buffer_bytes_max = 1000);
    let mut client = connect(&server, &site);
    let request = counted(&long_winning_lines(1, 0, 1000));
    let _ = client.send_some(&request);
    client.expect(b"10\nERROR_BUSY");
    assert_eq!(server.stored_bets(), 0);
}

#[test]
fn hundreds_of_sessions_hold_up_nobody() {
    let site = Site::new();
    let server = start(&site, 2, false);
    let mut idle: Vec<TlsClient> = (0..200).map(|_| connect(&server, &site)).collect();
    let mut plain: Client = server.connect();
    plain.ask(&frame("STATUS"), FRESH_STATUS);
    for client in &mut idle {
        client.ask(&frames(&["STATUS", "STATUS"]), &FRESH_STATUS.repeat(2));
    }
}

#[test]
fn a_chain_with_an_issuer_between_is_sent_whole() {
    let site = Site::new();
    let middle = intermediate("middle", &site.authority);
    let issued = server_certificate(&middle, NOW);
    site.write("cert.pem", &[issued.certificate.pem(), middle.pem()].concat());
    site.write_key("key.pem", &issued.key);
    let server = start(&site, 2, true);
    // The client knows the root alone.
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn operators_get_the_same_certificate_for_http_and_are_asked_for_none() {
    let site = Site::new().with_clients(&[]);
    let tls = site.load(true);
    let mut server = rustls::ServerConnection::new(tls.for_operators()).unwrap();
    let mut config = config(&site.authority, None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.write_tls(&mut there).unwrap();
        server.read_tls(&mut &there[..]).unwrap();
        server.process_new_packets().unwrap();
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        client.read_tls(&mut &back[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(client.peer_certificates().is_some() && server.peer_certificates().is_none());
}

#[test]
fn a_reply_of_any_length_arrives_whole_at_a_peer_that_reads_it_late() {
    let site = Site::new();
    let server = start(&site, 9, false);
    // From what the systems in between take to a few times that: somewhere in there, only what
    // is encrypted already is left to be sent.
    let bets = |agency: u32| 300 + 100 * agency;
    (1..=9).for_each(|agency| store_long_winners(&server, agency, bets(agency)));
    let mut other = server.connect();
    for agency in 1..=9 {
        other.ask(&done(agency), ACK_DONE);
    }
    for agency in 1..=9 {
        let config = config(&site.authority, None);
        let mut late = TlsClient::connect_with_small_buffer(server.address(), config);
        late.send(&counted(&format!("GET_WINNERS|{agency}")));
        // Others are served while it does not read.
        (0..50).for_each(|_| other.ask(&frame("GET_WINNERS|99"), NO_WINNERS));
        let mut reply = Vec::new();
        while reply.last() != Some(&b'\n') {
            let mut byte = [0];
            late.read_exactly(&mut byte);
            reply.extend(byte);
        }
        let length: usize = std::str::from_utf8(&reply).unwrap().trim().parse().unwrap();
        let mut winners = vec![0; length];
        late.read_exactly(&mut winners);
        let lines = winners.split(|byte| *byte == b'\n').count();
        assert_eq!(lines, bets(agency) as usize, "{agency}");
    }
}

#[test]
fn a_part_of_a_record_behind_a_wait_has_its_time_from_the_end_of_the_wait() {
    let site = Site::new();
    let server = start_with(&site, |limits| limits.request_timeout = 3 * SHORT);
    let mut client = connect(&server, &site);
    let wait = client.records_of(&frame("WAIT_WINNERS|1|1000"));
    let next = client.records_of(&frame("STATUS"));
    let (part, rest) = next.split_at(next.len() / 2);
    std::io::Write::write_all(&mut client.stream, &[&wait, part].concat()).unwrap();
    client.expect(&frame("WINNERS|ERR|not_ready\n"));
    // By now the server has noticed that the rest is missing.
    (0..5).for_each(|_| server.ask_once(&frame("STATUS"), FRESH_STATUS));
    std::io::Write::write_all(&mut client.stream, rest).unwrap();
    client.expect(FRESH_STATUS);
}

#[test]
fn new_keys_within_a_session_are_taken() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = connect(&server, &site);
    for _ in 0..3 {
        client.tls.refresh_traffic_keys().unwrap();
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
}
