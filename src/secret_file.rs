//! Files that hold a secret, such as a private key or a token: read only where no other user
//! of the system can read them.
//!
//! The rule is PostgreSQL's: a file of ours is for its owner alone, and one that root owns may
//! be readable by a group, since administrators share keys among services that way.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Bytes that are read at most: far more than any key, and no endless device.
const BYTES_MAX: u64 = 1 << 20;
/// The bits of a mode that let others than the owner in.
const OTHERS: u32 = 0o077;
/// The one of them that a file of root's may have.
const GROUP_READ: u32 = 0o040;
const ROOT: u32 = 0;

/// Why a file with a secret is not read. None of the texts holds anything of its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be opened or read: it is missing, say.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a folder, a pipe or a device, or holds too much for a secret.
    #[error("is not a file of at most {BYTES_MAX} bytes")]
    NotAFile,
    /// Other users of the system may read it, or change it.
    #[error("is open to other users (mode {:04o}): chmod 600 {}", .mode, .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Returns the content of a file that only its owner can read.
///
/// # Errors
///
/// It cannot be read, or others can read it too: see [`SecretFileError`].
pub fn read(path: &Path) -> Result<Vec<u8>, SecretFileError> {
    let file = open(path)?;
    // Of the file that is open: its name may lead to another one by now.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile);
    }
    require_private(path, &metadata)?;
    let mut content = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut content)?;
    match content.len() as u64 > BYTES_MAX {
        true => Err(SecretFileError::NotAFile),
        false => Ok(content),
    }
}

/// Opens a file, and does not wait for anybody to write into it where it is a named pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

fn require_private(path: &Path, metadata: &Metadata) -> Result<(), SecretFileError> {
    match is_private(metadata.mode(), metadata.uid()) {
        true => Ok(()),
        false => Err(SecretFileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 }),
    }
}

fn is_private(mode: u32, owner: u32) -> bool {
    let allowed = if owner == ROOT { GROUP_READ } else { 0 };
    mode & OTHERS & !allowed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_have_access_and_the_group_of_a_file_of_roots_may_read() {
        for (mode, others, roots) in [
            (0o100_600, true, true),
            (0o100_400, true, true),
            (0o100_700, true, true),
            (0o100_640, false, true),
            (0o100_440, false, true),
            (0o100_660, false, false),
            (0o100_650, false, false),
            (0o100_644, false, false),
            (0o100_604, false, false),
            (0o100_602, false, false),
            (0o100_601, false, false),
        ] {
            assert_eq!(is_private(mode, 1000), others, "{mode:o} of a user");
            assert_eq!(is_private(mode, ROOT), roots, "{mode:o} of root");
        }
    }

    #[test]
    fn what_is_no_file_of_a_secret_is_refused_with_a_reason() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let error = |path: &Path| read(path).unwrap_err().to_string();
        assert!(error(&path).starts_with("cannot be read: No such file"));
        assert_eq!(error(folder.path()), "is not a file of at most 1048576 bytes");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        assert_eq!(error(&pipe), "is not a file of at most 1048576 bytes");
        std::fs::write(&path, "content").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let expected = format!("is open to other users (mode 0644): chmod 600 {}", path.display());
        assert_eq!(error(&path), expected);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path).unwrap(), b"content");
        std::fs::write(&path, vec![0; BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(SecretFileError::NotAFile)));
    }
}
