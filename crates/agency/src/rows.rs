//! The rows of a CSV file of bets, read one by one: five columns and no header, or more
//! columns before those five.
//!
//! Every row is checked as it is read, and an error names the line, the column and the
//! rule. A file is usually read twice, once to check all of it and once to use it: so
//! that nothing of a malformed file is used. A field that a bet may have contains no line
//! end, so a row is always one line.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memchr::memchr;
use sorteo_protocol::{BetError, Bets};

use crate::lines::{LINE_BYTES_MAX, LineError, Lines};

/// The columns in their order, as an error names them.
const COLUMNS: [&str; 5] = ["first name", "last name", "document", "birthdate", "number"];

/// Most characters of a field that an error shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("{}: {source}: give the CSV file of the bets", path.display())]
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
    /// Its last row has no line end, where every row has one: a number may be cut off.
    #[error(
        "{}: the last row has no line end: its end may be missing. If the row is complete, end its line", .0.display()
    )]
    CutOff(PathBuf),
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
    // Looked up first: to open a pipe waits until somebody writes to it.
    match std::fs::metadata(path).map_err(io)?.is_file() {
        true => File::open(path).map_err(io),
        false => Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))),
    }
}

/// The rows of a file, one by one. Empty lines are passed over.
#[derive(Debug)]
pub struct Rows<R> {
    path: PathBuf,
    lines: Lines<R>,
    /// The fields of the row that was read last.
    fields: Fields,
    /// Whether that row was only looked at.
    peeked: bool,
    count: u64,
}

impl<R: io::Read> Rows<R> {
    /// Returns the rows of an open file, which errors call `path`.
    pub fn new(path: &Path, file: R) -> Self {
        let lines = Lines::new(file);
        Self { path: path.to_owned(), lines, fields: Fields::default(), peeked: false, count: 0 }
    }

    /// Returns the file's path, as errors show it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many rows were taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns what the rows are read from.
    pub fn get_ref(&self) -> &R {
        self.lines.get_ref()
    }

    /// Returns whether the line that was read last has its line end. A last line without
    /// one may have been cut off.
    pub fn is_terminated(&self) -> bool {
        self.lines.is_terminated()
    }

    /// Returns the bytes of the next row's text, one separator between two fields
    /// included, without taking the row; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or the line is too long or has an unbalanced quote.
    pub fn peek_bytes(&mut self) -> Result<Option<usize>, FileError> {
        while !self.peeked {
            match self.lines.next_line() {
                Ok(None) => return Ok(None),
                Ok(Some([])) => {}
                Ok(Some(line)) => {
                    let split = self.fields.split(line);
                    split.map_err(|problem| self.row_error(problem))?;
                    self.peeked = true;
                }
                Err(LineError::TooLong) => {
                    let problem = format!("the line has more than {LINE_BYTES_MAX} bytes");
                    return Err(self.row_error(problem));
                }
                Err(LineError::Io(source)) => return Err(FileError::Io { path: self.path.clone(), source }),
            }
        }
        Ok(Some(self.fields.text.len() + self.fields.len() - 1))
    }

    /// Takes the next row, moves its bet into `bets`, and returns the fields before the
    /// bet's own five, whose columns are called `before`; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Rows::peek_bytes`], and where a column is wrong; then nothing is moved.
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
        match push_row(&self.fields, before, first, bets) {
            Ok(ahead) => Ok(Some(ahead)),
            Err(problem) => Err(self.row_error(problem)),
        }
    }

    /// Returns the error of a column of the row that was taken last; `index` counts from 0.
    pub fn column_error(&self, index: usize, name: &str, value: &str, rule: &str) -> FileError {
        self.row_error(column_problem(index, name, value, rule))
    }

    fn row_error(&self, problem: String) -> FileError {
        FileError::Row { path: self.path.clone(), line: self.lines.number(), problem }
    }
}

/// The fields of one row.
#[derive(Debug, Default)]
struct Fields {
    /// All of them, one behind the other, without quotes.
    text: Vec<u8>,
    /// Where each ends in the text.
    ends: Vec<usize>,
}

impl Fields {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }

    /// Splits a line at its commas. A field that begins with a quote ends with one, and
    /// two within it stand for one (RFC 4180); an error names the column.
    ///
    /// Libraries that read CSV accept what this refuses: a quote that is never closed
    /// swallows the rest of the file, and `"75"74` becomes 7574.
    fn split(&mut self, line: &[u8]) -> Result<(), String> {
        self.text.clear();
        self.ends.clear();
        let mut rest = line;
        loop {
            rest = match rest.strip_prefix(b"\"") {
                Some(quoted) => self.take_quoted(quoted)?,
                None => {
                    let end = memchr(b',', rest).unwrap_or(rest.len());
                    self.text.extend_from_slice(&rest[..end]);
                    &rest[end..]
                }
            };
            self.ends.push(self.text.len());
            match rest.split_first() {
                None => return Ok(()),
                Some((b',', behind)) => rest = behind,
                Some(_) => return Err(format!("column {}: text after the closing quote", self.len())),
            }
        }
    }

    /// Takes a field whose opening quote was taken, and returns what stands behind it.
    fn take_quoted<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], String> {
        loop {
            let Some(quote) = memchr(b'"', rest) else {
                return Err(format!("column {}: a quote is opened and not closed", self.len() + 1));
            };
            self.text.extend_from_slice(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest.strip_prefix(b"\"") {
                Some(behind) => {
                    self.text.push(b'"');
                    rest = behind;
                }
                None => return Ok(rest),
            }
        }
    }
}

