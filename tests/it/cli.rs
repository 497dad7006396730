//! The program as an operator and an agency use it: exit codes and messages, whole draws,
//! ends of the server, and the lines of the log.

mod blocked_log;
mod closed_output;
mod demo;
mod listening;
mod log_lines;
mod server_ends;
mod tokens;
mod whole_draws;
mod written_files;
mod wrong_input;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use socket2::{Domain, Socket, Type};
use sorteo_test_support::process::{DEADLINE, Server, run};

/// An address without a listener. The socket reserves it as long as it lives.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn status(server: &Server, folder: &Path) -> serde_json::Value {
    let finished = run(&mut server.command(folder, &["status", "--json"]));
    serde_json::from_str(finished.succeeded()).unwrap()
}

/// Documents of the rows that bet on 7574, read without the program's code.
fn winning_documents(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let winning = text.lines().filter(|line| line.ends_with(",7574"));
    winning.map(|line| format!("{}\n", line.split(',').nth(2).unwrap())).collect()
}

/// A framed peer that sends what it likes.
struct Peer(TcpStream);

impl Peer {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    /// All in one write, which arrives in one piece.
    fn send(&mut self, frames: &[&str]) {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend((frame.len() as u32).to_be_bytes());
            bytes.extend(frame.as_bytes());
        }
        self.0.write_all(&bytes).unwrap();
    }

    fn read_answer(&mut self) -> String {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn ask(&mut self, frames: &[&str]) -> String {
        self.send(frames);
        self.read_answer()
    }

    /// Asks in the counted dialect.
    fn ask_counted(&mut self, payload: &str) -> String {
        write!(self.0, "{}\n{payload}", payload.len()).unwrap();
        let mut length = String::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            match byte[0] {
                b'\n' => break,
                digit => length.push(char::from(digit)),
            }
        }
        let mut answer = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Waits until the server has closed the connection.
    fn read_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 1]).unwrap(), 0, "something came instead of the end");
    }
}

/// A bet, then a batch of which one row is still to come: the server has read
/// all of it once the bet is answered, and cannot drain.
fn half_a_batch(server: &Server) -> Peer {
    let mut peer = Peer::connect(server);
    let bet = "BET|1|Ana|Paz|100|1999-03-17|1";
    let answer = peer.ask(&[bet, "BATCH|1|2", "Ana|Paz|101|1999-03-17|1"]);
    assert_eq!(answer, "ACK|OK\n");
    peer
}
