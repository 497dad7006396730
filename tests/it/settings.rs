//! The settings: that the documentation matches the program, `config show` and `config
//! check`, reloading the log level, and the log as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::{expect, expect_file};
use sorteo::config::settings::{
    AGENCY, AGENCY_ALIASES, Alias, Default, Group, SERVE, SERVE_ALIASES, Setting, Unit, Values,
};
use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{
    Server, assert_names, bets_file, folder, run, run_changing_nothing, sorteo, wait_for,
};

// ---------------------------------------------------------------------------
// The documentation. UPDATE_EXPECT=1 writes its tables.

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The table of the settings as Markdown.
fn table(settings: &[Setting], aliases: &[Alias]) -> String {
    let mut table = String::from(
        "| flag | variable | key | range | default | unit | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    for setting in settings {
        let names = aliases.iter().filter(|alias| alias.key == setting.key).map(|alias| alias.name);
        let variables: Vec<String> = std::iter::once(setting.variable())
            .chain(names.map(str::to_owned))
            .map(|name| format!("`{name}`"))
            .collect();
        let range = setting.range().unwrap_or_else(|| setting.placeholder().to_owned());
        let default = match setting.default_text() {
            Some(default) => format!("`{default}`"),
            None => setting.default_description(),
        };
        let unit = match setting.values {
            Values::Number(Unit::Bytes, ..) => "bytes",
            Values::Number(Unit::Seconds, ..) => "seconds",
            _ => "",
        };
        table += &format!(
            "| `{}` | {} | `{}` | {range} | {default} | {unit} | {} |\n",
            setting.flag(),
            variables.join(", "),
            setting.key,
            setting.meaning
        );
    }
    table
}

/// The text with what is between the two marks replaced.
fn replace_between(text: &str, mark: &str, new: &str) -> String {
    let (before, rest) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark}"));
    let (_, after) = rest.split_once("<!-- end -->").expect("an end of the table");
    format!("{before}{mark}\n{new}<!-- end -->{after}")
}

#[test]
fn the_page_on_configuration_has_every_setting_as_it_is() {
    let path = document("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let text = replace_between(&text, "<!-- settings of serve -->", &table(SERVE, SERVE_ALIASES));
    let text = replace_between(&text, "<!-- settings of upload -->", &table(AGENCY, AGENCY_ALIASES));
    expect_file![path].assert_eq(&text);
}

/// How a setting is written in the file.
fn line_of_toml(key: &str, value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) => format!("{key} = {number}"),
        Err(_) => format!("{key} = {value:?}"),
    }
}

/// A setting that has no default needs an example.
fn example(key: &str) -> &'static str {
    match key {
        "agencies" => "5",
        "winning_number" => "7574",
        "ops_listen" => "127.0.0.1:9090",
        "agency_connections_max" | "address_connections_max" => "100",
        "agency_requests_max" | "address_requests_max" => "1000",
        "agency_bets_max" | "address_bets_max" => "1000000",
        "tls_cert" => "server.pem",
        "tls_key" => "server.key",
        "tls_client_ca" => "agencies-ca.pem",
        "tls_crl" => "agencies-crl.pem",
        "ops_auth" => "token",
        "ops_hosts" => "lottery.example",
        "ops_socket" => "/run/sorteo/operators",
        _ => panic!("give {key} an example"),
    }
}

fn example_file() -> String {
    let mut file = String::from(
        "# Settings of `sorteo serve --config FILE`, each at its default: remove the # from\n\
         # those that you change. Flags and variables override this file. `sorteo config\n\
         # check --config FILE` verifies it; docs/configuration.md says more.\n",
    );
    let mut group: Option<Group> = None;
    for setting in SERVE {
        if group != Some(setting.group) {
            group = Some(setting.group);
            file += &format!("\n# ---- {} ----\n", setting.group.heading().unwrap_or_default());
        }
        let range = setting.range().map_or(String::new(), |range| match setting.words() {
            [] => format!(", {range}"),
            _ => format!(": {range}"),
        });
        file += &format!("\n# {}{range}\n", setting.meaning);
        match (setting.default, setting.default_text()) {
            (_, Some(default)) => file += &format!("#{}\n", line_of_toml(setting.key, &default)),
            (Default::Unset(what), _) => {
                let line = line_of_toml(setting.key, example(setting.key));
                file += &format!("# Not set: {what}. For example:\n##{line}\n");
            }
            _ => panic!("a server starts without {}", setting.key),
        }
    }
    file
}

