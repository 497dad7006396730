//! What `check` finds, and what a server refuses to run on: damaged files, and databases
//! that somebody changed by hand. `tests/damage` flips single bits.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use sorteo_test_support::process::{
    Finished, Server, assert_names, bets_file, folder, run, run_comparing, snapshot, sorteo,
};
use tempfile::TempDir;

/// Adds a token to a database, and then does something else.
macro_rules! with_token {
    ($sql:literal) => {
        concat!(
            "INSERT INTO tokens VALUES ('0123456789abcdef', 1, NULL, '', zeroblob(32),
             '2026-11-21T20:31:05.000Z', NULL, NULL, NULL);",
            $sql
        )
    };
}

/// A check that must leave the database's folder as it found it. A connection
/// that only reads makes SQLite's shared memory and an empty log, and may not
/// remove them.
#[track_caller]
fn run_check(folder: &Path) -> Finished {
    let check = ["check", "--database", "sorteo.db"];
    run_comparing(folder, &mut sorteo(folder, check), |path, bytes| {
        match path.extension().and_then(OsStr::to_str) {
            Some("db-shm") => false,
            Some("db-wal") => bytes.as_ref().is_none_or(|bytes| !bytes.is_empty()),
            _ => true,
        }
    })
}

/// Two agencies with nine bets and three winners: bets 1, 3 and 7. Answers the
/// folder with the closed database of the made draw.
fn drawn_database() -> TempDir {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    bets_file(folder.path(), "1.csv", &[7574, 1, 7574, 3, 4]);
    bets_file(folder.path(), "2.csv", &[5, 7574, 6, 7]);
    for agency in ["1", "2"] {
        let file = format!("{agency}.csv");
        let upload = ["upload", "--agency", agency, "--file", &file, "--batch", "2", "--no-wait"];
        run(&mut server.command(folder.path(), &upload)).succeeded();
    }
    server.stop();
    folder
}

#[test]
fn a_database_that_is_fine_passes_the_check_also_beside_a_server() {
    let folder = drawn_database();
    let fine = "sorteo.db: OK: 1 draw, 5 batches, 9 bets, 3 winners\n";
    assert_eq!(run_check(folder.path()).succeeded(), fine);
    let server = Server::start(folder.path(), &[]);
    assert_eq!(run_check(folder.path()).succeeded(), fine);
    server.stop();
}

