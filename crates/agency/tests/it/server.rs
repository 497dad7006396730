//! A server that stores one upload, keeps every request, and may be told to do something
//! else with any of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sorteo_agency::{ClientOptions, Security};
use sorteo_protocol::wire::{
    Decoder, Dialect, Hello, Incoming, Reason, Reply, Request, Status, Winners, WinningBets, WireLimits,
    encode_reply,
};
use sorteo_protocol::{AgencyId, Batch, DrawId};

pub const GIVE_UP_AFTER: Duration = Duration::from_secs(20);

/// What the server does with a request.
#[derive(Clone)]
pub enum Act {
    /// What a server does.
    Serve,
    /// The same, and closes the connection in place of the reply.
    ServeAndClose,
    /// The same with a batch, and acknowledges one bet more than it has.
    Miscount,
    Reply(Reply),
    /// Replies, and closes the connection.
    ReplyAndClose(Reply),
    Close,
}

/// What came, of all connections.
#[derive(Default)]
pub struct Seen {
    /// The requests of each connection.
    pub connections: Vec<Vec<Request>>,
    pub stored: u64,
    /// What the client offered in each TLS handshake.
    pub handshakes: Vec<String>,
}

pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Seen>>,
}

/// Says what to do with a request of a connection, both counted from 0.
type Script = dyn Fn(usize, usize, &Request) -> Act + Send + Sync;

impl Seen {
    /// The batches of all connections.
    pub fn batches(&self) -> usize {
        let is_batch = |request: &&Request| matches!(request, Request::Batch(_));
        self.connections.iter().flatten().filter(is_batch).count()
    }
}

impl Server {
    pub fn plain(script: impl Fn(usize, usize, &Request) -> Act + Send + Sync + 'static) -> Self {
        Self::start(move |socket, at, seen| converse(socket, at, seen, &script))
    }

    pub fn tls(
        config: ServerConfig,
        script: impl Fn(usize, usize, &Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let config = Arc::new(config);
        Self::start(move |mut socket, at, seen| {
            let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
            while session.is_handshaking() {
                if session.complete_io(&mut socket).is_err() {
                    return;
                }
            }
            seen.lock().unwrap().handshakes.push(offered(&session));
            converse(StreamOwned::new(session, socket), at, seen, &script);
        })
    }

    /// A server that does this with each connection, counted from 0.
    pub fn start(serve: impl Fn(TcpStream, usize, &Mutex<Seen>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, serve) = (Arc::new(Mutex::new(Seen::default())), Arc::new(serve));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for (at, socket) in listener.incoming().enumerate() {
                shared.lock().unwrap().connections.push(Vec::new());
                let (shared, serve) = (Arc::clone(&shared), Arc::clone(&serve));
                thread::spawn(move || serve(socket.unwrap(), at, &shared));
            }
        });
        Self { address, seen }
    }

    pub fn options(&self, security: Security) -> ClientOptions {
        options(&self.address, security)
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

pub fn options(address: &str, security: Security) -> ClientOptions {
    let mut options = ClientOptions::new(address, GIVE_UP_AFTER);
    options.security = security;
    options
}

fn offered(session: &ServerConnection) -> String {
    let alpn = session.alpn_protocol().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    let (version, group) = (session.protocol_version(), session.negotiated_key_exchange_group());
    format!("{alpn} {:?} {:?}", version.unwrap(), group.unwrap().name())
}

/// One connection, to its end.
fn converse(mut stream: impl Read + Write, at: usize, seen: &Mutex<Seen>, script: &Script) {
    let (mut decoder, mut input) = (Decoder::new(WireLimits::default()), Vec::new());
    loop {
        let mut rest = &input[..];
        let decoded = decoder.decode(&mut rest);
        let used = input.len() - rest.len();
        input.drain(..used);
        let Some(incoming) = decoded else {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(read) => input.extend_from_slice(&bytes[..read]),
            }
            continue;
        };
        let Incoming::Request(request) = incoming else { panic!("{incoming:?}") };
        let number = seen.lock().unwrap().connections[at].len();
        seen.lock().unwrap().connections[at].push(request.clone());
        let act = script(at, number, &request);
        let serve = || reply(request, &mut seen.lock().unwrap());
        let (reply, closes) = match act {
            Act::Serve => (serve(), false),
            Act::ServeAndClose => {
                serve();
                return;
            }
            Act::Miscount => (with_a_bet_more(serve()), false),
            Act::Reply(reply) => (reply, false),
            Act::ReplyAndClose(reply) => (reply, true),
            Act::Close => return,
        };
        let mut bytes = Vec::new();
        encode_reply(decoder.dialect().unwrap_or(Dialect::Framed), &reply, &mut bytes);
        if stream.write_all(&bytes).and_then(|()| stream.flush()).is_err() || closes {
            return;
        }
    }
}

fn with_a_bet_more(reply: Reply) -> Reply {
    let Reply::Batch { count, result: Ok(()) } = reply else { panic!("{reply:?}") };
    Reply::Batch { count: count + 1, result: Ok(()) }
}

fn reply(request: Request, seen: &mut Seen) -> Reply {
    match request {
        Request::Auth(_) => Reply::Auth(Ok(())),
        Request::Bet(_) => Reply::Bet(Ok(())),
        Request::Hello => Reply::Hello(Ok(Hello::of_this_version())),
        Request::Status => {
            Reply::Status(Ok(Status { draw: DrawId(1), drawn: false, done: 0, expected: 1, bets: 0 }))
        }
        Request::Resume { draw: Some(DrawId(1)), .. } => Reply::Resume(Ok(seen.stored)),
        Request::Done { bets, draw: Some(DrawId(1)), .. } => {
            assert_eq!(bets, Some(seen.stored), "done before all is stored");
            Reply::Done(Ok(()))
        }
        Request::Batch(batch) => {
            let count = batch.bets.len() as u64;
            Reply::Batch { count, result: store(&batch, seen) }
        }
        Request::Payload(batches) => {
            Reply::Batch { count: batches.iter().map(|batch| batch.bets.len() as u64).sum(), result: Ok(()) }
        }
        Request::DoneAndWinners { agency } => no_winners(agency),
        other => panic!("{other:?}"),
    }
}

fn store(batch: &Batch, seen: &mut Seen) -> Result<(), Reason> {
    let position = batch.position.as_ref().unwrap();
    assert_eq!(position.draw, Some(DrawId(1)), "a batch names its draw");
    if position.first_row > seen.stored {
        return Err(Reason::Gap { next_row: seen.stored });
    }
    // One that was in flight on a connection that has ended may be stored already.
    seen.stored = seen.stored.max(position.first_row + batch.bets.len() as u64);
    Ok(())
}

fn no_winners(agency: AgencyId) -> Reply {
    Reply::Winners(Ok(Winners::Bets { first: WinningBets { agency, bets: Vec::new() }, total: None }))
}
