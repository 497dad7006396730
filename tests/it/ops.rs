//! The operators' HTTP of the real program: what each path returns, which part is
//! reported as not ready, and that events are counted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use sorteo_test_support::process::{
    DEADLINE, Process, Server, assert_names, bets_file, folder, run, run_changing_nothing, sorteo, wait_for,
};

use crate::http::{Response, ask, bearer, cookie};

/// A server with the operators' HTTP.
struct Watched {
    server: Server,
    ops: SocketAddr,
}

impl Watched {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let server = Server::start(folder, &[&["--ops-listen", "127.0.0.1:0"], args].concat());
        let ops = ops_address(&server.process);
        Self { server, ops }
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Response {
        ask(self.connect(), method, path, headers, "")
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "")
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.code, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The samples of `/metrics`, by name and labels.
    fn samples(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        answer.body.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.ops).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn upload(&self, folder: &Path, agency: &str, file: &str) {
        let args = ["upload", "--agency", agency, "--file", file, "--no-wait"];
        run(&mut self.server.command(folder, &args)).succeeded();
    }
}

/// Returns one part of what `/readyz` tells.
fn part(answer: &Response, part: &str) -> Value {
    let all: Value = serde_json::from_str(&answer.body).unwrap();
    let parts = all["parts"].as_array().unwrap();
    parts.iter().find(|one| one["part"] == part).unwrap().clone()
}

fn ops_address(process: &Process) -> SocketAddr {
    wait_for("the operators' address", || {
        let log = process.log();
        let line = log.lines().find(|line| line.contains("action: listen_operators"))?;
        Some(line.rsplit_once("listen: ").unwrap().1.parse().unwrap())
    })
}

#[test]
fn a_draw_can_be_watched_from_its_first_bet_to_its_winners() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "1.csv", &[7574, 1, 2]);
    bets_file(path, "2.csv", &[7574]);
    let watched = Watched::start(path, &["--agencies", "2"]);
    let empty = watched.json("/api/status");
    assert_eq!(empty["draw"]["state"], "open");
    assert_eq!(empty["draw"]["expected_inferred"], false);
    assert_eq!(empty["agencies"], Value::Array(vec![]));
    watched.upload(path, "1", "1.csv");
    let filling = watched.json("/api/status");
    assert_eq!(
        (&filling["draw"]["bets"], &filling["draw"]["done"], &filling["draw"]["expected"]),
        (&3.into(), &1.into(), &2.into())
    );
    let agency = &filling["agencies"][0];
    assert_eq!(
        (&agency["agency"], &agency["bets"], &agency["done_by"]),
        (&1.into(), &3.into(), &"agency".into())
    );
    let early = watched.get("/api/draws/1/results");
    assert_eq!((early.code, early.body.as_str()), (409, r#"{"error":"draw 1 is not drawn yet"}"#));
    watched.upload(path, "2", "2.csv");
    let made = watched.json("/api/draws/1");
    assert_eq!((&made["draw"]["state"], &made["draw"]["winners"]), (&"drawn".into(), &2.into()));
    assert_eq!(made["agencies"][1]["winners"], 1);
    let results = watched.json("/api/draws/1/results");
    assert_eq!((&results["total"], &results["next"]), (&2.into(), &Value::Null));
    assert_eq!(results["winners"][0]["document"], "3000000");
    let of_two = watched.json("/api/draws/1/results?agency=2&search=PAZ&after=");
    assert_eq!(of_two["total"], 1);
    let second = watched.json("/api/draws/1/results?after=1:1");
    assert_eq!(second["winners"].as_array().unwrap().len(), 1, "what comes behind a place");
    run(sorteo(path, ["draw", "open"]).args(["--agencies", "9"])).succeeded();
    let next = watched.json("/api/status");
    assert_eq!((&next["draw"]["id"], &next["draw"]["expected"]), (&2.into(), &9.into()));
    assert_eq!((&next["draws"][0]["id"], &next["draws"][1]["state"]), (&2.into(), &"drawn".into()));
    watched.server.stop();
}

#[test]
fn what_cannot_be_answered_is_named() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    for (path, code, words) in [
        ("/api/draws/7", 404, "there is no draw 7"),
        ("/api/draws/7/results", 404, "there is no draw 7"),
        ("/api/draws/x", 400, "the draw is not a number"),
        ("/api/draws/99999999999999999999", 400, "the draw is not a number"),
        ("/api/draws/1/results?agency=-1", 400, "agency is not a number from 0 to 4294967295"),
        ("/api/draws/1/results?after=1", 400, "after is not the next of an earlier page"),
        ("/api/draws/1/results?serch=a", 400, "unknown field `serch`"),
        ("/nothing", 404, "there is nothing at this path"),
    ] {
        let answer = watched.get(path);
        assert_eq!(answer.code, code, "{path}: {answer:?}");
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert_names(told["error"].as_str().unwrap(), &[words]);
    }
    let long = format!("/api/draws/1/results?search={}", "a".repeat(121));
    assert_names(&watched.get(&long).body, &["search is longer than 120 bytes"]);
    assert_eq!(watched.ask("POST", "/api/status", "").code, 405, "nothing can be changed");
    assert_eq!(watched.ask("GET", &format!("/{}", "a".repeat(20_000)), "").code, 431);
    watched.server.stop();
}

