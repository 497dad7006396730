//! The flags of tokens and TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::generate_simple_self_signed;
use sorteo_protocol::Token;
use sorteo_test_support::process::{Finished, Process, Server, bets_file, folder, run, snapshot, sorteo};

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

fn write_secret(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Where a secret is found in what the programs leave and show, by the bytes that tell it.
struct Search {
    secrets: Vec<(&'static str, Vec<u8>)>,
    found: Vec<String>,
}

impl Search {
    fn look_into(&mut self, place: &str, bytes: &[u8]) {
        for (name, secret) in &self.secrets {
            if bytes.windows(secret.len()).any(|window| window == secret) {
                self.found.push(format!("{name} in {place}"));
            }
        }
    }

    /// Looks at what everybody on the machine may see of a process, and what a debugger gets.
    fn look_at_process(&mut self, process: &Process) {
        for name in ["cmdline", "environ", "comm", "status"] {
            let path = format!("/proc/{}/{name}", process.id());
            self.look_into(&path, &fs::read(&path).unwrap());
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert!(core.split_whitespace().take(2).eq(["0", "0"]), "a core dump would hold secrets: {core}");
    }

    fn look_at_output(&mut self, name: &str, finished: Finished) {
        self.look_into(name, finished.stdout.as_bytes());
        self.look_into(name, finished.stderr.as_bytes());
    }
}

#[test]
fn no_secret_is_anywhere_but_in_its_file() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    bets_file(folder.path(), "a.csv", &[7574, 2]);
    let site = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key_pem = site.signing_key.serialize_pem();
    fs::write(at("cert.pem"), site.cert.pem()).unwrap();
    write_secret(&at("key.pem"), &key_pem);
    let flags = ["--agencies", "2", "--auth", "required", "--tls", "required", "--tls-cert", "cert.pem"];
    let flags = [&flags[..], &["--tls-key", "key.pem", "--log-level", "debug"]].concat();
    let server = Server::start(folder.path(), &flags);
    let good = run(&mut sorteo(folder.path(), ["token", "add", "1"])).succeeded().trim().to_owned();
    let wrong = Token::from_random([1; 8], [2; 32]).reveal().to_owned();
    write_secret(&at("good.token"), &good);
    write_secret(&at("wrong.token"), &wrong);

    let secret_of = |token: &str| token.rsplit_once('_').unwrap().1.as_bytes()[..16].to_vec();
    let raw = |token: &str| {
        let digits = token.rsplit_once('_').unwrap().1;
        (0..32).map(|at| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let mut search = Search {
        secrets: vec![
            ("the token", secret_of(&good)),
            ("the token's bits", raw(&good)),
            ("the wrong token", secret_of(&wrong)),
            ("the key's text", key_pem.lines().nth(1).unwrap().as_bytes().to_vec()),
            ("the key's bits", site.signing_key.serialize_der()[30..66].to_vec()),
        ],
        found: Vec::new(),
    };
    search.look_into("the test itself", good.as_bytes());
    assert_eq!(search.found.drain(..).count(), 1, "what is there is found");

    let client = ["--agency", "1", "--tls", "--tls-ca", "cert.pem", "--log-level", "debug", "--token-file"];
    let command =
        |words: &[&str], token: &str| server.command(folder.path(), &[words, &client[..], &[token]].concat());
    // It waits for the draw, for which agency 2 is missing.
    let waiting = Process::start(&mut command(&["upload", "--file", "a.csv"], "good.token"));
    server.process.wait_log("agencia_terminada | result: success", 1);
    search.look_at_process(&waiting);
    search.look_at_process(&server.process);
    for token in ["wrong.token", "key.pem", "cert.pem", "a.csv"] {
        let finished = run(&mut command(&["upload", "--file", "a.csv", "--no-wait"], token));
        assert_ne!(finished.code, Some(0), "{token}: {finished:?}");
        search.look_at_output(token, finished);
    }
    waiting.terminate();
    search.look_at_output("the upload", waiting.wait());
    search.look_at_output("token list", run(&mut sorteo(folder.path(), ["token", "list", "--json"])));
    // With the WAL, which the end of the server empties.
    let look_at_files = |search: &mut Search| {
        for (path, bytes) in snapshot(folder.path()) {
            if !["good.token", "wrong.token", "key.pem"].iter().any(|secret| path.ends_with(secret)) {
                search.look_into(&path.display().to_string(), &bytes.unwrap_or_default());
            }
        }
    };
    look_at_files(&mut search);
    search.look_at_output("the server", server.stop());
    look_at_files(&mut search);
    assert!(search.found.is_empty(), "{:?}", search.found);
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
