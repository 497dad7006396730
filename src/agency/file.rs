//! An agency's file of bets: CSV, five columns, no header. It is read as a
//! stream, twice: once to check every row and to name the upload after what the
//! file holds, once to send it. So nothing of a malformed file is ever sent.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use csv::ByteRecord;

use sorteo_protocol::wire::{FRAME_BYTES_MAX, framed};
use sorteo_protocol::{BetError, Bets, DigestBuilder, UploadId};

/// The columns in their order, as an error names them.
const COLUMNS: [&str; 5] = ["first name", "last name", "document", "birthdate", "number"];

/// Most bytes of a batch on the wire, its header included: what the seeds allow.
const BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// Bytes that a batch's header takes at most: verb, agency, count, upload, row.
const HEADER_BYTES_MAX: usize = framed::LENGTH_BYTES + "BATCH|".len() + 10 + 1 + 5 + 1 + 64 + 1 + 20;

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("{}: {source}: give the file of the agency's bets in --file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no row.
    #[error("{}: the file has no bets", .0.display())]
    Empty(PathBuf),
    /// A row is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Which column is wrong, and how.
        problem: String,
    },
    /// It was changed between the check and the sending. What was sent stays
    /// stored, so only the file as it was can be finished.
    #[error("{}: the file changed while it was being sent: bring back the file as it was, and send that", .0.display())]
    Changed(PathBuf),
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    version: Version,
    /// Rows, which are bets.
    pub rows: u64,
    /// Named after the SHA-256 of the rows: the same bets are the same upload.
    pub upload: UploadId,
}

/// Reads the whole file once and checks every row.
pub fn scan(path: &Path) -> Result<Scan, FileError> {
    let version = version_of(path)?;
    let mut rows = Rows::open(path)?;
    let mut one = Bets::default();
    while rows.next_into(&mut one)? {
        one.clear();
    }
    match rows.count {
        0 => Err(FileError::Empty(path.to_owned())),
        count => Ok(Scan { version, rows: count, upload: rows.upload() }),
    }
}

/// Length and time of the last change, to notice another change early.
pub(crate) type Version = (u64, SystemTime);

pub(crate) fn version_of(path: &Path) -> Result<Version, FileError> {
    std::fs::metadata(path)
        .and_then(|metadata| Ok((metadata.len(), metadata.modified()?)))
        .map_err(|source| FileError::Io { path: path.to_owned(), source })
}

/// The file's rows cut into batches.
#[derive(Debug)]
pub struct Batches {
    rows: Rows,
    scan: Scan,
    bets_max: usize,
}

impl Batches {
    /// Opens the file again, to send what [`scan`] has checked.
    pub fn open(path: &Path, scan: &Scan, bets_max: usize) -> Result<Self, FileError> {
        Ok(Self { rows: Rows::open(path)?, scan: scan.clone(), bets_max })
    }

    /// Passes over rows that are stored already.
    pub fn skip(&mut self, rows: u64) -> Result<(), FileError> {
        let mut one = Bets::default();
        while self.rows.count < rows && self.rows.next_into(&mut one)? {
            one.clear();
        }
        Ok(())
    }

    /// The next batch: at most so many bets, and at most 8 KiB on the wire. At
    /// the end of the file, `None`, once it is certain that it did not change.
    ///
    /// A file that changes is noticed before more of it is sent: rows that are
    /// not of the upload must not be stored under its name.
    pub fn next_batch(&mut self) -> Result<Option<Bets>, FileError> {
        if version_of(&self.rows.path)? != self.scan.version {
            return Err(FileError::Changed(self.rows.path.clone()));
        }
        let mut bets = Bets::default();
        let mut bytes = HEADER_BYTES_MAX;
        while bets.len() < self.bets_max && self.rows.count < self.scan.rows {
            let Some(row_bytes) = self.rows.peek_bytes()? else {
                break;
            };
            bytes += row_bytes;
            if bytes > BATCH_BYTES_MAX && !bets.is_empty() {
                break;
            }
            self.rows.next_into(&mut bets)?;
        }
        if !bets.is_empty() {
            return Ok(Some(bets));
        }
        let ended = self.rows.count == self.scan.rows && self.rows.peek_bytes()?.is_none();
        let unchanged = ended && self.rows.upload() == self.scan.upload;
        if unchanged { Ok(None) } else { Err(FileError::Changed(self.rows.path.clone())) }
    }
}

/// The rows of a file, one by one.
#[derive(Debug)]
struct Rows {
    path: PathBuf,
    reader: csv::Reader<File>,
    /// The row that was looked at and not taken yet.
    record: ByteRecord,
    peeked: bool,
    count: u64,
    digest: DigestBuilder,
}

impl Rows {
    fn open(path: &Path) -> Result<Self, FileError> {
        let reader = csv_reader(open_regular(path)?);
        Ok(Self {
            path: path.to_owned(),
            reader,
            record: ByteRecord::new(),
            peeked: false,
            count: 0,
            digest: DigestBuilder::default(),
        })
    }

