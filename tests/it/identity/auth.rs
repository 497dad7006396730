//! `AUTH` in both dialects: what proves who a peer is, what does not, and for how long.

use std::time::Duration;

use sorteo::service::Auth;
use sorteo::store::TokenHolder;
use sorteo::store::sqlite::operator::Operator;
use sorteo_protocol::{AgencyId, Token};

use super::{DIALECTS, FRAMED, Words, add, agency_token, operator_token, with_another_secret};
use crate::test_server::{Client, Setup, TestServer, frame, frames, until};

const BET_1: &str = "BET|1|Ana|Paz|30904465|1999-03-17|7574";
const BET_2: &str = "BET|2|Ana|Paz|30904465|1999-03-17|7574";
const FORBIDDEN: &str = "ACK|ERR|forbidden\n";

fn authenticated(server: &TestServer, words: &Words, agency: u32, token: &Token) -> Client {
    let mut client = server.connect();
    client.ask(&words.auth(agency, token.reveal()), &words.ok());
    client
}

#[test]
fn whatever_is_wrong_with_it_gets_the_same_reply_and_the_end() {
    for auth in [Auth::Optional, Auth::Required] {
        let server = Setup::auth(auth).start();
        let path = server.database_path();
        let [good, others, revoked] = [1, 2, 1].map(|agency| agency_token(&path, agency));
        let expired = add(&path, TokenHolder::Agency(AgencyId(1)), Some(Duration::from_secs(60)));
        let over = "UPDATE tokens SET expires_at = '2026-01-01T00:00:00.000Z' WHERE id = $1";
        server.database().execute(over, [expired.id().as_str()]).unwrap();
        Operator::open(&path).unwrap().revoke_token(&revoked.id()).unwrap();
        let text = good.reveal();
        let wrong = [
            (1, with_another_secret(&good).reveal().to_owned()),
            (1, Token::from_random([9; 8], [9; 32]).reveal().to_owned()),
            (1, others.reveal().to_owned()),
            (2, text.to_owned()),
            (4_294_967_295, text.to_owned()),
            (1, operator_token(&path).reveal().to_owned()),
            (1, expired.reveal().to_owned()),
            (1, revoked.reveal().to_owned()),
            (1, String::new()),
            (1, good.id().to_string()),
            (1, text.to_uppercase()),
            (1, text[..text.len() - 1].to_owned()),
            (1, format!("{text}0")),
            (1, format!(" {text}")),
        ];
        for words in &DIALECTS {
            for (agency, token) in &wrong {
                let mut client = server.connect();
                client.send(&[words.auth(*agency, token), (words.message)(BET_1)].concat());
                client.expect(&words.unauthorized());
                client.expect_end();
            }
            authenticated(&server, words, 1, &good);
        }
        assert_eq!(server.stored_bets(), 0, "nothing behind it is carried out");
    }
}

/// Neither where its text is nearly the same, nor where its digest is.
#[test]
fn a_token_that_is_like_another_is_not_that_one() {
    let server = Setup::auth(Auth::Required).start();
    let good = agency_token(&server.database_path(), 1);
    let text = good.reveal();
    let secret_at = text.len() - 64;
    let mut alike: Vec<String> = (secret_at..text.len())
        .map(|at| {
            let other = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
            format!("{}{other}{}", &text[..at], &text[at + 1..])
        })
        .collect();
    let digest = good.digest();
    let others = || (0_u64..).map(|number| format!("{}{number:064x}", &text[..secret_at]));
    let of = |text: &String| text.parse::<Token>().unwrap().digest();
    alike.push(others().find(|other| of(other)[..2] == digest[..2]).unwrap());
    alike.push(others().find(|other| of(other)[31] == digest[31]).unwrap());
    for token in alike {
        let mut client = server.connect();
        client.ask(&FRAMED.auth(1, &token), &FRAMED.unauthorized());
        client.expect_end();
    }
}

