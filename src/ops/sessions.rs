//! The sessions of operators who signed in with a browser. They are in memory alone: a
//! server that starts again knows none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use super::identity::{OperatorIdentity, Role};
use sorteo_protocol::TokenId;
use sorteo_protocol::text::hexadecimal;

/// How long a session lasts at most.
const AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions at once. Where there are as many, the oldest ends.
const SESSIONS_MAX: usize = 1_000;
/// Sessions of one token at once, so that no holder of one ends those of all others.
const SESSIONS_PER_TOKEN_MAX: usize = 50;

/// All sessions, by the digest of what their cookie says.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<SessionKey, Session>>);

/// The SHA-256 of a session's secret id: to look one up takes no time that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey([u8; 32]);

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The token that began it, and with which it ends.
    pub(super) token: TokenId,
    /// What its holder may see.
    pub(super) role: Role,
    started: Instant,
}

impl SessionKey {
    /// Returns the key of the id that a cookie says.
    pub(super) fn of(id: &str) -> Self {
        Self(Sha256::digest(id.as_bytes()).into())
    }
}

impl Sessions {
    /// Begins a session, and returns its secret id: 256 random bits in hexadecimal.
    pub(super) fn begin(&self, identity: &OperatorIdentity, now: Instant) -> String {
        let random: [u8; 32] = rand::rng().random();
        let id = hexadecimal(&random);
        let mut all = self.lock();
        all.retain(|_, session| !session.is_over(now));
        let of_token = |session: &Session| session.token == identity.token;
        if all.values().filter(|session| of_token(session)).count() >= SESSIONS_PER_TOKEN_MAX {
            end_oldest(&mut all, of_token);
        }
        if all.len() >= SESSIONS_MAX {
            end_oldest(&mut all, |_| true);
        }
        let session = Session { token: identity.token.clone(), role: identity.role, started: now };
        all.insert(SessionKey::of(&id), session);
        id
    }

    /// Returns the session, unless it has ended.
    pub(super) fn find(&self, key: SessionKey, now: Instant) -> Option<Session> {
        self.lock().get(&key).filter(|session| !session.is_over(now)).cloned()
    }

    /// Ends the session, and returns it if there was one.
    pub(super) fn end(&self, key: SessionKey) -> Option<Session> {
        self.lock().remove(&key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) >= AGE_MAX
    }
}

fn end_oldest(all: &mut HashMap<SessionKey, Session>, is_meant: impl Fn(&Session) -> bool) {
    let meant = all.iter().filter(|(_, session)| is_meant(session));
    if let Some(key) = meant.min_by_key(|(_, session)| session.started).map(|(key, _)| *key) {
        all.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(token: u16) -> OperatorIdentity {
        let token = format!("{token:016x}").parse().unwrap();
        OperatorIdentity { token, role: Role::Auditor }
    }

    #[test]
    fn a_session_lasts_twelve_hours_or_until_it_is_ended() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let key = SessionKey::of(&sessions.begin(&identity(1), start));
        let found = sessions.find(key, start + AGE_MAX - Duration::from_secs(1)).unwrap();
        assert_eq!((found.token, found.role), (identity(1).token, Role::Auditor));
        assert_eq!(sessions.find(key, start + AGE_MAX), None);
        let other = sessions.begin(&identity(1), start);
        assert_eq!(other.len(), 64);
        assert_eq!(sessions.find(SessionKey::of(&other[1..]), start), None);
        assert!(sessions.end(SessionKey::of(&other)).is_some());
        assert_eq!(sessions.find(SessionKey::of(&other), start), None);
    }

    #[test]
    fn where_there_are_too_many_the_oldest_ends() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = SessionKey::of(&sessions.begin(&identity(0), start));
        let of_one: Vec<_> = (0..60).map(|n| SessionKey::of(&sessions.begin(&identity(1), at(n)))).collect();
        assert_eq!(sessions.lock().len(), 1 + SESSIONS_PER_TOKEN_MAX);
        assert!(sessions.find(of_one[9], at(60)).is_none() && sessions.find(of_one[10], at(60)).is_some());
        for n in 0..SESSIONS_MAX as u16 {
            assert!(sessions.find(first, at(60)).is_some() == (n < 950), "{n}");
            sessions.begin(&identity(2 + n / 40), at(100 + u64::from(n)));
        }
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
        sessions.begin(&identity(500), at(100) + AGE_MAX * 2);
        assert_eq!(sessions.lock().len(), 1, "those that are over are forgotten");
    }
}