#[test]
fn whatever_is_tampered_with_is_found_by_the_check_and_left_as_it_is() {
    // What was done, and how the finding begins that names the table.
    let cases: &[(&str, &str)] = &[
        ("DELETE FROM winners WHERE bet_id = 3", "winners: bet 3 of agency 1 won draw 1 and is not among its winners"),
        (
            "INSERT INTO winners VALUES (1, 1, 2)",
            "winners: bet 2 of agency 1 is among the winners of draw 1 and did not win",
        ),
        ("UPDATE winners SET agency = 2 WHERE bet_id = 3", "winners: bet 3 of agency 2"),
        ("UPDATE bets SET number = 8 WHERE id = 2", "batches: batch 1 of agency 1 in draw 1 differs from the rows"),
        ("UPDATE bets SET number = 7574 WHERE id = 2", "winners: bet 2 of agency 1 won"),
        ("UPDATE bets SET first_name = 'Eva' WHERE id = 9", "batches: batch 5 of agency 2"),
        ("UPDATE bets SET birthdate = '1999-02-29' WHERE id = 1", "bets: bet 1 is invalid"),
        ("UPDATE bets SET agency = 2 WHERE id = 2", "batches: batch"),
        ("UPDATE bets SET draw_id = 2 WHERE id = 9", "bets: bet 9 names draw 2"),
        ("DELETE FROM bets WHERE id = 9", "batches: batch 5 of agency 2 in draw 1 has bets that are missing"),
        ("DELETE FROM bets WHERE id = 2", "batches: batch 1 of agency 1"),
        ("DELETE FROM bets WHERE id = 3", "references: a row of winners names a row of bets"),
        (
            "INSERT INTO bets SELECT 10, 1, 2, first_name, last_name, document, birthdate, 9 FROM bets WHERE id = 9",
            "bets: bet 10 of agency 2 in draw 1 is in no batch",
        ),
        ("UPDATE draws SET bets = bets + 1", "draws: draw 1 says 10 bets, 9 are stored"),
        ("UPDATE draws SET winners = 2", "draws: draw 1 says 2 winners, 3 are stored"),
        ("UPDATE draws SET winning_number = 5", "winners: bet 6 of agency 2 won"),
        ("UPDATE draws SET drawn_at = NULL", "winners: draw 1 is open and has winners"),
        (
            "DELETE FROM winners; UPDATE draws SET drawn_at = NULL",
            "draws: draw 1 says 3 winners, 0 are stored",
        ),
        (
            "UPDATE done_agencies SET bet_count = 3 WHERE agency = 2",
            "done_agencies: agency 2 was done in draw 1 with 3 bets",
        ),
        (
            "DELETE FROM done_agencies WHERE agency = 1",
            "draws: draw 1 says that 2 agencies are done, 1 are",
        ),
        (
            "DELETE FROM done_agencies WHERE agency = 1; UPDATE draws SET done = 1",
            "draws: draw 1 was drawn before all expected agencies were done",
        ),
        // Totals.
        ("UPDATE draws SET agencies = 3", "draws: draw 1 says 3 agencies, 2 have totals"),
        (
            "UPDATE agency_totals SET bets = 6 WHERE agency = 1; UPDATE done_agencies SET bet_count = 6 WHERE agency = 1",
            "agency_totals: agency 1 of draw 1 has totals of 6 bets in 3 batches, stored are 5 in 3",
        ),
        (
            "UPDATE agency_totals SET batches = 1 WHERE agency = 2",
            "agency_totals: agency 2 of draw 1 has totals of 4 bets in 1 batches, stored are 4 in 2",
        ),
        (
            "UPDATE agency_totals SET winners = 3 - winners",
            "agency_totals: agency 1 of draw 1 has totals of 1 winners of",
        ),
        (
            "UPDATE agency_totals SET winner_text_bytes = winner_text_bytes + 1 WHERE agency = 2",
            "agency_totals: agency 2 of draw 1 has totals of 1 winners of",
        ),
        ("DELETE FROM agency_totals WHERE agency = 2", "done_agencies: agency 2 was done in draw 1 with 4 bets, its totals have none"),
        (
            "INSERT INTO agency_totals VALUES (1, 9, 0, 0, 0, 0); UPDATE draws SET agencies = 3",
            "agency_totals: agency 9 of draw 1 has totals, but sent nothing and is not done",
        ),
        (
            "UPDATE agency_totals SET draw_id = 2",
            "references: a row of agency_totals names a row of draws that is missing",
        ),
        // Sets.
        (
            "INSERT INTO expected_ranges VALUES (1, 1, 1), (1, 2, 2)",
            "expected_ranges: the range from 2 of draw 1 overlaps or touches the one before",
        ),
        (
            "INSERT INTO expected_ranges VALUES (1, 1, 3)",
            "expected_ranges: draw 1 expects 2 agencies, its ranges have 3",
        ),
        (
            "INSERT INTO expected_ranges VALUES (1, 1, 1), (1, 5, 5)",
            "draws: draw 1 has expected_agencies set to 1,5, the audit records expected_agencies set to 2",
        ),
        (
            "UPDATE batches SET digest = zeroblob(32) WHERE id = 4",
            "batches: batch 4 of agency 2 in draw 1 differs from the rows",
        ),
        ("UPDATE batches SET first_row = 3 WHERE id = 2", "batches: draw 1, agency 1, upload"),
        (
            "UPDATE batches SET bet_count = 1 WHERE id = 3; UPDATE batches SET bet_count = 3 WHERE id = 1",
            "batches: ",
        ),
        ("DELETE FROM batches WHERE id = 5", "bets: bet 8 of agency 2 in draw 1 is in no batch"),
        // What the table's CHECKs forbid.
        ("UPDATE draws SET winning_number = -1", "draws: draw 1 holds a value that its table forbids"),
        ("UPDATE draws SET winning_number = 4294967296", "draws: draw 1 holds a value that its table forbids"),
        ("UPDATE draws SET expected_agencies = 0", "draws: draw 1 holds a value that its table forbids"),
        ("UPDATE draws SET bets = -1", "draws: draw 1 holds a value that its table forbids"),
        ("UPDATE draws SET winners = -1", "draws: draw 1 holds a value that its table forbids"),
        ("UPDATE draws SET agencies = -1", "draws: draw 1 holds a value that its table forbids"),
        ("UPDATE draws SET done = -1", "draws: draw 1 holds a value that its table forbids"),
        (
            "UPDATE agency_totals SET winners = -1 WHERE agency = 2",
            "agency_totals: agency 2 of draw 1 holds a value that its table forbids",
        ),
        (
            "INSERT INTO expected_ranges VALUES (1, 5, 4)",
            "expected_ranges: the range from 5 of draw 1 holds a value that its table forbids",
        ),
        ("UPDATE batches SET agency = -1 WHERE id = 2", "batches: batch 2 holds a value that its table forbids"),
        ("UPDATE batches SET first_row = -2 WHERE id = 2", "batches: batch 2 holds a value that its table forbids"),
        ("UPDATE batches SET bet_count = 0 WHERE id = 2", "batches: batch 2 holds a value that its table forbids"),
        ("UPDATE batches SET digest = x'00' WHERE id = 2", "batches: batch 2 holds a value that its table forbids"),
        ("UPDATE batches SET first_row = NULL WHERE id = 2", "batches: batch 2 holds a value that its table forbids"),
        ("UPDATE batches SET upload = NULL WHERE id = 2", "batches: batch 2 holds a value that its table forbids"),
        (
            "UPDATE done_agencies SET agency = 4294967296 WHERE agency = 2",
            "done_agencies: agency 4294967296 of draw 1 holds a value that its table forbids",
        ),
        (
            "UPDATE done_agencies SET bet_count = -4 WHERE agency = 2",
            "done_agencies: agency 2 of draw 1 holds a value that its table forbids",
        ),
        (
            r#"UPDATE done_agencies SET "by" = 'agenby' WHERE agency = 2"#,
            "done_agencies: agency 2 of draw 1 holds a value that its table forbids",
        ),
        // Numbers without gaps.
        ("UPDATE draws SET id = 2", "draws: after draw 0 comes draw 2"),
        ("UPDATE batches SET id = 9 WHERE id = 5", "batches: after batch 4 comes batch 9"),
        ("UPDATE audit SET id = 9 WHERE id = 2", "audit: after row 1 comes row 9"),
        ("UPDATE bets SET id = 11 WHERE id = 9", "bets: after bet 8 comes bet 11"),
        ("UPDATE bets SET id = 0 WHERE id = 1", "bets: after bet 0 comes bet 0"),
        ("UPDATE bets SET id = -9223372036854775808 WHERE id = 1", "bets: after bet 0 comes bet -9223372036854775808"),
        (
            "UPDATE bets SET id = 9223372036854775807 WHERE id = 9; INSERT INTO bets SELECT 8, draw_id, agency,
             first_name, last_name, document, birthdate, number FROM bets WHERE id = 8 ON CONFLICT DO NOTHING",
            "bets: after bet 8 comes bet 9223372036854775807",
        ),
        // Draw after draw.
        (
            "UPDATE draws SET drawn_at = NULL; INSERT INTO draws SELECT 2, 5, 2, opened_at, NULL, 0, 0, 0, 0 FROM draws",
            "draws: draw 1 was never drawn, but a later one was opened",
        ),
        (
            "INSERT INTO draws SELECT 2, 5, 2, opened_at, NULL, 1, 0, 0, 0 FROM draws; UPDATE bets SET draw_id = 2 WHERE id = 4",
            "bets: bet 5 of draw 1 comes after bets of draw 2",
        ),
        ("UPDATE draws SET drawn_at = NULL", "draws: draw 1 was not drawn, but all expected agencies are done"),
        ("UPDATE winners SET draw_id = 2", "references: a row of winners names a row of draws that is missing"),
        ("UPDATE batches SET draw_id = 2", "references: a row of batches names a row of draws that is missing"),
        ("UPDATE done_agencies SET draw_id = 2", "references: a row of done_agencies names a row of draws that is"),
        ("UPDATE audit SET draw_id = 2", "references: a row of audit names a row of draws that is missing"),
        ("UPDATE batches SET agency = 7 WHERE id = 3", "batches: batch 3 of agency 7 in draw 1 has bets that are missing"),
        // Settings, which the audit records too.
        (
            "UPDATE draws SET expected_agencies = 1",
            "draws: draw 1 has expected_agencies set to 1, the audit records expected_agencies set to 2",
        ),
        (
            "UPDATE draws SET expected_agencies = NULL",
            "draws: draw 1 has expected_agencies inferred, the audit records expected_agencies set to 2",
        ),
        (
            "UPDATE draws SET winning_number = 7575",
            "draws: draw 1 has winning_number set to 7575, the audit records winning_number set to 7574",
        ),
        // Forms.
        (
            "UPDATE draws SET opened_at = '2026-11-21 20:31:05'",
            "draws: draw 1 was opened at `2026-11-21 20:31:05`, which is not a time",
        ),
        ("UPDATE draws SET drawn_at = ''", "draws: draw 1 was drawn at ``, which is not a time"),
        (
            "UPDATE batches SET stored_at = '2026-11-31T20:31:05.000Z' WHERE id = 2",
            "batches: batch 2 was stored at `2026-11-31T20:31:05.000Z`, which is not a time",
        ),
        (
            "UPDATE done_agencies SET done_at = '2026-11-21t20:31:05.000Z' WHERE agency = 2",
            "done_agencies: agency 2 of draw 1 was done at `2026-11-21t20:31:05.000Z`, which is not a time",
        ),
        (
            "UPDATE audit SET at = '2026-11-21T20:31:05.0000Z' WHERE id = 2",
            "audit: row 2 is of `2026-11-21T20:31:05.0000Z`, which is not a time",
        ),
        (
            "UPDATE batches SET upload = 'a' || char(10) || 'b' WHERE agency = 2",
            "batches: batch 4 is of upload `a\\u{a}b`, which is not the name of an upload",
        ),
        // What cannot be read.
        ("UPDATE bets SET first_name = CAST(x'41ff' AS TEXT) WHERE id = 2", "integrity: bet 2 cannot be read: "),
        ("UPDATE bets SET number = -1 WHERE id = 2", "integrity: bet 2 cannot be read: "),
        ("UPDATE bets SET number = 9223372036854775807 WHERE id = 2", "integrity: bet 2 cannot be read: "),
        ("UPDATE draws SET opened_at = CAST(x'41ff' AS TEXT)", "draws: draw 1 was opened at `A\u{fffd}`, which is not a time"),
        ("UPDATE audit SET action = CAST(x'41ff' AS TEXT) WHERE id = 2", "audit: row 2 has the action `A\u{fffd}`, which is not text"),
        ("UPDATE audit SET detail = CAST(x'41ff' AS TEXT) WHERE id = 2", "audit: row 2 has the detail `A\u{fffd}`, which is not text"),
        // Tokens.
        (with_token!("UPDATE tokens SET id = '0123'"), "tokens: token 0123 holds a value that its table forbids"),
        (with_token!("UPDATE tokens SET agency = 4294967296"), "tokens: token 0123456789abcdef holds a value that"),
        (with_token!("UPDATE tokens SET agency = NULL"), "tokens: token 0123456789abcdef holds a value that its"),
        (with_token!("UPDATE tokens SET role = 'viewer'"), "tokens: token 0123456789abcdef holds a value that its"),
        (
            with_token!("UPDATE tokens SET agency = NULL, role = 'boss'"),
            "tokens: token 0123456789abcdef holds a value that its table forbids",
        ),
        (with_token!("UPDATE tokens SET digest = x'00'"), "tokens: token 0123456789abcdef holds a value that its"),
        (
            with_token!("UPDATE tokens SET id = '0123456789ABCDEF'"),
            "tokens: token 0123456789ABCDEF has the id `0123456789ABCDEF`, which is not the id of a token",
        ),
        (
            with_token!("UPDATE tokens SET label = 'a' || char(10) || 'b'"),
            "tokens: token 0123456789abcdef has the label `a\\u{a}b`, which is not one line of text",
        ),
        (
            with_token!("UPDATE tokens SET created_at = ''"),
            "tokens: token 0123456789abcdef was added at ``, which is not a time",
        ),
        (
            with_token!("UPDATE tokens SET expires_at = '2999'"),
            "tokens: token 0123456789abcdef expires at `2999`, which is not a time",
        ),
        (
            with_token!("UPDATE tokens SET last_used_at = 'now'"),
            "tokens: token 0123456789abcdef was last used at `now`, which is not a time",
        ),
        (
            with_token!("UPDATE tokens SET revoked_at = 'now'"),
            "tokens: token 0123456789abcdef was revoked at `now`, which is not a time",
        ),
        (
            "UPDATE audit SET actor = CAST(x'41ff' AS TEXT) WHERE id = 2",
            "audit: row 2 has the actor `A\u{fffd}`, which is not text",
        ),
        // Numbers that no sum takes.
        (
            "UPDATE batches SET bet_count = 9223372036854775807 WHERE agency = 1",
            "integrity: agency_totals cannot be read: integer overflow",
        ),
        (
            "UPDATE batches SET first_row = 9223372036854775807, bet_count = 9223372036854775807 WHERE id = 2",
            "batches: draw 1, agency 1, upload",
        ),
        (
            "UPDATE draws SET bets = 9223372036854775807, winners = 9223372036854775807;
             INSERT INTO draws SELECT 2, 5, 2, opened_at, NULL, 9223372036854775807, 0, 0, 0 FROM draws",
            "draws: draw 1 says 9223372036854775807 bets, 9 are stored",
        ),
        (
            "UPDATE bets SET draw_id = -9223372036854775808, agency = 9223372036854775807",
            "bets: bet 1 names draw -9223372036854775808, which is missing",
        ),
    ];
    let original = drawn_database();
    for (sql, finding) in cases {
        let folder = copy_of(&original);
        tamper(&folder.path().join("sorteo.db"), sql);
        let finished = run_check(folder.path());
        assert_names(finished.failed(1), &["sorteo.db: ", " finding", ", the first: "]);
        let found = finished.stdout.lines().any(|line| line.starts_with(finding));
        assert!(found, "{sql}: no `{finding}` in\n{}", finished.stdout);
        assert!(!finished.stdout.contains("schema: "), "{sql}: {}", finished.stdout);
    }
}

