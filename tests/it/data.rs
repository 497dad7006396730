//! Backup, restore, export and import, and a database that a replicator copies.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rusqlite::Connection;
use sha2::{Digest as _, Sha256};
use signal_hook::consts::SIGPIPE;
use sorteo_test_support::process::{
    Finished, Process, Server, assert_names, bets_file, folder, run, run_changing_nothing, run_comparing,
    sorteo, wait_for,
};
use tempfile::TempDir;

use crate::test_server::{self, Setup, frames};

const BACKUP: [&str; 4] = ["backup", "b.db", "--database", "sorteo.db"];
const RESTORE: [&str; 4] = ["restore", "b.db", "--database", "sorteo.db"];

#[track_caller]
fn sql(database: &Path, statements: &str) {
    Connection::open(database).unwrap().execute_batch(statements).unwrap();
}

#[track_caller]
fn number(database: &Path, query: &str) -> i64 {
    Connection::open(database).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

/// The names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// One framed request and its answer's line.
pub fn ask(server: &Server, line: &str) -> String {
    ask_frames(server, &[line])
}

/// The same for a request of several frames.
pub fn ask_frames(server: &Server, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(test_server::DEADLINE)).unwrap();
    stream.write_all(&test_server::frames(lines)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap().trim_end().to_owned()
}

/// Rows of a seed's file: so many bets of agencies 1 and 2 in turn, every
/// `winning`th of which wins.
fn seed_rows(bets: u32, winning: u32) -> String {
    (0..bets)
        .map(|bet| {
            let number = if bet.is_multiple_of(winning) { 7574 } else { 1 };
            format!("{},Ana María,Paz,{},1999-03-17,{number}\r\n", bet % 2 + 1, 3_000_000 + bet)
        })
        .collect()
}

fn import(folder: &Path, rows: &str) -> Finished {
    fs::write(folder.join("bets.csv"), rows).unwrap();
    run(&mut sorteo(folder, ["import", "bets.csv", "--database", "sorteo.db"]))
}

/// A closed database whose draw of agencies 1 and 2 is made.
fn drawn_database(bets: u32, winning: u32) -> TempDir {
    drawn_database_of(&seed_rows(bets, winning))
}

fn drawn_database_of(rows: &str) -> TempDir {
    let folder = folder();
    import(folder.path(), rows).succeeded();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    assert_eq!(ask(&server, "DONE|1"), "ACK_DONE|OK");
    assert_eq!(ask(&server, "DONE|2"), "ACK_DONE|OK");
    server.stop();
    fs::remove_file(folder.path().join("bets.csv")).unwrap();
    folder
}

fn check(folder: &Path, database: &str) -> String {
    run(&mut sorteo(folder, ["check", "--database", database])).succeeded().to_owned()
}

// ---- Backup -------------------------------------------------------------------

#[test]
fn a_backup_under_load_is_whole_and_has_what_was_acknowledged_before() {
    const ROWS: u64 = 50;
    let server = Setup::default().start();
    let target = folder();
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for agency in 1..=2 {
            let (mut client, acknowledged, stop) = (server.connect(), &acknowledged, &stop);
            scope.spawn(move || {
                let mut lines = vec![format!("BATCH|{agency}|{ROWS}")];
                lines.extend((0..ROWS).map(|row| format!("BET|{agency}|Ana|Paz|{row}|1999-03-17|{row}")));
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let batch = frames(&lines);
                while !stop.load(Ordering::Relaxed) {
                    client.send(&batch);
                    assert!(client.read_frame().starts_with("ACK_BATCH|OK|50"));
                    acknowledged.fetch_add(ROWS, Ordering::SeqCst);
                }
            });
        }
        let so_far = || acknowledged.load(Ordering::SeqCst);
        for round in 1..=3 {
            let before = so_far();
            wait_for("more load", || (so_far() > before + 20 * ROWS).then_some(()));
            let before = so_far();
            let file = format!("{round}.db");
            let database = server.database_path();
            let mut command = sorteo(target.path(), ["backup", &file, "--json", "--database"]);
            let saved = run(command.arg(&database));
            let saved: serde_json::Value = serde_json::from_str(saved.succeeded()).unwrap();
            let bets = saved["bets"].as_u64().unwrap();
            assert!(bets >= before, "{bets} of {before} acknowledged bets");
            assert!(bets <= so_far() + 2 * ROWS, "no more than was sent");
            assert!(so_far() > before, "the load went on meanwhile");
            assert_eq!(saved["bytes"], fs::metadata(target.path().join(&file)).unwrap().len());
            let fine = format!("{file}: OK: 1 draw, {} batches, {bets} bets, 0 winners\n", bets / ROWS);
            assert_eq!(check(target.path(), &file), fine);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(target.path()), ["1.db", "2.db", "3.db"].map(String::from).into());
}

#[test]
fn a_backup_is_one_file_that_a_server_starts_on() {
    let folder = drawn_database(100, 10);
    let saved = run(&mut sorteo(folder.path(), BACKUP));
    let bytes = fs::metadata(folder.path().join("b.db")).unwrap().len();
    let said = format!("b.db: saved 1 draw, 100 bets, 10 winners in {bytes} bytes\n");
    assert_eq!(saved.succeeded(), said);
    assert!(!names(folder.path()).iter().any(|name| name.starts_with("b.db-") || name.starts_with('.')));
    let server = Server::start(folder.path(), &["--database", "b.db"]);
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|1|drawn|2|2|100");
    server.stop();
}

#[test]
fn a_backup_that_may_not_be_there_is_refused_and_changes_nothing() {
    let folder = drawn_database(10, 10);
    let path = folder.path();
    fs::write(path.join("there.db"), "precious").unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    fs::write(path.join("left.db-wal"), "a log").unwrap();
    std::os::unix::fs::symlink("sorteo.db", path.join("link.db")).unwrap();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["there.db"], 1, &["there.db exists already", "--force"]),
        (&["sorteo.db"], 1, &["sorteo.db is the database sorteo.db itself"]),
        (&["./sorteo.db", "--force"], 1, &["itself, or belongs to it"]),
        (&["link.db", "--force"], 1, &["itself, or belongs to it"]),
        (&["folder", "--force"], 1, &["folder is not a file"]),
        (&["left.db"], 1, &["SQLite would apply left.db-wal"]),
        (&["left.db", "--force"], 1, &["SQLite would apply left.db-wal"]),
        (&["missing/b.db"], 74, &["missing/b.db cannot be written", "no folder missing"]),
    ];
    for (args, code, words) in cases {
        let mut command = sorteo(path, ["backup", "--database", "sorteo.db"]);
        let finished = run_comparing(path, command.args(*args), not_shared_memory);
        assert_names(finished.failed(*code), words);
    }
    let mut command = sorteo(path, ["backup", "b.db", "--database", "nothing.db"]);
    let finished = run_comparing(path, &mut command, not_shared_memory);
    assert_names(finished.failed(74), &["there is no database nothing.db"]);
    let mut command = sorteo(path, ["backup", "there.db", "--database", "sorteo.db", "--force"]);
    run(&mut command).succeeded();
    assert!(check(path, "there.db").contains("10 bets"));
}

