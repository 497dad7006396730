//! The program as an operator and an agency meet it: what wrong input exits
//! with and says, whole draws by the real binary, signals, and the contract of
//! the log's lines.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use socket2::{Domain, Socket, Type};
use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{
    DEADLINE, Process, Server, assert_names, bets_file, folder, run, run_changing_nothing, snapshot, sorteo,
    wait_for,
};

/// An address at which nobody listens, kept from everybody else as long as it lives.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

// ---------------------------------------------------------------------------
// Wrong input.

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
    assert_names(check(&[], &["--database", "a.db"]).succeeded(), &["a.db: fine"]);
    assert_names(check(&[("SORTEO_DATABASE", "a.db")], &[]).succeeded(), &["a.db: fine"]);
    assert_names(check(&[("SORTEO_CONFIG", "sorteo.toml")], &[]).succeeded(), &["a.db: fine"]);
    let flag_wins = check(&[("SORTEO_DATABASE", "b.db")], &["--database", "a.db"]);
    assert_names(flag_wins.succeeded(), &["a.db: fine"]);
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

// ---------------------------------------------------------------------------
// Whole draws.

fn status(server: &Server, folder: &Path) -> serde_json::Value {
    let finished = run(&mut server.command(folder, &["status", "--json"]));
    serde_json::from_str(finished.succeeded()).unwrap()
}

/// Documents of the rows that bet on 7574, read without the program's code.
fn winning_documents(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let winning = text.lines().filter(|line| line.ends_with(",7574"));
    winning.map(|line| format!("{}\n", line.split(',').nth(2).unwrap())).collect()
}

#[test]
fn a_whole_draw_gives_each_agency_its_winners_and_a_restart_changes_nothing() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let generate = ["generate", "--dir", ".", "--agencies", "3", "--bets", "3000"];
    run(&mut sorteo(folder.path(), generate)).succeeded();
    let files = ["agency-1.csv", "agency-2.csv", "agency-3.csv"].map(path);
    for (file, documents) in [(&files[0], [11, 12]), (&files[2], [31, 32])] {
        let mut text = fs::read_to_string(file).unwrap();
        text.insert_str(0, &format!("Ana,Paz,{},1999-03-17,7574\n", documents[0]));
        text.push_str(&format!("Ana,Paz,00{},1999-03-17,7574\n", documents[1]));
        fs::write(file, text).unwrap();
    }
    let expected = files.each_ref().map(|file| winning_documents(file));
    assert!(expected[0].starts_with("11\n") && expected[0].ends_with("0012\n"));
    let server = Server::start(folder.path(), &["--agencies", "3"]);

    // Without waiting, and the same once more: stored once.
    let first = ["upload", "--agency", "1", "--file", "agency-1.csv"];
    for _ in 0..2 {
        let finished = run(&mut server.command(folder.path(), &[first.as_slice(), &["--no-wait"]].concat()));
        assert_eq!(finished.succeeded(), "");
        assert!(!finished.stderr.contains("consulta_ganadores"));
        assert_eq!(status(&server, folder.path())["bets"], 1002);
    }
    let human = run(&mut server.command(folder.path(), &["status"]));
    assert_eq!(human.succeeded(), "draw 1: open, 1 of 3 agencies done, 1002 bets\n");

    // All wait for the draw, one in the other dialect.
    let uploads: Vec<Process> = [("1", "framed"), ("2", "framed"), ("3", "counted")]
        .map(|(agency, dialect)| {
            let (file, out) = (format!("agency-{agency}.csv"), format!("winners-{agency}"));
            let upload =
                ["upload", "--agency", agency, "--file", &file, "--winners-out", &out, "--dialect", dialect];
            Process::start(&mut server.command(folder.path(), &upload))
        })
        .into();
    for upload in uploads {
        upload.wait().succeeded();
    }
    let winners = |server: &Server| {
        ["1", "2", "3"].map(|agency| {
            let finished = run(&mut server.command(folder.path(), &["winners", "--agency", agency]));
            finished.succeeded().to_owned()
        })
    };
    let written = ["winners-1", "winners-2", "winners-3"].map(|name| fs::read_to_string(path(name)).unwrap());
    assert_eq!(written, expected);
    assert_eq!(winners(&server), expected);
    let json = r#"{"draw":1,"state":"drawn","done":3,"expected":3,"bets":3004}"#;
    let after: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(status(&server, folder.path()), after);

    // The same upload after the draw stores nothing and gets its winners again.
    fs::remove_file(path("winners-1")).unwrap();
    let again = [first.as_slice(), &["--winners-out", "winners-1"]].concat();
    let finished = run(&mut server.command(folder.path(), &again));
    finished.succeeded();
    assert!(!finished.stderr.contains("apuesta_enviada"), "{finished:#?}");
    assert_eq!(fs::read_to_string(path("winners-1")).unwrap(), expected[0]);
    assert_eq!(status(&server, folder.path()), after);

    let log = server.stop().stderr;
    assert_eq!(log.matches("action: sorteo |").count(), 1, "{log}");
    assert!(log.contains("action: recover | result: success | database: created | draw: 1 | state: open"));

    // Another life on the same database.
    let server = Server::start(folder.path(), &[]);
    assert_eq!(winners(&server), expected);
    assert_eq!(status(&server, folder.path()), after);
    let log = server.stop().stderr;
    assert!(!log.contains("action: sorteo |"), "{log}");
    assert!(
        log.contains(
            "action: recover | result: success | database: opened | draw: 1 | state: drawn | bets: 3004"
        ),
        "{log}"
    );
    let checked = run(&mut sorteo(folder.path(), ["check", "--database", "sorteo.db"]));
    assert_names(checked.succeeded(), &["fine: 1 draws", "3004 bets"]);
}

