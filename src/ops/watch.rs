//! What operators look at, looked up at most so often, however many look.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::readiness::{self, Readiness};
use super::{Watched, exposition::Exposition};
use crate::event;
use crate::store::Store;
use crate::store::sqlite::OpenError;
use crate::store::sqlite::overview::{Agency, Detail, Draw, Overview, Query, Results, Tally};
use sorteo_protocol::DrawId;

/// How often the page is told what is new.
const TICK: Duration = Duration::from_secs(1);
/// Seconds of bets a second that are kept.
const RATE_SECONDS: usize = 120;
/// A readiness that is younger is told again: each costs a write and its sync.
const READINESS_AGE_MAX: Duration = Duration::from_secs(2);
/// How long the database may take to answer operators.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Agencies that one answer lists.
const AGENCIES_MAX: usize = 1_000;
/// Draws that one answer lists.
const DRAWS_MAX: usize = 100;

/// Looks up what is asked for.
pub(super) struct Watch<S> {
    watched: Arc<Watched<S>>,
    overview: Arc<AsyncMutex<Overview>>,
    /// For searches, which may take long: nothing else waits for them.
    searched: Arc<AsyncMutex<Overview>>,
    exposition: Exposition,
    tally: Arc<Mutex<Tally>>,
    rate: Mutex<Rate>,
    readiness: AsyncMutex<Option<(Instant, Readiness)>>,
    /// The newest status, as JSON; empty until somebody looks.
    status: watch::Sender<Arc<str>>,
    started_at: SystemTime,
}

/// Bets stored in each of the last seconds.
#[derive(Default)]
struct Rate {
    total_before: u64,
    bets_per_second: VecDeque<u64>,
}

/// `/api/status`.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    started_at: String,
    now: String,
    ready: bool,
    #[serde(flatten)]
    draw: Listed,
    bets_per_second: Vec<u64>,
    refused: Vec<Refused>,
    connections: Connections,
    queue: Queue,
    draws: Vec<Draw>,
}

/// A draw with as many of its agencies as are listed.
#[derive(Serialize)]
pub(super) struct Listed {
    draw: Draw,
    agencies: Vec<Agency>,
    agencies_omitted: usize,
}

#[derive(Serialize)]
struct Refused {
    reason: &'static str,
    count: u64,
}

