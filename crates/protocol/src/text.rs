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

/// Returns bytes in hexadecimal: two lower-case digits for each.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
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

/// Returns whether a character shows nothing by itself, so that two texts that differ in it
/// look the same, or look like other texts: controls (Cc), line and paragraph separators (Zl,
/// Zp), what Unicode lists as Default_Ignorable_Code_Point (UAX #44; the bidirectional
/// controls, zero-width characters and tags among them), interlinear annotation, and the
/// Braille pattern without a dot.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Returns whether a text is of printable ASCII and U+00C0 to U+033F alone: the letters of most
/// names, and nothing that [`is_invisible`]. It says so faster, of most lines.
fn is_surely_visible(text: &str) -> bool {
    // Without a branch for each byte. The last range are the first bytes of those letters.
    text.bytes().fold(true, |all, byte| all & matches!(byte, b' '..=b'~' | 0x80..=0xbf | 0xc3..=0xcc))
}

/// Returns whether a text is one line that shows what it is: nothing in it is invisible.
pub fn is_one_line(text: &str) -> bool {
    is_surely_visible(text) || !text.chars().any(is_invisible)
}

/// Returns a text as one line that shows what it is, with everything escaped that
/// [`is_one_line`] refuses.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match is_invisible(c) {
            true => line.extend(c.escape_unicode()),
            false => line.push(c),
        }
    }
    line
}

/// Returns a message without its line end, which is not part of it.
pub(crate) fn without_line_end(message: &[u8]) -> &[u8] {
    match message.strip_suffix(b"\n") {
        Some(message) => message.strip_suffix(b"\r").unwrap_or(message),
        // A lone `\r` ends no line: it is a control character like others.
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_surely_visible_is_not_invisible() {
        let visible = |c: &char| is_surely_visible(c.encode_utf8(&mut [0; 4]));
        let surely: Vec<char> = ('\0'..=char::MAX).filter(visible).collect();
        assert!(['a', '|', 'ñ', 'Á'].iter().all(|letter| surely.contains(letter)));
        assert!(!surely.into_iter().any(is_invisible));
    }
}
