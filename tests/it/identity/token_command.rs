//! `sorteo token`: what it prints, what it refuses, what it records, and that the secret is
//! nowhere but on its standard output.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use sorteo_protocol::Token;
use sorteo_test_support::process::{
    Finished, Server, assert_names, folder, run, run_changing_nothing, snapshot, sorteo,
};
use tempfile::TempDir;

use super::{COUNTED, FRAMED, with_another_secret};
use crate::test_server::{Client, frame};

/// A folder with a database that a server has made.
fn database() -> TempDir {
    let folder = folder();
    Server::start(folder.path(), &[]).stop();
    folder
}

fn token(folder: &Path, args: &[&str]) -> Finished {
    run(sorteo(folder, ["token"]).args(args))
}

/// The token that a command printed, alone on its line.
#[track_caller]
fn printed(finished: &Finished) -> Token {
    assert_eq!(finished.stderr, "");
    finished.succeeded().strip_suffix('\n').unwrap().parse().unwrap()
}

fn audited(folder: &Path) -> Vec<(String, String, String)> {
    Connection::open(folder.join("sorteo.db"))
        .unwrap()
        .prepare("SELECT action, detail, actor FROM audit WHERE action LIKE 'token-%' ORDER BY id")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn listed(folder: &Path) -> Vec<Value> {
    let list = token(folder, &["list", "--json"]);
    assert_eq!(list.succeeded().lines().count(), 1);
    serde_json::from_str(&list.stdout).unwrap()
}

#[test]
fn a_token_is_added_listed_rotated_and_revoked_and_the_audit_says_by_whom() {
    let folder = database();
    let path = folder.path();
    let label = "x".repeat(100);
    let first = printed(&token(path, &["add", "7", "--label", "Rosario centro", "--expires", "2999-06-30"]));
    let screen = printed(&token(path, &["add", "--role", "viewer", "--label", &label]));
    let highest = printed(&token(path, &["add", "4294967295"]));
    let second = printed(&token(
        path,
        &["rotate", first.id().as_str(), "--overlap", "2998-01-01", "--expires", "3000-01-01"],
    ));
    // It does not prolong a token.
    let third = printed(&token(
        path,
        &["rotate", first.id().as_str(), "--overlap", "2999-01-01", "--expires", "3000-01-01"],
    ));
    let revoked = token(path, &["revoke", second.id().as_str()]);
    assert_eq!(revoked.succeeded(), format!("token {} of agency 7 is revoked\n", second.id()));
    let list = listed(path);
    let rows: Vec<Value> = list
        .iter()
        .map(|row| json!([row["id"], row["agency"], row["role"], row["label"], row["expires_at"]]))
        .collect();
    let until = "2998-01-01T00:00:00.000Z";
    let expected = [
        json!([first.id().as_str(), 7, null, "Rosario centro", until]),
        json!([second.id().as_str(), 7, null, "Rosario centro", "3000-01-01T00:00:00.000Z"]),
        json!([third.id().as_str(), 7, null, "Rosario centro", "3000-01-01T00:00:00.000Z"]),
        json!([highest.id().as_str(), 4_294_967_295_u32, null, "", null]),
        json!([screen.id().as_str(), null, "viewer", label, null]),
    ];
    assert_eq!(rows, expected);
    for row in &list {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        let known =
            ["agency", "created_at", "expires_at", "id", "label", "last_used_at", "revoked_at", "role"];
        assert_eq!(keys.len(), known.len(), "{row}");
        assert!(known.iter().all(|key| row.get(key).is_some()), "{row}");
        assert_eq!(row["last_used_at"], Value::Null);
        assert_eq!(row["revoked_at"].is_string(), row["id"] == second.id().as_str());
    }
    let table = token(path, &["list"]);
    assert_eq!(table.succeeded().lines().count(), 6, "{}", table.stdout);
    for words in
        ["agency 7", "Rosario centro", "valid until 2998-01-01 00:00", "revoked 20", "viewer", "never"]
    {
        assert!(table.stdout.contains(words), "no `{words}` in\n{}", table.stdout);
    }

    let audited = audited(path);
    let details: Vec<(&str, &str)> =
        audited.iter().map(|(action, detail, _)| (action.as_str(), detail.as_str())).collect();
    let rotated = format!(", in place of {}, which expires {until}", first.id());
    assert_eq!(
        details,
        [
            (
                "token-add",
                format!("token {} of agency 7, expires 2999-06-30T00:00:00.000Z", first.id()).as_str()
            ),
            ("token-add", &format!("token {} of viewer", screen.id())),
            ("token-add", &format!("token {} of agency 4294967295", highest.id())),
            ("token-rotate", &format!("token {} of agency 7{rotated}", second.id())),
            ("token-rotate", &format!("token {} of agency 7{rotated}", third.id())),
            ("token-revoke", &format!("token {} of agency 7", second.id())),
        ]
    );
    let user = run(std::process::Command::new("id").arg("-un"));
    let user = user.succeeded().trim_end();
    assert!(audited.iter().all(|(.., actor)| actor.starts_with(user)), "{user}: {audited:?}");
    run(&mut sorteo(path, ["check"])).succeeded();
}

#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let folder = database();
    let path = folder.path();
    let revoked = printed(&token(path, &["add", "1"]));
    token(path, &["revoke", revoked.id().as_str()]).succeeded();
    let expired = printed(&token(path, &["add", "1"]));
    let sql = "UPDATE tokens SET expires_at = '2026-01-01T00:00:00.000Z' WHERE revoked_at IS NULL";
    Connection::open(path.join("sorteo.db")).unwrap().execute(sql, []).unwrap();
    let ending = printed(&token(path, &["add", "1", "--expires", "2999-06-30"]));
    let before = (listed(path), audited(path));
    let [revoked, expired, ending] = [revoked, expired, ending].map(|token| token.id().to_string());
    let unknown = "0123456789abcdef";
    let long = "x".repeat(101);
    let bad_label = "the label must be one line of at most 100 bytes";
    let cases: [(&[&str], i32, &[&str]); 14] = [
        (&["add", "1", "--label", "a\nb"], 1, &[bad_label]),
        (&["add", "1", "--label", "a\u{2028}b"], 1, &[bad_label]),
        (&["add", "1", "--label", &long], 1, &[bad_label]),
        (&["add", "1", "--expires", "2020-01-01"], 1, &["2020-01-01T00:00:00.000Z", "is over"]),
        (&["add", "1", "--expires=-1h"], 1, &["is over"]),
        (&["rotate", &ending], 1, &[&ending, "expires", "give --expires"]),
        (&["rotate", unknown], 1, &["there is no token 0123456789abcdef", "sorteo token list"]),
        (&["rotate", &revoked], 1, &[&revoked, "has expired or was revoked", "sorteo token add"]),
        (&["rotate", &expired], 1, &[&expired, "has expired or was revoked", "sorteo token add"]),
        (&["revoke", unknown], 1, &["there is no token 0123456789abcdef", "sorteo token list"]),
        (&["revoke", &revoked], 1, &[&revoked, "is revoked already"]),
        (&["add", "1", "--database", "no.db"], 74, &["there is no database no.db"]),
        (&["list", "--database", "no.db"], 74, &["there is no database no.db"]),
        (&["revoke", &expired, "--database", "no.db"], 74, &["there is no database no.db"]),
    ];
    for (args, code, words) in cases {
        let finished = token(path, args);
        assert_names(finished.failed(code), words);
        assert_eq!(finished.stdout, "", "{args:?}");
    }
    assert_eq!((listed(path), audited(path)), before);
    assert!(!path.join("no.db").exists());
    // An expired token may be revoked: so nothing that prolongs its time brings it back.
    token(path, &["revoke", &expired]).succeeded();
}

