//! `AUTH`: first on every connection, and what its refusals lead to.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sorteo_agency::{AgencyError, Client, ClientOptions, Event, Observer, Security, counted};
use sorteo_protocol::wire::{Claim, Reason, Reply, Request};
use sorteo_protocol::{AgencyId, Batch, Bets};

use crate::authority::{token, with_token, write};
use crate::server::{Act, Server};

fn auth(number: u8) -> Request {
    Request::Auth(Some(Claim { agency: AgencyId(1), token: token(number) }))
}

fn refused(reason: Reason) -> Act {
    Act::ReplyAndClose(Reply::Auth(Err(reason)))
}

/// Two calls of a client, in whichever way it calls.
type Call = fn(&ClientOptions, &Path) -> Result<(), AgencyError>;

fn framed(options: &ClientOptions, _: &Path) -> Result<(), AgencyError> {
    Client::new(options.clone()).status().map(drop)
}

fn counted_upload(options: &ClientOptions, file: &Path) -> Result<(), AgencyError> {
    counted::upload(options, AgencyId(1), file, 99).map(drop)
}

fn single_bet(options: &ClientOptions, _: &Path) -> Result<(), AgencyError> {
    let mut bets = Bets::default();
    bets.push(["Ana", "Paz", "1", "2000-01-01", "1"]).unwrap();
    counted::send_bet(options, Batch { agency: AgencyId(1), bets, position: None })
}

const CALLS: [Call; 3] = [framed, counted_upload, single_bet];

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bets.csv");
    std::fs::write(&file, "Ana,Paz,1,2000-01-01,1\n").unwrap();
    (folder, file)
}

#[test]
fn auth_comes_first_on_every_connection_with_the_token_that_the_file_holds_then() {
    for call in CALLS {
        let (folder, file) = folder();
        let server = Server::plain(|_, _, _| Act::Serve);
        let options = server.options(with_token(folder.path(), &token(1)));
        call(&options, &file).unwrap();
        write(folder.path(), "agency.token", token(2).reveal());
        call(&options, &file).unwrap();
        let seen = server.seen();
        let first: Vec<_> = seen.connections.iter().map(|requests| requests[0].clone()).collect();
        assert_eq!(first, [auth(1), auth(2)]);
        let is_auth = |request: &&Request| matches!(request, Request::Auth(_));
        assert_eq!(seen.connections.iter().flatten().filter(is_auth).count(), 2, "once on each");
        assert!(seen.connections.iter().all(|requests| requests.len() > 1));
    }
}

#[test]
fn a_client_that_reconnects_reads_its_token_anew() {
    let folder = tempfile::tempdir().unwrap();
    let security = with_token(folder.path(), &token(1));
    let home = folder.path().to_owned();
    let server = Server::plain(move |connection, _, request| match request {
        Request::Status if connection == 0 => {
            write(&home, "agency.token", token(2).reveal());
            Act::Close
        }
        _ => Act::Serve,
    });
    Client::new(server.options(security)).status().unwrap();
    assert_eq!(server.seen().connections, [[auth(1), Request::Status], [auth(2), Request::Status]]);
}

#[test]
fn a_framed_client_sends_its_token_and_its_first_requests_together() {
    let folder = tempfile::tempdir().unwrap();
    // It replies to nothing before all has come.
    let server = Server::start(|mut socket, _, _| {
        let all = format!("....AUTH|1|{}....HELLO....STATUS", token(1).reveal()).len();
        socket.read_exact(&mut vec![0; all]).unwrap();
        for line in ["ACK|OK\n", "HELLO|OK|1|draws\n", "STATUS|OK|1|open|0|1|0\n"] {
            let length = u32::try_from(line.len()).unwrap().to_be_bytes();
            socket.write_all(&[&length, line.as_bytes()].concat()).unwrap();
        }
    });
    let mut options = server.options(with_token(folder.path(), &token(1)));
    options.give_up_after = Duration::from_secs(5);
    Client::new(options).newest_draw().unwrap();
}

#[test]
fn a_refused_token_ends_the_call_at_once_with_what_may_be_wrong() {
    for call in CALLS {
        let (folder, file) = folder();
        let server = Server::plain(|_, _, _| refused(Reason::Unauthorized));
        let error = call(&server.options(with_token(folder.path(), &token(1))), &file).unwrap_err();
        let expected = "the server refused AUTH: unauthorized (the token is revoked, expired, or of another \
                        agency; its file was read at this connect)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(server.seen().connections.len(), 1, "nothing is tried again");
    }
}

