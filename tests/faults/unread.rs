//! Peers that never read the replies to their requests.

use std::io::{ErrorKind, Write as _};
use std::iter;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use sorteo_test_support::process::{Server, wait_for};

use crate::crowd::{Line, batch_of, frame};
use crate::history::{History, Outcome};
use crate::observed::{Observed, closed_for, conclude};
use crate::program::Program;
use crate::witness::Witness;
use crate::workplace::{Run, count};

/// Peers of each kind.
const PEERS: usize = 25;
/// The beginning of a frame that is announced as long and never completed.
const DRIPPED_FRAME: [u8; 5] = [0, 0, 0x20, 0, b'A'];
/// Winners of agency 1, each of 270 bytes in the counted dialect: more than the system
/// buffers for a peer that does not read.
const WINNERS: u32 = 3_000;
/// Requests for pages whose replies are more than the system buffers, and less than the
/// server buffers for peers that it closes at their deadline.
const PAGES: usize = 20;
/// How much the server buffers for a peer by default, and for one that it closes at its
/// deadline.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
const OUTPUT_BYTES_LARGE: u64 = 1 << 20;
/// What the answers that wait cost beside their bytes: connections, half-read
/// pipelines, and what allocators keep.
const MEMORY_BYTES_MORE: u64 = 24 << 20;
/// A peer that can send so much is never closed.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Fifty peers that ask and ask and never read, then fifty that ask once for more
/// than the system takes: the first are closed at 64 KiB, the others at their
/// deadline, while an agency is served as if they were not there.
pub fn peers_that_never_read(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", 2);
        let server = program.start();
        let mut witness = make_a_draw_with_long_answers(&server, &history);
        let endless = [frame("GET_WINNERS|1|0").repeat(10), frame("STATUS").repeat(1000)];
        let endless = endless.iter().map(|requests| Asks::Endlessly(requests.clone()));
        outlast(&server, connect_all(&server, endless), &mut witness, OUTPUT_BYTES_MAX);
        server.stop();

        let larger = program.with("--output-bytes-max", OUTPUT_BYTES_LARGE);
        let server = larger.with("--request-timeout", 1).start();
        witness.reconnect(server.address);
        let once = [
            Asks::Once(b"13\nGET_WINNERS|1".to_vec()),
            Asks::ThenDrips(frame("GET_WINNERS|1|0").repeat(PAGES)),
        ];
        outlast(&server, connect_all(&server, once), &mut witness, OUTPUT_BYTES_LARGE);
        conclude(server, &history, &workplace);
    }
}

/// Agency 1 has long winners, agency 2 is the witness.
fn make_a_draw_with_long_answers(server: &Server, history: &Arc<History>) -> Witness {
    let mut line = Line::new(server.address);
    let name = "n".repeat(120);
    for batch in 0..WINNERS / 1000 {
        let documents = batch * 1000..(batch + 1) * 1000;
        let rows: Vec<String> =
            documents.map(|document| format!("{name}|{name}|{document:08}|1999-03-17|7574")).collect();
        let answer = line.ask_framed(&batch_of("BATCH|1|1000", &rows));
        assert_eq!(answer.unwrap(), "ACK_BATCH|OK|1000");
        history.batch(1, &rows, Outcome::Ok);
    }
    let mut witness = Witness::new(2, server.address, history);
    witness.send(20);
    witness.close();
    assert_eq!(line.ask_framed(&frame("DONE|1")).unwrap(), "ACK_DONE|OK");
    history.done(1, None);
    witness
}

fn connect_all(server: &Server, kinds: impl IntoIterator<Item = Asks>) -> Vec<Deaf> {
    let all = kinds.into_iter().flat_map(|asks| iter::repeat_n(asks, PEERS));
    all.map(|asks| Deaf::connect(server.address, asks)).collect()
}

/// Waits until the server has closed them all, which must cost it no more than may
/// wait for each.
fn outlast(server: &Server, mut peers: Vec<Deaf>, witness: &mut Witness, output_bytes_max: u64) {
    let memory = Observed::of(server).resident_bytes();
    let allowed = peers.len() as u64 * output_bytes_max + MEMORY_BYTES_MORE;
    let mut grown = 0;
    wait_for("the end of all that never read", || {
        peers.iter_mut().for_each(Deaf::ask_more);
        witness.read_winners();
        grown = grown.max(Observed::of(server).resident_bytes().saturating_sub(memory));
        assert!(grown < allowed, "{grown} bytes more memory");
        (closed_for(server, "unread_answers") == peers.len()).then_some(())
    });
    eprintln!("{} peers that never read: {} KiB more memory", peers.len(), grown >> 10);
    count("peers that never read closed", peers.len() as u64);
}

/// A peer that never reads.
struct Deaf {
    stream: TcpStream,
    asks: Asks,
    sent: usize,
}

/// What it sends.
#[derive(Clone)]
enum Asks {
    /// This, again and again.
    Endlessly(Vec<u8>),
    /// This.
    Once(Vec<u8>),
    /// This, and then a request of which each time one byte follows.
    ThenDrips(Vec<u8>),
}

impl Deaf {
    fn connect(server: SocketAddr, asks: Asks) -> Self {
        let stream = connect_with_small_buffers(server);
        stream.set_nonblocking(true).unwrap();
        Self { stream, asks, sent: 0 }
    }

    /// Sends what can be sent now.
    fn ask_more(&mut self) {
        loop {
            let part: &[u8] = match &self.asks {
                Asks::Endlessly(requests) => &requests[self.sent % requests.len()..],
                Asks::Once(requests) => &requests[self.sent..],
                Asks::ThenDrips(requests) if self.sent < requests.len() => &requests[self.sent..],
                Asks::ThenDrips(requests) => {
                    let last = DRIPPED_FRAME.len() - 1;
                    let next = (self.sent - requests.len()).min(last);
                    &DRIPPED_FRAME[next..=next]
                }
            };
            let drips = part.len() == 1;
            match self.stream.write(part) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Closed, as it should be.
                Err(_) => return,
            }
            assert!(self.sent < REQUEST_BYTES_MAX, "nobody closes a peer that never reads");
            if drips || part.is_empty() {
                return;
            }
        }
    }
}

/// The systems take little for a peer that does not read: its window is small, and
/// so are its segments, of which the sender's system holds some.
fn connect_with_small_buffers(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.into()
}
