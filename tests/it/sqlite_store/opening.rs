//! What is refused or repaired when a database is opened.

use std::fs;
use std::path::Path;

use sorteo::store::sqlite::{OpenError, Options};

use super::{Database, WINS, append, batch, names_in};

#[test]
fn what_cannot_be_a_database_is_refused_and_nothing_is_made() {
    /// Creates what is in the way, and how to recognise its error.
    struct Case {
        what: &'static str,
        make: fn(&Path),
        expected: fn(&OpenError) -> bool,
    }
    let cases = [
        Case {
            what: "a folder that is missing",
            make: |path| fs::remove_dir(path.parent().unwrap()).unwrap(),
            expected: |error| matches!(error, OpenError::NoFolder(_)),
        },
        Case {
            what: "a file where the folder should be",
            make: |path| {
                let folder = path.parent().unwrap();
                fs::remove_dir(folder).unwrap();
                fs::write(folder, "a file").unwrap();
            },
            expected: |error| matches!(error, OpenError::NoFolder(_)),
        },
        Case {
            what: "a folder where the file should be",
            make: |path| fs::create_dir(path).unwrap(),
            expected: |error| matches!(error, OpenError::NotAFile(_)),
        },
        Case {
            what: "a text",
            make: |path| fs::write(path, "agency,document\n".repeat(50)).unwrap(),
            expected: |error| matches!(error, OpenError::NotSqlite(_)),
        },
        Case {
            what: "a short text",
            make: |path| fs::write(path, "x").unwrap(),
            expected: |error| matches!(error, OpenError::NotSqlite(_)),
        },
        Case {
            what: "a database's first bytes only",
            make: |path| fs::write(path, b"SQLite format 3\0\x10\x00\x01\x01").unwrap(),
            expected: |error| matches!(error, OpenError::NotSqlite(_)),
        },
    ];
    for Case { what, make, expected } in cases {
        let database = Database::new();
        let folder = database.folder.path().join("data");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("sorteo.db");
        make(&path);
        let before = (snapshot(database.folder.path()), fs::read(&path).ok());
        let error = database.open_error(&Options::new(&path));
        assert!(expected(&error), "{what}: {error:?}");
        let shown = error.to_string();
        assert!(shown.contains(folder.to_str().unwrap()), "{what}: {shown} names it");
        let after = (snapshot(database.folder.path()), fs::read(&path).ok());
        assert_eq!(after, before, "{what} was left alone");
    }
}

/// All names below a folder.
fn snapshot(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            names.extend(snapshot(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        }
        names.push(name);
    }
    names
}

#[test]
fn another_programs_database_is_left_as_it_is() {
    for (what, sql) in [
        ("a table", "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')"),
        (
            "tables named as ours",
            "CREATE TABLE draws (id INTEGER PRIMARY KEY); CREATE TABLE bets (id INTEGER PRIMARY KEY)",
        ),
        (
            "another application's",
            "PRAGMA application_id = 7; PRAGMA user_version = 99; CREATE TABLE notes (text TEXT)",
        ),
    ] {
        let database = Database::new();
        database.raw().execute_batch(sql).unwrap();
        let before = fs::read(database.path()).unwrap();
        let error = database.open_error(&database.options(Some(1)));
        assert!(matches!(error, OpenError::Foreign(_)), "{what}: {error:?}");
        assert_eq!(fs::read(database.path()).unwrap(), before, "{what}");
        assert!(database.drawn_events().is_empty());
    }
}

/// What the power leaves of a first page when it goes while the database is made: its
/// length and not its bytes, or its bytes and not its length. The journal undoes both.
#[test]
fn a_database_whose_making_was_cut_short_is_made_again() {
    let mut torn = vec![0; 3584];
    // The magic, pages of 4096 bytes, a rollback journal, 1 page in all, an empty b-tree.
    torn[..36].copy_from_slice(b"SQLite format 3\0\x10\0\x02\x02\0\x40\x20\x20\0\0\0\x01\0\0\0\x01\0\0\0\0");
    torn[95] = 1;
    torn[100] = 0x0d;
    for (found, without_journal) in [(vec![0; 4096], "not a SQLite database"), (torn, "cut short")] {
        let database = Database::new();
        let options = database.options(None);
        fs::write(database.path(), found).unwrap();
        let refused = database.open_error(&options).to_string();
        assert!(refused.contains(without_journal), "its origin is unknown: {refused}");
        let mut journal = vec![0; 512];
        // The magic, no pages, a checksum, 0 pages before, sectors of 512 bytes, pages of 4096.
        journal[..28].copy_from_slice(
            b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7\0\0\0\0\xe1\x20\xbe\x56\0\0\0\0\0\0\x02\0\0\0\x10\0",
        );
        fs::write(database.path().with_file_name("sorteo.db-journal"), journal).unwrap();
        let (store, recovery) = database.open(&options);
        assert_eq!(recovery.status.bets, 0);
        assert_eq!(append(&store, batch(1, &["30904465"], 7574)), Ok(()));
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let database = Database::new();
    let store = database.open_expecting(1);
    append(&store, batch(1, &["1"], WINS)).unwrap();
    store.close();
    let raw = database.raw();
    let known: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    raw.pragma_update(None, "user_version", known + 1).unwrap();
    // While it is open the new version is in the log, then it is in the file.
    for raw in [Some(raw), None] {
        drop(raw);
        let before = fs::read(database.path()).unwrap();
        match database.open_error(&database.options(Some(5))) {
            OpenError::Newer { found, known: told, path } => {
                assert_eq!((found, told), (known + 1, known));
                assert_eq!(path, database.path());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(database.path()).unwrap(), before);
    }
    // With its version back it is the database that it was.
    database.raw().pragma_update(None, "user_version", known).unwrap();
    let (_store, recovery) = database.open(&database.options(None));
    assert_eq!((recovery.status.bets, recovery.status.expected), (1, 1));
}

#[test]
fn a_link_to_a_database_is_that_database() {
    let database = Database::new();
    let link = database.folder.path().join("link.db");
    std::os::unix::fs::symlink(database.path(), &link).unwrap();
    let (store, _) = database.open(&Options::new(&link));
    assert!(matches!(database.open_error(&database.options(None)), OpenError::Held(..)));
    append(&store, batch(1, &["1"], 1)).unwrap();
    let names = names_in(database.folder.path());
    assert!(!names.iter().any(|name| name.starts_with("link.db-") || name == "link.db.lock"), "{names:?}");
    store.close();
    let (by_name, recovery) = database.open(&database.options(None));
    assert_eq!(recovery.status.bets, 1);
    by_name.close();
}

#[test]
fn one_server_at_a_time_holds_a_database() {
    let database = Database::new();
    let options = database.options(Some(1));
    let (store, _) = database.open(&options);
    for _ in 0..2 {
        let error = database.open_error(&options);
        assert!(matches!(&error, OpenError::Held(path, _) if *path == database.path()), "{error:?}");
    }
    assert_eq!(append(&store, batch(1, &["1"], WINS)), Ok(()), "the first is not disturbed");
    store.close();
    let (store, recovery) = database.open(&options);
    assert_eq!(recovery.status.bets, 1);
    drop(store);
    let (_store, recovery) = database.open(&options);
    assert!(!recovery.created);
}
