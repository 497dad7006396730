//! Tokens that end: revoked by another process, expired, rotated. Their connections are closed,
//! whatever they are doing, and no batch is lost or stored twice.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use sorteo::service::Auth;
use sorteo::store::TokenHolder;
use sorteo_protocol::{AgencyId, Token};
use sorteo_test_support::process::{DEADLINE, run, sorteo};

use super::{FRAMED, add, agency_token};
use crate::test_server::{Client, Setup, TestServer, frame, frames, until};

const ROW: &str = "Ana|Paz|30904465|1999-03-17|7574";

/// Runs `sorteo token` on the server's database, in another process.
fn token_command(server: &TestServer, args: &[&str]) -> String {
    let path = server.database_path();
    let folder = path.parent().unwrap();
    run(sorteo(folder, ["token"]).args(args)).succeeded().trim_end().to_owned()
}

/// Connections of a token in each state in which one may be.
fn in_every_state(server: &TestServer, token: &Token) -> Vec<(&'static str, Client)> {
    let connect = |requests: &[u8]| {
        let mut client = server.connect();
        client.send(&[&FRAMED.auth(1, token.reveal()), requests].concat());
        client.expect(&FRAMED.ok());
        client
    };
    vec![
        ("idle", connect(&[])),
        ("waits for the draw", connect(&frame("WAIT_WINNERS|1|60000"))),
        ("has requests behind a wait", connect(&frames(&["WAIT_WINNERS|1|60000", "STATUS"]))),
        ("has sent half a batch", connect(&frames(&["BATCH|1|2", ROW]))),
        ("has sent half a frame", connect(&[0, 0, 0, 9, b'D'])),
    ]
}

#[test]
fn revoking_a_token_closes_all_its_connections_and_no_other() {
    let server = Setup::auth(Auth::Required).start();
    let [revoked, kept] = [1, 1].map(|agency| agency_token(&server.database_path(), agency));
    let mut ended = in_every_state(&server, &revoked);
    let mut others = in_every_state(&server, &kept);
    token_command(&server, &["revoke", revoked.id().as_str()]);
    let revoked_at = Instant::now();
    for (state, client) in &mut ended {
        client.expect_gone();
        assert!(revoked_at.elapsed() < Duration::from_secs(5), "{state}: after {:?}", revoked_at.elapsed());
    }
    for (state, client) in &others {
        assert!(!client.has_answer(), "{state}: it is another token's");
    }
    others[0].1.ask(&frame("STATUS"), &frame("STATUS|OK|1|open|0|0|0\n"));
    others[3].1.ask(&frame(ROW), &frame("ACK_BATCH|OK|2\n"));
    let mut again = server.connect();
    again.ask(&FRAMED.auth(1, revoked.reveal()), &FRAMED.unauthorized());
}

#[test]
fn a_token_that_expires_closes_all_its_connections() {
    let server = Setup::auth(Auth::Required).start();
    let one = TokenHolder::Agency(AgencyId(1));
    let token = add(&server.database_path(), one, Some(Duration::from_secs(2)));
    for (_, client) in &mut in_every_state(&server, &token) {
        client.expect_gone();
    }
    let mut again = server.connect();
    again.ask(&FRAMED.auth(1, token.reveal()), &FRAMED.unauthorized());
}

#[test]
fn a_token_whose_end_cannot_be_read_keeps_no_other_alive() {
    let server = Setup::auth(Auth::Required).start();
    let [garbled, revoked] = [1, 1].map(|agency| agency_token(&server.database_path(), agency));
    let mut clients = [&garbled, &revoked].map(|token| {
        let mut client = server.connect();
        client.ask(&FRAMED.auth(1, token.reveal()), &FRAMED.ok());
        client
    });
    let garble = "UPDATE tokens SET expires_at = 'tomorrow' WHERE id = $1";
    server.database().execute(garble, [garbled.id().as_str()]).unwrap();
    token_command(&server, &["revoke", revoked.id().as_str()]);
    clients.iter_mut().for_each(Client::expect_gone);
    let mut again = server.connect();
    again.ask(&FRAMED.auth(1, garbled.reveal()), &frame("ACK|ERR|unavailable\n"));
    again.expect_end();
}