#[test]
fn every_answer_carries_the_policy_and_files_are_sent_once() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    for path in
        ["/", "/page.js", "/page.css", "/icon.svg", "/healthz", "/readyz", "/metrics", "/api/status", "/x"]
    {
        let answer = watched.get(path);
        let policy = &answer.headers["content-security-policy"];
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["referrer-policy"], "same-origin", "{path}");
        let tag = answer.headers.get("etag");
        assert_eq!(answer.headers["cache-control"], if tag.is_some() { "no-cache" } else { "no-store" });
        if let Some(tag) = tag {
            let again = watched.ask("GET", path, &format!("If-None-Match: {tag}\r\n"));
            assert_eq!((again.code, again.body.as_str()), (304, ""), "{path}");
        }
    }
    let page = watched.get("/");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let head = watched.ask("HEAD", "/", "");
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    watched.server.stop();
}

#[test]
fn what_happened_is_counted() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[7574; 1_150]);
    let watched = Watched::start(path, &["--agencies", "1", "--max-connections", "3"]);
    let before = watched.samples();
    assert_eq!(before[r#"sorteo_batches_total{result="refused"}"#], 0.0, "what never happened is 0");
    // Asking too early is no refusal.
    let early = run(&mut watched.server.command(path, &["winners", "--agency", "1"]));
    assert_names(early.failed(1), &["not_ready"]);
    watched.upload(path, "1", "bets.csv");
    // A row that is none, twice, and a bet after the draw.
    let mut agency = TcpStream::connect(watched.server.address).unwrap();
    for payload in ["x", "y", "Ana|Paz|1|1999-03-17|1|1"] {
        write!(agency, "{}\n{payload}", payload.len()).unwrap();
        let mut answer = [0; b"19\nERROR_INVALID_BATCH".len()];
        agency.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"19\nERROR_INVALID_BATCH");
    }
    let after = wait_for("the connection to be parked", || {
        let samples = watched.samples();
        (samples[r#"sorteo_connections{state="parked"}"#] == 1.0).then_some(samples)
    });
    for (name, value) in [
        ("sorteo_bets_total", 1_150.0),
        (r#"sorteo_batches_total{result="stored"}"#, 2.0),
        (r#"sorteo_batches_total{result="refused"}"#, 3.0),
        (r#"sorteo_batches_total{result="unknown"}"#, 0.0),
        (r#"sorteo_refusals_total{reason="bad_fields"}"#, 2.0),
        (r#"sorteo_refusals_total{reason="draw_closed"}"#, 1.0),
        ("sorteo_draws_made_total", 1.0),
        ("sorteo_draw", 1.0),
        ("sorteo_draw_made", 1.0),
        ("sorteo_draw_bets", 1_150.0),
        ("sorteo_draw_winners", 1_150.0),
        ("sorteo_draw_agencies_done", 1.0),
        ("sorteo_draw_agencies_expected", 1.0),
        ("sorteo_connections_limit", 3.0),
        ("sorteo_queue_writes", 0.0),
        ("sorteo_queue_writes_limit", 1024.0),
        (r#"sorteo_ready{part="writer"}"#, 1.0),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name}");
    }
    assert!(!after.keys().any(|name| name.contains("not_ready")), "{after:?}");
    for name in ["sorteo_commit_seconds", "sorteo_commit_writes", "sorteo_answer_seconds"] {
        let count = format!("{name}_count");
        assert!(after[&count] > before[&count], "{name}");
        assert_eq!(after[&count], after[&format!("{name}_bucket{{le=\"+Inf\"}}")], "{name}");
    }
    for name in ["sorteo_database_bytes", "sorteo_disk_free_bytes", "process_resident_memory_bytes"] {
        assert!(after[name] > 0.0, "{name}");
    }
    let status = watched.json("/api/status");
    assert_eq!(status["refused"][0], serde_json::json!({"reason": "bad_fields", "count": 2}), "most first");
    // More connections than there may be: closed, and counted.
    let all: Vec<_> = (0..8).map(|_| TcpStream::connect(watched.server.address).unwrap()).collect();
    wait_for("connections to be refused", || {
        (watched.samples()["sorteo_connections_refused_total"] == 6.0).then_some(())
    });
    drop(all);
    watched.server.stop();
}

#[test]
fn every_metric_is_documented_and_what_is_documented_is_scraped() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    // It is scraped once something was refused.
    let mut peer = TcpStream::connect(watched.server.address).unwrap();
    peer.write_all(b"1\nx").unwrap();
    peer.read_exact(&mut [0; 1]).unwrap();
    let text = watched.get("/metrics").body;
    let scraped: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let mut documented = BTreeMap::new();
    let rows = include_str!("../../docs/http.md").lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let kind = cells[2];
        if ["counter", "gauge", "histogram"].contains(&kind) {
            let name = cells[1].trim_matches('`').split('{').next().unwrap();
            documented.insert(name.to_owned(), kind.to_owned());
        }
    }
    assert_eq!(scraped, documented);
    watched.server.stop();
}

#[test]
fn a_server_that_cannot_work_says_which_part_is_not_ready() {
    let folder = folder();
    let path = folder.path();
    let watched = Watched::start(path, &["--disk-free-bytes-min", "1099511627776"]);
    let no_room = watched.get("/readyz");
    assert_eq!(no_room.code, 503);
    assert_eq!(part(&no_room, "writer")["ready"], true);
    assert_eq!(part(&no_room, "disk")["ready"], false);
    assert_names(part(&no_room, "disk")["why"].as_str().unwrap(), &["bytes free, 1099511627776 wanted"]);
    assert_eq!(watched.get("/healthz").body, "ok\n", "it lives all the same");
    watched.server.stop();

    let watched = Watched::start(path, &["--disk-free-bytes-min", "0"]);
    assert_eq!(watched.get("/readyz").code, 200);
    let other = Connection::open(path.join("sorteo.db")).unwrap();
    other.busy_timeout(DEADLINE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked =
        wait_for("the writer to be missed", || Some(watched.get("/readyz")).filter(|one| one.code == 503));
    assert_names(part(&locked, "writer")["why"].as_str().unwrap(), &["was not stored within 2 s"]);
    assert_eq!(part(&locked, "database")["ready"], false);
    assert_eq!(watched.samples()[r#"sorteo_ready{part="writer"}"#], 0.0);
    assert_eq!(watched.json("/api/status")["ready"], false);
    other.execute_batch("ROLLBACK").unwrap();
    wait_for("the writer to be back", || (watched.get("/readyz").code == 200).then_some(()));

    // A batch that is half sent keeps a stopping server waiting.
    let mut half = TcpStream::connect(watched.server.address).unwrap();
    half.write_all(b"\0\0\0\x09BATCH|1|2").unwrap();
    wait_for("the connection", || {
        (watched.samples()["sorteo_connections_accepted_total"] == 1.0).then_some(())
    });
    watched.server.process.terminate();
    let stopping =
        wait_for("the listener to be closed", || Some(watched.get("/readyz")).filter(|one| one.code == 503));
    assert_eq!(part(&stopping, "listener")["why"], "the server stops");
    drop(half);
    watched.server.process.wait().succeeded();
}

/// The server's lock says that the database is in use: without it, the next program
/// that closes the database removes the log, and what is in it, under the server.
#[test]
fn those_who_look_take_no_lock_from_the_server() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[1; 300]);
    let watched = Watched::start(path, &["--agencies", "1"]);
    watched.upload(path, "1", "bets.csv");
    watched.json("/api/status");
    watched.json("/api/draws/1/results");
    watched.samples();
    let file = format!(":{} ", fs::metadata(path.join("sorteo.db")).unwrap().ino());
    let process = format!(" {} ", watched.server.process.id());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let held = |line: &str| line.contains(" POSIX ") && line.contains(&file) && line.contains(&process);
    assert!(locks.lines().any(held), "{process}{file}in\n{locks}");
    watched.server.stop();
}

#[test]
fn a_database_that_cannot_be_read_is_told_and_the_rest_is_still_scraped() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    Connection::open(folder.path().join("sorteo.db")).unwrap().execute_batch("DROP VIEW standings").unwrap();
    let told =
        wait_for("the view to be missed", || Some(watched.get("/readyz")).filter(|one| one.code == 503));
    assert_eq!(part(&told, "writer")["ready"], true);
    assert_names(part(&told, "database")["why"].as_str().unwrap(), &["the database did not answer"]);
    let samples = watched.samples();
    assert_eq!(samples[r#"sorteo_ready{part="database"}"#], 0.0);
    assert_eq!(samples["sorteo_bets_total"], 0.0);
    let status = watched.get("/api/status");
    assert_eq!((status.code, status.body.as_str()), (503, r#"{"error":"the database did not answer"}"#));
    watched.server.process.wait_log("action: read_database | result: fail | query: operators | error: ", 1);
    assert_names(&watched.server.process.log(), &["standings"]);
    watched.server.stop();
}

#[test]
fn news_come_each_second_and_do_not_hold_up_the_end() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "bets.csv", &[1; 5]);
    let watched = Watched::start(path, &["--agencies", "1"]);
    let mut stream = watched.connect();
    stream
        .write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut next = || -> Value {
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
        serde_json::from_str(&data).unwrap()
    };
    assert_eq!(next()["draw"]["bets"], 0, "the first comes at once");
    watched.upload(path, "1", "bets.csv");
    let drawn = wait_for("news of the draw", || Some(next()).filter(|news| news["draw"]["state"] == "drawn"));
    assert_eq!(drawn["draw"]["bets"], 5);
    let counted = wait_for("the bets of a second", || {
        let news = next();
        let bets =
            news["bets_per_second"].as_array().unwrap().iter().map(|bets| bets.as_u64().unwrap()).sum();
        Some(bets).filter(|bets: &u64| *bets > 0)
    });
    assert_eq!(counted, 5, "each is counted in one second");
    // Still open: it must end all the same.
    let finished = watched.server.stop();
    assert_names(&finished.stderr, &["action: close_operators | result: success"]);
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_is_made() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", &address];
    let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), serve));
    assert_names(finished.failed(1), &[&address, "(ops_listen) cannot be listened on"]);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "9090"];
    let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), serve));
    assert_names(finished.failed(2), &["--ops-listen: `9090` is not an address"]);
}

#[test]
fn an_address_that_others_reach_needs_a_token_unless_told_otherwise() {
    let folder = folder();
    let on = |args: &[&str]| {
        let args = [&["--ops-listen", "0.0.0.0:0"], args].concat();
        let server = Server::start(folder.path(), &args);
        let port = ops_address(&server.process).port();
        Watched { server, ops: SocketAddr::from(([127, 0, 0, 1], port)) }
    };
    let closed = on(&[]);
    assert_eq!(closed.get("/healthz").code, 200);
    let refused = closed.get("/api/status");
    assert_eq!((refused.code, refused.headers["www-authenticate"].as_str()), (401, "Bearer"));
    let secret = format!("sorteo_{}_{}", "a".repeat(16), "b".repeat(64));
    assert_eq!(closed.ask("GET", "/api/status", &bearer(&secret)).code, 401);
    closed.server.process.wait_log("action: sign_in | result: fail | error: unauthorized | ip: 127.0.0.1", 1);
    let log = closed.server.stop().stderr;
    assert!(!log.contains(&"b".repeat(8)) && !log.contains("ops_auth"), "{log}");

    let open = on(&["--ops-auth", "off", "--ops-hosts", "lottery.example"]);
    let status = open.json("/api/status");
    let line = status["unprotected"][0].as_str().unwrap();
    assert_names(line, &["ops_auth=off: whoever reaches 0.0.0.0:0 sees everything"]);
    assert_names(
        &open.server.process.log(),
        &["WARNING  action: config | result: fail | error: ops_auth=off"],
    );
    assert_eq!(open.ask("GET", "/api/status", "").code, 200);
    open.server.stop();
}

#[test]
fn a_token_of_the_database_opens_what_its_role_may_see_until_it_is_revoked() {
    let folder = folder();
    let path = folder.path();
    let watched = Watched::start(path, &["--ops-auth", "token"]);
    let add = |holder: &[&str]| {
        let added = run(sorteo(path, ["token", "add"]).args(holder));
        added.succeeded().trim().to_owned()
    };
    let [viewer, auditor, agency] = [&["--role", "viewer"][..], &["--role", "auditor"], &["7"]].map(add);
    let code = |token: &str, path: &str| watched.ask("GET", path, &bearer(token)).code;
    let results = "/api/draws/1/results";
    assert_eq!((code(&viewer, "/api/status"), code(&viewer, results)), (200, 403));
    assert_eq!((code(&auditor, "/api/status"), code(&auditor, results)), (200, 409));
    assert_eq!(code(&agency, "/api/status"), 401);
    let form = format!("token={auditor}");
    let signed_in = ask(watched.connect(), "POST", "/sign-in", "", &form);
    let session = cookie(signed_in.headers["set-cookie"].split(';').next().unwrap());
    assert_eq!(watched.ask("GET", results, &session).code, 409);
    let id = auditor.split('_').nth(1).unwrap();
    run(&mut sorteo(path, ["token", "revoke", id])).succeeded();
    wait_for("the token to end", || (code(&auditor, "/api/status") == 401).then_some(()));
    wait_for("its session to end", || (watched.ask("GET", results, &session).code == 401).then_some(()));
    let log = watched.server.stop().stderr;
    assert_names(
        &log,
        &[&format!("action: sign_in | result: success | token: {id} | role: auditor | ip: 127.0.0.1")],
    );
    for token in [viewer, auditor, agency] {
        assert!(!log.contains(token.rsplit('_').next().unwrap()), "the log has a secret");
    }
}

#[test]
fn the_socket_alone_is_enough_and_its_file_goes_with_the_server() {
    let folder = folder();
    let socket = folder.path().join("operators");
    let serve = ["--ops-socket", "operators"];
    let server = Server::start(folder.path(), &serve);
    server.process.wait_log("action: listen_operators | result: success | socket: operators", 1);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /api/status HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(Response::parse(&text).code, 200);
    server.stop();
    assert!(!socket.exists());
    fs::write(&socket, "text").unwrap();
    let serve = [&["serve", "--listen", "127.0.0.1:0"][..], &serve].concat();
    let finished = run(&mut sorteo(folder.path(), serve));
    assert_names(finished.failed(1), &["operators (ops_socket) cannot be listened on", "is no socket"]);
}

/// Long before a slow peer's time is over, which is 30 s.
const PROBE_DEADLINE: Duration = Duration::from_secs(15);

fn probe(watched: &Watched, path: &str) -> Response {
    let stream = watched.connect();
    stream.set_read_timeout(Some(PROBE_DEADLINE)).unwrap();
    ask(stream, "GET", path, "", "")
}

fn assert_probes_are_answered(watched: &Watched) {
    assert_eq!(probe(watched, "/healthz").body, "ok\n");
    assert_eq!(probe(watched, "/readyz").code, 200);
    assert_eq!(probe(watched, "/metrics").code, 200);
}

#[test]
fn peers_that_are_slow_or_idle_make_room_for_probes() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    let mut kept: Vec<TcpStream> = (0..100).map(|_| watched.connect()).collect();
    for stream in &mut kept {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let silent: Vec<TcpStream> = (0..100).map(|_| watched.connect()).collect();
    let mut slow: Vec<TcpStream> = (0..100).map(|_| watched.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /healthz HTT").unwrap();
    }
    assert_probes_are_answered(&watched);
    // The one that waited longest without a request has made room; the newest has not.
    let mut rest = Vec::new();
    assert!(kept[0].read_to_end(&mut rest).is_ok(), "closed");
    let newest = slow.last_mut().unwrap();
    newest.write_all(b"P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    newest.read_to_string(&mut text).unwrap();
    assert_eq!(Response::parse(&text).code, 200);
    drop(silent);
    watched.server.stop();
}

#[test]
fn streams_of_events_leave_places_for_probes() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    let stream = || {
        let mut stream = watched.connect();
        stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut code = [0; 12];
        stream.read_exact(&mut code).unwrap();
        (stream, code)
    };
    let mut streams: Vec<_> = (0..192).map(|_| stream()).collect();
    assert!(streams.iter().all(|(_, code)| code == b"HTTP/1.1 200"));
    let more: Vec<_> = (0..100).map(|_| stream()).collect();
    assert!(more.iter().all(|(_, code)| code == b"HTTP/1.1 503"));
    assert_probes_are_answered(&watched);
    // A stream that ends makes room for the next.
    drop(streams.pop());
    wait_for("a place", || (stream().1 == *b"HTTP/1.1 200").then_some(()));
    // None of the others was closed for all that.
    for (stream, _) in &mut streams {
        let mut reader = BufReader::new(stream);
        wait_for("the next event", || {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "a stream was closed");
            line.starts_with("data: ").then_some(())
        });
    }
    watched.server.stop();
}

#[test]
fn a_peer_that_closes_its_side_after_its_request_gets_the_response() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    for path in ["/healthz", "/readyz", "/metrics", "/api/status", "/api/draws/1", "/page.js"].repeat(5) {
        let mut stream = watched.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{path}: `{text}`");
    }
    // And nobody who closes in the middle of a request is waited for.
    let mut stream = watched.connect();
    stream.write_all(b"GET /healthz HTT").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PROBE_DEADLINE)).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    watched.server.stop();
}

#[test]
fn a_proxy_is_told_to_pass_events_on_as_they_are() {
    let folder = folder();
    let watched = Watched::start(folder.path(), &[]);
    let mut stream = watched.connect();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    let head: String = lines.take_while(|line| !line.is_empty()).map(|line| line + "\n").collect();
    assert_names(
        &head,
        &[
            "content-type: text/event-stream",
            "cache-control: no-cache, no-transform",
            "x-accel-buffering: no",
        ],
    );
    watched.server.stop();
}
