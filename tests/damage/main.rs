//! Bytes that change on the disk. A change of the data is found by `check` or refused by the
//! server; and no server gives a wrong winner on a database that `check` finds nothing wrong
//! with.
//!
//! Bits are flipped in some hundred random bytes, or with `FAULTS_EVERY=1` in every byte;
//! `FAULTS_SEED=N` repeats a run. With `--nocapture` the tests print how many faults had
//! which outcome.
//!
//! One fault cannot be found: if the disk loses a write, a page is as it was some commits
//! ago; if no other page refers to its content (the audit, the agencies that are done in an
//! open draw), nothing shows that it is old.

mod lottery;
mod trial;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::lottery::Case;
use crate::trial::Trial;

#[test]
fn a_flipped_byte_of_the_database_is_found_or_changes_nothing() {
    hold_flips(&Case::closed(), Damaged::Database, 200);
}

/// SQLite takes a log up to the first frame whose checksum is wrong, and says
/// nothing: what remains are the commits before it. That is all that can hold
/// here, and it holds.
#[test]
fn a_flipped_byte_of_the_log_leaves_the_first_of_its_commits_or_is_found() {
    hold_flips(&Case::in_the_log(), Damaged::Log, 100);
}

/// The same where the log's pages are in the database already, as after a crash
/// behind a checkpoint: the remaining commits then hide newer pages.
#[test]
fn a_flipped_byte_of_a_log_that_was_copied_is_found_or_changes_nothing_else() {
    hold_flips(&Case::copied_from_the_log(), Damaged::Log, 100);
}

#[test]
fn a_flipped_byte_of_a_database_beside_its_log_is_found_or_changes_nothing() {
    hold_flips(&Case::in_the_log(), Damaged::Database, 100);
}

/// A bit of each byte of the header, and of the b-tree's behind it; with
/// `FAULTS_EVERY=1` each bit.
#[test]
fn a_flipped_bit_of_the_header_is_found_or_changes_nothing() {
    const HEADER_BYTES: usize = 108;
    let (case, seed) = (Case::closed(), seed());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut faults = Vec::new();
    for offset in 0..HEADER_BYTES {
        let bit = random.random_range(0..8);
        let bits = if every() { 0..8 } else { bit..bit + 1 };
        faults.extend(bits.map(|bit| Fault::flip(&case, Damaged::Database, offset, bit)));
    }
    hold(&case, &faults, seed);
}

/// A page of the database that holds something else: nothing, noise, or what
/// was meant for another place.
#[test]
fn a_page_with_other_bytes_is_found_or_changes_nothing() {
    const PAGE_BYTES: usize = 4096;
    let (case, seed) = (Case::closed(), seed());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let pages: Vec<&[u8]> = case.database.chunks_exact(PAGE_BYTES).collect();
    let mut faults = Vec::new();
    for (page, is) in pages.iter().enumerate() {
        let mut noise = vec![0; PAGE_BYTES];
        random.fill(&mut noise[..]);
        let others = pages.iter().filter(|other| *other != is).map(|other| other.to_vec());
        let all = [vec![0; PAGE_BYTES], noise].into_iter().chain(others);
        faults.extend(all.map(|bytes| Fault { file: Damaged::Database, offset: page * PAGE_BYTES, bytes }));
    }
    hold(&case, &faults, seed);
}

/// Which file the wrong bytes are in.
#[derive(Clone, Copy, Debug)]
enum Damaged {
    Database,
    Log,
}

/// Bytes that are not as they were written.
struct Fault {
    file: Damaged,
    offset: usize,
    /// What is there instead.
    bytes: Vec<u8>,
}

impl Fault {
    fn flip(case: &Case, file: Damaged, offset: usize, bit: u8) -> Self {
        Self { file, offset, bytes: vec![case.bytes_of(file)[offset] ^ (1 << bit)] }
    }
}

impl Case {
    fn bytes_of(&self, file: Damaged) -> &[u8] {
        match file {
            Damaged::Database => &self.database,
            Damaged::Log => &self.log,
        }
    }
}

/// Whether every byte is to be tried.
fn every() -> bool {
    std::env::var_os("FAULTS_EVERY").is_some_and(|every| every == "1")
}

fn seed() -> u64 {
    std::env::var("FAULTS_SEED").map_or_else(
        |_| rand::random(),
        |seed| seed.parse().unwrap_or_else(|_| panic!("FAULTS_SEED is no number: {seed}")),
    )
}

