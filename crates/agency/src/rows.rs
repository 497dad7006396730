//! The rows of a CSV file of bets, read one by one: five columns and no header, or more
//! columns before those five.
//!
//! Every row is checked as it is read, and an error names the line, the column and the
//! rule. A file is usually read twice, once to check all of it and once to use it: so
//! that nothing of a malformed file is used.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use csv::ByteRecord;
use sorteo_protocol::{BetError, Bets};

/// The columns in their order, as an error names them.
const COLUMNS: [&str; 5] = ["first name", "last name", "document", "birthdate", "number"];

/// Most characters of a field that an error shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("{}: {source}: give the file of the agency's bets in --file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
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
    /// It was changed between the check and the sending. What was sent stays stored, so
    /// only the file as it was can be finished.
    #[error("{}: the file changed while it was being sent: bring back the file as it was, and send that", .0.display())]
    Changed(PathBuf),
}

/// Length and time of the last change of a file, to notice another change early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u64, SystemTime);

impl Version {
    /// Returns the version that a file has now.
    ///
    /// # Errors
    ///
    /// Where the file cannot be looked up.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        std::fs::metadata(path)
            .and_then(|metadata| Ok(Self(metadata.len(), metadata.modified()?)))
            .map_err(|source| FileError::Io { path: path.to_owned(), source })
    }
}

/// Opens a file that is read twice, which a pipe or a terminal cannot be.
///
/// # Errors
///
/// Where it cannot be opened, or is not a regular file.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    match file.metadata().map_err(io)?.is_file() {
        true => Ok(file),
        false => Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))),
    }
}

/// The rows of a file, one by one.
#[derive(Debug)]
pub struct Rows<R> {
    path: PathBuf,
    reader: csv::Reader<R>,
    /// The row that was read last.
    record: ByteRecord,
    /// Whether that row was only looked at.
    peeked: bool,
    count: u64,
}

impl<R: io::Read> Rows<R> {
    /// The rows of an open file, which errors call `path`.
    pub fn new(path: &Path, file: R) -> Self {
        // How many columns a row has is looked at afterwards, for a better error.
        let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
        Self { path: path.to_owned(), reader, record: ByteRecord::new(), peeked: false, count: 0 }
    }

    /// The file's path, as errors show it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows were taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What the rows are read from.
    pub fn get_ref(&self) -> &R {
        self.reader.get_ref()
    }

    /// Returns the bytes of the next row's text, one separator between two fields
    /// included, without taking the row; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn peek_bytes(&mut self) -> Result<Option<usize>, FileError> {
        if !self.peeked {
            self.peeked =
                self.reader.read_byte_record(&mut self.record).map_err(|error| self.read_error(error))?;
        }
        let separators = self.record.len().saturating_sub(1);
        Ok(self.peeked.then(|| self.record.as_slice().len() + separators))
    }

    /// Takes the next row, moves its bet into `bets`, and returns the fields before the
    /// bet's own five, whose columns are called `before`; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or the row is wrong; then nothing is moved.
    pub fn next_into<const N: usize>(
        &mut self,
        before: [&'static str; N],
        bets: &mut Bets,
    ) -> Result<Option<[&str; N]>, FileError> {
        if self.peek_bytes()?.is_none() {
            return Ok(None);
        }
        self.peeked = false;
        let first = self.count == 0;
        self.count += 1;
        match push_row(&self.record, before, first, bets) {
            Ok(ahead) => Ok(Some(ahead)),
            Err(problem) => Err(self.row_error(problem)),
        }
    }

    /// The error of a column of the row that was taken last; `index` counts from 0.
    pub fn column_error(&self, index: usize, name: &str, value: &str, rule: &str) -> FileError {
        self.row_error(column_problem(index, name, value, rule))
    }

    fn row_error(&self, problem: String) -> FileError {
        let line = self.record.position().map_or(0, csv::Position::line);
        FileError::Row { path: self.path.clone(), line, problem }
    }

    fn read_error(&self, error: csv::Error) -> FileError {
        let message = error.to_string();
        let source = match error.into_kind() {
            csv::ErrorKind::Io(source) => source,
            _ => io::Error::other(message),
        };
        FileError::Io { path: self.path.clone(), source }
    }
}

/// Moves a row's bet into `bets` and returns the fields before it; an error says which
/// column is wrong, and how.
fn push_row<'a, const N: usize>(
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

/// Says what is wrong with a bet that comes behind `before` columns.
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

/// Says what a column holds, and what it should.
fn column_problem(index: usize, name: &str, value: &str, rule: &str) -> String {
    let value: String = value.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    format!("column {} ({name}): `{value}` is not {rule}", index + 1)
}
