//! Who a peer is, and what it may ask for.
//!
//! An agency proves who it is by a token (`AUTH`) or by a certificate. From then on, every
//! request of its connection must be for that agency. A failure looks the same to the peer
//! whatever its cause, and takes the same time; the log names the cause.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::mem;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use subtle::ConstantTimeEq as _;

use crate::logging::limits::Peer;
use crate::rate_limit::{Network, Permit, RateLimit};
use crate::store::{Role, Store, StoreError, StoredToken, Ticket, TokenHolder, TokenUse};
use sorteo_protocol::wire::{Claim, Reason, Request};
use sorteo_protocol::{AgencyId, Batch, Token, TokenId};

/// Failures of an address that are answered, a second on average and at once. Beyond them, its
/// connections that fail are closed without a reply: a secret of 256 bits needs no lock, but
/// processor and network do. A valid token is accepted from any address at any time.
const FAILURES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
const FAILURES_AT_ONCE: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// How often the last uses of tokens are written at most.
const USES_WRITTEN_EVERY: Duration = Duration::from_secs(10);
/// What is compared where there is no token, so that it takes the same time.
const NO_DIGEST: [u8; 32] = [0; 32];

/// Whether agencies must prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// They cannot: whoever reaches the port is whom it claims to be.
    #[default]
    Off,
    /// They may, and are held to it then: for the time in which agencies get their tokens.
    Optional,
    /// They must, before anything else.
    Required,
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

/// Who a peer has proved to be.
#[derive(Debug)]
pub struct Identity {
    /// The agency.
    pub agency: AgencyId,
    /// By which token; `None`: by a certificate.
    token: Option<TokenId>,
    _connection: Permit<AgencyId>,
}

impl Identity {
    /// Creates the identity of an agency, which may have this connection.
    pub(super) fn new(agency: AgencyId, token: Option<TokenId>, connection: Permit<AgencyId>) -> Self {
        Self { agency, token, _connection: connection }
    }

    /// Returns the token that it rests on; `None` for a certificate.
    pub(super) fn token(&self) -> Option<&TokenId> {
        self.token.as_ref()
    }
}

/// Why a peer is not who it says it is, for the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthFailure {
    #[error("not an agency and a token")]
    Malformed,
    #[error("there is no such token")]
    UnknownToken,
    #[error("the secret is wrong")]
    WrongSecret,
    #[error("the token is another agency's or an operator's")]
    OtherHolder,
    #[error("the certificate is another agency's")]
    OtherCertificate,
    #[error("the token was revoked")]
    Revoked,
    #[error("the token has expired")]
    Expired,
}

/// Who may do what. See the module.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) auth: Auth,
    /// When each token ends that does, as of [`Watch::version`].
    ends: RwLock<BTreeMap<TokenId, SystemTime>>,
    watch: Mutex<Watch>,
    failures: RateLimit<Network>,
}

/// What was last read of the tokens, and is to be written.
#[derive(Debug)]
struct Watch {
    version: Option<u64>,
    /// Up to when it was looked which tokens have ended.
    looked_at: SystemTime,
    /// Uses that are not written yet.
    uses: HashMap<TokenId, SystemTime>,
    written_at: Instant,
}

impl Access {
    pub(super) fn new(auth: Auth) -> Self {
        let watch = Watch {
            version: None,
            looked_at: SystemTime::now(),
            uses: HashMap::new(),
            written_at: Instant::now(),
        };
        Self {
            auth,
            ends: RwLock::default(),
            watch: Mutex::new(watch),
            failures: RateLimit::new(FAILURES_PER_SECOND, FAILURES_AT_ONCE),
        }
    }

    /// Returns the agency that a peer is, and its token, if its claim is true and agrees with its
    /// certificate.
    pub(super) fn authenticate<S: Store>(
        &self,
        store: &S,
        claim: Option<&Claim>,
        certified: Option<AgencyId>,
    ) -> Result<Result<(AgencyId, TokenId), AuthFailure>, StoreError> {
        let Some(Claim { agency, token }) = claim else {
            return Ok(Err(AuthFailure::Malformed));
        };
        let found = match self.verify(store, token)? {
            Ok(found) => found,
            Err(failure) => return Ok(Err(failure)),
        };
        if found.holder != TokenHolder::Agency(*agency) {
            return Ok(Err(AuthFailure::OtherHolder));
        }
        if certified.is_some_and(|certified| certified != *agency) {
            return Ok(Err(AuthFailure::OtherCertificate));
        }
        self.lock_watch().uses.insert(token.id(), SystemTime::now());
        Ok(Ok((*agency, token.id())))
    }