/// A folder with nothing but a copy of the database, and its lock.
fn copy_of(original: &TempDir) -> TempDir {
    let folder = folder();
    fs::copy(original.path().join("sorteo.db"), folder.path().join("sorteo.db")).unwrap();
    fs::write(folder.path().join("sorteo.db.lock"), "").unwrap();
    folder
}

/// Changes what the triggers, the CHECKs and the references forbid, and leaves
/// those as they were.
fn tamper(database: &Path, sql: &str) {
    let connection = Connection::open(database).unwrap();
    let triggers: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(triggers.len(), 7);
    connection.execute_batch("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on").unwrap();
    triggers.iter().for_each(|(name, _)| connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    triggers.iter().for_each(|(_, sql)| connection.execute_batch(sql).unwrap());
    connection.close().unwrap();
}

#[test]
fn a_draw_that_was_never_made_but_is_marked_so_is_found_by_the_check() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    bets_file(folder.path(), "a.csv", &[7574]);
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--no-wait"];
    run(&mut server.command(folder.path(), &upload)).succeeded();
    server.stop();
    run_check(folder.path()).succeeded();
    let connection = Connection::open(folder.path().join("sorteo.db")).unwrap();
    connection.execute("UPDATE draws SET drawn_at = opened_at", []).unwrap();
    connection.close().unwrap();
    let finished = run_check(folder.path());
    assert_names(finished.failed(1), &["findings"]);
    for finding in [
        "draws: draw 1 was drawn before all expected agencies were done\n",
        "winners: bet 1 of agency 1 won draw 1 and is not among its winners\n",
    ] {
        assert!(finished.stdout.contains(finding), "{}", finished.stdout);
    }
}

