//! What a bet is and when it is valid; many bets together and their digest.
//!
//! The wire decodes *into* these types and the store keeps them, so neither holds a bet
//! that this module has not accepted.

use sha2::{Digest as _, Sha256};

use crate::text::{decimal, is_one_line, split_exactly};

/// Longest `first_name` or `last_name`, in bytes of UTF-8 (docs/protocol.md, "A bet").
pub const NAME_BYTES_MAX: usize = 120;
/// Longest `document`, in bytes of UTF-8 (docs/protocol.md, "A bet").
pub const DOCUMENT_BYTES_MAX: usize = 32;

/// Why a bet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BetError {
    /// The row is not valid UTF-8.
    #[error("the row is not valid UTF-8")]
    Utf8,
    /// The row has too few or too many fields.
    #[error("the row has too few or too many fields")]
    Fields,
    /// The agency is not a decimal number from 0 to 4294967295.
    #[error("the agency is not a whole number from 0 to 4294967295")]
    Agency,
    /// The row names another agency than its batch does.
    #[error("the row is of another agency than its batch")]
    AgencyMismatch,
    /// Empty, longer than [`NAME_BYTES_MAX`], or with a forbidden character.
    #[error("the first name is not 1 to {NAME_BYTES_MAX} bytes without `|` or invisible characters")]
    FirstName,
    /// Empty, longer than [`NAME_BYTES_MAX`], or with a forbidden character.
    #[error("the last name is not 1 to {NAME_BYTES_MAX} bytes without `|` or invisible characters")]
    LastName,
    /// Empty, longer than [`DOCUMENT_BYTES_MAX`], or with another character than ASCII
    /// letters, digits and `.-/ `.
    #[error("the document is not 1 to {DOCUMENT_BYTES_MAX} letters (ASCII), digits and `.-/ `")]
    Document,
    /// Not `YYYY-MM-DD`, or not a date of the calendar.
    #[error("the birthdate is not a date as YYYY-MM-DD")]
    Birthdate,
    /// Not a decimal number from 0 to 4294967295.
    #[error("the number is not a whole number from 0 to 4294967295")]
    Number,
}

impl BetError {
    /// All there are, in the order of their codes in `docs/protocol.md`.
    pub(crate) const ALL: [Self; 9] = [
        Self::Utf8,
        Self::Fields,
        Self::Agency,
        Self::AgencyMismatch,
        Self::FirstName,
        Self::LastName,
        Self::Document,
        Self::Birthdate,
        Self::Number,
    ];

    /// Returns the protocol's stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Utf8 => "bad_utf8",
            Self::Fields => "bad_fields",
            Self::Agency => "bad_agency",
            Self::AgencyMismatch => "agency_mismatch",
            Self::FirstName => "bad_first_name",
            Self::LastName => "bad_last_name",
            Self::Document => "bad_document",
            Self::Birthdate => "bad_birthdate",
            Self::Number => "bad_number",
        }
    }
}

/// Valid bets in the order they came, held in one text buffer.
///
/// The buffer is the bets' canonical form, one line each:
/// `first|last|document|birthdate|number\n`, with the number in its shortest
/// decimal form. A batch costs two allocations however many rows it has, and
/// its digest is the digest of the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bets {
    text: String,
    rows: Vec<Row>,
}

/// Byte offsets of one row's separators in [`Bets::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    start: u32,
    first_end: u32,
    last_end: u32,
    document_end: u32,
    birthdate_end: u32,
    number: u32,
}

/// One bet, borrowed from where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bet<'a> {
    /// The bettor's given names.
    pub first_name: &'a str,
    /// The bettor's surname.
    pub last_name: &'a str,
    /// The bettor's identity document, as text: leading zeros count.
    pub document: &'a str,
    /// The bettor's date of birth, `YYYY-MM-DD`.
    pub birthdate: &'a str,
    /// The number that was bet on.
    pub number: u32,
}

