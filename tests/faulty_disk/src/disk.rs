//! What a disk may hold after a power cut: a model in memory of every file that
//! passes through the VFS. It touches no real file and no pointer.
//!
//! A name on a disk and the file behind it become durable separately, so both
//! are modelled. Of a file: its bytes at the last sync, and each change since.
//! Of a name: what it meant when its folder was last synced, and each creation
//! and deletion since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// The unit in which a disk writes: whole, or not at all.
const SECTOR_BYTES: usize = 512;

/// All files that this process has met, by name.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    names: BTreeMap<PathBuf, Name>,
}

/// What a name has meant, from what surely is on disk (the first) to what the
/// running process sees (the last). `None`: there was no such file.
#[derive(Debug)]
struct Name {
    meanings: Vec<Option<File>>,
}

#[derive(Debug, Default)]
struct File {
    /// The bytes at the last sync, or nothing for a file that was never synced.
    synced: Vec<u8>,
    /// What was done since, in order.
    unsynced: Vec<Change>,
    /// Its length as the running process sees it.
    length: usize,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

impl Disk {
    /// Whether the name was met before.
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    /// Meets a name. What a file holds that was there already, or that there
    /// was none, counts as durable.
    pub(crate) fn meet(&mut self, path: &Path, found: Option<Vec<u8>>) {
        let file = found.map(|synced| File { length: synced.len(), synced, unsynced: Vec::new() });
        self.names.insert(path.to_owned(), Name { meanings: vec![file] });
    }

    /// A file was opened; where there was none, it was made.
    pub(crate) fn opened(&mut self, path: &Path) {
        let name = self.names.get_mut(path).expect("a name is met before it is opened");
        if name.current().is_none() {
            name.meanings.push(Some(File::default()));
        }
    }

    /// A file was deleted.
    pub(crate) fn deleted(&mut self, path: &Path) {
        self.names.get_mut(path).expect("a name is met before it is deleted").meanings.push(None);
    }

    /// Bytes were written.
    pub(crate) fn written(&mut self, path: &Path, offset: usize, bytes: &[u8]) {
        if let Some(file) = self.file(path) {
            file.length = file.length.max(offset + bytes.len());
            file.unsynced.push(Change::Write { offset, bytes: bytes.to_owned() });
        }
    }

    /// A file was cut, or lengthened by zeros.
    pub(crate) fn truncated(&mut self, path: &Path, length: usize) {
        if let Some(file) = self.file(path) {
            file.length = length;
            file.unsynced.push(Change::Truncate { length });
        }
    }

    /// A file's sync succeeded: its bytes and, as on every journaling file
    /// system of Linux, its name are durable.
    pub(crate) fn synced(&mut self, path: &Path) {
        let Some(name) = self.names.get_mut(path) else { return };
        name.settle();
        if let Some(file) = name.current() {
            file.unsynced.drain(..).for_each(|change| change.apply(&mut file.synced));
        }
    }

    /// A file's sync failed: of what was unsynced, some is on disk, and the
    /// rest will not get there by a later sync.
    pub(crate) fn sync_failed(&mut self, path: &Path, random: &mut ChaCha8Rng) {
        if let Some(file) = self.file(path) {
            file.lose_unsynced(random);
        }
    }

    /// A folder's sync succeeded: which files it has is durable.
    pub(crate) fn folder_synced(&mut self, folder: &Path) {
        let inside = self.names.iter_mut().filter(|(path, _)| path.parent() == Some(folder));
        inside.for_each(|(_, name)| name.settle());
    }

    /// A file's length as the running process sees it, in bytes.
    pub(crate) fn length(&mut self, path: &Path) -> usize {
        self.file(path).map_or(0, |file| file.length)
    }

    /// What is on disk when the power comes back. `None`: no such file.
    pub(crate) fn after_power_cut(self, random: &mut ChaCha8Rng) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let found = |mut name: Name| {
            let meaning = random.random_range(0..name.meanings.len());
            name.meanings.swap_remove(meaning).map(|mut file| {
                file.lose_unsynced(random);
                file.synced
            })
        };
        let (paths, names): (Vec<_>, Vec<_>) = self.names.into_iter().unzip();
        paths.into_iter().zip(names.into_iter().map(found)).collect()
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        self.names.get_mut(path).and_then(|name| name.current().as_mut())
    }
}

