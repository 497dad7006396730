//! What an operator does with tokens: adds, rotates and revokes them.

use std::time::SystemTime;

use rand::TryRng as _;
use rand::rngs::SysRng;
use rusqlite::Transaction;

use super::{Operator, OperatorError};
use crate::store::sqlite::text::is_one_line;
use crate::store::sqlite::tokens::{self, LABEL_BYTES_MAX, NewToken};
use crate::store::sqlite::{audit, time};
use crate::store::{StoredToken, TokenHolder};
use sorteo_protocol::{Token, TokenId};

impl Operator {
    /// Adds a token, and returns it: it is stored nowhere, and nobody can see it again.
    ///
    /// # Errors
    ///
    /// Fails if the label is too long or not one line, if the token would have expired
    /// already, or if the system has no random bytes.
    pub fn add_token(&mut self, new: &NewToken) -> Result<Token, OperatorError> {
        require_valid(new)?;
        let token = random_token()?;
        self.change(|transaction, _| {
            tokens::insert(transaction, &token, new)?;
            record(transaction, "token-add", &token.id(), new.holder, &until(new.expires_at))?;
            Ok(Ok(()))
        })?;
        Ok(token)
    }

    /// Adds a token for the holder of another, with its label, and lets that one expire at
    /// `old_until` if it does not expire before. Returns the new one, which expires at
    /// `expires_at`.
    ///
    /// # Errors
    ///
    /// As [`Operator::add_token`]; if there is no such token, or it counts no more; and if only
    /// the old one would expire.
    pub fn rotate_token(
        &mut self,
        id: &TokenId,
        old_until: SystemTime,
        expires_at: Option<SystemTime>,
    ) -> Result<Token, OperatorError> {
        require_future(expires_at)?;
        let token = random_token()?;
        self.change(|transaction, _| {
            let Some(old) = tokens::find(transaction, id)? else {
                return Ok(Err(OperatorError::NoToken(id.clone())));
            };
            if !old.is_valid(SystemTime::now()) {
                return Ok(Err(OperatorError::TokenEnded(id.clone())));
            }
            if old.expires_at.is_some() && expires_at.is_none() {
                return Ok(Err(OperatorError::NoEnd(id.clone())));
            }
            let old_until = old.expires_at.map_or(old_until, |at| at.min(old_until));
            let label = tokens::label(transaction, id)?;
            tokens::insert(transaction, &token, &NewToken { holder: old.holder, label, expires_at })?;
            tokens::expire(transaction, id, old_until)?;
            let detail = format!("in place of {id}, which expires {}", time::stored_time(old_until));
            record(transaction, "token-rotate", &token.id(), old.holder, &detail)?;
            Ok(Ok(()))
        })?;
        Ok(token)
    }

    /// Revokes a token: connections that it has authenticated are closed within a second.
    /// Returns it.
    ///
    /// # Errors
    ///
    /// Fails if there is no such token, or it is revoked already.
    pub fn revoke_token(&mut self, id: &TokenId) -> Result<StoredToken, OperatorError> {
        self.change(|transaction, _| match tokens::find(transaction, id)? {
            None => Ok(Err(OperatorError::NoToken(id.clone()))),
            Some(token) if token.is_revoked => Ok(Err(OperatorError::TokenRevoked(id.clone()))),
            Some(token) => {
                tokens::revoke(transaction, id)?;
                record(transaction, "token-revoke", id, token.holder, "")?;
                Ok(Ok(token))
            }
        })
    }
}

fn require_valid(new: &NewToken) -> Result<(), OperatorError> {
    if new.label.len() > LABEL_BYTES_MAX || !is_one_line(&new.label) {
        return Err(OperatorError::BadLabel);
    }
    require_future(new.expires_at)
}

fn require_future(expires_at: Option<SystemTime>) -> Result<(), OperatorError> {
    match expires_at {
        Some(at) if at <= SystemTime::now() => Err(OperatorError::ExpiresInThePast(time::stored_time(at))),
        _ => Ok(()),
    }
}

/// Makes a token of the system's random bytes.
fn random_token() -> Result<Token, OperatorError> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    let filled = SysRng.try_fill_bytes(&mut id).and_then(|()| SysRng.try_fill_bytes(&mut secret));
    filled.map_err(|error| OperatorError::NoRandomBytes(error.to_string()))?;
    Ok(Token::from_random(id, secret))
}

/// Records a change of a token. The audit's newest row also tells a server that one changed.
fn record(
    transaction: &Transaction<'_>,
    action: &str,
    id: &TokenId,
    holder: TokenHolder,
    detail: &str,
) -> rusqlite::Result<()> {
    let separator = if detail.is_empty() { "" } else { ", " };
    audit::record(transaction, action, None, &format!("token {id} of {holder}{separator}{detail}"))
}

fn until(expires_at: Option<SystemTime>) -> String {
    expires_at.map_or_else(String::new, |at| format!("expires {}", time::stored_time(at)))
}
