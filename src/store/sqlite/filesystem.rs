//! Which file systems a database may be on.
//!
//! The WAL needs memory and locks that all processes of a database share, so "all processes using a database must be on the same host computer;
//! WAL does not work over a network filesystem" (<https://www.sqlite.org/wal.html>).
//! Where they are not shared, nothing fails: commits overwrite each other. And the lock
//! that keeps a second server away is one of those locks. So such a file system is
//! refused before anything on it is opened or created.
//!
//! Refused are file systems that other machines may have mounted too, over a network or
//! on a shared disk, and those that a virtual machine's host lends to it. Unknown file
//! systems are allowed, and so is virtiofs, which by its number is a FUSE like any
//! other: a server that does not start on a good disk is a fault too.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::OpenError;
use super::files::DatabaseFiles;

/// The mounts that this process sees: proc_pid_mountinfo(5).
const MOUNTS: &str = "/proc/self/mountinfo";

/// The number that `statfs` reports for any FUSE: see [`is_network_fuse`].
const FUSE_MAGIC: u32 = 0x6573_5546;

/// The file systems that are refused, by the number that `statfs` reports: those of
/// Linux are in its `linux/magic.h`, the others are from GNU's `stat`.
const NETWORK: &[(u32, &str)] = &[
    (0x0000_517b, "SMB"),
    (0x0000_564c, "NCP"),
    (0x0000_6969, "NFS"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0116_1970, "GFS2"),
    (0x0131_11a8, "IBRIX"),
    (0x0bd0_0bd0, "Lustre"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0x4750_4653, "GPFS"),
    (0x5346_414f, "AFS"),
    (0x6163_6673, "ACFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x7461_636f, "OCFS2"),
    (0x786f_4256, "vboxsf"),
    (0x7c7c_6673, "prl_fs"),
    (0xaad7_aaea, "PanFS"),
    (0xbacb_acbc, "vmhgfs"),
    (0xbeef_dead, "StorNext"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "SMB"),
];

/// The types of FUSE that are refused, as the mount names them after `fuse.`.
const NETWORK_FUSE: &[&str] = &[
    "blobfuse",
    "blobfuse2",
    "ceph",
    "ceph-fuse",
    "curlftpfs",
    "gcsfuse",
    "glusterfs",
    "goofys",
    "gvfsd-fuse",
    "juicefs",
    "mfs",
    "moosefs",
    "mount-s3",
    "rclone",
    "s3fs",
    "seaweedfs",
    "smbnetfs",
    "sshfs",
    "vmhgfs-fuse",
];

/// Refuses a database whose file, or whose folder, is on a network file system.
///
/// Where the system does not report the file system, nothing is refused here: opening
/// the database fails for the same reason, and names it.
pub(super) fn refuse_network(files: &DatabaseFiles) -> Result<(), OpenError> {
    // A file may be mounted by itself, on a folder of another file system.
    for path in [&files.folder(), files.database()] {
        if let Some(file_system) = network_file_system(path) {
            return Err(OpenError::NetworkFileSystem { path: files.database().to_owned(), file_system });
        }
    }
    Ok(())
}

/// Returns the network file system that an existing file or folder is on, if any.
fn network_file_system(path: &Path) -> Option<String> {
    let magic = rustix::fs::statfs(path).ok()?.f_type as u32;
    if let Some(name) = network_name(magic) {
        return Some(name.to_owned());
    }
    if magic != FUSE_MAGIC {
        return None;
    }
    let kind = mounted_type(path).ok()??;
    is_network_fuse(&kind).then_some(kind)
}

/// Returns the name of a file system that is refused by its number.
fn network_name(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

/// Returns whether a FUSE is refused by its type. All have the same number, and some are
/// local disks (`fuseblk`) or a layer over one (`fuse.fuse-overlayfs`), so only those that
/// are known to use a network are refused.
fn is_network_fuse(kind: &str) -> bool {
    kind.strip_prefix("fuse.")
        .is_some_and(|name| NETWORK_FUSE.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// Returns the type of the mount that a file or folder is on.
fn mounted_type(path: &Path) -> io::Result<Option<String>> {
    let device = fs::metadata(path)?.dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    Ok(type_of_device(&fs::read_to_string(MOUNTS)?, &device))
}

/// Finds `36 35 98:0 / /mnt rw,noatime shared:1 - fuse.sshfs host: rw` by its device.
/// The number of fields before the hyphen varies; no other field is one.
fn type_of_device(mounts: &str, device: &str) -> Option<String> {
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(device);
    let line = mounts.lines().find(of_device)?;
    line.split(' ').skip_while(|field| *field != "-").nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_number() {
        // From linux/magic.h, and what people call them.
        for (magic, name) in [
            (0x6969, Some("NFS")),
            (0x517b, Some("SMB")),
            (0xfe53_4d42, Some("SMB")),
            (0xff53_4d42, Some("SMB")),
            (0x0102_1997, Some("9P")),
            (0x5346_414f, Some("AFS")),
            (0x6b41_4653, Some("AFS")),
            (0x00c3_6400, Some("Ceph")),
            (0x7375_7245, Some("Coda")),
            (0x564c, Some("NCP")),
            (0x7461_636f, Some("OCFS2")),
            // ext4, XFS, Btrfs, F2FS, overlay, tmpfs, ZFS, FUSE, nothing.
            (0xef53, None),
            (0x5846_5342, None),
            (0x9123_683e, None),
            (0xf2f5_2010, None),
            (0x794c_7630, None),
            (0x0102_1994, None),
            (0x2fc1_2fc1, None),
            (FUSE_MAGIC, None),
            (0, None),
        ] {
            assert_eq!(network_name(magic), name, "{magic:#x}");
        }
    }

    #[test]
    fn a_fuse_is_known_by_its_type() {
        for (kind, refused) in [
            ("fuse.sshfs", true),
            ("fuse.glusterfs", true),
            ("fuse.JuiceFS", true),
            ("fuse.rclone", true),
            ("fuse.fuse-overlayfs", false),
            ("fuse.mergerfs", false),
            ("fuseblk", false),
            ("fuse", false),
            ("sshfs", false),
            ("virtiofs", false),
        ] {
            assert_eq!(is_network_fuse(kind), refused, "{kind}");
        }
    }

    #[test]
    fn the_type_of_a_mount_is_found_by_its_device() {
        let mounts = "\
            22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            36 22 0:40 / /srv/a\\040b rw,nosuid shared:7 master:2 - fuse.sshfs host:/ rw,user_id=0\n\
            37 22 0:4 / /proc rw - proc proc rw\n";
        assert_eq!(type_of_device(mounts, "254:0").as_deref(), Some("ext4"));
        assert_eq!(type_of_device(mounts, "0:40").as_deref(), Some("fuse.sshfs"));
        assert_eq!(type_of_device(mounts, "0:4").as_deref(), Some("proc"));
        assert_eq!(type_of_device(mounts, "0:41"), None);
        assert_eq!(type_of_device("", "0:4"), None);
    }

    #[test]
    fn what_this_system_has_mounted_is_read() {
        let folder = Path::new("/proc/self");
        if !folder.exists() {
            eprintln!("skipped: this system has no /proc");
            return;
        }
        assert_eq!(mounted_type(folder).unwrap().as_deref(), Some("proc"));
    }

    #[test]
    fn a_local_database_is_allowed_also_where_it_does_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a.db", "nowhere/a.db"] {
            refuse_network(&DatabaseFiles::at(folder.path().join(path))).unwrap();
        }
    }
}
