//! The real program as a child process: it runs in a clean environment and in a
//! folder of the test, every wait for it has a deadline, and dropping it kills it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::log_line::LogLine;

/// The deadline of every wait. It only ends a test that hangs; no test measures time.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The pause before a condition is checked again.
const POLL: Duration = Duration::from_millis(2);

/// The variables that the program inherits from the test: where commands are, and
/// where an instrumented build writes its coverage.
pub const PASSED_ON: [&str; 2] = ["PATH", "LLVM_PROFILE_FILE"];

/// The program that cargo has built for this test run.
pub fn binary() -> PathBuf {
    // Cargo gives the path only to integration tests, in a variable of their environment.
    std::env::var_os("CARGO_BIN_EXE_sorteo").expect("tests run by `cargo test`").into()
}

/// A command that runs the program with almost none of the test's environment.
pub fn sorteo<A: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().current_dir(folder).args(args);
    command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// Polls until there is a value; fails the test at the deadline, with what it waited for.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: did not happen within {DEADLINE:?}");
        thread::sleep(POLL);
    }
}

/// A running program whose output goes to files.
pub struct Process {
    child: Child,
    /// A folder of its own, so that the folder of the test has only the program's files.
    output: TempDir,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
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

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(fs::read(self.output.path().join(name)).unwrap()).unwrap()
    }

    /// Returns what it has written to standard error so far.
    pub fn log(&self) -> String {
        self.read("stderr")
    }

    /// Counts the whole log lines so far that contain the text.
    pub fn count(&self, text: &str) -> usize {
        let whole = |line: &&str| line.ends_with('\n') && line.contains(text);
        self.log().split_inclusive('\n').filter(whole).count()
    }

    /// Waits until so many log lines contain the text.
    pub fn wait_log(&self, text: &str, times: usize) {
        let until = Instant::now() + DEADLINE;
        while self.count(text) < times {
            assert!(Instant::now() < until, "no {times} lines `{text}` in:\n{}", self.log());
            thread::sleep(POLL);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.send("TERM");
    }

    /// Sends a signal, and does not wait for its effect.
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
            thread::sleep(POLL);
        };
        Finished { code: status.code(), stdout: self.read("stdout"), stderr: self.read("stderr") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    Process::start(command).wait()
}

impl Finished {
    /// Asserts that it exited with 0; returns what it printed.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.stdout
    }

    /// Asserts that it exited with this code; returns its error message, the one line of
    /// standard error that is no log line.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let messages: Vec<&str> = self.stderr.lines().filter(|line| LogLine::parse(line).is_err()).collect();
        assert_eq!(messages.len(), 1, "one line that is no log line: {self:#?}");
        let message = messages[0].strip_prefix("sorteo: ");
        message.unwrap_or_else(|| panic!("no message of the program: {self:#?}"))
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

    /// A server on this address; starting it is tried again while the port is taken.
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

/// Returns every file below a folder with its bytes, and every folder with `None`.
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

/// Runs a command, and asserts that it changed nothing in the folder.
#[track_caller]
pub fn run_changing_nothing(folder: &Path, command: &mut Command) -> Finished {
    run_comparing(folder, command, |_, _| true)
}

/// Runs a command, and asserts that it changed none of the files that count.
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
    assert_eq!(names(&before), names(&after), "files were made or removed: {finished:#?}");
    assert!(before == after, "a file changed: {finished:#?}");
    finished
}

/// Asserts that the message contains all the words.
#[track_caller]
pub fn assert_names(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no `{word}` in `{message}`");
    }
}

/// Returns a temporary folder.
pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a file of bets with these numbers, each with another document.
pub fn bets_file(folder: &Path, name: &str, numbers: &[u32]) {
    let row =
        |(index, number): (usize, &u32)| format!("Ana María,Paz,{},1999-03-17,{number}\n", 3_000_000 + index);
    let rows: String = numbers.iter().enumerate().map(row).collect();
    fs::write(folder.join(name), rows).unwrap();
}
