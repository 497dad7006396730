//! An agency's file of bets: CSV, five columns, no header, cut into batches.

use std::fs::File;
use std::path::Path;

use sorteo_protocol::wire::{FRAME_BYTES_MAX, framed};
use sorteo_protocol::{Bets, DigestBuilder, UploadId};

use crate::rows::{FileError, Rows, Version, open_regular};

/// Most bytes of a batch on the wire, its header included: what the original servers
/// allow.
const BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// Bytes that a batch's header takes at most: verb, agency, count, upload, row.
const HEADER_BYTES_MAX: usize = framed::LENGTH_BYTES + "BATCH|".len() + 10 + 1 + 5 + 1 + 64 + 1 + 20;

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
        let mut one = Bets::default();
        while rows.next_into(&mut one)? {
            one.clear();
        }
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
}

impl Batches {
    /// Opens the file again, to send what [`Scan::of`] has checked, in batches of at most
    /// `bets_max` bets.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened.
    pub fn open(path: &Path, scan: &Scan, bets_max: usize) -> Result<Self, FileError> {
        Ok(Self { rows: HashedRows::open(path)?, scan: scan.clone(), bets_max })
    }

    /// Passes over the first `rows` rows, which are stored already.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or a row is wrong.
    pub fn skip(&mut self, rows: u64) -> Result<(), FileError> {
        let mut one = Bets::default();
        while self.rows.rows.count() < rows && self.rows.next_into(&mut one)? {
            one.clear();
        }
        Ok(())
    }

    /// Returns the next batch, at most 8 KiB on the wire; at the end of the file `None`,
    /// once it is certain that the file did not change.
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
            if bytes > BATCH_BYTES_MAX && !bets.is_empty() {
                break;
            }
            self.rows.next_into(&mut bets)?;
        }
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
}

impl HashedRows {
    fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self { rows: Rows::new(path, open_regular(path)?), digest: DigestBuilder::default() })
    }

    /// Moves the next row into `bets`, and returns whether there was one.
    fn next_into(&mut self, bets: &mut Bets) -> Result<bool, FileError> {
        if self.rows.next_into([], bets)?.is_none() {
            return Ok(false);
        }
        self.digest.add(bets.iter().last().expect("just pushed"));
        Ok(true)
    }

    /// Returns the name of an upload of the rows taken so far.
    fn upload(&self) -> UploadId {
        UploadId::of_digest(&self.digest.clone().finish().0)
    }
}
