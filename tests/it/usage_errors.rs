//! Wrong command lines, and the whole message that each gets, so that a change of a
//! message shows in the diff. UPDATE_EXPECT=1 writes the expected messages.

use std::fs;

use expect_test::expect;
use sorteo_test_support::process::{folder, run_changing_nothing, sorteo};

/// A variable that is set, and what is typed.
type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const CASES: &[Case] = &[
    (&[], &["srve"]),
    (&[], &["config", "chek"]),
    (&[], &["serve", "--agences", "5"]),
    (&[], &["serve", "--agencies"]),
    (&[], &["serve", "5"]),
    (&[], &["serve", "--agencies", "0"]),
    (&[], &["serve", "--listen", "127.0.0.1:99999"]),
    (&[], &["serve", "--listen", "localhost"]),
    (&[], &["serve", "--log-level", "loud"]),
    (&[], &["serve", "--log-format", "yaml"]),
    (&[], &["serve", "--database", "postgres://user@host/db"]),
    (&[], &["serve", "--listen", "127.0.0.1:0", "--database", "folder"]),
    (&[], &["serve", "--ready-file", "nowhere/ready"]),
    (&[], &["serve", "--config", "missing.toml"]),
    (&[], &["serve", "--config", "folder"]),
    (&[], &["serve", "--config", "broken.toml"]),
    (&[], &["serve", "--config", "unknown.toml"]),
    (&[], &["serve", "--config", "range.toml"]),
    (&[("SORTEO_AGENCES", "5")], &["serve"]),
    (&[("SORTEO_MAX_CONNECTIONS", "many")], &["serve"]),
    (&[("SERVER_PORT", "70000")], &["serve"]),
    (&[], &["check", "--database", "missing.db"]),
    (&[], &["check", "--database", "folder"]),
    (&[], &["upload", "--agency", "one", "--file", "a.csv"]),
    (&[], &["upload", "--file", "a.csv"]),
    (&[], &["upload", "--agency", "1"]),
    (&[], &["upload", "--agency", "1", "--file", "missing.csv"]),
    (&[], &["upload", "--agency", "1", "--file", "empty.csv"]),
    (&[], &["import", "missing.csv"]),
    (&[], &["upload", "--agency", "1", "--no-wait", "--winners-out", "w"]),
    (&[], &["upload", "--agency", "1", "--dialect", "framd"]),
    (&[], &["winners", "--agency", "1", "--draw", "0"]),
    (&[], &["bench", "--duration", "5", "--bets", "5"]),
    (&[], &["status", "--tls"]),
    (&[], &["status", "--tls-ca", "ca.pem"]),
    (&[], &["status", "--tls", "--tls-ca", "ca.pem", "--tls-cert", "agency-1.pem"]),
    (&[], &["status", "--tls", "--tls-ca", "missing.pem"]),
    (&[], &["status", "--token-file", "agency-1.token"]),
    (&[], &["winners", "--agency", "1", "--token-file", "missing.token"]),
    (&[], &["bench", "--token-file", "agency-1.token"]),
    (&[], &["bench", "--agency", "1", "--agencies", "2"]),
    (&[], &["bench", "--agency", "1", "--token-file", "missing.token"]),
    (&[], &["generate"]),
    (&[], &["completions", "bsh"]),
    (&[], &["serve", "--auth", "on"]),
    (&[], &["token", "add"]),
    (&[], &["token", "add", "1", "--role", "viewer"]),
    (&[], &["token", "add", "--role", "boss"]),
    (&[], &["token", "add", "4294967296"]),
    (&[], &["token", "add", "1", "--expires", "soon"]),
    (&[], &["token", "rotate", "0123456789abcdef", "--overlap=-1h"]),
    (&[], &["token", "revoke", "sorteo_0123456789abcdef"]),
    (&[], &["token", "list", "--database", "missing.db"]),
];

