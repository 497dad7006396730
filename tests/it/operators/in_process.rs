//! The operators' HTTP in this process.

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
use crate::http::{Response, ask};
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

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