/// What a connection that only reads leaves beside a database does not count.
fn not_shared_memory(path: &Path, bytes: &Option<Vec<u8>>) -> bool {
    match path.extension().and_then(OsStr::to_str) {
        Some("db-shm") => false,
        Some("db-wal") => bytes.as_ref().is_none_or(|bytes| !bytes.is_empty()),
        _ => true,
    }
}

#[test]
fn a_backup_does_not_replace_the_database_of_a_running_server() {
    let folder = drawn_database(10, 10);
    let server = Server::start(folder.path(), &["--database", "other.db"]);
    let mut command = sorteo(folder.path(), ["backup", "other.db", "--force", "--database", "sorteo.db"]);
    // Its log would refuse it already: a server empties it when all is quiet.
    let log = folder.path().join("other.db-wal");
    wait_for("an empty log", || (fs::metadata(&log).unwrap().len() == 0).then_some(()));
    assert_names(run(&mut command).failed(75), &["another server holds other.db"]);
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|1|open|0|0|0");
    server.stop();
}

#[test]
fn a_damaged_database_is_not_saved_and_what_is_wrong_is_told() {
    let folder = drawn_database(4_000, 10);
    let database = folder.path().join("sorteo.db");
    sql(&database, "DELETE FROM winners WHERE bet_id = 11");
    let finished = run_comparing(folder.path(), &mut sorteo(folder.path(), BACKUP), not_shared_memory);
    assert_names(finished.failed(74), &["sorteo.db: 3 findings, the first: ", "nothing was changed"]);
    assert!(
        finished.stdout.contains("winners: bet 11 of agency 1 won draw 1 and is not among its winners\n"),
        "{finished:#?}"
    );
    // The same for a page of which nothing is left.
    let mut bytes = fs::read(&database).unwrap();
    let page = bytes.len() / 2 / 4096 * 4096;
    bytes[page..page + 4096].fill(0x5a);
    fs::write(&database, bytes).unwrap();
    let finished = run_comparing(folder.path(), &mut sorteo(folder.path(), BACKUP), not_shared_memory);
    assert_names(finished.failed(74), &["sorteo.db: ", "integrity: "]);
}

/// The program where no file may grow beyond so many blocks of 512 bytes.
fn with_little_room(folder: &Path, args: &[&str]) -> Command {
    let plain = sorteo(folder, [""; 0]);
    let mut command = Command::new("sh");
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let limited = r#"trap "" XFSZ; ulimit -f 64; exec "$0" "$@""#;
    command.current_dir(folder).arg("-c").arg(limited).arg(plain.get_program()).args(args);
    command
}