    /// Bytes that the next row takes on the wire; `None` at the end.
    fn peek_bytes(&mut self) -> Result<Option<usize>, FileError> {
        if !self.peeked {
            self.peeked =
                self.reader.read_byte_record(&mut self.record).map_err(|error| self.csv_error(error))?;
        }
        let separators = self.record.len().saturating_sub(1);
        Ok(self.peeked.then(|| framed::LENGTH_BYTES + self.record.as_slice().len() + separators))
    }

    /// Moves the next row into `bets`; answers whether there was one.
    fn next_into(&mut self, bets: &mut Bets) -> Result<bool, FileError> {
        if self.peek_bytes()?.is_none() {
            return Ok(false);
        }
        self.peeked = false;
        push_row(&self.record, [], self.count == 0, bets).map_err(|problem| self.row_error(problem))?;
        let last = bets.iter().last().expect("just pushed");
        self.digest.add(last);
        self.count += 1;
        Ok(true)
    }

    fn row_error(&self, problem: String) -> FileError {
        row_error(&self.path, &self.record, problem)
    }

    fn csv_error(&self, error: csv::Error) -> FileError {
        csv_error(&self.path, error)
    }

    /// The name of an upload of the rows read so far.
    fn upload(&self) -> UploadId {
        let hex: String = self.digest.clone().finish().0.iter().map(|byte| format!("{byte:02x}")).collect();
        UploadId::new(&hex).expect("64 hexadecimal digits are an upload id")
    }
}

/// Opens a file that is read twice, which a pipe or a terminal cannot be.
pub(crate) fn open_regular(path: &Path) -> Result<File, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    match file.metadata().map_err(io)?.is_file() {
        true => Ok(file),
        false => Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))),
    }
}

/// Reads rows as they come; how many columns they have is looked at afterwards.
pub(crate) fn csv_reader<R: io::Read>(file: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file)
}

/// Moves a row into `bets`, and answers the fields before the bet's own, which are
/// called `before`. Otherwise says which column is wrong, and how.
pub(crate) fn push_row<'a, const N: usize>(
    record: &'a ByteRecord,
    before: [&'static str; N],
    first: bool,
    bets: &mut Bets,
) -> Result<[&'a str; N], String> {
    let columns: Vec<&str> = before.into_iter().chain(COLUMNS).collect();
    if record.len() != columns.len() {
        let found = record.len();
        return Err(format!("{found} columns where there are {}: {}", columns.len(), columns.join(", ")));
    }
    let field = |index: usize| {
        std::str::from_utf8(&record[index])
            .map_err(|_| format!("column {} ({}): not UTF-8", index + 1, columns[index]))
    };
    let mut ahead = [""; N];
    for (index, slot) in ahead.iter_mut().enumerate() {
        *slot = field(index)?;
    }
    let mut fields = [""; 5];
    for (index, slot) in fields.iter_mut().enumerate() {
        *slot = field(N + index)?;
    }
    bets.push(fields).map_err(|error| bet_problem(error, fields, N, first))?;
    Ok(ahead)
}

/// What is wrong with a bet that comes behind `before` columns.
fn bet_problem(error: BetError, fields: [&str; 5], before: usize, first: bool) -> String {
    let (column, rule) = match error {
        BetError::FirstName => (0, "1 to 120 bytes without `|` or control characters"),
        BetError::LastName => (1, "1 to 120 bytes without `|` or control characters"),
        BetError::Document => (2, "1 to 32 bytes without `|`, `,` or control characters"),
        BetError::Birthdate => (3, "a date as YYYY-MM-DD"),
        _ => (4, "a whole number from 0 to 4294967295"),
    };
    let header = first && !fields[2..].iter().any(|field| field.bytes().any(|b| b.is_ascii_digit()));
    let hint = if header { "; this looks like a header: remove it" } else { "" };
    column_problem(before + column, COLUMNS[column], fields[column], rule) + hint
}

/// What a column holds, and what it should.
pub(crate) fn column_problem(index: usize, name: &str, value: &str, rule: &str) -> String {
    let value: String = value.chars().take(40).flat_map(char::escape_debug).collect();
    format!("column {} ({name}): `{value}` is not {rule}", index + 1)
}

pub(crate) fn row_error(path: &Path, record: &ByteRecord, problem: String) -> FileError {
    let line = record.position().map_or(0, csv::Position::line);
    FileError::Row { path: path.to_owned(), line, problem }
}

pub(crate) fn csv_error(path: &Path, error: csv::Error) -> FileError {
    let message = error.to_string();
    let source = match error.into_kind() {
        csv::ErrorKind::Io(source) => source,
        _ => io::Error::other(message),
    };
    FileError::Io { path: path.to_owned(), source }
}
