//! Draws that follow one another: beside a running server, an operator opens the next
//! one or closes a silent agency, and every agency still gets its own winners.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use sorteo::store::sqlite::operator::{DrawTerms, Operator, OperatorError};
use sorteo::store::sqlite::overview::{Overview, Query, ResultsCursor};
use sorteo_agency::{AgencyError, ClientOptions, Event, Observer, Upload};
use sorteo_protocol::{AgencyId, DrawId};
use sorteo_test_support::process::{
    DEADLINE, Finished, Server, assert_names, bets_file, folder, run, run_changing_nothing, sorteo,
};

use crate::data::{ask, ask_frames};
use crate::test_server::{Setup, counted, frame, frames};

const BET: &str = "Ana|Paz|30876370|1999-03-17|7574";
const ACK: &[u8] = b"3\nACK";
const NOT_ENDED: &[u8] = b"25\nERROR_LOTTERY_HASNT_ENDED";

fn draw(folder: &Path, args: &[&str]) -> Finished {
    run(sorteo(folder, ["draw"]).args(args))
}

fn upload(server: &Server, folder: &Path, agency: &str, file: &str) -> Finished {
    run(&mut server.command(folder, &["upload", "--agency", agency, "--file", file, "--no-wait"]))
}

fn column(folder: &Path, sql: &str) -> Vec<String> {
    let connection = Connection::open(folder.join("sorteo.db")).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

#[test]
fn draws_follow_one_another_beside_a_running_server() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "1.csv", &[7574, 1]);
    bets_file(path, "2.csv", &[2, 4242, 4242]);
    let server = Server::start(path, &["--agencies", "1"]);
    upload(&server, path, "1", "1.csv").succeeded();
    let opened = draw(path, &["open", "--agencies", "2", "--winning-number", "4242"]);
    assert_eq!(opened.succeeded(), "draw 2 is open: 2 agencies must be done, number 4242 wins\n");
    upload(&server, path, "1", "2.csv").succeeded();
    let status = run(&mut server.command(path, &["status"]));
    assert_eq!(status.succeeded(), "draw 2: open, 1 of 2 agencies done, 3 bets\n");
    upload(&server, path, "7", "1.csv").succeeded();
    let winners = |draw: &str| run(&mut server.command(path, &["winners", "--agency", "1", "--draw", draw]));
    assert_eq!(winners("1").succeeded(), "3000000\n", "winners of an earlier draw stay readable");
    assert_eq!(winners("2").succeeded(), "3000001\n3000002\n");
    assert_names(winners("3").failed(1), &["bad_draw"]);
    assert_eq!(server.process.count("action: sorteo | result: success | draw: 1 | bets: 2 | winners: 1"), 1);
    assert_eq!(server.process.count("action: sorteo | result: success | draw: 2 | bets: 5 | winners: 2"), 1);
    let list = draw(path, &["list"]);
    let listed: Vec<Vec<&str>> =
        list.succeeded().lines().skip(1).map(|line| line.split_whitespace().take(8).collect()).collect();
    assert_eq!(listed[0], ["2", "drawn", "2", "of", "2", "5", "2", "4242"]);
    assert_eq!(listed[1], ["1", "drawn", "1", "of", "1", "2", "1", "7574"]);
    server.stop();
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

#[test]
fn the_next_draw_opens_only_behind_one_that_is_made_and_keeps_what_it_is_not_told() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[5]);
    let missing = draw(path, &["open"]);
    assert_names(missing.failed(74), &["there is no database sorteo.db"]);
    assert_eq!(fs::read_dir(path).unwrap().count(), 1, "nothing is created");
    let server = Server::start(path, &["--agencies", "2", "--winning-number", "5"]);
    upload(&server, path, "1", "bets.csv").succeeded();
    let early = draw(path, &["open"]);
    assert_names(early.failed(1), &["draw 1 is still open", "1 of 2 agencies", "close-agency"]);
    upload(&server, path, "2", "bets.csv").succeeded();
    let opened = draw(path, &["open", "--json"]);
    let draw_2: serde_json::Value = serde_json::from_str(opened.succeeded()).unwrap();
    assert_eq!(
        (&draw_2["id"], &draw_2["expected"], &draw_2["winning_number"]),
        (&2.into(), &2.into(), &5.into())
    );
    assert_names(draw(path, &["open"]).failed(1), &["draw 2 is still open"]);
    for (agencies, number) in [("0", "1"), ("1", "-1"), ("4294967296", "1"), ("1", "4294967296")] {
        let wrong = draw(path, &["open", "--agencies", agencies, "--winning-number", number]);
        assert_eq!(wrong.code, Some(2), "{wrong:#?}");
    }
    assert_eq!(
        column(path, "SELECT action || ' ' || draw_id || ' ' || detail FROM audit ORDER BY id"),
        [
            "serve 1 expected_agencies set to 2",
            "serve 1 winning_number set to 5",
            "open-draw 2 expected_agencies set to 2",
            "open-draw 2 winning_number set to 5",
        ]
    );
    server.stop();
}

