//! Which process holds a lock that was refused: a person must find it.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt as _;

/// The locks that the system knows of: proc_locks(5).
const LOCKS: &str = "/proc/locks";

/// Who holds a lock, as far as the system reports it: nothing of a process in another
/// container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    process: Option<u32>,
    /// Its user, if that is not the user whom the locked file belongs to.
    other_user: Option<u32>,
}

impl Holder {
    /// Returns who holds the lock on this file.
    pub(super) fn of(file: &File) -> Self {
        let Ok(found) = file.metadata() else { return Self::default() };
        let process = fs::read_to_string(LOCKS).ok().and_then(|locks| holder_in(&locks, &found));
        let user = process.and_then(|process| fs::metadata(format!("/proc/{process}")).ok());
        let other_user = user.map(|user| user.uid()).filter(|user| *user != found.uid());
        Self { process, other_user }
    }
}

/// Finds the process in `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
fn holder_in(locks: &str, file: &Metadata) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let locked = format!("{major:02x}:{minor:02x}:{}", file.ino());
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, process) = (fields.next()?, fields.nth(2)?);
        (kind == "FLOCK" && fields.next()? == locked).then(|| process.parse().ok())?
    })
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.process, self.other_user) {
            (Some(process), Some(user)) => write!(f, " (process {process} of user {user})"),
            (Some(process), None) => write!(f, " (process {process})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_found_by_the_file() {
        let file = tempfile::tempfile().unwrap().metadata().unwrap();
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        let locks = format!(
            "1: POSIX  ADVISORY  WRITE 1 {major:02x}:{minor:02x}:{ino} 0 EOF\n\
             2: FLOCK  ADVISORY  WRITE 2 {major:02x}:{minor:02x}:{ino}9 0 EOF\n\
             3: FLOCK  ADVISORY  WRITE 3 {major:02x}:{minor:02x}:{ino} 0 EOF\n",
            ino = file.ino()
        );
        assert_eq!(holder_in(&locks, &file), Some(3));
        assert_eq!(holder_in("", &file), None);
        let holder = Holder { process: Some(3), other_user: Some(1001) };
        assert_eq!(holder.to_string(), " (process 3 of user 1001)");
    }
}
