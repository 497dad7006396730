//! Peers that send one byte at a time, never end a request, and stay.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use sorteo_test_support::process::DEADLINE;

use crate::crowd::frame;

/// Many of them, driven by one thread.
pub struct Drippers {
    server: SocketAddr,
    peers: Vec<Dripper>,
    /// How many the server has closed.
    pub closed: usize,
}

struct Dripper {
    stream: TcpStream,
    /// What it sends first, and what it then repeats endlessly.
    opening: Vec<u8>,
    refrain: Vec<u8>,
    sent: usize,
}

impl Drippers {
    pub fn connect(server: SocketAddr, count: usize) -> Self {
        let peers = (0..count).map(|kind| Dripper::connect(server, kind)).collect();
        Self { server, peers, closed: 0 }
    }

    /// How many are there now.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Each sends one byte. Those that the server has closed are gone.
    pub fn drip(&mut self) {
        let before = self.peers.len();
        self.peers.retain_mut(Dripper::drip);
        self.closed += before - self.peers.len();
    }

    /// Drips until the server has closed all, without a pause: a byte that is always
    /// there already must not prolong a request's time.
    pub fn drip_to_the_end(&mut self) {
        let until = Instant::now() + DEADLINE;
        while self.len() > 0 {
            assert!(Instant::now() < until, "{} drippers are not closed", self.len());
            self.drip();
        }
    }

    /// Replaces the drippers that were closed.
    pub fn replenish(&mut self, count: usize) {
        let missing = self.peers.len()..count;
        self.peers.extend(missing.map(|kind| Dripper::connect(self.server, kind)));
    }
}

impl Dripper {
    fn connect(server: SocketAddr, kind: usize) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let (opening, refrain) = match kind % 3 {
            // Whole rows, and never all of them.
            0 => (frame("BATCH|9|10000"), frame("Ana|Paz|1|1999-03-17|1")),
            1 => (b"1000000\n".to_vec(), b"Ana|Paz|1|1999-03-17|1|9\n".to_vec()),
            _ => (8192_u32.to_be_bytes().to_vec(), b"A".to_vec()),
        };
        Self { stream, opening, refrain, sent: 0 }
    }

    /// Sends a byte; answers whether the server is still there.
    fn drip(&mut self) -> bool {
        let byte = match self.sent.checked_sub(self.opening.len()) {
            None => self.opening[self.sent],
            Some(behind) => self.refrain[behind % self.refrain.len()],
        };
        let would_block = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        match self.stream.write(&[byte]) {
            Ok(sent) => self.sent += sent,
            Err(error) if would_block(&error) => {}
            Err(_) => return false,
        }
        self.stream.read(&mut [0]).is_err_and(|error| would_block(&error))
    }
}
