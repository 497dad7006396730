//! The real program as a child process: started in a clean environment and a
//! folder of the test's own, waited for with a deadline, killed when dropped.
//! And its log, read back as strictly as `docs/protocol.md` writes it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sorteo_protocol::text::is_bidirectional_control;
use tempfile::TempDir;

/// A failing test ends by this, never by hanging. No test is about time.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What of a test's environment reaches the program: where commands are, and
/// where an instrumented build writes its coverage.
pub const PASSED_ON: [&str; 2] = ["PATH", "LLVM_PROFILE_FILE"];

/// The program with next to nothing of the test's environment.
pub fn sorteo<A: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sorteo"));
    command.env_clear().current_dir(folder).args(args);
    command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// Looks until there is something, or fails the test naming what it waited for.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: did not happen within {DEADLINE:?}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// A running program whose output goes to files.
pub struct Process {
    child: Child,
    /// Its own folder: the test's folder shows only what the program makes.
    output: TempDir,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What it exited with; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name| File::create(output.path().join(name)).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Self { child, output }
    }

    /// The system's number for it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(fs::read(self.output.path().join(name)).unwrap()).unwrap()
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.read("stderr")
    }

    /// How many whole log lines so far have these parts.
    pub fn count(&self, parts: &str) -> usize {
        let whole = |line: &&str| line.ends_with('\n') && line.contains(parts);
        self.log().split_inclusive('\n').filter(whole).count()
    }

    /// Waits until so many log lines have these parts.
    pub fn wait_log(&self, parts: &str, times: usize) {
        let until = Instant::now() + DEADLINE;
        while self.count(parts) < times {
            assert!(Instant::now() < until, "no {times} lines `{parts}` in:\n{}", self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.send("TERM");
    }

    /// Sends a signal, and does not wait for what comes of it.
    pub fn send(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status();
        assert!(sent.unwrap().success(), "SIG{signal} could not be sent");
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Finished {
        let until = Instant::now() + DEADLINE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "still running; its log:\n{}", self.log());
            thread::sleep(LOOK_AGAIN);
        };
        Finished { code: status.code(), stdout: self.read("stdout"), stderr: self.read("stderr") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    Process::start(command).wait()
}

impl Finished {
    /// It did what it was asked; answers what it printed.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.stdout
    }

    /// It failed with this code; answers its complaint: the one line of
    /// standard error that is no log line.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let complaints: Vec<&str> =
            self.stderr.lines().filter(|line| LogLine::parse(line).is_err()).collect();
        assert_eq!(complaints.len(), 1, "one line that is no log line: {self:#?}");
        let complaint = complaints[0].strip_prefix("sorteo: ");
        complaint.unwrap_or_else(|| panic!("no complaint of ours: {self:#?}"))
    }
}

/// A running server.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
}

impl Server {
    /// A server on `sorteo.db` in the folder and a port of the system's choice.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let listen = ["serve", "--listen", "127.0.0.1:0"];
        Self::start_command(sorteo(folder, listen).args(args)).unwrap_or_else(|ended| panic!("{ended:#?}"))
    }

    /// A server on this address, tried again while the port is still taken.
    pub fn start_on(address: SocketAddr, folder: &Path, args: &[&str]) -> Self {
        let listen = ["serve", "--listen", &address.to_string()];
        wait_for("a port", || match Self::start_command(sorteo(folder, listen).args(args)) {
            Ok(server) => Some(server),
            Err(ended) if ended.stderr.contains("cannot be listened on") => None,
            Err(ended) => panic!("{ended:#?}"),
        })
    }

    /// Starts any `serve`, and waits until it listens or has ended.
    pub fn start_command(command: &mut Command) -> Result<Self, Finished> {
        let ready = tempfile::tempdir().unwrap();
        let file = ready.path().join("address");
        let mut process = Process::start(command.arg("--ready-file").arg(&file));
        let address = wait_for("the ready file", || match fs::read_to_string(&file) {
            Ok(line) => Some(Some(line.trim_end().parse().expect("an address"))),
            Err(_) if process.is_running() => None,
            Err(_) => Some(None),
        });
        match address {
            Some(address) => Ok(Self { process, address }),
            None => Err(process.wait()),
        }
    }

    /// A command that talks to this server.
    pub fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = sorteo(folder, args);
        command.args(["--server", &self.address.to_string()]);
        command
    }

    /// SIGTERM, then its end, which is a success.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.process.terminate();
        let finished = self.process.wait();
        finished.succeeded();
        finished
    }
}

/// Every file below a folder with its bytes, every folder with none.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.append(&mut snapshot(&path));
            all.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            all.insert(path, Some(bytes));
        }
    }
    all
}

/// A command that must leave its folder as it found it, whatever it does.
#[track_caller]
pub fn run_changing_nothing(folder: &Path, command: &mut Command) -> Finished {
    run_comparing(folder, command, |_, _| true)
}