#[test]
fn a_backup_or_restore_without_room_leaves_nothing() {
    let folder = drawn_database(4_000, 10);
    let finished =
        run_comparing(folder.path(), &mut with_little_room(folder.path(), &BACKUP), not_shared_memory);
    assert_names(finished.failed(74), &["copying sorteo.db to b.db failed", "nothing was left"]);
    run(&mut sorteo(folder.path(), BACKUP)).succeeded();
    let finished =
        run_comparing(folder.path(), &mut with_little_room(folder.path(), &RESTORE), not_shared_memory);
    assert_names(finished.failed(74), &["copying b.db to sorteo.db failed"]);
}

#[test]
fn a_backup_that_a_signal_ends_leaves_nothing_beside() {
    let folder = drawn_database(25_000, 10);
    let unfinished = || names(folder.path()).iter().any(|name| name.starts_with(".sorteo-"));
    // One that is quicker than the signal is none to learn from.
    let ended = (0..50).find(|_| {
        let mut backup = Process::start(sorteo(folder.path(), BACKUP).arg("--force"));
        wait_for("a file that is written", || (unfinished() || !backup.is_running()).then_some(()));
        backup.terminate();
        let code = backup.wait().code;
        assert!(!unfinished(), "{:?}", names(folder.path()));
        code == Some(143)
    });
    assert!(ended.is_some(), "none was ended by the signal");
}

