//! Signing in and out, what ends a session, limits of attempts, hosts, origins, and the Unix
//! socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sorteo::ops::Role;
use sorteo_test_support::process::assert_names;

use super::in_process::{Operators, Setup, exists};
use crate::http::{ask, bearer, cookie, send};
use crate::test_server::DEADLINE;

/// An open stream of events ends so long after its token, at most.
const STREAM_END: Duration = Duration::from_secs(3);
/// Sign-ins in progress at once.
const FORMS_MAX: usize = 16;
/// How long a form may take.
const FORM_TIME: Duration = Duration::from_secs(5);

#[test]
fn a_browser_signs_in_with_a_token_and_out_again() {
    let operators = Operators::start();
    let token = operators.tokens.add(Some(Role::Auditor));
    let page = operators.get("/", "Accept: text/html\r\n");
    assert_eq!((page.code, &*page.headers["location"]), (303, "sign-in"));
    // A proxy that asks for a password of its own may pass it on.
    let proxied = operators.get("/", "Authorization: Basic b3A6cHc=\r\n");
    assert_eq!((proxied.code, proxied.headers.get("location").map(|path| &**path)), (303, Some("sign-in")));
    let form = operators.get("/sign-in", "");
    assert_names(
        &form.body,
        &["<html lang=\"en\">", "action=\"sign-in\"", "name=\"token\"", "role=\"alert\" hidden>"],
    );
    assert!(!form.body.contains("{{") && !form.body.contains("<script"), "{}", form.body);
    let spanish = operators.get("/sign-in", "Accept-Language: fr, es-AR;q=0.9, en;q=0.8\r\n");
    assert_names(&spanish.body, &["<html lang=\"es\">", "Iniciar sesión"]);

    let bad = operators.post("/sign-in", "", "token=sorteo_x");
    assert_eq!(bad.code, 401);
    assert_names(&bad.body, &["role=\"alert\" >The token is not valid.</p>"]);
    assert!(!bad.headers.contains_key("set-cookie") && !bad.body.contains("sorteo_x"), "{bad:?}");

    // As it is pasted, with white space.
    let good = operators.post("/sign-in", "", &format!("token=+{}%0D%0A", token.reveal()));
    assert_eq!((good.code, &*good.headers["location"]), (303, "./"));
    let set = &good.headers["set-cookie"];
    let (id, rest) = set.strip_prefix("sorteo_session=").unwrap().split_once(';').unwrap();
    assert_eq!((id.len(), rest), (64, " HttpOnly; SameSite=Strict; Path=/"));
    let session = cookie(set.split(';').next().unwrap());
    let me = operators.get("/api/me", &session).body;
    let expected = format!(r#"{{"role":"auditor","token":"{}","signed_in":true}}"#, token.id());
    assert_eq!(me, expected);
    assert_eq!(operators.get("/", &session).code, 200);

    let out = operators.post("/sign-out", &session, "");
    assert_eq!((out.code, &*out.headers["location"]), (303, "sign-in"));
    assert_names(&out.headers["set-cookie"], &["sorteo_session=;", "Max-Age=0"]);
    assert_eq!(operators.get("/", &session).code, 303);
    assert_eq!(operators.get("/api/status", &session).code, 401);
}

#[test]
fn a_session_ends_with_its_token_and_no_other_does() {
    let operators = Operators::start();
    let [one, other] = [Role::Viewer, Role::Viewer].map(|role| operators.tokens.add(Some(role)));
    let [of_one, of_other] = [&one, &other].map(|token| cookie(&operators.sign_in(token.reveal())));
    let code = |session: &str| operators.get("/api/status", session).code;
    assert_eq!((code(&of_one), code(&of_other)), (200, 200));
    operators.tokens.revoke(&one);
    assert_eq!((code(&of_one), code(&of_other)), (401, 200));
    // Where no token can be looked up, nobody new is let in, and whoever is signed in stays so.
    operators.tokens.set_broken(true);
    assert_eq!((code(&of_other), code(&bearer(other.reveal()))), (200, 503));
    assert_eq!(operators.post("/sign-in", "", &format!("token={}", other.reveal())).code, 503);
    assert_eq!(operators.get("/healthz", "").code, 200);
    operators.tokens.set_broken(false);
    assert_eq!(code(&of_other), 200);
}

#[test]
fn a_session_waits_for_no_token_that_is_looked_up() {
    let operators = Operators::start();
    let token = operators.tokens.add(Some(Role::Viewer));
    let session = cookie(&operators.sign_in(token.reveal()));
    let before = operators.tokens.lookups();
    let held = operators.tokens.hold();
    let header = bearer(token.reveal());
    thread::scope(|scope| {
        let looked_up = scope.spawn(|| operators.get("/api/me", &header).code);
        while operators.tokens.lookups() == before {
            thread::yield_now();
        }
        assert_eq!(operators.get("/api/me", &session).code, 200);
        drop(held);
        assert_eq!(looked_up.join().unwrap(), 200);
    });
}

/// An open stream of events, of which the first event has come.
fn stream(operators: &Operators, headers: &str) -> BufReader<TcpStream> {
    let mut stream = operators.connect();
    send(&mut stream, "GET", "/api/events", headers, "");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
    }
    reader
}

