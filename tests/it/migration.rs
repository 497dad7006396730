//! A database of the version before, under the program of this version.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use sorteo_test_support::process::{Server, assert_names, folder, run, run_comparing, sorteo};
use sorteo_test_support::{version_one, version_two};
use tempfile::TempDir;

use crate::data::ask;

fn old_database() -> TempDir {
    let folder = folder();
    version_one::create(&folder.path().join("sorteo.db"));
    folder
}

fn checked(folder: &Path) -> String {
    run(&mut sorteo(folder, ["check"])).succeeded().to_owned()
}

#[test]
fn a_server_brings_a_database_of_the_version_before_up_to_date_and_goes_on_with_it() {
    let folder = old_database();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.process.count("action: migrate | result: in_progress | from: 1 | to: 3"), 1);
    assert_eq!(server.process.count("action: migrate | result: success | from: 1 | to: 3"), 1);
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|open|1|2|6");
    assert_eq!(ask(&server, "GET_WINNERS|2|0|1"), "WINNERS|OK|A2|");
    assert_eq!(ask(&server, "RESUME|2|u"), "RESUME|OK|3");
    assert_eq!(ask(&server, "DONE|2|4"), "ACK_DONE|ERR|count_mismatch|3");
    assert_eq!(ask(&server, "BET|2|Ana|Paz|D|1999-03-17|7574"), "ACK|OK");
    assert_eq!(ask(&server, "DONE|2|4"), "ACK_DONE|OK");
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|drawn|2|2|7");
    assert_eq!(ask(&server, "GET_WINNERS|2"), "WINNERS|OK|A2,D");
    server.stop();
    assert_eq!(checked(folder.path()), "sorteo.db: OK: 2 draws, 9 batches, 13 bets, 5 winners\n");
    let totals = Connection::open(folder.path().join("sorteo.db")).unwrap();
    let of_draw_1: Vec<(u32, u64, u64, u64, u64)> = totals
        .prepare(
            "SELECT agency, bets, batches, winners, winner_text_bytes FROM agency_totals WHERE draw_id = 1",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let text_bytes = ["Ñandú", "Paz", "A1", "1999-03-17"].map(str::len).iter().sum::<usize>() as u64;
    assert_eq!(of_draw_1, [(1, 3, 2, 1, text_bytes), (2, 3, 2, 1, text_bytes), (3, 0, 0, 0, 0)]);
}

#[test]
fn a_database_with_sets_of_agencies_and_without_tokens_is_brought_up_to_date() {
    let folder = folder();
    let path = folder.path();
    version_two::create(&path.join("sorteo.db"));
    assert_names(run(&mut sorteo(path, ["token", "list"])).failed(74), &["schema version 2"]);
    let server = Server::start(path, &["--auth", "optional"]);
    assert_eq!(server.process.count("action: migrate | result: success | from: 2 | to: 3"), 1);
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|open|1|2|6");
    assert_eq!(ask(&server, "BET|3|Ana|Paz|D|1999-03-17|7574"), "ACK|ERR|unknown_agency");
    assert_eq!(ask(&server, "GET_WINNERS|2|0|1"), "WINNERS|OK|A2|");
    let token = run(&mut sorteo(path, ["token", "add", "7"]));
    let auth = format!("AUTH|7|{}", token.succeeded().trim_end());
    assert_eq!(ask(&server, &auth), "ACK|OK");
    assert_eq!(ask(&server, "DONE|7|0"), "ACK_DONE|OK");
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|2|drawn|2|2|6");
    server.stop();
    assert_eq!(checked(path), "sorteo.db: OK: 2 draws, 8 batches, 12 bets, 4 winners\n");
    let database = Connection::open(path.join("sorteo.db")).unwrap();
    let actors: Vec<Option<String>> = database
        .prepare("SELECT actor FROM audit ORDER BY id")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let nobody = actors.iter().take_while(|actor| actor.is_none()).count();
    assert!(nobody >= 5 && actors[nobody..].iter().all(Option::is_some), "{actors:?}");
    assert_eq!(actors.len(), nobody + 1, "the token alone is new");
}

#[test]
fn a_database_of_the_version_before_stays_as_it_is_until_a_server_starts_on_it() {
    let folder = old_database();
    let commands: [&[&str]; 9] = [
        &["check"],
        &["draw", "list"],
        &["draw", "open"],
        &["export", "results", "--draw", "1"],
        &["draw", "close-agency", "2", "--reason", "r"],
        &["token", "add", "1"],
        &["token", "list"],
        &["token", "rotate", "0123456789abcdef"],
        &["token", "revoke", "0123456789abcdef"],
    ];
    for args in commands {
        // Reading a database in WAL mode makes shared memory and an empty WAL.
        let is_kept = |path: &Path, bytes: &Option<Vec<u8>>| match path.extension().and_then(OsStr::to_str) {
            Some("db-shm") => false,
            Some("db-wal") => bytes.as_ref().is_none_or(|bytes| !bytes.is_empty()),
            _ => true,
        };
        let finished = run_comparing(folder.path(), &mut sorteo(folder.path(), args), is_kept);
        assert_names(finished.failed(74), &["schema version 1", "start `sorteo serve` on it once"]);
    }
}

#[test]
fn a_backup_of_the_version_before_is_restored_and_saved_in_the_new_version() {
    let old = old_database();
    let fresh = folder();
    fs::copy(old.path().join("sorteo.db"), fresh.path().join("old.db")).unwrap();
    run(&mut sorteo(fresh.path(), ["backup", "saved.db", "--database", "old.db"])).succeeded();
    for backup in ["old.db", "saved.db"] {
        run(&mut sorteo(fresh.path(), ["restore", backup, "--database", "sorteo.db"])).succeeded();
        assert_eq!(checked(fresh.path()), "sorteo.db: OK: 2 draws, 8 batches, 12 bets, 2 winners\n");
    }
}