    /// Returns the role of the operator whose token this is.
    pub(super) fn operator<S: Store>(&self, store: &S, token: &Token) -> Result<Option<Role>, StoreError> {
        let Ok(StoredToken { holder: TokenHolder::Operator(role), .. }) = self.verify(store, token)? else {
            return Ok(None);
        };
        self.lock_watch().uses.insert(token.id(), SystemTime::now());
        Ok(Some(role))
    }

    /// Looks a token up by its id, and compares its digest in constant time; that of no token
    /// where there is none.
    fn verify<S: Store>(
        &self,
        store: &S,
        token: &Token,
    ) -> Result<Result<StoredToken, AuthFailure>, StoreError> {
        let found = store.tokens().find(&token.id())?;
        let digest = found.as_ref().map_or(NO_DIGEST, |found| found.digest);
        let is_right = bool::from(token.digest().ct_eq(&digest));
        Ok(match found {
            None => Err(AuthFailure::UnknownToken),
            Some(_) if !is_right => Err(AuthFailure::WrongSecret),
            Some(found) if found.is_revoked => Err(AuthFailure::Revoked),
            Some(found) if !found.is_valid(SystemTime::now()) => Err(AuthFailure::Expired),
            Some(found) => Ok(found),
        })
    }

    /// Returns whether one more failure of the peer's address is answered, and counts it.
    pub(super) fn answers_failure(&self, peer: &Peer) -> bool {
        self.failures.allows(&peer.ip.into())
    }

    /// Returns why a peer may not send a request, if it may not.
    pub(super) fn refusal(&self, identity: Option<&Identity>, request: &Request) -> Option<Reason> {
        match identity {
            None if self.auth == Auth::Required => Some(Reason::Unauthorized),
            None => None,
            Some(identity) => (!is_for(request, identity.agency)).then_some(Reason::Forbidden),
        }
    }

    /// Returns whether an identity still counts: not after its token was revoked or has expired.
    pub(super) fn is_live(&self, token: &TokenId) -> bool {
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        ends.get(token).is_none_or(|end| SystemTime::now() < *end)
    }

    /// Reads which tokens end, if one was added or changed, and returns whether one has ended
    /// since the last call.
    pub(super) fn refresh<S: Store>(&self, store: &S) -> Result<bool, StoreError> {
        // Before the tokens: what changes behind it is read the next time.
        let version = store.tokens().version()?;
        let mut watch = self.lock_watch();
        let has_changed = watch.version != Some(version);
        if has_changed {
            *self.ends.write().unwrap_or_else(PoisonError::into_inner) = store.tokens().ends()?;
            watch.version = Some(version);
        }
        let now = SystemTime::now();
        let since = mem::replace(&mut watch.looked_at, now);
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        Ok(has_changed || ends.values().any(|end| since < *end && *end <= now))
    }

    /// Submits the last uses of tokens to be written, those of some seconds together; `None`
    /// where there is nothing to write yet.
    pub(super) fn submit_uses<S: Store>(
        &self,
        store: &S,
        at_once: bool,
    ) -> Result<Option<Ticket<()>>, StoreError> {
        let mut watch = self.lock_watch();
        if watch.uses.is_empty() || (!at_once && watch.written_at.elapsed() < USES_WRITTEN_EVERY) {
            return Ok(None);
        }
        watch.written_at = Instant::now();
        let uses = mem::take(&mut watch.uses).into_iter();
        drop(watch);
        store.tokens().record_uses(uses.map(|(token, at)| TokenUse { token, at }).collect()).map(Some)
    }

    fn lock_watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a request is for this agency alone, or for none.
fn is_for(request: &Request, agency: AgencyId) -> bool {
    let is_of = |batch: &Batch| batch.agency == agency;
    match request {
        Request::Bet(batch) | Request::Batch(batch) => is_of(batch),
        Request::Payload(batches) => batches.iter().all(is_of),
        Request::Done { agency: named, .. }
        | Request::Winners { agency: named }
        | Request::WinnersPage { agency: named, .. }
        | Request::WaitWinners { agency: named, .. }
        | Request::DoneAndWinners { agency: named }
        | Request::Resume { agency: named, .. } => *named == agency,
        Request::Hello | Request::Status | Request::Auth(_) => true,
    }
}
