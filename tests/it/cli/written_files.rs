//! The files that the program writes: where, over what, and for how long.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use sorteo_test_support::process::{Process, Server, assert_names, bets_file, folder, run, sorteo, wait_for};

/// A server whose ready file is this one.
fn serve(folder: &Path, ready: &str) -> Process {
    Process::start(&mut sorteo(folder, ["serve", "--listen", "127.0.0.1:0", "--ready-file", ready]))
}

#[test]
fn the_ready_file_is_there_while_the_server_listens() {
    let folder = folder();
    let ready = folder.path().join("ready");
    for ends in 0..3 {
        let mut server = serve(folder.path(), "ready");
        server.wait_log("action: accept_connections | result: in_progress", 1);
        let listens = fs::read_to_string(&ready).unwrap();
        assert_eq!(server.count(&format!("listen: {}", listens.trim_end())), 1, "not an earlier server's");
        match ends {
            0 => {
                server.terminate();
                server.wait().succeeded();
                assert!(!ready.exists(), "the server has ended");
            }
            1 => server.kill(),
            _ => {
                // Another server's, written over it.
                fs::write(folder.path().join("other"), "127.0.0.1:1\n").unwrap();
                fs::rename(folder.path().join("other"), &ready).unwrap();
                server.terminate();
                server.wait().succeeded();
                assert_eq!(fs::read_to_string(&ready).unwrap(), "127.0.0.1:1\n");
            }
        }
    }
}

#[test]
fn the_ready_file_of_a_server_that_its_database_ends_is_removed() {
    let folder = folder();
    let ready = folder.path().join("ready");
    let server = serve(folder.path(), "ready");
    wait_for("the ready file", || ready.exists().then_some(()));
    fs::remove_file(folder.path().join("sorteo.db")).unwrap();
    server.wait().failed(74);
    assert!(!ready.exists());
}

#[test]
fn no_output_replaces_a_database_or_goes_through_a_link() {
    let folder = folder();
    let path = folder.path();
    Server::start(path, &["--agencies", "1"]).stop();
    fs::copy(path.join("sorteo.db"), path.join("other.db")).unwrap();
    fs::write(path.join("other.db.lock"), "").unwrap();
    fs::write(path.join("precious"), "precious").unwrap();
    symlink("precious", path.join("link")).unwrap();
    bets_file(path, "a.csv", &[1]);
    let outputs: &[&[&str]] = &[
        &["serve", "--listen", "127.0.0.1:0", "--ready-file"],
        &["upload", "--agency", "1", "--file", "a.csv", "--server", "127.0.0.1:1", "--winners-out"],
        &["export", "bets", "--force", "--out"],
    ];
    for output in outputs {
        for (target, word) in
            [("other.db", "is a database"), ("other.db.lock", "belongs to one"), ("link", "symbolic link")]
        {
            let refused = run(sorteo(path, *output).arg(target));
            assert_names(refused.failed(1), &[target, word]);
        }
        // `upload` knows of no database.
        if output[0] != "upload" {
            let refused = run(sorteo(path, *output).arg(".sorteo.db.sorteo-restore"));
            assert_names(refused.failed(1), &["belongs to it"]);
        }
    }
    assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "precious");
    run(&mut sorteo(path, ["check", "--database", "other.db"])).succeeded();
}

#[test]
fn a_path_that_is_not_utf_8_has_a_form_in_json() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "a.csv", &[1]);
    let name = |name: &str| OsString::from_iter([OsStr::new(name), OsStr::from_bytes(b"\xff")]);
    let rows = fs::read_to_string(path.join("a.csv")).unwrap();
    fs::write(path.join(name("bets")), format!("1,{rows}")).unwrap();
    let json = |args: &[&OsStr]| {
        let printed = run(sorteo(path, args).arg("--json"));
        let _: serde_json::Value = serde_json::from_str(printed.succeeded()).unwrap();
        assert_names(printed.succeeded(), &["\u{fffd}"]);
    };
    json(&["import".as_ref(), &name("bets")]);
    json(&["backup".as_ref(), &name("backup")]);
    json(&["restore".as_ref(), &name("backup")]);
    json(&["generate".as_ref(), "--bets".as_ref(), "1".as_ref(), "--dir".as_ref(), &name("data")]);
    json(&["demo".as_ref(), "--bets".as_ref(), "100".as_ref(), "--dir".as_ref(), &name("demo")]);
}
