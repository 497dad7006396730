//! What operators see of a database: its draws, its agencies, the winners, and the tokens.
//!
//! Read on a connection of its own, beside a running server or without one, so that an
//! operator who looks takes no connection from an agency. Fields are named as in the
//! operators' JSON.

mod agencies;
mod draws;
mod results;
mod tokens;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

pub use self::agencies::Agency;
pub use self::draws::Draw;
pub use self::results::{Query, Results, ResultsCursor, Winner};
pub use self::tokens::TokenRecord;
use super::error::{OpenError, sqlite_error};
use super::event::Announcement;
use super::files::DatabaseFiles;
use super::open;
use sorteo_protocol::DrawId;

/// A database opened to be looked at.
#[derive(Debug)]
pub struct Overview {
    connection: Connection,
    path: PathBuf,
    /// That of the store in this process, if there is one.
    announcement: Announcement,
}

/// A draw with its agencies, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The draw.
    pub draw: Draw,
    /// The agencies that sent a bet or are done.
    pub agencies: Vec<Agency>,
}

impl Overview {
    /// Opens an existing database, on which a server has run.
    ///
    /// # Errors
    ///
    /// Fails if there is no database of ours at the path, or if it cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open::open_reader(&DatabaseFiles::resolve(path))?;
        Ok(Self { connection, path: path.to_owned(), announcement: Announcement::default() })
    }

    /// Opens the database of a store in this process, which has verified it.
    pub(super) fn of_store(files: &DatabaseFiles, announcement: Announcement) -> Result<Self, OpenError> {
        let connection = open::open_beside_store(files)?;
        Ok(Self { connection, path: files.database().to_owned(), announcement })
    }

    /// Returns the newest draws, newest first.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be read, like every function here.
    pub fn draws(&self, draws_max: usize) -> Result<Vec<Draw>, OpenError> {
        self.read(|connection| draws::newest(connection, draws_max))
    }

    /// Returns one draw, or the newest; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be read.
    pub fn draw(&self, draw: Option<DrawId>) -> Result<Option<Draw>, OpenError> {
        self.read(|connection| draws::find(connection, draw))
    }

    /// Returns one draw, or the newest, with its agencies; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be read.
    pub fn detail(&self, draw: Option<DrawId>) -> Result<Option<Detail>, OpenError> {
        self.read(|connection| {
            let Some(draw) = draws::find(connection, draw)? else {
                return Ok(None);
            };
            let agencies = agencies::of_draw(connection, draw.id)?;
            Ok(Some(Detail { draw, agencies }))
        })
    }

    /// Returns a page of a draw's winners, by agency and then in stored order.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be read.
    pub fn results(&self, draw: DrawId, query: &Query) -> Result<Results, OpenError> {
        self.read(|connection| results::page(connection, draw, query))
    }

    /// Returns all tokens, those that count no more included.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be read.
    pub fn tokens(&self) -> Result<Vec<TokenRecord>, OpenError> {
        self.read(tokens::all)
    }

    /// Runs a read on one snapshot.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, OpenError> {
        let fail = |source| sqlite_error(&self.path, "reading", source);
        let snapshot = self.connection.unchecked_transaction().map_err(fail)?;
        let found = read(&snapshot).map_err(fail);
        // A draw that was read as drawn has been announced when this returns.
        self.announcement.wait();
        found
    }
}
