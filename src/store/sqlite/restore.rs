//! A restore: a verified copy takes the database's place, and the old database is
//! kept under another name.
//!
//! First the copy is made and verified beside the database, which nothing has touched
//! so far. How it takes the database's place is `pending_restore`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::check::Report;
use super::copy::{self, CopyError, Progress, copy_verified, refuse_same_file};
use super::error::{OpenError, sqlite_error};
use super::files::DatabaseFiles;
use super::lock::DatabaseLock;
use super::text::{counted, one_line};
use super::{audit, filesystem, identity, open, pending_restore};
use crate::atomic_file::{AtomicFile, AtomicFileError, folder_of, give_owner_of};
use sorteo_protocol::DrawId;

/// A restore that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the check of the copy counted.
    pub report: Report,
    /// The path under which the old database is kept, if there was one.
    pub kept: Option<PathBuf>,
}

/// Puts a copy of a file in a database's place.
///
/// # Errors
///
/// Fails if the file is not a whole database of ours, if a server holds the database,
/// or if the copy cannot be written. Before `pending_restore` begins, nothing was
/// changed.
pub fn restore(file: &Path, database: &Path, progress: &mut Progress<'_>) -> Result<Restored, CopyError> {
    let files = &DatabaseFiles::resolve(database);
    refuse_target(files)?;
    refuse_same_file(file, files.database())?;
    let source = open::open_source(&DatabaseFiles::resolve(file))
        .map_err(|source| CopyError::Backup { path: file.to_owned(), source: Box::new(source) })?;
    // A lock file that does not exist is held by nobody; a refusal does not create one.
    let found_lock = match pending_restore::is_pending(files) {
        true => Some(DatabaseLock::take(files)?),
        false => DatabaseLock::take_if_there(files)?,
    };
    pending_restore::finish(files)?;
    let copy = AtomicFile::create(&files.pending_restore(), false)?;
    let report = copy_verified(source, file, &copy, files.database(), progress)?;
    let _lock = found_lock.map_or_else(|| DatabaseLock::take(files), Ok)?;
    inherit_access(&copy, file, files.database())?;
    let kept = date_and_record(&copy, file, files, &report)?;
    copy.finish()?;
    pending_restore::finish(files)?;
    Ok(Restored { report, kept })
}

fn refuse_target(files: &DatabaseFiles) -> Result<(), OpenError> {
    let folder = files.folder();
    if !folder.is_dir() {
        return Err(OpenError::NoFolder(folder));
    }
    filesystem::refuse_network(files)?;
    identity::refuse_mount_points(files)?;
    match fs::symlink_metadata(files.database()) {
        Ok(found) if !found.is_file() => Err(OpenError::NotAFile(files.database().to_owned())),
        _ => Ok(()),
    }
}

/// Gives the copy the owner, the group and the permissions of the old database, so that the
/// same server can use it; if there was none, the owner and the group of the folder, and the
/// permissions of the copy's source.
fn inherit_access(copy: &AtomicFile, file: &Path, database: &Path) -> Result<(), CopyError> {
    let io = |error| AtomicFileError::io(database, error);
    let before = fs::metadata(database).ok();
    let own = copy.file().metadata().map_err(io)?;
    match &before {
        Some(before) if before.uid() != own.uid() => {
            fchown(copy.file(), Some(before.uid()), Some(before.gid()))
                .map_err(|source| CopyError::Owner { path: database.to_owned(), source })?;
        }
        // A user can give it to a group only as a member; the owner can open it anyway.
        Some(before) => _ = fchown(copy.file(), None, Some(before.gid())),
        None => give_owner_of(copy.file(), &fs::metadata(folder_of(database)).map_err(io)?),
    }
    let like = before.map_or_else(|| fs::metadata(file), Ok).map_err(io)?;
    Ok(copy.file().set_permissions(like.permissions()).map_err(io)?)
}

