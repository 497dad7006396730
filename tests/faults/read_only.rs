//! A database on media that cannot be written: it can be read, or says why not.

use std::fs;
use std::path::Path;
use std::process::Command;

use sorteo_test_support::process::{Finished, assert_names, binary, run as to_its_end};

use crate::program::{EXIT_DATABASE_FAILED, Program};
use crate::upload::Upload;
use crate::workplace::{Run, Workplace, count};

const BATCHES: u64 = 3;
const ROWS: u64 = 3;

/// Commands that read work with the folder read-only, with a WAL that has commits and its
/// index too. Where such a WAL has lost its index, they say what to do.
pub fn can_be_read(run: &Run) {
    for workplace in run.rounds(1) {
        let program = Program::new(&workplace).with("--agencies", 1);
        let mut server = program.clone().with("--checkpoints", "external").start();
        let mut upload = Upload::new(program.address, BATCHES, ROWS);
        assert_eq!(upload.until_silence(), None);
        // Its WAL has everything.
        server.process.kill();
        assert_reads(&workplace, "a WAL and its index");
        fs::remove_file(workplace.folder().join("sorteo.db-shm")).unwrap();
        let refused = command(&workplace, &["check", "--database", "sorteo.db"]);
        let words = ["sorteo.db-wal", "read-only", "copy both"];
        assert_names(refused.failed(EXIT_DATABASE_FAILED), &words);
        program.start().stop();
        assert!(!workplace.folder().join("sorteo.db-wal").exists(), "it was shut down");
        assert_reads(&workplace, "one file");
        fs::write(workplace.folder().join("sorteo.db-wal"), "").unwrap();
        assert_reads(&workplace, "an empty WAL");
        fs::write(workplace.folder().join("sorteo.db-shm"), "").unwrap();
        assert_reads(&workplace, "an empty WAL and its index");
        count("databases on read-only media", 5);
    }
}

fn assert_reads(workplace: &Workplace, what: &str) {
    let elsewhere = tempfile::tempdir().unwrap();
    let saved = elsewhere.path().join("saved.db");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let commands: [&[&str]; 5] = [
        &["check", "--database", "sorteo.db"],
        &["export", "bets", "--database", "sorteo.db"],
        &["draw", "list", "--database", "sorteo.db"],
        &["token", "list", "--database", "sorteo.db"],
        &["backup", &path(&saved), "--database", "sorteo.db"],
    ];
    for arguments in commands {
        let read = command(workplace, arguments);
        assert_eq!(read.code, Some(0), "{what}, {arguments:?}: {read:#?}");
        let bets = (BATCHES * ROWS).to_string();
        let all = match arguments[0] {
            "token" => read.stdout.contains("last used"),
            "export" => read.stdout.lines().count() as u64 == BATCHES * ROWS + 1,
            _ => read.stdout.contains(&bets),
        };
        assert!(all, "{what}, {arguments:?}: {read:#?}");
    }
    let refused = command(workplace, &["token", "add", "1", "--database", "sorteo.db"]);
    assert_names(refused.failed(EXIT_DATABASE_FAILED), &["sorteo.db"]);
    assert_eq!(refused.stdout, "", "{what}: no token that is stored nowhere");
}

/// A command whose folder is read-only.
fn command(workplace: &Workplace, arguments: &[&str]) -> Finished {
    let script = "mount --bind . . && mount -o remount,bind,ro . && cd \"$PWD\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(binary()).args(arguments);
    to_its_end(command.current_dir(workplace.folder()))
}