#[test]
fn a_changed_schema_is_told_and_what_rests_on_it_is_not_asked() {
    let original = drawn_database();
    let cases: &[(&str, &str)] = &[
        ("DROP TRIGGER bets_are_not_changed", "schema: the trigger bets_are_not_changed is missing"),
        (
            "DROP TRIGGER audit_is_not_deleted;
             CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT 1; END",
            "schema: the trigger audit_is_not_deleted was changed",
        ),
        (
            "CREATE TRIGGER mine BEFORE INSERT ON bets BEGIN SELECT RAISE(IGNORE); END",
            "schema: the trigger mine is not one of ours",
        ),
        ("DROP VIEW results", "schema: the view results is missing"),
        (
            "PRAGMA writable_schema = on; UPDATE sqlite_schema SET sql = CAST(sql AS BLOB) WHERE name = 'results'",
            "schema: the view results was changed",
        ),
        (
            "DROP VIEW standings; CREATE VIEW standings AS SELECT id AS draw, 'drawn' AS state, 0 AS complete FROM draws",
            "schema: the view standings was changed",
        ),
        ("PRAGMA foreign_keys = off; DROP TABLE winners", "schema: the table winners is missing"),
        ("ALTER TABLE draws ADD COLUMN prize INTEGER", "schema: the table draws was changed"),
        ("CREATE INDEX mine ON bets (number)", "schema: the index mine is not one of ours"),
        ("CREATE VIEW mine AS SELECT 1", "schema: the view mine is not one of ours"),
        ("CREATE TABLE mine (text TEXT)", "schema: the table mine is not one of ours"),
    ];
    for (sql, finding) in cases {
        let folder = copy_of(&original);
        Connection::open(folder.path().join("sorteo.db")).unwrap().execute_batch(sql).unwrap();
        let finished = run_check(folder.path());
        finished.failed(1);
        assert_eq!(finished.stdout, format!("{finding}\n"), "{sql}");
    }
    let folder = copy_of(&original);
    Connection::open(folder.path().join("sorteo.db")).unwrap().execute_batch("ANALYZE").unwrap();
    run_check(folder.path()).succeeded();
}