#[test]
fn a_restarted_server_leaves_a_draw_as_the_operator_opened_it_and_says_so() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[1]);
    let server = Server::start(path, &["--agencies", "1"]);
    upload(&server, path, "1", "bets.csv").succeeded();
    draw(path, &["open", "--agencies", "3"]).succeeded();
    server.stop();
    let server = Server::start(path, &["--agencies", "1", "--winning-number", "9"]);
    let not_taken =
        "action: config | result: fail | setting: agencies | error: draw 2 keeps what an operator set";
    assert_eq!(server.process.count(not_taken), 1, "{}", server.process.log());
    assert_eq!(server.process.count("setting: winning_number | error: draw 2"), 1);
    upload(&server, path, "1", "bets.csv").succeeded();
    let status = run(&mut server.command(path, &["status"]));
    assert_eq!(status.succeeded(), "draw 2: open, 1 of 3 agencies done, 1 bet\n");
    server.stop();
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

#[test]
fn closing_a_silent_agency_makes_the_draw_and_is_audited() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[7574, 1]);
    let server = Server::start(path, &["--agencies", "3"]);
    upload(&server, path, "1", "bets.csv").succeeded();
    upload(&server, path, "3", "bets.csv").succeeded();
    // Agency 2 sent a bet, and then nothing more.
    let mut silent = server.command(path, &["upload", "--agency", "2"]);
    silent.envs([("NOMBRE", "Ana"), ("APELLIDO", "Paz"), ("DOCUMENTO", "77"), ("NACIMIENTO", "1999-03-17")]);
    run(silent.env("NUMERO", "7574")).succeeded();
    let close = |args: &[&str]| draw(path, &[&["close-agency"], args].concat());
    assert_eq!(close(&["2"]).code, Some(2), "a reason must be given");
    let long = "x".repeat(501);
    for reason in ["", "  ", "two\nlines", &long] {
        let refused = close(&["2", "--reason", reason]);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert_names(&refused.stderr, &["the reason must be one line of 1 to 500 bytes"]);
    }
    assert_names(close(&["1", "--reason", "r"]).failed(1), &["agency 1 is already done in draw 1"]);
    let mistyped = close(&["22", "--reason", "r"]);
    assert_names(mistyped.failed(1), &["agency 22 has sent nothing in draw 1", "1 to 3", "--force"]);
    assert_eq!(close(&["two", "--reason", "r"]).code, Some(2));
    let closed = close(&["2", "--reason", "line down; agreed by telephone"]);
    assert_eq!(
        closed.succeeded(),
        "agency 2 is closed in draw 1, with 1 bet\ndraw 1 is drawn: 5 bets, 3 winners\n"
    );
    assert!(
        closed.stderr.ends_with("action: sorteo | result: success | draw: 1 | bets: 5 | winners: 3\n"),
        "the command that completes the draw logs it: {closed:#?}"
    );
    assert_eq!(server.process.count("action: sorteo"), 0, "and the server does not");
    let winners = run(&mut server.command(path, &["winners", "--agency", "2"]));
    assert_eq!(winners.succeeded(), "77\n");
    assert_names(close(&["2", "--reason", "r"]).failed(1), &["draw 1 is already drawn", "nothing to change"]);
    let audit = column(path, "SELECT detail FROM audit WHERE action = 'close-agency'");
    assert_eq!(audit, ["agency 2 closed with 1 bets: line down; agreed by telephone"]);
    assert_eq!(
        column(path, r#"SELECT "by" FROM done_agencies ORDER BY agency"#),
        ["agency", "operator", "agency"]
    );
    let shown = draw(path, &["show"]);
    assert_names(
        shown.succeeded(),
        &["draw 1: drawn, 3 of 3 agencies done, 5 bets", "closed by an operator"],
    );
    server.stop();
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

#[test]
fn a_mistyped_agency_is_put_right_by_setting_which_agencies_the_draw_expects() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[7574, 4242]);
    let server = Server::start(path, &["--agencies", "2"]);
    let set = |args: &[&str]| draw(path, &[&["set"], args].concat());
    assert_eq!(ask(&server, "DONE|22"), "ACK_DONE|OK", "a count admits any agency");
    assert_eq!(set(&["--reason", "r"]).code, Some(2), "a term must be given");
    assert_eq!(set(&["--agencies", "1-2"]).code, Some(2), "and a reason");
    assert_eq!(set(&["--agencies", "2-1", "--reason", "r"]).code, Some(2));
    let changed = set(&["--agencies", "2,1", "--winning-number", "4242", "--reason", "22 was a slip"]);
    assert_eq!(changed.succeeded(), "draw 1 is open: the agencies 1-2 must be done, number 4242 wins\n");
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|1|open|0|2|0", "22 does not count any more");
    let again = set(&["--winning-number", "4242", "--reason", "r"]);
    assert_eq!(
        again.succeeded(),
        "draw 1 has these terms already, nothing was changed\n\
         draw 1 is open: the agencies 1-2 must be done, number 4242 wins\n"
    );
    assert_eq!(ask(&server, "DONE|23"), "ACK_DONE|ERR|unknown_agency");
    assert_eq!(ask(&server, "BET|22|Ana|Paz|1|1999-03-17|1"), "ACK|ERR|agency_done");
    assert_eq!(ask(&server, "BET|23|Ana|Paz|1|1999-03-17|1"), "ACK|ERR|unknown_agency");
    let refused = upload(&server, path, "23", "bets.csv");
    assert_names(refused.failed(1), &["unknown_agency", "check the agency's number"]);
    for args in [&["23", "--reason", "r"][..], &["23", "--reason", "r", "--force"]] {
        let refused = draw(path, &[&["close-agency"], args].concat());
        assert_names(refused.failed(1), &["draw 1 expects the agencies 1-2, agency 23 is none of them"]);
    }
    server.stop();
    // A server that is started as it always was leaves the draw as it was set.
    let server = Server::start(path, &["--agencies", "2"]);
    assert_eq!(server.process.count("error: draw 1 keeps what an operator set"), 1);
    upload(&server, path, "1", "bets.csv").succeeded();
    assert_eq!(draw(path, &["close-agency", "2", "--reason", "never opened"]).code, Some(0));
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|1|drawn|2|2|2");
    assert_names(set(&["--agencies", "1", "--reason", "r"]).failed(1), &["draw 1 is already drawn"]);
    let shown = draw(path, &["show"]);
    assert_names(shown.succeeded(), &["2 of 2 agencies done", "expected are the agencies 1-2"]);
    server.stop();
    assert_eq!(
        column(path, "SELECT detail FROM audit WHERE action = 'set-draw' ORDER BY id"),
        ["expected_agencies set to 1-2", "winning_number set to 4242", "reason: 22 was a slip"]
    );
    // The next draw expects the same agencies.
    assert_eq!(
        draw(path, &["open"]).succeeded(),
        "draw 2 is open: the agencies 1-2 must be done, number 4242 wins\n"
    );
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

