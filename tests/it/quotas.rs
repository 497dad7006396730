//! How much one agency, and one address, may ask of the server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use sorteo_test_support::process::{Server, folder, run, sorteo};
use tempfile::TempDir;

use crate::data::{ask, ask_frames};
use crate::test_server::{DEADLINE, frame, frames, until};

const BET: &str = "BET|1|Ana|Paz|1|1999-03-17|7574";

fn start(flags: &[&str]) -> (TempDir, Server) {
    let folder = folder();
    let server = Server::start(folder.path(), flags);
    (folder, server)
}

fn token(folder: &TempDir, agency: &str) -> String {
    run(&mut sorteo(folder.path(), ["token", "add", agency])).succeeded().trim().to_owned()
}

/// A connection that sends lines, and reads a reply to each.
struct Talk(TcpStream);

impl Talk {
    fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    /// Returns the reply, or `None` if the connection is closed.
    fn ask(&mut self, line: &str) -> Option<String> {
        self.0.write_all(&frame(line)).ok()?;
        self.read()
    }

    fn read(&mut self) -> Option<String> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut reply = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut reply).ok()?;
        Some(String::from_utf8(reply).unwrap().trim_end().to_owned())
    }
}

#[test]
fn an_address_has_so_many_connections_and_one_that_ends_makes_room() {
    let (_folder, server) = start(&["--address-connections-max", "2"]);
    let mut both = [Talk::to(&server), Talk::to(&server)];
    assert!(both.iter_mut().all(|talk| talk.ask("STATUS").is_some()));
    assert_eq!(Talk::to(&server).ask("STATUS"), None, "one too many");
    drop(both);
    until("there is room again", || Talk::to(&server).ask("STATUS").is_some());
}

#[test]
fn an_agency_has_so_many_connections_wherever_they_come_from_and_others_have_theirs() {
    let (folder, server) = start(&["--auth", "required", "--agency-connections-max", "1"]);
    let [one, two] = ["1", "2"].map(|agency| format!("AUTH|{agency}|{}", token(&folder, agency)));
    let mut first = Talk::to(&server);
    assert_eq!(first.ask(&one).as_deref(), Some("ACK|OK"));
    assert_eq!(first.ask(&one).as_deref(), Some("ACK|OK"), "the same connection again is not one more");
    let mut second = Talk::to(&server);
    assert_eq!(second.ask(&one).as_deref(), Some("ACK|ERR|busy"));
    assert_eq!(second.ask("STATUS"), None, "it is closed");
    assert_eq!(Talk::to(&server).ask(&two).as_deref(), Some("ACK|OK"));
    drop(first);
    until("there is room again", || Talk::to(&server).ask(&one).as_deref() == Some("ACK|OK"));
}

#[test]
fn requests_beyond_those_of_a_second_are_busy_and_store_nothing() {
    let (folder, server) = start(&["--auth", "required", "--agency-requests-max", "5"]);
    let mut talk = Talk::to(&server);
    talk.ask(&format!("AUTH|1|{}", token(&folder, "1"))).unwrap();
    let replies: Vec<String> = (0..200).map(|_| talk.ask(BET).unwrap()).collect();
    let stored = replies.iter().filter(|reply| *reply == "ACK|OK").count();
    assert!((5..100).contains(&stored), "{stored}");
    assert!(replies.iter().all(|reply| reply == "ACK|OK" || reply == "ACK|ERR|busy"), "{replies:?}");
    let mut other = Talk::to(&server);
    other.ask(&format!("AUTH|2|{}", token(&folder, "2"))).unwrap();
    let status = other.ask("STATUS").unwrap();
    assert_eq!(status, format!("STATUS|OK|1|open|0|1|{stored}"), "another agency has its own second");
}

#[test]
fn an_address_may_send_so_many_requests_a_second_whoever_it_says_it_is() {
    let (_folder, server) = start(&["--address-requests-max", "3"]);
    let replies: Vec<String> = (0..100).map(|agency| ask(&server, &format!("RESUME|{agency}|u"))).collect();
    let busy = replies.iter().filter(|reply| *reply == "RESUME|ERR|busy").count();
    assert!((1..=97).contains(&busy), "{busy}");
}

