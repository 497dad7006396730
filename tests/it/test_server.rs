//! A real server in this process, and a client that sends and expects literal bytes.
//!
//! Nothing here sleeps: every wait is for a condition, and fails the test at
//! [`DEADLINE`].

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sorteo::metrics::{ConnectionState, HandshakeLabel, HandshakeResult, Metrics};
use sorteo::server::tls::Tls;
use sorteo::server::{Limits, ServeError, Server, ServerHandle};
use sorteo::service::{Auth, Service};
use sorteo::store::sqlite::{Event, Options, SqliteStore, WRITE_QUEUE_MAX};
use sorteo::store::{ExpectedAgencies, Store};

/// What has not happened by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until the condition holds, or fails the test.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

// ---- The server ---------------------------------------------------------------

/// What a test sets differently from a server's defaults.
#[derive(Clone, Debug)]
pub struct Setup {
    pub agencies: Option<u32>,
    pub queue_max: usize,
    pub limits: Limits,
    pub tls: Option<Arc<Tls>>,
    pub auth: Auth,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            agencies: None,
            queue_max: WRITE_QUEUE_MAX,
            limits: Limits { workers: 4, ..Limits::default() },
            tls: None,
            auth: Auth::Off,
        }
    }
}

impl Setup {
    pub fn agencies(agencies: u32) -> Self {
        Self { agencies: Some(agencies), ..Self::default() }
    }

    pub fn auth(auth: Auth) -> Self {
        Self { auth, ..Self::default() }
    }

    pub fn limits(mut self, set: impl FnOnce(&mut Limits)) -> Self {
        set(&mut self.limits);
        self
    }

    pub fn start(self) -> TestServer {
        TestServer::start(self, |store| store)
    }
}

/// A server on a port and a database of its own. Dropped, it stops.
pub struct TestServer {
    address: SocketAddr,
    handle: ServerHandle,
    draws_made: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    ended: Option<Receiver<Result<(), ServeError>>>,
    folder: tempfile::TempDir,
}

impl TestServer {
    /// Starts a server on a store that `wrap` may stand in front of.
    pub fn start<S: Store>(setup: Setup, wrap: impl FnOnce(SqliteStore) -> S) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_tls(setup.tls.clone());
        let address = server.local_addresses().unwrap()[0];
        let handle = server.handle();
        let draws_made = Arc::new(AtomicUsize::new(0));
        let observer = {
            let (handle, draws_made) = (handle.clone(), Arc::clone(&draws_made));
            Arc::new(move |event| match event {
                Event::Drawn(_) => {
                    draws_made.fetch_add(1, Ordering::SeqCst);
                    handle.report_draw();
                }
                Event::Failed(error) => handle.store_failed(error),
            })
        };
        let options = Options {
            agencies: setup.agencies.map(ExpectedAgencies::from),
            queue_max: setup.queue_max,
            ..Options::new(folder.path().join("sorteo.db"))
        };
        let (store, _) = SqliteStore::open(&options, observer).unwrap();
        let metrics = Arc::clone(&options.metrics);
        let service = Arc::new(Service::new(wrap(store), options.metrics).with_auth(setup.auth));
        let listening = server.listen(setup.limits).unwrap();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let result = listening.run(service);
            // A test that has failed no longer listens.
            let _ = end.send(result);
        });
        Self { address, handle, draws_made, metrics, ended: Some(ended), folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many handshakes had this result.
    pub fn handshakes(&self, result: HandshakeResult) -> u64 {
        self.metrics.handshakes.get_or_create(&HandshakeLabel { result }).get()
    }

    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// Connections that the server has, as it last counted.
    pub fn open_connections(&self) -> i64 {
        let states = [ConnectionState::parked, ConnectionState::working, ConnectionState::waiting];
        states.into_iter().map(|state| self.metrics.connections_in(state).get()).sum()
    }

    /// A client whose system takes few bytes that it has not read.
    pub fn connect_with_small_buffer(&self) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Client::new(socket.into())
    }

    /// Asks on a connection of its own, as the seeds' clients do.
    pub fn ask_once(&self, request: &[u8], answer: &[u8]) {
        self.connect().ask(request, answer);
    }

    /// Another process's connection to the database.
    pub fn database(&self) -> Connection {
        let connection = Connection::open(self.database_path()).unwrap();
        connection.busy_timeout(DEADLINE).unwrap();
        connection
    }

    pub fn database_path(&self) -> PathBuf {
        self.folder.path().join("sorteo.db")
    }

    pub fn stored_bets(&self) -> u64 {
        self.database().query_row("SELECT count(*) FROM bets", [], |row| row.get(0)).unwrap()
    }

    /// Draws that this server said that it made.
    pub fn draws_made(&self) -> usize {
        self.draws_made.load(Ordering::SeqCst)
    }

    /// Begins to stop the server, and waits until it accepts no more connections.
    /// For how long the reactor has shown no sign of life.
    pub fn silent_for(&self) -> Duration {
        self.handle.silent_for(Instant::now())
    }

    pub fn begin_to_stop(&self) {
        self.handle.stop();
        until("the listener is closed", || TcpStream::connect(self.address).is_err());
    }

    /// Stops if it has not, and answers how it ended.
    pub fn stop(&mut self) -> Result<(), ServeError> {
        self.handle.stop();
        self.wait_end()
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self) -> Result<(), ServeError> {
        let ended = self.ended.take().expect("it ends once");
        ended.recv_timeout(DEADLINE).expect("the server ends in time")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.ended.is_some() && !thread::panicking() {
            self.stop().expect("the server ends well");
        }
    }
}

