//! Text from a database or from SQLite, made fit for one line of output.

use sorteo_protocol::text::is_bidirectional_control;

/// Returns whether a text fits in one line without ending it or reordering what a
/// person sees.
pub(super) fn is_one_line(text: &str) -> bool {
    !text.chars().any(breaks_a_line)
}

/// Returns the text as one line, in which characters that would break it are escaped.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if breaks_a_line(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    line
}

/// Returns a number of things: `1 draw`, `2 draws`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Returns the problems in one row of `PRAGMA integrity_check`: what SQLite finds in
/// all b-trees comes as one text, under a heading.
pub(super) fn integrity_problems(row: &str) -> impl Iterator<Item = &str> {
    row.lines().filter(|line| *line != "ok" && !line.starts_with("***"))
}

fn breaks_a_line(c: char) -> bool {
    c.is_control() || is_bidirectional_control(c)
}
