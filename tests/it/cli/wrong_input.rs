//! What the program refuses: the exit code, the message, and that nothing is changed.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use rusqlite::Connection;
use sorteo_test_support::process::{
    Process, Server, assert_names, bets_file, folder, run, run_changing_nothing, snapshot, sorteo,
};

use super::{nobody, status};

/// "sort": how the program marks its databases.
const APPLICATION_ID: i32 = 0x736f_7274;

fn other_programs_database(path: &Path, application_id: i32, user_version: i32) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "application_id", application_id).unwrap();
    connection.pragma_update(None, "user_version", user_version).unwrap();
    connection.execute_batch("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')").unwrap();
}

#[test]
fn a_file_that_is_no_database_of_ours_is_refused_with_74_and_left_as_it_is() {
    type Prepare = fn(&Path);
    let nothing: Prepare = |_| {};
    // The path, what is there before, and what the complaint of `serve` names.
    let cases: &[(&str, Prepare, &[&str])] = &[
        ("missing/a.db", nothing, &["there is no folder", "missing", "--database"]),
        ("file/a.db", |path| fs::write(path.parent().unwrap(), "x").unwrap(), &["folder", "file"]),
        ("folder.db", |path| fs::create_dir(path).unwrap(), &["folder.db", "not a file"]),
        ("text.db", |path| fs::write(path, "some text\n").unwrap(), &["text.db", "not a SQLite database"]),
        ("zeros.db", |path| fs::write(path, [0; 8192]).unwrap(), &["zeros.db", "not a SQLite database"]),
        (
            "short.db",
            |path| fs::write(path, b"SQLite format 3\0").unwrap(),
            &["short.db", "not a SQLite database"],
        ),
        ("other.db", |path| other_programs_database(path, 0, 0), &["other.db", "another program"]),
        ("marked.db", |path| other_programs_database(path, 77, 1), &["marked.db", "another program"]),
        (
            "newer.db",
            |path| other_programs_database(path, APPLICATION_ID, 99),
            &["newer.db", "schema version 99"],
        ),
    ];
    for (name, prepare, words) in cases {
        let folder = folder();
        prepare(&folder.path().join(name));
        let serve = ["serve", "--listen", "127.0.0.1:0", "--database", name];
        let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), serve));
        assert_names(finished.failed(74), words);
        let check = ["check", "--database", name];
        let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), check));
        assert_names(finished.failed(74), &[name]);
        assert_eq!(finished.stdout, "");
    }
}

#[test]
fn the_winners_are_not_written_over_the_bets() {
    let folder = folder();
    bets_file(folder.path(), "bets.csv", &[1, 2]);
    let upload = ["upload", "--agency", "1", "--file", "bets.csv", "--winners-out", "./bets.csv"];
    let refused = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), upload));
    assert_names(refused.failed(1), &["bets.csv is the file of the bets", "--winners-out"]);
}

#[test]
fn a_command_on_a_database_takes_the_one_that_serve_would_take() {
    let folder = folder();
    let path = folder.path();
    Server::start_command(&mut sorteo(path, ["serve", "--listen", "127.0.0.1:0", "--database", "a.db"]))
        .unwrap()
        .stop();
    fs::write(path.join("sorteo.toml"), "database = \"a.db\"\n").unwrap();
    let check = |variables: &[(&str, &str)], args: &[&str]| {
        run(sorteo(path, ["check"]).args(args).envs(variables.iter().copied()))
    };
    assert_names(check(&[], &["--database", "a.db"]).succeeded(), &["a.db: OK"]);
    assert_names(check(&[("SORTEO_DATABASE", "a.db")], &[]).succeeded(), &["a.db: OK"]);
    assert_names(check(&[("SORTEO_CONFIG", "sorteo.toml")], &[]).succeeded(), &["a.db: OK"]);
    let flag_wins = check(&[("SORTEO_DATABASE", "b.db")], &["--database", "a.db"]);
    assert_names(flag_wins.succeeded(), &["a.db: OK"]);
    let nothing_set = check(&[("SORTEO_DATABASE", "")], &[]);
    assert_names(nothing_set.failed(74), &["there is no database sorteo.db"]);
}

#[test]
fn a_database_where_nothing_can_be_written_is_refused_with_74() {
    // Permissions do not bind root; the system's own folders do.
    let (folder, path) = (folder(), "/proc/sorteo-test.db");
    if !Path::new("/proc/self").exists() {
        eprintln!("skipped: this system has no /proc");
        return;
    }
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database", path];
    let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), serve));
    assert_names(finished.failed(74), &[path, "cannot be written"]);
    let check = ["check", "--database", path];
    let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), check));
    assert_names(finished.failed(74), &[path, "there is no database"]);
}

