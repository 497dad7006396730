//! Tokens as a store keeps them: whose each is, and whether it still counts.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::Serialize;

use sorteo_protocol::{AgencyId, TokenId};

/// A token that a store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// Whose it is.
    pub holder: TokenHolder,
    /// SHA-256 of the whole token.
    pub digest: [u8; 32],
    /// From when on it counts no more; `None`: it does not expire.
    pub expires_at: Option<SystemTime>,
    /// Whether an operator has revoked it.
    pub is_revoked: bool,
}

impl StoredToken {
    /// Returns whether it counts at a time: it is not revoked and has not expired.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        !self.is_revoked && self.expires_at.is_none_or(|at| now < at)
    }
}

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenHolder {
    /// An agency's.
    Agency(AgencyId),
    /// An operator's, who may do what the role allows.
    Operator(Role),
}

impl fmt::Display for TokenHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agency(agency) => write!(f, "agency {agency}"),
            Self::Operator(role) => write!(f, "{role}"),
        }
    }
}

/// What an operator may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See how draws stand, and the metrics; nothing of a bettor.
    Viewer,
    /// See who won.
    Auditor,
    /// Everything.
    Operator,
}

impl Role {
    /// Every role, the one that may least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Auditor, Self::Operator];

    /// Returns the word that is stored, typed and shown.
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

/// The word is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a role: viewer, auditor or operator")]
pub struct NotARole;

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NotARole)
    }
}

/// That a token was used, and when last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The token.
    pub token: TokenId,
    /// When it was last used.
    pub at: SystemTime,
}
