//! A seed's `bets.csv`: the bets of all agencies in one file, six columns of which
//! the agency is the first, no header. It is stored in the newest draw as if each
//! agency had sent its own rows in one upload, named after the file's SHA-256: so
//! the same file is stored once however often it is imported, and one that was
//! interrupted goes on.
//!
//! The file is read twice, as an agency reads its own: once to check every row,
//! once to store them. No agency is done by this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::store::{AppendRefusal, Store, StoreError};
use sorteo_agency::rows::{self, FileError, Version};
use sorteo_protocol::{AgencyId, Batch, Bets, DrawId, UploadId, UploadPosition};

/// The column before a bet's own.
const AGENCY: &str = "agency";
/// Rows that are stored together, at most, with one sync: some hundred KiB.
const ROWS_TOGETHER: usize = 10_000;

/// Why a file was not imported, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read, or a row is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// The draw takes no bets.
    #[error("draw {0} is made and takes no bets: open the next one first")]
    DrawClosed(DrawId),
    /// An agency of the file sends no more bets.
    #[error("agency {agency} is done in draw {draw} and takes no more bets")]
    AgencyDone {
        /// The agency.
        agency: AgencyId,
        /// The draw.
        draw: DrawId,
    },
    /// The store refused rows that follow on those it has.
    #[error(
        "the bets of agency {agency} do not follow on what is stored: somebody else writes to the database"
    )]
    OutOfPlace {
        /// The agency.
        agency: AgencyId,
    },
    /// The store failed. What was stored before stays.
    #[error("{0}: import the file again, it goes on where it stopped")]
    Store(#[from] StoreError),
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The draw that the bets are in.
    pub draw: DrawId,
    /// Agencies in the file.
    pub agencies: u64,
    /// Bets that were stored now.
    pub stored: u64,
    /// Bets of the file that were stored before.
    pub before: u64,
}

/// Told how many of how many rows are stored.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// What a file holds, all of which is fine.
#[derive(Debug)]
pub struct Checked {
    path: PathBuf,
    version: Version,
    upload: UploadId,
    /// Rows of each agency.
    rows: BTreeMap<AgencyId, u64>,
}

/// Reads the whole file and checks every row.
pub fn check(path: &Path) -> Result<Checked, ImportError> {
    let version = Version::of(path)?;
    let mut rows = Rows::open(path)?;
    let mut counts = BTreeMap::new();
    let mut one = Bets::default();
    while let Some(agency) = rows.next_into(&mut one)? {
        *counts.entry(agency).or_default() += 1;
        one.clear();
    }
    if counts.is_empty() {
        return Err(FileError::Empty(path.to_owned()).into());
    }
    Ok(Checked { path: path.to_owned(), version, upload: rows.upload(), rows: counts })
}

impl Checked {
    /// Stores all rows that are not stored yet.
    pub fn store_in(&self, store: &impl Store, progress: &mut Progress<'_>) -> Result<Imported, ImportError> {
        let draw = store.newest_draw()?.draw;
        let all: u64 = self.rows.values().sum();
        let mut cursors = BTreeMap::new();
        for (agency, rows) in &self.rows {
            let next_row = store.next_row(*agency, &self.upload)?;
            if next_row < *rows {
                require_open(store, draw, *agency)?;
            }
            cursors.insert(*agency, Cursor { next_row, ..Cursor::default() });
        }
        let before: u64 = cursors.values().map(|cursor| cursor.next_row).sum();
        progress(before, all);
        if before < all {
            self.store_rest(store, draw, &mut cursors, &mut |stored| progress(before + stored, all))?;
        }
        Ok(Imported { draw, agencies: self.rows.len() as u64, stored: all - before, before })
    }