#[test]
fn a_draw_whose_expected_agencies_are_done_already_takes_place_when_they_are_set() {
    let folder = folder();
    let path = folder.path();
    let server = Server::start(path, &[]);
    for request in ["BET|1|Ana|Paz|1|1999-03-17|7574", "DONE|9000", "DONE|1", "DONE|3"] {
        ask(&server, request);
    }
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|1|open|3|9000|1");
    let set = draw(path, &["set", "--agencies", "1,3", "--reason", "9000 was a slip"]);
    assert_eq!(set.succeeded(), "draw 1 is drawn: 1 bet, 1 winner\n");
    assert_names(&set.stderr, &["action: sorteo | result: success | draw: 1 | bets: 1 | winners: 1\n"]);
    assert_eq!(ask(&server, "GET_WINNERS|1"), "WINNERS|OK|1");
    server.stop();
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

#[test]
fn what_names_its_draw_is_about_that_draw_when_the_next_one_is_open() {
    let folder = folder();
    let path = folder.path();
    let server = Server::start(path, &["--agencies", "1"]);
    let batch = |header: &str, rows: &[&str]| ask_frames(&server, &[&[header], rows].concat());
    let (ana, luis) = ("Ana|Paz|1|1999-03-17|7574", "Luis|Sosa|2|1999-03-17|1");
    assert_eq!(ask(&server, "RESUME|1|up|2"), "RESUME|ERR|bad_draw", "the next draw is not there yet");
    assert_eq!(batch("BATCH|1|1|up|0|1", &[ana]), "ACK_BATCH|OK|1");
    assert_eq!(batch("BATCH|1|1|up|1|2", &[luis]), "ACK_BATCH|ERR|1|bad_draw");
    assert_eq!(ask(&server, "DONE|1|1|2"), "ACK_DONE|ERR|bad_draw");
    assert_eq!(ask(&server, "DONE|1|1|1"), "ACK_DONE|OK");
    draw(path, &["open"]).succeeded();
    // Stored or refused as if the next draw were not there.
    assert_eq!(batch("BATCH|1|1|up|0|1", &[ana]), "ACK_BATCH|OK|1");
    assert_eq!(batch("BATCH|1|1|up|0|1", &[luis]), "ACK_BATCH|ERR|1|conflict");
    assert_eq!(batch("BATCH|1|1|up|1|1", &[luis]), "ACK_BATCH|ERR|1|draw_closed");
    assert_eq!(batch("BATCH|1|1|new|0|1", &[luis]), "ACK_BATCH|ERR|1|draw_closed");
    assert_eq!(ask(&server, "RESUME|1|up|1"), "RESUME|OK|1");
    assert_eq!(ask(&server, "DONE|1|1|1"), "ACK_DONE|OK");
    assert_eq!(ask(&server, "DONE|1|0|1"), "ACK_DONE|ERR|count_mismatch|1");
    assert_eq!(ask(&server, "DONE|1||1"), "ACK_DONE|OK");
    assert_eq!(ask(&server, "DONE|9|0|1"), "ACK_DONE|OK", "a draw that is drawn has nothing left to close");
    assert_eq!(ask(&server, "WAIT_WINNERS|1|60000|1"), "WINNERS|OK|1|");
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|open|0|1|0", "nothing of it fell into draw 2");
    // The next draw, named and not, has the same upload from its first row.
    assert_eq!(ask(&server, "RESUME|1|up|2"), "RESUME|OK|0");
    assert_eq!(ask(&server, "RESUME|1|up"), "RESUME|OK|0");
    assert_eq!(batch("BATCH|1|1|up|0|2", &[luis]), "ACK_BATCH|OK|1");
    assert_eq!(ask(&server, "WAIT_WINNERS|1|0|2"), "WINNERS|ERR|not_ready");
    assert_eq!(ask(&server, "WAIT_WINNERS|1|0|3"), "WINNERS|ERR|bad_draw");
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|open|0|1|1");
    server.stop();
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

#[test]
fn an_upload_that_is_repeated_for_its_draw_finds_all_stored_there_and_sends_nothing_into_the_next() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "1.csv", &[7574, 1]);
    bets_file(path, "2.csv", &[2, 7574, 7574]);
    let server = Server::start(path, &["--agencies", "1"]);
    let upload = |file: &str, more: &[&str]| {
        let args = [&["upload", "--agency", "1", "--file", file], more].concat();
        run(&mut server.command(path, &args))
    };
    upload("1.csv", &["--draw", "1"]).succeeded();
    draw(path, &["open"]).succeeded();
    let repeated = upload("1.csv", &["--draw", "1", "--winners-out", "winners.txt"]);
    assert_eq!(repeated.code, Some(0), "{repeated:#?}");
    assert_eq!(fs::read_to_string(path.join("winners.txt")).unwrap(), "3000000\n");
    let late = upload("2.csv", &["--draw", "1"]);
    assert_names(late.failed(1), &["draw 1, which these bets are for, is over and draw 2 is open"]);
    assert_names(upload("2.csv", &["--draw", "3"]).failed(1), &["bad_draw", "there is no such draw"]);
    assert_names(upload("2.csv", &["--draw", "1", "--dialect", "counted"]).failed(1), &["--draw"]);
    assert_eq!(upload("2.csv", &["--draw", "0"]).code, Some(2));
    let single =
        server.command(path, &["upload", "--agency", "1", "--draw", "1"]).env("NOMBRE", "Ana").output();
    assert_eq!(single.unwrap().status.code(), Some(1));
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|open|0|1|0");
    let done = |args: &[&str]| run(&mut server.command(path, &[&["done", "--agency", "1"], args].concat()));
    assert_eq!(done(&["--draw", "1"]).succeeded(), "agency 1 is done\n");
    assert_names(done(&["--draw", "3"]).failed(1), &["bad_draw"]);
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|open|0|1|0", "it is not done in draw 2");
    assert_eq!(done(&[]).succeeded(), "agency 1 is done\n");
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|drawn|1|1|0");
    server.stop();
}