#[test]
fn the_example_file_has_every_setting_at_its_default() {
    let path = document("sorteo.example.toml");
    expect_file![&path].assert_eq(&example_file());
    let text = fs::read_to_string(&path).unwrap();
    // As it is, with all defaults uncommented, and with the examples too.
    let defaults: String = text.lines().filter_map(|line| uncommented(line, "#")).collect();
    let examples: String = text.lines().filter_map(|line| uncommented(line, "##")).collect();
    assert_eq!(defaults.lines().count() + examples.lines().count(), SERVE.len());
    let show = |file: &str| {
        let folder = folder();
        fs::write(folder.path().join("sorteo.toml"), file).unwrap();
        let show = ["config", "show", "--json", "--config", "sorteo.toml"];
        let shown = run(&mut sorteo(folder.path(), show));
        serde_json::from_str::<serde_json::Value>(shown.succeeded()).unwrap()
    };
    let (as_it_is, uncommented, all) = (show(&text), show(&defaults), show(&(defaults + &examples)));
    for setting in SERVE {
        let of = |shown: &serde_json::Value| shown[setting.key].clone();
        assert_eq!(of(&as_it_is)["source"], "default", "{}", setting.key);
        assert_eq!(of(&as_it_is)["value"], of(&uncommented)["value"], "{}", setting.key);
        assert_eq!(of(&all)["source"], "file", "{}", setting.key);
    }
}

fn uncommented(line: &str, mark: &str) -> Option<String> {
    let rest = line.strip_prefix(mark)?;
    rest.starts_with(|c: char| c.is_ascii_lowercase()).then(|| format!("{rest}\n"))
}

// ---------------------------------------------------------------------------
// `config show` and `config check`.

#[test]
fn what_an_orchestrator_sets_for_a_service_called_sorteo_is_no_setting() {
    let folder = folder();
    let mut command = sorteo(folder.path(), ["config", "check"]);
    command.envs([
        // Kubernetes, for the services `sorteo` and `sorteo-ops`.
        ("SORTEO_SERVICE_HOST", "10.0.0.11"),
        ("SORTEO_SERVICE_PORT", "12345"),
        ("SORTEO_SERVICE_PORT_AGENCIES", "12345"),
        ("SORTEO_PORT", "tcp://10.0.0.11:12345"),
        ("SORTEO_PORT_12345_TCP", "tcp://10.0.0.11:12345"),
        ("SORTEO_PORT_12345_TCP_PROTO", "tcp"),
        ("SORTEO_PORT_12345_TCP_PORT", "12345"),
        ("SORTEO_PORT_12345_TCP_ADDR", "10.0.0.11"),
        ("SORTEO_OPS_SERVICE_HOST", "10.0.0.12"),
        ("SORTEO_OPS_PORT", "udp://10.0.0.12:9090"),
        // A Docker link called `sorteo`.
        ("SORTEO_NAME", "/agency/sorteo"),
    ]);
    assert_eq!(run_changing_nothing(folder.path(), &mut command).succeeded(), "OK\n");
    for (name, value) in [
        ("SORTEO_PORT", "12345"),
        ("SORTEO_PORTS", "tcp://10.0.0.11:12345"),
        ("SORTEO_PORT_X_TCP", "tcp://10.0.0.11:12345"),
        ("SORTEO_PORT_12345_TCP_LIMIT", "7"),
        ("SORTEO_NAME", "lottery"),
    ] {
        let mut command = sorteo(folder.path(), ["config", "check"]);
        let refused = run_changing_nothing(folder.path(), command.env(name, value));
        assert_names(refused.failed(78), &[&format!("{name} is not a variable of sorteo")]);
    }
}

#[test]
fn a_count_of_0_agencies_in_the_original_variables_means_that_none_is_set() {
    let folder = folder();
    for variables in
        [[("CLIENT_AMOUNT", "0"), ("TOTAL_AGENCIES", "3")], [("CLIENT_AMOUNT", "3"), ("TOTAL_AGENCIES", "0")]]
    {
        let mut command = sorteo(folder.path(), ["config", "show", "--json"]);
        let shown = run(command.envs(variables));
        let json: serde_json::Value = serde_json::from_str(shown.succeeded()).unwrap();
        assert_eq!(json["agencies"]["value"], 3, "{variables:?}");
    }
    let mut command = sorteo(folder.path(), ["config", "show"]);
    let shown = run(command.envs([("CLIENT_AMOUNT", "0"), ("TOTAL_AGENCIES", "0")]));
    let agencies = shown.succeeded().lines().find(|line| line.starts_with("agencies "));
    assert_names(agencies.unwrap_or_default(), &[" - ", "default: those of the open draw"]);
    // In a flag and in our own variable, 0 stays a mistake.
    let mut command = sorteo(folder.path(), ["config", "show"]);
    assert_names(run(command.env("SORTEO_AGENCIES", "0")).failed(78), &["SORTEO_AGENCIES", "`0`"]);
}

