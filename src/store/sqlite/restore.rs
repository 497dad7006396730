//! A restore: a verified copy takes the database's place, and what was there is
//! kept under another name.
//!
//! A database is more than one file: whatever log lies beside it, SQLite copies
//! into it. An old log beside a new database is corruption, and an old database
//! without its log has lost what was acknowledged; and no system renames two
//! files at once. So the decision is one rename, of the whole and verified copy to
//! `.DATABASE.sorteo-restore`, and everything behind it can be done again:
//!
//! 1. the copy becomes `.DATABASE.sorteo-restore`: from here on, the restore holds;
//! 2. `DATABASE-wal` and `DATABASE-journal` are renamed to what they are kept as;
//! 3. `DATABASE-shm`, which only tells what is in the log, is removed;
//! 4. `DATABASE` is renamed to what it is kept as;
//! 5. `.DATABASE.sorteo-restore` becomes `DATABASE`.
//!
//! The folder is synced after each step, so that a power cut finds them in this
//! order. Whoever dies before the first has changed nothing, and the old database
//! starts with its own log. Whoever dies behind it leaves `.DATABASE.sorteo-restore`: the
//! next server, or the next restore, goes on from wherever that was before it
//! looks at anything else, and starts on the new one; a command that only reads
//! is refused until then. All of it happens under the server's lock.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::check::Report;
use super::copy::{self, CopyError, Progress, copy_verified, refuse_same_file};
use super::error::{OpenError, sqlite_error};
use super::header::{companion, refuse_foreign_file};
use super::lock::LockFile;
use super::text::one_line;
use super::time::now;
use super::{connection, filesystem};
use crate::unfinished::{Unfinished, UnfinishedError, folder_of, sync_folder_of};

/// How what the copy is called from the decision on ends; it begins with a dot: no
/// name that somebody would give to a file of his own.
const DECIDED: &str = ".sorteo-restore";

/// What the copy is called from the decision on.
fn decided(database: &Path) -> PathBuf {
    let name = database.file_name().unwrap_or_default();
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(DECIDED);
    database.with_file_name(hidden)
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the check counted.
    pub report: Report,
    /// What the database that was there is called now, where there was one.
    pub kept: Option<PathBuf>,
}

/// Puts a copy of the file where the database is, or was.
pub fn restore(file: &Path, database: &Path, progress: &mut Progress<'_>) -> Result<Restored, CopyError> {
    let database = &filesystem::follow_links(database);
    refuse_target(database)?;
    refuse_same_file(file, database)?;
    let source = connection::open_reader(file)
        .map_err(|source| CopyError::Backup { path: file.to_owned(), source: Box::new(source) })?;
    // Nobody holds a lock file that is not there; a refusal does not make one.
    let found_lock = match is_decided(database) {
        true => Some(LockFile::take(database)?),
        false => LockFile::take_if_there(database)?,
    };
    finish(database)?;
    let copy = Unfinished::beside(&decided(database), false)?;
    let report = copy_verified(source, file, &copy, database, progress)?;
    let _lock = found_lock.map_or_else(|| LockFile::take(database), Ok)?;
    inherit_access(&copy, file, database)?;
    let kept = date_and_note(&copy, file, database, &report)?;
    copy.finish()?;
    finish(database)?;
    Ok(Restored { report, kept })
}

/// Finishes a restore whose process died behind the decision. Called before
/// anything is read of a database that is to be served.
pub(super) fn finish_interrupted(database: &Path) -> Result<(), OpenError> {
    if !is_decided(database) {
        return Ok(());
    }
    let _lock = LockFile::take(database)?;
    finish(database)?;
    crate::event!(Warn, "restore_database", Success, database = database.display());
    Ok(())
}

/// Refuses to read what may be an old database without its log.
pub(super) fn refuse_interrupted(database: &Path) -> Result<(), OpenError> {
    match is_decided(database) {
        true => Err(OpenError::Restoring(database.to_owned())),
        false => Ok(()),
    }
}

fn is_decided(database: &Path) -> bool {
    decided(database).exists()
}

fn refuse_target(database: &Path) -> Result<(), OpenError> {
    let folder = folder_of(database);
    if !folder.is_dir() {
        return Err(OpenError::NoFolder(folder));
    }
    filesystem::refuse_network(database)?;
    match fs::symlink_metadata(database) {
        Ok(found) if !found.is_file() => Err(OpenError::NotAFile(database.to_owned())),
        _ => Ok(()),
    }
}

/// The copy is for whoever could use the database before: a server that must not
/// read it would be no better off. Without one before, as its source is.
fn inherit_access(copy: &Unfinished, file: &Path, database: &Path) -> Result<(), CopyError> {
    let io = |source| UnfinishedError::Io { path: database.to_owned(), source };
    let before = fs::metadata(database).ok();
    let own = copy.file().metadata().map_err(io)?;
    if let Some(before) = before.as_ref().filter(|before| before.uid() != own.uid()) {
        fchown(copy.file(), Some(before.uid()), Some(before.gid()))
            .map_err(|source| CopyError::Owner { path: database.to_owned(), source })?;
    }
    let like = before.map_or_else(|| fs::metadata(file), Ok).map_err(io)?;
    Ok(copy.file().set_permissions(like.permissions()).map_err(io)?)
}

