//! Times as they are stored: UTC, ISO 8601, to the millisecond.

use std::time::SystemTime;

use jiff::Timestamp;

/// Returns the current time in the stored form.
pub(super) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Returns a time in the stored form; one that no calendar has becomes the last that one has.
pub(super) fn stored_time(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or(Timestamp::MAX))
}

/// Reads a time in the stored form.
pub(super) fn read_time(text: &str) -> Option<SystemTime> {
    let time: Timestamp = text.parse().ok()?;
    (format!("{time:.3}") == text).then(|| time.into())
}

/// Returns whether a time has exactly the form that [`now`] writes.
pub(super) fn is_time(text: &str) -> bool {
    read_time(text).is_some()
}