#[test]
fn an_upload_sends_nothing_into_the_next_draw() {
    let server = Setup::agencies(2).start();
    let folder = folder();
    bets_file(folder.path(), "bets.csv", &[1, 2, 3, 4]);
    let file = folder.path().join("bets.csv");
    let reports = Arc::new(Mutex::new(0));
    let operator = Mutex::new(Operator::open(&server.database_path()).unwrap());
    let mut options = ClientOptions::new(server.address().to_string(), DEADLINE);
    let count = Arc::clone(&reports);
    options.observer = Observer::new(move |event| {
        if let Event::Resumed { .. } | Event::Stored { .. } = event {
            *count.lock().unwrap() += 1;
        }
        if let Event::Stored { stored: 2, .. } = event {
            // In the middle of it: the agency is taken for silent, and the next draw opens.
            let mut operator = operator.lock().unwrap();
            operator.close_agency(AgencyId(1), "silent", false).unwrap();
            assert!(operator.close_agency(AgencyId(2), "silent", false).unwrap().drawn_now);
            operator.open_draw(DrawTerms::default()).unwrap();
        }
    });
    // Of two batches in flight, both may be stored before the report of the first.
    options.window.batches = 1;
    let mut upload = Upload::start(options, AgencyId(1), &file).unwrap();
    let sent = upload.send(&file, 2);
    assert_eq!(*reports.lock().unwrap(), 2, "the beginning, and one batch");
    assert!(matches!(sent, Err(AgencyError::OtherDraw { draw: DrawId(1), newest: DrawId(2) })), "{sent:?}");
    server.ask_once(&frame("STATUS"), &frame("STATUS|OK|2|open|0|2|0\n"));
    assert_eq!(upload.wait_winners().unwrap(), Vec::<String>::new(), "its own draw can be asked of");
}

