//! Looks up what operators ask for, however many ask: the readiness at most every two
//! seconds, and the status that open pages follow once a second for all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::context::OpsContext;
use super::exposition::Exposition;
use super::readiness::{self, Readiness};
use crate::event;
use crate::store::Store;
use crate::store::sqlite::OpenError;
use crate::store::sqlite::overview::{Agency, Detail, Draw, Overview, Query, Results};
use sorteo_protocol::DrawId;

/// How often open pages get the status.
const TICK: Duration = Duration::from_secs(1);
/// Seconds for which the rate of bets is kept.
const RATE_SECONDS: usize = 120;
/// How long a readiness is used again: each new one costs a write and its sync.
const READINESS_AGE_MAX: Duration = Duration::from_secs(2);
/// How long the database may take for one lookup.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most agencies that one response lists.
const AGENCIES_MAX: usize = 1_000;
/// Most draws that one response lists.
const DRAWS_MAX: usize = 100;

/// Looks up what operators ask for. See the module.
pub(super) struct Monitor<S> {
    context: Arc<OpsContext<S>>,
    overview: Arc<AsyncMutex<Overview>>,
    /// Used for searches, which may take long, so that nothing else waits for them.
    search_overview: Arc<AsyncMutex<Overview>>,
    exposition: Exposition,
    rate: Mutex<Rate>,
    readiness: AsyncMutex<Option<(Instant, Readiness)>>,
    /// The newest status as JSON; empty until a page is open.
    status: watch::Sender<Arc<str>>,
    started_at: SystemTime,
}

/// The bets that were stored in each of the last seconds.
#[derive(Default)]
struct Rate {
    total_before: u64,
    bets_per_second: VecDeque<u64>,
}

/// The response to `/api/status`.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    started_at: String,
    now: String,
    ready: bool,
    #[serde(flatten)]
    draw: DrawDetail,
    bets_per_second: Vec<u64>,
    refused: Vec<Refused>,
    connections: Connections,
    queue: Queue,
    draws: Vec<Draw>,
    unprotected: Vec<String>,
}

/// A draw and its first [`AGENCIES_MAX`] agencies.
#[derive(Serialize)]
pub(super) struct DrawDetail {
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

/// Why a lookup failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// There is no such draw.
    #[error("there is no draw {0}")]
    NoDraw(DrawId),
    /// The draw is not drawn, so it has no winners.
    #[error("draw {0} is not drawn yet")]
    Open(DrawId),
    /// The database could not be read; the log says why.
    #[error("the database did not answer")]
    Failed,
}

impl From<Detail> for DrawDetail {
    fn from(Detail { draw, mut agencies }: Detail) -> Self {
        let agencies_omitted = agencies.len().saturating_sub(AGENCIES_MAX);
        agencies.truncate(AGENCIES_MAX);
        Self { draw, agencies, agencies_omitted }
    }
}

impl<S: Store> Monitor<S> {
    pub(super) fn new(context: OpsContext<S>, [overview, search_overview]: [Overview; 2]) -> Self {
        let rate = Rate { total_before: context.service.metrics().bets.get(), ..Rate::default() };
        let started_at = context.started_at;
        Self {
            exposition: Exposition::new(&context, started_at),
            context: Arc::new(context),
            overview: Arc::new(AsyncMutex::new(overview)),
            search_overview: Arc::new(AsyncMutex::new(search_overview)),
            rate: Mutex::new(rate),
            readiness: AsyncMutex::new(None),
            status: watch::Sender::new(Arc::from("")),
            started_at,
        }
    }

    /// Each second, records how many bets were stored, and publishes the status if a page is
    /// open.
    pub(super) async fn tick(self: &Arc<Self>) {
        let mut seconds = interval(TICK);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate, before a second has passed.
        seconds.tick().await;
        loop {
            seconds.tick().await;
            let total = self.context.service.metrics().bets.get();
            self.rate.lock().unwrap_or_else(PoisonError::into_inner).add(total);
            if self.status.receiver_count() > 0
                && let Ok(status) = self.status().await
            {
                self.status.send_replace(status.into());
            }
        }
    }