#[test]
fn what_sqlite_itself_finds_is_told_line_by_line() {
    let folder = copy_of(&drawn_database());
    let path = folder.path().join("sorteo.db");
    // Without its last two entries an index is well-formed, but not complete.
    overwrite(&path, root_of(&path, "batches_by_upload") + 3, &3_u16.to_be_bytes());
    let finished = run_check(folder.path());
    assert_names(finished.failed(1), &["findings, the first: integrity: "]);
    let told: Vec<&str> = finished.stdout.lines().collect();
    assert!(told.iter().all(|line| line.starts_with("integrity: ")), "{told:#?}");
    let missing = told.iter().filter(|line| line.ends_with("missing from index batches_by_upload"));
    assert_eq!(missing.count(), 2, "{told:#?}");
}

#[test]
fn the_list_of_free_pages_is_looked_at_too() {
    let folder = copy_of(&drawn_database());
    overwrite(&folder.path().join("sorteo.db"), 32, &[0, 0, 0, 200]);
    let finished = run_check(folder.path());
    finished.failed(1);
    assert_eq!(finished.stdout, "integrity: Freelist: invalid page number 200\n");
}

#[test]
fn at_most_a_hundred_findings_are_told_and_how_many_more_there_are() {
    let folder = copy_of(&drawn_database());
    let add_bets = |bets: u32| {
        format!(
            "WITH RECURSIVE ids (id) AS (SELECT 10 UNION ALL SELECT id + 1 FROM ids WHERE id < 9 + {bets})
             INSERT INTO bets SELECT ids.id, 1, 2, first_name, last_name, document, birthdate, 9
               FROM ids JOIN bets ON bets.id = 9"
        )
    };
    // One more finding: the draw's row counts fewer bets.
    for (bets, more) in [(99, None), (100, Some(1)), (149, Some(50))] {
        let copy = copy_of(&folder);
        tamper(&copy.path().join("sorteo.db"), &add_bets(bets));
        let finished = run_check(copy.path());
        assert_names(
            finished.failed(1),
            &[&format!("sorteo.db: {} findings, the first: bets: bet 10", bets + 1)],
        );
        let told: Vec<&str> = finished.stdout.lines().collect();
        let expected = more.map(|more| format!("and {more} more"));
        assert_eq!(told.len(), 100 + expected.iter().len());
        assert_eq!(told.get(100).copied(), expected.as_deref());
    }
}