#[test]
fn a_change_that_waited_for_a_database_that_was_replaced_is_no_change() {
    let server = Setup::agencies(1).start();
    let path = server.database_path();
    let mut operator = Operator::open(&path).unwrap();
    let other = path.with_extension("other");
    fs::copy(&path, &other).unwrap();
    fs::rename(&other, &path).unwrap();
    let refused = operator.close_agency(AgencyId(1), "silent", false);
    assert!(matches!(refused, Err(OperatorError::Replaced(_))), "{refused:?}");
}

#[test]
fn a_command_that_is_refused_leaves_the_log_where_it_is() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[1; 500]);
    let mut server = Server::start(path, &["--agencies", "2"]);
    upload(&server, path, "1", "bets.csv").succeeded();
    server.process.kill();
    let database = path.join("sorteo.db");
    let log = path.join("sorteo.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    // Changed without a checkpoint: the change is in the log, like the bets.
    let changed = Connection::open(&database).unwrap();
    changed.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    changed.execute_batch("UPDATE draws SET expected_agencies = 1").unwrap();
    drop(changed);
    let before = (fs::read(&database).unwrap(), fs::read(&log).unwrap());
    for args in [&["open"][..], &["close-agency", "2", "--reason", "r"]] {
        assert_names(draw(path, args).failed(74), &["sorteo.db is damaged", "the audit records"]);
        assert!(before == (fs::read(&database).unwrap(), fs::read(&log).unwrap()), "{args:?}");
    }
}

