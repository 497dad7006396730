//! The names of agencies, draws and uploads.

use std::fmt;
use std::str::FromStr;

use crate::bets::BetError;
use crate::text::{decimal, hexadecimal};

/// Longest name of an upload, in characters (docs/protocol.md, "Exactly-once uploads").
pub const UPLOAD_ID_CHARS_MAX: usize = 64;

/// An agency's number, 0 to 4294967295. `01` and `1` are the same agency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgencyId(pub u32);

impl fmt::Display for AgencyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AgencyId {
    type Err = BetError;

    fn from_str(text: &str) -> Result<Self, BetError> {
        decimal(text).map(AgencyId).ok_or(BetError::Agency)
    }
}

/// A draw's number, from 1 in the order in which draws were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DrawId(pub i64);

impl fmt::Display for DrawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one upload of one agency: 1 to 64 of `A-Za-z0-9._-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Box<str>);

impl UploadId {
    /// Returns the id of this name, or `None` where the name has not the allowed form.
    pub fn new(name: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=UPLOAD_ID_CHARS_MAX).contains(&name.len());
        (fits && name.bytes().all(allowed)).then(|| Self(name.into()))
    }

    /// Returns the id of an upload that is named after the SHA-256 of its content, in
    /// hexadecimal: the same content is the same upload.
    pub fn of_digest(digest: &[u8; 32]) -> Self {
        Self(hexadecimal(digest).into())
    }

    /// Returns the name, as it is sent and stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_are_1_to_64_safe_characters() {
        assert!(UploadId::new("a").is_some());
        assert!(UploadId::new(&"Z9._-".repeat(12)).is_some());
        assert!(UploadId::new(&"a".repeat(64)).is_some());
        for bad in ["", "a b", "a|b", "ñ", "a/b"] {
            assert!(UploadId::new(bad).is_none(), "{bad}");
        }
        assert!(UploadId::new(&"a".repeat(65)).is_none());
    }
}