// ---------------------------------------------------------------------------
// What a server does not run on.

/// What is done to a database's file.
type Damage = fn(&Path);

/// Pages of our databases.
const PAGE_BYTES: usize = 4096;

fn overwrite(database: &Path, offset: usize, with: &[u8]) {
    let mut bytes = fs::read(database).unwrap();
    bytes[offset..offset + with.len()].copy_from_slice(with);
    fs::write(database, bytes).unwrap();
}

fn cut_to(database: &Path, length: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(database).unwrap();
    bytes.truncate(length(bytes.len()));
    fs::write(database, bytes).unwrap();
}

/// The offset of a table's first page.
fn root_of(database: &Path, table: &str) -> usize {
    let page: usize = Connection::open(database)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = $1", [table], |row| row.get(0))
        .unwrap();
    (page - 1) * PAGE_BYTES
}

fn overwrite_root(database: &Path, table: &str) {
    overwrite(database, root_of(database, table), &[0xa5; PAGE_BYTES]);
}

fn alter(database: &Path, sql: &str) {
    Connection::open(database).unwrap().execute_batch(sql).unwrap();
}

/// A server that does not start, and leaves the database and its log as they
/// are. SQLite's shared memory does not count.
#[track_caller]
fn refused(folder: &Path, said: &str) -> Finished {
    let files = || {
        let mut files = snapshot(folder);
        files.retain(|path, _| path.extension().is_none_or(|extension| extension != "db-shm"));
        files
    };
    let before = files();
    match Server::start_command(&mut sorteo(folder, ["serve", "--listen", "127.0.0.1:0"])) {
        Ok(_) => panic!("{said}: a server runs on it"),
        Err(finished) => {
            assert!(before == files(), "{said}: a file changed: {finished:#?}");
            finished
        }
    }
}

