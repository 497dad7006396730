//! Peers that must prove who they are and have not: how long, how much and how often.

use std::thread;
use std::time::Duration;

use sorteo::service::Auth;

use super::{COUNTED, DIALECTS, FRAMED, Words, agency_token, with_another_secret};
use crate::test_server::{Client, Setup, TestServer, frame, until};
use sorteo_protocol::Token;

const STATUS: &str = "STATUS|OK|1|open|0|0|0\n";

fn authenticated(server: &TestServer, words: &Words, token: &Token) -> Client {
    let mut client = server.connect();
    client.ask(&words.auth(1, token.reveal()), &words.ok());
    client
}

#[test]
fn a_peer_that_is_silent_or_drips_is_closed_in_time_and_one_that_has_proved_itself_is_not() {
    let timeout = Duration::from_millis(400);
    let server = Setup::auth(Auth::Required).limits(|limits| limits.auth_timeout = timeout).start();
    let token = agency_token(&server.database_path(), 1);
    let mut proved = authenticated(&server, &FRAMED, &token);
    let mut silent = server.connect();
    let mut dripping = server.connect();
    let request = FRAMED.auth(1, token.reveal());
    silent.expect_end();
    // Each byte comes well within the timeout, the last would after it.
    let mut bytes = request.iter().cycle();
    until("the one that drips is closed", || {
        thread::sleep(Duration::from_millis(10));
        dripping.has_answer() || !dripping.try_send(&[*bytes.next().unwrap()])
    });
    dripping.expect_gone();
    proved.ask(&frame("STATUS"), &frame(STATUS));
}

#[test]
fn strangers_give_up_their_places_to_others_and_an_agency_never_does() {
    const PLACES: usize = 4;
    let server = Setup::auth(Auth::Required).limits(|limits| limits.connections_max = PLACES).start();
    let token = agency_token(&server.database_path(), 1);
    let mut first = authenticated(&server, &FRAMED, &token);
    let mut strangers: Vec<Client> = (1..PLACES).map(|_| server.connect()).collect();
    // They keep their places for a moment; then each agency that comes takes one.
    let mut agencies: Vec<Client> = (1..PLACES)
        .map(|_| {
            let mut agency = None;
            until("a stranger gives up its place", || {
                let mut client = server.connect();
                client.send(&FRAMED.auth(1, token.reveal()));
                agency = client.answers_or_ends(&FRAMED.ok()).then_some(client);
                agency.is_some()
            });
            agency.expect("it is there")
        })
        .collect();
    strangers.iter_mut().for_each(Client::expect_gone);
    // Where agencies have all places, whoever comes is closed at once.
    server.connect().expect_gone();
    for client in agencies.iter_mut().chain([&mut first]) {
        client.ask(&frame("STATUS"), &frame(STATUS));
    }
}

#[test]
fn failures_beyond_the_limit_get_no_reply_and_the_right_token_still_does() {
    let server = Setup::auth(Auth::Required).start();
    let token = agency_token(&server.database_path(), 1);
    let wrong = with_another_secret(&token);
    for words in &DIALECTS {
        let mut answered = 0;
        // Many at once, so that the limit is passed on a slow machine too.
        until("one fails without a reply", || {
            let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.send(&words.auth(1, wrong.reveal())));
            let is_answered = |client: &mut Client| {
                let is_answered = client.answers_or_ends(&words.unauthorized());
                client.expect_gone();
                is_answered
            };
            let answered_now = clients.iter_mut().map(is_answered).filter(|is_answered| *is_answered).count();
            answered += answered_now;
            answered_now < clients.len()
        });
        assert!(words.ok != FRAMED.ok || answered >= 100, "only {answered} were answered");
        authenticated(&server, words, &token);
    }
}

#[test]
fn a_stranger_gets_no_memory_for_what_it_announces() {
    let server = Setup::auth(Auth::Required).start();
    let mut batch = server.connect();
    batch.ask(&frame("BATCH|1|10000"), &frame("ACK_BATCH|ERR|10000|unauthorized\n"));
    batch.expect_end();
    let mut payload = server.connect();
    payload.send(b"1000000\n");
    payload.send(&[b'a'; 1_017]);
    payload.expect(&COUNTED.unauthorized());
    payload.expect_end();
    let mut lengthy = server.connect();
    lengthy.ask(b"9999999\n", &COUNTED.unauthorized());
    lengthy.expect_end();
    // A whole frame is kept until it is whole, and no longer.
    let mut frames = server.connect();
    frames.send(&[0, 0, 0x20, 0]);
    frames.send(&[b'a'; 8_191]);
    frames.ask(b"a", &FRAMED.unauthorized());
    frames.expect_end();
}
