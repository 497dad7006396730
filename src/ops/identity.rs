//! Who may use the operators' HTTP: the roles, and what tells a token's role.

use std::fmt;
use std::time::SystemTime;

use crate::store::StoreError;
use sorteo_protocol::{Token, TokenId};

/// What an operator may see. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The state of the draws and of the server, and no data of bettors.
    Viewer,
    /// The winners too, with names and documents.
    Auditor,
    /// Everything.
    Operator,
}

impl Role {
    /// Returns its name, as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operator, as a valid token names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorIdentity {
    /// The token's id.
    pub token: TokenId,
    /// What its holder may see.
    pub role: Role,
    /// When the token ends by itself, if it does.
    pub expires_at: Option<SystemTime>,
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
