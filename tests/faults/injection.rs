//! System calls that fail, for any build of the program: it runs under strace, which makes
//! the calls on one file fail.
//!
//! strace counts the calls of each thread separately. The program opens its database on its
//! first thread and writes to it on another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::program::Program;

/// Which calls fail, and how.
#[derive(Debug)]
pub struct Injection {
    strace: Vec<String>,
    trace: PathBuf,
}

impl Injection {
    /// Calls of these names (as `fsync,fdatasync`) on this file answer `error`. Which
    /// of them do is `when`, in strace's words: `3`, `3..5`, `3+`.
    ///
    /// What happens is written to a file in the folder `notes`.
    pub fn new(calls: &str, file: &Path, error: &str, when: impl ToString, notes: &Path) -> Self {
        Self::on(Some(file), calls, error, when, notes)
    }

    /// Calls of these names on any file.
    pub fn anywhere(calls: &str, error: &str, when: impl ToString, notes: &Path) -> Self {
        Self::on(None, calls, error, when, notes)
    }

    fn on(file: Option<&Path>, calls: &str, error: &str, when: impl ToString, notes: &Path) -> Self {
        let trace = notes.join("strace");
        let when = when.to_string();
        // -D: the program is the child of the test, and strace is not.
        let strace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", path(&trace)];
        let mut strace: Vec<String> = strace.map(str::to_owned).to_vec();
        strace.extend(file.into_iter().flat_map(|file| ["-P".to_owned(), path(file).to_owned()]));
        strace.extend(["-e".to_owned(), format!("trace={calls}")]);
        strace.extend(["-e".to_owned(), format!("inject={calls}:error={error}:when={when}")]);
        Self { strace, trace }
    }

    /// The program under this injection.
    pub fn of(&self, program: &Program) -> Program {
        program.clone().started_by(&self.strace)
    }

    /// How many calls failed so far.
    pub fn times(&self) -> usize {
        fs::read_to_string(&self.trace).unwrap_or_default().matches("(INJECTED)").count()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a folder of the test's own")
}

/// Why this machine cannot do it, if it cannot: tried once.
pub fn missing() -> Option<&'static str> {
    static TRIED: LazyLock<Option<String>> = LazyLock::new(|| {
        let notes = tempfile::tempdir().unwrap();
        let injection = Injection::new("openat", Path::new("/dev/null"), "EIO", 1, notes.path());
        let [strace, arguments @ ..] = &injection.strace[..] else { unreachable!("it is a command") };
        let mut command = Command::new(strace);
        command.args(arguments).args(["cat", "/dev/null"]);
        match command.stdin(Stdio::null()).output() {
            Err(error) => Some(format!("strace: {error}")),
            Ok(_) if injection.times() == 1 => None,
            Ok(output) => Some(format!("strace: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    });
    TRIED.as_deref()
}
