//! Text from a database or from SQLite, made fit for one line of output.

pub(super) use sorteo_protocol::text::{is_one_line, one_line};

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