// ---- The client ---------------------------------------------------------------

/// A plain client. It knows nothing of how the server reads or writes.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects to any server.
    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes; answers whether it took all.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                let closed = matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
                );
                assert!(closed, "the server neither reads nor closes: {error}");
                false
            }
        }
    }

    pub fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(&[*byte]);
        }
    }

    /// The ports of this connection: its own, and the server's.
    pub fn ports(&self) -> [u16; 2] {
        [self.stream.local_addr().unwrap().port(), self.stream.peer_addr().unwrap().port()]
    }

    /// Sends no more, but still reads.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends no more, if the server has not closed the connection.
    pub fn half_close_if_open(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads exactly these bytes.
    pub fn expect(&mut self, answer: &[u8]) {
        let mut read = vec![0; answer.len()];
        let mut filled = 0;
        while filled < read.len() {
            match self.stream.read(&mut read[filled..]) {
                Ok(0) => panic!("closed after {:?}, before {:?}", Text(&read[..filled]), Text(answer)),
                Ok(bytes) => filled += bytes,
                Err(error) => panic!("{error} after {:?}, before {:?}", Text(&read[..filled]), Text(answer)),
            }
            if read[..filled] != answer[..filled] {
                let same = (0..filled).take_while(|at| read[*at] == answer[*at]).count();
                let shown = filled.min(same + 200);
                panic!("read {:?}, not {:?}", Text(&read[..shown]), Text(&answer[..shown]));
            }
        }
    }

    pub fn ask(&mut self, request: &[u8], answer: &[u8]) {
        self.send(request);
        self.expect(answer);
    }

    /// Nothing comes but the end, and it comes in good order.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let result = self.stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{:?} came before the end", Text(&rest));
        assert!(result.is_ok(), "the connection ended with {result:?}");
    }

    /// Nothing comes but the end; a server that closed on unread bytes resets.
    pub fn expect_gone(&mut self) {
        let mut rest = Vec::new();
        let result = self.stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{:?} came before the end", Text(&rest));
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
    }

    /// What still comes until the connection ends, however it does.
    pub fn read_to_any_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        rest
    }

    /// Whether exactly this answer comes, rather than the connection's end.
    pub fn answers_or_ends(&mut self, answer: &[u8]) -> bool {
        let mut read = vec![0; answer.len()];
        match self.stream.read_exact(&mut read) {
            Ok(()) => {
                assert!(read == answer, "{:?} is not {:?}", Text(&read), Text(answer));
                true
            }
            Err(error) => {
                let ended = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
                assert!(ended, "neither an answer nor the end: {error}");
                false
            }
        }
    }

    /// Whether these bytes come, rather than others or the end.
    pub fn answers_or_ends_in_any_way(&mut self, answer: &[u8]) -> bool {
        let mut read = vec![0; answer.len()];
        self.stream.read_exact(&mut read).is_ok() && read == answer
    }

    /// One framed answer's line; `None` if the connection ends first.
    pub fn read_frame_or_end(&mut self) -> Option<String> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut line = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut line).ok()?;
        Some(String::from_utf8(line).unwrap())
    }

    /// Whether something can be read now, be it the end.
    pub fn has_answer(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let result = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    pub fn read_exactly(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.stream.read_exact(&mut read).unwrap();
        read
    }

    /// One framed answer's line, with its line end.
    pub fn read_frame(&mut self) -> String {
        let length = self.read_exactly(4).try_into().unwrap();
        let length = u32::from_be_bytes(length) as usize;
        assert!((1..=8192).contains(&length), "a frame of {length} bytes");
        String::from_utf8(self.read_exactly(length)).unwrap()
    }

    /// The length that a counted answer announces.
    pub fn read_length(&mut self) -> usize {
        let mut digits = String::new();
        loop {
            match self.read_exactly(1)[0] {
                b'\n' => return digits.parse().unwrap(),
                digit => digits.push(digit.into()),
            }
        }
    }
}

/// Bytes as a person reads them.
struct Text<'a>(&'a [u8]);

impl std::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 1000;
        let shown = &self.0[self.0.len().saturating_sub(SHOWN)..];
        if shown.len() < self.0.len() {
            write!(f, "{} bytes, at the end ", self.0.len())?;
        }
        write!(f, "\"{}\"", shown.escape_ascii())
    }
}

// ---- What is sent -------------------------------------------------------------

/// One frame: its length as four bytes, and the line.
pub fn frame(line: &str) -> Vec<u8> {
    raw_frame(line.as_bytes())
}

pub fn raw_frame(line: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(line.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(line);
    frame
}

/// Several frames, one behind the other.
pub fn frames(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| frame(line)).collect()
}

/// One payload of the counted dialect.
pub fn counted(payload: &str) -> Vec<u8> {
    format!("{}\n{payload}", payload.len()).into_bytes()
}

/// `count` winning rows of one agency as counted lines, with documents from
/// `first` on, and names as long as they may be.
pub fn long_winning_lines(agency: u32, first: usize, count: usize) -> String {
    let name = "n".repeat(120);
    let mut lines = String::new();
    for document in first..first + count {
        let line_end = if lines.is_empty() { "" } else { "\n" };
        write!(lines, "{line_end}{name}|{name}|{document:08}|1999-03-17|7574|{agency}").unwrap();
    }
    lines
}
