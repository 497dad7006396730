//! Agencies that wait for the draw.

use std::sync::Barrier;
use std::thread;

use super::{
    ACK, ACK_BATCH_1, ACK_DONE, FRESH_STATUS, NO_WINNERS, NO_WINNERS_PAGE, NOT_READY, done, waiter,
    winning_batch,
};
use crate::test_server::{Client, Setup, frame, frames, until};

#[test]
fn whoever_waits_is_answered_when_the_draw_is_made() {
    let server = Setup::agencies(2).limits(|limits| limits.workers = 2).start();
    let mut waiters: Vec<Client> = (0..200).map(|i| waiter(&server, 1 + i % 2, FRESH_STATUS)).collect();
    // With two workers and two hundred waits, others are still served.
    server.ask_once(&winning_batch(1, &["007"]), ACK_BATCH_1);
    server.ask_once(&done(1), ACK_DONE);
    assert!(waiters.iter().all(|client| !client.has_answer()));
    server.ask_once(&done(2), ACK_DONE);
    // Together, not one after the other.
    until("all are answered", || waiters.iter().all(Client::has_answer));
    for (i, client) in waiters.iter_mut().enumerate() {
        match i % 2 {
            0 => client.expect(b"\0\0\0\x10WINNERS|OK|007|\n"),
            _ => client.expect(NO_WINNERS_PAGE),
        }
        client.ask(&frame("GET_WINNERS|2"), NO_WINNERS);
    }
}

#[test]
fn a_wait_ends_with_not_ready_and_can_be_repeated() {
    let server = Setup::agencies(1).start();
    let mut client = server.connect();
    for _ in 0..3 {
        client.ask(&frame("WAIT_WINNERS|1|30"), NOT_READY);
    }
    client.send(&frames(&["WAIT_WINNERS|1|30", "WAIT_WINNERS|1|30", "DONE|1", "WAIT_WINNERS|1|60000"]));
    client.expect(&[NOT_READY, NOT_READY, ACK_DONE, NO_WINNERS_PAGE].concat());
}

#[test]
fn peers_that_left_while_they_waited_leave_room_for_others() {
    const PLACES: u32 = 100;
    let server = Setup::agencies(2).limits(|limits| limits.connections_max = PLACES as usize).start();
    // More than there are places: each sends its request, and is gone.
    for _ in 0..2 * PLACES {
        let mut client = server.connect();
        client.send(&frame("WAIT_WINNERS|1|60000"));
        drop(client);
    }
    // One that still reads, though it sends no more, and comes last.
    let mut reading = server.connect();
    until("there is a place for it", || {
        reading = server.connect();
        reading.try_send(&frames(&["STATUS", "WAIT_WINNERS|1|60000"]))
            && reading.answers_or_ends(FRESH_STATUS)
    });
    reading.half_close();
    server.ask_once(&winning_batch(1, &["007"]), ACK_BATCH_1);
    server.ask_once(&done(1), ACK_DONE);
    server.ask_once(&done(2), ACK_DONE);
    reading.expect(b"\0\0\0\x10WINNERS|OK|007|\n");
}

#[test]
fn requests_behind_a_wait_are_answered_after_it() {
    let server = Setup::agencies(1).start();
    let mut client = server.connect();
    let requests = frames(&[
        "BET|1|Ana|Paz|007|1999-03-17|7574",
        "WAIT_WINNERS|1|60000",
        "STATUS",
        "BET|1|Ana|Paz|8|1999-03-17|7574",
        "WAIT_WINNERS|1|60000",
        "GET_WINNERS|1",
    ]);
    client.ask(&requests, ACK);
    // One more behind them, in pieces, while it waits.
    let more = frame("DONE|1");
    client.send(&more[..3]);
    server.ask_once(&frame("STATUS"), b"\0\0\0\x17STATUS|OK|1|open|0|1|1\n");
    client.send(&more[3..]);
    assert!(!client.has_answer());
    server.ask_once(&done(1), ACK_DONE);
    let answers: [&[u8]; 6] = [
        b"\0\0\0\x10WINNERS|OK|007|\n",
        b"\0\0\0\x18STATUS|OK|1|drawn|1|1|1\n",
        b"\0\0\0\x14ACK|ERR|draw_closed\n",
        b"\0\0\0\x10WINNERS|OK|007|\n",
        b"\0\0\0\x0fWINNERS|OK|007\n",
        ACK_DONE,
    ];
    client.expect(&answers.concat());
}

#[test]
fn whoever_waits_is_answered_when_another_process_makes_the_draw() {
    let server = Setup::agencies(1).start();
    server.ask_once(&winning_batch(1, &["007"]), ACK_BATCH_1);
    let mut waiters: Vec<Client> =
        (0..100).map(|_| waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|1\n")).collect();
    let mut database = server.database();
    let transaction = database.transaction().unwrap();
    transaction
        .execute_batch(
            "INSERT INTO winners (draw_id, agency, bet_id) SELECT draw_id, agency, id FROM bets;
             UPDATE draws SET drawn_at = '2026-11-21T20:31:05.000Z', winners = 1",
        )
        .unwrap();
    transaction.commit().unwrap();
    until("all are answered", || waiters.iter().all(Client::has_answer));
    for client in &mut waiters {
        client.expect(b"\0\0\0\x10WINNERS|OK|007|\n");
    }
    assert_eq!(server.draws_made(), 0, "it was not this process");
}

#[test]
fn a_waiter_that_goes_away_harms_nobody_and_one_that_half_closed_is_answered() {
    let server = Setup::agencies(1).start();
    for _ in 0..20 {
        drop(waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|0\n"));
    }
    let mut half_closed = waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|0\n");
    half_closed.send(&frame("STATUS"));
    half_closed.half_close();
    let mut whole = waiter(&server, 1, b"\0\0\0\x17STATUS|OK|1|open|0|1|0\n");
    server.ask_once(&done(1), ACK_DONE);
    whole.expect(NO_WINNERS_PAGE);
    half_closed.expect(NO_WINNERS_PAGE);
    half_closed.expect(b"\0\0\0\x18STATUS|OK|1|drawn|1|1|0\n");
    half_closed.expect_end();
}

#[test]
fn a_wait_that_races_with_the_draw_is_always_answered() {
    for _ in 0..20 {
        let server = Setup::agencies(1).start();
        let start = Barrier::new(9);
        thread::scope(|scope| {
            for _ in 0..8 {
                let mut client = server.connect();
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    client.ask(&frame("WAIT_WINNERS|1|60000"), NO_WINNERS_PAGE);
                });
            }
            let mut closer = server.connect();
            start.wait();
            closer.ask(&done(1), ACK_DONE);
        });
    }
}

#[test]
fn a_reactor_that_has_nothing_to_do_shows_that_it_is_alive() {
    let server = Setup::agencies(1).start();
    for _ in 0..2 {
        let mut longest = server.silent_for();
        until("it shows a sign of life", || {
            let silent_for = server.silent_for();
            let is_alive = silent_for < longest;
            longest = silent_for;
            is_alive
        });
    }
}
