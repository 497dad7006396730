//! The rules that the smaller tables show among themselves. Rules about the bets, which
//! are many, are left to one pass over them.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::report::Report;
use crate::store::sqlite::terms;
use crate::store::sqlite::time::is_time;
use sorteo_protocol::UploadId;

/// A query whose every row breaks a rule.
struct Rule {
    /// The table that the findings are about.
    about: &'static str,
    /// Returns the text of each finding.
    sql: &'static str,
}

const RULES: &[Rule] = &[
    // The CHECKs of the migrations, in their order.
    Rule {
        about: "draws",
        sql: "SELECT 'draw ' || id || ' holds a value that its table forbids' FROM draws
               WHERE NOT (winning_number BETWEEN 0 AND 4294967295) OR expected_agencies < 1
                  OR bets < 0 OR winners < 0",
    },
    Rule {
        about: "batches",
        sql: "SELECT 'batch ' || id || ' holds a value that its table forbids' FROM batches
               WHERE NOT (agency BETWEEN 0 AND 4294967295) OR first_row < 0 OR bet_count < 1
                  OR length(digest) <> 32 OR (upload IS NULL) <> (first_row IS NULL)",
    },
    Rule {
        about: "done_agencies",
        sql: r#"SELECT 'agency ' || agency || ' of draw ' || draw_id || ' holds a value that its table forbids'
                  FROM done_agencies
                 WHERE NOT (agency BETWEEN 0 AND 4294967295) OR bet_count < 0
                    OR "by" NOT IN ('agency', 'operator')"#,
    },
    // Rows are numbered from 1, and none is ever deleted. Bets are counted in their own pass.
    Rule {
        about: "draws",
        sql: "SELECT 'after draw ' || before || ' comes draw ' || id
                FROM (SELECT id, lag(id, 1, 0) OVER (ORDER BY id) AS before FROM draws) WHERE id <> before + 1",
    },
    Rule {
        about: "batches",
        sql: "SELECT 'after batch ' || before || ' comes batch ' || id
                FROM (SELECT id, lag(id, 1, 0) OVER (ORDER BY id) AS before FROM batches) WHERE id <> before + 1",
    },
    Rule {
        about: "audit",
        sql: "SELECT 'after row ' || before || ' comes row ' || id
                FROM (SELECT id, lag(id, 1, 0) OVER (ORDER BY id) AS before FROM audit) WHERE id <> before + 1",
    },
    Rule {
        about: "draws",
        sql: "SELECT 'draw ' || id || ' was never drawn, but a later one was opened' FROM draws
               WHERE drawn_at IS NULL AND id < (SELECT max(id) FROM draws)",
    },
    Rule {
        about: "draws",
        sql: "SELECT 'draw ' || draw || ' was drawn before all expected agencies were done' FROM standings
               WHERE state = 'drawn' AND NOT complete",
    },
    // The transaction that records the last agency also draws.
    Rule {
        about: "draws",
        sql: "SELECT 'draw ' || draw || ' was not drawn, but all expected agencies are done' FROM standings
               WHERE state = 'open' AND complete",
    },
    Rule {
        about: "winners",
        sql: "SELECT 'draw ' || draw || ' is open and has winners' FROM standings
               WHERE state = 'open' AND (winners > 0 OR draw IN (SELECT draw_id FROM winners))",
    },
    Rule {
        about: "done_agencies",
        sql: "SELECT 'agency ' || agency || ' was done in draw ' || draw_id || ' with ' || recorded
                     || ' bets, its batches have ' || stored
                FROM (SELECT draw_id, done_agencies.agency, done_agencies.bet_count AS recorded,
                             coalesce(sum(batches.bet_count), 0) AS stored
                        FROM done_agencies LEFT JOIN batches USING (draw_id, agency)
                       GROUP BY draw_id, done_agencies.agency)
               WHERE recorded <> stored",
    },
    Rule {
        about: "done_agencies",
        sql: r#"SELECT 'agency ' || agency || ' of draw ' || draw_id
                      || ' was closed by an operator, which the audit does not record'
                  FROM done_agencies
                 WHERE "by" = 'operator'
                   AND NOT EXISTS (SELECT 1 FROM audit
                                    WHERE audit.draw_id = done_agencies.draw_id AND action = 'close-agency'
                                      AND detail LIKE 'agency ' || agency || ' closed with ' || bet_count || ' bets: _%')"#,
    },
    Rule {
        about: "batches",
        sql: "SELECT 'draw ' || draw_id || ', agency ' || agency || ', upload ' || upload
                     || ': the batch at row ' || first_row || ' does not follow the one before'
                FROM (SELECT draw_id, agency, upload, first_row,
                             coalesce(lag(first_row + bet_count) OVER (
                                 PARTITION BY draw_id, agency, upload ORDER BY first_row), 0) AS next_row
                        FROM batches WHERE upload IS NOT NULL)
               WHERE first_row <> next_row",
    },
];