#[test]
fn listing_tokens_changes_no_byte() {
    let folder = database();
    let path = folder.path();
    printed(&token(path, &["add", "1"]));
    // Reading a database in WAL mode makes its other files.
    token(path, &["list"]).succeeded();
    run_changing_nothing(path, &mut sorteo(path, ["token", "list", "--json"])).succeeded();
}

#[test]
fn the_secret_is_nowhere_but_on_standard_output_and_the_last_use_is_recorded() {
    let folder = folder();
    let path = folder.path();
    let server = Server::start(path, &["--auth", "required", "--log-level", "debug"]);
    let [used, unused] = ["1", "2"].map(|agency| printed(&token(path, &["add", agency])));
    let next = printed(&token(path, &["rotate", used.id().as_str()]));
    let wrong = with_another_secret(&unused);
    for words in [FRAMED, COUNTED] {
        let mut client = Client::connect(server.address);
        client.ask(&words.auth(1, used.reveal()), &words.ok());
        client.send(&words.auth(1, wrong.reveal()));
        client.expect(&words.unauthorized());
        client.expect_end();
        for line in [format!("AUTH|1|{}|", unused.reveal()), next.reveal().to_owned()] {
            let mut client = Client::connect(server.address);
            client.ask(&words.auth(1, used.reveal()), &words.ok());
            client.send(&(words.message)(&line));
            client.read_exactly(8);
        }
    }
    let mut client = Client::connect(server.address);
    client.ask(&FRAMED.auth(1, used.reveal()), &FRAMED.ok());
    client.ask(&frame("DONE|1"), &frame("ACK_DONE|OK\n"));
    server.process.wait_log("action: authenticate | result: fail | error: the secret is wrong", 2);
    assert!(
        server.process.count(&format!(
            "action: authenticate | result: success | agency: 1 | ip: 127.0.0.1 | token: {}",
            used.id()
        )) >= 6
    );
    let cmdline = fs::read(format!("/proc/{}/cmdline", server.process.id())).unwrap();
    let while_it_runs = snapshot(path);
    let finished = server.stop();
    let after = snapshot(path);
    let mut texts = vec![("log", finished.stderr.as_bytes()), ("output", finished.stdout.as_bytes())];
    texts.push(("cmdline", &cmdline));
    let files = while_it_runs.iter().chain(&after);
    texts.extend(files.filter_map(|(path, bytes)| Some((path.to_str()?, bytes.as_deref()?))));
    assert!(texts.iter().any(|(name, bytes)| name.ends_with("sorteo.db-wal") && !bytes.is_empty()));
    for secret in [&used, &unused, &next, &wrong] {
        let secret = &secret.reveal()["sorteo_0123456789abcdef_".len()..];
        let binary: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
        for (name, bytes) in &texts {
            let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            assert!(!has(&secret.as_bytes()[..16]) && !has(&binary[..8]), "a secret is in {name}");
        }
    }
    for row in listed(path) {
        let is_used = row["id"] == used.id().as_str();
        assert_eq!(row["last_used_at"].is_string(), is_used, "{row}");
    }
}
