//! Who does what the audit records: the system's user.

use std::fs;

use nix::unistd::{Uid, User};
use sorteo_protocol::text::one_line;

/// Where Linux keeps the user who logged in: other than the user of the process, it stays the
/// same behind `su` and `sudo`, and only root can change it.
const LOGIN_UID: &str = "/proc/self/loginuid";

/// Returns who does what this process does: its user and, where that is another one, the user
/// who logged in.
pub(super) fn actor() -> String {
    let user = Uid::effective();
    match login_uid().filter(|login| *login != user) {
        Some(login) => format!("{} (login {})", name_of(user), name_of(login)),
        None => name_of(user),
    }
}

/// Returns the user who logged in; `None` where nobody did, as for a service.
fn login_uid() -> Option<Uid> {
    let uid = fs::read_to_string(LOGIN_UID).ok()?.trim().parse().ok()?;
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

/// Returns a user's name; the number where the system knows none, as in many containers.
fn name_of(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => one_line(&user.name),
        _ => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_or_a_number() {
        assert_eq!(name_of(Uid::from_raw(0)), "root");
        assert_eq!(name_of(Uid::from_raw(3_999_999_999)), "uid 3999999999");
        assert!(actor().starts_with(&name_of(Uid::effective())));
    }
}
