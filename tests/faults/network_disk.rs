//! A folder of another host: `sshfs` on a folder of this one, with nothing but an
//! SFTP server in between, so that it needs no network and no account.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use sorteo_test_support::process::{assert_names, run as run_to_its_end, snapshot};

use crate::program::{EXIT_DATABASE_FAILED, Program};
use crate::workplace::{Run, Workplace};

/// Where Debian and Fedora keep the server's side of SFTP.
const SFTP_SERVERS: [&str; 2] = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];

/// A type of FUSE that does not exist.
const UNKNOWN_TYPE: &str = "unheard";

/// Why this machine has no such folders, if it has none: tried once.
pub fn missing() -> Option<&'static str> {
    static TRIED: LazyLock<Option<String>> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let tried = Share::try_new(folder.path(), "sshfs");
        tried.err().map(|failed| format!("no folder of another host (sshfs, openssh-sftp-server): {failed}"))
    });
    TRIED.as_deref()
}

/// A database there is neither made nor opened, by whatever name.
pub fn refused(run: &Run) {
    for workplace in run.rounds(1) {
        let share = Share::of(&workplace, "sshfs");
        let program = Program::new(&workplace);
        let refuse = |program: &Program| {
            let all = || (snapshot(&share.far), names(workplace.folder()));
            let before = all();
            let refused = run_to_its_end(&mut program.command());
            let words = ["sorteo.db", "network file system (fuse.sshfs)", "--database"];
            assert_names(refused.failed(EXIT_DATABASE_FAILED), &words);
            assert!(before == all(), "something was made or changed");
        };
        let there = program.clone().in_folder(&share.near);
        refuse(&there);
        // By a link, where nothing is yet, and where there is a database.
        symlink(share.near.join("sorteo.db"), workplace.database()).unwrap();
        refuse(&program);
        program.clone().in_folder(&share.far).start().stop();
        refuse(&there);
        refuse(&program);
    }
}

/// What FUSE does not say is of a network is used: it may be a local disk.
pub fn unless_it_may_be_local(run: &Run) {
    for workplace in run.rounds(1) {
        let share = Share::of(&workplace, UNKNOWN_TYPE);
        Program::new(&workplace).in_folder(&share.near).start().stop();
        assert!(share.far.join("sorteo.db").exists());
    }
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// A folder, and where it is mounted as that of another host. Dropped, it is
/// mounted no more.
struct Share {
    far: PathBuf,
    near: PathBuf,
}

impl Share {
    fn of(workplace: &Workplace, fuse_type: &str) -> Self {
        Self::try_new(workplace.folder(), fuse_type).unwrap_or_else(|failed| panic!("{failed}"))
    }

    fn try_new(folder: &Path, fuse_type: &str) -> Result<Self, String> {
        let [far, near] = ["far", "near"].map(|name| folder.join(name));
        fs::create_dir(&far).unwrap();
        fs::create_dir(&near).unwrap();
        let sftp = sftp_command(folder)?;
        let complaint = folder.join("sshfs.log");
        let options = format!("ssh_command={},subtype={fuse_type}", sftp.display());
        let mounted = Command::new("sshfs")
            .args(["-o", &options, &format!("host:{}", far.display())])
            .arg(&near)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // No pipe: it would stay open as long as the folder is mounted.
            .stderr(File::create(&complaint).unwrap())
            .status()
            .map_err(|error| format!("sshfs: {error}"))?;
        match mounted.success() {
            true => Ok(Self { far, near }),
            false => Err(format!("sshfs: {}", fs::read_to_string(&complaint).unwrap().trim())),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let unmounted = Command::new("fusermount3").arg("-uz").arg(&self.near).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.near.display());
        }
    }
}

/// What `sshfs` runs instead of `ssh`, with arguments that an SFTP server refuses.
fn sftp_command(folder: &Path) -> Result<PathBuf, String> {
    let server = SFTP_SERVERS.into_iter().find(|path| Path::new(path).exists()).ok_or("no sftp-server")?;
    let script = folder.join("sftp");
    fs::write(&script, format!("#!/bin/sh\nexec {server}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Ok(script)
}
