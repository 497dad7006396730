//! Tokens in memory, of which a test revokes some.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use sorteo::ops::{Gatekeeper, Role};
use sorteo::store::StoreError;
use sorteo_protocol::{Token, TokenId};

#[derive(Debug, Default)]
pub struct Tokens {
    all: Mutex<HashMap<TokenId, Kept>>,
    next: AtomicUsize,
    is_broken: AtomicBool,
    reading: Mutex<()>,
    lookups: AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    token: Token,
    /// `None` is an agency's.
    role: Option<Role>,
    is_live: bool,
}

impl Tokens {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn add(&self, role: Option<Role>) -> Token {
        let number = self.next.fetch_add(1, Ordering::SeqCst) as u8 + 1;
        let token = Token::from_random([number; 8], [number; 32]);
        let kept = Kept { token: token.clone(), role, is_live: true };
        self.all.lock().unwrap().insert(token.id(), kept);
        token
    }

    /// Revokes a token; to this HTTP, one that has expired is the same.
    pub fn revoke(&self, token: &Token) {
        self.all.lock().unwrap().get_mut(&token.id()).unwrap().is_live = false;
    }

    /// Makes the database unreadable, or readable again.
    pub fn set_broken(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::SeqCst);
    }

    /// Keeps every lookup of a token waiting, until what is returned is dropped.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().unwrap()
    }

    /// Returns how many lookups have begun.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

impl Gatekeeper for Tokens {
    fn operator(&self, token: &Token) -> Result<Option<Role>, StoreError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        drop(self.hold());
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable);
        }
        let all = self.all.lock().unwrap();
        let kept = all.get(&token.id()).filter(|kept| kept.token == *token && kept.is_live);
        Ok(kept.and_then(|kept| kept.role))
    }

    fn is_live(&self, token: &TokenId) -> bool {
        self.all.lock().unwrap().get(token).is_some_and(|kept| kept.is_live)
    }
}
