//! A load generator for a running server: connections that send batches and wait for each
//! reply, and a histogram of the time until the replies.
//!
//! The batches are built once and sent over and over: the generator often shares the
//! machine with the server that it measures, and must cost little.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::generate::random_bet;
use sorteo_agency::{Connection, ExchangeError, Security};
use sorteo_protocol::wire::{Dialect, Reason, Request, encode_request};
use sorteo_protocol::{AgencyId, Batch, Bets};

/// The load to generate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `HOST:PORT`.
    pub server: String,
    /// How connections are protected, and by which token they are an agency's.
    pub security: Security,
    /// The dialect that the connections speak.
    pub dialect: Dialect,
    /// Number of connections that send at the same time.
    pub connections: usize,
    /// Bets in a batch.
    pub batch: usize,
    /// Whose bets the connections send.
    pub agencies: Agencies,
    /// Whether every batch gets a new connection, as from the original clients.
    pub fresh: bool,
    /// When to stop.
    pub until: Until,
    /// Bets per second that all connections intend to send together. Without it each
    /// sends as soon as it has a reply.
    pub rate: Option<u64>,
}

/// Whose bets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agencies {
    /// This agency's, on every connection.
    One(AgencyId),
    /// Those of so many agencies, from agency 1, over which the connections are spread.
    First(u32),
}

/// When a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After at least this many bets.
    Bets(u64),
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of connections.
    pub connections: usize,
    /// Bets in a batch.
    pub batch: usize,
    /// Seconds from the first send to the last reply.
    pub seconds: f64,
    /// Bets that were acknowledged.
    pub bets: u64,
    /// Bets acknowledged per second.
    pub bets_per_second: f64,
    /// Batches that were refused as `busy`.
    pub busy: u64,
    /// Time from the intended send to the reply, in microseconds.
    pub latency_us: Latency,
}

/// Quantiles of the time to a reply, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: u64,
    /// One in a hundred is slower.
    pub p99: u64,
    /// One in a thousand is slower.
    pub p99_9: u64,
    /// The slowest.
    pub max: u64,
}

/// Is called about five times a second with the number of acknowledged bets.
pub type Progress<'a> = dyn FnMut(u64) + 'a;

/// Time between two calls of the progress function.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How long a connection may take to be accepted before the run fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply may take before the run fails.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest latency in the histogram, in microseconds.
const LATENCY_MAX_US: u64 = 120_000_000;
/// A sender needs little stack, and there may be thousands.
const SENDER_STACK_BYTES: usize = 128 << 10;

/// What all senders share.
struct Shared {
    plan: Plan,
    start: Barrier,
    bets: AtomicU64,
    busy: AtomicU64,
    stop: AtomicBool,
}

/// Runs the load to its end.
///
/// # Errors
///
/// A connection failed, or a batch was refused for another reason than `busy`.
pub fn run(plan: Plan, progress: &mut Progress<'_>) -> io::Result<Report> {
    let connections = plan.connections;
    let shared = Arc::new(Shared {
        start: Barrier::new(connections + 1),
        bets: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        plan,
    });
    let senders: Vec<_> = (0..connections)
        .map(|index| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().stack_size(SENDER_STACK_BYTES).spawn(move || send(&shared, index))
        })
        .collect::<io::Result<_>>()?;
    shared.start.wait();
    let started = Instant::now();
    watch(&shared, started, &senders, progress);
    let (mut latencies, mut ended) = (new_histogram(), started);
    for sender in senders {
        let (sent, at) = sender.join().map_err(|_| io::Error::other("a sender panicked"))??;
        latencies.add(&sent).map_err(io::Error::other)?;
        ended = ended.max(at);
    }
    Ok(report(&shared, ended - started, &latencies))
}

fn report(shared: &Shared, took: Duration, latencies: &Histogram<u64>) -> Report {
    let bets = shared.bets.load(Ordering::Relaxed);
    Report {
        connections: shared.plan.connections,
        batch: shared.plan.batch,
        seconds: took.as_secs_f64(),
        bets,
        bets_per_second: bets as f64 / took.as_secs_f64(),
        busy: shared.busy.load(Ordering::Relaxed),
        latency_us: Latency {
            p50: latencies.value_at_quantile(0.5),
            p99: latencies.value_at_quantile(0.99),
            p99_9: latencies.value_at_quantile(0.999),
            max: latencies.max(),
        },
    }
}

