//! The operators' HTTP in this process, and requests to it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use socket2::{Domain, Socket, Type};
use sorteo::ops::{Gatekeeper, Ops, OpsContext, OpsHandle, OpsTls};
use sorteo::server::{Limits, Server};
use sorteo::service::Service;
use sorteo::store::sqlite::{Options, SqliteStore};
use tempfile::TempDir;

use super::tokens::Tokens;
use crate::test_server::DEADLINE;

/// What a test sets differently.
#[derive(Default)]
pub struct Setup {
    /// No token is needed.
    pub is_open: bool,
    pub hosts: Vec<String>,
    pub tls: Option<OpsTls>,
    pub unprotected: Vec<String>,
    pub has_socket: bool,
}

/// The operators' HTTP of a server that accepts no agencies. Dropped, it stops.
pub struct Operators {
    pub address: SocketAddr,
    pub tokens: Arc<Tokens>,
    pub service: Arc<Service<SqliteStore>>,
    handle: Option<OpsHandle>,
    next_peer: AtomicU8,
    folder: TempDir,
}

impl Setup {
    pub fn start(self) -> Operators {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join("sorteo.db"));
        let (store, _) = SqliteStore::open(&options, Arc::new(|_| ())).unwrap();
        let service = Arc::new(Service::new(store, Arc::clone(&options.metrics)));
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = "127.0.0.1:0".parse::<SocketAddr>().unwrap().into();
        let socket = self.has_socket.then(|| socket_in(&folder));
        let (ops, _) = Ops::bind(&[endpoint], socket.as_deref()).unwrap();
        let address = ops.local_addresses().unwrap()[0];
        let tokens = Tokens::new();
        let context = OpsContext {
            service: Arc::clone(&service),
            handle: server.handle(),
            database: options.database,
            limits: Limits::default(),
            queue_max: options.queue_max,
            // Never ready, so that what a probe returns does not depend on the machine.
            disk_free_bytes_min: u64::MAX,
            started_at: SystemTime::now(),
            gatekeeper: (!self.is_open).then(|| Arc::clone(&tokens) as Arc<dyn Gatekeeper>),
            hosts: self.hosts,
            tls: self.tls,
            unprotected: self.unprotected,
        };
        let overviews = [service.store().overview().unwrap(), service.store().overview().unwrap()];
        let handle = Some(ops.start(context, overviews).unwrap());
        Operators { address, tokens, service, handle, next_peer: AtomicU8::new(2), folder }
    }
}

fn socket_in(folder: &TempDir) -> PathBuf {
    folder.path().join("operators")
}

impl Operators {
    pub fn start() -> Self {
        Setup::default().start()
    }

    pub fn socket(&self) -> PathBuf {
        socket_in(&self.folder)
    }

    pub fn stop(&mut self) {
        self.handle.take().unwrap().stop();
    }

    /// Connects from an address that has not connected yet: failures are limited by address.
    pub fn connect(&self) -> TcpStream {
        let last = self.next_peer.fetch_add(1, Ordering::SeqCst);
        let third = if last == 0 { panic!("too many peers") } else { 1 };
        self.connect_from(Ipv4Addr::new(127, 0, third, last))
    }

    pub fn connect_from(&self, from: Ipv4Addr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((IpAddr::from(from), 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str, headers: &str) -> Response {
        ask(self.connect(), "GET", path, headers, "")
    }

    pub fn post(&self, path: &str, headers: &str, body: &str) -> Response {
        ask(self.connect(), "POST", path, headers, body)
    }

    /// Signs in, and returns the cookie.
    pub fn sign_in(&self, token: &str) -> String {
        let response = self.post("/sign-in", "", &format!("token={token}"));
        assert_eq!(response.code, 303, "{response:?}");
        response.headers["set-cookie"].split(';').next().unwrap().to_owned()
    }
}

impl Drop for Operators {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop();
        }
    }
}

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
    stream.read_to_string(&mut text).unwrap();
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

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