#[test]
fn a_port_that_is_taken_fails_with_1_and_makes_no_database() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished =
        run_changing_nothing(folder.path(), &mut sorteo(folder.path(), ["serve", "--listen", &address]));
    assert_names(finished.failed(1), &[&address, "cannot be listened on"]);
}

#[test]
fn a_second_server_on_a_database_exits_with_75_and_the_first_goes_on_serving() {
    let folder = folder();
    let first = Server::start(folder.path(), &[]);
    bets_file(folder.path(), "a.csv", &[7]);
    let second = run(&mut sorteo(folder.path(), ["serve", "--listen", "127.0.0.1:0"]));
    assert_names(second.failed(75), &["another server holds sorteo.db"]);
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--no-wait"];
    run(&mut first.command(folder.path(), &upload)).succeeded();
    assert_eq!(status(&first, folder.path())["bets"], 1);
    first.stop();
    // Once the first is gone, its database is free.
    Server::start(folder.path(), &[]).stop();
}

#[test]
fn what_is_typed_wrong_exits_with_2_and_is_named() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["serve", "--agencies", "0"], &["--agencies", "`0`", "from 1 to 4294967295"]),
        (&["serve", "--agencies", "five"], &["--agencies", "`five`"]),
        (&["serve", "--agencies", "4294967296"], &["--agencies", "`4294967296`"]),
        (&["serve", "--workers", "0"], &["--workers", "`0`", "1 to 1024"]),
        (&["serve", "--winning-number", "-1"], &["'-1'"]),
        (&["serve", "--database", "postgres://u@h/d"], &["--database", "`postgres://`"]),
        (&["serve", "--database", "mysql://u@h/d"], &["--database", "`mysql://`"]),
        (&["serve", "--database", ""], &["--database", "empty"]),
        (&["serve", "--database", "sqlite:"], &["--database", "empty"]),
        (&["serve", "--database", "sqlite://"], &["--database", "empty"]),
        (&["serve", "--database", ":memory:"], &["--database", "`:memory:`"]),
        (&["serve", "--database", "file:a.db"], &["--database", "`file:a.db`"]),
        (&["serve", "--listen", "nowhere"], &["--listen", "`nowhere`", "HOST:PORT"]),
        (&["serve", "--listen", "127.0.0.1:99999"], &["--listen", "`127.0.0.1:99999`"]),
        (&["serve", "--log-level", "loud"], &["--log-level", "`loud`", "warning"]),
        (&["serve", "--nope"], &["--nope"]),
        (&["serve", "--agencies"], &["--agencies", "value"]),
        (&["nope"], &["nope", "subcommand"]),
        (&["check", "--database", "mysql://u@h/d"], &["--database", "`mysql://`"]),
        (&["backup"], &["required"]),
        (&["generate"], &["required"]),
        (&["upload", "--file", "a.csv"], &["no agency", "--agency", "SORTEO_AGENCY"]),
        (&["upload", "--agency", "one", "--file", "a.csv"], &["--agency", "`one`"]),
        (&["upload", "--agency", "-1", "--file", "a.csv"], &["'-1'"]),
        (&["upload", "--agency", "4294967296", "--file", "a.csv"], &["--agency", "`4294967296`"]),
        (&["upload", "--agency", "1", "--server", "nowhere"], &["--server", "`nowhere`"]),
        (&["upload", "--agency", "1", "--batch", "0"], &["--batch", "`0`"]),
        (&["upload", "--agency", "1", "--dialect", "spoken"], &["spoken", "--dialect"]),
        (&["upload", "--agency", "1", "--no-wait", "--winners-out", "w"], &["--no-wait", "--winners-out"]),
        (&["winners"], &["no agency", "--agency"]),
        (&["winners", "--agency", "1", "--draw", "0"], &["--draw", "0"]),
        (&["status", "--server", ":"], &["--server", "`:`"]),
        (
            &["draw", "close-agency", "all", "--reason", "r"],
            &["'all'", "not a whole number from 0 to 4294967295"],
        ),
        (&["draw", "open", "--agencies", "0"], &["'0'", "not a whole number from 1 to 4294967295"]),
        (&["draw", "open", "--winning-number", "-1"], &["'-1'", "not a whole number from 0 to 4294967295"]),
        (&["draw", "show", "first"], &["'first'", "not a whole number from 1 to"]),
    ];
    let folder = folder();
    for (args, words) in cases {
        let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), *args));
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:#?}");
        assert_eq!(finished.stdout, "", "{args:?}");
        // What clap says goes on with the usage; ours is one line.
        let first = finished.stderr.lines().next().unwrap_or_default();
        if !first.starts_with("error: ") {
            finished.failed(2);
        }
        let complaint = if first.ends_with(':') { &finished.stderr } else { first };
        assert_names(complaint, words);
    }
    let nothing = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), [""; 0]));
    assert_eq!(nothing.code, Some(2));
    assert_names(&nothing.stderr, &["Usage: sorteo <COMMAND>", "serve", "upload"]);
}

