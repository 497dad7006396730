//! Who is asking: by a token in the request, by the cookie of a session, or by the way
//! that the request came. Knows the sessions and the failed attempts.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::context::OpsContext;
use super::hosts::Hosts;
use super::http::Peer;
use super::identity::{Gatekeeper, OperatorIdentity, Role};
use super::sessions::{SessionKey, Sessions};
use crate::event;
use crate::logging::limits::{Kind, LineLimits};
use crate::metrics::Metrics;
use crate::rate_limit::{Network, RateLimit};
use crate::store::{Store, StoreError};
use sorteo_protocol::{Token, TokenId};

/// The cookie of a session.
pub(super) const COOKIE_NAME: &str = "sorteo_session";
/// Failures that an address may have at once, and how long it takes until it may have one more.
/// A good token is accepted at any time, so that nobody can lock out its holder; this tells a
/// program that tries an old one again and again to slow down, and spares the log.
const FAILURES_MAX: NonZeroU32 = NonZeroU32::new(10).unwrap();
const FAILURE_REFILL: Duration = Duration::from_secs(6);
/// How long the database may take to tell about a token.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the token of an open stream of events is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Tells who is asking. See the module.
#[derive(Debug)]
pub(super) struct Gate {
    /// `None`: whoever reaches the HTTP may use it.
    gatekeeper: Option<Arc<dyn Gatekeeper>>,
    pub(super) hosts: Hosts,
    sessions: Sessions,
    /// Held while a token is looked up, so that one thread at a time waits for the disk.
    turn: Arc<AsyncMutex<()>>,
    failures: RateLimit<Network>,
    lines: LineLimits,
    metrics: Arc<Metrics>,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) role: Role,
    pub(super) proof: Proof,
}

/// What shows who is asking.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// None is needed.
    NotNeeded,
    /// A token in the request.
    Token(TokenId),
    /// The cookie of a session, which this token began.
    Session(SessionKey, TokenId),
}

/// Why it is not known who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// Nothing in the request tells it, or the session has ended.
    #[error("sign in, or send a token: `Authorization: Bearer TOKEN`")]
    NotSignedIn,
    /// The token is unknown, wrong, revoked, expired or an agency's; or is no token.
    #[error("the token is not valid")]
    BadToken,
    /// As `BadToken`, and too many tokens from this address were so: try again after this time.
    #[error("too many tokens from this address were not valid: try again in {} s", seconds(*.0))]
    TooManyFailures(Duration),
    /// The database could not be read. The log says why.
    #[error("the database did not answer")]
    Unavailable,
}

/// Returns whole seconds, rounded up.
pub(super) fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1_000) as u64
}

impl Gate {
    pub(super) fn new<S: Store>(context: &OpsContext<S>) -> Self {
        Self {
            gatekeeper: context.gatekeeper.clone(),
            hosts: Hosts::new(context.hosts.clone()),
            sessions: Sessions::default(),
            turn: Arc::default(),
            failures: RateLimit::one_in(FAILURE_REFILL, FAILURES_MAX),
            lines: LineLimits::default(),
            metrics: Arc::clone(context.service.metrics()),
        }
    }

    /// Returns whether this peer needs a token.
    pub(super) fn is_closed_to(&self, peer: Peer) -> bool {
        self.gatekeeper.is_some() && !matches!(peer, Peer::Socket)
    }

    /// Returns who sent a request.
    pub(super) async fn identify(&self, peer: Peer, headers: &HeaderMap) -> Result<Caller, Denied> {
        let Peer::Address { ip, .. } = peer else { return Ok(EVERYBODY) };
        let Some(gatekeeper) = &self.gatekeeper else { return Ok(EVERYBODY) };
        if let Some(text) = bearer(headers) {
            let identity = self.check(gatekeeper, ip, text).await?;
            return Ok(Caller { role: identity.role, proof: Proof::Token(identity.token) });
        }
        let key = session_of(headers).ok_or(Denied::NotSignedIn)?;
        let session = self.sessions.find(key, Instant::now()).ok_or(Denied::NotSignedIn)?;
        if !gatekeeper.is_live(&session.token) {
            self.sessions.end(key);
            return Err(Denied::NotSignedIn);
        }
        Ok(Caller { role: session.role, proof: Proof::Session(key, session.token) })
    }