#[test]
fn an_agency_has_so_many_bets_in_a_draw_also_in_one_batch_and_after_a_restart() {
    let flags = ["--agencies", "1", "--agency-bets-max", "3"];
    let (folder, server) = start(&flags);
    let batch = |count: usize| {
        let mut lines = vec![format!("BATCH|1|{count}")];
        lines.extend((0..count).map(|row| format!("Ana|Paz|{row}|1999-03-17|7574")));
        lines
    };
    let send = |server: &Server, count| {
        let lines = batch(count);
        ask_frames(server, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(send(&server, 4), "ACK_BATCH|ERR|4|too_many_bets");
    assert_eq!(send(&server, 2), "ACK_BATCH|OK|2");
    server.stop();
    let server = Server::start(folder.path(), &flags);
    assert_eq!(send(&server, 2), "ACK_BATCH|ERR|2|too_many_bets");
    assert_eq!(ask(&server, BET), "ACK|OK");
    assert_eq!(ask(&server, BET), "ACK|ERR|too_many_bets");
    assert_eq!(ask(&server, "DONE|1|3"), "ACK_DONE|OK");
    server.stop();
    run(&mut sorteo(folder.path(), ["draw", "open"])).succeeded();
    let server = Server::start(folder.path(), &flags);
    assert_eq!(send(&server, 3), "ACK_BATCH|OK|3", "the next draw has its own");
}

#[test]
fn an_agency_that_proves_who_it_is_over_and_over_is_busy_too() {
    let (folder, server) = start(&["--auth", "required", "--agency-requests-max", "5"]);
    let auth = format!("AUTH|1|{}", token(&folder, "1"));
    let mut talk = Talk::to(&server);
    assert_eq!(talk.ask(&auth).as_deref(), Some("ACK|OK"));
    let replies: Vec<String> = (0..100).map(|_| talk.ask(&auth).unwrap()).collect();
    let busy = replies.iter().filter(|reply| *reply == "ACK|ERR|busy").count();
    assert!((1..100).contains(&busy), "{busy}");
    until("it is still who it was", || talk.ask("DONE|2").as_deref() == Some("ACK_DONE|ERR|forbidden"));
}

#[test]
fn bets_of_an_address_that_are_sent_together_are_not_more_than_it_may_have() {
    let (_folder, server) = start(&["--address-bets-max", "100"]);
    let batch = {
        let mut lines = vec!["BATCH|1|10".to_owned()];
        lines.extend((0..10).map(|row| format!("Ana|Paz|{row}|1999-03-17|7574")));
        frames(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut talks: Vec<Talk> = (0..10).map(|_| Talk::to(&server)).collect();
    talks.iter_mut().for_each(|talk| talk.0.write_all(&batch.repeat(10)).unwrap());
    let replies: Vec<String> =
        talks.iter_mut().flat_map(|talk| (0..10).map(|_| talk.read().unwrap()).collect::<Vec<_>>()).collect();
    let stored = replies.iter().filter(|reply| *reply == "ACK_BATCH|OK|10").count();
    assert_eq!(stored, 10, "{replies:?}");
}

#[test]
fn a_batch_that_is_repeated_counts_once_and_is_acknowledged_at_the_limit() {
    let (_folder, server) = start(&["--address-bets-max", "2"]);
    let two = ["BATCH|1|2|u|0", "Ana|Paz|1|1999-03-17|7574", "Ana|Paz|2|1999-03-17|7574"];
    for _ in 0..3 {
        assert_eq!(ask_frames(&server, &two), "ACK_BATCH|OK|2");
    }
    let next = ["BATCH|1|1|u|2", "Ana|Paz|3|1999-03-17|7574"];
    assert_eq!(ask_frames(&server, &next), "ACK_BATCH|ERR|1|too_many_bets");
}

#[test]
fn an_address_has_so_many_bets_in_a_draw_and_what_was_refused_does_not_count() {
    let (folder, server) = start(&["--agencies", "2", "--address-bets-max", "3"]);
    assert_eq!(ask(&server, BET), "ACK|OK");
    assert_eq!(ask(&server, "BET|2|Ana|Paz|1|1999-03-17|7574"), "ACK|OK", "whoever it says it is");
    let four = ["BATCH|1|2", "Ana|Paz|1|1999-03-17|7574", "Ana|Paz|2|1999-03-17|7574"];
    assert_eq!(ask_frames(&server, &four), "ACK_BATCH|ERR|2|too_many_bets");
    assert_eq!(ask(&server, BET), "ACK|OK");
    assert_eq!(ask(&server, BET), "ACK|ERR|too_many_bets");
    for agency in [1, 2] {
        assert_eq!(ask(&server, &format!("DONE|{agency}")), "ACK_DONE|OK");
    }
    run(&mut sorteo(folder.path(), ["draw", "open"])).succeeded();
    assert_eq!(ask(&server, BET), "ACK|OK", "the next draw has its own");
}