#[test]
fn whoever_may_read_the_database_may_read_its_backup_and_its_successor() {
    let folder = drawn_database(10, 10);
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    let set = |name: &str, mode: u32| {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("sorteo.db", 0o640);
    run(&mut sorteo(folder.path(), BACKUP)).succeeded();
    assert_eq!(mode("b.db"), 0o640);
    set("sorteo.db", 0o660);
    run(&mut sorteo(folder.path(), RESTORE)).succeeded();
    assert_eq!((mode("sorteo.db"), mode("b.db")), (0o660, 0o640));
}

// ---- Restore ------------------------------------------------------------------

#[test]
fn restored_elsewhere_the_same_winners_are_served() {
    let from = drawn_database(1_000, 10);
    run(&mut sorteo(from.path(), BACKUP)).succeeded();
    let winners = |server: &Server| [1, 2].map(|agency| ask(server, &format!("GET_WINNERS|{agency}")));
    let server = Server::start(from.path(), &[]);
    let told = winners(&server);
    server.stop();
    assert!(told[0].starts_with("WINNERS|OK|3000000,3000010,"), "{told:?}");
    let to = folder();
    fs::copy(from.path().join("b.db"), to.path().join("b.db")).unwrap();
    let restored = run(&mut sorteo(to.path(), RESTORE));
    assert_eq!(restored.succeeded(), "sorteo.db: restored 1 draw, 1000 bets, 100 winners from b.db\n");
    assert_eq!(names(to.path()), ["b.db", "sorteo.db", "sorteo.db.lock"].map(String::from).into());
    let server = Server::start(to.path(), &[]);
    assert_eq!(winners(&server), told);
    server.stop();
    let noted = number(
        &to.path().join("sorteo.db"),
        "SELECT count(*) FROM audit WHERE action = 'restore' AND draw_id = 1
            AND detail = 'restored 1 draw and 1000 bets from b.db; nothing was there'",
    );
    assert_eq!(noted, 1);
}

#[test]
fn what_was_there_is_kept_with_its_log_and_can_be_opened() {
    let folder = drawn_database(10, 10);
    let path = folder.path();
    run(&mut sorteo(path, BACKUP)).succeeded();
    fs::remove_file(path.join("sorteo.db")).unwrap();
    // Another lottery, whose server is killed: its bets are in the log alone.
    let mut server = Server::start(path, &["--checkpoints", "external"]);
    bets_file(path, "1.csv", &[1, 2, 3]);
    run(&mut server.command(path, &["upload", "--agency", "1", "--file", "1.csv", "--no-wait"])).succeeded();
    server.process.kill();
    assert!(fs::metadata(path.join("sorteo.db-wal")).unwrap().len() > 0);
    let found = fs::read(path.join("sorteo.db-wal")).unwrap();
    let restored = run(&mut sorteo(path, RESTORE));
    let kept = restored.succeeded().lines().nth(1).unwrap();
    let kept = kept.strip_prefix("the previous database is kept as ").unwrap();
    assert!(kept.starts_with("sorteo.db.before-restore-20"), "{kept}");
    assert!(!path.join("sorteo.db-wal").exists() && !path.join("sorteo.db-shm").exists());
    assert_eq!(fs::read(path.join(format!("{kept}-wal"))).unwrap(), found);
    assert!(check(path, "sorteo.db").contains(" 10 bets, 1 winner\n"));
    assert!(check(path, kept).contains(" 3 bets, 0 winners"));
    let audit =
        "SELECT count(*) FROM audit WHERE action = 'restore' AND detail LIKE '%what was there is kept as ";
    assert_eq!(number(&path.join("sorteo.db"), &format!("{audit}{kept}'")), 1);
}

#[test]
fn what_a_restore_did_is_told_to_programs() {
    let folder = drawn_database(10, 10);
    let path = folder.path();
    run(&mut sorteo(path, ["backup", "saved.db"])).succeeded();
    let told = run(&mut sorteo(path, ["restore", "saved.db", "--json"]));
    let told: serde_json::Value = serde_json::from_str(told.succeeded()).unwrap();
    assert_eq!((&told["database"], &told["from"]), (&"sorteo.db".into(), &"saved.db".into()));
    assert_eq!((&told["draws"], &told["bets"], &told["winners"]), (&1.into(), &10.into(), &1.into()));
    assert!(path.join(told["kept"].as_str().unwrap()).exists());
    let into_nothing = run(&mut sorteo(path, ["restore", "saved.db", "--json", "--database", "new.db"]));
    let told: serde_json::Value = serde_json::from_str(into_nothing.succeeded()).unwrap();
    assert_eq!(told["kept"], serde_json::Value::Null);
}

#[test]
fn a_restore_that_cannot_be_is_refused_and_changes_nothing() {
    let folder = drawn_database(100, 10);
    let path = folder.path();
    run(&mut sorteo(path, BACKUP)).succeeded();
    let server = Server::start(path, &[]);
    assert_names(run(&mut sorteo(path, RESTORE)).failed(75), &["another server holds sorteo.db"]);
    assert_eq!(ask(&server, "STATUS"), "STATUS|OK|1|drawn|2|2|100");
    server.stop();
    fs::copy(path.join("b.db"), path.join("tampered.db")).unwrap();
    sql(&path.join("tampered.db"), "UPDATE draws SET winners = 3");
    fs::write(path.join("text.db"), "no database, whatever its name").unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    let cases: &[(&str, &str, i32, &[&str])] = &[
        (
            "tampered.db",
            "sorteo.db",
            74,
            &["tampered.db: 1 finding, the first: draws: draw 1 says 3 winners"],
        ),
        ("tampered.db", "new.db", 74, &["tampered.db: 1 finding,"]),
        ("text.db", "sorteo.db", 74, &["text.db is not a SQLite database"]),
        ("missing.db", "sorteo.db", 74, &["there is no database missing.db"]),
        ("b.db", "missing/sorteo.db", 74, &["no folder missing"]),
        ("b.db", "folder", 74, &["folder is not a file"]),
        ("b.db", "./b.db", 1, &["are the same file"]),
    ];
    for (file, database, code, words) in cases {
        let mut command = sorteo(path, ["restore", file, "--database", database]);
        let finished = run_changing_nothing(path, &mut command);
        assert_names(finished.failed(*code), words);
        assert_eq!(finished.stdout.is_empty(), *file != "tampered.db", "{finished:#?}");
    }
}

#[test]
fn a_command_that_reads_is_refused_in_the_middle_of_a_restore_until_a_server_finished_it() {
    let folder = drawn_database(100, 10);
    let path = folder.path();
    run(&mut sorteo(path, BACKUP)).succeeded();
    fs::rename(path.join("b.db"), path.join(".sorteo.db.sorteo-restore")).unwrap();
    sql(&path.join("sorteo.db"), "UPDATE draws SET winners = 3");
    let check = run_changing_nothing(path, &mut sorteo(path, ["check", "--database", "sorteo.db"]));
    assert_names(check.failed(74), &["a restore of sorteo.db is under way or was interrupted"]);
    Server::start(path, &[]).stop();
    run(&mut sorteo(path, ["check", "--database", "sorteo.db"])).succeeded();
}

// ---- Export -------------------------------------------------------------------

fn export<'a>(folder: &Path, args: impl IntoIterator<Item = &'a str>) -> Finished {
    run(sorteo(folder, ["export", "--database", "sorteo.db"]).args(args))
}

