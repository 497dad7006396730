//! A file's first bytes: which program it belongs to, and whether they can be right.
//! They are read before anything is opened, created or locked.
//!
//! The fields are those of "The SQLite database file format", 1.3 and 1.6.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::error::OpenError;
use super::files::DatabaseFiles;
use super::schema::{APPLICATION_ID, newer, newest_version};

/// Bytes of a database's header, and of the b-tree's header after it, that show which
/// program it belongs to.
const HEADER_BYTES: usize = 108;
/// The first bytes of every SQLite database.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The fractions of a page that a cell may take: constants of the format.
const PAYLOAD_FRACTIONS: [u8; 3] = [64, 32, 32];

/// Refuses a file that is not a database of ours, or whose header cannot be right. A
/// missing or empty file is accepted if no WAL is beside it.
///
/// Must not be called while this process has the database open: see
/// [`open_beside_store`](super::open::open_beside_store).
pub(super) fn refuse_foreign_file(files: &DatabaseFiles) -> Result<(), OpenError> {
    let (path, folder) = (files.database(), files.folder());
    if !folder.is_dir() {
        return Err(OpenError::NoFolder(folder));
    }
    if path.exists() && !path.is_file() {
        return Err(OpenError::NotAFile(path.to_owned()));
    }
    let mut header = Vec::new();
    match File::open(path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(OpenError::NotWritable { path: path.to_owned(), source: error });
        }
        // SQLite would create a new database, and delete the WAL of the old one.
        Ok(0) | Err(_) if files.has_wal() => {
            let detail = format!("it is missing or empty, but its WAL {} is not", files.wal().display());
            return Err(OpenError::Corrupt { path: path.to_owned(), detail });
        }
        Ok(0) | Err(_) => return Ok(()),
        Ok(_) => {}
    }
    // A power cut while the database was created: its first page has not reached the
    // disk, and the journal beside it makes SQLite undo the rest.
    if header.iter().all(|byte| *byte == 0) && files.has_journal() {
        return Ok(());
    }
    let Some(header) = header.first_chunk().filter(|header| header.starts_with(MAGIC)) else {
        return Err(OpenError::NotSqlite(path.to_owned()));
    };
    let header = Header(header);
    if let Some(detail) = header.damage() {
        return Err(OpenError::Corrupt { path: path.to_owned(), detail });
    }
    header.refuse_other_owner(path)?;
    header.refuse_truncated(files)
}

struct Header<'a>(&'a [u8; HEADER_BYTES]);

impl Header<'_> {
    /// Returns a big-endian field of four bytes.
    fn field(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn page_bytes(&self) -> u64 {
        match u16::from_be_bytes([self.0[16], self.0[17]]) {
            1 => 65_536,
            bytes => bytes.into(),
        }
    }

    /// Returns what cannot be so in any database that SQLite wrote.
    fn damage(&self) -> Option<String> {
        let page_bytes = self.page_bytes();
        if !(page_bytes.is_power_of_two() && page_bytes >= 512) {
            return Some(format!("its header gives a page size of {page_bytes} bytes"));
        }
        if self.0[18..20].iter().any(|version| !(1..=2).contains(version)) {
            return Some(format!("its header gives the file formats {} and {}", self.0[18], self.0[19]));
        }
        if self.0[21..24] != PAYLOAD_FRACTIONS {
            return Some("its header is garbled".to_owned());
        }
        None
    }

    fn refuse_other_owner(&self, path: &Path) -> Result<(), OpenError> {
        let ours = self.field(68) == APPLICATION_ID as u32;
        // The schema version is a signed number.
        let version = i64::from(self.field(60) as i32);
        if ours && version > newest_version() {
            return Err(newer(path, version));
        }
        // The schema's b-tree follows the header. If it is not an empty leaf, there are
        // tables.
        let has_tables = self.0[100] != 0x0d || self.0[103..105] != [0, 0];
        match has_tables && !ours {
            true => Err(OpenError::Foreign(path.to_owned())),
            false => Ok(()),
        }
    }

    /// Refuses a file with fewer bytes than it has pages. SQLite refuses it too, but does
    /// not say why. If there is a WAL, the missing pages may be in it.
    fn refuse_truncated(&self, files: &DatabaseFiles) -> Result<(), OpenError> {
        let bytes = u64::from(self.field(28)) * self.page_bytes();
        // Older programs do not keep the number of pages; it holds if these two are equal.
        let holds = self.field(24) == self.field(92);
        // The WAL first: if a server is emptying it, the file is whole afterwards. A
        // journal makes SQLite undo what a power cut left half written.
        if !holds || files.has_wal() || files.has_journal() {
            return Ok(());
        }
        let found = fs::metadata(files.database()).map_or(0, |file| file.len());
        if found >= bytes {
            return Ok(());
        }
        let detail = format!("it is cut short: {found} of {bytes} bytes are there");
        Err(OpenError::Corrupt { path: files.database().to_owned(), detail })
    }
}