#[test]
fn a_token_that_was_replaced_while_it_was_refused_is_tried() {
    for call in CALLS {
        let (folder, file) = folder();
        let security = with_token(folder.path(), &token(1));
        let home = folder.path().to_owned();
        let server = Server::plain(move |_, _, request| {
            if *request == auth(1) {
                write(&home, "agency.token", token(2).reveal());
                return refused(Reason::Unauthorized);
            }
            Act::Serve
        });
        call(&server.options(security), &file).unwrap();
        let seen = server.seen();
        assert_eq!((&seen.connections[0][0], &seen.connections[1][0]), (&auth(1), &auth(2)));
    }
}

#[test]
fn a_server_that_is_too_busy_to_authenticate_is_tried_again() {
    for call in CALLS {
        let (folder, file) = folder();
        let security = with_token(folder.path(), &token(1));
        let server = Server::plain(|connection, _, request| match request {
            Request::Auth(_) if connection < 2 => refused(Reason::Busy),
            _ => Act::Serve,
        });
        call(&server.options(security.clone()), &file).unwrap();
        assert_eq!(server.seen().connections.len(), 3);
        let busy = Server::plain(|_, _, _| refused(Reason::Busy));
        let mut options = busy.options(security);
        options.give_up_after = Duration::from_millis(300);
        let error = call(&options, &file).unwrap_err().to_string();
        assert_eq!(error, "the server refused AUTH: busy (and did so at every retry)");
    }
}

#[test]
fn a_server_that_authenticates_nobody_is_an_error_for_a_client_with_a_token() {
    for call in CALLS {
        let (folder, file) = folder();
        let server = Server::plain(|_, _, request| match request {
            Request::Auth(_) => Act::Reply(Reply::Unrecognised(Reason::Unknown)),
            _ => Act::Serve,
        });
        let error =
            call(&server.options(with_token(folder.path(), &token(1))), &file).unwrap_err().to_string();
        assert!(
            error.starts_with("the server refused AUTH: unknown (the server asks nobody for a token"),
            "{error}"
        );
        assert_eq!(server.seen().connections.len(), 1);
    }
}

#[test]
fn what_is_no_reply_to_auth_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::plain(|_, _, _| Act::Reply(Reply::Done(Ok(()))));
    let error = Client::new(server.options(with_token(folder.path(), &token(1)))).status().unwrap_err();
    assert!(matches!(error, AgencyError::Protocol { .. }), "{error}");
}

#[test]
fn who_needs_a_token_or_has_that_of_another_agency_is_told() {
    let status = |reason: Reason, security| {
        let server = Server::plain(move |_, _, request| match request {
            Request::Auth(_) => Act::Serve,
            other => Act::Reply(other.refused(reason.clone())),
        });
        Client::new(server.options(security)).status().unwrap_err().to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        status(Reason::Unauthorized, Security::default()),
        "the server refused STATUS: unauthorized (the server requires a token of this agency: give its file, \
         --token-file)"
    );
    assert_eq!(
        status(Reason::Forbidden, with_token(folder.path(), &token(1))),
        "the server refused STATUS: forbidden (the connection is of another agency: check the agency's number)"
    );
}

#[test]
fn nothing_shows_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::plain(|_, number, request| match request {
        // So that a server repeats what it was sent.
        _ if number == 1 => Act::Close,
        _ => Act::Reply(request.refused(Reason::Busy)),
    });
    let mut options = server.options(with_token(folder.path(), &token(1)));
    options.give_up_after = Duration::from_millis(500);
    let told = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&told);
    options.observer = Observer::new(move |event: &Event<'_>| {
        shared.lock().unwrap().push_str(&format!("{event:?}\n"));
        if let Event::Retrying { error } = event {
            shared.lock().unwrap().push_str(&format!("{error}\n"));
        }
    });
    let mut client = Client::new(options.clone());
    let error = client.status().unwrap_err();
    let mut connection = sorteo_agency::Connection::open(
        &options.server,
        &options.security,
        sorteo_protocol::wire::Dialect::Framed,
        Duration::from_secs(5),
    )
    .unwrap();
    let before = format!("{connection:?}");
    let refusal = connection.authenticate(Duration::from_secs(5)).unwrap_err();
    let all =
        format!("{told:?} {error} {error:?} {client:?} {options:?} {before} {connection:?} {refusal:?}");
    assert!(all.contains("busy"), "{all}");
    // In no form: as text, or as the numbers of bytes.
    let token = token(1);
    let secret = &token.reveal()["sorteo_0101010101010101_".len()..];
    let numbers = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    assert!(!all.contains(&secret[..16]) && !all.contains(&numbers[..40]), "{all}");
}