#[test]
fn results_and_bets_are_written_out_beside_a_server() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "2"]);
    for line in ["BET|2|Ana|de \"Paz\", hija|7|1999-03-17|7574", "BET|1|Eva|Gil|8|1990-01-31|5"] {
        assert_eq!(ask(&server, line), "ACK|OK");
    }
    let none = export(folder.path(), ["results"]);
    assert_names(none.failed(1), &["no draw is drawn yet"]);
    assert_names(export(folder.path(), ["results", "--draw", "1"]).failed(1), &["draw 1 is not drawn yet"]);
    assert_names(export(folder.path(), ["bets", "--draw", "2"]).failed(1), &["there is no draw 2"]);
    assert_eq!(ask(&server, "DONE|1"), "ACK_DONE|OK");
    assert_eq!(ask(&server, "DONE|2"), "ACK_DONE|OK");
    let header = "draw,bet,agency,first_name,last_name,document,birthdate,number\n";
    let (ana, eva) =
        ("1,1,2,Ana,\"de \"\"Paz\"\", hija\",7,1999-03-17,7574\n", "1,2,1,Eva,Gil,8,1990-01-31,5\n");
    assert_eq!(export(folder.path(), ["results"]).succeeded(), format!("{header}{ana}"));
    assert_eq!(export(folder.path(), ["results", "--agency", "1"]).succeeded(), header);
    assert_eq!(export(folder.path(), ["bets", "--draw", "1"]).succeeded(), format!("{header}{ana}{eva}"));
    assert_eq!(export(folder.path(), ["bets", "--agency", "1"]).succeeded(), format!("{header}{eva}"));
    assert_eq!(
        export(folder.path(), ["bets", "--agency", "1", "--format", "jsonl"]).succeeded(),
        "{\"draw\":1,\"bet\":2,\"agency\":1,\"first_name\":\"Eva\",\"last_name\":\"Gil\",\"document\":\"8\",\
         \"birthdate\":\"1990-01-31\",\"number\":5}\n"
    );
    let empty = export(folder.path(), ["results", "--agency", "1", "--format", "jsonl"]);
    assert_eq!(empty.succeeded(), "");
    server.stop();
}

#[test]
fn nothing_that_is_written_as_csv_is_a_formula_and_json_lines_are_exact() {
    let folder = folder();
    import(folder.path(), "1,=1+1,+Paz,-7,1999-03-17,1\n1,@SUM(A1),'=x,8,1999-03-17,2\n").succeeded();
    let csv = export(folder.path(), ["bets"]);
    let rows: Vec<&str> = csv.succeeded().lines().skip(1).collect();
    assert_eq!(rows, ["1,1,1,'=1+1,'+Paz,'-7,1999-03-17,1", "1,2,1,'@SUM(A1),'=x,8,1999-03-17,2"]);
    let json = export(folder.path(), ["bets", "--format", "jsonl"]);
    let bets: Vec<serde_json::Value> =
        json.succeeded().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(bets[0]["first_name"], "=1+1");
    assert_eq!((&bets[0]["last_name"], &bets[0]["document"]), (&"+Paz".into(), &"-7".into()));
    assert_eq!(bets[1]["last_name"], "'=x");
}

#[test]
fn more_than_one_piece_is_written_out_whole_and_in_order() {
    // Pieces end within an agency's bets, and the first have none of agency 2.
    let agency = |bet: u32| if bet < 24_000 { 1 } else { 2 };
    let row = |bet: u32| format!("{},Ana María,Paz,{bet},1999-03-17,7574\n", agency(bet));
    let folder = drawn_database_of(&(0..25_000).map(row).collect::<String>());
    let read = |args: &[&str]| -> Vec<(u32, u32)> {
        let finished = export(folder.path(), args.iter().copied());
        let mut reader = csv::Reader::from_reader(finished.succeeded().as_bytes());
        let rows = reader.records().map(|row| {
            let row = row.unwrap();
            (row[2].parse().unwrap(), row[1].parse().unwrap())
        });
        rows.collect()
    };
    let mut bets = read(&["bets"]);
    let ids: Vec<u32> = bets.iter().map(|(_, bet)| *bet).collect();
    assert!(ids.iter().copied().eq(1..=25_000), "every bet once, in stored order");
    let seconds = read(&["bets", "--agency", "2"]);
    bets.retain(|(agency, _)| *agency == 2);
    assert_eq!(seconds, bets);
    let results = read(&["results"]);
    assert_eq!(results.len(), 25_000);
    assert!(results.is_sorted_by(|a, b| a < b), "by agency, then in stored order, each once");
    assert_eq!(read(&["results", "--agency", "2"]), seconds);
}