/// A server that listens on `SERVER_PORT` with these variables.
fn serve_by_variables(folder: &Path, variables: &[(&str, &str)]) -> Server {
    wait_for("a port", || {
        // The seeds' port cannot be 0: take one that was free a moment ago.
        let port = nobody().1.port().to_string();
        let mut command = sorteo(folder, ["serve"]);
        command.env("SERVER_PORT", port).envs(variables.iter().copied());
        match Server::start_command(&mut command) {
            Ok(server) => Some(server),
            Err(ended) if ended.stderr.contains("cannot be listened on") => None,
            Err(ended) => panic!("{ended:#?}"),
        }
    })
}

#[test]
fn the_seeds_variables_configure_a_server_and_its_agencies() {
    let folder = folder();
    let server = serve_by_variables(folder.path(), &[("CLIENT_AMOUNT", "2"), ("LOGGING_LEVEL", "DEBUG")]);
    assert_eq!(server.address.ip().to_string(), "0.0.0.0");
    assert_eq!(server.process.count("action: config | result: success"), 1);
    assert!(server.process.log().contains("| agencies: 2 |"));
    let address = format!("127.0.0.1:{}", server.address.port());
    let agency = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = sorteo(folder.path(), args);
        command.env("CLI_SERVER_ADDRESS", &address).envs(variables.iter().copied());
        command
    };

    bets_file(folder.path(), "1.csv", &[1, 2, 7574, 4, 5]);
    let upload = ["upload", "--file", "1.csv", "--no-wait"];
    let sent = run(&mut agency(&upload, &[("CLI_ID", "1"), ("CLI_BATCH_MAXAMOUNT", "2")]));
    sent.succeeded();
    let counts: Vec<String> = LogLine::parse_all(&sent.stderr)
        .iter()
        .filter(|line| line.action == "apuesta_enviada")
        .map(|line| line.get("cantidad").unwrap().to_owned())
        .collect();
    assert_eq!(counts, ["2", "2", "1"]);
    server.process.wait_log("DEBUG    action: close_connection", 1);

    let bet = [
        ("CLI_ID", "2"),
        ("NOMBRE", "Santiago Lionel"),
        ("APELLIDO", "Lorca"),
        ("DOCUMENTO", "030904465"),
        ("NACIMIENTO", "1999-03-17"),
        ("NUMERO", "7574"),
    ];
    let sent = run(&mut agency(&["upload"], &bet));
    sent.succeeded();
    let line = "INFO     action: apuesta_enviada | result: success | dni: 030904465 | numero: 7574\n";
    assert!(sent.stderr.contains(line), "{sent:#?}");
    let stored = "action: apuesta_almacenada | result: success | dni: 030904465 | numero: 7574";
    assert_eq!(server.process.count(stored), 1);

    // One of the five is missing, or is wrong: nothing is sent.
    let missing = run(&mut agency(&["upload"], &bet[..5]));
    assert_names(missing.failed(1), &["NUMERO is missing", "NOMBRE"]);
    let wrong = run(&mut agency(&["upload"], &[&bet[..5], &[("NUMERO", "seven")]].concat()));
    assert_names(wrong.failed(1), &["NUMERO", "is not one"]);

    // Ours win over the seeds'; less is logged where less is asked for.
    let finished = run(&mut agency(
        &["upload", "--file", "1.csv", "--no-wait"],
        &[("CLI_ID", "7"), ("SORTEO_AGENCY", "1"), ("CLI_LOG_LEVEL", "WARNING")],
    ));
    finished.succeeded();
    assert_eq!(finished.stderr, "");
    assert_eq!(status(&server, folder.path())["bets"], 6);
    server.stop();

    let quiet = serve_by_variables(folder.path(), &[("TOTAL_AGENCIES", "4"), ("LOGGING_LEVEL", "WARNING")]);
    assert_eq!(status(&quiet, folder.path())["expected"], 4);
    assert_eq!(quiet.stop().stderr, "");
}

