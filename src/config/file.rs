//! The configuration file: TOML, one key per setting.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::ConfigError;
use super::settings::{SERVE, Values, nearest};

/// A setting as it is written in the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key of the setting.
    pub key: &'static str,
    /// Its value.
    pub text: String,
    /// The line of the key, from 1.
    pub line: usize,
}

/// Reads the file. Returns what it sets, and what is wrong with it.
pub(super) fn read(path: &Path) -> (Vec<Entry>, Vec<ConfigError>) {
    let fail = |problem: String| ConfigError::File { path: path.to_owned(), problem };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let (entries, problems) = parse(&text);
            (entries, problems.into_iter().map(fail).collect())
        }
        Err(error) => (
            Vec::new(),
            vec![fail(format!("the configuration cannot be read: {error}: give a TOML file in --config"))],
        ),
    }
}

fn parse(text: &str) -> (Vec<Entry>, Vec<String>) {
    let line_of = |start: usize| text[..start].matches('\n').count() + 1;
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            // TOML's own report spans several lines; one with the place is enough.
            let line = error.span().map_or(1, |span| line_of(span.start));
            return (Vec::new(), vec![format!("line {line}: {}", error.message().replace('\n', " "))]);
        }
    };
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for (key, value) in table.get_ref() {
        let line = line_of(key.span().start);
        match entry(key.get_ref(), value, line) {
            Ok(entry) => entries.push(entry),
            Err(problem) => problems.push((line, problem)),
        }
    }
    // The table does not keep the order of the file.
    problems.sort();
    (entries, problems.into_iter().map(|(line, problem)| format!("line {line}: {problem}")).collect())
}

fn entry(key: &str, value: &Spanned<DeValue<'_>>, line: usize) -> Result<Entry, String> {
    let Some(setting) = SERVE.iter().find(|setting| setting.key == key) else {
        return Err(match nearest(key, SERVE.iter().map(|setting| setting.key)) {
            Some(near) => format!("`{key}` is not a setting: did you mean `{near}`?"),
            None => format!("`{key}` is not a setting: `sorteo config show` lists them all"),
        });
    };
    let wanted = || {
        let given = value.get_ref().type_str();
        format!("`{key}` cannot be of type {given}: write a number, or a string in quotes")
    };
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Array(items) if matches!(setting.values, Values::Text(form) if form.is_list()) => {
            let texts: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.ok_or_else(wanted)?.join(",")
        }
        DeValue::Integer(number) => decimal_text(number).ok_or_else(wanted)?,
        _ => return Err(wanted()),
    };
    Ok(Entry { key: setting.key, text, line })
}

/// Returns a number in decimal digits: TOML has hexadecimal ones too.
fn decimal_text(number: &DeInteger<'_>) -> Option<String> {
    i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Vec<(&'static str, String, usize)> {
        let (entries, problems) = parse(text);
        assert_eq!(problems, [""; 0]);
        entries.into_iter().map(|entry| (entry.key, entry.text, entry.line)).collect()
    }

    #[test]
    fn numbers_and_texts_are_read_with_their_lines() {
        let mut read = read_all("# mine\nworkers = 1_0\n\nlisten = \"a:1\"\nreaders = 0x10\n");
        read.sort_by_key(|(_, _, line)| *line);
        let expected = [
            ("workers", "10".to_owned(), 2),
            ("listen", "a:1".to_owned(), 4),
            ("readers", "16".to_owned(), 5),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn all_that_is_wrong_is_told_in_the_files_order() {
        let (entries, problems) = parse("workers = true\nagences = 5\nqueue = 7\n[xyzzy]\nlevel = 1\n");
        assert_eq!(entries.len(), 1);
        let expected = [
            "line 1: `workers` cannot be of type boolean: write a number, or a string in quotes",
            "line 2: `agences` is not a setting: did you mean `agencies`?",
            "line 4: `xyzzy` is not a setting: `sorteo config show` lists them all",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_key_that_is_given_twice_is_refused() {
        let (entries, problems) = parse("workers = 1\nworkers = 2\n");
        assert!(entries.is_empty());
        assert_eq!(problems, ["line 2: duplicate key"]);
    }
}
