//! Fewer threads than the server needs: it says so in one line before anybody can reach
//! it, or it has all that it needs, to its end.

use std::process::Command;

use sorteo_test_support::process::{Finished, Server, assert_names, snapshot};

use crate::observed::wait_until_served;
use crate::program::Program;
use crate::workplace::{Run, Workplace, count};

/// A user without any other process: the system counts the threads of each user, and
/// those of root without limit.
const USER: u32 = 61_357;
/// Workers of the server.
const WORKERS: usize = 4;
/// Threads that it surely can do with.
const ENOUGH: usize = 40;
/// Its exit code where the system does not allow enough.
const EXIT_FAILED: i32 = 1;

/// Returns why this machine cannot run a program as another user, if it cannot.
pub fn missing() -> Option<&'static str> {
    let mut command = Command::new("prlimit");
    let tried = command.args(["--nproc=100", "setpriv"]).args(as_user()).arg("true").output();
    let works = tried.is_ok_and(|output| output.status.success());
    (!works).then_some("root, prlimit and setpriv are needed")
}

/// The user, who may use the test's folders although they are of another.
fn as_user() -> Vec<String> {
    let capability = "-caps=+dac_override";
    vec![
        format!("--reuid={USER}"),
        format!("--regid={USER}"),
        "--clear-groups".to_owned(),
        format!("--inh{capability}"),
        format!("--ambient{capability}"),
    ]
}

/// From one thread up, until there are more than enough.
pub fn few_threads(run: &Run) {
    for workplace in run.rounds(1) {
        let mut served = 0;
        for threads in 1..=ENOUGH {
            let part = workplace.part("data");
            match start(&part, threads) {
                Ok(server) => {
                    served += 1;
                    wait_until_served(&server);
                    let ended = server.stop();
                    assert!(!ended.stderr.contains("panic"), "{threads} threads: {}", ended.stderr);
                }
                Err(ended) => {
                    assert_eq!(served, 0, "fewer threads were enough: {ended:#?}");
                    let allowed = format!("allows {} more threads", threads - 1);
                    assert_names(ended.failed(EXIT_FAILED), &[&allowed, "workers", "ulimit -u", "TasksMax"]);
                    assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
                    assert!(snapshot(part.folder()).is_empty(), "a database was made");
                }
            }
        }
        assert!(served > 0 && served < ENOUGH, "{served} of {ENOUGH} limits were enough");
        count("limits on threads tried", ENOUGH as u64);
    }
}

/// Starts the server as a user who may have so many threads.
fn start(part: &Workplace, threads: usize) -> Result<Server, Finished> {
    let limited = [vec!["prlimit".to_owned(), format!("--nproc={threads}"), "setpriv".to_owned()], as_user()];
    let program = Program::new(part)
        .with("--workers", WORKERS)
        .with("--ops-listen", "127.0.0.1:0")
        .started_by(&limited.concat());
    program.try_start()
}
