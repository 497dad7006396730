//! Times as they are stored: UTC, ISO 8601, to the millisecond.

/// Returns the current time in the stored form.
pub(super) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Returns whether a time has exactly the form that [`now`] writes.
pub(super) fn is_time(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok_and(|time| format!("{time:.3}") == text)
}
