//! Whole draws by the real program: a server and its agencies.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;

use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{
    DEADLINE, Process, Server, assert_names, bets_file, folder, run, sorteo, wait_for,
};

use super::{nobody, status, winning_documents};

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
    let again = [first.as_slice(), &["--winners-out", "winners-1", "--log-level", "debug"]].concat();
    let finished = run(&mut server.command(folder.path(), &again));
    finished.succeeded();
    assert!(!finished.stderr.contains("apuesta_enviada"), "{finished:#?}");
    assert_names(&finished.stderr, &["action: progreso | result: success | enviadas: 1002 | total: 1002"]);
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
    assert_names(checked.succeeded(), &["OK: 1 draw,", "3004 bets"]);
}

#[test]
fn an_upload_halves_its_batches_until_the_server_takes_them() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[1; 250]);
    let server = Server::start(folder.path(), &["--agencies", "1", "--batch-bets-max", "100"]);
    let args = ["upload", "--agency", "1", "--file", "a.csv", "--not-done"];
    run(&mut server.command(folder.path(), &args)).succeeded();
    assert_eq!(status(&server, folder.path())["bets"], 250);
    let refused = "error: too_many (the limits: batch_bets_max";
    server.process.wait_log(refused, 4);
    assert_eq!(server.process.count(refused), 4, "of 1,000, 500, 250 and 125");
}

#[test]
fn an_agency_with_two_files_is_done_by_a_command_of_its_own() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[1, 7574]);
    bets_file(folder.path(), "b.csv", &[7574, 2, 3]);
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let run_here = |args: &[&str]| run(&mut server.command(folder.path(), args));
    for file in ["a.csv", "b.csv"] {
        run_here(&["upload", "--agency", "1", "--file", file, "--not-done"]).succeeded();
    }
    assert_eq!(status(&server, folder.path())["bets"], 5);
    assert_eq!(status(&server, folder.path())["done"], 0);
    let wrong = run_here(&["done", "--agency", "1", "--bets", "3"]);
    assert_names(wrong.failed(1), &["refused DONE: count_mismatch|5"]);
    let counted = ["upload", "--agency", "1", "--file", "a.csv", "--not-done", "--dialect", "counted"];
    assert_names(run_here(&counted).failed(1), &["--not-done"]);
    assert_eq!(status(&server, folder.path())["state"], "open");
    for _ in 0..2 {
        assert_eq!(run_here(&["done", "--agency", "1", "--bets", "5"]).succeeded(), "agency 1 is done\n");
    }
    assert_eq!(status(&server, folder.path())["state"], "drawn");
    assert_eq!(run_here(&["winners", "--agency", "1"]).succeeded().lines().count(), 2);
}

#[test]
fn what_the_program_writes_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = folder();
    bets_file(folder.path(), "bets.csv", &[7574]);
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let run_here = |args: &[&str]| run(&mut server.command(folder.path(), args)).succeeded().to_owned();
    run_here(&["upload", "--agency", "1", "--file", "bets.csv", "--winners-out", "winners"]);
    for args in [
        &["backup", "saved.db"][..],
        &["export", "results", "--out", "results.csv"],
        &["export", "bets", "--draw", "1", "--out", "bets-1.csv"],
    ] {
        run(sorteo(folder.path(), args).args(["--database", "sorteo.db"])).succeeded();
    }
    run(&mut sorteo(folder.path(), ["generate", "--dir", "made-up", "--agencies", "1", "--bets", "9"]))
        .succeeded();
    let made_up = "made-up/agency-1.csv";
    for name in [
        "sorteo.db",
        "sorteo.db-wal",
        "sorteo.db.lock",
        "winners",
        "saved.db",
        "results.csv",
        "bets-1.csv",
        made_up,
    ] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    run(&mut sorteo(folder.path(), ["man", "--dir", "man"])).succeeded();
    let page = fs::metadata(folder.path().join("man/sorteo.1")).unwrap().permissions().mode();
    assert_eq!(page & 0o044, 0o044, "manual pages are for everybody");
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
    let sent = run(&mut agency(
        &upload,
        &[("CLI_ID", "1"), ("CLI_BATCH_MAXAMOUNT", "2"), ("CLI_LOG_LEVEL", "DEBUG")],
    ));
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
    server.process.wait_log(stored, 1);

    // One of the five is missing, or is wrong: nothing is sent.
    let missing = run(&mut agency(&["upload"], &bet[..5]));
    assert_names(missing.failed(1), &["NUMERO is missing", "NOMBRE"]);
    let wrong = run(&mut agency(&["upload"], &[&bet[..5], &[("NUMERO", "seven")]].concat()));
    assert_names(wrong.failed(1), &["NUMERO", "is not valid"]);

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
    // Nothing but what is open to a network, since that port is on all addresses.
    let log = quiet.stop().stderr;
    let is_warning = |line: &str| line.contains("WARNING  action: config | result: fail | error: ");
    assert!(log.lines().count() == 2 && log.lines().all(is_warning), "{log}");
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

/// A batch of this dialect has no name: sent twice, it may be stored twice.
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

#[test]
fn an_agency_without_bets_is_done_by_an_empty_file_if_that_is_allowed() {
    let folder = folder();
    bets_file(folder.path(), "1.csv", &[7574]);
    fs::write(folder.path().join("none.csv"), "").unwrap();
    let server = Server::start(folder.path(), &["--agencies", "3"]);
    let upload = |agency: &str, more: &[&str]| {
        let args = [&["upload", "--agency", agency, "--file", "none.csv"], more].concat();
        run(&mut server.command(folder.path(), &args))
    };
    for dialect in ["framed", "counted"] {
        let refused = upload("2", &["--dialect", dialect]);
        assert_names(refused.failed(1), &["none.csv: the file has no bets", "--allow-empty"]);
    }
    assert_eq!(status(&server, folder.path())["done"], 0);
    upload("2", &["--allow-empty", "--no-wait"]).succeeded();
    assert_eq!(status(&server, folder.path())["done"], 1);
    let one = ["upload", "--agency", "1", "--file", "1.csv", "--no-wait"];
    run(&mut server.command(folder.path(), &one)).succeeded();
    // The last: the draw takes place, and it has no winners.
    let counted = upload("3", &["--allow-empty", "--dialect", "counted", "--winners-out", "w"]);
    counted.succeeded();
    assert_names(&counted.stderr, &["action: consulta_ganadores | result: success | cant_ganadores: 0"]);
    assert_eq!(fs::read_to_string(folder.path().join("w")).unwrap(), "");
    let framed = upload("2", &["--allow-empty"]);
    framed.succeeded();
    assert_names(&framed.stderr, &["cant_ganadores: 0"]);
    let drawn = status(&server, folder.path());
    assert_eq!((&drawn["state"], &drawn["bets"]), (&"drawn".into(), &1.into()));
    server.stop();
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
