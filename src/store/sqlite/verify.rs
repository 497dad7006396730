//! What is verified before a server runs on a database, however large it is:
//! its schema, the small tables, and the ends of the large ones, of every draw
//! too. A draw rests on these. Reading all bets is left to [`check`](super::check).

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::error::{OpenError, open_error};
use super::text::{integrity_problems, one_line};
use super::{schema, terms};

/// Tables that are read whole: they grow with draws and agencies alone.
const SMALL_TABLES: [&str; 4] = ["sqlite_schema", "draws", "done_agencies", "audit"];

/// Refuses a database that is damaged, or whose schema somebody changed. A new
/// one is fine. It only reads.
pub(super) fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let fail = |source| open_error(path, "verifying the database", source);
    // One snapshot for all questions, whatever another process writes meanwhile.
    let snapshot = connection.unchecked_transaction().map_err(fail)?;
    if schema::is_new(&snapshot, path)? {
        return Ok(());
    }
    let differences = schema::differences(&snapshot).map_err(fail)?;
    if let Some(difference) = differences.into_iter().find(schema::Difference::is_harmful) {
        return Err(OpenError::Altered { path: path.to_owned(), detail: difference.to_string() });
    }
    for damage in [small_tables, ends_of_large_tables, ends_of_draws, newest_winners, recorded_terms] {
        if let Some(detail) = damage(&snapshot).map_err(fail)? {
            return Err(OpenError::Corrupt { path: path.to_owned(), detail });
        }
    }
    Ok(())
}

/// What SQLite finds wrong with the small tables: pages, types and, as this
/// connection can write, their CHECKs.
fn small_tables(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for table in SMALL_TABLES {
        let said: String =
            connection.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0))?;
        // One finding is enough to refuse it.
        if let Some(line) = integrity_problems(&said).next() {
            return Ok(Some(format!("{table}: {}", one_line(line))));
        }
    }
    Ok(None)
}

/// Whether the way to the first and the last row can be read, where rows are added.
fn ends_of_large_tables(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for (table, key) in [("bets", "id"), ("batches", "id"), ("winners", "draw_id")] {
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT * FROM {table} ORDER BY {key} {order} LIMIT 1");
            connection.query_row(&sql, [], |_| Ok(())).optional()?;
        }
    }
    Ok(None)
}

/// Bets are numbered from 1 without gaps, draw after draw: a draw's scan starts
/// behind the bets that the draws before it count.
fn ends_of_draws(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let draws: Vec<(i64, i64)> = connection
        .prepare("SELECT id, bets FROM draws ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut find_draw = connection.prepare("SELECT draw_id FROM bets WHERE id = $1")?;
    let mut last: i64 = 0;
    for (draw, bets) in draws {
        let Some(end) = last.checked_add(bets) else {
            return Ok(Some(format!("draw {draw} says that it has {bets} bets")));
        };
        for bet in (last < end).then_some([last + 1, end]).into_iter().flatten() {
            let found: Option<i64> = find_draw.query_row([bet], |row| row.get(0)).optional()?;
            if found != Some(draw) {
                let found = found.map_or("missing".to_owned(), |other| format!("of draw {other}"));
                return Ok(Some(format!("bet {bet} should be of draw {draw}, and is {found}")));
            }
        }
        last = end;
    }
    let found: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM bets", [], |row| row.get(0))?;
    Ok((found != last).then(|| format!("the draws have {last} bets, the last bet stored is {found}")))
}

/// The newest draw that is made has as many winners as its row tells: agencies ask
/// for them next.
fn newest_winners(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let newest = "SELECT id, winners, (SELECT count(*) FROM winners WHERE draw_id = draws.id)
                    FROM draws WHERE drawn_at IS NOT NULL ORDER BY id DESC LIMIT 1";
    let found: Option<(i64, i64, i64)> =
        connection.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    Ok(found
        .filter(|(_, told, stored)| told != stored)
        .map(|(draw, told, stored)| format!("draw {draw} tells {told} winners, {stored} are stored")))
}

/// Whether each draw has the terms that the audit recorded.
fn recorded_terms(connection: &Connection) -> rusqlite::Result<Option<String>> {
    Ok(terms::differing_from_audit(connection)?.pop())
}