/// Flips so many random bits, or one of every byte.
#[track_caller]
fn hold_flips(case: &Case, file: Damaged, flips: usize) {
    let seed = seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let length = case.bytes_of(file).len();
    let mut faults = Vec::new();
    for index in 0..if every() { length } else { flips } {
        let offset = if every() { index } else { random.random_range(0..length) };
        faults.push(Fault::flip(case, file, offset, random.random_range(0..8)));
    }
    hold(case, &faults, seed);
}

/// Faults of one process: a store that fails leaves its connection open, and the
/// files of a process are few.
const FAULTS_OF_PROCESS: usize = 1000;
/// Tells a process that the test has started which fault it begins with.
const BEGIN: &str = "FAULTS_BEGIN";

/// Tries all faults, and fails with all that must not be.
#[track_caller]
fn hold(case: &Case, faults: &[Fault], seed: u64) {
    let begin = std::env::var(BEGIN).ok().map(|begin| begin.parse::<usize>().unwrap());
    let outcomes = match begin {
        None if faults.len() > FAULTS_OF_PROCESS => hold_in_processes(faults.len(), seed),
        None => hold_here(case, faults, seed),
        Some(begin) => {
            let end = faults.len().min(begin + FAULTS_OF_PROCESS);
            hold_here(case, &faults[begin..end], seed)
        }
    };
    println!("FAULTS_SEED={seed}: {} faults", faults.len());
    for (outcome, count) in &outcomes {
        println!("{count:>8}{COLUMNS}{outcome}");
    }
    assert!(begin.is_some() || outcomes.len() > 1, "FAULTS_SEED={seed}: no fault did anything");
}

/// How many trials came out how.
type Outcomes = BTreeMap<String, usize>;
/// Between a count and its outcome.
const COLUMNS: &str = "  ";

#[track_caller]
fn hold_here(case: &Case, faults: &[Fault], seed: u64) -> Outcomes {
    let none = Fault { file: Damaged::Database, offset: 0, bytes: vec![case.database[0]] };
    let intact = Trial::run(case, &none);
    assert!(intact.is_fine(), "without a fault: {intact:?}");
    let verdicts = try_all(case, faults);
    let complaints = faults.iter().zip(&verdicts).filter_map(|(fault, verdict)| {
        let Fault { file, offset, bytes } = fault;
        let first = bytes[0];
        let complaint = verdict.complaint.as_ref()?;
        Some(format!("{first:#04x} and {} more at {offset} of the {file:?}: {complaint}", bytes.len() - 1))
    });
    let wrong: Vec<String> = complaints.collect();
    assert!(wrong.is_empty(), "FAULTS_SEED={seed}: {}:\n{}", wrong.len(), wrong.join("\n"));
    let mut outcomes = Outcomes::new();
    for verdict in verdicts {
        *outcomes.entry(verdict.outcome).or_default() += 1;
    }
    outcomes
}

/// Runs this test again and again, each time for the faults behind the last.
#[track_caller]
fn hold_in_processes(faults: usize, seed: u64) -> Outcomes {
    let thread = thread::current();
    let test = thread.name().expect("a test's thread has its name");
    let mut outcomes = Outcomes::new();
    for begin in (0..faults).step_by(FAULTS_OF_PROCESS) {
        let run = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .envs([("FAULTS_SEED", seed.to_string()), (BEGIN, begin.to_string())])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{told}{}", String::from_utf8_lossy(&run.stderr));
        for line in told.lines() {
            if let Some((count, outcome)) = line.trim_start().split_once(COLUMNS)
                && let Ok(count) = count.parse::<usize>()
            {
                *outcomes.entry(outcome.to_owned()).or_default() += count;
            }
        }
    }
    assert_eq!(outcomes.values().sum::<usize>(), faults);
    outcomes
}

/// What is kept of a trial.
struct Verdict {
    outcome: String,
    complaint: Option<String>,
}

/// On all processors; the verdicts are in the order of the faults.
fn try_all(case: &Case, faults: &[Fault]) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::with_capacity(faults.len()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(fault) = faults.get(index) else { return };
                    let trial = Trial::run(case, fault);
                    let verdict = Verdict { outcome: trial.outcome(), complaint: trial.complaint() };
                    verdicts.lock().unwrap().push((index, verdict));
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap();
    verdicts.sort_by_key(|(index, _)| *index);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}
