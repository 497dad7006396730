//! Many peers that send too slowly or never read, beside agencies that must not be
//! affected.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::dripping::Drippers;
use crate::history::History;
use crate::observed::{Observed, closed_for, conclude, raise_open_files_limit};
use crate::program::Program;
use crate::witness::Witness;
use crate::workplace::{Run, count};

const DRIPPERS: usize = 1_000;
/// Pause between the bytes of one dripper.
const DRIP_PAUSE: Duration = Duration::from_millis(100);
const GOOD_AGENCIES: u32 = 64;
/// Batches of each good agency, with and again without drippers beside it.
const BATCHES: usize = 25;
const BETS_OF_A_BATCH: u64 = 20;
/// What a thousand drippers may cost: their connections and what they sent are
/// some hundreds of bytes each, the rest is what allocators and stacks keep.
const DRIPPERS_BYTES_MAX: u64 = 64 << 20;

/// A thousand peers that send one byte at a time, and 64 agencies: each dripper is
/// closed at its deadline, no agency loses a batch. How much slower the agencies are is
/// printed, and fails no test, because all share this machine.
pub fn a_thousand_drippers(run: &Run) {
    raise_open_files_limit();
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", GOOD_AGENCIES + 1);
        let server = program.with("--request-timeout", 1).start();
        let mut agencies: Vec<Witness> =
            (1..=GOOD_AGENCIES).map(|id| Witness::new(id, server.address, &history)).collect();
        let alone = p99_of_batches(&mut agencies);
        let memory = Observed::of(&server).resident_bytes();
        let dripping = Dripping::start(server.address);
        let beside = p99_of_batches(&mut agencies);
        let grown = Observed::of(&server).resident_bytes().saturating_sub(memory);
        let closed = dripping.stop();
        eprintln!(
            "{DRIPPERS} drippers: p99 of {GOOD_AGENCIES} agencies {beside:?}, without them {alone:?}, \
             ratio {:.2}; {} KiB more memory",
            beside.as_secs_f64() / alone.as_secs_f64(),
            grown >> 10
        );
        assert!(grown < DRIPPERS_BYTES_MAX, "{grown} bytes more memory");
        assert!(closed >= DRIPPERS, "{closed} drippers were closed");
        count("drippers closed", closed as u64);
        conclude(server, &history, &workplace);
    }
}

/// All agencies send their batches at once; what one in a hundred exceeds.
fn p99_of_batches(agencies: &mut [Witness]) -> Duration {
    let begin = Barrier::new(agencies.len());
    let mut took: Vec<Duration> = thread::scope(|scope| {
        let senders = agencies.iter_mut().map(|agency| {
            scope.spawn(|| {
                begin.wait();
                (0..BATCHES).map(|_| agency.send(BETS_OF_A_BATCH)).collect::<Vec<Duration>>()
            })
        });
        let senders: Vec<_> = senders.collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("no batch is lost")).collect()
    });
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Drippers on a thread of their own: those that are closed connect again.
struct Dripping {
    stops: Arc<AtomicBool>,
    thread: thread::JoinHandle<usize>,
}

impl Dripping {
    /// Answers when all are there.
    fn start(server: SocketAddr) -> Self {
        let mut drippers = Drippers::connect(server, DRIPPERS);
        drippers.drip();
        let stops = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stops);
        let thread = thread::spawn(move || {
            while !stopping.load(Ordering::SeqCst) {
                thread::sleep(DRIP_PAUSE);
                drippers.drip();
                drippers.replenish(DRIPPERS);
            }
            drippers.drip_to_the_end();
            drippers.closed
        });
        Self { stops, thread }
    }

    /// Lets no more come, and waits until all are closed; answers how many were.
    fn stop(self) -> usize {
        self.stops.store(true, Ordering::SeqCst);
        self.thread.join().expect("all drippers are closed")
    }
}

const RESTLESS: usize = 600;

/// Peers whose next byte has always arrived already: the time limit of a request must close
/// them too, or a few such peers could keep their connections endlessly.
pub fn without_a_pause(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", 1).with("--workers", 1);
        let server = program.with("--request-timeout", 1).start();
        // So many that the next byte of each has arrived by the time it is served again.
        let mut drippers = Drippers::connect(server.address, RESTLESS);
        drippers.drip_to_the_end();
        assert!(closed_for(&server, "request_timeout") > 0, "{}", server.process.log());
        count("drippers closed", drippers.closed as u64);
        conclude(server, &history, &workplace);
    }
}

/// Slow peers that are there when the server is told to stop.
const DRIPPERS_AT_THE_END: usize = 50;

/// SIGTERM while peers drip: they hold it up no longer than it grants them, the exit
/// is 0, and what was acknowledged is stored.
pub fn sigterm_among_them(run: &Run) {
    for workplace in run.rounds(1) {
        let history = Arc::new(History::default());
        let program = Program::new(&workplace).with("--agencies", 2);
        // Their own deadline does not end them.
        let server = program.with("--drain-timeout", 1).with("--request-timeout", 3600).start();
        let mut witness = Witness::new(1, server.address, &history);
        let mut drippers = Drippers::connect(server.address, DRIPPERS_AT_THE_END);
        for _ in 0..20 {
            drippers.drip();
            witness.send(5);
        }
        let ended = server.stop();
        assert!(ended.stderr.contains("action: shutdown | result: success"), "{}", ended.stderr);
        drippers.drip_to_the_end();
        history.hold_against(&workplace.database());
    }
}