#[test]
fn an_agency_nobody_knows_is_closed_only_by_force() {
    let server = Setup::agencies(2).start();
    let path = server.database_path();
    let mut operator = Operator::open(&path).unwrap();
    for unknown in [0, 3, u32::MAX] {
        let refused = operator.close_agency(AgencyId(unknown), "r", false);
        assert!(matches!(refused, Err(OperatorError::UnknownAgency { expected: 2, .. })), "{refused:?}");
    }
    let closed = operator.close_agency(AgencyId(3), "renumbered", true).unwrap();
    assert_eq!((closed.bets, closed.drawn_now, closed.status.done), (0, false, 1));
    let closed = operator.close_agency(AgencyId(2), "never opened", false).unwrap();
    assert!(closed.drawn_now);
}

#[test]
fn who_waits_for_a_draw_gets_its_winners_though_the_next_one_opens_first() {
    let server = Setup::agencies(2).start();
    let path = server.database_path();
    server.ask_once(&frame(&format!("BET|1|{BET}")), &frame("ACK|OK\n"));
    let mut waiting = server.connect();
    // In one piece: the first is answered when the second has begun to wait.
    waiting.ask(&frames(&["DONE|1", "WAIT_WINNERS|1|60000"]), &frame("ACK_DONE|OK\n"));
    let mut operator = Operator::open(&path).unwrap();
    // Made and followed by the next in one go: no moment in which the newest is made.
    let closed = operator.close_agency(AgencyId(2), "silent", false).unwrap();
    assert!(closed.drawn_now);
    operator.open_draw(DrawTerms::default()).unwrap();
    waiting.expect(&frame("WINNERS|OK|30876370|\n"));
    server.ask_once(&frame("GET_WINNERS|1"), &frame("WINNERS|ERR|not_ready\n"));
    server.ask_once(&frame("GET_WINNERS|1|0|1"), &frame("WINNERS|OK|30876370|\n"));
}

#[test]
fn a_counted_agency_that_asks_late_gets_its_winners_and_is_not_done_in_the_next_draw() {
    let server = Setup::agencies(1).start();
    let path = server.database_path();
    let line = format!("{BET}|1");
    server.ask_once(&counted(&line), ACK);
    server.ask_once(&counted("GET_WINNERS|1"), &counted(&line));
    let mut operator = Operator::open(&path).unwrap();
    operator.open_draw(DrawTerms { agencies: Some(2.into()), winning_number: None }).unwrap();
    for _ in 0..2 {
        server.ask_once(&counted("GET_WINNERS|1"), &counted(&line));
    }
    server.ask_once(&frame("STATUS"), &frame("STATUS|OK|2|open|0|2|0\n"));
    // Another one took no part in the draw before: it is done in this one.
    server.ask_once(&counted("GET_WINNERS|2"), NOT_ENDED);
    server.ask_once(&frame("STATUS"), &frame("STATUS|OK|2|open|1|2|0\n"));
    // From its first bet on, the question is about the new draw.
    server.ask_once(&counted("Eva|Sol|1|1999-03-17|1|1"), ACK);
    server.ask_once(&counted("GET_WINNERS|1"), &counted(""));
    server.ask_once(&frame("STATUS"), &frame("STATUS|OK|2|drawn|2|2|1\n"));
}