#[test]
fn an_upload_that_starts_before_its_server_goes_on_by_itself() {
    let (folder, agency) = (folder(), folder());
    bets_file(agency.path(), "a.csv", &[7574, 2]);
    let (held, address) = nobody();
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--winners-out", "w", "--server"];
    let upload = Process::start(sorteo(agency.path(), upload).arg(address.to_string()));
    upload.wait_log("action: connect | result: fail", 1);
    drop(held);
    let server = Server::start_on(address, folder.path(), &["--agencies", "1"]);
    upload.wait().succeeded();
    assert_eq!(fs::read_to_string(agency.path().join("w")).unwrap(), "3000000\n");
    server.stop();
}

/// Nothing names a batch of this dialect: whoever sends it twice may bet twice.
#[test]
fn a_counted_upload_whose_answer_is_lost_says_so_and_sends_nothing_again() {
    let agency = folder();
    bets_file(agency.path(), "a.csv", &[7574]);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap().to_string();
    let upload = ["upload", "--dialect", "counted", "--agency", "1", "--file", "a.csv", "--server", &address];
    let mut upload = Process::start(&mut sorteo(agency.path(), upload));
    let (mut peer, _) = wait_for("the agency's call", || server.accept().ok());
    peer.set_nonblocking(false).unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let sent = b"40\nAna Mar\xc3\xada|Paz|3000000|1999-03-17|7574|1";
    let mut received = vec![0; sent.len()];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(received, sent);
    drop(peer);
    wait_for("the upload's end", || {
        assert!(server.accept().is_err(), "it comes again");
        (!upload.is_running()).then_some(())
    });
    let finished = upload.wait();
    assert_names(finished.failed(1), &[&address, "whether the last bets were stored is not known"]);
}

// ---------------------------------------------------------------------------
// Ends.

/// A framed peer that sends what it likes.
struct Peer(TcpStream);

impl Peer {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    /// All in one write, which arrives in one piece.
    fn send(&mut self, frames: &[&str]) {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend((frame.len() as u32).to_be_bytes());
            bytes.extend(frame.as_bytes());
        }
        self.0.write_all(&bytes).unwrap();
    }

    fn read_answer(&mut self) -> String {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn ask(&mut self, frames: &[&str]) -> String {
        self.send(frames);
        self.read_answer()
    }

    /// Asks in the counted dialect.
    fn ask_counted(&mut self, payload: &str) -> String {
        write!(self.0, "{}\n{payload}", payload.len()).unwrap();
        let mut length = String::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            match byte[0] {
                b'\n' => break,
                digit => length.push(char::from(digit)),
            }
        }
        let mut answer = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Waits until the server has closed the connection.
    fn read_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 1]).unwrap(), 0, "something came instead of the end");
    }
}

/// A bet, then a batch of which one row is still to come: the server has read
/// all of it once the bet is answered, and cannot drain.
fn half_a_batch(server: &Server) -> Peer {
    let mut peer = Peer::connect(server);
    let bet = "BET|1|Ana|Paz|100|1999-03-17|1";
    let answer = peer.ask(&[bet, "BATCH|1|2", "Ana|Paz|101|1999-03-17|1"]);
    assert_eq!(answer, "ACK|OK\n");
    peer
}

