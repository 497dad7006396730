//! The path of the database stops leading to the files that the server has open, or leads
//! to a file that another program can open by another name. What is acknowledged then would
//! be where the next server does not find it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use sorteo_test_support::process::{Server, assert_names, run as to_its_end, sorteo};

use crate::crowd::Crowd;
use crate::failing_sync::assert_database_failed;
use crate::program::{EXIT_DATABASE_FAILED, Program};
use crate::upload::Upload;
use crate::workplace::{Run, Workplace, count};

const EXIT_HELD: i32 = 75;
/// Batches of an upload, of which so many are sent before the change, and the rows of each.
const BATCHES: u64 = 6;
const BEFORE: u64 = 3;
const ROWS: u64 = 3;

/// What happens to the folder `data`, and whether it can be undone: then nothing that was
/// acknowledged is lost.
struct Change {
    name: &'static str,
    make: fn(&Path),
    undo: Option<fn(&Path)>,
}

const CHANGES: &[Change] = &[
    Change {
        name: "the folder is moved",
        make: |data| fs::rename(data, away(data)).unwrap(),
        undo: Some(|data| fs::rename(away(data), data).unwrap()),
    },
    Change {
        name: "another folder is in its place",
        make: |data| {
            fs::rename(data, away(data)).unwrap();
            fs::create_dir(data).unwrap();
            fs::copy(away(data).join("sorteo.db"), data.join("sorteo.db")).unwrap();
        },
        undo: Some(|data| {
            fs::remove_dir_all(data).unwrap();
            fs::rename(away(data), data).unwrap();
        }),
    },
    Change {
        name: "a hard link is added",
        make: |data| fs::hard_link(data.join("sorteo.db"), data.join("second.db")).unwrap(),
        undo: Some(|data| fs::remove_file(data.join("second.db")).unwrap()),
    },
    Change {
        name: "the database is renamed",
        make: |data| fs::rename(data.join("sorteo.db"), data.join("second.db")).unwrap(),
        undo: Some(|data| fs::rename(data.join("second.db"), data.join("sorteo.db")).unwrap()),
    },
    Change {
        name: "the database is deleted",
        make: |data| fs::remove_file(data.join("sorteo.db")).unwrap(),
        undo: None,
    },
    Change {
        name: "the WAL is deleted",
        make: |data| fs::remove_file(data.join("sorteo.db-wal")).unwrap(),
        undo: None,
    },
    Change {
        name: "the WAL's index is deleted",
        make: |data| fs::remove_file(data.join("sorteo.db-shm")).unwrap(),
        undo: Some(|_| ()),
    },
    Change { name: "all are deleted", make: |data| fs::remove_dir_all(data).unwrap(), undo: None },
];

fn away(data: &Path) -> PathBuf {
    data.with_file_name("away")
}

/// What happens next to the server.
type Act = fn(&Server, &mut Upload);

/// How the server may come to notice.
const CAUSES: &[(&str, Act)] = &[
    ("a batch", |_, upload| {
        let error = upload.attempt(BEFORE).expect_err("nobody can vouch for it");
        let open = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
        assert!(!open, "the connection was left open without a reply");
    }),
    ("by itself", |_, _| ()),
    ("SIGTERM", |server, _| server.process.terminate()),
];

/// A server whose files are not where it opened them acknowledges nothing more, and ends with
/// 74 whatever comes next: a batch, nothing, or SIGTERM.
pub fn noticed(run: &Run) {
    for workplace in run.rounds(1) {
        for change in CHANGES {
            for (cause, act) in CAUSES {
                let name = format!("{}: {cause}", change.name);
                notice(change, *act, &workplace.part(&name.replace(' ', "-")));
            }
        }
    }
}

fn notice(change: &Change, act: Act, workplace: &Workplace) {
    let data = workplace.folder().join("data");
    fs::create_dir(&data).unwrap();
    let program = Program::new(workplace).with("--agencies", 1).in_folder(&data);
    let server = program.start();
    let mut upload = Upload::new(program.address, BATCHES, ROWS);
    for step in 0..BEFORE {
        assert_eq!(upload.attempt(step).unwrap(), upload.acknowledgement(step));
    }
    (change.make)(&data);
    act(&server, &mut upload);
    assert_database_failed(&server.process.wait());
    count("servers whose files were moved", 1);
    if let Some(undo) = change.undo {
        undo(&data);
        let server = program.start();
        upload.finish_from(BEFORE);
        server.stop();
        upload.hold_against(&data.join("sorteo.db"));
    }
}

