//! Who may use the operators' HTTP: what tells a token's role.

use std::fmt;

use crate::service::Service;
pub use crate::store::Role;
use crate::store::{Store, StoreError};
use sorteo_protocol::{Token, TokenId};

/// An operator, as a valid token names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorIdentity {
    /// The token's id.
    pub token: TokenId,
    /// What its holder may see.
    pub role: Role,
}

/// Knows the tokens. It may wait for the disk: it is asked on a thread that may.
pub trait Gatekeeper: fmt::Debug + Send + Sync + 'static {
    /// Returns who holds the token: `None` if its id is unknown, its secret is wrong, it was
    /// revoked or has expired, or it is an agency's. Takes the same time for each of these.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    fn operator(&self, token: &Token) -> Result<Option<OperatorIdentity>, StoreError>;

    /// Returns whether an operator's token is neither revoked nor expired.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    fn is_live(&self, token: &TokenId) -> Result<bool, StoreError>;
}

impl<S: Store + fmt::Debug> Gatekeeper for Service<S> {
    fn operator(&self, token: &Token) -> Result<Option<OperatorIdentity>, StoreError> {
        let role = Service::operator(self, token)?;
        Ok(role.map(|role| OperatorIdentity { token: token.id(), role }))
    }

    fn is_live(&self, token: &TokenId) -> Result<bool, StoreError> {
        Ok(self.is_token_live(token))
    }
}