impl Name {
    fn current(&mut self) -> &mut Option<File> {
        self.meanings.last_mut().expect("a name always has a meaning")
    }

    /// What the name means now is what it means on disk.
    fn settle(&mut self) {
        self.meanings.drain(..self.meanings.len() - 1);
    }
}

impl File {
    /// Each unsynced change is kept, torn or dropped, by chance. How many are
    /// kept is a matter of chance too, so that a few seeds meet both a disk
    /// that wrote nearly all and one that wrote nearly nothing.
    fn lose_unsynced(&mut self, random: &mut ChaCha8Rng) {
        let kept = random.random::<f64>();
        for change in self.unsynced.drain(..) {
            if random.random_bool(kept) {
                change.apply(&mut self.synced);
            } else {
                change.tear(&mut self.synced, random);
            }
        }
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(image, *offset, bytes),
            Self::Truncate { length } => image.resize(*length, 0),
        }
    }

    /// Drops the change, or writes only some of its sectors. Either way the
    /// file may have grown already: a file system may record the new length
    /// before the bytes, which then read as zeros.
    fn tear(&self, image: &mut Vec<u8>, random: &mut ChaCha8Rng) {
        let Self::Write { offset, bytes } = self else { return };
        let end = offset + bytes.len();
        if random.random() {
            image.resize(image.len().max(end), 0);
        }
        if random.random() {
            return;
        }
        let mut start = *offset;
        while start < end {
            let stop = end.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
            if random.random() {
                write(image, start, &bytes[start - offset..stop - offset]);
            }
            start = stop;
        }
    }
}