#[test]
fn results_that_lack_a_row_are_an_error_and_never_fewer() {
    let folder = drawn_database(40, 4);
    let path = folder.path();
    let whole = run(&mut sorteo(path, ["export", "results"]));
    assert_eq!(whole.succeeded().lines().count(), 1 + 10);
    let unsaid = run(&mut sorteo(path, ["export", "--database", "sorteo.db"]));
    assert_eq!(unsaid.succeeded(), whole.stdout, "results are what is mostly wanted");
    let without = |damage: &str, copy: &str| {
        fs::copy(path.join("sorteo.db"), path.join(copy)).unwrap();
        let connection = Connection::open(path.join(copy)).unwrap();
        // As damage would do it: past the triggers that protect the rows.
        let unprotected = "DROP TRIGGER bets_are_not_deleted;";
        let again = "CREATE TRIGGER bets_are_not_deleted BEFORE DELETE ON bets
BEGIN SELECT RAISE(ABORT, 'bets are append-only'); END;";
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.execute_batch(&format!("{unprotected}{damage};{again}")).unwrap();
    };
    without("DELETE FROM bets WHERE id = (SELECT bet_id FROM winners LIMIT 1 OFFSET 3)", "bet.db");
    without("DELETE FROM winners WHERE bet_id = (SELECT max(bet_id) FROM winners)", "winner.db");
    for database in ["bet.db", "winner.db"] {
        let out = ["export", "results", "--out", "out.csv", "--database", database];
        assert_names(run(&mut sorteo(path, out)).failed(74), &[database, "is damaged"]);
        assert!(!path.join("out.csv").exists());
    }
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database", "winner.db"];
    let refused = run(&mut sorteo(path, serve));
    assert_names(refused.failed(74), &["draw 1 says 10 winners, 9 are stored"]);
    let server = Server::start_command(&mut sorteo(
        path,
        ["serve", "--listen", "127.0.0.1:0", "--database", "bet.db"],
    ))
    .unwrap();
    let answers: Vec<String> = ["1", "2"].map(|agency| ask(&server, &format!("GET_WINNERS|{agency}"))).into();
    assert!(answers.contains(&"WINNERS|ERR|unavailable".to_owned()), "{answers:?}");
    server.stop();
}

#[test]
fn nothing_is_written_over_the_database_itself() {
    let folder = drawn_database(10, 10);
    let path = folder.path();
    std::os::unix::fs::symlink("sorteo.db", path.join("link.db")).unwrap();
    for target in ["sorteo.db", "link.db", "./sorteo.db.lock", "sorteo.db-wal", "sorteo.db-shm"] {
        for command in [
            &["export", "bets", "--force", "--out", target][..],
            &["backup", "--force", target],
            &["serve", "--listen", "127.0.0.1:0", "--ready-file", target],
        ] {
            let command = [command, &["--database", "sorteo.db"]].concat();
            let before = (
                fs::read(path.join("sorteo.db")).unwrap(),
                path.join("sorteo.db.lock").metadata().unwrap().len(),
            );
            assert_names(
                run(&mut sorteo(path, &command)).failed(1),
                &["is the database sorteo.db itself, or belongs to it"],
            );
            let after = (
                fs::read(path.join("sorteo.db")).unwrap(),
                path.join("sorteo.db.lock").metadata().unwrap().len(),
            );
            assert!(before == after, "{command:?}");
        }
    }
}

#[test]
fn a_file_that_is_no_database_of_ours_takes_the_place_of_none() {
    let folder = drawn_database(10, 10);
    let path = folder.path();
    let intruder = path.join(".sorteo.db.sorteo-restore");
    for bytes in [&b""[..], b"hello\n", &[0; 8192]] {
        fs::write(&intruder, bytes).unwrap();
        let refused = run(&mut sorteo(path, ["serve", "--listen", "127.0.0.1:0"]));
        assert_names(refused.failed(74), &[".sorteo.db.sorteo-restore is not a SQLite database"]);
        fs::remove_file(&intruder).unwrap();
        assert!(check(path, "sorteo.db").contains(" 10 bets, 1 winner\n"), "the database is where it was");
    }
}

#[test]
fn an_import_heeds_who_makes_the_checkpoints() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("bets.csv"), seed_rows(2_000, 10)).unwrap();
    let import = |agencies: &str| {
        let settings = [("SORTEO_CHECKPOINTS", "external"), ("SORTEO_AGENCIES", agencies)];
        run(sorteo(path, ["import", "bets.csv"]).envs(settings))
    };
    import("7").succeeded();
    let log = fs::metadata(path.join("sorteo.db-wal")).unwrap().len();
    assert!(log > 100_000, "{log} bytes are left to the replicator");
    assert_eq!(number(&path.join("sorteo.db"), "SELECT expected_agencies FROM draws"), 7);
}

#[test]
fn an_export_to_a_file_is_there_whole_or_not_at_all() {
    let folder = drawn_database(10, 10);
    let path = folder.path();
    let out = |args: &[&'static str]| {
        run(sorteo(path, ["export", "results", "--database", "sorteo.db", "--out"]).args(args))
    };
    assert_eq!(out(&["results.csv"]).succeeded(), "results.csv: 1 bet of draw 1\n");
    let written = fs::read_to_string(path.join("results.csv")).unwrap();
    assert_eq!(written, export(path, ["results"]).succeeded());
    fs::write(path.join("results.csv"), "precious").unwrap();
    let before = names(path);
    assert_names(out(&["results.csv"]).failed(1), &["results.csv exists already", "--force"]);
    assert_eq!(fs::read_to_string(path.join("results.csv")).unwrap(), "precious");
    assert_names(out(&["missing/results.csv"]).failed(1), &["no folder missing"]);
    assert_eq!(names(path), before);
    out(&["results.csv", "--force"]).succeeded();
    assert_eq!(fs::read_to_string(path.join("results.csv")).unwrap(), written);
    let unread = sorteo(path, ["export", "results", "--database", "sorteo.db", "--force"]).output().unwrap();
    assert_eq!(unread.status.code(), Some(2), "--force is about a file");
}