/// The rows of the upload.
const ROWS: u64 = 6_000;
const BATCH: u64 = 20;

/// Uploads as an agency does that reads its token's file anew at each connection, with some
/// batches in flight, until all rows are acknowledged. Returns how often it connected.
fn upload(server: SocketAddr, token: &Mutex<Token>) -> usize {
    let mut connections = 0;
    let until = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < until, "the upload does not end");
        connections += 1;
        let text = token.lock().unwrap().reveal().to_owned();
        let mut client = Client::connect(server);
        if !client.try_send(&[FRAMED.auth(1, &text), frame("RESUME|1|u")].concat())
            || !client.answers_or_ends_in_any_way(&FRAMED.ok())
        {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let Some(line) = client.read_frame_or_end() else { continue };
        let mut sent: u64 = line.trim_end().strip_prefix("RESUME|OK|").unwrap().parse().unwrap();
        let mut acknowledged = sent;
        let is_lost = loop {
            while sent < ROWS && sent < acknowledged + 8 * BATCH {
                let mut lines = vec![format!("BATCH|1|{BATCH}|u|{sent}|1")];
                lines.extend((sent..sent + BATCH).map(|row| format!("Ana|Paz|{row}|1999-03-17|7")));
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                if !client.try_send(&frames(&lines)) {
                    break;
                }
                sent += BATCH;
            }
            if acknowledged == ROWS {
                break false;
            }
            match client.read_frame_or_end() {
                Some(line) => assert_eq!(line, format!("ACK_BATCH|OK|{BATCH}\n")),
                None => break true,
            }
            acknowledged += BATCH;
            // Slow enough for what happens meanwhile to happen in the midst of it.
            thread::sleep(Duration::from_millis(5));
        };
        if !is_lost {
            return connections;
        }
    }
}

fn assert_each_row_once(server: &TestServer) {
    let rows: Vec<u64> = server
        .database()
        .prepare("SELECT document FROM bets ORDER BY id")
        .unwrap()
        .query_map([], |row| Ok(row.get::<_, String>(0)?.parse().unwrap()))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows, (0..ROWS).collect::<Vec<_>>());
}

#[test]
fn an_upload_whose_token_is_revoked_goes_on_with_the_next_one_and_stores_each_row_once() {
    let server = Setup::auth(Auth::Required).start();
    let path = server.database_path();
    let first = agency_token(&path, 1);
    let (address, token) = (server.address(), Mutex::new(first.clone()));
    let connections = thread::scope(|scope| {
        let upload = scope.spawn(|| upload(address, &token));
        let mut last = first;
        for batches in [20, 100, 200] {
            until("the upload goes on", || server.stored_bets() >= batches * BATCH);
            let next = token_command(&server, &["add", "1"]).parse::<Token>().unwrap();
            token_command(&server, &["revoke", last.id().as_str()]);
            *token.lock().unwrap() = next.clone();
            last = next;
        }
        upload.join().unwrap()
    });
    assert!(connections >= 4, "each revoked token costs a connection, not {connections}");
    assert_each_row_once(&server);
}

#[test]
fn a_rotation_with_an_overlap_ends_the_old_token_and_loses_no_batch() {
    let server = Setup::auth(Auth::Required).start();
    let first = agency_token(&server.database_path(), 1);
    let (address, token) = (server.address(), Mutex::new(first.clone()));
    let connections = thread::scope(|scope| {
        let upload = scope.spawn(|| upload(address, &token));
        until("the upload goes on", || server.stored_bets() >= 20 * BATCH);
        let next = token_command(&server, &["rotate", first.id().as_str(), "--overlap", "1s"]);
        *token.lock().unwrap() = next.parse().unwrap();
        upload.join().unwrap()
    });
    assert!(connections >= 2, "the old token ended during the upload");
    assert_each_row_once(&server);
    let mut old = server.connect();
    old.ask(&FRAMED.auth(1, first.reveal()), &FRAMED.unauthorized());
}
