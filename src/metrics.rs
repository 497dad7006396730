//! The metrics of a running server.
//!
//! Every layer counts into one [`Metrics`], which knows none of them. The names are those
//! that Prometheus scrapes; `docs/operating.md` explains how to read them. What can be
//! looked up at the time of a scrape (sizes of files, the draw) is not counted here but
//! added by [`ops`](crate::ops).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Everything that is counted. Counting is cheap, from any thread.
pub struct Metrics {
    /// Bets that this process stored.
    pub bets: Counter,
    /// Batches by result; a single bet is a batch of one.
    pub batches: Family<BatchLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    /// The same counters as in `refusals`, since a `Family` cannot be listed.
    refusals_by_reason: Mutex<BTreeMap<&'static str, Counter>>,
    /// Draws that this process drew.
    pub draws: Counter,
    /// Writes that wait for the writer thread.
    pub queue_writes: Gauge,
    /// Seconds from the beginning of a transaction to the end of its sync.
    pub commit_seconds: Histogram,
    /// Writes in one commit.
    pub commit_writes: Histogram,
    /// Checkpoints of the WAL by result.
    pub checkpoints: Family<CheckpointLabel, Counter>,
    /// Seconds that a checkpoint held up the writer.
    pub checkpoint_seconds: Histogram,
    /// Connections by state.
    pub connections: Family<ConnectionLabel, Gauge>,
    /// Connections that were accepted.
    pub connections_accepted: Counter,
    /// Connections that were closed at once because there were too many.
    pub connections_refused: Counter,
    /// Handshakes of TLS by result.
    pub handshakes: Family<HandshakeLabel, Counter>,
    /// Tokens that the operators' HTTP did not accept.
    pub sign_in_failures: Counter,
    /// Seconds from a whole request to its reply, without the time that a `WAIT_WINNERS`
    /// waits.
    pub answer_seconds: Histogram,
}

/// The label of [`Metrics::handshakes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabel {
    /// The result.
    pub result: HandshakeResult,
}

/// The result of a handshake of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum HandshakeResult {
    /// The connection is encrypted.
    success,
    /// The peer's address began too many.
    rate_limited,
    /// It was not over in time.
    timeout,
    /// The peer closed the connection in it.
    closed,
    /// The peer refused it, the server's certificate for example.
    refused_by_peer,
    /// The client's certificate is expired.
    certificate_expired,
    /// The client's certificate is not valid yet.
    certificate_not_yet_valid,
    /// The client's certificate is revoked.
    certificate_revoked,
    /// The client's certificate is of an authority that is not ours.
    certificate_unknown_issuer,
    /// The client's certificate does not name exactly one agency.
    certificate_without_agency,
    /// The client's certificate is wrong in another way.
    certificate_invalid,
    /// The list of revoked certificates is too old to tell.
    crl_expired,
    /// The peer speaks another protocol within TLS.
    alpn_mismatch,
    /// Both sides have nothing in common: TLS 1.2, for example.
    incompatible,
    /// The peer broke the protocol of TLS.
    protocol_error,
}

impl HandshakeResult {
    const ALL: [Self; 15] = [
        Self::success,
        Self::rate_limited,
        Self::timeout,
        Self::closed,
        Self::refused_by_peer,
        Self::certificate_expired,
        Self::certificate_not_yet_valid,
        Self::certificate_revoked,
        Self::certificate_unknown_issuer,
        Self::certificate_without_agency,
        Self::certificate_invalid,
        Self::crl_expired,
        Self::alpn_mismatch,
        Self::incompatible,
        Self::protocol_error,
    ];
}

impl fmt::Display for HandshakeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants have the names that are scraped.
        fmt::Debug::fmt(self, f)
    }
}

/// The label of [`Metrics::batches`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BatchLabel {
    /// The result.
    pub result: BatchResult,
}

/// The result of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum BatchResult {
    /// It was acknowledged as stored.
    stored,
    /// It was refused with a reason.
    refused,
    /// Whether it was stored is not known, and it got no reply.
    unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The label of [`Metrics::checkpoints`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckpointLabel {
    /// The result.
    pub result: CheckpointResult,
}

/// The result of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum CheckpointResult {
    /// All of the WAL is in the database.
    done,
    /// A reader still needs the rest of the WAL.
    busy,
    /// The disk is full or failed.
    failed,
}

/// The label of [`Metrics::connections`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabel {
    /// The state.
    pub state: ConnectionState,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum ConnectionState {
    /// The reactor watches it for input.
    parked,
    /// A worker serves it, or will soon.
    working,
    /// It waits for the draw.
    waiting,
}

const CONNECTION_STATES: [ConnectionState; 3] =
    [ConnectionState::parked, ConnectionState::working, ConnectionState::waiting];

