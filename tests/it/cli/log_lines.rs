//! The lines of the log: each has the format of `docs/protocol.md`, and comes before the
//! reply that reports the same event.

use std::io::Write as _;

use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{Server, bets_file, folder, run};

use rusqlite::Connection;

use super::Peer;

#[test]
fn what_is_stored_is_in_the_log_soon_and_a_draw_before_any_agency_learns_of_it() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "3"]);
    let (mut framed, mut counted, mut waiting) =
        (Peer::connect(&server), Peer::connect(&server), Peer::connect(&server));
    let line = "action: apuesta_recibida | result: success | cantidad: 2";
    for round in 0..25 {
        let rows = ["BATCH|1|2", "Ana|Paz|1|1999-03-17|7574", "Ana|Paz|2|1999-03-17|1"];
        assert_eq!(framed.ask(&rows), "ACK_BATCH|OK|2\n");
        server.process.wait_log(line, 2 * round + 1);
        assert_eq!(counted.ask_counted("Ana|Paz|3|1999-03-17|1|2\nAna|Paz|4|1999-03-17|1|2"), "ACK");
        server.process.wait_log(line, 2 * round + 2);
        assert_eq!(framed.ask(&["BET|1|Ana|Paz|5|1999-03-17|9"]), "ACK|OK\n");
        server.process.wait_log("action: apuesta_almacenada | result: success", round + 1);
    }
    assert_eq!(framed.ask(&["DONE|1"]), "ACK_DONE|OK\n");
    assert_eq!(counted.ask_counted("GET_WINNERS|2"), "ERROR_LOTTERY_HASNT_ENDED");
    waiting.send(&["WAIT_WINNERS|1|60000"]);
    assert_eq!(server.process.count("action: sorteo"), 0);
    framed.send(&["DONE|3"]);
    let sorteo = "action: sorteo | result: success";
    assert!(waiting.read_answer().starts_with("WINNERS|OK|1,1,1,"));
    assert_eq!(server.process.count(sorteo), 1, "a waiting agency knew before the log");
    assert_eq!(framed.read_answer(), "ACK_DONE|OK\n");
    assert_eq!(counted.ask_counted("GET_WINNERS|2"), "");
    assert_eq!(server.process.count(sorteo), 1);
    server.stop();
}

#[test]
fn a_payload_of_one_row_is_logged_as_a_bet_too() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let mut counted = Peer::connect(&server);
    assert_eq!(counted.ask_counted("Ana|Paz|30904465|1999-03-17|7574|1"), "ACK");
    assert_eq!(counted.ask_counted("Ana|Paz|1|1999-03-17|1|1\nAna|Paz|2|1999-03-17|2|1"), "ACK");
    assert_eq!(Peer::connect(&server).ask(&["BATCH|1|1", "Ana|Paz|3|1999-03-17|3"]), "ACK_BATCH|OK|1\n");
    let log = LogLine::parse_all(&server.stop().stderr);
    let lines: Vec<_> = log.iter().filter(|line| line.action.starts_with("apuesta_")).collect();
    let lines: Vec<_> = lines.iter().map(|line| (line.action.as_str(), line.pairs.clone())).collect();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [
        ("apuesta_almacenada", vec![pair("dni", "30904465"), pair("numero", "7574")]),
        ("apuesta_recibida", vec![pair("cantidad", "1")]),
        ("apuesta_recibida", vec![pair("cantidad", "2")]),
        ("apuesta_recibida", vec![pair("cantidad", "1")]),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_refusal_for_a_limit_names_the_setting() {
    let folder = folder();
    let limits = ["--batch-bets-max", "2", "--payload-bytes-max", "64"];
    let server = Server::start(folder.path(), &limits);
    assert_eq!(Peer::connect(&server).ask(&["BATCH|1|3"]), "ACK_BATCH|ERR|3|too_many\n");
    assert_eq!(Peer::connect(&server).ask_counted(&"x".repeat(65)), "ERROR_INVALID_BATCH");
    let log = LogLine::parse_all(&server.stop().stderr);
    let errors: Vec<_> = log.iter().filter_map(|line| line.get("error")).collect();
    assert!(errors.iter().any(|error| error.contains("too_many") && error.contains("batch_bets_max")));
    assert!(errors.iter().any(|error| error.contains("bad_length") && error.contains("payload_bytes_max")));
}

#[test]
fn winners_that_fit_no_frame_are_warned_of_once_however_often_a_client_asks() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    let mut peer = Peer::connect(&server);
    let rows = |agency: u32, winners: u32| -> String {
        (0..winners).map(|row| format!("Ana|Paz|{}|1999-03-17|7574|{agency}\n", 30_000_000 + row)).collect()
    };
    assert_eq!(peer.ask_counted(&rows(1, 1000)), "ACK");
    assert_eq!(peer.ask_counted(&rows(2, 900)), "ACK");
    for agency in ["1", "2"] {
        peer.ask_counted(&format!("GET_WINNERS|{agency}"));
    }
    for _ in 0..3 {
        assert_eq!(Peer::connect(&server).ask(&["GET_WINNERS|1"]), "WINNERS|ERR|too_many|use_pages\n");
        assert!(Peer::connect(&server).ask(&["GET_WINNERS|2"]).starts_with("WINNERS|OK|30000000,"));
    }
    let log = LogLine::parse_all(&server.stop().stderr);
    let warned: Vec<_> = log.iter().filter(|line| line.action == "consulta_ganadores").collect();
    let [warned] = warned[..] else { panic!("{warned:?}") };
    assert_eq!((warned.level.as_str(), warned.result.as_str()), ("WARNING", "fail"));
    assert_eq!((warned.get("draw"), warned.get("agencia")), (Some("1"), Some("1")));
    assert!(warned.get("error").unwrap().contains("`sorteo winners` gets them"), "{warned:?}");
}

