//! Tokens, as operators see them: everything but what makes them secret.

use rusqlite::Connection;
use serde::Serialize;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenRecord {
    /// Its public part, by which it is rotated and revoked.
    pub id: String,
    /// The agency that it is for; `None` if it is an operator's.
    pub agency: Option<u32>,
    /// The operator's role; `None` if it is an agency's.
    pub role: Option<String>,
    /// What a person calls it; may be empty.
    pub label: String,
    /// UTC, ISO 8601, like all times here.
    pub created_at: String,
    /// From when on it counts no more; `None`: it does not expire.
    pub expires_at: Option<String>,
    /// When it was last used, to within some seconds; `None`: never.
    pub last_used_at: Option<String>,
    /// When it was revoked; `None`: it is not.
    pub revoked_at: Option<String>,
}

/// Returns all tokens: the agencies' by number, then the operators', each oldest first.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<TokenRecord>> {
    connection
        .prepare(
            "SELECT id, agency, role, label, created_at, expires_at, last_used_at, revoked_at FROM tokens
              ORDER BY agency IS NULL, agency, role, created_at, id",
        )?
        .query_map([], |row| {
            Ok(TokenRecord {
                id: row.get(0)?,
                agency: row.get(1)?,
                role: row.get(2)?,
                label: row.get(3)?,
                created_at: row.get(4)?,
                expires_at: row.get(5)?,
                last_used_at: row.get(6)?,
                revoked_at: row.get(7)?,
            })
        })?
        .collect()
}