impl Bets {
    /// Returns how many bets there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there is no bet.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Removes all bets and keeps the memory for others.
    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
    }

    /// Returns how many bytes of memory the bets use: less than twice what they were on the
    /// wire.
    pub fn held_bytes(&self) -> usize {
        self.text.len() + self.rows.len() * size_of::<Row>()
    }

    /// Appends a bet given as its five fields.
    ///
    /// # Errors
    ///
    /// Where a field is wrong: the first one that is. Nothing is appended then.
    pub fn push(&mut self, fields: [&str; 5]) -> Result<(), BetError> {
        let number = validate(fields, is_plain)?;
        self.append(fields, number);
        Ok(())
    }

    /// Appends a bet given as `first|last|document|birthdate|number`.
    ///
    /// # Errors
    ///
    /// As [`Bets::push`], and where there are not five fields.
    pub fn push_line(&mut self, line: &str) -> Result<(), BetError> {
        let fields = split_exactly(line).ok_or(BetError::Fields)?;
        // One look at the whole line instead of one at each of its short fields.
        if !is_one_line(line) {
            return self.push(fields);
        }
        let number = validate(fields, |name, bytes_max| (1..=bytes_max).contains(&name.len()))?;
        self.append(fields, number);
        Ok(())
    }

    /// Reserves memory for so many more bets with so much text, canonical form included.
    pub fn reserve(&mut self, text_bytes: usize, bets: usize) {
        self.text.reserve(text_bytes);
        self.rows.reserve(bets);
    }

    fn append(&mut self, [first_name, last_name, document, birthdate, number]: [&str; 5], value: u32) {
        let text = &mut self.text;
        let start = text.len();
        let mut push_field = |field: &str, separator: char| {
            text.push_str(field);
            let end = text.len();
            text.push(separator);
            offset(end)
        };
        let first_end = push_field(first_name, '|');
        let last_end = push_field(last_name, '|');
        let document_end = push_field(document, '|');
        let birthdate_end = push_field(birthdate, '|');
        push_field(without_leading_zeros(number), '\n');
        self.rows.push(Row {
            start: offset(start),
            first_end,
            last_end,
            document_end,
            birthdate_end,
            number: value,
        });
    }

    /// Returns the bets in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Bet<'_>> {
        self.rows.iter().map(|row| {
            let field = |from: u32, to: u32| &self.text[from as usize..to as usize];
            Bet {
                first_name: field(row.start, row.first_end),
                last_name: field(row.first_end + 1, row.last_end),
                document: field(row.last_end + 1, row.document_end),
                birthdate: field(row.document_end + 1, row.birthdate_end),
                number: row.number,
            }
        })
    }

    /// Returns the bets in order, each as `first|last|document|birthdate|number` in
    /// canonical form.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        // No field contains a line feed.
        self.text.split_terminator('\n')
    }

    /// Returns the SHA-256 of the canonical form: equal digests mean equal rows.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.text.as_bytes()).into())
    }
}

/// The SHA-256 of a batch's rows in their canonical form (see [`Bets`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

/// Computes a [`Digest`] of rows that are never all in memory: of a database or a file.
#[derive(Clone, Debug, Default)]
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Adds one row.
    pub fn add(&mut self, bet: Bet<'_>) {
        let number = bet.number.to_string();
        for field in
            [bet.first_name, "|", bet.last_name, "|", bet.document, "|", bet.birthdate, "|", &number, "\n"]
        {
            self.0.update(field.as_bytes());
        }
    }

    /// Adds rows that are together: faster than one by one.
    pub fn add_all(&mut self, bets: &Bets) {
        self.0.update(bets.text.as_bytes());
    }

    /// Returns the digest of all rows added, in their order.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Checks the five fields in their order, and returns the number. `is_plain` is
/// [`is_plain`], or as much of it as is not known.
fn validate(
    [first_name, last_name, document, birthdate, number]: [&str; 5],
    is_plain: impl Fn(&str, usize) -> bool,
) -> Result<u32, BetError> {
    let texts = [first_name, last_name, document, birthdate];
    check_texts(texts, |name| is_plain(name, NAME_BYTES_MAX), is_document)?;
    decimal(number).ok_or(BetError::Number)
}

