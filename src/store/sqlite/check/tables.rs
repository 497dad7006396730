//! The rules that the smaller tables show among themselves. Rules about the bets, which
//! are many, are left to one pass over them.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::report::Report;
use crate::store::sqlite::terms;
use crate::store::sqlite::text::is_one_line;
use crate::store::sqlite::time::is_time;
use sorteo_protocol::{TokenId, UploadId};

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
                  OR bets < 0 OR winners < 0 OR agencies < 0 OR done < 0",
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
    Rule {
        about: "agency_totals",
        sql: "SELECT 'agency ' || agency || ' of draw ' || draw_id || ' holds a value that its table forbids'
                FROM agency_totals
               WHERE NOT (agency BETWEEN 0 AND 4294967295) OR bets < 0 OR batches < 0 OR winners < 0
                  OR winner_text_bytes < 0",
    },
    Rule {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' holds a value that its table forbids' FROM tokens
               WHERE length(id) <> 16 OR NOT (agency BETWEEN 0 AND 4294967295)
                  OR role NOT IN ('viewer', 'auditor', 'operator') OR (agency IS NULL) = (role IS NULL)
                  OR length(digest) <> 32",
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
        sql: "SELECT 'agency ' || agency || ' was done in draw ' || draw_id || ' with ' || bet_count
                     || ' bets, its totals have ' || coalesce(bets, 'none')
                FROM done_agencies LEFT JOIN agency_totals USING (draw_id, agency)
               WHERE bets IS NOT bet_count",
    },
    // The totals, and what they count.
    Rule {
        about: "agency_totals",
        sql: "SELECT 'agency ' || agency || ' of draw ' || draw_id || ' has totals of ' || sum(bets) || ' bets in '
                     || sum(batches) || ' batches, stored are ' || sum(stored_bets) || ' in ' || sum(stored_batches)
                FROM (SELECT draw_id, agency, bets, batches, 0 AS stored_bets, 0 AS stored_batches FROM agency_totals
                       UNION ALL
                      SELECT draw_id, agency, 0, 0, sum(bet_count), count(*) FROM batches GROUP BY draw_id, agency)
               GROUP BY draw_id, agency
              HAVING sum(bets) <> sum(stored_bets) OR sum(batches) <> sum(stored_batches)",
    },
    Rule {
        about: "agency_totals",
        sql: "SELECT 'agency ' || agency || ' of draw ' || draw_id || ' has totals of ' || sum(winners) || ' winners of '
                     || sum(text_bytes) || ' bytes, stored are ' || sum(stored_winners) || ' of ' || sum(stored_bytes)
                FROM (SELECT draw_id, agency, winners, winner_text_bytes AS text_bytes,
                             0 AS stored_winners, 0 AS stored_bytes FROM agency_totals
                       UNION ALL
                      SELECT winners.draw_id, winners.agency, 0, 0, count(*),
                             coalesce(sum(octet_length(first_name) + octet_length(last_name)
                                          + octet_length(document) + octet_length(birthdate)), 0)
                        FROM winners LEFT JOIN bets ON bets.id = winners.bet_id
                       GROUP BY winners.draw_id, winners.agency)
               GROUP BY draw_id, agency
              HAVING sum(winners) <> sum(stored_winners) OR sum(text_bytes) <> sum(stored_bytes)",
    },
    Rule {
        about: "agency_totals",
        sql: "SELECT 'agency ' || agency || ' of draw ' || draw_id || ' has totals, but sent nothing and is not done'
                FROM agency_totals LEFT JOIN done_agencies USING (draw_id, agency)
               WHERE batches = 0 AND done_agencies.agency IS NULL",
    },
    Rule {
        about: "draws",
        sql: "SELECT 'draw ' || id || ' says ' || agencies || ' agencies, ' || found || ' have totals'
                FROM (SELECT id, agencies, (SELECT count(*) FROM agency_totals WHERE draw_id = draws.id) AS found
                        FROM draws)
               WHERE agencies <> found",
    },
    Rule {
        about: "draws",
        sql: "SELECT 'draw ' || id || ' says that ' || draws.done || ' agencies are done, ' || expected_done.done || ' are'
                FROM draws JOIN expected_done ON draw = id WHERE draws.done <> expected_done.done",
    },
    // Ranges that neither overlap nor touch, and are as many agencies as the draw expects.
    Rule {
        about: "expected_ranges",
        sql: "SELECT 'the range from ' || first || ' of draw ' || draw_id || ' holds a value that its table forbids'
                FROM expected_ranges
               WHERE NOT (first BETWEEN 0 AND 4294967295) OR NOT (last BETWEEN first AND 4294967295)",
    },
    Rule {
        about: "expected_ranges",
        sql: "SELECT 'the range from ' || first || ' of draw ' || draw_id || ' overlaps or touches the one before'
                FROM (SELECT draw_id, first, lag(last) OVER (PARTITION BY draw_id ORDER BY first) AS before
                        FROM expected_ranges)
               WHERE first <= before + 1",
    },
    Rule {
        about: "expected_ranges",
        sql: "SELECT 'draw ' || draw_id || ' expects ' || coalesce(expected_agencies, 'no certain number of')
                     || ' agencies, its ranges have ' || sum(last - first + 1)
                FROM expected_ranges JOIN draws ON draws.id = draw_id
               GROUP BY draw_id HAVING expected_agencies IS NOT sum(last - first + 1)",
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
    Form {
        about: "audit",
        sql: "SELECT 'row ' || id || ' has the actor', actor FROM audit WHERE actor IS NOT NULL",
        what: "text",
        holds: |_| true,
    },
    Form {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' has the id', id FROM tokens",
        what: "the id of a token",
        holds: |id| id.parse::<TokenId>().is_ok(),
    },
    Form {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' has the label', label FROM tokens",
        what: "one line of text",
        holds: is_one_line,
    },
    Form {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' was added at', created_at FROM tokens",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' expires at', expires_at FROM tokens WHERE expires_at IS NOT NULL",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' was last used at', last_used_at FROM tokens WHERE last_used_at IS NOT NULL",
        what: "a time",
        holds: is_time,
    },
    Form {
        about: "tokens",
        sql: "SELECT 'token ' || id || ' was revoked at', revoked_at FROM tokens WHERE revoked_at IS NOT NULL",
        what: "a time",
        holds: is_time,
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