#[test]
fn sigterm_finishes_what_is_in_flight_closes_with_a_line_each_and_exits_0() {
    let folder = folder();
    // So long that only the peer's last row can end the wait.
    let server = Server::start(folder.path(), &["--drain-timeout", "3600"]);
    let mut idle = Peer::connect(&server);
    assert!(idle.ask(&["STATUS"]).starts_with("STATUS|OK|"));
    let mut peer = half_a_batch(&server);
    server.process.terminate();
    server.process.wait_log("action: close_listener | result: success", 1);
    idle.read_end();
    assert!(TcpStream::connect(server.address).is_err(), "it still accepts");
    assert_eq!(peer.ask(&["Ana|Paz|102|1999-03-17|1"]), "ACK_BATCH|OK|2\n");
    peer.read_end();
    let finished = server.process.wait();
    assert_eq!(finished.succeeded(), "");
    let log = LogLine::parse_all(&finished.stderr);
    let ends: Vec<(&str, &str)> = log
        .iter()
        .skip_while(|line| line.action != "shutdown")
        .map(|line| (line.action.as_str(), line.result.as_str()))
        .collect();
    let expected = [
        ("shutdown", "in_progress"),
        ("close_listener", "success"),
        ("close_connection", "success"),
        ("apuesta_recibida", "success"),
        ("close_connection", "success"),
        ("close_workers", "success"),
        ("close_database", "success"),
        ("shutdown", "success"),
    ];
    assert_eq!(ends, expected);
    let left: Vec<PathBuf> = snapshot(folder.path()).into_keys().collect();
    assert_eq!(left, ["sorteo.db", "sorteo.db.lock"].map(|name| folder.path().join(name)));
}

#[test]
fn a_server_whose_database_fails_ends_with_74_without_an_answer_and_the_next_goes_on() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.ask(&["BET|1|Ana|Paz|100|1999-03-17|1"]), "ACK|OK\n");
    let database = Connection::open(folder.path().join("sorteo.db")).unwrap();
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'broken'); END";
    database.execute_batch(broken).unwrap();
    let bet = ["BET|1|Ana|Paz|101|1999-03-17|1"];
    peer.send(&bet);
    // The end, or a reset.
    assert_eq!(peer.0.read(&mut [0; 1]).unwrap_or(0), 0, "what nobody knows was answered");
    let finished = server.process.wait();
    assert_names(finished.failed(74), &["the database failed", "broken"]);
    database.execute_batch("DROP TRIGGER broken").unwrap();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(status(&server, folder.path())["bets"], 1);
    assert_eq!(Peer::connect(&server).ask(&bet), "ACK|OK\n");
    server.stop();
}

#[test]
fn a_second_sigterm_ends_at_once_and_loses_nothing_that_was_acknowledged() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--drain-timeout", "3600"]);
    let mut peer = half_a_batch(&server);
    server.process.terminate();
    server.process.wait_log("action: shutdown | result: in_progress", 1);
    // A hangup in between is no second one; an interrupt is.
    for times in 1..=2 {
        server.process.send("HUP");
        server.process.wait_log("action: config | result: success | log_level: INFO", times);
    }
    server.process.send("INT");
    let finished = server.process.wait();
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    let log = LogLine::parse_all(&finished.stderr);
    let last = log.last().unwrap();
    assert_eq!((last.action.as_str(), last.result.as_str()), ("shutdown", "fail"));
    assert!(peer.0.read(&mut [0; 1]).map_or(0, |read| read) == 0);
    let server = Server::start(folder.path(), &[]);
    assert_eq!(status(&server, folder.path())["bets"], 1);
    server.stop();
}

#[test]
fn a_server_killed_in_the_middle_of_an_upload_comes_back_and_each_bet_is_stored_once() {
    let (folder, agency) = (folder(), folder());
    let numbers: Vec<u32> = (0..1500).map(|row| if row % 500 == 3 { 7574 } else { row }).collect();
    bets_file(agency.path(), "a.csv", &numbers);
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let address = server.address;
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--batch", "1", "--winners-out", "w"];
    let mut upload = Process::start(&mut server.command(agency.path(), &upload));
    let mut server = server;
    for life in 1..=3 {
        server.process.wait_log("action: apuesta_recibida | result: success", 40);
        server.process.kill();
        assert!(upload.is_running(), "life {life}: {}", upload.log());
        server = Server::start_on(address, folder.path(), &["--agencies", "1"]);
        assert_eq!(server.process.count("action: recover | result: success | database: opened"), 1);
    }
    let finished = upload.wait();
    finished.succeeded();
    assert!(finished.stderr.contains("action: connect | result: fail"), "{finished:#?}");
    assert_eq!(
        fs::read_to_string(agency.path().join("w")).unwrap(),
        winning_documents(&agency.path().join("a.csv"))
    );
    assert_eq!(server.process.count("action: sorteo | result: success"), 1);
    server.stop();
    run(&mut sorteo(folder.path(), ["check", "--database", "sorteo.db"])).succeeded();
    let connection = Connection::open(folder.path().join("sorteo.db")).unwrap();
    let mut statement = connection
        .prepare("SELECT first_name, last_name, document, birthdate, number FROM bets ORDER BY id")
        .unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        let text = |index| row.get::<_, String>(index);
        let number: u32 = row.get(4)?;
        Ok(format!("{},{},{},{},{number}\n", text(0)?, text(1)?, text(2)?, text(3)?))
    };
    let stored: String = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    let sent = fs::read_to_string(agency.path().join("a.csv")).unwrap();
    assert!(stored == sent, "{} rows are stored", stored.lines().count());
}