fn ends_in_time(mut stream: BufReader<TcpStream>, what: &str) {
    let since = Instant::now();
    let mut line = String::new();
    // An event comes each second, so this never waits for long.
    while stream.read_line(&mut line).unwrap() > 0 {
        assert!(since.elapsed() < STREAM_END, "{what}: the stream goes on");
    }
}

#[test]
fn a_stream_of_events_ends_with_its_token_or_session() {
    let operators = Operators::start();
    let codes = ["", &bearer("nonsense")].map(|headers| operators.get("/api/events", headers).code);
    assert_eq!(codes, [401, 401]);
    let [by_header, by_session, signed_out, kept] = [0; 4].map(|_| operators.tokens.add(Some(Role::Viewer)));
    let first = stream(&operators, &bearer(by_header.reveal()));
    let second = stream(&operators, &cookie(&operators.sign_in(by_session.reveal())));
    let session = cookie(&operators.sign_in(signed_out.reveal()));
    let third = stream(&operators, &session);
    let mut fourth = stream(&operators, &bearer(kept.reveal()));
    operators.tokens.revoke(&by_header);
    operators.tokens.revoke(&by_session);
    operators.post("/sign-out", &session, "");
    ends_in_time(first, "a revoked token");
    ends_in_time(second, "the session of a revoked token");
    ends_in_time(third, "a session that was signed out");
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(fourth.read_line(&mut line).unwrap() > 0, "the stream of another token ended");
    }
}

#[test]
fn an_address_with_too_many_bad_tokens_is_told_to_wait_and_a_good_one_is_accepted() {
    let operators = Operators::start();
    let token = operators.tokens.add(Some(Role::Viewer));
    let from = |last| move || operators_peer(last);
    let [attacker, other] = [from(1), from(2)];
    let session = cookie(&operators.sign_in(token.reveal()));
    let status = |peer: &dyn Fn() -> Ipv4Addr, headers: &str| {
        ask(operators.connect_from(peer()), "GET", "/api/status", headers, "")
    };
    for attempt in 0..10 {
        let code = match attempt % 2 {
            0 => status(&attacker, &bearer("nonsense")).code,
            _ => ask(operators.connect_from(attacker()), "POST", "/sign-in", "", "token=nonsense").code,
        };
        assert_eq!(code, 401, "{attempt}");
    }
    let refused = status(&attacker, &bearer("nonsense"));
    assert_eq!(refused.code, 429);
    let wait: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    let form = ask(operators.connect_from(attacker()), "POST", "/sign-in", "", "token=nonsense");
    assert_eq!(form.code, 429);
    assert_names(&form.body, &["Too many tokens from this address were not valid. Try again in "]);
    assert_eq!(status(&attacker, &session).code, 200, "who is signed in stays so");
    assert_eq!(status(&attacker, &bearer(token.reveal())).code, 200, "a good one is always accepted");
    assert_eq!(status(&other, &bearer("nonsense")).code, 401);
    assert_eq!(operators.service.metrics().sign_in_failures.get(), 13);
}

fn operators_peer(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 9, last)
}

/// A form of which only the first bytes have come.
fn slow_form(operators: &Operators, from: Ipv4Addr) -> TcpStream {
    let mut stream = operators.connect_from(from);
    let head = "POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntok";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// The beginning of the response.
fn code_of(mut stream: &TcpStream) -> String {
    let mut code = [0; 12];
    stream.read_exact(&mut code).unwrap();
    String::from_utf8(code.to_vec()).unwrap()
}

#[test]
fn forms_that_come_slowly_leave_places_for_other_requests() {
    let operators = Operators::start();
    let token = operators.tokens.add(Some(Role::Viewer));
    let slow: Vec<TcpStream> =
        (0..FORMS_MAX + 30).map(|_| slow_form(&operators, operators_peer(3))).collect();
    // At once, and not 408 after the time that a form may take.
    let since = Instant::now();
    assert_eq!(code_of(&slow[0]), "HTTP/1.1 503");
    assert!(since.elapsed() < FORM_TIME, "{:?}", since.elapsed());
    assert_eq!(operators.get("/healthz", "").code, 200);
    assert_eq!(operators.get("/api/status", &bearer(token.reveal())).code, 200);
    let codes: Vec<String> = slow[1..].iter().map(code_of).collect();
    let count = |wanted| codes.iter().filter(|code| *code == wanted).count();
    assert_eq!((count("HTTP/1.1 503"), count("HTTP/1.1 408")), (29, FORMS_MAX));
    let long = operators.post("/sign-in", "", &format!("token={}", "a".repeat(2_000)));
    assert_eq!(long.code, 400);
}

#[test]
fn a_form_that_comes_whole_is_taken_however_many_slow_ones_of_its_address_wait() {
    let operators = Operators::start();
    let form = format!("token={}", operators.tokens.add(Some(Role::Viewer)).reveal());
    // As behind a proxy, from whose address all come.
    let proxy = operators_peer(4);
    let is_over = AtomicBool::new(false);
    let codes: Vec<u16> = thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    code_of(&slow_form(&operators, proxy));
                }
            });
        }
        let sign_in = |_| ask(operators.connect_from(proxy), "POST", "/sign-in", "", &form).code;
        let codes = (0..40).map(sign_in).collect();
        is_over.store(true, Ordering::Relaxed);
        codes
    });
    assert_eq!(codes, [303; 40]);
}