/// Asserts that a line is there with this action and result and just these keys.
#[track_caller]
fn assert_logged(log: &[LogLine], action: &str, result: &str, keys: &[&str]) {
    let found = log.iter().any(|line| line.action == action && line.result == result && line.keys() == keys);
    assert!(found, "no {action} {result} with {keys:?} in {log:#?}");
}

#[test]
fn every_line_of_both_logs_keeps_the_contract_whatever_the_network_sends() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[7574, 2, 3]);
    // A path is an operator's, and may hold anything.
    let database = "a|b\n2026\u{202e}\u{7f}\r.db";
    let server =
        Server::start(folder.path(), &["--agencies", "1", "--log-level", "debug", "--database", database]);
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.ask(&["BET|2|Ana|Paz|a-b x/1|1999-03-17|12"]), "ACK|OK\n");
    assert_eq!(peer.ask(&["BET|2|Ana|Paz|1|1999-02-30|12"]), "ACK|ERR|bad_birthdate\n");
    let bad_row = ["BATCH|2|2", "Ana|Paz|1|1999-03-17|1", "Ana|Paz|\u{202e}|x\ny|\u{1}"];
    assert!(peer.ask(&bad_row).starts_with("ACK_BATCH|ERR|2|row 2: "));
    assert!(peer.ask(&["\u{1b}[31m|result: success\n2026"]).starts_with("ACK|ERR|"));
    assert!(peer.ask(&["DONE|x\u{202e}"]).starts_with("ACK_DONE|ERR|"));
    // A batch that is cut short by its peer, and a peer of no dialect.
    peer.send(&["BATCH|2|3", "Ana|Paz|1|1999-03-17|1"]);
    drop(peer);
    server.process.wait_log("action: apuesta_recibida | result: fail | cantidad: 3", 1);
    let mut foreign = Peer::connect(&server);
    foreign.0.write_all(b"GET /\r\n\r\n | action: sorteo").unwrap();
    server.process.wait_log("action: close_connection | result: fail", 1);
    let upload = run(&mut server
        .command(folder.path(), &["upload", "--agency", "1", "--file", "a.csv", "--log-level", "debug"]));
    upload.succeeded();
    let finished = server.stop();

    let log = LogLine::parse_all(&finished.stderr);
    for (action, result, keys) in [
        ("accept_connections", "in_progress", &[][..]),
        ("accept_connections", "success", &["ip"]),
        ("apuesta_almacenada", "success", &["dni", "numero"]),
        ("apuesta_recibida", "success", &["cantidad"]),
        ("apuesta_recibida", "fail", &["cantidad", "error", "agency", "ip"]),
        ("mensaje_recibido", "fail", &["error", "agency", "ip"]),
        ("mensaje_recibido", "fail", &["error", "ip"]),
        ("sorteo", "success", &["draw", "bets", "winners"]),
        ("shutdown", "in_progress", &[]),
        ("shutdown", "success", &[]),
        ("close_listener", "success", &[]),
        ("close_connection", "success", &["ip"]),
        ("close_connection", "fail", &["ip", "error"]),
        ("close_workers", "success", &[]),
        ("close_database", "success", &[]),
    ] {
        assert_logged(&log, action, result, keys);
    }
    let times = |action: &str, result: &str| {
        let named = |line: &&LogLine| line.action == action && line.result == result;
        log.iter().filter(named).count()
    };
    for action in ["config", "recover", "sorteo", "close_listener", "close_workers", "close_database"] {
        assert_eq!(times(action, "success"), 1, "{action}");
    }
    assert_eq!(times("accept_connections", "success"), 3);
    assert_eq!(times("close_connection", "success") + times("close_connection", "fail"), 3);
    assert_eq!(times("apuesta_recibida", "fail"), 2);
    let value = |action: &str, key: &str| {
        let line = log.iter().find(|line| line.action == action).unwrap();
        line.get(key).unwrap_or_else(|| panic!("no {key} in {line:?}")).to_owned()
    };
    assert_eq!(value("config", "database"), "a\\u{7c}b\\u{a}2026\\u{202e}\\u{7f}\\u{d}.db");
    assert_eq!(value("config", "agencies"), "1");
    assert_eq!(value("recover", "state"), "open");
    assert_eq!(value("apuesta_almacenada", "dni"), "a-b x/1");
    let agency = LogLine::parse_all(&upload.stderr);
    let expected = [
        ("apuesta_enviada", vec![("cantidad", "3")]),
        ("progreso", vec![("enviadas", "3"), ("total", "3")]),
        ("consulta_ganadores", vec![("cant_ganadores", "1")]),
        ("loop_finished", vec![]),
    ];
    let said: Vec<_> = agency
        .iter()
        .map(|line| {
            let pairs = line.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            (line.action.as_str(), pairs.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(said, expected);
    assert!(agency.iter().all(|line| line.result == "success"));
}

/// Asserts that the log has this line but for its time and level.
#[track_caller]
fn wait_for_end(server: &Server, end: &str) {
    server.process.wait_log(&format!(" action: {end}\n"), 1);
}

#[test]
fn a_refusal_names_the_agency_the_address_and_the_upload() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "3", "--request-timeout", "1"]);
    let mut peer = Peer::connect(&server);
    let row = "Ana|Paz|1|1999-03-17|1";
    let ask = |peer: &mut Peer, frames: &[&str], answer: &str| {
        assert!(peer.ask(frames).starts_with(answer), "{frames:?}");
    };
    // The store refuses them.
    ask(&mut peer, &["BATCH|1|1|up.1|5", row], "ACK_BATCH|ERR|1|gap|0");
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 1 | error: gap 0 | agency: 1 | ip: 127.0.0.1 | upload: up.1",
    );
    ask(&mut peer, &["DONE|1|7"], "ACK_DONE|ERR|count_mismatch|0");
    wait_for_end(
        &server,
        "agencia_terminada | result: fail | agencia: 1 | error: count_mismatch 0 | ip: 127.0.0.1",
    );
    ask(&mut peer, &["DONE|1"], "ACK_DONE|OK");
    ask(&mut peer, &["BATCH|1|1", row], "ACK_BATCH|ERR|1|agency_done");
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 1 | error: agency_done | agency: 1 | ip: 127.0.0.1",
    );
    ask(&mut peer, &["BET|1|Ana|Paz|0309|1999-03-17|12"], "ACK|ERR|agency_done");
    wait_for_end(
        &server,
        "apuesta_almacenada | result: fail | dni: 0309 | numero: 12 | error: agency_done | agency: 1 | ip: 127.0.0.1",
    );
    // The decoder refuses them.
    ask(&mut peer, &["BATCH|2|1|up.2|0", "Ana"], "ACK_BATCH|ERR|1|row 1");
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 1 | error: row 1: bad_fields | agency: 2 | ip: 127.0.0.1 | upload: up.2",
    );
    ask(&mut peer, &["BATCH|2|1|up 2|0", row], "ACK_BATCH|ERR|1|bad_upload");
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 1 | error: bad_upload | agency: 2 | ip: 127.0.0.1",
    );
    ask(&mut peer, &["BATCH|2|x|up.3|0"], "ACK_BATCH|ERR|0|bad_count");
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 0 | error: bad_count | agency: 2 | ip: 127.0.0.1 | upload: up.3",
    );
    ask(&mut peer, &["BET|2|Ana|Paz|1|1999-03-17|12"], "ACK|ERR|stray_row");
    wait_for_end(&server, "mensaje_recibido | result: fail | error: stray_row | agency: 2 | ip: 127.0.0.1");
    ask(&mut peer, &["DONE|2|x"], "ACK_DONE|ERR|bad_count");
    wait_for_end(&server, "mensaje_recibido | result: fail | error: bad_count | agency: 2 | ip: 127.0.0.1");
    ask(&mut peer, &["RESUME|x|up.4"], "RESUME|ERR|bad_agency");
    wait_for_end(
        &server,
        "mensaje_recibido | result: fail | error: bad_agency | ip: 127.0.0.1 | upload: up.4",
    );
    peer.0.write_all(&[0, 0, 0, 0]).unwrap();
    wait_for_end(&server, "mensaje_recibido | result: fail | error: bad_frame | ip: 127.0.0.1");
    let mut counted = Peer::connect(&server);
    assert_eq!(counted.ask_counted("Ana|Paz|1|1999-03-17|1|2\nAna|Paz|x|3"), "ERROR_INVALID_BATCH");
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 2 | error: row 2: bad_fields | agency: several | ip: 127.0.0.1",
    );
    assert_eq!(counted.ask_counted("Ana|Paz|1|1999-03-17|1|1"), "ERROR_INVALID_BATCH");
    assert_eq!(counted.ask_counted("GET_WINNERS|1|x"), "ERROR_INVALID_GET_WINNERS");
    wait_for_end(&server, "mensaje_recibido | result: fail | error: bad_header | ip: 127.0.0.1");
    // They are cut short by their peer, or by a limit of the server.
    let cut_short = |frames: &[&str]| {
        let mut peer = Peer::connect(&server);
        peer.send(frames);
        peer
    };
    drop(cut_short(&["BATCH|3|4|up.5|0", row]));
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 4 | error: connection_closed | agency: 3 | ip: 127.0.0.1 | upload: up.5",
    );
    cut_short(&["BATCH|3|5", row]).read_end();
    wait_for_end(
        &server,
        "apuesta_recibida | result: fail | cantidad: 5 | error: request_timeout | agency: 3 | ip: 127.0.0.1",
    );
    wait_for_end(&server, "close_connection | result: fail | ip: 127.0.0.1 | error: request_timeout");
    server.stop();
}

