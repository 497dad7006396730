//! A server that is told to stop, whose database fails, or that is killed.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::PathBuf;

use rusqlite::Connection;
use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{Process, Server, assert_names, bets_file, folder, run, snapshot, sorteo};

use super::{Peer, half_a_batch, status, winning_documents};

#[test]
fn sigterm_finishes_what_is_in_flight_closes_with_a_line_each_and_exits_0() {
    let folder = folder();
    // So long that only the peer's last row can end the wait.
    let server = Server::start(folder.path(), &["--drain-timeout", "3600"]);
    let mut idle = Peer::connect(&server);
    assert!(idle.ask(&["STATUS"]).starts_with("STATUS|OK|"));
    let mut peer = half_a_batch(&server);
    server.process.terminate();
    server.process.wait_log("action: close_listener | result: success", 1);
    idle.read_end();
    assert!(TcpStream::connect(server.address).is_err(), "it still accepts");
    assert_eq!(peer.ask(&["Ana|Paz|102|1999-03-17|1"]), "ACK_BATCH|OK|2\n");
    peer.read_end();
    let finished = server.process.wait();
    assert_eq!(finished.succeeded(), "");
    let log = LogLine::parse_all(&finished.stderr);
    let ends: Vec<(&str, &str)> = log
        .iter()
        .skip_while(|line| line.action != "shutdown")
        .map(|line| (line.action.as_str(), line.result.as_str()))
        .collect();
    let expected = [
        ("shutdown", "in_progress"),
        ("close_listener", "success"),
        ("close_connection", "success"),
        ("apuesta_recibida", "success"),
        ("close_connection", "success"),
        ("close_workers", "success"),
        ("close_database", "success"),
        ("shutdown", "success"),
    ];
    assert_eq!(ends, expected);
    let left: Vec<PathBuf> = snapshot(folder.path()).into_keys().collect();
    assert_eq!(left, ["sorteo.db", "sorteo.db.lock"].map(|name| folder.path().join(name)));
}

#[test]
fn a_server_that_crashes_leaves_no_core_dump() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let Ok(limits) = fs::read_to_string(format!("/proc/{}/limits", server.process.id())) else {
        eprintln!("skipped: this system has no /proc");
        return;
    };
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let values: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(values, ["0", "0"], "{core}");
    server.stop();
}

#[test]
fn a_server_whose_database_fails_ends_with_74_without_an_answer_and_the_next_goes_on() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.ask(&["BET|1|Ana|Paz|100|1999-03-17|1"]), "ACK|OK\n");
    let database = Connection::open(folder.path().join("sorteo.db")).unwrap();
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'broken'); END";
    database.execute_batch(broken).unwrap();
    let bet = ["BET|1|Ana|Paz|101|1999-03-17|1"];
    peer.send(&bet);
    // The end, or a reset.
    assert_eq!(peer.0.read(&mut [0; 1]).unwrap_or(0), 0, "an unknown outcome was answered");
    let finished = server.process.wait();
    assert_names(finished.failed(74), &["the database failed", "broken"]);
    database.execute_batch("DROP TRIGGER broken").unwrap();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(status(&server, folder.path())["bets"], 1);
    assert_eq!(Peer::connect(&server).ask(&bet), "ACK|OK\n");
    server.stop();
}

#[test]
fn a_second_sigterm_ends_at_once_and_loses_nothing_that_was_acknowledged() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--drain-timeout", "3600"]);
    let mut peer = half_a_batch(&server);
    server.process.terminate();
    server.process.wait_log("action: shutdown | result: in_progress", 1);
    // A hangup in between is no second one; an interrupt is.
    for times in 1..=2 {
        server.process.send("HUP");
        server.process.wait_log("action: config | result: success | log_level: INFO", times);
    }
    server.process.send("INT");
    let finished = server.process.wait();
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    let log = LogLine::parse_all(&finished.stderr);
    let last = log.last().unwrap();
    assert_eq!((last.action.as_str(), last.result.as_str()), ("shutdown", "fail"));
    assert!(peer.0.read(&mut [0; 1]).map_or(0, |read| read) == 0);
    let server = Server::start(folder.path(), &[]);
    assert_eq!(status(&server, folder.path())["bets"], 1);
    server.stop();
}

#[test]
fn a_server_killed_in_the_middle_of_an_upload_comes_back_and_each_bet_is_stored_once() {
    let (folder, agency) = (folder(), folder());
    let numbers: Vec<u32> = (0..1500).map(|row| if row % 500 == 3 { 7574 } else { row }).collect();
    bets_file(agency.path(), "a.csv", &numbers);
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let address = server.address;
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--batch", "1", "--winners-out", "w"];
    let mut upload = Process::start(&mut server.command(agency.path(), &upload));
    let mut server = server;
    for life in 1..=3 {
        server.process.wait_log("action: apuesta_recibida | result: success", 40);
        server.process.kill();
        assert!(upload.is_running(), "life {life}: {}", upload.log());
        server = Server::start_on(address, folder.path(), &["--agencies", "1"]);
        assert_eq!(server.process.count("action: recover | result: success | database: opened"), 1);
    }
    let finished = upload.wait();
    finished.succeeded();
    assert!(finished.stderr.contains("action: connect | result: fail"), "{finished:#?}");
    assert_eq!(
        fs::read_to_string(agency.path().join("w")).unwrap(),
        winning_documents(&agency.path().join("a.csv"))
    );
    assert_eq!(server.process.count("action: sorteo | result: success"), 1);
    server.stop();
    run(&mut sorteo(folder.path(), ["check", "--database", "sorteo.db"])).succeeded();
    let connection = Connection::open(folder.path().join("sorteo.db")).unwrap();
    let mut statement = connection
        .prepare("SELECT first_name, last_name, document, birthdate, number FROM bets ORDER BY id")
        .unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        let text = |index| row.get::<_, String>(index);
        let number: u32 = row.get(4)?;
        Ok(format!("{},{},{},{},{number}\n", text(0)?, text(1)?, text(2)?, text(3)?))
    };
    let stored: String = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    let sent = fs::read_to_string(agency.path().join("a.csv")).unwrap();
    assert!(stored == sent, "{} rows are stored", stored.lines().count());
}

#[test]
fn an_agency_that_waits_ends_with_128_and_the_signal() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[1]);
    let server = Server::start(folder.path(), &["--agencies", "4"]);
    // The system itself would not end the first process of a container.
    for (agency, signal, code) in [("1", "TERM", 143), ("2", "INT", 130), ("3", "HUP", 129)] {
        let upload = ["upload", "--agency", agency, "--file", "a.csv"];
        let upload = Process::start(&mut server.command(folder.path(), &upload));
        let done = format!("action: agencia_terminada | result: success | agencia: {agency}");
        server.process.wait_log(&done, 1);
        upload.send(signal);
        assert_eq!(upload.wait().code, Some(code), "SIG{signal}");
    }
}