// ---------------------------------------------------------------------------
// The log.

#[test]
fn what_an_answer_tells_is_in_the_log_before_the_answer_arrives() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "3"]);
    let (mut framed, mut counted, mut waiting) =
        (Peer::connect(&server), Peer::connect(&server), Peer::connect(&server));
    let line = "action: apuesta_recibida | result: success | cantidad: 2";
    for round in 0..25 {
        let rows = ["BATCH|1|2", "Ana|Paz|1|1999-03-17|7574", "Ana|Paz|2|1999-03-17|1"];
        assert_eq!(framed.ask(&rows), "ACK_BATCH|OK|2\n");
        assert_eq!(server.process.count(line), 2 * round + 1);
        assert_eq!(counted.ask_counted("Ana|Paz|3|1999-03-17|1|2\nAna|Paz|4|1999-03-17|1|2"), "ACK");
        assert_eq!(server.process.count(line), 2 * round + 2);
        assert_eq!(framed.ask(&["BET|1|Ana|Paz|5|1999-03-17|9"]), "ACK|OK\n");
        assert_eq!(server.process.count("action: apuesta_almacenada | result: success"), round + 1);
    }
    assert_eq!(framed.ask(&["DONE|1"]), "ACK_DONE|OK\n");
    assert_eq!(counted.ask_counted("GET_WINNERS|2"), "ERROR_LOTTERY_HASNT_ENDED");
    waiting.send(&["WAIT_WINNERS|1|60000"]);
    assert_eq!(server.process.count("action: sorteo"), 0);
    framed.send(&["DONE|3"]);
    let sorteo = "action: sorteo | result: success";
    assert!(waiting.read_answer().starts_with("WINNERS|OK|1,1,1,"));
    assert_eq!(server.process.count(sorteo), 1, "a waiting agency knew before the log");
    assert_eq!(framed.read_answer(), "ACK_DONE|OK\n");
    assert_eq!(counted.ask_counted("GET_WINNERS|2"), "");
    assert_eq!(server.process.count(sorteo), 1);
    server.stop();
}

/// Asserts that a line is there with this action and result and just these keys.
#[track_caller]
fn assert_logged(log: &[LogLine], action: &str, result: &str, keys: &[&str]) {
    let found = log.iter().any(|line| line.action == action && line.result == result && line.keys() == keys);
    assert!(found, "no {action} {result} with {keys:?} in {log:#?}");
}

