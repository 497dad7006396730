//! An agency's file of bets: CSV, five columns, no header, cut into batches.

use std::fs::File;
use std::path::Path;

use sorteo_protocol::wire::framed;
use sorteo_protocol::{Bets, DigestBuilder, UploadId};

use crate::rows::{FileError, Rows, Version, open_regular};

/// Bytes that a batch's header takes at most: verb, agency, count, upload, row, draw.
const HEADER_BYTES_MAX: usize = framed::LENGTH_BYTES + "BATCH|".len() + 10 + 1 + 5 + 1 + 64 + 1 + 20 + 1 + 20;

/// Rows that are read together where they are only checked.
const CHECKED_ROWS: usize = 256;

/// What a file holds, all of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    version: Version,
    /// Rows, which are bets.
    pub rows: u64,
    /// Named after the SHA-256 of the rows: the same bets are the same upload.
    pub upload: UploadId,
}

impl Scan {
    /// Reads the whole file once and checks every row.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, a row is wrong, or there is none and `allow_empty`
    /// does not allow that.
    pub fn of(path: &Path, allow_empty: bool) -> Result<Self, FileError> {
        let version = Version::of(path)?;
        let mut rows = HashedRows::open(path)?;
        while rows.pass_over(u64::MAX)? {}
        match rows.rows.count() {
            0 if !allow_empty => Err(FileError::Empty(path.to_owned())),
            count => Ok(Self { version, rows: count, upload: rows.upload() }),
        }
    }
}

/// The file's rows cut into batches.
#[derive(Debug)]
pub struct Batches {
    rows: HashedRows,
    scan: Scan,
    bets_max: usize,
    bytes_max: usize,
}

impl Batches {
    /// Opens the file again, to send what [`Scan::of`] has checked, in batches of at most
    /// `bets_max` bets and, unless a single bet is more, `bytes_max` bytes as they travel
    /// in the framed dialect.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened.
    pub fn open(path: &Path, scan: &Scan, bets_max: usize, bytes_max: usize) -> Result<Self, FileError> {
        Ok(Self { rows: HashedRows::open(path)?, scan: scan.clone(), bets_max, bytes_max })
    }

    /// Passes over the first `rows` rows, which are stored already.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or a row is wrong.
    pub fn skip(&mut self, rows: u64) -> Result<(), FileError> {
        while self.rows.pass_over(rows)? {}
        Ok(())
    }

    /// Returns the next batch; at the end of the file `None`, once it is certain that the
    /// file did not change.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or changed since it was checked. A change is
    /// noticed before more of the file is sent: rows that are not of the upload must not
    /// be stored under its name.
    pub fn next_batch(&mut self) -> Result<Option<Bets>, FileError> {
        let path = self.rows.rows.path();
        if Version::of(path)? != self.scan.version {
            return Err(FileError::Changed(path.to_owned()));
        }
        let mut bets = Bets::default();
        let mut bytes = HEADER_BYTES_MAX;
        while bets.len() < self.bets_max && self.rows.rows.count() < self.scan.rows {
            let Some(row_bytes) = self.rows.rows.peek_bytes()? else {
                break;
            };
            bytes += framed::LENGTH_BYTES + row_bytes;
            if bytes > self.bytes_max && !bets.is_empty() {
                break;
            }
            self.rows.rows.next_into([], &mut bets)?;
        }
        self.rows.digest.add_all(&bets);
        if !bets.is_empty() {
            return Ok(Some(bets));
        }
        let ended = self.rows.rows.count() == self.scan.rows && self.rows.rows.peek_bytes()?.is_none();
        let unchanged = ended && self.rows.upload() == self.scan.upload;
        if unchanged { Ok(None) } else { Err(FileError::Changed(self.rows.rows.path().to_owned())) }
    }
}

/// The rows of a file, and the digest of those taken so far.
#[derive(Debug)]
struct HashedRows {
    rows: Rows<File>,
    digest: DigestBuilder,
    /// Room for rows that are only checked.
    checked: Bets,
}

impl HashedRows {
    fn open(path: &Path) -> Result<Self, FileError> {
        let rows = Rows::new(path, open_regular(path)?);
        Ok(Self { rows, digest: DigestBuilder::default(), checked: Bets::default() })
    }

    /// Takes some more of the first `count` rows of the file, and returns whether there may
    /// be more of them.
    fn pass_over(&mut self, count: u64) -> Result<bool, FileError> {
        self.checked.clear();
        while self.checked.len() < CHECKED_ROWS
            && self.rows.count() < count
            && self.rows.next_into([], &mut self.checked)?.is_some()
        {}
        self.digest.add_all(&self.checked);
        Ok(self.checked.len() == CHECKED_ROWS)
    }

    /// Returns the name of an upload of the rows taken so far.
    fn upload(&self) -> UploadId {
        UploadId::of_digest(&self.digest.clone().finish().0)
    }
}