/// Creates a histogram of seconds: buckets from 0.1 ms, doubling, to 13 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
}

/// Creates a histogram of writes in a commit: buckets from 1, doubling, to the maximum
/// of 256.
fn writes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A scrape shows the values.
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            bets: Counter::default(),
            batches: Family::default(),
            refusals: Family::default(),
            refusals_by_reason: Mutex::default(),
            draws: Counter::default(),
            queue_writes: Gauge::default(),
            commit_seconds: seconds(),
            commit_writes: writes(),
            checkpoints: Family::default(),
            checkpoint_seconds: seconds(),
            connections: Family::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            handshakes: Family::default(),
            sign_in_failures: Counter::default(),
            answer_seconds: seconds(),
        };
        // A result that never occurred is 0 and not missing, so that alerts can rely on it.
        for result in [BatchResult::stored, BatchResult::refused, BatchResult::unknown] {
            metrics.batches.get_or_create_owned(&BatchLabel { result });
        }
        for result in [CheckpointResult::done, CheckpointResult::busy, CheckpointResult::failed] {
            metrics.checkpoints.get_or_create_owned(&CheckpointLabel { result });
        }
        for state in CONNECTION_STATES {
            metrics.connections_in(state);
        }
        for result in HandshakeResult::ALL {
            metrics.handshakes.get_or_create_owned(&HandshakeLabel { result });
        }
        metrics
    }
}

impl Metrics {
    /// Returns the gauge of connections in one state.
    pub fn connections_in(&self, state: ConnectionState) -> Gauge {
        self.connections.get_or_create_owned(&ConnectionLabel { state })
    }

    /// Counts a batch.
    pub fn count_batch(&self, result: BatchResult) {
        self.batches.get_or_create(&BatchLabel { result }).inc();
    }

    /// Counts a refused request by its reason code, of which there are about forty.
    pub fn count_refusal(&self, reason: &'static str) {
        let mut known = self.refusals_by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let label = ReasonLabel { reason };
        known.entry(reason).or_insert_with(|| self.refusals.get_or_create_owned(&label)).inc();
    }

    /// Returns the reason codes and how often each was sent, the most frequent first.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        let known = self.refusals_by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused: Vec<_> = known.iter().map(|(reason, count)| (*reason, count.get())).collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        refused
    }

    /// Returns the number of connections in all states together.
    pub fn connections_open(&self) -> i64 {
        CONNECTION_STATES.into_iter().map(|state| self.connections_in(state).get()).sum()
    }

    /// Counts a handshake of TLS.
    pub fn count_handshake(&self, result: HandshakeResult) {
        self.handshakes.get_or_create(&HandshakeLabel { result }).inc();
    }

    /// Counts a checkpoint.
    pub fn count_checkpoint(&self, result: CheckpointResult) {
        self.checkpoints.get_or_create(&CheckpointLabel { result }).inc();
    }

    /// Adds all metrics to the registry that is scraped.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("sorteo_bets", "Bets that this process stored", self.bets.clone());
        registry.register("sorteo_batches", "Batches by result", self.batches.clone());
        registry.register("sorteo_refusals", "Refused requests by reason code", self.refusals.clone());
        registry.register("sorteo_draws_made", "Draws that this process drew", self.draws.clone());
        registry.register(
            "sorteo_queue_writes",
            "Writes that wait for the writer",
            self.queue_writes.clone(),
        );
        registry.register(
            "sorteo_commit_seconds",
            "Seconds from the beginning of a transaction to the end of its sync",
            self.commit_seconds.clone(),
        );
        registry.register(
            "sorteo_commit_writes",
            "Writes that one commit carried",
            self.commit_writes.clone(),
        );
        registry.register("sorteo_checkpoints", "Checkpoints of the WAL by result", self.checkpoints.clone());
        registry.register(
            "sorteo_checkpoint_seconds",
            "Seconds that a checkpoint held up the writer",
            self.checkpoint_seconds.clone(),
        );
        registry.register("sorteo_connections", "Connections by state", self.connections.clone());
        registry.register(
            "sorteo_sign_in_failures",
            "Tokens that the operators' HTTP did not accept",
            self.sign_in_failures.clone(),
        );
        registry.register(
            "sorteo_connections_accepted",
            "Connections that were accepted",
            self.connections_accepted.clone(),
        );
        registry.register(
            "sorteo_connections_refused",
            "Connections that were closed at once because there were too many",
            self.connections_refused.clone(),
        );
        registry.register("sorteo_tls_handshakes", "Handshakes of TLS by result", self.handshakes.clone());
        registry.register(
            "sorteo_answer_seconds",
            "Seconds from a whole request to its reply",
            self.answer_seconds.clone(),
        );
    }
}

/// Returns the seconds since an instant, for a histogram.
pub fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
