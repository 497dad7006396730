//! What a server chooses when it opens its database.

use std::path::PathBuf;
use std::sync::Arc;

use super::terms::DrawTerms;
use crate::metrics::Metrics;
use crate::store::ExpectedAgencies;

/// Default number of reading connections: a read is short and mostly in memory, so a
/// few serve all workers.
pub const READERS: u32 = 4;
/// Default number of writes that may wait: at 99 bets each, about a hundred thousand
/// bets, which a slow disk stores in a few seconds. More would only wait longer.
pub const WRITE_QUEUE_MAX: usize = 1024;

/// Default number of agencies that may take part in a draw: as many as can be connected
/// at a time. Each costs a row, and a line on the operators' page.
pub const AGENCIES_MAX: u64 = 10_000;

/// What [`SqliteStore::open`](super::SqliteStore::open) needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file; created if its folder exists and the file does not.
    pub database: PathBuf,
    /// Which agencies must be done before the draw, if the operator gave it.
    pub agencies: Option<ExpectedAgencies>,
    /// The number that wins, if the operator gave it.
    pub winning_number: Option<u32>,
    /// Most agencies that may take part in a draw, if it does not expect more.
    pub agencies_max: u64,
    /// Most bets of each agency in a draw.
    pub agency_bets_max: u64,
    /// Number of reading connections.
    pub readers: u32,
    /// Most writes that may wait for the writer; more are refused as `Busy`.
    pub queue_max: usize,
    /// Who copies the WAL into the database.
    pub checkpoints: Checkpoints,
    /// Where the writer counts what it does.
    pub metrics: Arc<Metrics>,
}

/// Who copies the WAL into the database, after which the WAL can start over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpoints {
    /// The writer, between commits.
    #[default]
    Server,
    /// Another process, such as a replicator that must see every page of the WAL
    /// before it is overwritten. The WAL grows for as long as that process does not
    /// copy it.
    External,
}

impl Options {
    /// Returns the defaults for a database file.
    pub fn new(database: impl Into<PathBuf>) -> Self {
        Self {
            database: database.into(),
            agencies: None,
            winning_number: None,
            agencies_max: AGENCIES_MAX,
            agency_bets_max: u64::MAX,
            readers: READERS,
            queue_max: WRITE_QUEUE_MAX,
            checkpoints: Checkpoints::default(),
            metrics: Arc::default(),
        }
    }

    /// Returns the terms that the operator gave for an open draw.
    pub(super) fn terms(&self) -> DrawTerms {
        DrawTerms { agencies: self.agencies.clone(), winning_number: self.winning_number }
    }
}