#[test]
fn a_second_auth_makes_the_connection_the_other_agencys_or_ends_it() {
    let server = Setup::auth(Auth::Required).start();
    let [one, two] = [1, 2].map(|agency| agency_token(&server.database_path(), agency));
    let mut client = authenticated(&server, &FRAMED, 1, &one);
    client.ask(&frame(BET_2), &frame(FORBIDDEN));
    client.ask(&FRAMED.auth(2, two.reveal()), &FRAMED.ok());
    client.ask(&frame(BET_2), &FRAMED.ok());
    client.ask(&frame(BET_1), &frame(FORBIDDEN));
    client.send(&[FRAMED.auth(1, two.reveal()), frame(BET_2), frame(BET_1)].concat());
    client.expect(&FRAMED.unauthorized());
    client.expect_end();
    assert_eq!(server.stored_bets(), 1);
}

#[test]
fn requests_before_and_behind_it_are_answered_in_order() {
    let server = Setup::auth(Auth::Optional).start();
    let [one, two] = [1, 2].map(|agency| agency_token(&server.database_path(), agency));
    let (one, two) = (one.reveal(), two.reveal());
    let mut client = server.connect();
    client.send(&frames(&[BET_2, BET_1, &format!("AUTH|1|{one}"), BET_1, BET_2, "STATUS"]));
    client.send(&frames(&[&format!("AUTH|2|{two}"), BET_2, BET_1, BET_2, "AUTH|2|x", BET_2]));
    for reply in ["ACK|OK\n", "ACK|OK\n", "ACK|OK\n", "ACK|OK\n", FORBIDDEN, "STATUS|OK|1|open|0|2|3\n"] {
        client.expect(&frame(reply));
    }
    for reply in ["ACK|OK\n", "ACK|OK\n", FORBIDDEN, "ACK|OK\n", "ACK|ERR|unauthorized\n"] {
        client.expect(&frame(reply));
    }
    client.expect_end();
    assert_eq!(server.stored_bets(), 5);
}

#[test]
fn it_may_arrive_in_any_two_pieces_and_byte_by_byte() {
    let server = Setup::auth(Auth::Required).start();
    let token = agency_token(&server.database_path(), 1);
    for words in &DIALECTS {
        let request = words.auth(1, token.reveal());
        let mut client = server.connect();
        client.send_byte_by_byte(&request);
        client.expect(&words.ok());
        for cut in 1..request.len() {
            let (head, tail) = request.split_at(cut);
            let mut client = server.connect();
            client.send(head);
            client.send(tail);
            client.expect(&words.ok());
        }
    }
}

/// Connects once the connection before has left its place, which the server gives away again.
fn next_in_the_place(server: &TestServer) -> Client {
    until("the place is free", || server.open_connections() == 0);
    server.connect()
}

#[test]
fn who_comes_next_into_a_connections_place_is_a_stranger_again() {
    let server = Setup::auth(Auth::Required).start();
    let [one, two] = [1, 2].map(|agency| agency_token(&server.database_path(), agency));
    for _ in 0..5 {
        let mut client = next_in_the_place(&server);
        client.ask(&FRAMED.auth(1, one.reveal()), &FRAMED.ok());
        client.ask(&frame(BET_1), &FRAMED.ok());
        drop(client);
        let mut client = next_in_the_place(&server);
        client.ask(&frame(BET_1), &FRAMED.unauthorized());
        client.expect_end();
        drop(client);
        let mut client = next_in_the_place(&server);
        client.ask(&FRAMED.auth(2, two.reveal()), &FRAMED.ok());
        client.ask(&frame(BET_1), &frame(FORBIDDEN));
    }
    assert_eq!(server.stored_bets(), 5);
}

#[test]
fn without_auth_it_is_no_request_and_proves_nothing() {
    let server = Setup::default().start();
    let token = agency_token(&server.database_path(), 1);
    let mut client = server.connect();
    client.ask(&FRAMED.auth(1, token.reveal()), &frame("ACK|ERR|unknown\n"));
    client.ask(&FRAMED.auth(1, "x"), &frame("ACK|ERR|unknown\n"));
    client.ask(&frame(BET_2), &FRAMED.ok());
}
