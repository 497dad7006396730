//! The flags of tokens and TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use sorteo_test_support::process::{Server, bets_file, folder, run, sorteo};

#[test]
fn no_command_and_no_log_shows_a_token() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[7574, 2]);
    let flags = ["--agencies", "1", "--log-level", "debug", "--auth", "required"];
    let server = Server::start(folder.path(), &flags);
    let added = run(&mut sorteo(folder.path(), ["token", "add", "1"]));
    fs::write(folder.path().join("a.token"), added.succeeded()).unwrap();
    fs::set_permissions(folder.path().join("a.token"), Permissions::from_mode(0o600)).unwrap();
    let secret = added.stdout.trim().rsplit('_').next().unwrap().to_owned();
    let mut told = String::new();
    for command in [
        &["upload", "--file", "a.csv", "--log-level", "debug", "--no-wait"][..],
        &["upload", "--file", "a.csv", "--log-level", "debug", "--dialect", "counted"],
        &["done"],
        &["status", "--json"],
        &["winners"],
        &["bench", "--bets", "1"],
    ] {
        let args = [command, &["--agency", "1", "--token-file", "a.token"]].concat();
        let finished = run(&mut server.command(folder.path(), &args));
        told += &format!("{finished:?}");
    }
    assert!(told.contains("action: loop_finished | result: success"), "{told}");
    told += &server.stop().stderr;
    assert!(told.contains("action: authenticate | result: success | agency: 1"), "{told}");
    assert!(!told.contains(&secret[..16]), "{told}");
}

#[test]
fn nothing_falls_back_to_plain_text() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.path().join("ca.pem"), key.cert.pem()).unwrap();
    let status = run(&mut server.command(folder.path(), &["status", "--tls", "--tls-ca", "ca.pem"]));
    let told = status.failed(1);
    assert!(told.contains("closed the connection during the TLS handshake: TLS may be off there"), "{told}");
}
