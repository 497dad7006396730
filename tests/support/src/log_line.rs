//! Lines of the program's log, read as strictly as `docs/protocol.md` defines them.

use sorteo_protocol::text::is_invisible;

/// One line of the log.
#[derive(Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: String,
    pub action: String,
    pub result: String,
    /// The keys and values after `action` and `result`.
    pub pairs: Vec<(String, String)>,
}

impl LogLine {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with a line that does not have the format.
    pub fn parse(line: &str) -> Result<Self, String> {
        let fail = |what: &str| Err(format!("{what}: {line:?}"));
        let digits = "dddd-dd-dd dd:dd:dd ";
        let Some((time, rest)) = line.split_at_checked(digits.len()) else {
            return fail("too short");
        };
        let fits = |(shape, c): (char, char)| {
            if shape == 'd' { c.is_ascii_digit() } else { c == shape }
        };
        if !digits.chars().zip(time.chars()).all(fits) {
            return fail("no time");
        }
        let Some((level, rest)) = rest.split_at_checked(9) else {
            return fail("no level");
        };
        if !["ERROR    ", "WARNING  ", "INFO     ", "DEBUG    "].contains(&level) {
            return fail("unknown level, or not padded to 8");
        }
        let mut pairs = Vec::new();
        for part in rest.split(" | ") {
            match part.split_once(": ") {
                Some((key, value)) if is_word(key) && is_value(value) => {
                    pairs.push((key.to_owned(), value.to_owned()));
                }
                _ => return fail("a part is not `key: value`"),
            }
        }
        let mut take = |name: &str| match pairs.first() {
            Some((key, _)) if key == name => Ok(pairs.remove(0).1),
            _ => Err(format!("no {name} in its place: {line:?}")),
        };
        let (action, result) = (take("action")?, take("result")?);
        if !is_word(&action) || !["success", "fail", "in_progress"].contains(&result.as_str()) {
            return fail("unknown action or result");
        }
        Ok(Self { level: level.trim_end().to_owned(), action, result, pairs })
    }

    /// Reads a whole log; panics if a line does not have the format.
    #[track_caller]
    pub fn parse_all(log: &str) -> Vec<Self> {
        assert!(log.is_empty() || log.ends_with('\n'), "an unfinished line: {log}");
        // Not `lines`, which would accept a carriage return.
        let lines = log.strip_suffix('\n').into_iter().flat_map(|log| log.split('\n'));
        lines.map(|line| Self::parse(line).unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    pub fn keys(&self) -> Vec<&str> {
        self.pairs.iter().map(|(key, _)| key.as_str()).collect()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        pairs.find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn is_value(text: &str) -> bool {
    let bad = |c: char| c == '|' || is_invisible(c);
    !text.is_empty() && !text.contains(bad)
}
