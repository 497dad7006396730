//! Which agencies a draw waits for, as an operator gives them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use sorteo_protocol::text::decimal;

/// Most ranges in a set: each may be compared with each agency that is done.
const RANGES_MAX: usize = 1_000;

/// The agencies that a draw waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedAgencies {
    /// Any, but so many of them.
    Count(u32),
    /// Certain ones. No other may bet.
    Set(AgencySet),
}

/// A set of agencies, with at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgencySet(Vec<RangeInclusive<u32>>);

/// The text means no agencies. The message says why, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAgencies(String);

impl AgencySet {
    /// Returns the agencies as ranges in order, which neither overlap nor touch.
    pub fn ranges(&self) -> impl Iterator<Item = &RangeInclusive<u32>> {
        self.0.iter()
    }

    /// Returns how many agencies are in the set.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.end() - range.start()) + 1).sum()
    }

    /// Creates the set of the agencies in any of the ranges.
    fn new(mut ranges: Vec<RangeInclusive<u32>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl From<u32> for ExpectedAgencies {
    fn from(count: u32) -> Self {
        Self::Count(count)
    }
}

/// Reads a count (`5`), or a set of numbers and ranges (`1-5,7`). The set of one agency is
/// a range: `7-7`.
impl FromStr for ExpectedAgencies {
    type Err = BadAgencies;

    fn from_str(text: &str) -> Result<Self, BadAgencies> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match decimal::<u32>(text) {
                Some(count) if count >= 1 => Ok(Self::Count(count)),
                _ => Err(BadAgencies(format!("`{text}` is not a whole number from 1 to {}", u32::MAX))),
            };
        }
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > RANGES_MAX {
            return Err(BadAgencies(format!(
                "{} ranges of agencies are too many: {RANGES_MAX} at most",
                parts.len()
            )));
        }
        let ranges = parts.into_iter().map(read_range).collect::<Result<_, _>>()?;
        Ok(Self::Set(AgencySet::new(ranges)))
    }
}

fn read_range(text: &str) -> Result<RangeInclusive<u32>, BadAgencies> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (decimal(first), decimal(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(BadAgencies(format!(
            "`{text}` is no number of agencies, such as 5, and no set of agencies, such as 1-5,7"
        ))),
    }
}

impl fmt::Display for ExpectedAgencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Set(set) => set.fmt(f),
        }
    }
}

impl fmt::Display for AgencySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            // Alone, a number would be a count.
            match range.start() == range.end() && self.0.len() > 1 {
                true => write!(f, "{}", range.start())?,
                false => write!(f, "{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse::<ExpectedAgencies>().map(|read| read.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_count_and_a_set_are_read_and_written_alike() {
        for text in ["1", "5", "4294967295", "1-5,7", "0-4", "7-7", "0-4294967295", "1,3,5-6"] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
        for (text, canonical) in
            [("3,1", "1,3"), ("1-3,2-5,6", "1-6"), (" 1 , 3-4 ", "1,3-4"), ("5,5", "5-5")]
        {
            assert_eq!(read(text).as_deref(), Ok(canonical));
        }
        let set = AgencySet::new(vec![0..=u32::MAX, 3..=4]);
        assert_eq!(set.size(), 1 << 32);
    }

    #[test]
    fn what_is_neither_is_refused_and_named() {
        for text in ["0", "4294967296", "", "1-", "-1", "5-1", "1,,2", "1-2-3", "a", "1;2", "1-4294967296"] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with('`'), "{text}: {error}");
        }
        assert!(read(&"1,".repeat(RANGES_MAX)).unwrap_err().contains("too many"));
        assert_eq!(read(&vec!["1"; RANGES_MAX].join(",")).as_deref(), Ok("1-1"));
    }
}
