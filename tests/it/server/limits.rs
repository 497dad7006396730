//! Peers that send slowly, read slowly, or are too many: every time and every amount
//! has a limit.

use super::{
    ACK, ACK_BATCH_2, ACK_DONE, COUNTED_ACK, FRESH_STATUS, SECOND_HALF, SHORT, done, half_batch,
    store_long_winners, winning_batch,
};
use crate::test_server::{Client, Setup, counted, frame, long_winning_lines, until};

#[test]
fn a_request_that_does_not_arrive_whole_in_time_is_closed_and_an_idle_peer_is_not() {
    let server = Setup::agencies(2).limits(|limits| limits.request_timeout = SHORT).start();
    let mut idle = server.connect();
    let mut idle_after_a_request = server.connect();
    idle_after_a_request.ask(&frame("STATUS"), FRESH_STATUS);
    let halves: [&[u8]; 6] = [
        b"\0",
        b"\0\0\0\x06STA",
        &half_batch(),
        b"3",
        b"10\nAna",
        // A whole request before it does not help.
        b"\0\0\0\x06STATUS\0\0",
    ];
    for half in halves {
        let mut client = server.connect();
        client.send(half);
        if half.starts_with(b"\0\0\0\x06STATUS") {
            client.expect(FRESH_STATUS);
        }
        client.expect_end();
    }
    for client in [&mut idle, &mut idle_after_a_request] {
        assert!(!client.has_answer(), "an idle connection was closed");
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
}

#[test]
fn a_dripping_peer_is_closed_though_it_always_sends_something() {
    let server = Setup::agencies(2).limits(|limits| limits.request_timeout = SHORT).start();
    for opening in [b"1000\n".to_vec(), frame("BATCH|1|10000")] {
        let mut client = server.connect();
        client.send(&opening);
        let mut dripped = 0;
        until("the dripping peer is closed", || {
            dripped += 1;
            // Whole frames too: rows that arrive do not prolong their batch.
            let drip = if opening[0] == 0 { frame(SECOND_HALF) } else { b"x".to_vec() };
            client.has_answer() || !client.try_send(&drip)
        });
        assert!(dripped > 1);
        client.expect_gone();
    }
}

#[test]
fn an_idle_peer_is_closed_when_its_time_is_up() {
    let server = Setup::agencies(2).limits(|limits| limits.idle_timeout = 3 * SHORT).start();
    let mut fresh = server.connect();
    let mut after_a_request = server.connect();
    after_a_request.ask(&frame("STATUS"), FRESH_STATUS);
    fresh.expect_end();
    after_a_request.expect_end();
}

#[test]
fn one_connection_too_many_is_closed_without_a_byte_until_another_leaves() {
    let server = Setup::agencies(2).limits(|limits| limits.connections_max = 2).start();
    let mut first = server.connect();
    let mut second = server.connect();
    for client in [&mut first, &mut second] {
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
    for _ in 0..3 {
        server.connect().expect_end();
    }
    first.ask(&frame("STATUS"), FRESH_STATUS);
    drop(second);
    until("the place is free", || {
        let mut next = server.connect();
        // A refused peer may find out while it sends.
        next.try_send(&frame("STATUS")) && next.answers_or_ends(FRESH_STATUS)
    });
    first.ask(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_peer_that_never_reads_is_closed_once_too_many_answers_wait() {
    let server = Setup::agencies(1).start();
    let mut loader = server.connect();
    loader.ask(&counted(&long_winning_lines(1, 0, 800)), COUNTED_ACK);
    server.ask_once(&done(1), ACK_DONE);
    // Answers of 7,200 bytes soon fill what the two systems take in between.
    for requests in [frame("GET_WINNERS|1"), frame("GET_WINNERS|1|0")] {
        let requests = requests.repeat(100);
        let mut client = server.connect_with_small_buffer();
        until("the peer is closed", || !client.try_send(&requests));
    }
    // Nobody else noticed.
    loader.ask(&counted("GET_WINNERS|2"), b"0\n");
}

#[test]
fn a_peer_that_never_reads_its_statuses_is_closed() {
    let server = Setup::agencies(2).start();
    let requests = frame("STATUS").repeat(1000);
    let mut client = server.connect_with_small_buffer();
    let mut sent = 0;
    while client.try_send(&requests) {
        sent += 1;
        assert!(sent < 1000, "a million answers wait");
    }
    server.ask_once(&frame("STATUS"), FRESH_STATUS);
}

#[test]
fn a_peer_that_asks_once_and_never_reads_is_closed_in_time() {
    let server = Setup::agencies(1)
        .limits(|limits| {
            limits.request_timeout = SHORT;
            limits.connections_max = 1;
        })
        .start();
    // More than the system takes in between, which is at most 4 MiB here.
    store_long_winners(&server, 1, 30_000);
    let mut client = server.connect_with_small_buffer();
    client.send(&counted("GET_WINNERS|1"));
    // Its place is free when it is closed.
    until("the peer that does not read is closed", || {
        let mut next = server.connect();
        next.try_send(&counted("GET_WINNERS|2")) && next.answers_or_ends(b"0\n")
    });
    let announced = client.read_length();
    assert!(client.read_to_any_end().len() < announced);
}

/// Returns what the system keeps of what this peer of the server has not read, in bytes.
#[cfg(target_os = "linux")]
fn kept_by_the_system(client: &Client) -> u64 {
    let [peer, local] = client.ports().map(|port| format!(":{port:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = row.filter(|row| row[1].ends_with(&local) && row[2].ends_with(&peer));
    let queues = found.next().expect("the server's side of the connection")[4];
    u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_peer_leaves_unread_is_bounded_in_the_system_too() {
    let server = Setup::agencies(1).start();
    store_long_winners(&server, 1, 30_000);
    let mut client = server.connect_with_small_buffer();
    client.send(&counted("GET_WINNERS|1"));
    let (mut kept, mut times) = (0, 0);
    // It is full when it does not grow any more while others are served.
    until("the system takes no more", || {
        let before = kept;
        kept = kept_by_the_system(&client);
        times = if kept > 0 && kept == before { times + 1 } else { 0 };
        server.ask_once(&counted("GET_WINNERS|2"), b"0\n");
        times >= 50
    });
    assert!(kept <= 256 << 10, "{kept} bytes");
}

#[test]
fn half_received_requests_of_all_together_are_bounded_and_the_excess_is_told_busy() {
    let server = Setup::agencies(2).limits(|limits| limits.buffer_bytes_max = 1000).start();
    // 64 KiB are free for each connection: these are well above.
    let mut client = server.connect();
    client.send(&counted(&long_winning_lines(1, 0, 1000)));
    client.expect(b"10\nERROR_BUSY");
    client.expect_end();
    let mut client = server.connect();
    client.send(&winning_batch(1, &["12345678"; 9000]));
    client.expect(b"\0\0\0\x18ACK_BATCH|ERR|9000|busy\n");
    client.expect_end();
    assert_eq!(server.stored_bets(), 0);
    // What is given back can be used again, and a small batch is never refused.
    server.ask_once(&counted(&long_winning_lines(1, 0, 200)), COUNTED_ACK);
    server.ask_once(&winning_batch(1, &["12345678"; 1000]), b"\0\0\0\x12ACK_BATCH|OK|1000\n");
    assert_eq!(server.stored_bets(), 1200);
}

#[test]
fn what_a_cut_off_peer_had_sent_is_no_longer_counted() {
    let server = Setup::agencies(2).limits(|limits| limits.buffer_bytes_max = 300_000).start();
    let request = counted(&long_winning_lines(1, 0, 1000));
    for _ in 0..10 {
        let mut client = server.connect();
        client.send(&request[..200_000]);
        client.half_close();
        client.expect_end();
    }
    server.ask_once(&request, COUNTED_ACK);
    assert_eq!(server.stored_bets(), 1000);
}

#[test]
fn hundreds_of_idle_and_half_sent_connections_hold_up_nobody() {
    let server = Setup::agencies(2).start();
    let mut idle: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    let mut half_sent: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = server.connect();
            client.send(&half_batch());
            client
        })
        .collect();
    server.ask_once(&winning_batch(1, &["1", "2"]), ACK_BATCH_2);
    for client in &mut half_sent {
        client.ask(&frame(SECOND_HALF), ACK_BATCH_2);
    }
    for client in &mut idle {
        client.ask(&frame("BET|1|Ana|Paz|4|1999-03-17|7574"), ACK);
    }
    assert_eq!(server.stored_bets(), 2 + 2 * 300 + 300);
}