#[test]
fn a_wrong_environment_or_file_exits_with_78_and_is_named() {
    // Variables, the configuration file, what the complaint names.
    type Variables = &'static [(&'static str, &'static str)];
    let cases: &[(Variables, Option<&str>, &[&str])] = &[
        (&[("SORTEO_AGENCIES", "0")], None, &["SORTEO_AGENCIES", "`0`"]),
        (&[("CLIENT_AMOUNT", "five")], None, &["CLIENT_AMOUNT", "`five`"]),
        (&[("TOTAL_AGENCIES", "-5")], None, &["TOTAL_AGENCIES", "`-5`"]),
        (
            &[("CLIENT_AMOUNT", "3"), ("TOTAL_AGENCIES", "5")],
            None,
            &["CLIENT_AMOUNT and TOTAL_AGENCIES", "`3`", "`5`", "set one of them"],
        ),
        (&[("SORTEO_PORT", "12345")], None, &["SORTEO_PORT is not a variable"]),
        (&[("SERVER_PORT", "99999")], None, &["SERVER_PORT", "99999"]),
        (&[("LOGGING_LEVEL", "loud")], None, &["LOGGING_LEVEL", "`loud`"]),
        (&[("SORTEO_AGENCES", "5")], None, &["SORTEO_AGENCES is not a variable", "SORTEO_AGENCIES"]),
        (&[("SORTEO_DATABASE", "postgres://u@h/d")], None, &["SORTEO_DATABASE", "`postgres://`"]),
        (&[("SORTEO_LISTEN", "nowhere")], None, &["SORTEO_LISTEN", "`nowhere`"]),
        (&[("SORTEO_CONFIG", "missing.toml")], None, &["missing.toml"]),
        (&[], Some("agences = 5"), &["sorteo.toml", "line 1", "agences"]),
        (&[], Some("agencies = 5\nworkers = 0"), &["sorteo.toml", "workers", "`0`"]),
        (&[], Some("\nworkers = true"), &["sorteo.toml", "line 2"]),
        (&[], Some("agencies 5"), &["sorteo.toml", "line 1"]),
        (&[], Some("database = \"postgres://u@h/d\""), &["sorteo.toml", "database", "`postgres://`"]),
    ];
    for (variables, file, words) in cases {
        let folder = folder();
        let mut command = sorteo(folder.path(), ["serve"]);
        if let Some(text) = file {
            fs::write(folder.path().join("sorteo.toml"), text).unwrap();
            command.args(["--config", "sorteo.toml"]);
        }
        command.envs(variables.iter().copied());
        let finished = run_changing_nothing(folder.path(), &mut command);
        assert_names(finished.failed(78), words);
    }
    let folder = folder();
    for (args, name) in
        [(["serve", "--config", "missing.toml"], "missing.toml"), (["serve", "--config", "."], ".: ")]
    {
        let finished = run_changing_nothing(folder.path(), &mut sorteo(folder.path(), args));
        assert_names(finished.failed(78), &[name]);
    }
    for (variable, value, args) in [
        ("SORTEO_AGENCY", "one", ["upload", "--file", "a.csv"]),
        ("CLI_ID", "one", ["upload", "--file", "a.csv"]),
        ("CLI_BATCH_MAXAMOUNT", "0", ["upload", "--agency", "1"]),
        ("CLI_SERVER_ADDRESS", "nowhere", ["winners", "--agency", "1"]),
        ("CLI_LOG_LEVEL", "loud", ["upload", "--agency", "1"]),
        ("SORTEO_SERVR", "a:1", ["winners", "--agency", "1"]),
    ] {
        let mut command = sorteo(folder.path(), args);
        let finished = run_changing_nothing(folder.path(), command.env(variable, value));
        assert_names(finished.failed(78), &[variable]);
    }
}

