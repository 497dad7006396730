//! Imports the bets of all agencies from one file, such as the `bets.csv` of the original
//! servers: six columns, the first of which is the agency, without a header.
//!
//! The bets are stored in the newest draw as if each agency had sent its rows in one upload
//! whose id is the file's SHA-256. So a file is stored once however often it is imported,
//! and an import that was interrupted is resumed. The file is read twice, as an agency reads
//! its own: once to check every row, once to store them. No agency is marked as done.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::store::{AppendRefusal, NotAdmitted, Store, StoreError};
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
    #[error("draw {0} is drawn and takes no more bets: open the next draw first")]
    DrawClosed(DrawId),
    /// An agency of the file sends no more bets.
    #[error("agency {agency} is done in draw {draw} and takes no more bets")]
    AgencyDone {
        /// The agency.
        agency: AgencyId,
        /// The draw.
        draw: DrawId,
    },
    /// An agency of the file may not take part in the draw.
    #[error("draw {draw} does not admit agency {agency}: {}", match reason {
        NotAdmitted::Unknown => "it expects other agencies",
        NotAdmitted::TooMany => "as many agencies as may take part do already",
    })]
    NotAdmitted {
        /// The agency.
        agency: AgencyId,
        /// The draw.
        draw: DrawId,
        /// Why not.
        reason: NotAdmitted,
    },
    /// An agency of the file would have more bets than it may.
    #[error("agency {agency} would have more bets in draw {draw} than agency_bets_max allows")]
    TooManyBets {
        /// The agency.
        agency: AgencyId,
        /// The draw.
        draw: DrawId,
    },
    /// The store refused rows that continue those it has.
    #[error(
        "the bets of agency {agency} do not continue what is stored: another process writes to the database"
    )]
    OutOfPlace {
        /// The agency.
        agency: AgencyId,
    },
    /// The store failed. What was stored before stays.
    #[error("{0}: import the file again, it resumes where it stopped")]
    Store(#[from] StoreError),
}

/// The result of an import.
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

/// Is called with the number of stored rows and of all rows.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// A file whose rows are all valid.
#[derive(Debug)]
pub struct Checked {
    path: PathBuf,
    version: Version,
    upload: UploadId,
    /// Rows of each agency.
    rows: BTreeMap<AgencyId, u64>,
}

/// Reads the whole file and checks every row.
///
/// # Errors
///
/// The file cannot be read, is empty, or a row is wrong.
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
    if !rows.0.is_terminated() {
        // The original servers end every row; one without its end was being written.
        return Err(FileError::CutOff(path.to_owned()).into());
    }
    Ok(Checked { path: path.to_owned(), version, upload: rows.upload(), rows: counts })
}

impl Checked {
    /// Stores all rows that are not stored yet.
    ///
    /// # Errors
    ///
    /// The draw or an agency takes no more bets, the file changed, or the store failed.
    pub fn store_in(&self, store: &impl Store, progress: &mut Progress<'_>) -> Result<Imported, ImportError> {
        let draw = store.newest_draw()?.draw;
        let all: u64 = self.rows.values().sum();
        let mut cursors = BTreeMap::new();
        for (agency, rows) in &self.rows {
            let next_row = store.next_row(draw, *agency, &self.upload)?;
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

    /// Stores the waiting rows, all of them or none. A file that has changed is noticed
    /// before more of it is stored under the id of its former content.
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
        // Named, so that none falls into a draw that an operator opens meanwhile.
        let batches: Vec<Batch> =
            filled.map(|(agency, cursor)| cursor.cut(*agency, &self.upload, draw)).collect();
        let Some(agency) = batches.first().map(|batch| batch.agency) else { return Ok(()) };
        store.append(batches)?.wait()?.map_err(|refusal| refused(refusal, draw, agency))
    }

    fn changed(&self) -> FileError {
        FileError::Changed(self.path.clone())
    }
}

/// Appends no bets: refused like an append of bets would be, and stores nothing.
fn require_open(store: &impl Store, draw: DrawId, agency: AgencyId) -> Result<(), ImportError> {
    let nothing = Batch { agency, bets: Bets::default(), position: None };
    store.append(vec![nothing])?.wait()?.map_err(|refusal| refused(refusal, draw, agency))
}

fn refused(refusal: AppendRefusal, draw: DrawId, agency: AgencyId) -> ImportError {
    match refusal {
        AppendRefusal::DrawClosed => ImportError::DrawClosed(draw),
        AppendRefusal::AgencyDone => ImportError::AgencyDone { agency, draw },
        AppendRefusal::NotAdmitted(reason) => ImportError::NotAdmitted { agency, draw, reason },
        AppendRefusal::TooManyBets => ImportError::TooManyBets { agency, draw },
        AppendRefusal::Gap { .. } | AppendRefusal::Conflict | AppendRefusal::NoSuchDraw => {
            ImportError::OutOfPlace { agency }
        }
    }
}

/// The position of one agency's upload.
#[derive(Debug, Default)]
struct Cursor {
    /// The upload's first row that is neither stored nor waiting here.
    next_row: u64,
    /// Rows of the agency that were read.
    read: u64,
    /// Rows that wait to be stored.
    bets: Bets,
}

impl Cursor {
    /// Takes a row, unless it is stored already. Returns whether it was taken.
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

    /// Returns the waiting rows as the upload's next batch.
    fn cut(&mut self, agency: AgencyId, upload: &UploadId, draw: DrawId) -> Batch {
        let bets = std::mem::take(&mut self.bets);
        let first_row = self.read - bets.len() as u64;
        Batch {
            agency,
            bets,
            position: Some(UploadPosition { upload: upload.clone(), first_row, draw: Some(draw) }),
        }
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
