//! A file's lines, with their numbers as an editor counts them. A line ends with a line
//! feed, a carriage return, or both.

use std::io::{self, BufRead as _, BufReader};

use memchr::memchr2;

/// Longest line, in bytes without its end: several times the longest row there can be. A
/// longer one is refused when this much of it was read.
pub(crate) const LINE_BYTES_MAX: usize = 4096;

/// What a spreadsheet may write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why the next line is not there.
#[derive(Debug)]
pub(crate) enum LineError {
    /// It is longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// The file cannot be read.
    Io(io::Error),
}

/// The lines of a file, one by one.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Lines that were read.
    number: u64,
    /// Whether the last line ended with a carriage return, to which a line feed belongs.
    after_return: bool,
    is_terminated: bool,
}

impl<R: io::Read> Lines<R> {
    pub(crate) fn new(file: R) -> Self {
        Self {
            reader: BufReader::new(file),
            line: Vec::new(),
            number: 0,
            after_return: false,
            is_terminated: true,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        self.reader.get_ref()
    }

    /// Returns the number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether the line that was read last has a line end.
    pub(crate) fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    /// Reads the next line and returns it without its end; `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.line.clear();
        self.fill()?;
        if std::mem::take(&mut self.after_return) && self.reader.buffer().starts_with(b"\n") {
            self.reader.consume(1);
            self.fill()?;
        }
        if self.reader.buffer().is_empty() {
            return Ok(None);
        }
        self.number += 1;
        self.is_terminated = false;
        while !self.is_terminated {
            self.fill()?;
            let available = self.reader.buffer();
            if available.is_empty() {
                break;
            }
            let end = memchr2(b'\n', b'\r', available);
            let text = &available[..end.unwrap_or(available.len())];
            if self.line.len() + text.len() > LINE_BYTES_MAX {
                return Err(LineError::TooLong);
            }
            self.line.extend_from_slice(text);
            self.is_terminated = end.is_some();
            self.after_return = end.is_some_and(|end| available[end] == b'\r');
            let used = text.len() + usize::from(end.is_some());
            self.reader.consume(used);
        }
        match self.number {
            1 => Ok(Some(self.line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.line))),
            _ => Ok(Some(&self.line)),
        }
    }

    /// Reads more where nothing is buffered; at the end of the file nothing is then.
    fn fill(&mut self) -> Result<(), LineError> {
        loop {
            match self.reader.fill_buf() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LineError::Io(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &[u8]) -> Vec<(u64, Vec<u8>, bool)> {
        let mut lines = Lines::new(text);
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            let line = line.to_vec();
            all.push((lines.number(), line, lines.is_terminated()));
        }
        all
    }

    #[test]
    fn every_line_end_counts_once() {
        let line = |number, text: &str, terminated| (number, text.as_bytes().to_vec(), terminated);
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a", "", "b"].join(end);
            assert_eq!(
                lines_of(text.as_bytes()),
                [line(1, "a", true), line(2, "", true), line(3, "b", false)],
                "{end:?}"
            );
            let text = format!("a{end}");
            assert_eq!(lines_of(text.as_bytes()), [line(1, "a", true)], "{end:?}");
        }
        assert_eq!(lines_of(b"\n\ra"), [line(1, "", true), line(2, "", true), line(3, "a", false)]);
        assert_eq!(lines_of("\u{feff}a\n\u{feff}b".as_bytes())[0], line(1, "a", true));
        assert_eq!(lines_of(b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_it_is_read() {
        let longest = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(lines_of(&longest)[0].1, longest);
        let mut endless = Lines::new(io::repeat(b'x'));
        assert!(matches!(endless.next_line(), Err(LineError::TooLong)));
        assert!(endless.line.len() <= LINE_BYTES_MAX);
    }
}
