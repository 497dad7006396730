//! What `sorteo config check` and the log of a server say is open to a network: every
//! combination of `auth`, `tls`, the agencies' address and that of the operators.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{Process, folder, run, sorteo};

/// A value of a setting, and the line that it causes where other machines reach the port.
type Cause = (&'static str, Option<&'static str>);

const AUTH: [Cause; 3] = [
    (
        "off",
        Some(
            "auth=off: whoever reaches 0.0.0.0:12345 can bet for any agency, end its betting and read its winners",
        ),
    ),
    (
        "optional",
        Some("auth=optional: whoever reaches 0.0.0.0:12345 and proves nothing can still act for any agency"),
    ),
    ("required", None),
];

const TLS: [&str; 3] = ["off", "optional", "required"];

/// Flags of the operators' HTTP, whether other machines reach it, and the line that they cause.
const OPERATORS: [(&[&str], bool, Option<&str>); 5] = [
    (&[], false, None),
    (&["--ops-listen", "127.0.0.1:9090"], false, None),
    (&["--ops-listen", "127.0.0.1:9090", "--ops-auth", "off"], false, None),
    (&["--ops-listen", "0.0.0.0:9090"], true, None),
    (
        &["--ops-listen", "0.0.0.0:9090", "--ops-auth", "off"],
        true,
        Some(
            "ops_auth=off: whoever reaches 0.0.0.0:9090 sees everything, names and documents of winners too",
        ),
    ),
];

/// The line of `tls`, with the addresses that other machines reach.
fn of_tls(tls: &str, reachable: &[&str]) -> Option<String> {
    let what = "bets, winners and tokens may cross the network to";
    match (tls, reachable) {
        ("required", _) | (_, []) => None,
        ("off", [one]) => Some(format!("tls=off: {what} {one} in plain text")),
        ("off", _) => Some(format!("tls=off: {what} 0.0.0.0:12345, 0.0.0.0:9090 in plain text")),
        (_, [one]) => Some(format!("tls=optional: {what} {one} in plain text")),
        (_, _) => Some(format!("tls=optional: {what} 0.0.0.0:12345, 0.0.0.0:9090 in plain text")),
    }
}

/// Writes a certificate and its key; returns the flags of a server with this mode of TLS.
fn tls_flags(folder: &Path, mode: &'static str) -> Vec<&'static str> {
    if mode == "off" {
        return vec!["--tls", mode];
    }
    if !folder.join("key.pem").exists() {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("cert.pem"), issued.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(folder.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
    }
    vec!["--tls", mode, "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
}

#[test]
fn config_check_names_each_open_door_and_no_other() {
    let folder = folder();
    let mut secured = 0;
    for (auth, of_auth) in AUTH {
        for tls in TLS {
            for listen in ["127.0.0.1:12345", "0.0.0.0:12345"] {
                for (ops, ops_are_reachable, of_ops) in OPERATORS {
                    let mut args = vec!["config", "check", "--auth", auth, "--listen", listen];
                    args.extend(tls_flags(folder.path(), tls));
                    args.extend(ops);
                    // So that the limit on open files is no reason to warn.
                    args.extend(["--max-connections", "10"]);
                    let mut reachable = vec!["0.0.0.0:12345"];
                    reachable.retain(|address| *address == listen);
                    let of_auth = of_auth.filter(|_| !reachable.is_empty());
                    reachable.extend(ops_are_reachable.then_some("0.0.0.0:9090"));
                    let lines =
                        [of_auth.map(str::to_owned), of_ops.map(str::to_owned), of_tls(tls, &reachable)];
                    let expected: String =
                        lines.iter().flatten().map(|line| format!("warning: {line}\n")).collect();
                    let checked = run(&mut sorteo(folder.path(), &args));
                    assert_eq!((checked.succeeded(), &*checked.stderr), ("OK\n", &*expected), "{args:?}");
                    secured += usize::from(expected.is_empty() && reachable.len() == 2);
                }
            }
        }
    }
    assert_eq!(secured, 1, "one way to open both ports to a network, and nothing else");
}

#[test]
fn several_addresses_are_in_one_line_without_those_of_loopback() {
    let folder = folder();
    let listen = ["127.0.0.1:1", "[::]:2", "192.0.2.7:3", "[::ffff:127.0.0.1]:4"];
    let args = listen.iter().flat_map(|address| ["--listen", address]);
    let args = ["config", "check", "--auth", "required", "--max-connections", "10"].into_iter().chain(args);
    assert_eq!(
        run(&mut sorteo(folder.path(), args)).stderr,
        "warning: tls=off: bets, winners and tokens may cross the network to [::]:2, 192.0.2.7:3 in plain text\n"
    );
}

#[test]
fn the_log_of_a_server_warns_of_the_same() {
    let folder = folder();
    let args = [
        "--listen",
        "0.0.0.0:0",
        "--ops-listen",
        "0.0.0.0:0",
        "--ops-auth",
        "off",
        "--max-connections",
        "10",
    ];
    let checked = run(&mut sorteo(folder.path(), ["config", "check"].iter().chain(&args)));
    let checked: Vec<&str> =
        checked.stderr.lines().map(|line| line.strip_prefix("warning: ").unwrap()).collect();
    assert_eq!(checked.len(), 3, "{checked:?}");

    let server = Process::start(&mut sorteo(folder.path(), ["serve"].iter().chain(&args)));
    server.wait_log("action: listen_operators", 1);
    server.terminate();
    let log = server.wait().stderr;
    let warnings =
        log.lines().map(|line| LogLine::parse(line).unwrap()).filter(|line| line.level == "WARNING");
    let warnings: Vec<String> = warnings.map(|mut line| line.pairs.remove(0).1).collect();
    assert_eq!(warnings, checked);
}
