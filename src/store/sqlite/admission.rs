//! Which agencies may take part in a draw.

use rusqlite::{Connection, params};

use super::status::NewestDraw;
use crate::store::NotAdmitted;
use sorteo_protocol::AgencyId;

/// Returns why an agency may not take part in the newest draw, if it may not. `seen` says
/// whether it does already.
///
/// A draw that waits for more agencies than `agencies_max` admits as many as it waits for.
pub(super) fn refuse(
    connection: &Connection,
    newest: &NewestDraw,
    agency: AgencyId,
    seen: bool,
    agencies_max: u64,
) -> rusqlite::Result<Option<NotAdmitted>> {
    if newest.has_set && !is_in_set(connection, newest, agency)? {
        return Ok(Some(NotAdmitted::Unknown));
    }
    let agencies_max = newest.expected.map_or(agencies_max, |expected| expected.max(agencies_max));
    // Where all from 1 to the highest seen are expected, a number tells of so many agencies.
    let is_inferred = newest.expected.is_none();
    let too_many = newest.agencies >= agencies_max || is_inferred && u64::from(agency.0) > agencies_max;
    Ok((!seen && too_many).then_some(NotAdmitted::TooMany))
}

fn is_in_set(connection: &Connection, newest: &NewestDraw, agency: AgencyId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT coalesce((SELECT last FROM expected_ranges WHERE draw_id = $1 AND first <= $2
                               ORDER BY first DESC LIMIT 1), -1) >= $2",
        )?
        .query_row(params![newest.draw.0, agency.0], |row| row.get(0))
}
