//! The machine whose disk is faulty: counts operations, decides which one
//! fails, and loses power. One for each process.

use std::ffi::c_int;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libsqlite3_sys as ffi;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::disk::Disk;
use crate::plan::{Failure, Fault, Plan};

/// Locked for the whole of a counted operation, its real part included: so no
/// other thread's write can land on a disk that has just lost power.
static MACHINE: OnceLock<Mutex<Machine>> = OnceLock::new();

/// The process's machine, which [`start`] has made.
pub(crate) fn machine() -> MutexGuard<'static, Machine> {
    let machine = MACHINE.get().expect("the machine is started before the VFS is registered");
    // A panic while it was locked was in a C function, and has ended the process.
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is a machine.
pub(crate) fn has_started() -> bool {
    MACHINE.get().is_some()
}

/// Makes the process's machine. `false`: there is one already.
pub(crate) fn start(plan: Plan) -> bool {
    MACHINE.set(Mutex::new(Machine::new(plan))).is_ok()
}

/// A counted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Read,
    Write { grows: bool },
    Truncate { grows: bool },
    Sync,
    FileSize,
    Delete,
    FolderSync,
    ShmMap { grows: bool },
}

/// What an operation is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Database,
    Wal,
    Journal,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is carried out.
    Proceed,
    /// Nothing is done; the answer is this code.
    Fail(c_int),
    /// A write: half is done; the answer is this code.
    Half(c_int),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    operations: u64,
    plan: Plan,
    /// Which of the plan's faults have struck.
    struck: Vec<bool>,
}

impl Machine {
    fn new(plan: Plan) -> Self {
        Self { disk: Disk::default(), operations: 0, struck: vec![false; plan.faults.len()], plan }
    }

    /// Operations counted so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// The chances of this operation: of the seed and its number, so that one
    /// seed does not meet the same fate at each.
    pub(crate) fn random(&self) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.plan.seed);
        random.set_stream(self.operations);
        random
    }

    /// Counts an operation and says what becomes of it. Does not return if
    /// the power is cut.
    pub(crate) fn count(&mut self, operation: Operation, file: FileKind) -> Verdict {
        self.operations += 1;
        let faults = self.plan.faults.iter().zip(&self.struck).enumerate();
        let strikes = |(index, (fault, struck)): (usize, (&Fault, &bool))| {
            fault.strikes(self.operations, *struck, operation).map(|effect| (index, effect))
        };
        let Some((index, effect)) = faults.filter_map(strikes).next() else { return Verdict::Proceed };
        if !std::mem::replace(&mut self.struck[index], true) {
            self.report(operation, file);
        }
        match effect {
            Effect::Answer(verdict) => verdict,
            Effect::PowerCut => self.cut_power(),
        }
    }

    /// Sees to it that the disk knows what is behind a name, before SQLite
    /// changes it. Only for names that SQLite has never opened in this process:
    /// closing a file drops the locks that the process has on it by any other
    /// descriptor.
    pub(crate) fn look_at(&self, path: &Path) -> Option<Found> {
        (!self.disk.knows(path)).then(|| Found(fs::read(path).ok()))
    }

    /// Tells the disk what [`Machine::look_at`] saw.
    pub(crate) fn meet(&mut self, path: &Path, found: Option<Found>) {
        if let Some(Found(bytes)) = found {
            self.disk.meet(path, bytes);
        }
    }

    fn report(&self, operation: Operation, file: FileKind) {
        let Some(path) = &self.plan.report else { return };
        let (kind, _) = operation.name_and_error();
        let line = format!("op={} kind={kind} file={}\n", self.operations, file.name());
        let written = fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut report| report.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("no report to {}: {error}", path.display()));
    }

    /// Rewrites every file to what a disk may hold now, and ends the process
    /// as the power does: nothing else of it runs.
    fn cut_power(&mut self) -> ! {
        let disk = std::mem::take(&mut self.disk);
        let no_cut = |path: &Path| {
            let path = path.display().to_string();
            move |error| panic!("no power cut in {path}: {error}")
        };
        let mut gone = Vec::new();
        for (path, bytes) in disk.after_power_cut(&mut self.random()) {
            // The shared memory's file is no more than memory that has a name.
            gone.push(with_suffix(&path, "-shm"));
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap_or_else(no_cut(&path)),
                None => gone.push(path),
            }
        }
        // Last: a thread of the program may notice that a file is missing, and end the process.
        for path in gone {
            remove(&path).unwrap_or_else(no_cut(&path));
        }
        crate::kill_this_process()
    }
}

/// What was behind a name that nobody had opened.
pub(crate) struct Found(Option<Vec<u8>>);

/// What a fault does to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Answer(Verdict),
    PowerCut,
}

impl Fault {
    /// What the fault does to the operation with this number, if anything.
    fn strikes(&self, number: u64, struck: bool, operation: Operation) -> Option<Effect> {
        let verdict = match self {
            Self::Cut { at } => return (number >= *at).then_some(Effect::PowerCut),
            Self::Full { at, until } if number >= *at && !until.exists() => operation.full()?,
            Self::Fail { at, error, lasting } if number >= *at && (*lasting || !struck) => match error {
                Failure::Io => Verdict::Fail(operation.name_and_error().1),
                Failure::Full => operation.full()?,
                Failure::ShortWrite => operation.half()?,
            },
            Self::Full { .. } | Self::Fail { .. } => return None,
        };
        Some(Effect::Answer(verdict))
    }
}