    fn store_rest(
        &self,
        store: &impl Store,
        draw: DrawId,
        cursors: &mut BTreeMap<AgencyId, Cursor>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ImportError> {
        let mut rows = Rows::open(&self.path)?;
        let mut one = Bets::default();
        let (mut waiting, mut stored) = (0, 0);
        while let Some(agency) = rows.next_into(&mut one)? {
            // An agency that was not there when the rows were checked.
            let cursor = cursors.get_mut(&agency).ok_or_else(|| self.changed())?;
            if cursor.take(&mut one) {
                waiting += 1;
            }
            if waiting == ROWS_TOGETHER {
                self.flush(store, draw, cursors)?;
                stored += waiting as u64;
                waiting = 0;
                progress(stored);
            }
        }
        if rows.upload() != self.upload {
            return Err(self.changed().into());
        }
        self.flush(store, draw, cursors)?;
        progress(stored + waiting as u64);
        Ok(())
    }

    /// Stores what waits, all of it or nothing. A file that changes is noticed
    /// before more of it is stored under the name of what it was.
    fn flush(
        &self,
        store: &impl Store,
        draw: DrawId,
        cursors: &mut BTreeMap<AgencyId, Cursor>,
    ) -> Result<(), ImportError> {
        if Version::of(&self.path)? != self.version {
            return Err(self.changed().into());
        }
        let filled = cursors.iter_mut().filter(|(_, cursor)| !cursor.bets.is_empty());
        let batches: Vec<Batch> = filled.map(|(agency, cursor)| cursor.cut(*agency, &self.upload)).collect();
        let Some(agency) = batches.first().map(|batch| batch.agency) else { return Ok(()) };
        store.append(batches)?.wait()?.map_err(|refusal| refused(refusal, draw, agency))
    }

    fn changed(&self) -> FileError {
        FileError::Changed(self.path.clone())
    }
}

/// An append of no bets is refused as one of bets would be, and stores nothing.
fn require_open(store: &impl Store, draw: DrawId, agency: AgencyId) -> Result<(), ImportError> {
    let nothing = Batch { agency, bets: Bets::default(), position: None };
    store.append(vec![nothing])?.wait()?.map_err(|refusal| refused(refusal, draw, agency))
}

fn refused(refusal: AppendRefusal, draw: DrawId, agency: AgencyId) -> ImportError {
    match refusal {
        AppendRefusal::DrawClosed => ImportError::DrawClosed(draw),
        AppendRefusal::AgencyDone => ImportError::AgencyDone { agency, draw },
        AppendRefusal::Gap { .. } | AppendRefusal::Conflict => ImportError::OutOfPlace { agency },
    }
}

/// Where one agency's upload stands.
#[derive(Debug, Default)]
struct Cursor {
    /// The first row that is neither stored nor waiting here: of the upload's own.
    next_row: u64,
    /// Rows of the agency that were read.
    read: u64,
    /// Rows that wait to be stored.
    bets: Bets,
}

impl Cursor {
    /// Takes a row, unless it is stored already; answers whether it was taken.
    fn take(&mut self, one: &mut Bets) -> bool {
        self.read += 1;
        let is_new = self.read > self.next_row;
        if is_new {
            for bet in one.iter() {
                let number = bet.number.to_string();
                let fields = [bet.first_name, bet.last_name, bet.document, bet.birthdate, &number];
                self.bets.push(fields).expect("a bet that was taken is one");
            }
        }
        one.clear();
        is_new
    }

    /// What waits, as the upload's next batch.
    fn cut(&mut self, agency: AgencyId, upload: &UploadId) -> Batch {
        let bets = std::mem::take(&mut self.bets);
        let first_row = self.read - bets.len() as u64;
        Batch { agency, bets, position: Some(UploadPosition { upload: upload.clone(), first_row }) }
    }
}

/// The rows of a file, one by one.
struct Rows(rows::Rows<Hashed>);

impl Rows {
    fn open(path: &Path) -> Result<Self, FileError> {
        let file = Hashed { file: rows::open_regular(path)?, digest: Sha256::new() };
        Ok(Self(rows::Rows::new(path, file)))
    }

    /// Moves the next row's bet into `bets`, and returns its agency.
    fn next_into(&mut self, bets: &mut Bets) -> Result<Option<AgencyId>, FileError> {
        let Some([agency]) = self.0.next_into([AGENCY], bets)? else {
            return Ok(None);
        };
        match agency.parse() {
            Ok(agency) => Ok(Some(agency)),
            Err(_) => {
                let agency = agency.to_owned();
                Err(self.0.column_error(0, AGENCY, &agency, "a whole number from 0 to 4294967295"))
            }
        }
    }

    /// Returns the name of an upload of what was read so far: at the end, the file's
    /// SHA-256 as `sha256sum` prints it.
    fn upload(&self) -> UploadId {
        UploadId::of_digest(&self.0.get_ref().digest.clone().finalize().into())
    }
}

/// A file, and the digest of what was read of it.
struct Hashed {
    file: File,
    digest: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.digest.update(&buffer[..bytes]);
        Ok(bytes)
    }
}