#[test]
fn every_line_of_both_logs_keeps_the_contract_whatever_the_network_sends() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[7574, 2, 3]);
    // A path is an operator's, and may hold anything.
    let database = "a|b\n2026\u{202e}\u{7f}\r.db";
    let server =
        Server::start(folder.path(), &["--agencies", "1", "--log-level", "debug", "--database", database]);
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.ask(&["BET|2|Ana|Paz|a\\b ñ: x|1999-03-17|12"]), "ACK|OK\n");
    assert_eq!(peer.ask(&["BET|2|Ana|Paz|1|1999-02-30|12"]), "ACK|ERR|bad_birthdate\n");
    let bad_row = ["BATCH|2|2", "Ana|Paz|1|1999-03-17|1", "Ana|Paz|\u{202e}|x\ny|\u{1}"];
    assert!(peer.ask(&bad_row).starts_with("ACK_BATCH|ERR|2|row 2: "));
    assert!(peer.ask(&["\u{1b}[31m|result: success\n2026"]).starts_with("ACK|ERR|"));
    assert!(peer.ask(&["DONE|x\u{202e}"]).starts_with("ACK_DONE|ERR|"));
    // A batch that is cut short by its peer, and a peer of no dialect.
    peer.send(&["BATCH|2|3", "Ana|Paz|1|1999-03-17|1"]);
    drop(peer);
    server.process.wait_log("action: apuesta_recibida | result: fail | cantidad: 3", 1);
    let mut foreign = Peer::connect(&server);
    foreign.0.write_all(b"GET /\r\n\r\n | action: sorteo").unwrap();
    server.process.wait_log("action: close_connection | result: fail", 1);
    let upload = run(&mut server.command(folder.path(), &["upload", "--agency", "1", "--file", "a.csv"]));
    upload.succeeded();
    let finished = server.stop();

    let log = LogLine::parse_all(&finished.stderr);
    for (action, result, keys) in [
        ("accept_connections", "in_progress", &[][..]),
        ("accept_connections", "success", &["ip"]),
        ("apuesta_almacenada", "success", &["dni", "numero"]),
        ("apuesta_recibida", "success", &["cantidad"]),
        ("apuesta_recibida", "fail", &["cantidad", "error"]),
        ("sorteo", "success", &["draw", "bets", "winners"]),
        ("shutdown", "in_progress", &[]),
        ("shutdown", "success", &[]),
        ("close_listener", "success", &[]),
        ("close_connection", "success", &["ip"]),
        ("close_connection", "fail", &["ip", "error"]),
        ("close_workers", "success", &[]),
        ("close_database", "success", &[]),
    ] {
        assert_logged(&log, action, result, keys);
    }
    let times = |action: &str, result: &str| {
        let named = |line: &&LogLine| line.action == action && line.result == result;
        log.iter().filter(named).count()
    };
    for action in ["config", "recover", "sorteo", "close_listener", "close_workers", "close_database"] {
        assert_eq!(times(action, "success"), 1, "{action}");
    }
    assert_eq!(times("accept_connections", "success"), 3);
    assert_eq!(times("close_connection", "success") + times("close_connection", "fail"), 3);
    assert_eq!(times("apuesta_recibida", "fail"), 2);
    let value = |action: &str, key: &str| {
        let line = log.iter().find(|line| line.action == action).unwrap();
        line.get(key).unwrap_or_else(|| panic!("no {key} in {line:?}")).to_owned()
    };
    assert_eq!(value("config", "database"), "a\\u{7c}b\\u{a}2026\\u{202e}\\u{7f}\\u{d}.db");
    assert_eq!(value("config", "agencies"), "1");
    assert_eq!(value("recover", "state"), "open");
    assert_eq!(value("apuesta_almacenada", "dni"), "a\\\\b ñ: x");
    let agency = LogLine::parse_all(&upload.stderr);
    let expected = [
        ("apuesta_enviada", vec![("cantidad", "3")]),
        ("consulta_ganadores", vec![("cant_ganadores", "1")]),
        ("loop_finished", vec![]),
    ];
    let said: Vec<_> = agency
        .iter()
        .map(|line| {
            let pairs = line.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            (line.action.as_str(), pairs.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(said, expected);
    assert!(agency.iter().all(|line| line.result == "success"));
}

#[test]
fn a_bench_stores_what_it_reports_in_either_dialect_kept_or_fresh() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--agencies", "9", "--batch-bets-max", "100"]);
    let mut stored = 0;
    for options in
        [&["--dialect", "framed"][..], &["--dialect", "counted"], &["--fresh"], &["--rate", "100000"]]
    {
        let load = ["bench", "--json", "--connections", "3", "--batch", "7", "--bets", "500"];
        let finished = run(&mut server.command(folder.path(), &[&load[..], options].concat()));
        let report: serde_json::Value = serde_json::from_str(finished.succeeded()).unwrap();
        let bets = report["bets"].as_u64().unwrap();
        assert!((500..500 + 3 * 7).contains(&bets), "{options:?}: no batch is begun after enough: {bets}");
        stored += bets;
        assert_eq!(status(&server, folder.path())["bets"], stored, "{options:?}");
        let latency = &report["latency_us"];
        assert!(latency["p50"].as_u64() <= latency["max"].as_u64(), "{report}");
        assert!(latency["max"].as_u64() > Some(0), "{report}");
    }
    // What the server refuses ends the run, and says so.
    let refused = run(&mut server.command(folder.path(), &["bench", "--bets", "1", "--batch", "101"]));
    assert_names(refused.failed(1), &["too_many"]);
    let unreachable = run(&mut sorteo(folder.path(), ["bench", "--server", "127.0.0.1:1", "--bets", "1"]));
    assert_names(unreachable.failed(1), &["127.0.0.1:1"]);
}
