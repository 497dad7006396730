//! Points at which a test can have the program killed, to restart it exactly there.
//!
//! `SORTEO_FAILPOINT=after_commit:3` ends the process by SIGKILL when it passes the point
//! for the third time. Only builds with debug assertions have failpoints: in a release
//! build [`Failpoint::pass`] is empty, and the variable is refused like any other unknown
//! one.

use std::fmt;

/// The environment variable that arms a failpoint: its name and, after a colon, at which
/// pass to die (1 by default).
pub const VARIABLE: &str = "SORTEO_FAILPOINT";

/// Whether this build has failpoints.
pub const COMPILED_IN: bool = cfg!(debug_assertions);

macro_rules! failpoints {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A point at which the program can be killed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failpoint {
            $($(#[$doc])* $point,)*
        }

        impl Failpoint {
            /// All failpoints.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// Returns the name of the failpoint in the variable.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

failpoints! {
    /// A migration of a database with an older schema is going on, and not committed.
    InsideMigration = "inside_migration",
    /// A database is being opened; what that changes, such as a draw that is due, is
    /// written and not committed.
    BeforePrepared = "before_prepared",
    /// What opening changed is committed, and not announced.
    AfterPrepared = "after_prepared",
    /// A group's transaction is open; nothing is written.
    BeforeInsert = "before_insert",
    /// The bets of a batch are inserted, the batch's own row is not.
    InsideBatch = "inside_batch",
    /// All of a group is written.
    BeforeCommit = "before_commit",
    /// A group is committed; no reply is sent.
    AfterCommit = "after_commit",
    /// The draw's row says that it is drawn; its winners are not written.
    InsideDraw = "inside_draw",
    /// The winners are written, and not counted in the draw's row.
    AfterWinners = "after_winners",
    /// The draw is committed and not announced.
    BeforeAnnouncement = "before_announcement",
    /// The draw is announced; no reply is sent.
    AfterAnnouncement = "after_announcement",
    /// Replies are ready; none is sent.
    BeforeAnswer = "before_answer",
    /// The system took replies, which does not mean that the peer has them.
    AfterAnswer = "after_answer",
    /// The WAL is about to be copied into the database.
    BeforeCheckpoint = "before_checkpoint",
    /// The WAL is copied.
    AfterCheckpoint = "after_checkpoint",
}

impl Failpoint {
    /// Kills the process if this failpoint is armed and this is the pass to die at.
    #[inline]
    pub fn pass(self) {
        #[cfg(debug_assertions)]
        armed::pass(self);
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parses the variable's value: which failpoint, and at which pass of it to die.
///
/// # Errors
///
/// Where it names no failpoint or no pass; the message lists the names.
pub fn parse(value: &str) -> Result<(Failpoint, u64), String> {
    let (name, pass) = value.split_once(':').unwrap_or((value, "1"));
    let point = Failpoint::ALL.iter().find(|point| point.name() == name);
    let pass = pass.parse().ok().filter(|pass| *pass >= 1);
    point.copied().zip(pass).ok_or_else(|| {
        let names: Vec<&str> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        format!("`{value}` is not a failpoint, or NAME:PASS with one of {}", names.join(", "))
    })
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use signal_hook::consts::SIGKILL;

    use super::{Failpoint, VARIABLE, parse};

    /// The failpoint to die at, and how many passes of it are left.
    ///
    /// A static, unlike all other configuration: failpoints are called so deep in the
    /// program that passing it down would change the signatures under test.
    static ARMED: LazyLock<Option<(Failpoint, AtomicU64)>> = LazyLock::new(|| {
        // A malformed value was refused when the program started.
        let (point, pass) = parse(&std::env::var(VARIABLE).ok()?).ok()?;
        Some((point, AtomicU64::new(pass)))
    });

    pub(super) fn pass(point: Failpoint) {
        if let Some((armed, left)) = &*ARMED
            && *armed == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            let _ = signal_hook::low_level::raise(SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_the_pass_to_die_at() {
        assert_eq!(parse("after_commit"), Ok((Failpoint::AfterCommit, 1)));
        assert_eq!(parse("before_answer:12"), Ok((Failpoint::BeforeAnswer, 12)));
        for wrong in ["", "after", "after_commit:", "after_commit:0", "after_commit:-1", "after_commit:1:1"] {
            assert!(parse(wrong).unwrap_err().contains("before_insert"), "{wrong}");
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<&str> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Failpoint::ALL.len());
    }
}