impl Operation {
    /// What a report calls it, and the code with which the unix VFS answers when
    /// the system fails it.
    fn name_and_error(self) -> (&'static str, c_int) {
        match self {
            Self::Open => ("xOpen", ffi::SQLITE_CANTOPEN),
            Self::Read => ("xRead", ffi::SQLITE_IOERR_READ),
            Self::Write { .. } => ("xWrite", ffi::SQLITE_IOERR_WRITE),
            Self::Truncate { .. } => ("xTruncate", ffi::SQLITE_IOERR_TRUNCATE),
            Self::Sync => ("xSync", ffi::SQLITE_IOERR_FSYNC),
            Self::FileSize => ("xFileSize", ffi::SQLITE_IOERR_FSTAT),
            Self::Delete => ("xDelete", ffi::SQLITE_IOERR_DELETE),
            Self::FolderSync => ("folderSync", ffi::SQLITE_IOERR_DIR_FSYNC),
            Self::ShmMap { .. } => ("xShmMap", ffi::SQLITE_IOERR_SHMMAP),
        }
    }

    /// What a full disk makes of it, if it needs room.
    fn full(self) -> Option<Verdict> {
        match self {
            Self::Write { grows: true } | Self::Truncate { grows: true } => {
                Some(Verdict::Fail(ffi::SQLITE_FULL))
            }
            Self::ShmMap { grows: true } => Some(Verdict::Fail(ffi::SQLITE_IOERR_SHMSIZE)),
            _ => None,
        }
    }

    fn half(self) -> Option<Verdict> {
        matches!(self, Self::Write { .. }).then_some(Verdict::Half(ffi::SQLITE_FULL))
    }
}

impl FileKind {
    fn name(self) -> &'static str {
        match self {
            Self::Database => "db",
            Self::Wal => "wal",
            Self::Journal => "journal",
        }
    }
}

/// The file that SQLite keeps beside another.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWING: Operation = Operation::Write { grows: true };
    const OVERWRITING: Operation = Operation::Write { grows: false };

    fn verdicts(plan: Plan, operations: &[Operation]) -> Vec<Verdict> {
        let mut machine = Machine::new(plan);
        operations.iter().map(|operation| machine.count(*operation, FileKind::Wal)).collect()
    }

    fn fail(at: u64, error: Failure, lasting: bool) -> Plan {
        Plan::new(0).with(Fault::Fail { at, error, lasting })
    }

    const GO: Verdict = Verdict::Proceed;
    const FULL: Verdict = Verdict::Fail(ffi::SQLITE_FULL);

    #[test]
    fn an_io_error_strikes_its_operation_with_that_operations_code() {
        for (operation, code) in [
            (Operation::Open, ffi::SQLITE_CANTOPEN),
            (Operation::Read, ffi::SQLITE_IOERR_READ),
            (GROWING, ffi::SQLITE_IOERR_WRITE),
            (Operation::Truncate { grows: false }, ffi::SQLITE_IOERR_TRUNCATE),
            (Operation::Sync, ffi::SQLITE_IOERR_FSYNC),
            (Operation::FileSize, ffi::SQLITE_IOERR_FSTAT),
            (Operation::Delete, ffi::SQLITE_IOERR_DELETE),
            (Operation::FolderSync, ffi::SQLITE_IOERR_DIR_FSYNC),
            (Operation::ShmMap { grows: true }, ffi::SQLITE_IOERR_SHMMAP),
        ] {
            let bad = Verdict::Fail(code);
            assert_eq!(verdicts(fail(2, Failure::Io, false), &[operation; 4]), [GO, bad, GO, GO]);
            assert_eq!(verdicts(fail(2, Failure::Io, true), &[operation; 4]), [GO, bad, bad, bad]);
        }
    }

    #[test]
    fn a_failure_waits_for_an_operation_that_it_applies_to() {
        let operations = [GROWING, Operation::Read, OVERWRITING, GROWING, GROWING];
        assert_eq!(verdicts(fail(2, Failure::Full, false), &operations), [GO, GO, GO, FULL, GO]);
        assert_eq!(verdicts(fail(2, Failure::Full, true), &operations), [GO, GO, GO, FULL, FULL]);
        let half = Verdict::Half(ffi::SQLITE_FULL);
        assert_eq!(verdicts(fail(2, Failure::ShortWrite, false), &operations), [GO, GO, half, GO, GO]);
    }

    #[test]
    fn a_full_disk_refuses_growth_alone_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let until = folder.path().join("room");
        let mut machine = Machine::new(Plan::new(0).with(Fault::Full { at: 2, until: until.clone() }));
        let mut count = |operation| machine.count(operation, FileKind::Database);
        assert_eq!([count(GROWING), count(GROWING), count(OVERWRITING)], [GO, FULL, GO]);
        assert_eq!([count(Operation::Truncate { grows: true }), count(Operation::Sync)], [FULL, GO]);
        let no_memory = Verdict::Fail(ffi::SQLITE_IOERR_SHMSIZE);
        assert_eq!(count(Operation::ShmMap { grows: true }), no_memory);
        assert_eq!(count(Operation::ShmMap { grows: false }), GO);
        fs::write(until, "").unwrap();
        assert_eq!(count(GROWING), GO);
    }

    #[test]
    fn each_fault_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let report: PathBuf = folder.path().join("report");
        let plan = fail(2, Failure::Io, true)
            .with(Fault::Fail { at: 1, error: Failure::ShortWrite, lasting: false })
            .reporting_to(&report);
        verdicts(plan.clone(), &[Operation::Read]);
        assert!(!report.exists(), "nothing has struck");
        verdicts(plan, &[OVERWRITING, Operation::Sync, Operation::Sync]);
        let expected = "op=1 kind=xWrite file=wal\nop=2 kind=xSync file=wal\n";
        assert_eq!(fs::read_to_string(report).unwrap(), expected);
    }
}
