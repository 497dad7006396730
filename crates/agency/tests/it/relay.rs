//! A relay between a client and a server: it cuts connections, or passes bytes on one at a
//! time.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

/// How a relay passes on the bytes of one connection.
#[derive(Clone, Copy)]
pub struct Way {
    /// Bytes in both directions together, after which it cuts the connection.
    pub bytes: i64,
    /// Bytes that it passes on at once.
    pub at_once: usize,
}

/// Starts a relay to this address, which asks how to pass on each connection, counted from 0,
/// and returns its own.
pub fn start(to: String, way: impl Fn(usize) -> Way + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (at, client) in listener.incoming().enumerate() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let (way, left) = (way(at), Arc::new(AtomicI64::new(way(at).bytes)));
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let left = Arc::clone(&left);
                thread::spawn(move || pass_on(from, to, way, &left));
            }
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, way: Way, left: &AtomicI64) {
    to.set_nodelay(true).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        for piece in bytes[..read].chunks(way.at_once) {
            let room = left.fetch_sub(piece.len() as i64, Ordering::SeqCst).clamp(0, piece.len() as i64);
            if to.write_all(&piece[..room as usize]).is_err() || (room as usize) < piece.len() {
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
