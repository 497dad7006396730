//! Who may use the operators' HTTP: what tells a token's role.

use std::fmt;

use crate::service::Service;
pub use crate::store::Role;
use crate::store::{Store, StoreError};
use sorteo_protocol::{Token, TokenId};

/// An operator, as a valid token names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OperatorIdentity {
    /// The token's id.
    pub(super) token: TokenId,
    /// What its holder may see.
    pub(super) role: Role,
}

/// Knows the tokens.
pub trait Gatekeeper: fmt::Debug + Send + Sync + 'static {
    /// Returns the role of the operator whose token this is: `None` if its id is unknown, its
    /// secret is wrong, it was revoked or has expired, or it is an agency's. Takes the same time
    /// for each of these. It may wait for the disk: it is asked on a thread that may.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    fn operator(&self, token: &Token) -> Result<Option<Role>, StoreError>;

    /// Returns whether a token that was valid once is neither revoked nor expired. It never
    /// waits: it is asked with each request of a session, on the thread of all connections.
    fn is_live(&self, token: &TokenId) -> bool;
}

impl<S: Store + fmt::Debug> Gatekeeper for Service<S> {
    fn operator(&self, token: &Token) -> Result<Option<Role>, StoreError> {
        Service::operator(self, token)
    }

    fn is_live(&self, token: &TokenId) -> bool {
        self.is_token_live(token)
    }
}