    /// Begins a session, and returns its secret id.
    pub(super) async fn sign_in(&self, ip: IpAddr, token: &str) -> Result<String, Denied> {
        let gatekeeper = self.gatekeeper.as_ref().ok_or(Denied::NotSignedIn)?;
        let identity = self.check(gatekeeper, ip, token).await?;
        event!(Info, "sign_in", Success, token = identity.token, role = identity.role, ip = ip);
        Ok(self.sessions.begin(&identity, Instant::now()))
    }

    /// Ends the session of a request, if it has one.
    pub(super) fn sign_out(&self, headers: &HeaderMap) {
        if let Some(session) = session_of(headers).and_then(|key| self.sessions.end(key)) {
            event!(Info, "sign_out", Success, token = session.token, role = session.role);
        }
    }

    /// Waits until the token that showed who is asking is revoked or expires, or the session
    /// ends.
    pub(super) async fn ended(&self, proof: &Proof) {
        loop {
            sleep(CHECK_INTERVAL).await;
            let (Some(gatekeeper), Some(token)) = (&self.gatekeeper, self.token_of(proof)) else {
                match proof {
                    Proof::NotNeeded => continue,
                    _ => return,
                }
            };
            if !gatekeeper.is_live(&token) {
                return;
            }
        }
    }

    /// Returns the token on which everything depends; `None` if none does, or the session
    /// has ended.
    fn token_of(&self, proof: &Proof) -> Option<TokenId> {
        match proof {
            Proof::NotNeeded => None,
            Proof::Token(token) => Some(token.clone()),
            Proof::Session(key, _) => self.sessions.find(*key, Instant::now()).map(|session| session.token),
        }
    }

    /// Logs how many lines of failed attempts were left out, whenever it is time.
    pub(super) async fn tick(&self) {
        loop {
            sleep(CHECK_INTERVAL).await;
            self.lines.report_if_due(Instant::now());
        }
    }

    /// Returns whose token it is. A failure counts for the address and is logged.
    async fn check(
        &self,
        gatekeeper: &Arc<dyn Gatekeeper>,
        ip: IpAddr,
        token: &str,
    ) -> Result<OperatorIdentity, Denied> {
        let found = match token.parse() {
            Ok(token) => self.look_up(gatekeeper, token).await?,
            Err(_) => None,
        };
        let checked = found.ok_or_else(|| match self.failures.check(&ip.into()) {
            Ok(()) => Denied::BadToken,
            Err(wait) => Denied::TooManyFailures(wait),
        });
        if let Err(denied) = &checked {
            self.count_failure(ip, *denied);
        }
        checked
    }

    fn count_failure(&self, ip: IpAddr, denied: Denied) {
        self.metrics.sign_in_failures.inc();
        if self.lines.allow(ip, Kind::SignIn) {
            let error = if denied == Denied::BadToken { "unauthorized" } else { "busy" };
            event!(Warn, "sign_in", Fail, error = error, ip = ip);
        }
    }

    /// Asks the gatekeeper whose token it is, on a thread that may wait for the disk.
    async fn look_up(
        &self,
        gatekeeper: &Arc<dyn Gatekeeper>,
        token: Token,
    ) -> Result<Option<OperatorIdentity>, Denied> {
        let found = async {
            // The thread owns the lock, even if the peer that asked has gone.
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let gatekeeper = Arc::clone(gatekeeper);
            let asked = move || {
                let _turn = turn;
                let role = gatekeeper.operator(&token)?;
                Ok::<_, StoreError>(role.map(|role| OperatorIdentity { token: token.id(), role }))
            };
            spawn_blocking(asked).await
        };
        let why = match timeout(LOOK_TIMEOUT, found).await {
            Ok(Ok(Ok(found))) => return Ok(found),
            Ok(Ok(Err(error))) => error.to_string(),
            // The panic was logged.
            Ok(Err(_)) => return Err(Denied::Unavailable),
            Err(_) => format!("no answer within {} s", LOOK_TIMEOUT.as_secs()),
        };
        event!(Error, "read_database", Fail, query = "operators", error = why);
        Err(Denied::Unavailable)
    }
}

/// Whoever reaches an HTTP that needs no token.
const EVERYBODY: Caller = Caller { role: Role::Operator, proof: Proof::NotNeeded };

/// Returns what a request presents as a token. Other schemes are not ours: a proxy may
/// pass its own on.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn session_of(headers: &HeaderMap) -> Option<SessionKey> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, id)| SessionKey::of(id))
}
