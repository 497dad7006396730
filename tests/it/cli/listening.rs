//! Where a server listens: several addresses, all addresses of a name, both families; and
//! how its peers' addresses are shown.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{Process, Server, assert_names, binary, folder, run, sorteo, wait_for};

use super::Peer;

/// Starts a server, and returns it with the lines of its ready file.
fn start(folder: &Path, command: &mut Command) -> (Process, Vec<SocketAddr>) {
    let file = folder.join("ready");
    let mut process = Process::start(command.arg("--ready-file").arg(&file));
    let addresses = wait_for("the ready file", || match fs::read_to_string(&file) {
        Ok(text) => Some(text.lines().map(|line| line.parse().unwrap()).collect()),
        Err(_) if process.is_running() => None,
        Err(_) => panic!("it ended:\n{}", process.log()),
    });
    (process, addresses)
}

#[track_caller]
fn assert_answers(folder: &Path, server: &str) {
    let status = run(&mut sorteo(folder, ["status", "--server", server]));
    assert_eq!(status.succeeded(), "draw 1: open, 0 of 0 agencies done, 0 bets\n");
}

#[track_caller]
fn stop(process: Process) -> Vec<LogLine> {
    process.terminate();
    let finished = process.wait();
    finished.succeeded();
    LogLine::parse_all(&finished.stderr)
}

#[test]
fn a_server_listens_on_every_address_it_is_given_and_the_ready_file_and_the_log_tell_all() {
    let folder = folder();
    let twice = ["serve", "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--ops-listen"];
    let mut command = sorteo(folder.path(), twice);
    let (process, addresses) = start(folder.path(), command.arg("127.0.0.1:0,127.0.0.2:0"));
    let [first, second] = addresses[..] else { panic!("{addresses:?}") };
    assert_eq!((first.ip().to_string(), second.ip().to_string()), ("127.0.0.1".into(), "127.0.0.2".into()));
    assert_eq!(first.port(), second.port(), "a free port is the same on all");
    for address in addresses {
        assert_answers(folder.path(), &address.to_string());
    }
    process.wait_log("action: listen_operators", 1);
    let log = stop(process);
    let value = |action: &str, key: &str| {
        log.iter().find(|line| line.action == action).unwrap().get(key).unwrap().to_owned()
    };
    assert_eq!(value("config", "listen"), format!("{first}, {second}"));
    assert_eq!(value("config", "listen_backlog"), "1024");
    assert_eq!(value("listen_operators", "listen").split(", ").count(), 2);
}

/// Where the test may not give the program another `/etc/hosts`, it shows nothing.
#[test]
fn a_name_is_listened_on_at_all_its_addresses_and_a_client_tries_them_all() {
    let folder = folder();
    let hosts = folder.path().join("hosts");
    // The last is of the block for documentation: this machine does not have it.
    fs::write(&hosts, "127.0.0.1 lottery\n127.0.0.2 lottery\n192.0.2.1 lottery\n").unwrap();
    let inside = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(&hosts).arg(binary()).args(args).current_dir(folder.path());
        command
    };
    if !inside(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespace");
        return;
    }
    let (process, addresses) = start(folder.path(), &mut inside(&["serve", "--listen", "lottery:0"]));
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in &addresses {
        assert_answers(folder.path(), &address.to_string());
    }
    let log = stop(process);
    let lacking = log.iter().find(|line| line.action == "config" && line.result == "fail").unwrap();
    assert_names(lacking.get("listen").unwrap(), &["192.0.2.1:0"]);

    // A server at the second address only.
    let (process, addresses) =
        start(folder.path(), &mut sorteo(folder.path(), ["serve", "--listen", "127.0.0.2:0"]));
    let name = format!("lottery:{}", addresses[0].port());
    let status = run(&mut inside(&["status", "--server", &name]));
    assert_names(status.succeeded(), &["draw 1: open"]);
    stop(process);
}

#[test]
fn an_ipv4_peer_of_a_socket_for_both_families_is_shown_in_its_own_form() {
    if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        eprintln!("skipped: no IPv6");
        return;
    }
    let folder = folder();
    let mut command = sorteo(folder.path(), ["serve", "--listen", "[::]:0"]);
    let (process, addresses) = start(folder.path(), &mut command);
    let _peer = TcpStream::connect(("127.0.0.1", addresses[0].port())).unwrap();
    process.wait_log("action: accept_connections | result: success", 1);
    let log = stop(process);
    let ips: Vec<_> = log.iter().filter_map(|line| line.get("ip")).collect();
    assert!(!ips.is_empty() && ips.iter().all(|ip| *ip == "127.0.0.1"), "{ips:?}");
}

#[test]
fn the_mapped_form_of_an_ipv4_address_is_that_address() {
    let folder = folder();
    let mut command = sorteo(folder.path(), ["serve", "--listen", "[::ffff:127.0.0.1]:0"]);
    let (process, addresses) = start(folder.path(), &mut command);
    assert_eq!(addresses[0].ip().to_string(), "127.0.0.1");
    stop(process);
}

#[test]
fn a_client_beside_its_server_finds_it_by_the_servers_own_settings() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let (port, address) = (server.address.port().to_string(), server.address.to_string());
    let everywhere = format!("0.0.0.0:{port}");
    let several = format!("{address},127.0.0.3:1");
    fs::write(folder.path().join("sorteo.toml"), format!("listen = [{address:?}]\n")).unwrap();
    for (name, value) in [
        ("SERVER_PORT", port.as_str()),
        ("SORTEO_LISTEN", &everywhere),
        ("SORTEO_LISTEN", &several),
        ("SORTEO_CONFIG", "sorteo.toml"),
    ] {
        let status = run(sorteo(folder.path(), ["status"]).env(name, value));
        assert_names(status.succeeded(), &["draw 1: open"]);
    }
    // What says where the server is wins.
    let mut elsewhere = sorteo(folder.path(), ["status"]);
    let status = run(elsewhere.env("SORTEO_LISTEN", "127.0.0.1:1").env("SORTEO_SERVER", &address));
    assert_names(status.succeeded(), &["draw 1: open"]);
    let mut peer = Peer::connect(&server);
    assert!(peer.ask(&["STATUS"]).starts_with("STATUS|OK|"));
    server.stop();
}
