//! A client of HTTP that does only what it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};

/// A response of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub code: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Sends a request for the host `localhost`, or the one that the headers name, and reads the
/// response.
pub fn ask(mut stream: impl Read + Write, method: &str, path: &str, headers: &str, body: &str) -> Response {
    send(&mut stream, method, path, headers, body);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    Response::parse(&text)
}

pub fn send(stream: &mut impl Write, method: &str, path: &str, headers: &str, body: &str) {
    let host = if headers.to_lowercase().contains("host: ") { "" } else { "Host: localhost\r\n" };
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    let request =
        format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{length}{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
}

impl Response {
    pub fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let mut lines = head.lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Self { code, headers: lines.map(header).collect(), body: body.to_owned() }
    }
}

/// The header that presents a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The header that presents a session.
pub fn cookie(cookie: &str) -> String {
    format!("Cookie: other=1; {cookie}\r\n")
}
