//! Commands whose standard output nobody reads any more, as behind `| head`: they end
//! quietly, by SIGPIPE, as other programs do.

use std::io::pipe;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use signal_hook::consts::SIGPIPE;
use sorteo_test_support::process::{Server, bets_file, folder, run, sorteo};

#[test]
fn every_command_that_prints_ends_quietly_where_nobody_reads_it() {
    let folder = folder();
    let path = folder.path();
    bets_file(path, "a.csv", &[7574, 7574, 1]);
    let server = Server::start(path, &["--agencies", "1"]);
    run(&mut server.command(path, &["upload", "--agency", "1", "--file", "a.csv"])).succeeded();
    let address = server.address.to_string();
    for line in [
        "--help",
        "--version",
        "help draw",
        "serve --help",
        "export bets",
        "export results --format jsonl",
        "export bets --out bets.csv",
        "winners --agency 1 --server ADDRESS",
        "winners --agency 1 --json --server ADDRESS",
        "status --server ADDRESS",
        "draw list",
        "draw show",
        "draw show --json",
        "check",
        "backup copy.db",
        "config show",
        "config show --json",
        "config check",
        "man",
        "man --dir pages",
        "completions bash",
        "generate --dir made --bets 5",
        "demo --dir demo --bets 50 --json",
    ] {
        let line = line.replace("ADDRESS", &address);
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = sorteo(path, line.split(' '));
        let ended = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{line}");
        assert_eq!(ended.status.signal(), Some(SIGPIPE), "{line}: {ended:?}");
    }
    // Of a usage that is wrong, nothing goes to standard output.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let wrong = sorteo(path, ["srve"]).stdout(writer).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    server.stop();
}