/// Dates the copy, by which what was there is called, and notes the restore in
/// its audit. Answers what the database that was there will be called.
fn date_and_note(
    copy: &Unfinished,
    file: &Path,
    database: &Path,
    report: &Report,
) -> Result<Option<PathBuf>, CopyError> {
    let io = |source| UnfinishedError::Io { path: database.to_owned(), source };
    let now = SystemTime::now();
    let kept = database.exists().then(|| kept_name(database, now));
    let before = match &kept {
        Some(kept) => format!("what was there is kept as {}", kept.display()),
        None => "nothing was there".to_owned(),
    };
    let from =
        format!("restored {} draws and {} bets from {}; {before}", report.draws, report.bets, file.display());
    note(copy.path(), &one_line(&from)).map_err(|source| sqlite_error(file, "noting the restore", source))?;
    // Behind the last write, which dates it too.
    copy.file().set_modified(now).map_err(io)?;
    Ok(kept)
}

fn note(copy: &Path, detail: &str) -> rusqlite::Result<()> {
    let connection: Connection = copy::open(copy)?;
    connection.execute(
        "INSERT INTO audit (at, action, draw_id, detail) VALUES ($1, 'restore', (SELECT max(id) FROM draws), $2)",
        params![now(), detail],
    )?;
    connection.close().map_err(|(_, error)| error)
}

/// What a database is called that a copy of this date replaces. Its log is called
/// after it, so that both together can be opened under their new name.
fn kept_name(database: &Path, date: SystemTime) -> PathBuf {
    let date = jiff::Timestamp::try_from(date).unwrap_or_default();
    companion(database, &date.strftime(".before-restore-%Y%m%dT%H%M%S.%3fZ").to_string())
}

/// One of the steps behind the decision. Done twice, it is done once.
#[derive(Debug)]
enum FinishingStep {
    /// Gives a file another name, unless that was done already.
    Keep(PathBuf, PathBuf),
    /// Removes a file that is made again.
    Remove(PathBuf),
    /// Gives the copy the database's name.
    Put(PathBuf, PathBuf),
}

impl FinishingStep {
    fn carry_out(&self) -> io::Result<()> {
        match self {
            Self::Keep(from, to) if from.exists() => rename_to_new(from, to),
            Self::Remove(path) if path.exists() => fs::remove_file(path),
            Self::Put(from, to) => rename_to_new(from, to),
            Self::Keep(..) | Self::Remove(_) => Ok(()),
        }
    }
}

/// Two restores within a millisecond, say, must not cost what the first kept.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is in the way", to.display())));
    }
    fs::rename(from, to)
}

/// The steps in their order, which is what the module tells.
fn finishing_steps(database: &Path) -> io::Result<Vec<FinishingStep>> {
    let decided = decided(database);
    let date = match fs::metadata(&decided) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?.modified()?,
    };
    let kept = kept_name(database, date);
    let keep = |suffix| FinishingStep::Keep(companion(database, suffix), companion(&kept, suffix));
    Ok(vec![
        keep("-wal"),
        keep("-journal"),
        FinishingStep::Remove(companion(database, "-shm")),
        keep(""),
        FinishingStep::Put(decided, database.to_owned()),
    ])
}

/// Does what is left to do of a restore that was decided, if there is one. The
/// caller holds the lock.
pub(super) fn finish(database: &Path) -> Result<(), OpenError> {
    if is_decided(database) {
        // Whatever has that name, nothing but a database of ours takes the place of one.
        let copy = decided(database);
        refuse_foreign_file(&copy)?;
        if fs::metadata(&copy).is_ok_and(|found| found.len() == 0) {
            return Err(OpenError::NotSqlite(copy));
        }
    }
    let all = || {
        for step in finishing_steps(database)? {
            step.carry_out()?;
            sync_folder_of(database)?;
        }
        Ok(())
    };
    all().map_err(|source| OpenError::NotWritable { path: database.to_owned(), source })
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

    fn store_one(store: &SqliteStore, document: &str) {
        let mut bets = Bets::default();
        bets.push(["Ana", "Paz", document, "1999-03-17", "1"]).unwrap();
        let batch = Batch { agency: AgencyId(1), bets, position: None };
        store.append(vec![batch]).unwrap().wait().unwrap().unwrap();
    }

    /// A backup with one bet beside a database with two, of which the second is in
    /// its log alone, as a server leaves it that is killed.
    fn database_with_log(folder: &Path) -> (PathBuf, PathBuf) {
        let (living, database, saved) = (folder.join("living.db"), folder.join("a.db"), folder.join("b.db"));
        let store = open(&living);
        store_one(&store, "1");
        backup(&living, &saved, false, &mut |_| {}).unwrap();
        store_one(&store, "2");
        for suffix in ["", "-wal", "-shm"] {
            fs::copy(companion(&living, suffix), companion(&database, suffix)).unwrap();
        }
        store.close();
        assert!(fs::metadata(companion(&database, "-wal")).unwrap().len() > 0);
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
            fs::copy(&saved, decided(&database)).unwrap();
            let all = finishing_steps(&database).unwrap();
            assert_eq!(all.len(), steps);
            all.iter().take(done).for_each(|step| step.carry_out().unwrap());
            if done < steps {
                let reader = connection::open_reader(&database);
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
            assert_eq!(bets(&old), 2, "{done} steps: the old one with its log");
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
        fs::copy(&saved, decided(&database)).unwrap();
        let lock = LockFile::take(&database).unwrap();
        assert!(matches!(restore(&saved, &database, &mut |_| {}), Err(CopyError::Open(OpenError::Held(_)))));
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
    fn what_a_restore_kept_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (database, saved) = database_with_log(folder.path());
        fs::copy(&saved, decided(&database)).unwrap();
        let date = fs::metadata(decided(&database)).unwrap().modified().unwrap();
        let kept = kept_name(&database, date);
        fs::write(&kept, "precious").unwrap();
        let error = finish(&database).unwrap_err();
        assert!(error.to_string().contains("is in the way"), "{error}");
        assert_eq!(fs::read_to_string(kept).unwrap(), "precious");
    }
}