#[test]
fn an_export_whose_reader_goes_away_in_the_middle_ends_quietly() {
    let folder = drawn_database(25_000, 25_000);
    for format in ["csv", "jsonl"] {
        let mut command =
            sorteo(folder.path(), ["export", "bets", "--database", "sorteo.db", "--format", format]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.signal(), Some(SIGPIPE));
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    }
}

// ---- Import -------------------------------------------------------------------

#[test]
fn a_seeds_file_is_imported_once_under_the_name_of_its_digest() {
    let folder = folder();
    let rows = seed_rows(101, 10);
    let first = import(folder.path(), &rows);
    assert_eq!(first.succeeded(), "bets.csv: 101 bets of 2 agencies stored in draw 1\n");
    let again = import(folder.path(), &rows);
    assert_eq!(
        again.succeeded(),
        "bets.csv: 0 bets of 2 agencies stored in draw 1; 101 were stored before\n"
    );
    let told = run(&mut sorteo(folder.path(), ["import", "bets.csv", "--json"]));
    let told: serde_json::Value = serde_json::from_str(told.succeeded()).unwrap();
    assert_eq!((&told["draw"], &told["stored"], &told["before"]), (&1.into(), &0.into(), &101.into()));
    assert!(check(folder.path(), "sorteo.db").contains("2 batches, 101 bets"));
    let database = folder.path().join("sorteo.db");
    let name: String = Sha256::digest(rows.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let named = format!("SELECT sum(bet_count) FROM batches WHERE upload = '{name}'");
    assert_eq!(number(&database, &named), 101);
    assert_eq!(number(&database, "SELECT count(*) FROM done_agencies"), 0, "agencies go on betting");
    let noted = |stored: u64| {
        let detail = format!("{stored} of 101 bets from bets.csv");
        number(
            &database,
            &format!("SELECT count(*) FROM audit WHERE action = 'import' AND detail = '{detail}'"),
        )
    };
    assert_eq!((noted(101), noted(0)), (1, 2), "all three are in the audit");
    // In the order of the file, for each agency.
    let order =
        "SELECT count(*) FROM bets WHERE agency = 1 AND CAST(document AS INTEGER) = 3000000 + 2 * (id - 1)";
    assert_eq!(number(&database, order), 51);
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_stopped() {
    let folder = folder();
    fs::write(folder.path().join("bets.csv"), seed_rows(25_000, 10)).unwrap();
    let mut command = sorteo(folder.path(), ["import", "bets.csv", "--database", "sorteo.db"]);
    // Two agencies are asked about, then two pieces of 10,000 rows are stored.
    let killed = run(command.env("SORTEO_FAILPOINT", "after_commit:4"));
    assert_eq!(killed.code, None, "{killed:#?}");
    let went_on = run(&mut sorteo(folder.path(), ["import", "bets.csv", "--database", "sorteo.db"]));
    assert_eq!(
        went_on.succeeded(),
        "bets.csv: 5000 bets of 2 agencies stored in draw 1; 20000 were stored before\n"
    );
    assert!(check(folder.path(), "sorteo.db").contains(" 25000 bets"));
    let documents = number(&folder.path().join("sorteo.db"), "SELECT count(DISTINCT document) FROM bets");
    assert_eq!(documents, 25_000);
}

#[test]
fn a_file_with_a_wrong_row_is_named_with_its_line_and_stores_nothing() {
    let good = "1,Ana,Paz,7,1999-03-17,1\n";
    let cases: &[(&str, &[&str])] = &[
        ("", &["bets.csv: the file has no bets"]),
        ("one,Ana,Paz,7,1999-03-17,1\n", &["bets.csv:2: column 1 (agency): `one`", "0 to 4294967295"]),
        ("4294967296,Ana,Paz,7,1999-03-17,1\n", &["bets.csv:2: column 1 (agency)"]),
        ("1,,Paz,7,1999-03-17,1\n", &["bets.csv:2: column 2 (first name): ``"]),
        ("1,Ana,Paz,7,1999-02-29,1\n", &["bets.csv:2: column 5 (birthdate): `1999-02-29`"]),
        ("1,Ana,Paz,7,1999-03-17,-1\n", &["bets.csv:2: column 6 (number): `-1`"]),
        ("Ana,Paz,7,1999-03-17,1\n", &["bets.csv:2: 5 columns where there are 6: agency, first name"]),
        ("1,Ana,Paz,7,1999-03-17,1,\n", &["bets.csv:2: 7 columns where there are 6"]),
    ];
    for (row, words) in cases {
        let folder = folder();
        let rows = if row.is_empty() { String::new() } else { format!("{good}{row}{good}") };
        fs::write(folder.path().join("bets.csv"), rows).unwrap();
        let mut command = sorteo(folder.path(), ["import", "bets.csv", "--database", "sorteo.db"]);
        assert_names(run_changing_nothing(folder.path(), &mut command).failed(1), words);
    }
    // A blank line and either line end count as an editor counts them.
    for before in ["1,Ana,Paz,7,1999-03-17,1\r\n", "1,Ana,Paz,7,1999-03-17,1\r", "\n"] {
        let folder = folder();
        let text = format!("{before}{before}1,Ana,Paz,7,1999-03-17,x\n{good}");
        assert_names(import(folder.path(), &text).failed(1), &["bets.csv:3: column 6 (number)"]);
    }
    let folder = folder();
    let cut_off = import(folder.path(), &format!("{good}1,Ana,Paz,7,1999-03-17,22"));
    assert_names(cut_off.failed(1), &["bets.csv: the last row has no line end"]);
    let header = "agency,first_name,last_name,document,birthdate,number\n";
    assert_names(
        import(folder.path(), &format!("{header}{good}")).failed(1),
        &["bets.csv:1:", "looks like a header"],
    );
}

#[test]
fn an_import_is_refused_where_bets_are_no_longer_taken() {
    let folder = folder();
    let path = folder.path();
    let server = Server::start(path, &["--agencies", "2"]);
    let rows = "1,Ana,Paz,7,1999-03-17,1\n2,Eva,Gil,8,1999-03-17,1\n";
    assert_names(import(path, rows).failed(75), &["another server holds sorteo.db"]);
    assert_eq!(ask(&server, "DONE|2"), "ACK_DONE|OK");
    server.stop();
    assert_names(import(path, rows).failed(1), &["agency 2 is done in draw 1"]);
    let database = path.join("sorteo.db");
    assert_eq!(number(&database, "SELECT count(*) FROM bets"), 0, "nothing of agency 1 either");
    import(path, "1,Ana,Paz,7,1999-03-17,1\n").succeeded();
    let server = Server::start(path, &[]);
    assert_eq!(ask(&server, "DONE|1"), "ACK_DONE|OK");
    server.stop();
    assert_names(import(path, "3,Ana,Paz,7,1999-03-17,1\n").failed(1), &["draw 1 is drawn"]);
    // All of it is stored: there is nothing that the draw would have to take.
    let again = import(path, "1,Ana,Paz,7,1999-03-17,1\n");
    assert_eq!(again.succeeded(), "bets.csv: 0 bets of 1 agency stored in draw 1; 1 was stored before\n");
}

// ---- A replicator -------------------------------------------------------------

/// A replicator that was away must find in the log all that it has not seen.
#[test]
fn a_server_that_leaves_the_log_to_a_replicator_goes_on_with_it_when_it_starts_again() {
    let folder = folder();
    let external = ["--checkpoints", "external"];
    let log = folder.path().join("sorteo.db-wal");
    let mut found = Vec::new();
    for document in 1..=3 {
        let mut server = Server::start(folder.path(), &external);
        assert_eq!(ask(&server, &format!("BET|1|Ana|Paz|{document}|1999-03-17|1")), "ACK|OK");
        match document {
            1 => server.process.kill(),
            _ => drop(server.stop()),
        }
        let now = fs::read(&log).unwrap();
        assert!(now.len() > found.len(), "{} bytes after {}", now.len(), found.len());
        assert!(now.starts_with(&found), "life {document} wrote over what was there");
        found = now;
    }
}

#[test]
fn the_tables_of_a_replicator_are_no_finding_and_others_are() {
    let folder = drawn_database(10, 10);
    let database = folder.path().join("sorteo.db");
    sql(
        &database,
        "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
         CREATE TABLE _litestream_lock (id INTEGER); INSERT INTO _litestream_seq VALUES (1, 1)",
    );
    check(folder.path(), "sorteo.db");
    run(&mut sorteo(folder.path(), BACKUP)).succeeded();
    run(&mut sorteo(folder.path(), RESTORE)).succeeded();
    Server::start(folder.path(), &[]).stop();
    sql(&database, "CREATE TABLE _litestream_other (id INTEGER)");
    let found = run(&mut sorteo(folder.path(), ["check", "--database", "sorteo.db"]));
    assert!(found.stdout.contains("schema: the table _litestream_other is not one of ours"), "{found:#?}");
}