/// Dates the copy, after which the old database is named, and records the restore in
/// the copy's audit. Returns the path under which the old database will be kept.
fn date_and_record(
    copy: &AtomicFile,
    file: &Path,
    files: &DatabaseFiles,
    report: &Report,
) -> Result<Option<PathBuf>, CopyError> {
    let io = |error| AtomicFileError::io(files.database(), error);
    let date = free_date(files);
    let kept = files.database().exists().then(|| files.kept(date).database().to_owned());
    let before = match &kept {
        Some(kept) => format!("what was there is kept as {}", kept.display()),
        None => "nothing was there".to_owned(),
    };
    let (draws, bets) = (counted(report.draws, "draw"), counted(report.bets, "bet"));
    let from = format!("restored {draws} and {bets} from {}; {before}", file.display());
    record(copy.path(), &one_line(&from))
        .map_err(|source| sqlite_error(file, "recording the restore", source))?;
    // After the last write, which dates the file too.
    copy.file().set_modified(date).map_err(io)?;
    Ok(kept)
}

/// Returns a date after which nothing is kept yet: now, or a little later.
///
/// The steps of `pending_restore` read the date from the copy. So it is one that every file
/// system keeps as it is: FAT has only even seconds.
fn free_date(files: &DatabaseFiles) -> SystemTime {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_free = |date: &SystemTime| {
        let kept = files.kept(*date);
        ![kept.database().to_owned(), kept.wal(), kept.journal()].iter().any(|path| path.exists())
    };
    let mut dates = (seconds / 2..).map(|pairs| UNIX_EPOCH + Duration::from_secs(2 * pairs));
    dates.find(is_free).expect("a folder cannot hold a file for each date")
}

