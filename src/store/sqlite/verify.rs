//! What is verified before a server runs on a database, in milliseconds however large it
//! is: its schema, the small tables, and the ends of the large ones and of every draw. A
//! draw depends on these. Reading all bets is left to [`check`](super::check).

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::error::{OpenError, open_error};
use super::text::{integrity_problems, one_line};
use super::{schema, terms};

/// Tables that are read whole: they grow only with draws and agencies.
const SMALL_TABLES: [&str; 4] = ["sqlite_schema", "draws", "done_agencies", "audit"];

/// Refuses a database that is damaged, or whose schema was changed. Accepts a new one.
/// Only reads.
pub(super) fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let fail = |source| open_error(path, "verifying the database", source);
    // One snapshot for all reads, whatever another process writes meanwhile.
    let snapshot = connection.unchecked_transaction().map_err(fail)?;
    if schema::is_new(&snapshot, path)? {
        return Ok(());
    }
    let differences = schema::differences(&snapshot).map_err(fail)?;
    if let Some(difference) = differences.into_iter().find(schema::Difference::is_harmful) {
        return Err(OpenError::Altered { path: path.to_owned(), detail: difference.to_string() });
    }
    let mut damages =
        vec![small_tables, tokens, ends_of_large_tables, ends_of_draws, newest_winners, recorded_terms];
    if schema::has_sets_and_totals(&snapshot).map_err(fail)? {
        damages.push(totals);
    }
    for damage in damages {
        if let Some(detail) = damage(&snapshot).map_err(fail)? {
            return Err(OpenError::Corrupt { path: path.to_owned(), detail });
        }
    }
    Ok(())
}

/// Returns what SQLite finds wrong with the small tables: pages, types and, because this
/// connection can write, their CHECKs.
fn small_tables(connection: &Connection) -> rusqlite::Result<Option<String>> {
    integrity_of(connection, &SMALL_TABLES)
}

/// Returns the same of the tokens, where there are any.
fn tokens(connection: &Connection) -> rusqlite::Result<Option<String>> {
    if schema::has_tokens(connection)? { integrity_of(connection, &["tokens"]) } else { Ok(None) }
}

fn integrity_of(connection: &Connection, tables: &[&str]) -> rusqlite::Result<Option<String>> {
    for table in tables {
        let row: String =
            connection.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0))?;
        // One problem is enough to refuse it.
        if let Some(line) = integrity_problems(&row).next() {
            return Ok(Some(format!("{table}: {}", one_line(line))));
        }
    }
    Ok(None)
}

/// Reads the way to the first and the last row of the tables that grow.
fn ends_of_large_tables(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for (table, key) in [("bets", "id"), ("batches", "id"), ("winners", "draw_id")] {
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT * FROM {table} ORDER BY {key} {order} LIMIT 1");
            connection.query_row(&sql, [], |_| Ok(())).optional()?;
        }
    }
    Ok(None)
}

/// Compares each draw's first and last bet. Bets are numbered from 1 without gaps, draw
/// after draw: a draw's scan starts after the bets that the draws before it count.
fn ends_of_draws(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let draws: Vec<(i64, i64)> = connection
        .prepare("SELECT id, bets FROM draws ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut find_draw = connection.prepare("SELECT draw_id FROM bets WHERE id = $1")?;
    let mut last: i64 = 0;
    for (draw, bets) in draws {
        let Some(end) = last.checked_add(bets) else {
            return Ok(Some(format!("draw {draw} says {bets} bets")));
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

/// Compares the winners of the newest draw that is drawn with its row: agencies read
/// them next.
fn newest_winners(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let newest = "SELECT id, winners, (SELECT count(*) FROM winners WHERE draw_id = draws.id)
                    FROM draws WHERE drawn_at IS NOT NULL ORDER BY id DESC LIMIT 1";
    let found: Option<(i64, i64, i64)> =
        connection.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    Ok(found
        .filter(|(_, recorded, stored)| recorded != stored)
        .map(|(draw, recorded, stored)| format!("draw {draw} says {recorded} winners, {stored} are stored")))
}

/// Compares the two newest draws, which are still read or written, with the totals of
/// their agencies.
fn totals(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT 'the totals of the agencies of draw ' || draws.id || ' differ from those of the draw'
               FROM draws JOIN expected_done ON draw = draws.id
               LEFT JOIN agency_totals ON draw_id = draws.id
              WHERE draws.id > (SELECT max(id) FROM draws) - 2
              GROUP BY draws.id
             HAVING (draws.bets, draws.winners, draws.agencies, draws.done)
                    IS NOT (coalesce(sum(agency_totals.bets), 0), coalesce(sum(agency_totals.winners), 0),
                            count(agency), expected_done.done)
              LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()
}

/// Compares the terms of each draw with those that the audit recorded.
fn recorded_terms(connection: &Connection) -> rusqlite::Result<Option<String>> {
    Ok(terms::differing_from_audit(connection)?.pop())
}
