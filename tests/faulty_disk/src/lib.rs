//! A disk that fails, fills up and loses power: a SQLite VFS for tests.
//!
//! # How a VFS shim works
//!
//! SQLite never calls the operating system itself. It calls a *VFS*, a C table
//! of functions ("open this file", "delete that one"), and each open file
//! carries a second table ("read", "write", "sync"). A *shim* is a VFS that
//! does little itself: it stands in front of the real one, looks at each call,
//! and passes it on, or does not.
//!
//! ```text
//!             SQLite
//!               │ sqlite3_vfs          sqlite3_io_methods
//!               ▼                            │
//!   vfs.rs   xOpen, xDelete …                ▼
//!   file.rs     │                    xRead, xWrite, xSync …
//!               │     ┌──────────────────────┤
//!               │     ▼                      │
//!               │  machine.rs: count, decide │
//!               │  disk.rs: what is durable  │
//!               ▼                            ▼
//!            the unix VFS  ───────────▶  real files
//! ```
//!
//! [`install`] makes the shim the process's *default* VFS, so the program under
//! test runs unchanged. A test starts its own binary, or any binary that calls
//! [`install_from_env`] first, as a child process with a [`Plan`] in its
//! environment, watches how it fares, and afterwards opens the database in a
//! process without the shim.
//!
//! # What is counted
//!
//! One counter for the process, from 1, over these operations on databases,
//! their write-ahead logs and rollback journals: open, read, write, truncate,
//! sync, file size, delete, the folder's sync after a delete, and mapping the
//! shared memory. Not counted and never failing: locks, existence checks,
//! closing, temporary files and super-journals. The operations are carried out
//! one at a time.
//!
//! # What is simulated
//!
//! - **Failing operations** ([`Fault::Fail`]), with the unix VFS's codes.
//! - **A full disk** ([`Fault::Full`]): files do not grow; what overwrites,
//!   shrinks or reads works. A new, empty file needs no room.
//! - **A power cut** ([`Fault::Cut`]). Each file is rewritten to its bytes at
//!   the last successful sync, then each write and truncation since, in order,
//!   is by chance kept, dropped or torn; then the process is killed. Torn: a
//!   random subset of the 512-byte sectors is written, and bytes outside the
//!   write never change. Also by chance a file has its new length but zeros for
//!   bytes, a new file whose name was not synced is missing, and a deleted file
//!   whose folder was not synced is back. What a file held when this process
//!   first opened it is durable. The shared memory (`-shm`) is gone.
//! - **What a failed sync leaves behind**: see [`Failure::Io`].
//!
//! Syncs are not passed on to the system. The page cache outlives the process,
//! whoever cuts the power here rewrites the files, and a run takes a fraction
//! of the time.
//!
//! # What is not simulated
//!
//! - Bits that rot, sectors that are half written, writes to a wrong place, and
//!   a disk that says "synced" and lies.
//! - Changes to files by anything but SQLite in this process: the shim does not
//!   see them, neither another process's nor the program's own. So the program
//!   cannot make a file's name durable by syncing the folder itself; SQLite's
//!   own syncs do.
//! - Memory-mapped files (`PRAGMA mmap_size`, which is 0 unless somebody sets
//!   it) are passed through: reads from them are not counted.
//! - `SQLITE_FCNTL_CHUNK_SIZE`, with which SQLite rounds lengths up.

mod disk;
mod file;
mod machine;
mod plan;
mod vfs;

use std::env;

pub use plan::{BadPlan, Failure, Fault, Plan, VARIABLE};

/// Why the shim does not stand in front of SQLite's files.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The environment variable [`VARIABLE`] is set to something else than a plan.
    #[error(transparent)]
    BadPlan(#[from] BadPlan),
    /// The environment variable [`VARIABLE`] is not UTF-8.
    #[error("{VARIABLE} is not UTF-8")]
    NotUtf8,
    /// There is one already, and it can only be one: its state is the process's.
    #[error("the process has a faulty disk already")]
    Twice,
    /// SQLite has no default VFS to stand in front of, or does not take another.
    #[error("SQLite does not take another VFS (code {0})")]
    Sqlite(i32),
}

/// Makes the faulty disk SQLite's default VFS in this process. To be called
/// before the first connection is opened: those that are open already go past it.
///
/// # Errors
/// [`InstallError::Twice`] and [`InstallError::Sqlite`].
pub fn install(plan: Plan) -> Result<(), InstallError> {
    if !machine::start(plan) {
        return Err(InstallError::Twice);
    }
    vfs::register().map_err(InstallError::Sqlite)
}

/// [`install`]s the plan in the environment variable [`VARIABLE`]. Without the
/// variable it does nothing and answers `false`.
///
/// # Errors
/// Every [`InstallError`].
pub fn install_from_env() -> Result<bool, InstallError> {
    match env::var(VARIABLE) {
        Ok(text) => install(Plan::from_env_value(&text)?).map(|()| true),
        Err(env::VarError::NotPresent) => Ok(false),
        Err(env::VarError::NotUnicode(_)) => Err(InstallError::NotUtf8),
    }
}

/// Operations counted in this process so far; 0 before [`install`].
pub fn operations() -> u64 {
    if machine::has_started() { machine::machine().operations() } else { 0 }
}

/// Ends the process at once. A kill leaves no chance to any handler, destructor
/// or other thread, and a parent can tell it from the program's own abort.
fn kill_this_process() -> ! {
    // SAFETY: both calls take and return plain numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    // A kill of oneself is delivered before the call returns to this thread.
    std::process::abort()
}
