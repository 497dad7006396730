//! Nobody reads the log: standard error is a pipe that is full. Agencies are served all
//! the same, the server ends when it is told to, and the lines that were dropped are
//! counted and told of.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{DEADLINE, folder, sorteo, wait_for};

use super::Peer;

/// Bets whose lines fill the pipe and the server's own queue, and some more.
const BETS: usize = 15_000;
/// Bets in one write, so that their commits are shared.
const AT_ONCE: usize = 250;

/// A server whose log is read up to the line that it accepts connections, and no further.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
    ops: SocketAddr,
}

impl Unread {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
        let mut command = sorteo(folder, serve);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let [mut address, mut ops] = [None; 2];
        loop {
            let mut line = String::new();
            log.read_line(&mut line).unwrap();
            let line = LogLine::parse(line.trim_end_matches('\n')).unwrap();
            let listen = line.get("listen").map(|address| address.parse().unwrap());
            match (line.action.as_str(), line.result.as_str()) {
                ("config", _) => address = listen,
                ("listen_operators", _) => ops = listen,
                ("accept_connections", "in_progress") => break,
                _ => {}
            }
        }
        Self { child, log, address: address.unwrap(), ops: ops.unwrap() }
    }

    fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Peer(stream)
    }

    /// Sends bets until the log must be full; every one is answered.
    fn fill(&self) {
        let mut peer = self.connect();
        let bets = vec!["BET|1|Ana|Paz|30904465|1999-03-17|1"; AT_ONCE];
        for _ in 0..BETS / AT_ONCE {
            peer.send(&bets);
            bets.iter().for_each(|_| assert_eq!(peer.read_answer(), "ACK|OK\n"));
        }
    }

    /// Asks the operators' HTTP.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ops).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn dropped(&self) -> u64 {
        let metrics = self.get("/metrics");
        let sample = metrics.lines().find_map(|line| line.strip_prefix("sorteo_log_lines_dropped_total "));
        sample.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    }

    fn terminate(&self) {
        let sent = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, and returns its exit code.
    fn wait(&mut self) -> Option<i32> {
        wait_for("the end of the server", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_bets_nor_the_draw_and_says_afterwards_what_it_lacks() {
    let folder = folder();
    let mut server = Unread::start(folder.path(), &["--agencies", "1"]);
    server.fill();
    let ready = server.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(ready.contains(r#"{"part":"reactor","ready":true}"#), "{ready}");
    let mut peer = server.connect();
    let asked_at = Instant::now();
    assert_eq!(peer.ask(&["DONE|1"]), "ACK_DONE|OK\n");
    // It gave the draw's line a second to be written before it told anybody.
    assert!(asked_at.elapsed() >= Duration::from_secs(1), "{:?}", asked_at.elapsed());
    assert_eq!(peer.ask(&["WAIT_WINNERS|1|60000"]), "WINNERS|OK||\n");
    let dropped = server.dropped();
    assert!(dropped > 0, "the queue was never full");
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    let mut rest = Vec::new();
    server.log.read_to_end(&mut rest).unwrap();
    // What the pipe took; the end of it is cut, as the server did not wait for a reader.
    assert!(rest.len() > 4096, "{} bytes", rest.len());
}

#[test]
fn a_full_log_goes_on_with_the_draws_line_and_the_number_of_those_dropped_once_it_is_read() {
    let folder = folder();
    let mut server = Unread::start(folder.path(), &["--agencies", "1"]);
    server.fill();
    assert_eq!(server.connect().ask(&["DONE|1"]), "ACK_DONE|OK\n");
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &LogLine| line.get("dropped").is_some()) {
        let mut line = String::new();
        assert!(server.log.read_line(&mut line).unwrap() > 0, "it does not say what it dropped");
        lines.push(LogLine::parse(line.trim_end_matches('\n')).unwrap());
    }
    let told = lines.last().unwrap();
    assert_eq!((&*told.level, &*told.action, &*told.result), ("WARNING", "log", "fail"));
    let dropped = server.dropped();
    assert_eq!(told.get("dropped"), Some(&*dropped.to_string()));
    assert_eq!(lines.iter().filter(|line| line.action == "sorteo").count(), 1);
    let stored = lines.iter().filter(|line| line.action == "apuesta_almacenada").count();
    assert!(stored as u64 + dropped >= BETS as u64, "{stored} lines, {dropped} dropped");
    assert!(stored > BETS / 4, "only {stored} lines were kept");
}

#[test]
fn a_second_sigterm_ends_a_server_whose_log_nobody_reads() {
    let folder = folder();
    let mut server = Unread::start(folder.path(), &["--agencies", "1", "--drain-timeout", "3600"]);
    server.fill();
    let mut peer = server.connect();
    let answer = peer.ask(&["STATUS", "BATCH|1|2", "Ana|Paz|101|1999-03-17|1"]);
    assert!(answer.starts_with("STATUS|OK|"), "{answer}");
    server.terminate();
    wait_for("the beginning of its end", || {
        server.get("/readyz").contains(r#""why":"the server stops""#).then_some(())
    });
    server.terminate();
    assert_eq!(server.wait(), Some(143));
}
