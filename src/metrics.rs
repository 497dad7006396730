//! What a server counts while it runs, for those who watch it.
//!
//! Every layer counts what it does into one [`Metrics`], which knows none of them.
//! The names are those that Prometheus scrapes; `docs/operating.md` tells what to
//! make of them. What need not be counted, because it can be looked up when somebody
//! asks (sizes of files, the draw), is added by [`ops`](crate::ops).

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

/// Everything that is counted. Cheap to count into, from any thread.
pub struct Metrics {
    /// Bets that this process stored.
    pub bets: Counter,
    /// Batches by what became of them; a single bet is a batch of one.
    pub batches: Family<BatchLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    /// The counters of `refusals`, which cannot be listed.
    refusals_by_reason: Mutex<BTreeMap<&'static str, Counter>>,
    /// Draws that this process made.
    pub draws_made: Counter,
    /// Writes that wait for the writer.
    pub queue_writes: Gauge,
    /// Seconds from the beginning of a transaction to the end of its sync.
    pub commit_seconds: Histogram,
    /// Writes that one commit carried.
    pub commit_writes: Histogram,
    /// Copies of the log into the database, by how they ended.
    pub checkpoints: Family<CheckpointLabel, Counter>,
    /// Seconds that a checkpoint held up the writer.
    pub checkpoint_seconds: Histogram,
    /// Connections by what they do.
    pub connections: Family<ConnectionLabel, Gauge>,
    /// Connections that were taken.
    pub connections_accepted: Counter,
    /// Connections that were closed at once, since there were too many.
    pub connections_refused: Counter,
    /// Seconds from a whole request to its answer. Waiting for the draw is no part of it.
    pub answer_seconds: Histogram,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BatchLabel {
    /// The result.
    pub result: BatchResult,
}

/// What became of a batch, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum BatchResult {
    /// It was acknowledged as stored.
    stored,
    /// It was answered with a reason.
    refused,
    /// Nobody knows, and it got no answer.
    unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// How a checkpoint ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckpointLabel {
    /// The result.
    pub result: CheckpointResult,
}

/// How a checkpoint ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum CheckpointResult {
    /// All of the log is in the database.
    done,
    /// A reader was in the way of the rest.
    busy,
    /// The disk was in the way.
    failed,
}

/// What a connection does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabel {
    /// The state.
    pub state: ConnectionState,
}

/// What a connection does, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are what is scraped")]
pub enum ConnectionState {
    /// Nothing: it is watched for what arrives.
    parked,
    /// It is with a worker, or on its way there.
    working,
    /// It waits for the draw.
    waiting,
}

const CONNECTION_STATES: [ConnectionState; 3] =
    [ConnectionState::parked, ConnectionState::working, ConnectionState::waiting];

/// Buckets for times, in seconds: from a tenth of a millisecond, doubling, to 13 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
}

/// Buckets for writes in a commit: from 1, doubling, to the 256 that there may be.
fn writes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A scrape tells them in a form that can be read.
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
            draws_made: Counter::default(),
            queue_writes: Gauge::default(),
            commit_seconds: seconds(),
            commit_writes: writes(),
            checkpoints: Family::default(),
            checkpoint_seconds: seconds(),
            connections: Family::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            answer_seconds: seconds(),
        };
        // What never happened is 0, not missing: an alert can tell the two apart.
        for result in [BatchResult::stored, BatchResult::refused, BatchResult::unknown] {
            metrics.batches.get_or_create_owned(&BatchLabel { result });
        }
        for result in [CheckpointResult::done, CheckpointResult::busy, CheckpointResult::failed] {
            metrics.checkpoints.get_or_create_owned(&CheckpointLabel { result });
        }
        for state in CONNECTION_STATES {
            metrics.connections_in(state);
        }
        metrics
    }
}

impl Metrics {
    /// The gauge of connections in one state.
    pub fn connections_in(&self, state: ConnectionState) -> Gauge {
        self.connections.get_or_create_owned(&ConnectionLabel { state })
    }

    /// Counts a batch.
    pub fn count_batch(&self, result: BatchResult) {
        self.batches.get_or_create(&BatchLabel { result }).inc();
    }

    /// Counts a refused request by its reason code: there are about forty.
    pub fn count_refusal(&self, reason: &'static str) {
        let mut known = self.refusals_by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let label = ReasonLabel { reason };
        known.entry(reason).or_insert_with(|| self.refusals.get_or_create_owned(&label)).inc();
    }

    /// Reason codes and how often each was answered, the most frequent first.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        let known = self.refusals_by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused: Vec<_> = known.iter().map(|(reason, count)| (*reason, count.get())).collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        refused
    }

    /// Connections in all states together.
    pub fn connections_open(&self) -> i64 {
        CONNECTION_STATES.into_iter().map(|state| self.connections_in(state).get()).sum()
    }

    /// Counts a checkpoint.
    pub fn count_checkpoint(&self, result: CheckpointResult) {
        self.checkpoints.get_or_create(&CheckpointLabel { result }).inc();
    }

    /// Adds everything to what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("sorteo_bets", "Bets that this process stored", self.bets.clone());
        registry.register("sorteo_batches", "Batches by what became of them", self.batches.clone());
        registry.register("sorteo_refusals", "Refused requests by reason code", self.refusals.clone());
        registry.register("sorteo_draws_made", "Draws that this process made", self.draws_made.clone());
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
        registry.register(
            "sorteo_checkpoints",
            "Copies of the log into the database by how they ended",
            self.checkpoints.clone(),
        );
        registry.register(
            "sorteo_checkpoint_seconds",
            "Seconds that a checkpoint held up the writer",
            self.checkpoint_seconds.clone(),
        );
        registry.register("sorteo_connections", "Connections by what they do", self.connections.clone());
        registry.register(
            "sorteo_connections_accepted",
            "Connections that were taken",
            self.connections_accepted.clone(),
        );
        registry.register(
            "sorteo_connections_refused",
            "Connections that were closed at once since there were too many",
            self.connections_refused.clone(),
        );
        registry.register(
            "sorteo_answer_seconds",
            "Seconds from a whole request to its answer",
            self.answer_seconds.clone(),
        );
    }
}

/// The time since a moment, as histograms of times take it.
pub fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
