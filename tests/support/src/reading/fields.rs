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

fn is_plain_text(field: &str, bytes_max: usize) -> bool {
    let is_fine = |c: char| {
        let is_bidirectional = ['\u{061c}', '\u{200e}', '\u{200f}'].contains(&c)
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c);
        c >= '\u{20}' && c != '\u{7f}' && c != '|' && !is_bidirectional
    };
    !field.is_empty() && field.len() <= bytes_max && field.chars().all(is_fine)
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
    let wrong = if !is_plain_text(first_name, 120) {
        "bad_first_name"
    } else if !is_plain_text(last_name, 120) {
        "bad_last_name"
    } else if !is_plain_text(document, 32) || document.contains(',') {
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