#[test]
fn a_file_that_cannot_be_sent_is_named_with_line_and_column_and_nothing_of_it_is_stored() {
    let good = "Ana,Paz,30904465,1999-03-17,7574\n";
    let row_200 = |row: &str| [good.repeat(199).as_bytes(), row.as_bytes(), good.as_bytes()].concat();
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty.csv", vec![], &["empty.csv: ", "no bets"]),
        (
            "latin.csv",
            row_200("Ana,P@z,1,1999-03-17,1\n"),
            &["latin.csv:200: ", "column 2 (last name)", "UTF-8"],
        ),
        (
            "header.csv",
            b"nombre,apellido,documento,nacimiento,numero\n".to_vec(),
            &["header.csv:1: ", "header"],
        ),
        ("four.csv", row_200("Ana,Paz,1,1999-03-17\n"), &["four.csv:200: ", "4 columns", "5"]),
        ("six.csv", row_200("Ana,Paz,1,1999-03-17,1,x\n"), &["six.csv:200: ", "6 columns", "5"]),
        (
            "date.csv",
            row_200("Ana,Paz,1,1999-02-29,1\n"),
            &["date.csv:200: ", "column 4 (birthdate)", "1999-02-29"],
        ),
        (
            "number.csv",
            row_200("Ana,Paz,1,1999-03-17,-1\n"),
            &["number.csv:200: ", "column 5 (number)", "`-1`"],
        ),
        ("name.csv", row_200(",Paz,1,1999-03-17,1\n"), &["name.csv:200: ", "column 1 (first name)"]),
        ("pipe.csv", row_200("Ana,Pa|z,1,1999-03-17,1\n"), &["pipe.csv:200: ", "column 2 (last name)"]),
        ("document.csv", row_200("Ana,Paz,,1999-03-17,1\n"), &["document.csv:200: ", "column 3 (document)"]),
    ];
    let folder = folder();
    let database = self::folder();
    let server = Server::start(database.path(), &[]);
    fs::create_dir(folder.path().join("folder.csv")).unwrap();
    for (name, content, _) in &cases {
        // `@` stands for what Latin-1 has and UTF-8 does not.
        let bytes: Vec<u8> = content.iter().map(|&b| if b == b'@' { 0xe1 } else { b }).collect();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let unreadable: [(&str, &[&str]); 2] =
        [("missing.csv", &["missing.csv: "]), ("folder.csv", &["folder.csv: ", "not a regular file"])];
    let all = cases.iter().map(|(name, _, words)| (*name, *words)).chain(unreadable);
    for (name, words) in all {
        for dialect in ["framed", "counted"] {
            let upload = ["upload", "--agency", "1", "--file", name, "--dialect", dialect];
            let finished = run_changing_nothing(folder.path(), &mut server.command(folder.path(), &upload));
            assert_names(finished.failed(1), words);
            assert!(finished.stderr.contains("action: loop_finished | result: fail"));
        }
    }
    assert_eq!(status(&server, folder.path())["bets"], 0);
    let connection = Connection::open(database.path().join("sorteo.db")).unwrap();
    for table in ["bets", "batches", "done_agencies"] {
        let count = format!("SELECT count(*) FROM {table}");
        let rows: u64 = connection.query_row(&count, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    drop(connection);
    let log = server.stop().stderr;
    assert!(!log.contains("apuesta_recibida"), "{log}");
}

#[test]
fn an_agency_that_reaches_nobody_exits_with_1_and_says_where() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[1]);
    let (_held, address) = nobody();
    let address = address.to_string();
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--give-up-after", "1"];
    let cases: Vec<Vec<&str>> = vec![
        upload.to_vec(),
        [upload.as_slice(), &["--dialect", "counted"]].concat(),
        vec!["status"],
        vec!["winners", "--agency", "1"],
    ];
    let before = snapshot(folder.path());
    let server = ["--server", &address];
    let running: Vec<Process> =
        cases.iter().map(|args| Process::start(sorteo(folder.path(), args).args(server))).collect();
    for process in running {
        let finished = process.wait();
        assert_names(finished.failed(1), &["no answer from", &address, "is the server running"]);
        assert_eq!(finished.stdout, "");
    }
    assert_eq!(before, snapshot(folder.path()));
}

#[test]
fn winners_before_the_draw_exit_with_1_and_say_not_ready() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let finished = run(&mut server.command(folder.path(), &["winners", "--agency", "1"]));
    assert_names(finished.failed(1), &["not_ready", "the draw has not taken place yet"]);
    assert_eq!(finished.stdout, "");
    let finished = run(&mut server.command(folder.path(), &["winners", "--agency", "1", "--draw", "9"]));
    assert_names(finished.failed(1), &["bad_draw"]);
    server.stop();
}