#[test]
fn slow_forms_of_one_address_displace_none_of_another() {
    let operators = Operators::start();
    let form = format!("token={}", operators.tokens.add(Some(Role::Viewer)).reveal());
    let mut own = operators.connect_from(operators_peer(6));
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        form.len()
    );
    own.write_all(head.as_bytes()).unwrap();
    let slow: Vec<TcpStream> =
        (0..FORMS_MAX + 30).map(|_| slow_form(&operators, operators_peer(5))).collect();
    assert!(slow[..20].iter().all(|stream| code_of(stream) == "HTTP/1.1 503"));
    own.write_all(form.as_bytes()).unwrap();
    assert_eq!(code_of(&own), "HTTP/1.1 303");
}

#[test]
fn a_host_that_is_not_ours_is_refused_before_anything_else() {
    let operators = Setup { hosts: vec!["lottery.example".to_owned()], ..Setup::default() }.start();
    let token = operators.tokens.add(Some(Role::Viewer));
    let code = |path: &str, host: &str| {
        operators.get(path, &format!("Host: {host}\r\n{}", bearer(token.reveal()))).code
    };
    for host in ["localhost:9090", "127.0.0.1", "[::1]:9090", "lottery.example", "LOTTERY.example:443"] {
        assert_eq!(code("/api/status", host), 200, "{host}");
    }
    for path in ["/", "/api/status", "/metrics", "/sign-in", "/page.js", "/nothing"] {
        assert_eq!(code(path, "evil.example"), 421, "{path}");
    }
    assert_eq!((code("/healthz", "evil.example"), code("/readyz", "evil.example")), (200, 503));
    let refused = operators.get("/api/status", "Host: evil.example\r\n");
    assert_eq!(refused.code, 421);
    assert_names(&refused.body, &["{\"error\":\"", "ops_hosts"]);
    let open = Setup { is_open: true, ..Setup::default() }.start();
    assert_eq!(open.get("/api/status", "Host: evil.example\r\n").code, 421, "also without tokens");
}

#[test]
fn a_form_of_another_page_is_refused() {
    let operators = Operators::start();
    let token = operators.tokens.add(Some(Role::Viewer));
    let session = operators.sign_in(token.reveal());
    for header in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let form = format!("token={}", token.reveal());
        assert_eq!(operators.post("/sign-in", header, &form).code, 403, "{header}");
        let headers = format!("{header}{}", cookie(&session));
        assert_eq!(operators.post("/sign-out", &headers, "").code, 403, "{header}");
    }
    assert_eq!(operators.get("/api/me", &cookie(&session)).code, 200, "still signed in");
    let own = format!("Origin: http://localhost\r\n{}", cookie(&session));
    assert_eq!(operators.post("/sign-out", &own, "").code, 303);
}

#[test]
fn who_may_open_the_socket_needs_no_token() {
    let mut operators = Setup { has_socket: true, ..Setup::default() }.start();
    let get = |path: &str| {
        let stream = UnixStream::connect(operators.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        ask(stream, "GET", path, "", "")
    };
    assert_eq!(get("/api/me").body, r#"{"role":"operator","token":null,"signed_in":false}"#);
    assert_eq!((get("/api/draws/1/results").code, get("/sign-in").code), (409, 303));
    assert_eq!(operators.get("/api/me", "").code, 401, "the port does");
    operators.stop();
    assert!(!exists(&operators.socket()), "the file goes with the server");
}

#[test]
fn the_status_says_what_is_not_protected() {
    let unprotected = vec!["ops_auth=off: whoever reaches 10.0.0.1:9090 sees everything".to_owned()];
    let operators = Setup { is_open: true, unprotected, ..Setup::default() }.start();
    let status: serde_json::Value = serde_json::from_str(&operators.get("/api/status", "").body).unwrap();
    assert_eq!(status["unprotected"][0], "ops_auth=off: whoever reaches 10.0.0.1:9090 sees everything");
}
