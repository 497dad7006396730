//! Which path is answered by what. Everything is `GET`, and changes nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};

use super::watch::{LookError, Watch};
use crate::store::Store;
use crate::store::sqlite::overview::{self, ResultsCursor, Winner};
use sorteo_protocol::text::decimal;
use sorteo_protocol::{AgencyId, DrawId};

/// Winners on one page of results.
const WINNERS_MAX: usize = 500;
/// Longest text that is searched for, in bytes: a name has at most 120.
const SEARCH_BYTES_MAX: usize = 120;
/// How long a page waits before it looks for its server again.
const RETRY: Duration = Duration::from_secs(2);
/// What Prometheus reads without being asked for anything newer.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A file that the page is made of.
struct Asset {
    content_type: &'static str,
    bytes: &'static [u8],
}

const PAGE: Asset =
    Asset { content_type: "text/html; charset=utf-8", bytes: include_bytes!("page/index.html") };
const STYLE: Asset =
    Asset { content_type: "text/css; charset=utf-8", bytes: include_bytes!("page/page.css") };
const SCRIPT: Asset =
    Asset { content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("page/page.js") };
const ICON: Asset = Asset { content_type: "image/svg+xml", bytes: include_bytes!("page/icon.svg") };

type Watching<S> = State<Arc<Watch<S>>>;

pub(super) fn router<S: Store>(watch: Arc<Watch<S>>) -> Router {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { PAGE.answer(&headers) }))
        .route("/page.css", get(|headers: HeaderMap| async move { STYLE.answer(&headers) }))
        .route("/page.js", get(|headers: HeaderMap| async move { SCRIPT.answer(&headers) }))
        .route("/icon.svg", get(|headers: HeaderMap| async move { ICON.answer(&headers) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness::<S>))
        .route("/metrics", get(metrics::<S>))
        .route("/api/status", get(status::<S>))
        .route("/api/events", get(events::<S>))
        .route("/api/draws/{draw}", get(draw::<S>))
        .route("/api/draws/{draw}/results", get(results::<S>))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .with_state(watch)
}

impl Asset {
    /// The file, unless the browser has this very one.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = tag_of(self.bytes);
        let about = [(ETAG, tag.clone()), (CACHE_CONTROL, "no-cache".to_owned())];
        match headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            true => (StatusCode::NOT_MODIFIED, about).into_response(),
            false => (about, [(CONTENT_TYPE, self.content_type)], self.bytes).into_response(),
        }
    }
}

/// A name for these very bytes, as the header `ETag` has it.
fn tag_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let start = digest[..8].try_into().expect("a digest has 32 bytes");
    format!("\"{:016x}\"", u64::from_be_bytes(start))
}

async fn readiness<S: Store>(State(watch): Watching<S>) -> Response {
    let readiness = watch.readiness().await;
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

async fn metrics<S: Store>(State(watch): Watching<S>) -> Response {
    ([(CONTENT_TYPE, TEXT_FORMAT)], watch.metrics().await).into_response()
}

async fn status<S: Store>(State(watch): Watching<S>) -> Result<Response, Refusal> {
    let status = watch.status().await?;
    Ok(([(CONTENT_TYPE, "application/json")], status).into_response())
}

/// The status at once, then each second.
async fn events<S: Store>(
    State(watch): Watching<S>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let first = watch.status().await?;
    let news = WatchStream::from_changes(watch.subscribe());
    let all = tokio_stream::once(Arc::from(first)).chain(news);
    let told = all.map(|status: Arc<str>| Ok(Event::default().event("status").retry(RETRY).data(&*status)));
    Ok(Sse::new(told).keep_alive(KeepAlive::default()))
}

async fn draw<S: Store>(State(watch): Watching<S>, Path(draw): Path<String>) -> Result<Response, Refusal> {
    let listed = watch.draw(read_draw(&draw)?).await?;
    Ok(Json(listed).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultsQuery {
    agency: Option<String>,
    search: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
struct ResultsPage {
    draw: i64,
    total: u64,
    winners: Vec<Winner>,
    next: Option<String>,
}

async fn results<S: Store>(
    State(watch): Watching<S>,
    Path(draw): Path<String>,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let draw = read_draw(&draw)?;
    let Query(query) = query.map_err(|error| bad(&error.body_text()))?;
    let query = query.read()?;
    let found = watch.results(draw, query).await?;
    let next = found.next.map(|place| format!("{}:{}", place.agency, place.bet));
    let page = ResultsPage { draw: draw.0, total: found.total, winners: found.winners, next };
    Ok(Json(page).into_response())
}

impl ResultsQuery {
    fn read(self) -> Result<overview::Query, Refusal> {
        // What is left empty, as a form does, is not asked for.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let agency = given(self.agency).map(|text| {
            text.parse::<AgencyId>().map_err(|_| bad("agency is not a number from 0 to 4294967295"))
        });
        let search = given(self.search);
        if search.as_ref().is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
            return Err(bad(&format!("search is longer than {SEARCH_BYTES_MAX} bytes")));
        }
        let after = given(self.after)
            .map(|text| read_place(&text).ok_or_else(|| bad("after is not what a page before told as next")));
        Ok(overview::Query {
            agency: agency.transpose()?,
            search,
            after: after.transpose()?,
            winners_max: WINNERS_MAX,
        })
    }
}

fn read_draw(text: &str) -> Result<DrawId, Refusal> {
    let number = decimal(text).and_then(|number: u64| i64::try_from(number).ok());
    number.map(DrawId).ok_or_else(|| bad("the draw is not a number"))
}

fn read_place(text: &str) -> Option<ResultsCursor> {
    let (agency, bet) = text.split_once(':')?;
    let bet = decimal(bet).and_then(|number: u64| i64::try_from(number).ok())?;
    Some(ResultsCursor { agency: agency.parse().ok()?, bet })
}

/// Why a request is not answered as it was meant.
enum Refusal {
    /// It is malformed.
    Bad(String),
    /// What it asks for is not there.
    Look(LookError),
}

impl From<LookError> for Refusal {
    fn from(error: LookError) -> Self {
        Self::Look(error)
    }
}

fn bad(why: &str) -> Refusal {
    Refusal::Bad(why.to_owned())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Bad(why) => refuse(StatusCode::BAD_REQUEST, &why),
            Self::Look(error) => {
                let code = match error {
                    LookError::NoDraw(_) => StatusCode::NOT_FOUND,
                    LookError::Open(_) => StatusCode::CONFLICT,
                    LookError::Failed => StatusCode::SERVICE_UNAVAILABLE,
                };
                refuse(code, &error.to_string())
            }
        }
    }
}

fn refuse(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({ "error": why }))).into_response()
}