#[test]
fn a_damaged_or_altered_database_is_refused_with_74_and_left_as_it_is() {
    // What is done, and what the complaint says of it.
    let cases: &[(Damage, &str)] = &[
        (|path| overwrite(path, 16, &999_u16.to_be_bytes()), "its header gives a page size of 999 bytes"),
        (|path| overwrite(path, 16, &[0, 0]), "its header gives a page size of 0 bytes"),
        (|path| overwrite(path, 18, &[3]), "its header gives the file formats 3 and 2"),
        (|path| overwrite(path, 19, &[0]), "its header gives the file formats 2 and 0"),
        (|path| overwrite(path, 21, &[65]), "its header is garbled"),
        (|path| overwrite(path, 16, &[0xa5; 84]), "its header gives a page size of 42405 bytes"),
        (|path| overwrite(path, 16, &1024_u16.to_be_bytes()), "malformed"),
        (|path| cut_to(path, |bytes| bytes / 2), "it is cut short: "),
        (|path| cut_to(path, |bytes| bytes - 1), "it is cut short: "),
        (|path| cut_to(path, |_| PAGE_BYTES), "it is cut short: 4096 of "),
        (|path| cut_to(path, |_| 108), "it is cut short: 108 of "),
        (|path| overwrite(path, 100, &[0xff; 200]), "malformed"),
        (|path| overwrite(path, 60, &0_u32.to_be_bytes()), "it has tables, but its schema version is 0"),
        (|path| overwrite(path, 60, &(-1_i32).to_be_bytes()), "it has tables, but its schema version is -1"),
        (|path| overwrite(path, 32, &[0, 0, 0, 200]), "(sqlite_schema: Freelist: invalid page number 200)"),
        (|path| overwrite_root(path, "draws"), "(draws: "),
        (|path| overwrite_root(path, "done_agencies"), "(done_agencies: "),
        (|path| overwrite_root(path, "audit"), "(audit: "),
        (|path| overwrite_root(path, "bets"), "malformed"),
        (|path| overwrite_root(path, "batches"), "malformed"),
        // An empty leaf is well-formed: the rows are gone.
        (
            |path| overwrite(path, root_of(path, "draws"), &[0x0d, 0, 0, 0, 0, 0x10, 0, 0]),
            "the draws have 0 bets",
        ),
        (
            |path| overwrite(path, root_of(path, "bets"), &[0x0d, 0, 0, 0, 0, 0x10, 0, 0]),
            "bet 1 should be of draw 1, and is missing",
        ),
        (|path| tamper(path, "UPDATE draws SET bets = 8"), "the draws have 8 bets, the last bet stored is 9"),
        (|path| tamper(path, "UPDATE draws SET bets = 10"), "bet 10 should be of draw 1, and is missing"),
        (|path| tamper(path, "UPDATE draws SET bets = -1"), "(draws: CHECK constraint failed in draws"),
        (
            |path| tamper(path, "UPDATE bets SET draw_id = 2 WHERE id = 9"),
            "bet 9 should be of draw 1, and is of draw 2",
        ),
        (
            |path| {
                tamper(
                    path,
                    "INSERT INTO draws SELECT 2, 5, 2, opened_at, NULL, 1, 0, 0, 0 FROM draws; UPDATE draws SET bets = 8 WHERE id = 1",
                );
            },
            "bet 9 should be of draw 2, and is of draw 1",
        ),
        (
            |path| {
                tamper(
                    path,
                    "UPDATE draws SET bets = 9223372036854775807; INSERT INTO draws SELECT 2, 5, 2, opened_at, NULL, 9, 0, 0, 0 FROM draws",
                );
            },
            "bet 9223372036854775807 should be of draw 1, and is missing",
        ),
        (
            |path| tamper(path, "UPDATE draws SET winning_number = 7575"),
            "the audit records winning_number set to 7574",
        ),
        (
            |path| tamper(path, "UPDATE draws SET expected_agencies = 1"),
            "the audit records expected_agencies set to 2",
        ),
        (
            |path| tamper(path, r#"UPDATE done_agencies SET "by" = 'agenby'"#),
            "(done_agencies: CHECK constraint failed in done_agencies",
        ),
        (
            |path| tamper(path, with_token!("UPDATE tokens SET digest = x'00'")),
            "(tokens: CHECK constraint failed in tokens",
        ),
        (
            |path| tamper(path, with_token!("UPDATE tokens SET agency = NULL")),
            "(tokens: CHECK constraint failed in tokens",
        ),
        (|path| overwrite_root(path, "tokens"), "(tokens: "),
        (
            |path| alter(path, "DROP TRIGGER tokens_stay_revoked"),
            "the trigger tokens_stay_revoked is missing",
        ),
        (
            |path| alter(path, "DROP TRIGGER bets_are_not_deleted"),
            "the trigger bets_are_not_deleted is missing",
        ),
        (
            |path| alter(path, "CREATE TRIGGER mine BEFORE INSERT ON bets BEGIN SELECT RAISE(IGNORE); END"),
            "the trigger mine is not one of ours",
        ),
        (
            |path| alter(path, "DROP VIEW standings; CREATE VIEW standings AS SELECT 1"),
            "the view standings was changed",
        ),
        (|path| alter(path, "DROP VIEW results"), "the view results is missing"),
        (|path| alter(path, "PRAGMA foreign_keys = off; DROP TABLE winners"), "the table winners is missing"),
        (|path| alter(path, "ALTER TABLE bets ADD COLUMN paid INTEGER"), "the table bets was changed"),
    ];
    let original = drawn_database();
    for (damage, said) in cases {
        let folder = copy_of(&original);
        damage(&folder.path().join("sorteo.db"));
        let finished = refused(folder.path(), said);
        let what_to_do = ["left as it is", "`sorteo check --database sorteo.db`", "restore a backup"];
        assert_names(finished.failed(74), &["sorteo.db ", said]);
        assert_names(finished.failed(74), &what_to_do);
        let checked = run_check(folder.path());
        assert!(matches!(checked.code, Some(1 | 74)), "{said}: {checked:#?}");
    }
}

#[test]
fn what_somebody_added_for_himself_keeps_no_server_from_starting() {
    let folder = copy_of(&drawn_database());
    alter(
        &folder.path().join("sorteo.db"),
        "CREATE TABLE notes (text TEXT); CREATE VIEW mine AS SELECT 1; CREATE INDEX numbers ON bets (number); ANALYZE",
    );
    Server::start(folder.path(), &[]).stop();
    let finished = run_check(folder.path());
    finished.failed(1);
    assert_eq!(finished.stdout.lines().count(), 3, "{}", finished.stdout);
}

/// A database and a log with a commit in it, as a crash leaves them.
fn crashed_database() -> TempDir {
    let (original, folder) = (drawn_database(), folder());
    let database = original.path().join("sorteo.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "INSERT INTO audit (at, action, detail) VALUES ('2026-11-21T20:31:05.000Z', 'test', '')",
        )
        .unwrap();
    for name in ["sorteo.db", "sorteo.db-wal", "sorteo.db.lock"] {
        fs::copy(original.path().join(name), folder.path().join(name)).unwrap();
    }
    assert!(fs::metadata(folder.path().join("sorteo.db-wal")).unwrap().len() > 0);
    folder
}

#[test]
fn the_log_of_a_database_that_is_refused_is_left_as_it_is() {
    let intact = crashed_database();
    Server::start(intact.path(), &[]).stop();
    assert!(!intact.path().join("sorteo.db-wal").exists(), "one that is not refused is copied and removed");
    let cases: [(Damage, &str); 3] = [
        (|path| overwrite_root(path, "done_agencies"), "(done_agencies: "),
        (|path| overwrite_root(path, "batches"), "malformed"),
        // Without a database SQLite would delete the log.
        (|path| fs::write(path, "").unwrap(), "it is missing or empty, but its WAL sorteo.db-wal is not"),
    ];
    for (damage, said) in cases {
        let folder = crashed_database();
        let log = folder.path().join("sorteo.db-wal");
        let commit = fs::read(&log).unwrap();
        // Whoever looks for the page's place copies the log and removes it.
        damage(&folder.path().join("sorteo.db"));
        fs::write(&log, &commit).unwrap();
        assert_names(refused(folder.path(), said).failed(74), &[said, "left as it is"]);
    }
}
