//! The table `tokens`: reading it, and each change of a row.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::time::{now, read_time, stored_time};
use crate::store::{Role, StoredToken, TokenHolder, TokenUse};
use sorteo_protocol::{AgencyId, Token, TokenId};

/// Longest label of a token, in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 100;

/// Returns the token of this id.
pub(super) fn find(connection: &Connection, id: &TokenId) -> rusqlite::Result<Option<StoredToken>> {
    connection
        .prepare_cached(
            "SELECT agency, role, digest, expires_at, revoked_at IS NOT NULL FROM tokens WHERE id = $1",
        )?
        .query_row([id.as_str()], read_stored)
        .optional()
}

fn read_stored(row: &Row<'_>) -> rusqlite::Result<StoredToken> {
    let expires_at: Option<String> = row.get(3)?;
    Ok(StoredToken {
        holder: read_holder(row)?,
        digest: row.get(2)?,
        expires_at: expires_at.map(|text| read_time(&text).ok_or_else(|| not_ours(3))).transpose()?,
        is_revoked: row.get(4)?,
    })
}

/// Reads whose a token is from the first two columns: its agency and its role.
pub(super) fn read_holder(row: &Row<'_>) -> rusqlite::Result<TokenHolder> {
    let (agency, role): (Option<u32>, Option<String>) = (row.get(0)?, row.get(1)?);
    match (agency, role) {
        (Some(agency), _) => Ok(TokenHolder::Agency(AgencyId(agency))),
        (None, Some(role)) => role.parse::<Role>().map(TokenHolder::Operator).map_err(|_| not_ours(1)),
        (None, None) => Err(not_ours(0)),
    }
}

/// A value that no version of ours writes.
fn not_ours(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "tokens".to_owned(), Type::Text)
}

/// Returns the number of the audit's newest row: whatever changes which tokens count adds one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT coalesce(max(id), 0) FROM audit")?.query_row([], |row| row.get(0))
}

/// Returns when each token ends that does: see [`Tokens::ends`](crate::store::Tokens::ends).
pub(super) fn ends(connection: &Connection) -> rusqlite::Result<BTreeMap<TokenId, SystemTime>> {
    connection
        .prepare_cached(
            "SELECT id, expires_at, revoked_at IS NOT NULL FROM tokens
              WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL",
        )?
        .query_map([], |row| {
            let (id, expires_at, is_revoked): (String, Option<String>, bool) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let end = expires_at.filter(|_| !is_revoked).and_then(|end| read_time(&end));
            // A token whose end nobody can read counts no more, and those with other ends do:
            // an error here would let all that were revoked live on.
            Ok(id.parse().ok().map(|id| (id, end.unwrap_or(SystemTime::UNIX_EPOCH))))
        })?
        .filter_map(Result::transpose)
        .collect()
}

/// Whose a new token is, and until when it counts.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Whose it is.
    pub holder: TokenHolder,
    /// What a person calls it: one line of at most [`LABEL_BYTES_MAX`] bytes, or nothing.
    pub label: String,
    /// From when on it counts no more; `None`: it does not expire.
    pub expires_at: Option<SystemTime>,
}

/// Stores a new token.
pub(super) fn insert(connection: &Connection, token: &Token, new: &NewToken) -> rusqlite::Result<()> {
    let (agency, role) = match new.holder {
        TokenHolder::Agency(agency) => (Some(agency.0), None),
        TokenHolder::Operator(role) => (None, Some(role.as_str())),
    };
    connection.execute(
        "INSERT INTO tokens (id, agency, role, label, digest, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            token.id().as_str(),
            agency,
            role,
            new.label,
            token.digest(),
            now(),
            new.expires_at.map(stored_time)
        ],
    )?;
    Ok(())
}

/// Returns what a person calls a token.
pub(super) fn label(connection: &Connection, id: &TokenId) -> rusqlite::Result<String> {
    connection.query_row("SELECT label FROM tokens WHERE id = $1", [id.as_str()], |row| row.get(0))
}

/// Lets a token expire at a time.
pub(super) fn expire(connection: &Connection, id: &TokenId, at: SystemTime) -> rusqlite::Result<()> {
    connection
        .execute("UPDATE tokens SET expires_at = $1 WHERE id = $2", params![stored_time(at), id.as_str()])?;
    Ok(())
}

/// Revokes a token.
pub(super) fn revoke(connection: &Connection, id: &TokenId) -> rusqlite::Result<()> {
    connection.execute("UPDATE tokens SET revoked_at = $1 WHERE id = $2", params![now(), id.as_str()])?;
    Ok(())
}

/// Records when tokens were last used.
pub(super) fn record_uses(connection: &Connection, uses: &[TokenUse]) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached("UPDATE tokens SET last_used_at = $1 WHERE id = $2")?;
    for TokenUse { token, at } in uses {
        update.execute(params![stored_time(*at), token.as_str()])?;
    }
    Ok(())
}
