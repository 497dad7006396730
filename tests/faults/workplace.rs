//! One round of a test: its seed, its folder, and its counts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, thread};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// How a test was asked to run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    name: &'static str,
    seed: u64,
    rounds: u64,
}

impl Run {
    /// Reads `FAULTS_SEED` and `FAULTS_ROUNDS`.
    pub fn of(name: &'static str) -> Self {
        let seed = number("FAULTS_SEED").unwrap_or_else(rand::random);
        Self { name, seed, rounds: number("FAULTS_ROUNDS").unwrap_or(1) }
    }

    /// The workplaces of so many rounds, times what was asked for. Each has its own
    /// seed: the one that `FAULTS_SEED` makes the first.
    pub fn rounds(&self, count: u64) -> impl Iterator<Item = Workplace> + use<> {
        let Self { name, seed, rounds } = *self;
        (0..count * rounds).map(move |round| Workplace::new(name, seed.wrapping_add(round)))
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

/// One round's folder and seed. If the round fails, both are printed and the folder
/// is kept.
#[derive(Debug)]
pub struct Workplace {
    name: &'static str,
    seed: u64,
    folder: Option<TempDir>,
}

impl Workplace {
    fn new(name: &'static str, seed: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("sorteo-faults-").tempdir().unwrap();
        Self { name, seed, folder: Some(folder) }
    }

    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept only when dropped").path()
    }

    pub fn database(&self) -> PathBuf {
        self.folder().join("sorteo.db")
    }

    /// A workplace inside this one, with the same seed.
    pub fn part(&self, name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(name).tempdir_in(self.folder()).unwrap();
        Self { name: self.name, seed: self.seed, folder: Some(folder) }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Random choices that the seed decides; each stream its own.
    pub fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        rng
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if thread::panicking() {
            let folder = self.folder.take().expect("dropped once").keep();
            eprintln!(
                "{name} failed in {folder}; again: FAULTS_SEED={seed} cargo test --test faults -- --exact {name}",
                name = self.name,
                folder = folder.display(),
                seed = self.seed,
            );
        }
    }
}

static COUNTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Adds to what the run counted.
pub fn count(what: &'static str, more: u64) {
    *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += more;
}

/// Measures, never judges: keeps the longest of what `what` names, which begins
/// with `longest` and ends with its unit.
pub fn longest(what: &'static str, value: u64) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let longest = counts.entry(what).or_default();
    *longest = value.max(*longest);
}

/// Prints what was counted, and appends it to the file that `FAULTS_COUNTS` names,
/// a line `COUNT WHAT` each.
pub fn report_counts() {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: String = counts.iter().map(|(what, count)| format!("{count} {what}\n")).collect();
    if !lines.is_empty() {
        eprintln!("counted:\n{lines}");
    }
    if let Some(path) = env::var_os("FAULTS_COUNTS") {
        let file = fs::File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("FAULTS_COUNTS can be written");
    }
}
