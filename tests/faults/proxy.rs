//! A bad connection to the server: a TCP proxy that cuts, delays, slows down and stalls each
//! connection as its route says.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

/// What becomes of one connection's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub to_server: Treatment,
    pub to_client: Treatment,
}

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// They go on as they come.
    Pass,
    /// Every piece comes so much later.
    Delay(Duration),
    /// They come one by one, with this pause between them.
    Drip(Duration),
    /// Once so many have gone on, both peers' connections are closed.
    Cut { after: usize, by: Close },
    /// Once so many have gone on, no more are read for this long, and then both
    /// connections are reset.
    Stall { after: usize, hold: Duration },
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// In order: the peer reads to the end.
    Fin,
    /// At once: the peer reads an error.
    Reset,
}

/// No peer of these tests leaves bytes of its own answers lying for so long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 4096;

/// A running proxy. Dropped, it closes all that goes through it.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stops: AtomicBool,
    links: Mutex<Vec<Weak<Link>>>,
}

impl Proxy {
    /// Listens for the server; each connection asks for its route when it is accepted.
    pub fn start(server: SocketAddr, mut route: impl FnMut() -> Route + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stops.load(Ordering::SeqCst) {
                    return;
                }
                // Where the server cannot be reached, neither can we.
                if let Ok(link) = client.and_then(|client| Link::new(client, server)) {
                    accepting.add(&link);
                    link.run(route());
                }
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        let _ = self.acceptor.take().map(JoinHandle::join);
        let links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(Weak::upgrade).for_each(|link| link.cut(Close::Reset));
    }
}

impl Shared {
    fn add(&self, link: &Arc<Link>) {
        let mut links = self.links.lock().unwrap();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }
}

/// A client's connection and its continuation to the server. Both are closed when
/// both directions have ended.
struct Link {
    client: TcpStream,
    server: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// One direction has ended.
    Ended,
    /// Closing is to reset both connections: no end may be announced before.
    Reset,
}

impl Link {
    fn new(client: TcpStream, server: SocketAddr) -> io::Result<Arc<Self>> {
        let server = TcpStream::connect(server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        }
        Ok(Arc::new(Self { client, server, state: Mutex::new(State::Open), changed: Condvar::new() }))
    }

    fn run(self: Arc<Self>, route: Route) {
        let other = Arc::clone(&self);
        thread::spawn(move || other.carry(&other.server, &other.client, route.to_client));
        thread::spawn(move || self.carry(&self.client, &self.server, route.to_server));
    }

    /// Carries one direction to its end.
    fn carry(&self, from: &TcpStream, to: &TcpStream, treatment: Treatment) {
        // A connection that broke has ended as well.
        let _ = self.forward(from, to, treatment);
        self.change_to(State::Ended);
        if self.state() != State::Reset {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn forward(&self, mut from: &TcpStream, mut to: &TcpStream, treatment: Treatment) -> io::Result<()> {
        let (mut passed, mut buffer) = (0, [0; PIECE_BYTES]);
        loop {
            let piece = match from.read(&mut buffer)? {
                0 => return Ok(()),
                read => &buffer[..read],
            };
            match treatment {
                Treatment::Pass => to.write_all(piece)?,
                Treatment::Delay(pause) => {
                    self.pause(pause);
                    to.write_all(piece)?;
                }
                Treatment::Drip(pause) => {
                    for byte in piece {
                        to.write_all(&[*byte])?;
                        self.pause(pause);
                    }
                }
                Treatment::Cut { after, .. } | Treatment::Stall { after, .. } => {
                    let last = piece.len().min(after - passed);
                    to.write_all(&piece[..last])?;
                    passed += last;
                    if passed == after {
                        self.end_by(treatment);
                        return Ok(());
                    }
                }
            }
        }
    }

    fn end_by(&self, treatment: Treatment) {
        match treatment {
            Treatment::Cut { by, .. } => self.cut(by),
            Treatment::Stall { hold, .. } => {
                self.pause(hold);
                self.cut(Close::Reset);
            }
            _ => {}
        }
    }

    /// Waits, unless the other direction has ended.
    fn pause(&self, pause: Duration) {
        let state = self.state.lock().unwrap();
        let _ = self.changed.wait_timeout_while(state, pause, |state| *state == State::Open).unwrap();
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn change_to(&self, new: State) {
        let mut state = self.state.lock().unwrap();
        if *state != State::Reset {
            *state = new;
        }
        self.changed.notify_all();
    }

    /// Closes both connections, and ends the other direction's thread.
    fn cut(&self, by: Close) {
        let how = match by {
            Close::Fin => Shutdown::Both,
            Close::Reset => Shutdown::Read,
        };
        if by == Close::Reset {
            self.change_to(State::Reset);
        }
        for stream in [&self.client, &self.server] {
            if by == Close::Reset {
                // Closing sends a reset then; to stop reading sends nothing.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            let _ = stream.shutdown(how);
        }
    }
}
