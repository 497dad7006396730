//! What the program prints about itself, and how it prints its results: help, manual
//! pages, completions, JSON for programs, and colours only on a terminal. A test whose
//! tool is not installed reports that and passes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use sorteo_test_support::process::{
    Finished, PASSED_ON, Server, assert_names, bets_file, folder, run, sorteo,
};

/// Whether a tool is there; says so if not.
fn has(tool: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success();
    if !found {
        eprintln!("skipped: there is no {tool} here");
    }
    found
}

/// Another program than ours, in as bare an environment.
fn tool(program: &str, args: &[&str], folder: &Path) -> Finished {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env_clear();
    command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    run(command.env("LC_ALL", "C.UTF-8"))
}

// ---------------------------------------------------------------------------
// Help, manual, completions.

#[test]
fn help_has_headings_and_its_long_form_tells_more() {
    let folder = folder();
    let help = |args: &[&str]| run(&mut sorteo(folder.path(), args)).succeeded().to_owned();
    let short = help(&["-h"]);
    assert_names(&short, &["\nRunning:\n  serve  ", "\nAgencies:\n  upload ", "\nExamples:\n  sorteo demo "]);
    assert_names(&short, &["\nExit codes:\n  0  ", "\nOperators and tools:\n  config "]);
    let long = help(&["--help"]);
    assert!(long.contains("sorteo man") && long.len() > short.len(), "{long}");
    let (short, long) = (help(&["serve", "-h"]), help(&["serve", "--help"]));
    for heading in ["Network", "Draw", "Limits", "Database", "Operators", "Log"] {
        assert!(short.contains(&format!("\n{heading}:\n      --")), "{heading}: {short}");
    }
    assert!(long.contains("[variable: SORTEO_WORKERS]") && !short.contains("[variable: "), "{long}");
    // The same by the other road.
    assert_eq!(help(&["help", "serve"]), long);
}

#[test]
fn the_manual_has_a_page_for_every_subcommand_and_man_shows_them_without_a_warning() {
    let folder = folder();
    let made = run(&mut sorteo(folder.path(), ["man", "--dir", "man/man1"]));
    let pages: Vec<OsString> =
        fs::read_dir(folder.path().join("man/man1")).unwrap().map(|page| page.unwrap().file_name()).collect();
    assert_eq!(made.succeeded(), format!("{} pages in man/man1\n", pages.len()));
    for page in ["sorteo.1", "sorteo-serve.1", "sorteo-config-show.1", "sorteo-completions.1"] {
        assert!(pages.contains(&page.into()), "no {page} in {pages:?}");
    }
    let main = run(&mut sorteo(folder.path(), ["man"]));
    assert_eq!(main.succeeded(), fs::read_to_string(folder.path().join("man/man1/sorteo.1")).unwrap());
    for heading in ["EXAMPLES", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES"] {
        assert!(main.stdout.contains(&format!("\n.SH {heading}\n")), "no {heading}");
    }
    assert_names(&main.stdout, &["SORTEO_CONFIG", "CLIENT_AMOUNT", "CLI_ID", "NO_COLOR"]);
    let (groff, mandoc) = (has("man") && has("groff"), has("mandoc"));
    for page in &pages {
        let path = format!("man/man1/{}", page.to_str().unwrap());
        if groff {
            let shown = tool("man", &["--warnings", "-l", &path], folder.path());
            assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{path}");
            assert_names(&shown.stdout, &["NAME", "SYNOPSIS", "sorteo 0.1.0"]);
        }
        if mandoc {
            let linted = tool("mandoc", &["-Tlint", "-Werror", &path], folder.path());
            assert_eq!((linted.code, linted.stdout.as_str()), (Some(0), ""), "{path}");
        }
    }
}

#[test]
fn the_completions_are_programs_of_their_shells() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let completions = run(&mut sorteo(folder.path(), ["completions", shell]));
        assert_names(completions.succeeded(), &["max-connections", "winners-out", "json", "framed"]);
        fs::write(folder.path().join(shell), &completions.stdout).unwrap();
        if has(shell) {
            let read = tool(shell, &["-n", shell], folder.path());
            assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""), "{shell}");
        }
    }
}

#[test]
fn bash_completes_a_subcommand_a_flag_and_a_value() {
    if !has("bash") {
        return;
    }
    let folder = folder();
    let completions = run(&mut sorteo(folder.path(), ["completions", "bash"]));
    fs::write(folder.path().join("sorteo.bash"), completions.succeeded()).unwrap();
    let complete = |words: &[&str]| {
        let script = format!(
            "source ./sorteo.bash; COMP_WORDS=({}); COMP_CWORD={}; _sorteo sorteo; echo ${{COMPREPLY[@]}}",
            words.join(" "),
            words.len() - 1
        );
        // What completes: the command, the word, the word before.
        let before = words.len().checked_sub(2).map_or("", |at| words[at]);
        let script = script
            .replace("_sorteo sorteo;", &format!("_sorteo sorteo {} {before};", words[words.len() - 1]));
        tool("bash", &["-c", &script], folder.path()).succeeded().trim().to_owned()
    };
    assert_eq!(complete(&["sorteo", "sta"]), "status");
    assert_eq!(complete(&["sorteo", "serve", "--max"]), "--max-connections");
    assert_eq!(complete(&["sorteo", "serve", "--log-format", "j"]), "json");
}

