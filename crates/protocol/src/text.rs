//! Plain text as the protocol and its surroundings need it: decimal numbers, fields
//! between `|`, and the characters that mislead a reader.

use std::str::FromStr;

use memchr::memchr_iter;

/// Reads a number written in decimal digits only: no sign, no space, no other base.
pub fn decimal<N: FromStr>(text: &str) -> Option<N> {
    // `parse` alone would take a leading `+`.
    let digits_only = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits_only.then(|| text.parse().ok()).flatten()
}

/// Splits at every `|` into exactly `N` fields; `None` where there are more or fewer.
pub fn split_exactly<const N: usize>(line: &str) -> Option<[&str; N]> {
    let mut split = [""; N];
    let (mut start, mut found) = (0, 0);
    for at in memchr_iter(b'|', line.as_bytes()) {
        // The last field runs to the end: one more separator is one too many.
        if found + 1 >= N {
            return None;
        }
        split[found] = &line[start..at];
        (start, found) = (at + 1, found + 1);
    }
    split[found] = &line[start..];
    (found + 1 == N).then_some(split)
}

/// Returns whether a character is one of the bidirectional controls of Unicode (UAX #9):
/// they reorder what a person sees, so a name with one can be shown as another name.
pub fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns whether a text is one line that shows what it is: nothing in it ends the
/// line or reorders what a person sees.
pub fn is_one_line(text: &str) -> bool {
    !text.chars().any(breaks_line)
}

/// Returns a text as one line that shows what it is, with everything escaped that
/// [`is_one_line`] refuses.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match breaks_line(c) {
            true => line.extend(c.escape_unicode()),
            false => line.push(c),
        }
    }
    line
}

/// Returns whether a character ends the line that it is in, moves the cursor, or
/// reorders what a person sees.
pub fn breaks_line(c: char) -> bool {
    c.is_control() || is_bidirectional_control(c)
}

/// Returns a message without its line end, which is not part of it.
pub(crate) fn without_line_end(message: &[u8]) -> &[u8] {
    match message.strip_suffix(b"\n") {
        Some(message) => message.strip_suffix(b"\r").unwrap_or(message),
        // A lone `\r` ends no line: it is a control character like others.
        None => message,
    }
}
