//! Peers that break off or stall in the handshake, at every byte.

use std::io::Write as _;

use sorteo::metrics::HandshakeResult;

use super::certificates::Site;
use super::client::{TlsClient, config};
use super::sessions::{connect, start, start_with};
use crate::server::{FRESH_STATUS, SHORT};
use crate::test_server::{Setup, frame, until};

#[test]
fn a_client_hello_that_is_cut_at_any_byte_ends_that_connection_alone() {
    let site = Site::new();
    let server = start(&site, 2, false);
    let hello = TlsClient::new(server.address(), config(&site.authority, None)).records();
    // An address may begin only so many.
    let step = hello.len().div_ceil(900);
    let cuts: Vec<usize> = (1..hello.len()).filter(|cut| *cut < 300 || cut % (2 * step) == 0).collect();
    for cut in &cuts {
        let mut client = server.connect();
        client.send(&hello[..*cut]);
        client.half_close();
        client.expect_end();
    }
    until("all are counted", || server.handshakes(HandshakeResult::closed) == cuts.len() as u64);
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_client_hello_with_any_byte_changed_is_refused_or_served_and_the_server_lives() {
    let site = Site::new();
    let server = start(&site, 2, false);
    let hello = TlsClient::new(server.address(), config(&site.authority, None)).records();
    for at in (0..hello.len()).filter(|at| *at < 120 || at % 17 == 0) {
        let mut changed = hello.clone();
        changed[at] ^= 0x41;
        let mut client = server.connect();
        client.try_send(&changed);
        client.half_close_if_open();
        client.read_to_any_end();
    }
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_session_that_is_closed_within_its_handshake_ends() {
    let site = Site::new();
    let server = start(&site, 2, true);
    let mut client = TlsClient::new(server.address(), config(&site.authority, None));
    client.flush().unwrap();
    client.handshake_step();
    client.close(b"garbage");
    client.half_close();
    client.drain();
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn peers_that_stall_in_the_handshake_hold_no_worker_and_are_closed_by_its_deadline() {
    let site = Site::new();
    let server = start_with(&site, |limits| {
        limits.workers = 2;
        limits.handshake_timeout = 4 * SHORT;
    });
    let hello = TlsClient::new(server.address(), config(&site.authority, None)).records();
    let mut stalled = Vec::new();
    for cut in [1, 5, 100, hello.len() - 1, hello.len()].repeat(20) {
        let mut client = server.connect();
        client.send(&hello[..cut]);
        stalled.push(client);
    }
    // Others are served meanwhile, also ones that begin a handshake.
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
    let mut idle = server.connect();
    for client in &mut stalled {
        client.read_to_any_end();
    }
    until("all are counted", || server.handshakes(HandshakeResult::timeout) == 100);
    idle.ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_peer_that_drips_its_handshake_does_not_prolong_its_deadline() {
    let site = Site::new();
    let server = start_with(&site, |limits| limits.handshake_timeout = SHORT);
    let hello = TlsClient::new(server.address(), config(&site.authority, None)).records();
    let mut client = server.connect();
    // Without its last byte, there is nothing to answer.
    let mut bytes = hello[..hello.len() - 1].iter();
    until("the dripping peer is closed", || {
        client.has_answer() || !client.try_send(&[*bytes.next().expect("it is closed before")])
    });
    until("it is counted", || server.handshakes(HandshakeResult::timeout) == 1);
}

#[test]
fn where_tls_is_required_a_peer_that_sends_nothing_is_closed_by_the_deadline_of_the_handshake() {
    let site = Site::new();
    let server = Setup { tls: Some(site.load(true)), ..Setup::agencies(2) }
        .limits(|limits| limits.handshake_timeout = SHORT)
        .start();
    let mut session = connect(&server, &site);
    server.connect().expect_end();
    // A session may be idle for longer.
    session.ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_peer_that_does_not_read_the_servers_part_of_the_handshake_is_closed() {
    let site = Site::new();
    let server = start_with(&site, |limits| limits.handshake_timeout = SHORT);
    let mut client = TlsClient::new(server.address(), config(&site.authority, None));
    client.flush().unwrap();
    until("it is counted", || server.handshakes(HandshakeResult::timeout) == 1);
    let _ = client.stream.write_all(b"late");
}

#[test]
fn a_client_hello_without_end_is_refused_before_it_takes_much_memory() {
    let site = Site::new();
    let server = start(&site, 2, true);
    // Records of 16 KiB that are parts of a ClientHello of 16 MiB.
    let mut part = [&[0x16, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    part[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    let mut client = server.connect();
    for _ in 0..8 {
        client.try_send(&part);
        part[5..9].copy_from_slice(&[0; 4]);
    }
    // Within 128 KiB; what follows is thrown away, and then the connection is closed.
    until("it is counted", || server.handshakes(HandshakeResult::protocol_error) == 1);
    until("the peer is closed", || !client.try_send(&part));
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
}

/// Linux has every address of 127.0.0.0/8; other systems have only the first.
#[cfg(target_os = "linux")]
#[test]
fn a_flood_of_handshakes_from_one_address_does_not_delay_that_of_another() {
    let site = Site::new();
    let server = start(&site, 2, false);
    let hello = TlsClient::new(server.address(), config(&site.authority, None)).records();
    let mut flood: Vec<_> = (0..900).map(|_| connect_from([127, 0, 0, 2], server.address())).collect();
    for peer in &mut flood {
        peer.write_all(&hello).unwrap();
    }
    connect(&server, &site).ask(&frame("STATUS"), FRESH_STATUS);
    // One behind the other, it would have been the last.
    let has_answer = |peer: &&std::net::TcpStream| peer.peek(&mut [0]).is_ok();
    flood.iter().for_each(|peer| peer.set_nonblocking(true).unwrap());
    let answered = flood.iter().filter(has_answer).count();
    assert!(answered < flood.len() - 50, "{answered} of the flood were before it");
}

#[cfg(target_os = "linux")]
fn connect_from(ip: [u8; 4], server: std::net::SocketAddr) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.into()
}