/// Reports progress until the run is over, or a sender has failed.
fn watch<T>(
    shared: &Shared,
    started: Instant,
    senders: &[thread::JoinHandle<T>],
    progress: &mut Progress<'_>,
) {
    loop {
        let bets = shared.bets.load(Ordering::Relaxed);
        progress(bets);
        let over = match shared.plan.until {
            Until::Elapsed(limit) => started.elapsed() >= limit,
            Until::Bets(limit) => bets >= limit,
        };
        if over || senders.iter().any(thread::JoinHandle::is_finished) {
            shared.stop.store(true, Ordering::Relaxed);
            return;
        }
        let left = match shared.plan.until {
            Until::Elapsed(limit) => limit.saturating_sub(started.elapsed()),
            Until::Bets(_) => PROGRESS_EVERY,
        };
        thread::sleep(left.min(PROGRESS_EVERY));
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("the bounds are valid")
}

/// Runs one connection to its end. Returns how long each reply took, and when the last
/// one came.
fn send(shared: &Shared, index: usize) -> io::Result<(Histogram<u64>, Instant)> {
    let plan = &shared.plan;
    let mut latencies = new_histogram();
    let message = message(plan, index);
    let opened = if plan.fresh { Ok(None) } else { open(plan).map(Some) };
    // Even after an error: all senders wait here for each other.
    shared.start.wait();
    let mut connection = opened.map_err(io::Error::other)?;
    // Each sender has its share of the rate, and their first sends are spread over one interval.
    let interval = plan.rate.map(|rate| {
        Duration::from_secs_f64(plan.batch as f64 * plan.connections as f64 / rate.max(1) as f64)
    });
    let mut intended = Instant::now();
    if let Some(interval) = interval {
        intended += interval.mul_f64(index as f64 / plan.connections as f64);
    }
    while !shared.stop.load(Ordering::Relaxed) && !enough(shared) {
        let at = match interval {
            None => Instant::now(),
            // Measured from the intended time: a stall of the server delays the batches
            // that were due during it, and that delay counts.
            Some(interval) => {
                thread::sleep(intended.saturating_duration_since(Instant::now()));
                let next = intended + interval;
                std::mem::replace(&mut intended, next)
            }
        };
        exchange(shared, &mut connection, &message)?;
        record(&mut latencies, at);
    }
    Ok((latencies, Instant::now()))
}

/// Opens a connection that is used for many batches. Its token is sent now: the first batch
/// may be far off, and its latency is the server's and not the token's.
fn open(plan: &Plan) -> Result<Connection, ExchangeError> {
    let mut connection = Connection::open(&plan.server, &plan.security, plan.dialect, CONNECT_TIMEOUT)?;
    connection.authenticate(CONNECT_TIMEOUT)?;
    Ok(connection)
}

fn enough(shared: &Shared) -> bool {
    matches!(shared.plan.until, Until::Bets(limit) if shared.bets.load(Ordering::Relaxed) >= limit)
}

fn record(latencies: &mut Histogram<u64>, since: Instant) {
    latencies.saturating_record(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
}

/// Sends the batch once and counts the reply.
fn exchange(shared: &Shared, kept: &mut Option<Connection>, message: &[u8]) -> io::Result<()> {
    let mut fresh;
    let connection = match kept {
        Some(connection) => connection,
        None => {
            let Plan { server, security, dialect, .. } = &shared.plan;
            fresh =
                Connection::open(server, security, *dialect, CONNECT_TIMEOUT).map_err(io::Error::other)?;
            &mut fresh
        }
    };
    let reply = connection.exchange_bytes(message, REPLY_TIMEOUT).map_err(io::Error::other)?;
    match reply.refusal() {
        None => shared.bets.fetch_add(shared.plan.batch as u64, Ordering::Relaxed),
        Some(Reason::Busy) => shared.busy.fetch_add(1, Ordering::Relaxed),
        Some(reason) => return Err(io::Error::other(format!("the server refused a batch: {reason}"))),
    };
    Ok(())
}

/// Returns the bytes of one batch of made-up bets, about as long as real ones.
fn message(plan: &Plan, index: usize) -> Vec<u8> {
    let agency = match plan.agencies {
        Agencies::One(agency) => agency,
        Agencies::First(agencies) => AgencyId(1 + (index as u32) % agencies),
    };
    let mut random = ChaCha8Rng::seed_from_u64(index as u64);
    let mut bets = Bets::default();
    for _ in 0..plan.batch {
        let fields = random_bet(&mut random);
        bets.push(fields.each_ref().map(String::as_str)).expect("made-up bets are valid");
    }
    let batch = Batch { agency, bets, position: None };
    let mut bytes = Vec::new();
    let request = match plan.dialect {
        Dialect::Framed => Request::Batch(batch),
        Dialect::Counted => Request::Payload(vec![batch]),
    };
    encode_request(plan.dialect, &request, &mut bytes);
    bytes
}
