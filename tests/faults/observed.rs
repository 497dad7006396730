//! What a running server uses, read from `/proc`, and the checks with which every test of
//! the network and of overload ends.

use std::fs;

use sorteo_test_support::log_line::LogLine;
use sorteo_test_support::process::{Server, wait_for};

use crate::crowd::{Line, frame};
use crate::history::{History, Verdict};
use crate::workplace::Workplace;

/// A process, looked at from outside.
#[derive(Clone, Copy, Debug)]
pub struct Observed(u32);

impl Observed {
    pub fn of(server: &Server) -> Self {
        Self(server.process.id())
    }

    fn read(self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Bytes of memory that it has in use.
    pub fn resident_bytes(self) -> u64 {
        let status = self.read("status");
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = kibibytes.and_then(|line| line.trim().strip_suffix(" kB"));
        kibibytes.expect("VmRSS in kB").parse::<u64>().unwrap() << 10
    }

    /// Time that its threads have spent on a processor, in hundredths of a second
    /// (`proc(5)`: fields 14 and 15 of `stat`, of which the second may hold blanks).
    pub fn processor_ticks(self) -> u64 {
        let stat = self.read("stat");
        let (_, behind_name) = stat.rsplit_once(") ").expect("a name in brackets");
        let fields: Vec<&str> = behind_name.split(' ').collect();
        let [user, system] = [14, 15].map(|field| fields[field - 3].parse::<u64>().unwrap());
        user + system
    }

    /// Files and sockets that it has open.
    pub fn open_files(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().count()
    }
}

/// How many connections the server has closed for this reason.
pub fn closed_for(server: &Server, error: &str) -> usize {
    let log = server.process.log();
    let end = format!(" | error: {error}");
    log.lines().filter(|line| line.contains("action: close_connection") && line.ends_with(&end)).count()
}

/// Waits until a new connection is accepted and answered.
pub fn wait_until_served(server: &Server) {
    let status = wait_for("an answer", || Line::new(server.address).ask_framed(&frame("STATUS")).ok());
    assert!(status.starts_with("STATUS|OK|"), "{status}");
}

/// Asserts what must hold after any fault: the server still answers, no thread panicked, its
/// log has the right format, it stops when told to, and the history matches the database.
#[track_caller]
pub fn conclude(server: Server, history: &History, workplace: &Workplace) -> Verdict {
    wait_until_served(&server);
    let ended = server.stop();
    let log = LogLine::parse_all(&ended.stderr);
    let panics: Vec<&LogLine> = log.iter().filter(|line| line.action == "panic").collect();
    assert!(panics.is_empty(), "{panics:#?}");
    history.hold_against(&workplace.database())
}

/// For a test with more connections than a process may have open by default.
pub fn raise_open_files_limit() {
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be read");
}