#[test]
fn every_wrong_usage_is_told_what_is_wrong_and_what_would_be_right() {
    let folder = folder();
    fs::create_dir(folder.path().join("folder")).unwrap();
    for (name, text) in [
        ("broken.toml", "workers = 8\nagencies 5\n"),
        ("unknown.toml", "workers = 8\n\nmax_conections = 5\n"),
        ("range.toml", "# mine\nworkers = 2000\n"),
        ("empty.csv", "\n"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut told = String::new();
    for (variables, args) in CASES {
        let mut command = sorteo(folder.path(), *args);
        command.envs(variables.iter().copied());
        let finished = run_changing_nothing(folder.path(), &mut command);
        assert_eq!(finished.stdout, "", "{args:?}");
        let set: String = variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        // Log lines have the time of day; what they say is tested elsewhere.
        let said = finished.stderr.lines().filter(|line| !line.contains(" action: "));
        let said: String = said.map(|line| format!("{line}\n")).collect();
        told += &format!("$ {set}sorteo {}\n{said}[{}]\n\n", args.join(" "), finished.code.unwrap());
    }
    expect![[r#"
        $ sorteo srve
        error: unrecognized subcommand 'srve'

          tip: a similar subcommand exists: 'serve'

        Usage: sorteo <COMMAND>

        For more information, try '--help'.
        [2]

        $ sorteo config chek
        error: unrecognized subcommand 'chek'

          tip: a similar subcommand exists: 'check'

        Usage: sorteo config <COMMAND>

        For more information, try '--help'.
        [2]

        $ sorteo serve --agences 5
        error: unexpected argument '--agences' found

          tip: a similar argument exists: '--agencies'

        Usage: sorteo serve --agencies <AGENCIES>

        For more information, try '--help'.
        [2]

        $ sorteo serve --agencies
        error: a value is required for '--agencies <AGENCIES>' but none was supplied

        For more information, try '--help'.
        [2]

        $ sorteo serve 5
        error: unexpected argument '5' found

        Usage: sorteo serve [OPTIONS]

        For more information, try '--help'.
        [2]

        $ sorteo serve --agencies 0
        sorteo: --agencies: `0` is not a whole number from 1 to 4294967295
        [2]

        $ sorteo serve --listen 127.0.0.1:99999
        sorteo: --listen: `127.0.0.1:99999` is not an address: a port is a number from 0 to 65535, not 99999
        [2]

        $ sorteo serve --listen localhost
        sorteo: --listen: `localhost` is not an address: write HOST:PORT, such as 127.0.0.1:12345
        [2]

        $ sorteo serve --log-level loud
        sorteo: --log-level: `loud` is not a log level: use error, warning, info or debug
        [2]

        $ sorteo serve --log-format yaml
        sorteo: --log-format: `yaml` is not a valid value: use text or json
        [2]

        $ sorteo serve --database postgres://user@host/db
        sorteo: --database: `postgres://` is not a kind of database that sorteo supports: give a file, or sqlite:FILE
        [2]

        $ sorteo serve --listen 127.0.0.1:0 --database folder
        sorteo: folder is not a file: give a database file in --database
        [74]

        $ sorteo serve --ready-file nowhere/ready
        sorteo: nowhere/ready cannot be written: there is no folder nowhere: create it first
        [1]

        $ sorteo serve --config missing.toml
        sorteo: missing.toml: the configuration cannot be read: No such file or directory (os error 2): give a TOML file in --config
        [78]

        $ sorteo serve --config folder
        sorteo: folder: the configuration cannot be read: Is a directory (os error 21): give a TOML file in --config
        [78]

        $ sorteo serve --config broken.toml
        sorteo: broken.toml: line 2: key with no value, expected `=`
        [78]

        $ sorteo serve --config unknown.toml
        sorteo: unknown.toml: line 3: `max_conections` is not a setting: did you mean `max_connections`?
        [78]

        $ sorteo serve --config range.toml
        sorteo: range.toml: line 2: workers: `2000` is not a whole number from 1 to 1024
        [78]

        $ SORTEO_AGENCES=5 sorteo serve
        sorteo: SORTEO_AGENCES is not a variable of sorteo: did you mean SORTEO_AGENCIES?
        [78]

        $ SORTEO_MAX_CONNECTIONS=many sorteo serve
        sorteo: SORTEO_MAX_CONNECTIONS: `many` is not a whole number from 1 to 1000000
        [78]

        $ SERVER_PORT=70000 sorteo serve
        sorteo: SERVER_PORT: `0.0.0.0:70000` is not an address: a port is a number from 0 to 65535, not 70000
        [78]

        $ sorteo check --database missing.db
        sorteo: there is no database missing.db: give an existing one with --database
        [74]

        $ sorteo check --database folder
        sorteo: folder is not a file: give a database file in --database
        [74]

        $ sorteo upload --agency one --file a.csv
        sorteo: --agency: `one` is not a whole number from 0 to 4294967295
        [2]

        $ sorteo upload --file a.csv
        sorteo: no agency is given: use --agency or SORTEO_AGENCY
        [2]

        $ sorteo upload --agency 1
        sorteo: no file is given: use --file or SORTEO_FILE
        [2]

        $ sorteo upload --agency 1 --file missing.csv
        sorteo: missing.csv: No such file or directory (os error 2): give the CSV file of the bets
        [1]

        $ sorteo upload --agency 1 --file empty.csv
        sorteo: empty.csv: the file has no bets: if the agency has none, give --allow-empty
        [1]

        $ sorteo import missing.csv
        sorteo: missing.csv: No such file or directory (os error 2): give the CSV file of the bets
        [1]

        $ sorteo upload --agency 1 --no-wait --winners-out w
        error: the argument '--no-wait' cannot be used with '--winners-out <FILE>'

        Usage: sorteo upload --agency <N> --no-wait

        For more information, try '--help'.
        [2]

        $ sorteo upload --agency 1 --dialect framd
        error: invalid value 'framd' for '--dialect <DIALECT>'
          [possible values: framed, counted]

          tip: a similar value exists: 'framed'

        For more information, try '--help'.
        [2]

        $ sorteo winners --agency 1 --draw 0
        error: invalid value '0' for '--draw <N>': 0 is not in 1..9223372036854775807

        For more information, try '--help'.
        [2]

        $ sorteo bench --duration 5 --bets 5
        error: the argument '--duration <SECONDS>' cannot be used with '--bets <N>'

        Usage: sorteo bench --duration <SECONDS>

        For more information, try '--help'.
        [2]

        $ sorteo status --tls
        error: the following required arguments were not provided:
          --tls-ca <FILE>

        Usage: sorteo status --tls --tls-ca <FILE>

        For more information, try '--help'.
        [2]

        $ sorteo status --tls-ca ca.pem
        error: the following required arguments were not provided:
          --tls

        Usage: sorteo status --tls-ca <FILE> --tls

        For more information, try '--help'.
        [2]

        $ sorteo status --tls --tls-ca ca.pem --tls-cert agency-1.pem
        error: the following required arguments were not provided:
          --tls-key <FILE>

        Usage: sorteo status --tls --tls-ca <FILE> --tls-cert <FILE> --tls-key <FILE>

        For more information, try '--help'.
        [2]

        $ sorteo status --tls --tls-ca missing.pem
        sorteo: the file of certificate authorities missing.pem does not exist
        [1]

        $ sorteo status --token-file agency-1.token
        sorteo: --token-file: needs the agency that the token is of: use --agency or SORTEO_AGENCY
        [2]

        $ sorteo winners --agency 1 --token-file missing.token
        sorteo: the token file missing.token does not exist
        [1]

        $ sorteo bench --token-file agency-1.token
        sorteo: --token-file: needs the agency that the token is of: use --agency
        [2]

        $ sorteo bench --agency 1 --agencies 2
        error: the argument '--agency <N>' cannot be used with '--agencies <N>'

        Usage: sorteo bench --agency <N>

        For more information, try '--help'.
        [2]

        $ sorteo bench --agency 1 --token-file missing.token
        sorteo: the run against 127.0.0.1:12345 failed: the token file missing.token does not exist
        [1]

        $ sorteo generate
        error: the following required arguments were not provided:
          --dir <FOLDER>

        Usage: sorteo generate --dir <FOLDER>

        For more information, try '--help'.
        [2]

        $ sorteo completions bsh
        error: invalid value 'bsh' for '<SHELL>'
          [possible values: bash, elvish, fish, powershell, zsh]

          tip: a similar value exists: 'bash'

        For more information, try '--help'.
        [2]

        $ sorteo serve --auth on
        sorteo: --auth: `on` is not a valid value: use off, optional or required
        [2]

        $ sorteo token add
        error: the following required arguments were not provided:
          <AGENCY|--role <ROLE>>

        Usage: sorteo token add <AGENCY|--role <ROLE>>

        For more information, try '--help'.
        [2]

        $ sorteo token add 1 --role viewer
        error: the argument '[AGENCY]' cannot be used with '--role <ROLE>'

        Usage: sorteo token add <AGENCY|--role <ROLE>>

        For more information, try '--help'.
        [2]

        $ sorteo token add --role boss
        error: invalid value 'boss' for '--role <ROLE>': not a role: viewer, auditor or operator

        For more information, try '--help'.
        [2]

        $ sorteo token add 4294967296
        error: invalid value '4294967296' for '[AGENCY]': not a whole number from 0 to 4294967295

        For more information, try '--help'.
        [2]

        $ sorteo token add 1 --expires soon
        error: invalid value 'soon' for '--expires <TIME>': write 90d, 12h, 2027-06-30 or 2027-06-30T18:00:00Z

        For more information, try '--help'.
        [2]

        $ sorteo token rotate 0123456789abcdef --overlap=-1h
        error: invalid value '-1h' for '--overlap <DURATION>': it is over already: write 0s to end the old token at once

        For more information, try '--help'.
        [2]

        $ sorteo token revoke sorteo_0123456789abcdef
        sorteo: not the id of a token, which is 16 hexadecimal digits: see `sorteo token list`
        [1]

        $ sorteo token list --database missing.db
        sorteo: there is no database missing.db: give an existing one with --database
        [74]

    "#]]
    .assert_eq(&told);
}
