//! Every path, with every kind of token.

use std::collections::{BTreeMap, BTreeSet};

use sorteo::ops::{Role, paths};
use sorteo::store::sqlite::SqliteStore;
use sorteo_protocol::Token;

use super::in_process::{Operators, Setup};
use crate::http::{Response, ask, bearer, cookie};

/// What each of these gets: nobody, a viewer, an auditor, an operator, and who has the token
/// of an agency, a revoked one or an unknown one.
type Row = (&'static str, &'static str, [u16; 7]);

const ROWS: &[Row] = &[
    ("GET", "/", [303, 200, 200, 200, 401, 401, 401]),
    ("GET", "/page.css", [200; 7]),
    ("GET", "/page.js", [200; 7]),
    ("GET", "/icon.svg", [200; 7]),
    ("GET", "/sign-in", [200; 7]),
    // Without a token in the form.
    ("POST", "/sign-in", [400; 7]),
    ("GET", "/sign-out", [405; 7]),
    ("POST", "/sign-out", [303; 7]),
    ("GET", "/api/me", [401, 200, 200, 200, 401, 401, 401]),
    ("GET", "/api/status", [401, 200, 200, 200, 401, 401, 401]),
    ("HEAD", "/api/status", [401, 200, 200, 200, 401, 401, 401]),
    ("POST", "/api/status", [401, 405, 405, 405, 401, 401, 401]),
    ("GET", "/api/draws/1", [401, 200, 200, 200, 401, 401, 401]),
    // The draw is not drawn: who may ask learns it.
    ("GET", "/api/draws/1/results", [401, 403, 409, 409, 401, 401, 401]),
    ("GET", "/api/draws/x/results?serch=1", [401, 403, 400, 400, 401, 401, 401]),
    ("GET", "/metrics", [401, 200, 200, 200, 401, 401, 401]),
    ("GET", "/healthz", [200; 7]),
    // It is never ready here, and says the same to everybody.
    ("GET", "/readyz", [503; 7]),
    ("GET", "/nothing", [404; 7]),
    ("GET", "/api/draws/1/results/", [404; 7]),
];

/// A stream that does not end, so it is asked by a test of its own.
const STREAM: &str = "/api/events";

fn tokens(operators: &Operators) -> [Token; 6] {
    let tokens = &operators.tokens;
    let viewer = tokens.add(Some(Role::Viewer));
    let auditor = tokens.add(Some(Role::Auditor));
    let operator = tokens.add(Some(Role::Operator));
    let (agency, revoked) = (tokens.add(None), tokens.add(Some(Role::Operator)));
    tokens.revoke(&revoked);
    [viewer, auditor, operator, agency, revoked, Token::from_random([0xee; 8], [0xee; 32])]
}

/// The part of a path that a row asks for.
fn pattern(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let part = |part: &str| if ["1", "x"].contains(&part) { "{draw}" } else { part }.to_owned();
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn every_path_is_open_to_those_who_may_ask_for_it_and_to_no_others() {
    let operators = Operators::start();
    let tokens = tokens(&operators);
    for (method, path, expected) in ROWS {
        let ask = |headers: String| match *method {
            "POST" => operators.post(path, &headers, "").code,
            "HEAD" => ask(operators.connect(), "HEAD", path, &headers, "").code,
            _ => operators.get(path, &headers).code,
        };
        let mut seen = vec![ask(String::new())];
        seen.extend(tokens.iter().map(|token| ask(bearer(token.reveal()))));
        assert_eq!(seen, expected, "{method} {path}");
    }
}

#[test]
fn a_session_opens_the_same_paths_as_its_token() {
    let operators = Operators::start();
    let tokens = tokens(&operators);
    for (method, path, expected) in ROWS.iter().filter(|(_, path, _)| *path != "/sign-out") {
        for (token, expected) in tokens[..3].iter().zip(&expected[1..]) {
            let cookie = cookie(&operators.sign_in(token.reveal()));
            let response = ask(operators.connect(), method, path, &cookie, "");
            assert_eq!(response.code, *expected, "{method} {path}");
        }
        // A session that there is not is as none.
        let unknown = cookie(&format!("sorteo_session={}", "0".repeat(64)));
        let response = ask(operators.connect(), method, path, &unknown, "");
        assert_eq!(response.code, expected[0], "{method} {path}");
    }
}

#[test]
fn every_path_has_a_row_above_and_is_documented() {
    let all: BTreeMap<&str, _> = paths::<SqliteStore>().into_iter().collect();
    let known: BTreeSet<String> = all.keys().map(|path| (*path).to_owned()).collect();
    let rows = ROWS.iter().map(|(_, path, _)| pattern(path)).chain([STREAM.to_owned()]);
    let tested: BTreeSet<String> = rows.collect();
    let missing: Vec<_> = known.difference(&tested).collect();
    assert!(missing.is_empty(), "give {missing:?} a row");
    let page = include_str!("../../../docs/http.md");
    let is_documented = |path: &&&str| page.contains(&format!("`{}`", path.replace("{draw}", "ID")));
    let undocumented: Vec<_> = all.keys().filter(|path| !is_documented(path)).collect();
    assert!(undocumented.is_empty(), "document {undocumented:?} in docs/http.md");
}

#[test]
fn without_authentication_everybody_is_an_operator() {
    let operators = Setup { is_open: true, ..Setup::default() }.start();
    for (method, path, expected) in ROWS {
        let expected = if path.starts_with("/sign-in") { 303 } else { expected[3] };
        for headers in [String::new(), bearer("nonsense")] {
            let response = ask(operators.connect(), method, path, &headers, "");
            assert_eq!(response.code, expected, "{method} {path}");
        }
    }
    let me = operators.get("/api/me", "").body;
    assert_eq!(me, r#"{"role":"operator","token":null,"signed_in":false}"#);
}

#[test]
fn a_bad_token_is_refused_in_the_same_way_whatever_is_wrong_with_it() {
    let operators = Operators::start();
    let [viewer, _, _, agency, revoked, unknown] = tokens(&operators);
    let wrong_secret = format!("{}0", &viewer.reveal()[..viewer.reveal().len() - 1]);
    let bad = [agency.reveal(), revoked.reveal(), unknown.reveal(), &wrong_secret, "nonsense", ""];
    let responses = |ask: &dyn Fn(&str) -> Response, bad: &[&str]| {
        let without_date = |token: &&str| {
            let mut response = ask(token);
            response.headers.remove("date");
            response
        };
        bad.iter().map(without_date).collect::<Vec<_>>()
    };
    // A header without a token presents none.
    let by_header = responses(&|token| operators.get("/api/status", &bearer(token)), &bad[..5]);
    assert_eq!(
        (by_header[0].code, by_header[0].body.as_str()),
        (401, r#"{"error":"the token is not valid"}"#)
    );
    assert_eq!(by_header[0].headers["www-authenticate"], "Bearer");
    let by_form = responses(&|token| operators.post("/sign-in", "", &format!("token={token}")), &bad);
    assert_eq!(by_form[0].code, 401);
    for all in [by_header, by_form] {
        assert!(all.iter().all(|response| *response == all[0]), "{all:#?}");
    }
}