    /// Subscribes to the status, which is then published each second.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        self.status.subscribe()
    }

    /// Returns the state of the newest draw and of the server, as JSON.
    pub(super) async fn status(self: &Arc<Self>) -> Result<String, LookupError> {
        let ready = self.readiness().await.ready;
        let (detail, draws) =
            look_up(&self.overview, |overview| Ok((overview.detail(None)?, overview.draws(DRAWS_MAX)?)))
                .await?;
        let metrics = self.context.service.metrics();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at: time(self.started_at),
            now: time(SystemTime::now()),
            ready,
            // The server opens the first draw before it listens, so there is one.
            draw: detail.ok_or(LookupError::Failed)?.into(),
            bets_per_second: self.rate.lock().unwrap_or_else(PoisonError::into_inner).in_order(),
            refused: metrics.refused().into_iter().map(Refused::from).collect(),
            connections: Connections {
                open: metrics.connections_open(),
                limit: self.context.limits.connections_max,
                refused: metrics.connections_refused.get(),
            },
            queue: Queue { waiting: metrics.queue_writes.get(), limit: self.context.queue_max },
            draws,
            unprotected: self.context.unprotected.clone(),
        };
        serde_json::to_string(&status).map_err(|_| LookupError::Failed)
    }

    /// Returns one draw and its agencies.
    pub(super) async fn draw(&self, draw: DrawId) -> Result<DrawDetail, LookupError> {
        let whole = move |overview: &Overview| overview.detail(Some(draw));
        let found = look_up(&self.search_overview, whole).await?;
        found.map(DrawDetail::from).ok_or(LookupError::NoDraw(draw))
    }

    /// Returns a page of a draw's winners.
    pub(super) async fn results(&self, draw: DrawId, query: Query) -> Result<Results, LookupError> {
        let page = move |overview: &Overview| match overview.draw(Some(draw))? {
            None => Ok(Err(LookupError::NoDraw(draw))),
            Some(found) if !found.is_drawn() => Ok(Err(LookupError::Open(draw))),
            Some(_) => Ok(Ok(overview.results(draw, &query)?)),
        };
        look_up(&self.search_overview, page).await?
    }

    /// Returns whether the server can do its work. It is checked at most every two seconds,
    /// even if the peers that asked go away before the check is done.
    pub(super) async fn readiness(self: &Arc<Self>) -> Readiness {
        let monitor = Arc::clone(self);
        let asked = tokio::spawn(async move { monitor.check_readiness().await });
        asked.await.unwrap_or(Readiness { ready: false, parts: Vec::new() })
    }

    async fn check_readiness(&self) -> Readiness {
        let mut known = self.readiness.lock().await;
        if let Some((_, readiness)) = known.as_ref().filter(|(at, _)| at.elapsed() < READINESS_AGE_MAX) {
            return readiness.clone();
        }
        let read = look_up(&self.overview, |overview| overview.draw(None)).await;
        let read = read.map(drop).map_err(|error| error.to_string());
        let context = Arc::clone(&self.context);
        let asked = spawn_blocking(move || readiness::check(&context, read)).await;
        let readiness = asked.unwrap_or(Readiness { ready: false, parts: Vec::new() });
        *known = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// Returns the text of a scrape, even while the database cannot be read.
    pub(super) async fn metrics(self: &Arc<Self>) -> String {
        let readiness = self.readiness().await;
        let draw = look_up(&self.overview, |overview| overview.draw(None)).await.ok().flatten();
        self.exposition.scrape(&self.context.database, draw.as_ref(), &readiness)
    }
}

/// Reads the database on a thread that may wait for the disk.
async fn look_up<T: Send + 'static>(
    overview: &Arc<AsyncMutex<Overview>>,
    question: impl FnOnce(&Overview) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, LookupError> {
    let answer = async {
        // The thread owns the lock, so there is one thread for each overview at most,
        // even if the peers that asked have gone.
        let overview = Arc::clone(overview).lock_owned().await;
        spawn_blocking(move || question(&overview)).await
    };
    let why = match timeout(LOOK_TIMEOUT, answer).await {
        Ok(Ok(Ok(answer))) => return Ok(answer),
        Ok(Ok(Err(error))) => error.to_string(),
        // The panic was logged.
        Ok(Err(_)) => return Err(LookupError::Failed),
        Err(_) => format!("no answer within {} s", LOOK_TIMEOUT.as_secs()),
    };
    event!(Error, "read_database", Fail, query = "operators", error = why);
    Err(LookupError::Failed)
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

/// Formats a time in UTC, to the millisecond.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}