#[test]
fn a_peer_that_stores_nothing_cannot_fill_the_log_and_what_is_left_out_is_counted() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.ask(&["DONE|1"]), "ACK_DONE|OK\n");
    // 13 bytes and a line each.
    for (frame, answer) in [
        ("BATCH|1|0", "ACK_BATCH|ERR|0|agency_done\n"),
        ("BATCH|2|0", "ACK_BATCH|OK|0\n"),
        ("DONE|2|77", "ACK_DONE|ERR|count_mismatch|0\n"),
        ("BET|1|A|B|1|1999-03-17|1", "ACK|ERR|agency_done\n"),
        ("nonsense", "ACK|ERR|unknown\n"),
    ] {
        peer.send(&[frame; 1_000]);
        (0..1_000).for_each(|_| assert_eq!(peer.read_answer(), answer));
    }
    // What is stored is always logged.
    peer.send(&["BET|2|Ana|Paz|1|1999-03-17|1"; 100]);
    (0..100).for_each(|_| assert_eq!(peer.read_answer(), "ACK|OK\n"));
    // New connections cause no more than some lines either.
    for _ in 0..300 {
        drop(Peer::connect(&server));
    }
    // It is accepted behind all of them.
    assert!(Peer::connect(&server).ask(&["STATUS"]).starts_with("STATUS|OK|"));
    let log = LogLine::parse_all(&server.stop().stderr);
    let sum = |action: &str, result: &str| {
        let of_action = |line: &&LogLine| line.action == action && line.result == result;
        let told = |line: &&LogLine| line.action == "log" && line.get("line") == Some(action);
        let left_out = |line: &LogLine| line.get("suppressed").unwrap().parse::<usize>().unwrap();
        let logged = log.iter().filter(of_action).count();
        (logged, logged + log.iter().filter(told).map(left_out).sum::<usize>())
    };
    assert_eq!(sum("apuesta_almacenada", "success").0, 100);
    // The time of the limits may have passed in between, more than once on a busy machine.
    for (action, result, lines, connection_lines) in [
        ("apuesta_recibida", "fail", 1_000, 20),
        ("agencia_terminada", "fail", 1_000, 20),
        ("apuesta_almacenada", "fail", 1_000, 20),
        ("mensaje_recibido", "fail", 1_000, 20),
        ("accept_connections", "success", 302, 200),
    ] {
        let (logged, all) = sum(action, result);
        assert!(logged >= connection_lines && logged < lines / 2 + connection_lines, "{action}: {logged}");
        let expected =
            if action == "apuesta_recibida" { 2 * lines - sum(action, "success").0 } else { lines };
        assert_eq!(all, expected, "{action}");
    }
    let told = log.iter().find(|line| line.action == "log").unwrap();
    assert_eq!(
        (&*told.level, &*told.result, told.keys()),
        ("WARNING", "fail", vec!["suppressed", "line", "ip"])
    );
    assert_eq!(told.get("ip"), Some("127.0.0.1"));
}

