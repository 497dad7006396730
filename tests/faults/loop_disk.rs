//! A disk of the test's own whose power can be cut: a mounted file with ext4.
//!
//! The cut is the file system's own shutdown without a last write of its journal: from that
//! moment on every write fails, and after the next mount unsynced writes are gone. It needs
//! root, loop devices and python3, which can make a system call that Rust's safe crates do
//! not offer.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use sorteo_test_support::process::wait_for;

/// Room for a few hundred thousand bets.
const BYTES: u64 = 48 << 20;

/// Reports that it is ready, and cuts the power of a mounted file system when told to.
///
/// The call is `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`, the flag
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const CUTTER: &str = "
import fcntl, os, struct, sys
disk = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
if sys.stdin.read(1):
    fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))
";

/// A mounted disk, which is unmounted when dropped. Its image stays.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    /// A new disk: its image and the folder that it is mounted on are made in this one.
    pub fn new(folder: &Path) -> Self {
        Self::try_new(folder).unwrap_or_else(|failed| panic!("{failed}"))
    }

    fn try_new(folder: &Path) -> Result<Self, String> {
        let (image, folder) = (folder.join("disk.ext4"), folder.join("disk"));
        fs::create_dir(&folder).unwrap();
        File::create_new(&image).and_then(|file| file.set_len(BYTES)).unwrap();
        // All is initialised now: no thread of the kernel goes on with it.
        let whole = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(whole).arg(&image))?;
        mount(&image, &folder)?;
        Ok(Self { image, folder })
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What cuts its power at once when told to. Nothing else may hold the disk
    /// open longer than this.
    pub fn switch(&self) -> Switch {
        Switch::new(&self.folder).unwrap_or_else(|failed| panic!("{failed}"))
    }

    /// Power is back: mounts what the cut has left. Whoever used it must have ended.
    pub fn remount(&self) {
        // A process that was killed may still be on its way out.
        wait_for("the end of all use of the disk", || unmount(&self.folder, &[]).ok());
        mount(&self.image, &self.folder).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where something still uses it, it goes with its last user.
        if unmount(&self.folder, &[]).or_else(|_| unmount(&self.folder, &["--lazy"])).is_err() {
            eprintln!("{} is still mounted", self.folder.display());
        }
    }
}

/// What cuts a disk's power. It waits for that, so that a cut comes at once.
#[derive(Debug)]
pub struct Switch {
    python: Child,
}

impl Switch {
    fn new(folder: &Path) -> Result<Self, String> {
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", CUTTER]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut switch = Self { python: command.spawn().map_err(|error| format!("python3: {error}"))? };
        let mut ready = [0; 5];
        let output = switch.python.stdout.as_mut().expect("it is piped");
        output.read_exact(&mut ready).map_err(|error| format!("python3: {error}"))?;
        Ok(switch)
    }

    /// Cuts the power: what is not synced when this returns is lost.
    pub fn cut(self) {
        self.try_cut().unwrap();
    }

    fn try_cut(mut self) -> Result<(), String> {
        let mut input = self.python.stdin.take().expect("it is piped");
        input.write_all(b"!").map_err(|error| format!("python3: {error}"))?;
        let status = self.python.wait().map_err(|error| format!("python3: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("python3, to shut the disk down: {status}")) }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It has ended already, or was never used.
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

/// Why this machine has no such disks, if it has none: tried once.
pub fn missing() -> Option<&'static str> {
    static TRIED: LazyLock<Option<String>> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let tried = Disk::try_new(folder.path()).and_then(|disk| Switch::new(disk.folder())?.try_cut());
        tried.err().map(|failed| format!("no disk to cut the power of: {failed}"))
    });
    TRIED.as_deref()
}

fn mount(image: &Path, folder: &Path) -> Result<(), String> {
    run(Command::new("mount").args(["-o", "loop"]).args([image, folder]))
}

fn unmount(folder: &Path, how: &[&str]) -> Result<(), String> {
    run(Command::new("umount").args(how).arg(folder))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