#[test]
fn an_overview_shows_what_each_agency_sent_draw_by_draw() {
    let server = Setup::agencies(2).start();
    let overview = Overview::open(&server.database_path()).unwrap();
    let look = |draw: Option<i64>| {
        let detail = overview.detail(draw.map(DrawId)).unwrap().unwrap();
        let agencies: Vec<_> = detail
            .agencies
            .iter()
            .map(|one| (one.agency, one.bets, one.batches, one.done, one.winners))
            .collect();
        (detail.draw.id, agencies)
    };
    assert_eq!(look(None), (1, vec![]));
    for sent in 1..=3 {
        server.ask_once(&frame(&format!("BET|2|{BET}")), &frame("ACK|OK\n"));
        assert_eq!(look(None), (1, vec![(2, sent, sent, false, 0)]));
    }
    server.ask_once(&frame("DONE|1"), &frame("ACK_DONE|OK\n"));
    assert_eq!(look(None), (1, vec![(1, 0, 0, true, 0), (2, 3, 3, false, 0)]));
    server.ask_once(&frame("DONE|2"), &frame("ACK_DONE|OK\n"));
    let made = (1, vec![(1, 0, 0, true, 0), (2, 3, 3, true, 3)]);
    assert_eq!(look(None), made);
    Operator::open(&server.database_path()).unwrap().open_draw(DrawTerms::default()).unwrap();
    assert_eq!(look(None), (2, vec![]));
    server.ask_once(&frame(&format!("BET|1|{BET}")), &frame("ACK|OK\n"));
    assert_eq!(look(None), (2, vec![(1, 1, 1, false, 0)]));
    assert_eq!(look(Some(1)), made);
    assert_eq!(overview.detail(Some(DrawId(3))).unwrap(), None);
    let draws: Vec<_> = overview.draws(1).unwrap().iter().map(|draw| (draw.id, draw.is_drawn())).collect();
    assert_eq!(draws, [(2, false)], "the newest come first");
}

#[test]
fn results_are_found_by_agency_and_by_part_of_a_name_page_by_page() {
    let server = Setup::agencies(3).start();
    for (agency, bet) in [
        (3, "Eva|Sol|11|1999-03-17|7574"),
        (1, "ANA|Ruiz|22|1999-03-17|7574"),
        (1, "Leo|Paz|33|1999-03-17|1"),
        (2, "Iván|Anaya|44|1999-03-17|7574"),
        (1, "Luz|Paz|225|1999-03-17|7574"),
    ] {
        server.ask_once(&frame(&format!("BET|{agency}|{bet}")), &frame("ACK|OK\n"));
    }
    for agency in 1..=3 {
        server.ask_once(&frame(&format!("DONE|{agency}")), &frame("ACK_DONE|OK\n"));
    }
    let overview = Overview::open(&server.database_path()).unwrap();
    let find = |query: Query| {
        let results = overview.results(DrawId(1), &Query { winners_max: 2, ..query }).unwrap();
        let documents: Vec<_> = results.winners.iter().map(|winner| winner.document.clone()).collect();
        (results.total, documents, results.next)
    };
    let search = |text: &str| find(Query { search: Some(text.to_owned()), ..Query::default() });
    let second = ResultsCursor { agency: AgencyId(1), bet: 5 };
    assert_eq!(find(Query::default()), (4, vec!["22".into(), "225".into()], Some(second)));
    let rest = find(Query { after: Some(second), ..Query::default() });
    assert_eq!(rest, (4, vec!["44".into(), "11".into()], None));
    let of_one = find(Query { agency: Some(AgencyId(2)), ..Query::default() });
    assert_eq!(of_one, (1, vec!["44".into()], None));
    assert_eq!(search("ana"), (2, vec!["22".into(), "44".into()], None), "in either name, in either case");
    assert_eq!(search("22"), (2, vec!["22".into(), "225".into()], None));
    assert_eq!(search("Paz"), (1, vec!["225".into()], None), "an agency's losing bets are no results");
    assert_eq!(search("%"), (0, vec![], None), "a text, not a pattern");
}

#[test]
fn looking_changes_nothing_and_tells_what_is_not_there() {
    let folder = folder();
    let path = folder.path();
    Server::start(path, &["--agencies", "2"]).stop();
    let shown = draw(path, &["show"]);
    assert_names(shown.succeeded(), &["draw 1: open, 0 of 2 agencies done", "no agency has sent anything"]);
    assert_names(draw(path, &["show", "9"]).failed(1), &["sorteo.db has no draw 9", "draw list"]);
    assert_eq!(draw(path, &["show", "0"]).code, Some(2));
    let other = path.join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    for args in [&["list"][..], &["show"], &["open"], &["close-agency", "1", "--reason", "r"]] {
        let command = [args, &["--database", "other.db"]].concat();
        let refused = run_changing_nothing(path, sorteo(path, ["draw"]).args(&command));
        assert_names(refused.failed(74), &["other.db", "another program"]);
    }
}