/// A column in which every text must have a form.
struct Form {
    about: &'static str,
    /// Returns what each row is called, and its text.
    sql: &'static str,
    what: &'static str,
    holds: fn(&str) -> bool,
}

const FORMS: &[Form] = &[
    Form {
        about: "draws",
        sql: "SELECT 'draw ' || id || ' was opened at', opened_at FROM draws",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "draws",
        sql: "SELECT 'draw ' || id || ' was drawn at', drawn_at FROM draws WHERE drawn_at IS NOT NULL",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "batches",
        sql: "SELECT 'batch ' || id || ' was stored at', stored_at FROM batches",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "batches",
        sql: "SELECT 'batch ' || id || ' is of upload', upload FROM batches WHERE upload IS NOT NULL",
        what: "the name of an upload",
        holds: |name| UploadId::new(name).is_some(),
    },
    Form {
        about: "done_agencies",
        sql: "SELECT 'agency ' || agency || ' of draw ' || draw_id || ' was done at', done_at FROM done_agencies",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "audit",
        sql: "SELECT 'row ' || id || ' is of', at FROM audit",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "audit",
        sql: "SELECT 'row ' || id || ' has the action', action FROM audit",
        what: "text",
        holds: |_| true,
    },
    Form {
        about: "audit",
        sql: "SELECT 'row ' || id || ' has the detail', detail FROM audit",
        what: "text",
        holds: |_| true,
    },
];

/// Compares the smaller tables, and counts their rows.
pub(super) fn check(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    report.attempt("a reference", |report| references(connection, report))?;
    for Rule { about, sql } in RULES {
        report.attempt(about, |report| {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                report.add(format_args!("{about}: {}", shown(row, 0)?));
            }
            Ok(())
        })?;
    }
    for form in FORMS {
        report.attempt(form.about, |report| form.check(connection, report))?;
    }
    report.attempt("draws", |report| {
        for line in terms::differing_from_audit(connection)? {
            report.add(format_args!("draws: {line}"));
        }
        Ok(())
    })?;
    report.attempt("a table", |report| count(connection, report))
}

fn references(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent) = (shown(row, 0)?, shown(row, 2)?);
        report.add(format_args!("references: a row of {table} names a row of {parent} that is missing"));
    }
    Ok(())
}

impl Form {
    fn check(&self, connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
        let Self { about, what, .. } = self;
        let mut statement = connection.prepare(self.sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !row.get_ref(1)?.as_str().is_ok_and(self.holds) {
                report.add(format_args!(
                    "{about}: {} `{}`, which is not {what}",
                    shown(row, 0)?,
                    shown(row, 1)?
                ));
            }
        }
        Ok(())
    }
}

fn count(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let count = |table: &str| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0))
    };
    report.draws = count("draws")?;
    report.batches = count("batches")?;
    report.winners = count("winners")?;
    Ok(())
}

/// Returns a value as a person can read it, whatever it is.
fn shown(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}
