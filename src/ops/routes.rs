//! The paths of the operators' HTTP. None changes any data but when a token was last used: all
//! are `GET`, but for signing in and out, which change who is signed in, in memory. Each says who may ask for it, and there is no other way to add one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRef, Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use super::admit::{Access, admit, refuse};
use super::forms::Forms;
use super::gate::{Caller, Gate, Proof};
use super::http::REQUESTS_MAX;
use super::identity::Role;
use super::monitor::{LookupError, Monitor};
use super::sign_in;
use crate::store::Store;
use crate::store::sqlite::overview::{self, ResultsCursor, Winner};
use sorteo_protocol::text::decimal;
use sorteo_protocol::{AgencyId, DrawId};

/// Winners on one page of results.
const WINNERS_MAX: usize = 500;
/// Longest text that is searched for, in bytes: a name has at most 120.
const SEARCH_BYTES_MAX: usize = 120;
/// How long a page waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);
/// The text format that every version of Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A file of the page.
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

/// What a proxy must know of a stream of events: to hold nothing back, by its buffers
/// (nginx) or to compress it.
const STREAM_HEADERS: StreamHeaders =
    [(CACHE_CONTROL, "no-cache, no-transform"), (HeaderName::from_static("x-accel-buffering"), "no")];
type StreamHeaders = [(HeaderName, &'static str); 2];

type Monitoring<S> = State<Arc<Monitor<S>>>;

/// What the paths need to respond.
pub(super) struct Serving<S> {
    pub(super) monitor: Arc<Monitor<S>>,
    pub(super) gate: Arc<Gate>,
}

impl<S> Clone for Serving<S> {
    fn clone(&self) -> Self {
        Self { monitor: Arc::clone(&self.monitor), gate: Arc::clone(&self.gate) }
    }
}

impl<S> FromRef<Serving<S>> for Arc<Monitor<S>> {
    fn from_ref(serving: &Serving<S>) -> Self {
        Arc::clone(&serving.monitor)
    }
}

impl<S> FromRef<Serving<S>> for Arc<Gate> {
    fn from_ref(serving: &Serving<S>) -> Self {
        Arc::clone(&serving.gate)
    }
}

/// A path, who may ask for it, and what responds.
type Route<S> = (&'static str, Access, MethodRouter<Serving<S>>);

const VIEWER: Access = Access::Needs(Role::Viewer);
const AUDITOR: Access = Access::Needs(Role::Auditor);

/// Paths of which at most [`REQUESTS_MAX`] requests are in progress.
fn counted<S: Store>() -> Vec<Route<S>> {
    vec![
        ("/", VIEWER, get(|headers: HeaderMap| async move { PAGE.respond(&headers) })),
        ("/page.css", Access::Open, get(|headers: HeaderMap| async move { STYLE.respond(&headers) })),
        ("/page.js", Access::Open, get(|headers: HeaderMap| async move { SCRIPT.respond(&headers) })),
        ("/icon.svg", Access::Open, get(|headers: HeaderMap| async move { ICON.respond(&headers) })),
        ("/sign-out", Access::Open, post(sign_in::sign_out)),
        ("/api/me", VIEWER, get(me)),
        ("/api/status", VIEWER, get(status::<S>)),
        ("/api/events", VIEWER, get(events::<S>)),
        ("/api/draws/{draw}", VIEWER, get(draw::<S>)),
        ("/api/draws/{draw}/results", AUDITOR, get(results::<S>)),
    ]
}

/// Paths that find a place however many others are in progress. Signing in has a limit of
/// its own, since its form may come slowly.
fn uncounted<S: Store>() -> Vec<Route<S>> {
    let forms = Arc::new(Forms::default());
    vec![
        ("/sign-in", Access::Open, get(sign_in::show).post(sign_in::sign_in).layer(Extension(forms))),
        ("/healthz", Access::Probe, get(|| async { "ok\n" })),
        ("/readyz", Access::Probe, get(readiness::<S>)),
        ("/metrics", VIEWER, get(metrics::<S>)),
    ]
}

/// Returns every path, and who may ask for it.
pub fn paths<S: Store>() -> Vec<(&'static str, Access)> {
    let all = counted::<S>().into_iter().chain(uncounted());
    all.map(|(path, access, _)| (path, access)).collect()
}

pub(super) fn router<S: Store>(serving: Serving<S>) -> Router {
    let admit = |access| from_fn_with_state((Arc::clone(&serving.gate), access), admit);
    let add = |router: Router<Serving<S>>, (path, access, methods): Route<S>| {
        // Around all methods: which of them a path has is told to those who may ask.
        router.route(path, methods.layer(admit(access)))
    };
    let counted = counted().into_iter().fold(Router::new(), add);
    let counted = counted.route_layer(from_fn_with_state(Arc::new(Semaphore::new(REQUESTS_MAX)), limit));
    let all = uncounted().into_iter().fold(counted, add);
    let nothing = get(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing at this path") });
    all.fallback_service(nothing.layer(admit(Access::Open)).with_state(())).with_state(serving.clone())
}

/// Refuses a request where too many are in progress. A request keeps its permit until it
/// has its response; a stream of events, until its end.
async fn limit(State(requests): State<Arc<Semaphore>>, mut request: Request, next: Next) -> Response {
    match requests.try_acquire_owned() {
        Ok(permit) => {
            request.extensions_mut().insert(Permit(Arc::new(permit)));
            next.run(request).await
        }
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once: try again later"),
    }
}

/// The right of a request to be in progress.
#[derive(Clone, Debug)]
struct Permit(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl Asset {
    /// Returns the file, or 304 if the browser has the same one.
    fn respond(&self, headers: &HeaderMap) -> Response {
        let tag = tag_of(self.bytes);
        let about = [(ETAG, tag.clone()), (CACHE_CONTROL, "no-cache".to_owned())];
        match headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            true => (StatusCode::NOT_MODIFIED, about).into_response(),
            false => (about, [(CONTENT_TYPE, self.content_type)], self.bytes).into_response(),
        }
    }
}

/// Returns the `ETag` of these bytes.
fn tag_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let start = digest[..8].try_into().expect("a digest has 32 bytes");
    format!("\"{:016x}\"", u64::from_be_bytes(start))
}

async fn readiness<S: Store>(State(monitor): Monitoring<S>) -> Response {
    let readiness = monitor.readiness().await;
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

async fn metrics<S: Store>(State(monitor): Monitoring<S>) -> Response {
    ([(CONTENT_TYPE, TEXT_FORMAT)], monitor.metrics().await).into_response()
}

async fn status<S: Store>(State(monitor): Monitoring<S>) -> Result<Response, Refusal> {
    let status = monitor.status().await?;
    Ok(([(CONTENT_TYPE, "application/json")], status).into_response())
}

/// Sends the status at once, then each second, until the token or the session ends.
async fn events<S: Store>(
    State(monitor): Monitoring<S>,
    State(gate): State<Arc<Gate>>,
    Extension(caller): Extension<Caller>,
    Extension(permit): Extension<Permit>,
) -> Result<(StreamHeaders, Sse<impl Stream<Item = Result<Event, Infallible>>>), Refusal> {
    let first = monitor.status().await?;
    let news = monitor.subscribe();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _held = permit;
        tokio::select! {
            () = forward(first, news, &sender) => {}
            () = gate.ended(&caller.proof) => {}
            () = sender.closed() => {}
        }
    });
    let events = ReceiverStream::new(receiver)
        .map(|status: Arc<str>| Ok(Event::default().event("status").retry(RETRY).data(&*status)));
    Ok((STREAM_HEADERS, Sse::new(events).keep_alive(KeepAlive::default())))
}

async fn forward(first: String, mut news: watch::Receiver<Arc<str>>, sender: &mpsc::Sender<Arc<str>>) {
    let mut status = Arc::from(first);
    while sender.send(status).await.is_ok() && news.changed().await.is_ok() {
        status = Arc::clone(&news.borrow_and_update());
    }
}

/// Who is asking.
#[derive(Serialize)]
struct Me {
    role: &'static str,
    token: Option<String>,
    signed_in: bool,
}

async fn me(Extension(caller): Extension<Caller>) -> Json<Me> {
    let token = match &caller.proof {
        Proof::NotNeeded => None,
        Proof::Token(token) | Proof::Session(_, token) => Some(token.to_string()),
    };
    let signed_in = matches!(caller.proof, Proof::Session(..));
    Json(Me { role: caller.role.as_str(), token, signed_in })
}

async fn draw<S: Store>(
    State(monitor): Monitoring<S>,
    Path(draw): Path<String>,
) -> Result<Response, Refusal> {
    let listed = monitor.draw(read_draw(&draw)?).await?;
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
    State(monitor): Monitoring<S>,
    Path(draw): Path<String>,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let draw = read_draw(&draw)?;
    let Query(query) = query.map_err(|error| bad(&error.body_text()))?;
    let query = query.read()?;
    let found = monitor.results(draw, query).await?;
    let next = found.next.map(|place| format!("{}:{}", place.agency, place.bet));
    let page = ResultsPage { draw: draw.0, total: found.total, winners: found.winners, next };
    Ok(Json(page).into_response())
}

impl ResultsQuery {
    fn read(self) -> Result<overview::Query, Refusal> {
        // An empty parameter, as a form sends it, is the same as none.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let agency = given(self.agency).map(|text| {
            text.parse::<AgencyId>().map_err(|_| bad("agency is not a number from 0 to 4294967295"))
        });
        let search = given(self.search);
        if search.as_ref().is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
            return Err(bad(&format!("search is longer than {SEARCH_BYTES_MAX} bytes")));
        }
        let after = given(self.after)
            .map(|text| read_place(&text).ok_or_else(|| bad("after is not the next of an earlier page")));
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

/// Why a request is refused.
enum Refusal {
    /// It is malformed.
    Bad(String),
    /// What it asks for was not found.
    Look(LookupError),
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
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
                    LookupError::NoDraw(_) => StatusCode::NOT_FOUND,
                    LookupError::Open(_) => StatusCode::CONFLICT,
                    LookupError::Failed => StatusCode::SERVICE_UNAVAILABLE,
                };
                refuse(code, &error.to_string())
            }
        }
    }
}