#[test]
fn config_show_tells_every_value_and_where_it_is_from() {
    let folder = folder();
    fs::write(
        folder.path().join("s.toml"),
        "# mine\nworkers = 8\nqueue = 0x10\ndatabase = \"sqlite:f.db\"\n",
    )
    .unwrap();
    let command = |args: &[&str]| {
        let mut command = sorteo(folder.path(), ["config", "show", "--config", "s.toml"]);
        command
            .args(args)
            .env("SORTEO_READERS", "2")
            .env("SERVER_PORT", "4000")
            .env("LOGGING_LEVEL", "DEBUG");
        command
    };
    let shown =
        run_changing_nothing(folder.path(), &mut command(&["--max-connections", "070", "--queue", "9"]));
    expect![[r#"
        listen                   0.0.0.0:4000  variable SERVER_PORT
        auth                     off           default
        auth_timeout             10            default
        max_connections          70            flag --max-connections
        request_timeout          30            default
        idle_timeout             900           default
        drain_timeout            8             default
        tls                      off           default
        tls_cert                 -             default: no TLS
        tls_key                  -             default: no TLS
        tls_client_ca            -             default: no client certificates
        tls_crl                  -             default: no certificate is revoked
        handshake_timeout        10            default
        agencies                 -             default: those of the open draw, or all from 1 to the highest seen
        winning_number           -             default: that of the open draw, or 7574
        agencies_max             10000         default
        agency_connections_max   -             default: no limit
        agency_requests_max      -             default: no limit
        agency_bets_max          -             default: no limit
        address_connections_max  -             default: no limit
        address_requests_max     -             default: no limit
        address_bets_max         -             default: no limit
        workers                  8             file s.toml, line 2
        queue                    9             flag --queue
        batch_bets_max           10000         default
        payload_bytes_max        1048576       default
        buffer_bytes_max         268435456     default
        output_bytes_max         65536         default
        database                 f.db          file s.toml, line 4
        readers                  2             variable SORTEO_READERS
        checkpoints              server        default
        ops_listen               -             default: no HTTP
        ops_auth                 -             default: off if all of ops_listen is loopback, else token
        ops_hosts                -             default: localhost and IP addresses alone
        ops_socket               -             default: no socket
        disk_free_bytes_min      134217728     default
        log_level                debug         variable LOGGING_LEVEL
        log_format               text          default
    "#]]
    .assert_eq(shown.succeeded());
    let shown = run(&mut command(&["--json"]));
    let json: serde_json::Value = serde_json::from_str(shown.succeeded()).unwrap();
    let all: serde_json::Value = serde_json::json!([
        json["workers"],
        json["readers"],
        json["agencies"],
        json["database"]["value"],
        json["queue"]
    ]);
    expect![[r#"[{"line":2,"name":"s.toml","source":"file","value":8},{"name":"SORTEO_READERS","source":"variable","value":2},{"source":"default","value":null},"f.db",{"line":3,"name":"s.toml","source":"file","value":16}]"#]]
        .assert_eq(&all.to_string());
    assert_eq!(json.as_object().unwrap().len(), SERVE.len());
    let wrong = run(&mut command(&["--workers", "0"]));
    assert_names(wrong.failed(2), &["--workers: `0`"]);
}

#[test]
fn config_check_tells_all_that_is_wrong_and_exits_as_serve_would() {
    let folder = folder();
    let check = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = sorteo(folder.path(), ["config", "check"]);
        run_changing_nothing(folder.path(), command.args(args).envs(variables.iter().copied()))
    };
    fs::write(folder.path().join("good.toml"), "workers = 8\nmax_connections = 10\n").unwrap();
    let fine = check(&["--config", "good.toml"], &[]);
    assert_eq!((fine.succeeded(), fine.stderr.as_str()), ("OK\n", ""));
    fs::write(folder.path().join("bad.toml"), "workers = 0\nagences = 5\nqueue = []\nlisten = \"x:70000\"\n")
        .unwrap();
    let wrong = check(
        &["--config", "bad.toml", "--readers", "65", "--log-format", "yaml"],
        &[("SORTEO_LOG_LEVL", "info"), ("SORTEO_AGENCIES", "five")],
    );
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(78), ""));
    expect![[r#"
        sorteo: SORTEO_LOG_LEVL is not a variable of sorteo: did you mean SORTEO_LOG_LEVEL?
        sorteo: bad.toml: line 2: `agences` is not a setting: did you mean `agencies`?
        sorteo: bad.toml: line 3: `queue` cannot be of type array: write a number, or a string in quotes
        sorteo: bad.toml: line 4: listen: `x:70000` is not an address: a port is a number from 0 to 65535, not 70000
        sorteo: SORTEO_AGENCIES: `five` is no number of agencies, such as 5, and no set of agencies, such as 1-5,7
        sorteo: bad.toml: line 1: workers: `0` is not a whole number from 1 to 1024
        sorteo: --readers: `65` is not a whole number from 1 to 64
        sorteo: --log-format: `yaml` is not a valid value: use text or json
    "#]]
    .assert_eq(&wrong.stderr);
    // Whatever serve would stop at decides.
    let flag = check(&["--workers", "0"], &[]);
    assert_names(flag.failed(2), &["--workers: `0`"]);
    let variable = check(&[], &[("SORTEO_WORKERS", "0")]);
    assert_names(variable.failed(78), &["SORTEO_WORKERS: `0`"]);
}

#[test]
fn config_check_takes_lists_of_names() {
    let folder = folder();
    let check = |args: &[&str]| {
        let checked = run(sorteo(folder.path(), ["config", "check"]).args(args));
        assert_eq!(checked.succeeded(), "OK\n");
        checked.stderr
    };
    fs::write(folder.path().join("s.toml"), "ops_hosts = [\"a.example\", \"B.example\"]\n").unwrap();
    assert_eq!(check(&["--config", "s.toml"]), "");
    assert_eq!(check(&["--ops-hosts", "a.example", "--ops-hosts", "b.example"]), "");
    let wrong = run(&mut sorteo(folder.path(), ["config", "check", "--ops-hosts", "a.example:9090"]));
    assert_names(
        wrong.failed(2),
        &["--ops-hosts: `a.example:9090` is not the name of a host", "lottery.example"],
    );
}

#[test]
fn config_check_warns_of_few_open_files_as_serve_does() {
    let folder = folder();
    let program = sorteo(folder.path(), ["config", "check", "--max-connections", "500"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=100:100").arg(program.get_program()).args(program.get_args());
    limited.current_dir(folder.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("skipped: there is no prlimit here");
        return;
    }
    let checked = run(&mut limited);
    assert_eq!(checked.succeeded(), "OK\n");
    assert_eq!(checked.stderr, "warning: the system allows 100 open files, max_connections needs 564\n");
}

// ---------------------------------------------------------------------------
// The log.

#[test]
fn sighup_reads_the_log_level_again_and_a_wrong_file_keeps_the_old_one() {
    let folder = folder();
    let write = |text: &str| fs::write(folder.path().join("s.toml"), text).unwrap();
    write("log_level = \"info\"\n");
    let server = Server::start(folder.path(), &["--config", "s.toml"]);
    let closed = "DEBUG    action: close_connection | result: success";
    let ask = || run(&mut server.command(folder.path(), &["status"])).succeeded().to_owned();
    let told = |level: &str| format!("INFO     action: config | result: success | log_level: {level}");
    ask();
    write("log_level = \"debug\"\n");
    server.process.send("HUP");
    server.process.wait_log(&told("DEBUG"), 1);
    assert_eq!(server.process.count(closed), 0, "the level was low enough from the start");
    ask();
    server.process.wait_log(closed, 1);

    // Wrong in one way and the other: the old level stays, and all goes on.
    for (count, (text, what)) in [
        ("log_level = \"loud\"\n", "s.toml: line 1: log_level: `loud`"),
        ("workers = 0\n", "line 1: workers"),
    ]
    .into_iter()
    .enumerate()
    {
        write(text);
        server.process.send("HUP");
        let line = "ERROR    action: config | result: fail | error: s.toml: line 1: ";
        server.process.wait_log(line, count + 1);
        assert!(server.process.log().contains(what));
        ask();
        server.process.wait_log(closed, count + 2);
    }

    // A lower level: the change is logged even so.
    write("log_level = \"warning\"\n");
    server.process.send("HUP");
    server.process.wait_log(&told("WARN"), 1);
    let before = server.process.log();
    ask();
    // A higher level again, whose change is logged too. Before it, nothing was logged.
    write("log_level = \"info\"\n");
    server.process.send("HUP");
    server.process.wait_log(&told("INFO"), 1);
    let log = server.process.log();
    let since = log.strip_prefix(&before).unwrap().lines().next().unwrap();
    assert!(since.ends_with(&told("INFO")), "{since}");
    let finished = server.stop();
    LogLine::parse_all(&finished.stderr);
}

#[test]
fn a_flag_for_the_log_level_beats_the_file_after_sighup_too() {
    let folder = folder();
    fs::write(folder.path().join("s.toml"), "log_level = \"debug\"\n").unwrap();
    let server = Server::start(folder.path(), &["--config", "s.toml", "--log-level", "info"]);
    server.process.send("HUP");
    server.process.wait_log("action: config | result: success | log_level: INFO", 1);
    run(&mut server.command(folder.path(), &["status"])).succeeded();
    let log = server.stop().stderr;
    assert!(!log.contains("DEBUG "), "{log}");
}

/// The log as objects, each with the four keys that all have, in their places.
#[track_caller]
fn objects(log: &str) -> Vec<serde_json::Value> {
    let read = |line: &str| {
        assert!(line.starts_with("{\"time\":\"") && line.contains("Z\",\"level\":\""), "{line}");
        let object: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let time: jiff::Timestamp = object["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(), object["time"], "{line}");
        for key in ["level", "action", "result"] {
            assert!(object[key].is_string(), "{key}: {line}");
        }
        object
    };
    assert!(log.ends_with('\n'), "an unfinished line: {log}");
    log.lines().map(read).collect()
}

#[test]
fn the_log_as_json_is_one_object_a_line_for_the_server_and_for_an_agency() {
    let folder = folder();
    bets_file(folder.path(), "a.csv", &[7574, 2, 3]);
    let database = "a|b\n\u{202e}\"\\.db";
    let args = ["--agencies", "1", "--log-format", "json", "--log-level", "debug", "--database", database];
    let server = Server::start(folder.path(), &args);
    let mut bet = server.command(folder.path(), &["upload"]);
    for (name, value) in [
        ("NOMBRE", "Ana"),
        ("APELLIDO", "Paz"),
        ("DOCUMENTO", "0309"),
        ("NACIMIENTO", "1999-03-17"),
        ("NUMERO", "12"),
        ("SORTEO_AGENCY", "2"),
        ("SORTEO_LOG_FORMAT", "json"),
    ] {
        bet.env(name, value);
    }
    let bet = run(&mut bet);
    bet.succeeded();
    let sent = objects(&bet.stderr);
    assert_eq!((&sent[0]["dni"], &sent[0]["numero"]), (&"0309".into(), &12.into()), "{sent:?}");
    let upload = ["upload", "--agency", "1", "--file", "a.csv", "--log-format", "json"];
    let upload = run(&mut server.command(folder.path(), &upload));
    upload.succeeded();
    let said: Vec<String> = objects(&upload.stderr)
        .iter()
        .map(|line| format!("{} {} {}", line["action"], line["cantidad"], line["cant_ganadores"]))
        .collect();
    assert_eq!(
        said,
        ["\"progreso\" null null", "\"consulta_ganadores\" null 1", "\"loop_finished\" null null"]
    );
    let log = server.stop().stderr;
    assert!(!log.contains("\\u{"), "an escape of the text form: {log}");
    let log = objects(&log);
    let find = |action: &str| log.iter().find(|line| line["action"] == action).unwrap();
    assert_eq!(find("config")["database"], database);
    assert_eq!(find("config")["workers"], 64);
    assert_eq!(find("config")["level"], "INFO");
    assert_eq!(find("apuesta_almacenada")["dni"], "0309");
    assert_eq!(find("sorteo")["bets"], 4);
    assert_eq!(find("close_database")["result"], "success");
}

#[test]
fn a_server_with_a_variable_for_each_setting_runs_with_them() {
    let folder = folder();
    let mut command = sorteo(folder.path(), ["serve"]);
    for setting in SERVE {
        let value = match setting.key {
            "listen" => "127.0.0.1:0".to_owned(),
            "database" => "other.db".to_owned(),
            // The operators' HTTP takes a port, and this test needs none.
            "ops_listen" => String::new(),
            // Files that this test has not; the tests of TLS have.
            file if file.starts_with("tls_") => String::new(),
            // Quotas of agencies need that they prove who they are.
            "auth" => "optional".to_owned(),
            "ops_socket" => "operators".to_owned(),
            _ => setting.default_text().unwrap_or_else(|| example(setting.key).to_owned()),
        };
        command.env(setting.variable(), value);
    }
    let server = Server::start_command(&mut command).unwrap_or_else(|ended| panic!("{ended:#?}"));
    wait_for("the database", || folder.path().join("other.db").exists().then_some(()));
    server.stop();
}
