//! A bad network: connections that are cut, delayed, slowed down or stalled, peers that
//! vanish, hosts that are unreachable for a while.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use sorteo_test_support::process::wait_for;

use crate::crowd::{Crowd, batch_of, frame};
use crate::dripping::Drippers;
use crate::history::History;
use crate::observed::{Observed, closed_for, conclude};
use crate::program::Program;
use crate::proxy::{Close, Proxy, Route, Treatment};
use crate::witness::Witness;
use crate::workplace::{Run, count};

/// Batches of each agency on a bad line.
const BATCHES: u64 = 30;
/// Peers of each kind that vanish.
const VANISHING: usize = 10;
/// Bytes of the shortest request.
const STATUS_BYTES: usize = 10;
/// Longer than any test: a proxy that holds on for so long never lets go.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A whole draw over lines of which each breaks sooner or later, in another way.
pub fn a_bad_line(run: &Run) {
    for workplace in run.rounds(3) {
        let crowd = Crowd::mixed(BATCHES);
        // A peer that stalls is given up before its agency gives up the server.
        let program = Program::new(&workplace).with("--agencies", crowd.dialects.len());
        let server = program.with("--request-timeout", 1).with("--idle-timeout", 2).start();
        let mut rng = workplace.rng(u64::MAX - 1);
        let proxy = Proxy::start(server.address, move || {
            count("connections over a bad line", 1);
            bad_route(&mut rng)
        });
        let history = crowd.start(proxy.address, &workplace).join();
        conclude(server, &history, &workplace);
    }
}

/// A route that ends: it is cut or stalls in one direction, the other is bad too.
fn bad_route(rng: &mut ChaCha8Rng) -> Route {
    let after = |rng: &mut ChaCha8Rng, bytes_max: usize| match rng.random_ratio(1, 2) {
        true => rng.random_range(0..bytes_max / 20),
        false => rng.random_range(0..bytes_max),
    };
    if rng.random() {
        Route { to_server: ending(after(rng, 4000), rng), to_client: lasting(rng) }
    } else {
        Route { to_server: lasting(rng), to_client: ending(after(rng, 200), rng) }
    }
}

fn ending(after: usize, rng: &mut ChaCha8Rng) -> Treatment {
    match rng.random_range(0..9) {
        0..4 => Treatment::Cut { after, by: Close::Fin },
        4..8 => Treatment::Cut { after, by: Close::Reset },
        _ => Treatment::Stall { after, hold: Duration::from_millis(rng.random_range(0..1300)) },
    }
}

fn lasting(rng: &mut ChaCha8Rng) -> Treatment {
    match rng.random_range(0..4) {
        0 => Treatment::Delay(Duration::from_millis(rng.random_range(0..10))),
        1 => Treatment::Drip(Duration::from_micros(rng.random_range(0..100))),
        _ => Treatment::Pass,
    }
}

/// Peers that vanish, and peers that send endlessly: all are closed at their deadline,
/// whatever they were doing, what they held is freed, and no other peer waits for them.
pub fn half_open_peers(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", 2);
        let server = program.with("--request-timeout", 1).with("--idle-timeout", 2).start();
        let mut witness = Witness::new(1, server.address, &history);
        let open_before = Observed::of(&server).open_files();
        let proxy = Proxy::start(server.address, vanishing_route);
        let vanished = Vanished::connect(proxy.address);
        let mut drippers = Drippers::connect(server.address, VANISHING);
        wait_for("the end of all that vanished", || {
            drippers.drip();
            witness.send(1);
            let requests = vanished.sending.len() + VANISHING;
            let closed = closed_for(&server, "idle_timeout") == vanished.idle.len()
                && closed_for(&server, "request_timeout") == requests;
            (closed && drippers.len() == 0).then_some(())
        });
        wait_for("their sockets' return", || {
            witness.send(1);
            (Observed::of(&server).open_files() <= open_before).then_some(())
        });
        count("half-open peers closed", (vanished.idle.len() + vanished.sending.len()) as u64);
        conclude(server, &history, &workplace);
    }
}

/// A whole short request passes; what comes later is never carried.
fn vanishing_route() -> Route {
    let stall = Treatment::Stall { after: STATUS_BYTES, hold: FOR_EVER };
    Route { to_server: stall, to_client: stall }
}

/// Peers whose proxy never closes the server's side.
struct Vanished {
    idle: Vec<TcpStream>,
    sending: Vec<TcpStream>,
}

impl Vanished {
    fn connect(proxy: SocketAddr) -> Self {
        let speak = |words: &[u8]| -> Vec<TcpStream> {
            let streams = (0..VANISHING).map(|_| TcpStream::connect(proxy).unwrap());
            streams.inspect(|mut stream| stream.write_all(words).unwrap()).collect()
        };
        let status = frame("STATUS");
        assert_eq!(status.len(), STATUS_BYTES);
        let batch = batch_of("BATCH|2|1", &["Ana|Paz|1|1999-03-17|1".to_owned()]);
        let payload = b"26\nAna|Paz|1|1999-03-17|1|2\n";
        Self {
            idle: [speak(b""), speak(&status)].into_iter().flatten().collect(),
            sending: [speak(&batch), speak(payload)].into_iter().flatten().collect(),
        }
    }
}