/// A command that must leave the files as it found them that count.
#[track_caller]
pub fn run_comparing(
    folder: &Path,
    command: &mut Command,
    counts: impl Fn(&Path, &Option<Vec<u8>>) -> bool,
) -> Finished {
    let snapshot = || {
        let mut all = snapshot(folder);
        all.retain(|path, bytes| counts(path, bytes));
        all
    };
    let before = snapshot();
    let finished = run(command);
    let after = snapshot();
    let names = |all: &BTreeMap<PathBuf, _>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "files came or went: {finished:#?}");
    assert!(before == after, "a file changed: {finished:#?}");
    finished
}

/// The complaint has all of these.
#[track_caller]
pub fn assert_names(complaint: &str, words: &[&str]) {
    for word in words {
        assert!(complaint.contains(word), "no `{word}` in `{complaint}`");
    }
}

/// A folder of a test's own.
pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes bets with these numbers, each with a document of its own.
pub fn bets_file(folder: &Path, name: &str, numbers: &[u32]) {
    let row =
        |(index, number): (usize, &u32)| format!("Ana María,Paz,{},1999-03-17,{number}\n", 3_000_000 + index);
    let rows: String = numbers.iter().enumerate().map(row).collect();
    fs::write(folder.join(name), rows).unwrap();
}

/// A line of the log, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: String,
    pub action: String,
    pub result: String,
    /// What comes behind `action` and `result`.
    pub pairs: Vec<(String, String)>,
}

impl LogLine {
    /// Reads a line; says what is wrong with one that breaks the contract.
    pub fn parse(line: &str) -> Result<Self, String> {
        let fail = |what: &str| Err(format!("{what}: {line:?}"));
        let digits = "dddd-dd-dd dd:dd:dd ";
        let Some((time, rest)) = line.split_at_checked(digits.len()) else {
            return fail("too short");
        };
        let fits = |(shape, c): (char, char)| {
            if shape == 'd' { c.is_ascii_digit() } else { c == shape }
        };
        if !digits.chars().zip(time.chars()).all(fits) {
            return fail("no time");
        }
        let Some((level, rest)) = rest.split_at_checked(9) else {
            return fail("no level");
        };
        if !["ERROR    ", "WARNING  ", "INFO     ", "DEBUG    "].contains(&level) {
            return fail("unknown level, or not padded to 8");
        }
        let mut pairs = Vec::new();
        for part in rest.split(" | ") {
            match part.split_once(": ") {
                Some((key, value)) if is_word(key) && is_value(value) => {
                    pairs.push((key.to_owned(), value.to_owned()));
                }
                _ => return fail("a part is no `key: value`"),
            }
        }
        let mut take = |name: &str| match pairs.first() {
            Some((key, _)) if key == name => Ok(pairs.remove(0).1),
            _ => Err(format!("no {name} in its place: {line:?}")),
        };
        let (action, result) = (take("action")?, take("result")?);
        if !is_word(&action) || !["success", "fail", "in_progress"].contains(&result.as_str()) {
            return fail("unknown action or result");
        }
        Ok(Self { level: level.trim_end().to_owned(), action, result, pairs })
    }

    /// Reads a whole log, every line of which must keep the contract.
    #[track_caller]
    pub fn parse_all(log: &str) -> Vec<Self> {
        assert!(log.is_empty() || log.ends_with('\n'), "an unfinished line: {log}");
        // Not `lines`: it would forgive a carriage return.
        let lines = log.strip_suffix('\n').into_iter().flat_map(|log| log.split('\n'));
        lines.map(|line| Self::parse(line).unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    pub fn keys(&self) -> Vec<&str> {
        self.pairs.iter().map(|(key, _)| key.as_str()).collect()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        pairs.find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn is_value(text: &str) -> bool {
    let bad = |c: char| c == '|' || c.is_control() || is_bidirectional_control(c);
    !text.is_empty() && !text.contains(bad)
}

#[test]
fn the_reader_of_log_lines_refuses_what_breaks_the_contract() {
    let good = "2026-11-21 20:31:05 INFO     action: sorteo | result: success | draw: 1";
    assert_eq!(LogLine::parse(good).unwrap().get("draw"), Some("1"));
    for (from, to) in [
        ("2026-11-21 20", "2026-11-21T20"),
        ("INFO     ", "INFO "),
        ("INFO     ", "TRACE    "),
        ("success", "ok"),
        ("action", "Action"),
        ("action: sorteo | ", ""),
        (" | result: success", ""),
        ("draw: 1", "draw: 1|2"),
        ("draw: 1", "draw: 1\r"),
        ("draw: 1", "draw: \u{202e}1"),
        ("draw: 1", "draw"),
        ("draw: 1", "draw: "),
        (" | draw", " |draw"),
    ] {
        let bad = good.replace(from, to);
        assert!(LogLine::parse(&bad).is_err(), "{bad:?}");
    }
}