impl From<(&'static str, u64)> for Refused {
    fn from((reason, count): (&'static str, u64)) -> Self {
        Self { reason, count }
    }
}

#[derive(Serialize)]
struct Connections {
    open: i64,
    limit: usize,
    refused: u64,
}

#[derive(Serialize)]
struct Queue {
    waiting: i64,
    limit: usize,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// There is no such draw.
    #[error("there is no draw {0}")]
    NoDraw(DrawId),
    /// Its winners are not known yet.
    #[error("draw {0} is not made yet")]
    Open(DrawId),
    /// The database did not answer; the log tells why.
    #[error("the database did not answer")]
    Failed,
}

impl From<Detail> for Listed {
    fn from(Detail { draw, mut agencies }: Detail) -> Self {
        let agencies_omitted = agencies.len().saturating_sub(AGENCIES_MAX);
        agencies.truncate(AGENCIES_MAX);
        Self { draw, agencies, agencies_omitted }
    }
}

impl<S: Store> Watch<S> {
    pub(super) fn new(watched: Watched<S>, [overview, searched]: [Overview; 2]) -> Self {
        let rate = Rate { total_before: watched.service.metrics().bets.get(), ..Rate::default() };
        let started_at = watched.started_at;
        Self {
            exposition: Exposition::new(&watched, started_at),
            watched: Arc::new(watched),
            overview: Arc::new(AsyncMutex::new(overview)),
            searched: Arc::new(AsyncMutex::new(searched)),
            tally: Arc::default(),
            rate: Mutex::new(rate),
            readiness: AsyncMutex::new(None),
            status: watch::Sender::new(Arc::from("")),
            started_at,
        }
    }

    /// Each second: notes how many bets came, and tells those who look what is new.
    pub(super) async fn tick(self: &Arc<Self>) {
        let mut seconds = interval(TICK);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once, and no second has passed.
        seconds.tick().await;
        loop {
            seconds.tick().await;
            let total = self.watched.service.metrics().bets.get();
            self.rate.lock().unwrap_or_else(PoisonError::into_inner).add(total);
            if self.status.receiver_count() > 0
                && let Ok(status) = self.status().await
            {
                self.status.send_replace(status.into());
            }
        }
    }

    /// The status each second from the next on, as long as it is looked at.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        self.status.subscribe()
    }

    /// How the newest draw and the server stand, as JSON.
    pub(super) async fn status(self: &Arc<Self>) -> Result<String, LookError> {
        let ready = self.readiness().await.ready;
        let tally = Arc::clone(&self.tally);
        let (detail, draws) = look(&self.overview, move |overview| {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((overview.detail(None, &mut tally)?, overview.draws(DRAWS_MAX)?))
        })
        .await?;
        let metrics = self.watched.service.metrics();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at: time(self.started_at),
            now: time(SystemTime::now()),
            ready,
            // A server has opened the first draw before it listens.
            draw: detail.ok_or(LookError::Failed)?.into(),
            bets_per_second: self.rate.lock().unwrap_or_else(PoisonError::into_inner).in_order(),
            refused: metrics.refused().into_iter().map(Refused::from).collect(),
            connections: Connections {
                open: metrics.connections_open(),
                limit: self.watched.limits.connections_max,
                refused: metrics.connections_refused.get(),
            },
            queue: Queue { waiting: metrics.queue_writes.get(), limit: self.watched.queue_max },
            draws,
        };
        serde_json::to_string(&status).map_err(|_| LookError::Failed)
    }

    /// One draw and its agencies.
    pub(super) async fn draw(&self, draw: DrawId) -> Result<Listed, LookError> {
        let whole = move |overview: &Overview| overview.detail(Some(draw), &mut Tally::default());
        let found = look(&self.searched, whole).await?;
        found.map(Listed::from).ok_or(LookError::NoDraw(draw))
    }

    /// A page of a draw's winners.
    pub(super) async fn results(&self, draw: DrawId, query: Query) -> Result<Results, LookError> {
        let page = move |overview: &Overview| match overview.draw(Some(draw))? {
            None => Ok(Err(LookError::NoDraw(draw))),
            Some(found) if !found.is_drawn() => Ok(Err(LookError::Open(draw))),
            Some(_) => Ok(Ok(overview.results(draw, &query)?)),
        };
        look(&self.searched, page).await?
    }

    /// Whether the server can do its work; asked anew at most every two seconds, also
    /// where those who ask go away before they are answered.
    pub(super) async fn readiness(self: &Arc<Self>) -> Readiness {
        let watch = Arc::clone(self);
        let asked = tokio::spawn(async move { watch.ask_readiness().await });
        asked.await.unwrap_or(Readiness { ready: false, parts: Vec::new() })
    }

    async fn ask_readiness(&self) -> Readiness {
        let mut known = self.readiness.lock().await;
        if let Some((_, readiness)) = known.as_ref().filter(|(at, _)| at.elapsed() < READINESS_AGE_MAX) {
            return readiness.clone();
        }
        let read = look(&self.overview, |overview| overview.draw(None)).await;
        let read = read.map(drop).map_err(|error| error.to_string());
        let watched = Arc::clone(&self.watched);
        let asked = spawn_blocking(move || readiness::ask(&watched, read)).await;
        let readiness = asked.unwrap_or(Readiness { ready: false, parts: Vec::new() });
        *known = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// What Prometheus scrapes; also while the database does not answer.
    pub(super) async fn metrics(self: &Arc<Self>) -> String {
        let readiness = self.readiness().await;
        let draw = look(&self.overview, |overview| overview.draw(None)).await.ok().flatten();
        self.exposition.scrape(&self.watched.database, draw.as_ref(), &readiness)
    }
}

/// Reads the database on a thread that may wait for the disk.
async fn look<T: Send + 'static>(
    overview: &Arc<AsyncMutex<Overview>>,
    question: impl FnOnce(&Overview) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, LookError> {
    let answer = async {
        // It goes to that thread: there is one for each connection at most, though
        // those who asked have gone.
        let overview = Arc::clone(overview).lock_owned().await;
        spawn_blocking(move || question(&overview)).await
    };
    let why = match timeout(LOOK_TIMEOUT, answer).await {
        Ok(Ok(Ok(answer))) => return Ok(answer),
        Ok(Ok(Err(error))) => error.to_string(),
        // A panic has its line already.
        Ok(Err(_)) => return Err(LookError::Failed),
        Err(_) => format!("no answer within {} s", LOOK_TIMEOUT.as_secs()),
    };
    event!(Error, "read_database", Fail, query = "operators", error = why);
    Err(LookError::Failed)
}

impl Rate {
    fn add(&mut self, total: u64) {
        self.bets_per_second.push_back(total - self.total_before);
        self.total_before = total;
        if self.bets_per_second.len() > RATE_SECONDS {
            self.bets_per_second.pop_front();
        }
    }

    fn in_order(&self) -> Vec<u64> {
        self.bets_per_second.iter().copied().collect()
    }
}

/// A time as all times are told: UTC, to the millisecond.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}