/// Returns whether a text is a valid document of a bet: ASCII letters, digits and `.-/ `, so
/// that two documents that look the same are the same.
fn is_document(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-/ ".contains(&byte);
    (1..=DOCUMENT_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Returns whether a text can be shown as a winner's document: also one that was accepted
/// under older rules, but nothing that a reader does not see.
pub(crate) fn is_shown_document(text: &str) -> bool {
    is_plain(text, DOCUMENT_BYTES_MAX) && !text.contains(',')
}

/// Returns whether a field is 1 to `bytes_max` bytes without a character that could end the
/// field or the line, or that a reader does not see.
fn is_plain(field: &str, bytes_max: usize) -> bool {
    is_separable(field, bytes_max) && is_one_line(field)
}

/// Returns whether a field is 1 to `bytes_max` bytes without `|` and ASCII controls.
fn is_separable(field: &str, bytes_max: usize) -> bool {
    // One pass without a branch for each byte: this is run for every field.
    let mut forbidden = false;
    for &byte in field.as_bytes() {
        forbidden |= byte < 0x20 || byte == 0x7f || byte == b'|';
    }
    !forbidden && (1..=bytes_max).contains(&field.len())
}

/// Checks the texts of a bet as it is stored, its birthdate last: only what every version
/// of the program has required, since bets that were accepted stay valid when the rules for
/// new ones become stricter.
///
/// # Errors
///
/// Where a field is wrong: the first one that is.
pub fn check_stored(texts: [&str; 4]) -> Result<(), BetError> {
    let is_document = |text: &str| is_separable(text, DOCUMENT_BYTES_MAX) && !text.contains(',');
    check_texts(texts, |name| is_separable(name, NAME_BYTES_MAX), is_document)
}

/// Checks the texts of a bet in their order, by these rules for names and documents.
fn check_texts(
    [first_name, last_name, document, birthdate]: [&str; 4],
    is_name: impl Fn(&str) -> bool,
    is_document: impl Fn(&str) -> bool,
) -> Result<(), BetError> {
    if !is_name(first_name) {
        return Err(BetError::FirstName);
    }
    if !is_name(last_name) {
        return Err(BetError::LastName);
    }
    if !is_document(document) {
        return Err(BetError::Document);
    }
    if is_date(birthdate) { Ok(()) } else { Err(BetError::Birthdate) }
}

/// Returns whether the text is `YYYY-MM-DD` and that day exists.
fn is_date(text: &str) -> bool {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else {
        return false;
    };
    let digits = [y1, y2, y3, y4, m1, m2, d1, d2];
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let [y1, y2, y3, y4, m1, m2, d1, d2] = digits.map(|b| (b - b'0') as i8);
    let year = i16::from(y1) * 1000 + i16::from(y2) * 100 + i16::from(y3 * 10 + y4);
    jiff::civil::Date::new(year, m1 * 10 + m2, d1 * 10 + d2).is_ok()
}

/// Returns a number's shortest decimal form.
fn without_leading_zeros(digits: &str) -> &str {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() { "0" } else { significant }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch is far below 4 GiB: the wire bounds it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AgencyId;

    const GOOD: [&str; 5] = ["Santiago Lionel", "Lorca", "30904465", "1999-03-17", "2201"];

    fn with(index: usize, value: &str) -> Result<(), BetError> {
        let mut fields = GOOD;
        fields[index] = value;
        Bets::default().push(fields)
    }

    #[test]
    fn a_bet_keeps_its_fields_in_canonical_form() {
        let mut bets = Bets::default();
        bets.push(GOOD).unwrap();
        bets.push_line("Ñandú|Ávila|007|2000-02-29|0007574").unwrap();
        let rows: Vec<_> = bets.iter().collect();
        assert_eq!(rows[0].first_name, "Santiago Lionel");
        assert_eq!(rows[0].number, 2201);
        assert_eq!(rows[1].document, "007", "leading zeros of a document count");
        assert_eq!(rows[1].number, 7574);
        assert_eq!(
            bets.text,
            "Santiago Lionel|Lorca|30904465|1999-03-17|2201\nÑandú|Ávila|007|2000-02-29|7574\n"
        );
    }

    #[test]
    fn lengths_are_checked_at_zero_max_and_max_plus_one() {
        for (index, max, error) in [
            (0, NAME_BYTES_MAX, BetError::FirstName),
            (1, NAME_BYTES_MAX, BetError::LastName),
            (2, DOCUMENT_BYTES_MAX, BetError::Document),
        ] {
            assert_eq!(with(index, ""), Err(error));
            assert_eq!(with(index, &"x".repeat(max)), Ok(()));
            assert_eq!(with(index, &"x".repeat(max + 1)), Err(error));
            if error != BetError::Document {
                // Bytes are counted, not characters.
                assert_eq!(with(index, &"ñ".repeat(max / 2)), Ok(()));
                assert_eq!(with(index, &"ñ".repeat(max / 2 + 1)), Err(error));
            }
        }
    }

    #[test]
    fn characters_that_end_a_field_or_mislead_a_reader_are_refused() {
        for bad in [
            '|',
            '\n',
            '\r',
            '\t',
            '\0',
            '\x1f',
            '\x7f',
            '\u{80}',
            '\u{9f}',
            '\u{ad}',
            '\u{202e}',
            '\u{2066}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{061c}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let value = format!("a{bad}b");
            assert_eq!(with(0, &value), Err(BetError::FirstName), "{bad:?}");
            if bad != '|' {
                let line = format!("{value}|Paz|1|1999-03-17|1");
                assert_eq!(Bets::default().push_line(&line), Err(BetError::FirstName), "{bad:?}");
            }
            assert_eq!(with(1, &value), Err(BetError::LastName), "{bad:?}");
            assert_eq!(with(2, &value), Err(BetError::Document), "{bad:?}");
        }
        for document in ["1,2", "ñ1", "１２", "1_2", "1'2"] {
            assert_eq!(with(2, document), Err(BetError::Document), "{document}");
        }
        assert_eq!(with(2, "AB 12.345.678-K/2"), Ok(()));
        assert_eq!(with(0, "O'Higgins, José"), Ok(()), "a comma is fine in a name");
    }

    #[test]
    fn a_bet_that_was_accepted_under_older_rules_stays_valid() {
        let older = ["Zero\u{200d}Width", "C1\u{85}", "ñ_1", "1999-03-17"];
        let [first_name, last_name, document, birthdate] = older;
        let today = Bets::default().push([first_name, last_name, document, birthdate, "1"]);
        assert_eq!(today, Err(BetError::FirstName));
        assert_eq!(check_stored(older), Ok(()));
        for (index, value, error) in [
            (0, "", BetError::FirstName),
            (1, "a|b", BetError::LastName),
            (2, "1,2", BetError::Document),
            (3, "1999-02-29", BetError::Birthdate),
        ] {
            let mut fields = older;
            fields[index] = value;
            assert_eq!(check_stored(fields), Err(error));
        }
    }

    #[test]
    fn only_real_dates_in_the_one_form_are_dates() {
        for good in ["2000-02-29", "2024-02-29", "1999-12-31", "0001-01-01", "9999-12-31"] {
            assert_eq!(with(3, good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "1999-02-29",
            "1900-02-29",
            "2000-13-01",
            "2000-00-10",
            "2000-01-00",
            "2000-01-32",
            "2000-1-1",
            "20000101",
            "2000/01/01",
            "2000-01-01 ",
            "+200-01-01",
            "2000-01-0١",
            "01-01-2000",
        ] {
            assert_eq!(with(3, bad), Err(BetError::Birthdate), "{bad}");
        }
    }

    #[test]
    fn numbers_are_decimal_digits_within_32_bits() {
        for good in ["0", "7574", "4294967295", "007"] {
            assert_eq!(with(4, good), Ok(()), "{good}");
        }
        for bad in ["", "4294967296", "-1", "+1", "1.0", " 1", "1 ", "0x1", "１", "99999999999999999999999"]
        {
            assert_eq!(with(4, bad), Err(BetError::Number), "{bad}");
            assert_eq!(bad.parse::<AgencyId>(), Err(BetError::Agency), "{bad}");
        }
        assert_eq!("01".parse(), Ok(AgencyId(1)));
        assert_eq!("4294967295".parse(), Ok(AgencyId(u32::MAX)));
    }

    #[test]
    fn a_row_has_exactly_five_fields() {
        let mut bets = Bets::default();
        assert_eq!(bets.push_line("a|b|1|2000-01-01"), Err(BetError::Fields));
        assert_eq!(bets.push_line("a|b|1|2000-01-01|1|2"), Err(BetError::Fields));
        assert!(bets.is_empty(), "a refused row leaves nothing behind");
    }

    #[test]
    fn equal_rows_have_equal_digests_however_they_are_built() {
        let mut bets = Bets::default();
        bets.push(GOOD).unwrap();
        bets.push_line("a|b|1|2000-01-01|01").unwrap();
        let mut builder = DigestBuilder::default();
        bets.iter().for_each(|bet| builder.add(bet));
        assert_eq!(builder.finish(), bets.digest());
        // The digest is part of what is stored: it may not change between versions.
        let hex: String = bets.digest().0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "abda9449b09735068b5063296455a7e32a8fc72301be02a38d030694e9a5c6eb");
    }
}
