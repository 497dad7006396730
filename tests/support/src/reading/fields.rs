//! What a field may hold, in either dialect.

use super::Bet;

const U32: u128 = u32::MAX as u128;
pub(super) const U63: u128 = i64::MAX as u128;
pub(super) const U64: u128 = u64::MAX as u128;

/// Decimal digits and nothing else; whatever does not fit 128 bits is the largest.
pub(super) fn digits(text: &[u8]) -> Option<u128> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u128, digit: &u8| sum.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
    Some(text.iter().fold(0, add))
}

pub(super) fn number_up_to(text: &[u8], max: u128) -> Option<u64> {
    digits(text).filter(|number| *number <= max).map(|number| number as u64)
}

pub(super) fn agency(text: &[u8]) -> Result<u32, &'static str> {
    number_up_to(text, U32).map(|number| number as u32).ok_or("bad_agency")
}

pub(super) fn upload(text: &[u8]) -> Result<String, &'static str> {
    let is_safe = |b: &u8| matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 64 || !text.iter().all(is_safe) {
        return Err("bad_upload");
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Characters that no reader sees, from the table of docs/protocol.md.
const INVISIBLE: &[(u32, u32)] = &[
    (0x0000, 0x001f),
    (0x007f, 0x009f),
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x061c, 0x061c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];

fn is_plain_text(field: &str) -> bool {
    let is_invisible = |c: u32| INVISIBLE.iter().any(|(first, last)| *first <= c && c <= *last);
    !field.is_empty() && field.len() <= 120 && !field.chars().any(|c| c == '|' || is_invisible(c as u32))
}

fn is_document(field: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '/', ' '].contains(&c);
    !field.is_empty() && field.len() <= 32 && field.chars().all(is_allowed)
}

fn is_a_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let &[year, month, day] = &parts[..] else { return false };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return false;
    }
    let [Some(year), Some(month), Some(day)] = [year, month, day].map(|part| digits(part.as_bytes())) else {
        return false;
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// A bet's five fields; the first that is wrong is told.
pub(super) fn bet(fields: &[&str]) -> Result<Bet, &'static str> {
    let &[first_name, last_name, document, birthdate, number] = fields else { return Err("bad_fields") };
    let wrong = if !is_plain_text(first_name) {
        "bad_first_name"
    } else if !is_plain_text(last_name) {
        "bad_last_name"
    } else if !is_document(document) {
        "bad_document"
    } else if !is_a_day(birthdate) {
        "bad_birthdate"
    } else if let Some(number) = number_up_to(number.as_bytes(), U32) {
        let [first_name, last_name, document, birthdate] =
            [first_name, last_name, document, birthdate].map(str::to_owned);
        return Ok(Bet { first_name, last_name, document, birthdate, number: number as u32 });
    } else {
        "bad_number"
    };
    Err(wrong)
}

pub(super) fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(line)
}

pub(super) fn split(line: &[u8]) -> Vec<&[u8]> {
    line.split(|b| *b == b'|').collect()
}
