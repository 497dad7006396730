//! `sorteo demo --secure`: the files that it leaves, and what it says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use sorteo_test_support::process::{Finished, assert_names, folder, run, sorteo};

fn json(finished: &Finished) -> Value {
    serde_json::from_str(finished.succeeded()).unwrap()
}

fn keys(object: &Value) -> Vec<&String> {
    object.as_object().unwrap().keys().collect()
}

#[test]
fn a_secured_demo_draws_with_a_token_of_each_agency_in_files_of_its_owner() {
    let folder = folder();
    let demo = |args: &[&str]| run(&mut sorteo(folder.path(), [&["demo", "--bets", "500"], args].concat()));
    let plain = json(&demo(&["--dir", "plain", "--json"]));
    let secured = json(&demo(&["--dir", "secured", "--secure", "--json"]));
    assert_eq!(keys(&plain), keys(&secured));
    assert_eq!(secured["bets"], 500);
    // The same seed: the same bets, winners and dialects.
    assert_eq!(plain["agencies"], secured["agencies"]);
    assert_eq!(secured["agencies"][0]["dialect"], "framed");
    assert_eq!(secured["agencies"][4]["dialect"], "counted");

    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder.path().join("secured")).unwrap() {
        let (entry, name) = entry.map(|entry| (entry.metadata().unwrap(), entry.file_name())).unwrap();
        let name = name.into_string().unwrap();
        assert_eq!(entry.permissions().mode() & 0o777, 0o600, "{name}");
        names.push(name);
    }
    names.retain(|name| !name.starts_with("sorteo.db") && !name.ends_with(".csv"));
    names.sort();
    let tokens = (1..=5).map(|agency| format!("agency-{agency}.token"));
    let expected: Vec<String> =
        tokens.chain(["ca.pem", "server.key", "server.pem"].map(str::to_owned)).collect();
    assert_eq!(names, expected);

    // Each token was used, so each agency sent it: the server took it, over TLS alone.
    let list = ["token", "list", "--json", "--database", "secured/sorteo.db"];
    let list = json(&run(&mut sorteo(folder.path(), list)));
    let used: Vec<&Value> =
        list.as_array().unwrap().iter().filter(|token| !token["last_used_at"].is_null()).collect();
    let agencies: Vec<u64> = used.iter().map(|token| token["agency"].as_u64().unwrap()).collect();
    assert_eq!(agencies, [1, 2, 3, 4, 5]);
}

#[test]
fn a_secured_demo_says_what_it_requires_and_what_was_refused() {
    let folder = folder();
    let demo = run(sorteo(folder.path(), ["demo", "--secure", "--bets", "100"]).env("TMPDIR", folder.path()));
    let said = [
        "TLS is required, and so is a token of each agency.",
        "With its token, each agency was refused the winners of another: forbidden.",
        "all winners are correct.",
    ];
    assert_names(demo.succeeded(), &said);
}

#[test]
fn a_secured_demo_does_not_write_over_a_key() {
    let folder = folder();
    fs::write(folder.path().join("server.key"), "mine").unwrap();
    let demo = run(&mut sorteo(folder.path(), ["demo", "--secure", "--bets", "100", "--dir", "."]));
    assert_names(demo.failed(1), &["server.key cannot be written: File exists"]);
    assert_eq!(fs::read_to_string(folder.path().join("server.key")).unwrap(), "mine");
}
