//! The reading half of the store: a pool of connections, and the reads of agencies.
//!
//! Every read collects its rows before anything else happens: a reader that stays open
//! keeps the WAL from starting over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{OptionalExtension as _, Row, params};
use scheduled_thread_pool::ScheduledThreadPool;

use super::super::{DrawStatus, StoreError, StoredToken, WinnersSize, WinningBet};
use super::error::OpenError;
use super::files::DatabaseFiles;
use super::status::{self, newest_draw, read_draw_status};
use super::{append, connection, tokens};
use sorteo_protocol::{AgencyId, DrawId, TokenId, UploadId};

/// How long a read waits for a free connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool of reading connections.
#[derive(Debug)]
pub(super) struct Readers {
    pool: r2d2::Pool<SqliteConnectionManager>,
}

impl Readers {
    /// Opens all connections at once: a pool that grows later could fail in the middle of
    /// a request.
    pub(super) fn open(files: &DatabaseFiles, connections: u32) -> Result<Self, OpenError> {
        let manager = SqliteConnectionManager::file(files.database())
            .with_flags(connection::READER_FLAGS)
            .with_init(connection::configure);
        let pool = r2d2::Pool::builder()
            .max_size(connections)
            .min_idle(Some(connections))
            .max_lifetime(None)
            .idle_timeout(None)
            .test_on_check_out(false)
            .connection_timeout(CONNECTION_TIMEOUT)
            // The pool's own default is three threads.
            .thread_pool(Arc::new(pool_thread()))
            .build(manager)
            .map_err(|source| OpenError::Pool { path: files.database().to_owned(), source })?;
        Ok(Self { pool })
    }

    /// Runs one read. A failure is logged here; the caller only learns that a retry may
    /// help.
    fn read<T>(
        &self,
        what: &'static str,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = self.pool.get().map_err(|error| read_failed(what, &error))?;
        debug_assert!(connection.is_autocommit(), "a transaction leaked into the pool");
        query(&connection).map_err(|error| read_failed(what, &error))
    }

    pub(super) fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        self.read("standing", newest_draw)
    }

    pub(super) fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        self.read("draw", |connection| status::find_draw(connection, draw))
    }

    pub(super) fn previous_draw_for(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        self.read("draw_before", |connection| {
            connection
                .prepare_cached(
                    "WITH newest AS (SELECT id FROM draws ORDER BY id DESC LIMIT 1)
                     SELECT standings.* FROM standings, newest
                      WHERE standings.draw = newest.id - 1
                        AND EXISTS (SELECT 1 FROM done_agencies WHERE draw_id = newest.id - 1 AND agency = $1)
                        AND NOT EXISTS (SELECT 1 FROM agency_totals WHERE draw_id = newest.id AND agency = $1)
                        AND (SELECT drawn_at FROM draws WHERE draws.id = newest.id) IS NULL",
                )?
                .query_row([agency.0], read_draw_status)
                .optional()
        })
    }

    pub(super) fn next_row(
        &self,
        draw: DrawId,
        agency: AgencyId,
        upload: &UploadId,
    ) -> Result<u64, StoreError> {
        self.read("next_row", |connection| append::next_row(connection, draw, agency, upload.as_str()))
    }

    /// Reads winning bets. A winner whose bet cannot be read is an error: it is not left
    /// out.
    pub(super) fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError> {
        self.read("winners", |connection| {
            connection
                .prepare_cached(
                    "SELECT winners.bet_id, first_name, last_name, document, birthdate, number
                       FROM winners LEFT JOIN bets ON bets.id = winners.bet_id
                      WHERE winners.draw_id = $1 AND winners.agency = $2 AND winners.bet_id > $3
                      ORDER BY winners.bet_id LIMIT $4",
                )?
                .query_map(params![draw.0, agency.0, after, bets_max], read_winning_bet)?
                .collect()
        })
    }

    pub(super) fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError> {
        self.read("winners_size", |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT winners, winner_text_bytes FROM agency_totals WHERE draw_id = $1 AND agency = $2",
                )?
                .query_row(params![draw.0, agency.0], |row| {
                    Ok(WinnersSize { bets: row.get(0)?, text_bytes: row.get(1)? })
                })
                .optional()?;
            Ok(found.unwrap_or_default())
        })
    }

    pub(super) fn token(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        self.read("token", |connection| tokens::find(connection, id))
    }

    pub(super) fn tokens_version(&self) -> Result<u64, StoreError> {
        self.read("tokens_version", tokens::version)
    }

    pub(super) fn token_ends(&self) -> Result<BTreeMap<TokenId, SystemTime>, StoreError> {
        self.read("token_ends", tokens::ends)
    }
}

/// Returns the one thread that replaces broken connections.
fn pool_thread() -> ScheduledThreadPool {
    ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("sorteo-pool").build()
}

fn read_winning_bet(row: &Row<'_>) -> rusqlite::Result<WinningBet> {
    Ok(WinningBet {
        id: row.get(0)?,
        first_name: row.get(1)?,
        last_name: row.get(2)?,
        document: row.get(3)?,
        birthdate: row.get(4)?,
        number: row.get(5)?,
    })
}

fn read_failed(what: &'static str, error: &dyn std::fmt::Display) -> StoreError {
    crate::event!(Error, "read_database", Fail, query = what, error = error);
    StoreError::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::open;

    #[test]
    fn every_pooled_connection_has_every_setting() {
        let folder = tempfile::tempdir().unwrap();
        let files = DatabaseFiles::at(folder.path().join("a.db"));
        let _writer = open::open_writer(&files).unwrap();
        let readers = Readers::open(&files, 5).unwrap();
        // All at once, so that no connection is seen twice.
        let connections: Vec<_> = (0..5).map(|_| readers.pool.get().unwrap()).collect();
        for connection in &connections {
            let pragma =
                |name: &str| -> i64 { connection.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
            assert_eq!(pragma("synchronous"), 2, "FULL");
            assert_eq!(pragma("foreign_keys"), 1);
            assert_eq!(pragma("trusted_schema"), 0);
            assert_eq!(pragma("busy_timeout"), 5000);
            assert_eq!(pragma("mmap_size"), 0);
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            assert!(connection.is_readonly("main").unwrap(), "a reader cannot write");
        }
    }
}