/// Moves a row's bet into `bets` and returns the fields before it; an error says which
/// column is wrong, and how.
fn push_row<'a, const N: usize>(
    row: &'a Fields,
    before: [&'static str; N],
    first: bool,
    bets: &mut Bets,
) -> Result<[&'a str; N], String> {
    if row.len() != N + COLUMNS.len() {
        return Err(count_problem(row, before));
    }
    // One look at the whole row instead of one at each of its short fields.
    let text = str::from_utf8(&row.text);
    let field = |index: usize| {
        let range = row.range(index);
        let field = text
            .map_or_else(|_| str::from_utf8(&row.text[range.clone()]).ok(), |text| text.get(range.clone()));
        field.ok_or_else(|| {
            let name = before.into_iter().chain(COLUMNS).nth(index).unwrap_or_default();
            format!("column {} ({name}): not UTF-8", index + 1)
        })
    };
    let mut ahead = [""; N];
    for (index, slot) in ahead.iter_mut().enumerate() {
        *slot = field(index)?;
    }
    let mut fields = [""; 5];
    for (index, slot) in fields.iter_mut().enumerate() {
        *slot = field(N + index)?;
    }
    // The protocol takes them, but in a file they are a mistake that makes two of one name.
    if let Some(index) = (0..3).find(|index| fields[*index].trim() != fields[*index]) {
        return Err(column_problem(N + index, COLUMNS[index], fields[index], "without spaces around it"));
    }
    bets.push(fields).map_err(|error| bet_problem(error, fields, N, first))?;
    Ok(ahead)
}

/// Says that a row has another number of columns than it must have.
fn count_problem<const N: usize>(row: &Fields, before: [&'static str; N]) -> String {
    let hint = if row.len() == 1 && row.text.contains(&b';') {
        "; this file is separated by `;`: save it separated by commas"
    } else {
        ""
    };
    let columns: Vec<&str> = before.into_iter().chain(COLUMNS).collect();
    let (found, expected) = (row.len(), columns.len());
    format!("{found} columns where there are {expected}: {}{hint}", columns.join(", "))
}

/// Says what is wrong with a bet that comes behind `before` columns.
fn bet_problem(error: BetError, fields: [&str; 5], before: usize, first: bool) -> String {
    let (column, rule) = match error {
        BetError::FirstName => (0, "1 to 120 bytes without `|` or invisible characters"),
        BetError::LastName => (1, "1 to 120 bytes without `|` or invisible characters"),
        BetError::Document => (2, "1 to 32 letters (ASCII), digits and `.-/ `"),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all rows of a text, and returns the bets or the first error.
    fn read(text: &str) -> Result<Bets, String> {
        let mut rows = Rows::new(Path::new("f"), text.as_bytes());
        let mut bets = Bets::default();
        while rows.next_into([], &mut bets).map_err(|error| error.to_string())?.is_some() {}
        Ok(bets)
    }

    #[test]
    fn quotes_are_those_of_rfc_4180() {
        let bets = read("\"Ana, María\",\"O\"\"Higgins\",\"007\",2000-01-01,\"75\"\n").unwrap();
        let bet = bets.iter().next().unwrap();
        assert_eq!(
            (bet.first_name, bet.last_name, bet.document, bet.number),
            ("Ana, María", "O\"Higgins", "007", 75)
        );
        assert_eq!(read("A,B \"C\",1,2000-01-01,1").unwrap().iter().next().unwrap().last_name, "B \"C\"");
    }

    #[test]
    fn a_row_that_was_cut_or_glued_is_an_error_with_its_line() {
        let good = "A,B,1,2000-01-01,1";
        for (bad, problem) in [
            ("A,B,1,2000-01-01,\"75", "column 5: a quote is opened and not closed"),
            ("A,B,1,2000-01-01,\"75\"74", "column 5: text after the closing quote"),
            ("\"A\" ,B,1,2000-01-01,1", "column 1: text after the closing quote"),
            ("A,\"B\nC\",1,2000-01-01,1", "column 2: a quote is opened and not closed"),
            ("A,B,1,2000-01-01", "4 columns where there are 5"),
            ("A;B;1;2000-01-01;1", "separated by `;`: save it separated by commas"),
            ("A,B,1,2000-01-01,x", "column 5 (number): `x` is not a whole number"),
            (" A,B,1,2000-01-01,1", "column 1 (first name): ` A` is not without spaces around it"),
            ("A,B,1 ,2000-01-01,1", "column 3 (document): `1 ` is not without spaces around it"),
        ] {
            for end in ["\n", "\r\n", "\r"] {
                let text = [good, "", good, bad].join(end);
                let error = read(&text).unwrap_err();
                assert!(error.starts_with("f:4: ") && error.contains(problem), "{text:?}: {error}");
            }
        }
        let long = format!("{good}\n{}", "x".repeat(LINE_BYTES_MAX + 1));
        assert_eq!(read(&long).unwrap_err(), "f:2: the line has more than 4096 bytes");
    }

    #[test]
    fn a_column_that_is_not_utf_8_is_named() {
        for (row, column) in [
            (&b"A,B\xff,1,2000-01-01,1"[..], "column 2 (last name): not UTF-8"),
            // Together both fields are a text, and neither is one by itself.
            (b"A\xc3,\xa1B,1,2000-01-01,1", "column 1 (first name): not UTF-8"),
        ] {
            let error = Rows::new(Path::new("f"), row).next_into([], &mut Bets::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("f:1: {column}"));
        }
    }
}