fn record(copy: &Path, detail: &str) -> rusqlite::Result<()> {
    let connection = copy::open(copy)?;
    let newest: Option<i64> = connection.query_row("SELECT max(id) FROM draws", [], |row| row.get(0))?;
    audit::record(&connection, "restore", newest.map(DrawId), detail)?;
    connection.close().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Options, SqliteStore, backup::backup};
    use super::*;
    use crate::store::Store as _;
    use sorteo_protocol::{AgencyId, Batch, Bets};

    fn open(path: &Path) -> SqliteStore {
        SqliteStore::open(&Options::new(path), Arc::new(|_| {})).unwrap().0
    }

    fn bets(store: &SqliteStore) -> u64 {
        store.newest_draw().unwrap().bets
    }

    fn pending(database: &Path) -> PathBuf {
        DatabaseFiles::at(database.to_owned()).pending_restore()
    }

    fn store_one(store: &SqliteStore, document: &str) {
        let mut bets = Bets::default();
        bets.push(["Ana", "Paz", document, "1999-03-17", "1"]).unwrap();
        let batch = Batch { agency: AgencyId(1), bets, position: None };
        store.append(vec![batch]).unwrap().wait().unwrap().unwrap();
    }

    /// A backup with one bet beside a database with two, of which the second is in
    /// its WAL alone, as a killed server leaves it.
    fn database_with_log(folder: &Path) -> (PathBuf, PathBuf) {
        let (living, database, saved) = (folder.join("living.db"), folder.join("a.db"), folder.join("b.db"));
        let store = open(&living);
        store_one(&store, "1");
        backup(&living, &saved, false, &mut |_| {}).unwrap();
        store_one(&store, "2");
        let (from, to) = (DatabaseFiles::at(living), DatabaseFiles::at(database.clone()));
        fs::copy(from.database(), to.database()).unwrap();
        fs::copy(from.wal(), to.wal()).unwrap();
        fs::copy(from.wal_index(), to.wal_index()).unwrap();
        store.close();
        assert!(to.has_wal());
        (database, saved)
    }

    /// A process that dies between any two steps: the decision and so many more.
    #[test]
    fn a_server_starts_on_the_old_database_or_on_the_new_one_wherever_a_restore_ended() {
        let steps = 5;
        for done in 0..=steps {
            let folder = tempfile::tempdir().unwrap();
            let (database, saved) = database_with_log(folder.path());
            // As `restore` leaves it at the decision.
            fs::copy(&saved, pending(&database)).unwrap();
            let all = pending_restore::steps(&DatabaseFiles::at(database.clone())).unwrap();
            assert_eq!(all.len(), steps);
            all.iter().take(done).for_each(|step| step.carry_out().unwrap());
            if done < steps {
                let reader = open::open_reader(&DatabaseFiles::resolve(&database));
                assert!(matches!(reader, Err(OpenError::Restoring(_))), "{done} steps: {reader:?}");
            }
            let store = open(&database);
            assert_eq!(bets(&store), 1, "{done} steps: the new database");
            store.close();
            let mut names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let kept = names.find(|path| {
                let name = path.to_string_lossy();
                name.contains("a.db.before-restore-") && !name.ends_with("-wal")
            });
            let old = open(&kept.unwrap());
            assert_eq!(bets(&old), 2, "{done} steps: the old one with its WAL");
            old.close();
        }
    }

    #[test]
    fn a_restore_that_died_before_the_decision_has_changed_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (database, saved) = database_with_log(folder.path());
        fs::copy(&saved, folder.path().join(".sorteo-1-abcdef.tmp")).unwrap();
        let store = open(&database);
        assert_eq!(bets(&store), 2);
        store.close();
    }

    #[test]
    fn a_second_restore_first_finishes_one_that_died() {
        let folder = tempfile::tempdir().unwrap();
        let (database, saved) = database_with_log(folder.path());
        fs::copy(&saved, pending(&database)).unwrap();
        let lock = DatabaseLock::take(&DatabaseFiles::at(database.clone())).unwrap();
        assert!(matches!(restore(&saved, &database, &mut |_| {}), Err(CopyError::Open(OpenError::Held(..)))));
        drop(lock);
        restore(&saved, &database, &mut |_| {}).unwrap();
        let names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(".before-restore-") && !name.ends_with("-wal"))
            .collect();
        assert_eq!(names.len(), 2, "both that were there are kept: {names:?}");
    }

    #[test]
    fn two_restores_in_one_second_keep_both_also_where_dates_are_coarse() {
        let folder = tempfile::tempdir().unwrap();
        let (database, saved) = database_with_log(folder.path());
        let files = DatabaseFiles::at(database.clone());
        let mut kept = Vec::new();
        for _ in 0..3 {
            let copy = AtomicFile::create(&files.pending_restore(), false).unwrap();
            fs::copy(&saved, copy.path()).unwrap();
            kept.push(date_and_record(&copy, &saved, &files, &Report::default()).unwrap().unwrap());
            // As FAT keeps it: the last two seconds and all below are lost.
            let date = copy.file().metadata().unwrap().modified().unwrap();
            let seconds = date.duration_since(UNIX_EPOCH).unwrap().as_secs();
            copy.file().set_modified(UNIX_EPOCH + Duration::from_secs(seconds / 2 * 2)).unwrap();
            copy.finish().unwrap();
            pending_restore::finish(&files).unwrap();
        }
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
        kept.dedup();
        assert_eq!(kept.len(), 3);
    }

    #[test]
    fn what_a_restore_kept_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (database, saved) = database_with_log(folder.path());
        fs::copy(&saved, pending(&database)).unwrap();
        let date = fs::metadata(pending(&database)).unwrap().modified().unwrap();
        let kept = DatabaseFiles::at(database.clone()).kept(date).database().to_owned();
        fs::write(&kept, "precious").unwrap();
        let error = pending_restore::finish(&DatabaseFiles::at(database)).unwrap_err();
        assert!(error.to_string().contains("is in the way"), "{error}");
        assert_eq!(fs::read_to_string(kept).unwrap(), "precious");
    }
}