/// Writes as a file does: a gap behind the end is filled with zeros.
fn write(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    image.resize(image.len().max(end), 0);
    image[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    const SEEDS: u64 = 2_000;

    /// Does the same on many disks, and gives what each holds after a cut.
    fn after_cuts(act: impl Fn(&mut Disk, &mut ChaCha8Rng)) -> Vec<Option<Vec<u8>>> {
        let cut = |seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = Disk::default();
            act(&mut disk, &mut random);
            disk.after_power_cut(&mut random).remove(path()).expect("the file was met")
        };
        (0..SEEDS).map(cut).collect()
    }

    fn path() -> &'static Path {
        Path::new("/folder/file")
    }

    fn folder() -> &'static Path {
        Path::new("/folder")
    }

    /// A disk on which the file holds `bytes` durably.
    fn with_file(disk: &mut Disk, bytes: Vec<u8>) {
        disk.meet(path(), Some(bytes));
        disk.opened(path());
    }

    #[test]
    fn what_was_synced_is_there_for_every_seed() {
        let found = after_cuts(|disk, _| {
            with_file(disk, vec![1; 2000]);
            disk.written(path(), 1000, &[2; 3000]);
            disk.truncated(path(), 3500);
            disk.written(path(), 3600, &[3; 10]);
            disk.synced(path());
        });
        let expected = [vec![1; 1000], vec![2; 2500], vec![0; 100], vec![3; 10]].concat();
        assert!(found.iter().all(|bytes| bytes.as_ref() == Some(&expected)));
    }

    #[test]
    fn an_unsynced_write_is_kept_dropped_or_torn_by_whole_sectors() {
        // From the middle of sector 1 to the middle of sector 5.
        let (offset, length) = (700, 2000);
        let found = after_cuts(|disk, _| {
            with_file(disk, vec![1; 4096]);
            disk.written(path(), offset, &vec![2; length]);
        });
        let mut patterns = BTreeSet::new();
        for bytes in found {
            let bytes = bytes.expect("the file was durable");
            assert_eq!(bytes.len(), 4096);
            let outside = [&bytes[..offset], &bytes[offset + length..]].concat();
            assert!(outside.iter().all(|byte| *byte == 1), "bytes outside the write changed");
            let pieces = [700..1024, 1024..1536, 1536..2048, 2048..2560, 2560..2700];
            patterns.insert(pieces.map(|piece| {
                let bytes = &bytes[piece];
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a sector was written in part");
                bytes[0]
            }));
        }
        assert!(patterns.contains(&[1; 5]) && patterns.contains(&[2; 5]));
        assert_eq!(patterns.len(), 1 << 5, "every subset of the sectors turns up");
    }

    #[test]
    fn kept_writes_are_kept_in_their_order() {
        let found = after_cuts(|disk, _| {
            with_file(disk, vec![0]);
            disk.written(path(), 0, &[1]);
            disk.written(path(), 0, &[2]);
        });
        let seen: BTreeSet<_> = found.into_iter().flatten().collect();
        assert_eq!(seen, [vec![0], vec![1], vec![2]].into(), "the last that was kept wins");
    }

    #[test]
    fn an_unsynced_truncation_is_kept_or_dropped() {
        let found = after_cuts(|disk, _| {
            with_file(disk, vec![1; 3]);
            disk.truncated(path(), 1);
        });
        let seen: BTreeSet<_> = found.into_iter().flatten().collect();
        assert_eq!(seen, [vec![1; 1], vec![1; 3]].into());
    }

    #[test]
    fn a_file_may_have_grown_without_its_bytes() {
        let found = after_cuts(|disk, _| {
            with_file(disk, vec![]);
            disk.written(path(), 0, &[1; 8]);
        });
        let seen: BTreeSet<_> = found.into_iter().flatten().collect();
        assert_eq!(seen, [vec![], vec![0; 8], vec![1; 8]].into());
    }

    #[test]
    fn a_new_file_may_be_missing_until_it_or_its_folder_is_synced() {
        let create = |disk: &mut Disk| {
            disk.meet(path(), None);
            disk.opened(path());
            disk.written(path(), 0, &[1]);
        };
        let seen: BTreeSet<_> = after_cuts(|disk, _| create(disk)).into_iter().collect();
        assert_eq!(seen, [None, Some(vec![]), Some(vec![0]), Some(vec![1])].into());
        let synced = after_cuts(|disk, _| {
            create(disk);
            disk.synced(path());
        });
        assert!(synced.iter().all(|bytes| *bytes == Some(vec![1])));
        let folder_synced = after_cuts(|disk, _| {
            create(disk);
            disk.folder_synced(folder());
        });
        let seen: BTreeSet<_> = folder_synced.into_iter().collect();
        assert_eq!(seen, [Some(vec![]), Some(vec![0]), Some(vec![1])].into(), "its bytes are not synced");
    }

    #[test]
    fn a_deleted_file_may_be_back_until_its_folder_is_synced() {
        let delete = |disk: &mut Disk| {
            with_file(disk, vec![1]);
            disk.deleted(path());
        };
        let seen: BTreeSet<_> = after_cuts(|disk, _| delete(disk)).into_iter().collect();
        assert_eq!(seen, [None, Some(vec![1])].into());
        let synced = after_cuts(|disk, _| {
            delete(disk);
            disk.folder_synced(Path::new("/elsewhere"));
            disk.folder_synced(folder());
        });
        assert!(synced.iter().all(Option::is_none));
        let made_again = after_cuts(|disk, _| {
            delete(disk);
            disk.opened(path());
        });
        let seen: BTreeSet<_> = made_again.into_iter().collect();
        assert_eq!(seen, [None, Some(vec![]), Some(vec![1])].into());
    }

    #[test]
    fn what_a_failed_sync_dropped_is_not_brought_back_by_a_later_one() {
        let found = after_cuts(|disk, random| {
            with_file(disk, vec![0; 2]);
            disk.written(path(), 0, &[1]);
            disk.sync_failed(path(), random);
            disk.written(path(), 1, &[2]);
            disk.synced(path());
        });
        let seen: BTreeSet<_> = found.into_iter().flatten().collect();
        assert_eq!(seen, [vec![0, 2], vec![1, 2]].into());
    }

    #[test]
    fn the_length_is_the_one_that_the_process_sees() {
        let mut disk = Disk::default();
        assert_eq!(disk.length(path()), 0);
        with_file(&mut disk, vec![0; 5]);
        disk.written(path(), 3, &[1; 7]);
        assert_eq!(disk.length(path()), 10);
        disk.truncated(path(), 4);
        assert_eq!(disk.length(path()), 4);
        disk.deleted(path());
        disk.opened(path());
        assert_eq!(disk.length(path()), 0);
    }

    #[test]
    fn the_same_seed_leaves_the_same_bytes() {
        let act = |disk: &mut Disk, _: &mut ChaCha8Rng| {
            disk.meet(path(), None);
            disk.opened(path());
            disk.written(path(), 100, &[1; 5000]);
        };
        assert_eq!(after_cuts(act), after_cuts(act));
    }
}
