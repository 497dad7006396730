//! The program that has to live with the faulty disk: it inserts rows, each in
//! a transaction of its own, beside a second connection that reads, runs
//! checkpoints, and goes on after every error. What was committed it writes to
//! a file at once: as an answer over the network would, that outlives it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, process, thread};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// The environment variable that says which program to be: `folder|journal|synchronous|readers`.
pub const VARIABLE: &str = "FAULTY_DISK_CHILD";
/// The child's exit code if SQLite gave it an error.
pub const SAW_ERRORS: i32 = 3;
/// Rows that are inserted.
pub const ROWS: i64 = 8;
/// After these rows, the log is copied into the database.
const CHECKPOINTS: [(i64, &str); 3] = [(2, "PASSIVE"), (5, "TRUNCATE"), (7, "PASSIVE")];

/// Where the program keeps its files.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn database(&self) -> PathBuf {
        self.0.join("rows.db")
    }
    /// What SQLite keeps beside the database.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.0.join(format!("rows.db{suffix}"))
    }
    /// A line for each row whose commit succeeded.
    pub fn committed(&self) -> PathBuf {
        self.0.join("committed")
    }
    /// A line for each error of SQLite's.
    pub fn errors(&self) -> PathBuf {
        self.0.join("errors")
    }
    /// Makes room on a full disk.
    pub fn room(&self) -> PathBuf {
        self.0.join("room")
    }
}

/// What row `id` holds: more than a page for some, so that a commit has several.
pub fn content(id: i64) -> Vec<u8> {
    vec![id as u8; 300 + 900 * id as usize % 5_000]
}

#[test]
#[ignore = "the program that the other tests start"]
fn workload() {
    let Ok(text) = env::var(VARIABLE) else { return };
    let [folder, journal, synchronous, readers] = text.split('|').collect::<Vec<_>>()[..] else {
        panic!("{VARIABLE} is {text}")
    };
    assert!(faulty_disk::install_from_env().unwrap(), "the parent gives a plan");
    assert!(matches!(faulty_disk::install_from_env(), Err(faulty_disk::InstallError::Twice)));
    let mut program = Program::new(Folder(folder.into()));
    program.run(journal, synchronous, readers.parse().unwrap());
    println!("operations={}", faulty_disk::operations());
    process::exit(if program.failed { SAW_ERRORS } else { 0 });
}

struct Program {
    folder: Folder,
    committed: File,
    errors: File,
    failed: bool,
}

impl Program {
    fn new(folder: Folder) -> Self {
        let open = |path: &Path| File::options().create(true).append(true).open(path).unwrap();
        Self { committed: open(&folder.committed()), errors: open(&folder.errors()), folder, failed: false }
    }

    fn run(&mut self, journal: &str, synchronous: &str, readers: usize) {
        let opened = open(&self.folder.database(), journal, synchronous);
        let Some(writer) = self.note("open", opened) else { return };
        let (path, done) = (self.folder.database(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| read_until(&path, &done));
            }
            self.write(&writer, readers == 0);
            done.store(true, Ordering::Relaxed);
        });
        self.note("close", writer.close().map_err(|(_, error)| error));
    }

    fn write(&mut self, writer: &Connection, read_between: bool) {
        for id in 1..=ROWS {
            self.insert(writer, id);
            if read_between && id % 3 == 0 {
                let read = Reader::open(&self.folder.database()).and_then(|reader| reader.read());
                self.note("read", read);
            }
            if let Some((_, mode)) = CHECKPOINTS.iter().find(|(after, _)| *after == id) {
                let sql = format!("PRAGMA wal_checkpoint({mode})");
                self.note("checkpoint", writer.query_row(&sql, [], |_| Ok(())));
            }
        }
    }

    fn insert(&mut self, writer: &Connection, id: i64) {
        let insert = "INSERT INTO rows (id, content) VALUES (?1, ?2)";
        let inserted = writer.execute(insert, (id, content(id)));
        let full = matches!(&inserted, Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull));
        if self.note("insert", inserted).is_some() {
            writeln!(self.committed, "{id}").unwrap();
        } else if full && id > ROWS / 2 {
            fs::write(self.folder.room(), "").unwrap();
        }
    }

    fn note<T>(&mut self, what: &str, result: rusqlite::Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                self.failed = true;
                writeln!(self.errors, "{what}: {error} {:?}", error.sqlite_error()).unwrap();
            })
            .ok()
    }
}

fn open(path: &Path, journal: &str, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_mode", journal)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection
        .execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, content BLOB NOT NULL)", [])?;
    Ok(connection)
}

/// A connection as the pool of a server has it.
struct Reader(Connection);

impl Reader {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags).map(Self)
    }

    /// Reads everything, so that the pages come from the file or its log.
    fn read(&self) -> rusqlite::Result<()> {
        self.0.query_row("SELECT sum(length(content)) FROM rows", [], |_| Ok(()))
    }
}

fn read_until(path: &Path, done: &AtomicBool) {
    let reader = Reader::open(path).expect("nothing fails here but the power");
    while !done.load(Ordering::Relaxed) {
        reader.read().expect("nothing fails here but the power");
    }
}