#[test]
fn the_reader_of_log_lines_refuses_what_breaks_the_contract() {
    let good = "2026-11-21 20:31:05 INFO     action: sorteo | result: success | draw: 1";
    assert_eq!(LogLine::parse(good).unwrap().get("draw"), Some("1"));
    for (from, to) in [
        ("2026-11-21 20", "2026-11-21T20"),
        ("INFO     ", "INFO "),
        ("INFO     ", "TRACE    "),
        ("success", "ok"),
        ("action", "Action"),
        ("action: sorteo | ", ""),
        (" | result: success", ""),
        ("draw: 1", "draw: 1|2"),
        ("draw: 1", "draw: 1\r"),
        ("draw: 1", "draw: \u{202e}1"),
        ("draw: 1", "draw"),
        ("draw: 1", "draw: "),
        (" | draw", " |draw"),
    ] {
        let bad = good.replace(from, to);
        assert!(LogLine::parse(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_reader_that_makes_the_log_of_the_database_grow_is_told_of() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    let reader = Connection::open(folder.path().join("sorteo.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM draws", [], |row| row.get(0)).unwrap();
    let mut peer = Peer::connect(&server);
    let row = format!("{name}|{name}|1|1999-03-17|1", name = "n".repeat(120));
    let mut batch = vec!["BATCH|1|10000"];
    batch.resize(10_001, &row);
    let line = "action: checkpoint | result: fail | wal_pages: ";
    // Each is some 650 pages; from 8,192 on it is told, and again for each as many.
    for _ in 0..20 {
        assert_eq!(peer.ask(&batch), "ACK_BATCH|OK|10000\n");
    }
    server.process.wait_log(line, 1);
    assert!(server.process.count(line) <= 2, "{}", server.process.log());
    assert_eq!(server.process.count("`fuser -v sorteo.db` lists the programs"), server.process.count(line));
    reader.execute_batch("COMMIT").unwrap();
    server.stop();
}