// ---------------------------------------------------------------------------
// Results for programs.

#[test]
fn every_result_is_told_as_json_too() {
    let folder = folder();
    let json = |finished: &Finished| -> serde_json::Value {
        assert_eq!(finished.stdout.lines().count(), 1, "{finished:#?}");
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let generate = ["generate", "--dir", "data", "--agencies", "2", "--bets", "10", "--seed", "7", "--json"];
    let generated = run(&mut sorteo(folder.path(), generate));
    generated.succeeded();
    let expected = serde_json::json!({
        "bets": 10, "agencies": 2, "seed": 7, "files": ["data/agency-1.csv", "data/agency-2.csv"]
    });
    assert_eq!(json(&generated), expected);

    bets_file(folder.path(), "a.csv", &[7574, 2, 7574]);
    let server = Server::start(folder.path(), &["--agencies", "1"]);
    let upload = ["upload", "--agency", "1", "--file", "a.csv"];
    run(&mut server.command(folder.path(), &upload)).succeeded();
    let winners = run(&mut server.command(folder.path(), &["winners", "--agency", "1", "--json"]));
    winners.succeeded();
    assert_eq!(json(&winners), serde_json::json!({"agency": 1, "documents": ["3000000", "3000002"]}));
    let none = ["winners", "--agency", "2", "--draw", "1", "--json"];
    let none = run(&mut server.command(folder.path(), &none));
    none.succeeded();
    assert_eq!(json(&none), serde_json::json!({"agency": 2, "draw": 1, "documents": []}));
    server.stop();

    let check = ["check", "--database", "sorteo.db", "--json"];
    let checked = run(&mut sorteo(folder.path(), check));
    checked.succeeded();
    let expected = serde_json::json!({
        "database": "sorteo.db", "fine": true, "draws": 1, "batches": 1, "bets": 3, "winners": 2,
        "findings": [], "more": 0
    });
    assert_eq!(json(&checked), expected);
    let database = Connection::open(folder.path().join("sorteo.db")).unwrap();
    database.execute_batch("DELETE FROM winners WHERE bet_id = 3").unwrap();
    drop(database);
    let checked = run(&mut sorteo(folder.path(), check));
    checked.failed(1);
    let told = json(&checked);
    assert_eq!((&told["fine"], &told["winners"]), (&false.into(), &1.into()), "{told}");
    assert!(!told["findings"].as_array().unwrap().is_empty(), "{told}");

    let demo = run(&mut sorteo(folder.path(), ["demo", "--dir", "demo", "--bets", "2000", "--json"]));
    demo.succeeded();
    let told = json(&demo);
    assert_eq!((&told["bets"], &told["database"]), (&2000.into(), &"demo/sorteo.db".into()), "{told}");
    let agencies = told["agencies"].as_array().unwrap();
    assert_eq!(agencies.iter().map(|agency| agency["bets"].as_u64().unwrap()).sum::<u64>(), 2000);
    assert_eq!(agencies[4]["dialect"], "counted");
}

// ---------------------------------------------------------------------------
// Colours.

/// Runs a program on a terminal of its own; prints all that arrived there.
const ON_A_TERMINAL: &str = "\
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    sys.stdout.buffer.write(part)
os.waitpid(pid, 0)
";

/// What is run to see colours, in a folder with a database.
const SHOWN: &[&[&str]] = &[
    &["--help"],
    &["serve", "--help"],
    &["serve", "--nope"],
    &["nope"],
    &["config", "show"],
    &["check", "--database", "sorteo.db"],
    &["generate", "--dir", "data", "--bets", "100"],
    &["demo", "--bets", "500"],
];

fn with_database() -> tempfile::TempDir {
    let folder = folder();
    Server::start(folder.path(), &[]).stop();
    folder
}

#[test]
fn no_escape_sequence_goes_into_a_pipe() {
    let folder = with_database();
    for args in SHOWN {
        let finished =
            run(sorteo(folder.path(), *args).env("TERM", "xterm-256color").env("TMPDIR", folder.path()));
        assert!(!(finished.stdout + &finished.stderr).contains('\u{1b}'), "{args:?}");
    }
}

#[test]
fn a_terminal_has_colours_unless_no_color_is_set() {
    if !has("python3") {
        return;
    }
    let folder = with_database();
    let shown = |args: &[&str], no_color: bool| {
        let program = sorteo(folder.path(), args);
        let mut command = Command::new("python3");
        command.args(["-c", ON_A_TERMINAL]).arg(program.get_program()).args(args).current_dir(folder.path());
        command
            .env_clear()
            .envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("TERM", "xterm-256color").env("TMPDIR", folder.path());
        if no_color {
            command.env("NO_COLOR", "1");
        }
        run(&mut command).succeeded().to_owned()
    };
    let mut coloured = 0;
    for args in SHOWN {
        coloured += usize::from(has_style(&shown(args, false)));
        let plain = shown(args, true);
        assert!(!plain.is_empty() && !has_style(&plain), "{args:?}: {plain:?}");
    }
    assert!(coloured >= 4, "only {coloured} have any: it is no terminal for them");
    // The bars are there, of which one can only see that they move the cursor.
    assert!(shown(&["demo", "--bets", "500"], true).contains("\u{1b}["));
}

/// Whether a colour or any other style is set; a cursor that is moved is none.
fn has_style(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|sequence| {
        let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    })
}