/// The folder is moved under load, and back when the server has ended: nothing that was
/// acknowledged is missing.
pub fn under_load(run: &Run) {
    for workplace in run.rounds(2) {
        let data = workplace.folder().join("data");
        fs::create_dir(&data).unwrap();
        let crowd = Crowd::mixed(30);
        let program = Program::new(&workplace).with("--agencies", crowd.dialects.len()).in_folder(&data);
        let server = program.start();
        let agencies = crowd.start(program.address, &workplace);
        agencies.wait_acknowledged(crowd.operations() / 3);
        fs::rename(&data, away(&data)).unwrap();
        assert_database_failed(&server.process.wait());
        fs::rename(away(&data), &data).unwrap();
        let server = program.start();
        let history = agencies.join();
        server.stop();
        history.hold_against(&data.join("sorteo.db"));
        count("folders moved under load", 1);
    }
}

/// A file with two names is served by none of them, and one that was renamed is held by its
/// server until that has noticed.
pub fn two_names(run: &Run) {
    for workplace in run.rounds(1) {
        let other = workplace.folder().join("other");
        fs::create_dir(&other).unwrap();
        let program = Program::new(&workplace).with("--agencies", 1);
        let second = Program::new(&workplace).in_folder(&other);
        program.start().stop();
        fs::hard_link(workplace.database(), other.join("sorteo.db")).unwrap();
        for program in [&program, &second] {
            refused(program, &["sorteo.db has 2 hard links", "-samefile"]);
        }
        assert_eq!(fs::read_dir(&other).unwrap().count(), 1, "nothing was created");
        let change = ["draw", "close-agency", "1", "--reason", "silent"];
        let change = to_its_end(sorteo(&other, change).args(["--database", "sorteo.db"]));
        assert_names(change.failed(EXIT_DATABASE_FAILED), &["2 hard links"]);
        let check = to_its_end(&mut sorteo(&other, ["check", "--database", "sorteo.db"]));
        check.succeeded();
        assert_names(&check.stderr, &["sorteo: warning: sorteo.db has 2 hard links"]);
        fs::remove_file(other.join("sorteo.db")).unwrap();
        let server = program.start();
        // It cannot notice while it is stopped, and still holds the file.
        server.process.send("STOP");
        fs::rename(workplace.database(), other.join("sorteo.db")).unwrap();
        let held = second.try_start().err().expect("it does not start");
        let process = format!("(process {})", server.process.id());
        assert_names(held.failed(EXIT_HELD), &["another server holds sorteo.db", &process]);
        server.process.send("CONT");
        assert_database_failed(&server.process.wait());
        second.start().stop();
        count("files with two names", 2);
    }
}

/// Why mounts cannot be tested, if they cannot.
pub fn no_mounts() -> Option<&'static str> {
    let tried = Command::new("unshare").args(["-m", "true"]).output();
    (!tried.is_ok_and(|tried| tried.status.success())).then_some("unshare -m and root are needed")
}

/// A file that is mounted by itself is refused before anything is written; a folder that is
/// mounted twice, also in another mount namespace, has one server.
pub fn mounted(run: &Run) {
    for workplace in run.rounds(1) {
        let (disk, data) = (workplace.folder().join("disk"), workplace.folder().join("data"));
        for folder in [&disk, &data] {
            fs::create_dir(folder).unwrap();
        }
        let on_disk = Program::new(&workplace).with("--agencies", 1).in_folder(&disk);
        on_disk.start().stop();
        for name in ["sorteo.db", "sorteo.db-wal", "sorteo.db-shm"] {
            fs::write(data.join(name), "").unwrap();
            if name != "sorteo.db" {
                fs::write(disk.join(name), "").unwrap();
            }
            let script = format!("mount --bind ../disk/{name} {name} && exec \"$@\"");
            let program = Program::new(&workplace).in_folder(&data);
            refused(
                &namespace(&program, &script),
                &[&format!("{name} is a mount point"), "Mount the folder"],
            );
            assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing was created");
            fs::remove_file(data.join(name)).unwrap();
        }
        let server = on_disk.start();
        let script = "mount --bind ../disk . && cd ../data && exec \"$@\"";
        let twice = namespace(&Program::new(&workplace).with("--agencies", 1).in_folder(&data), script);
        let held = twice.try_start().err().expect("it does not start");
        assert_names(held.failed(EXIT_HELD), &["another server holds"]);
        server.stop();
        let mut upload = Upload::new(twice.address, BATCHES, ROWS);
        let server = twice.start();
        assert_eq!(upload.until_silence(), None);
        server.stop();
        upload.hold_against(&disk.join("sorteo.db"));
        count("mounted files and folders", 4);
    }
}

/// The program in a mount namespace of its own, after a script that ends with `exec "$@"`.
fn namespace(program: &Program, script: &str) -> Program {
    program.clone().started_by(&["unshare", "-m", "sh", "-c", script, "sh"])
}

fn refused(program: &Program, words: &[&str]) {
    let refused = program.try_start().err().expect("it does not start");
    assert_names(refused.failed(EXIT_DATABASE_FAILED), words);
}
