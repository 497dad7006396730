//! Made-up bets of the size and shape of real data. The same seed gives the same bets.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::atomic_file::{Access, AtomicFile, Options};

/// Number of bets of the five agencies of the original exercise, and of `sorteo demo`.
pub const BETS: u64 = 78_697;
/// Number of bets of each of the five agencies.
const FIVE_AGENCIES: [u64; 5] = [26_936, 25_518, 16_014, 9_238, 991];
/// Numbers are drawn from 0 to this: one bet in ten thousand wins.
const NUMBER_MAX: u32 = 9_999;

const FIRST_NAMES: [&str; 40] = [
    "Agustín",
    "Alma",
    "Ana",
    "Bautista",
    "Benicio",
    "Camila",
    "Catalina",
    "Ciro",
    "Delfina",
    "Diego",
    "Emilia",
    "Emma",
    "Felipe",
    "Francesca",
    "Guadalupe",
    "Ignacio",
    "Isabella",
    "Joaquín",
    "Juan",
    "Julieta",
    "Lautaro",
    "Lionel",
    "Lola",
    "Lucía",
    "Luis",
    "Malena",
    "Martina",
    "Mateo",
    "Milagros",
    "Nicolás",
    "Olivia",
    "Pedro",
    "Pilar",
    "Renata",
    "Santiago",
    "Sofía",
    "Thiago",
    "Tomás",
    "Valentina",
    "Zoe",
];
const LAST_NAMES: [&str; 32] = [
    "Acosta",
    "Aguirre",
    "Álvarez",
    "Benítez",
    "Borges",
    "Castro",
    "Díaz",
    "Farina",
    "Fernández",
    "Fornerón",
    "García",
    "Giménez",
    "González",
    "Hernández",
    "Huarte",
    "Ibáñez",
    "Leiva",
    "López",
    "Lorca",
    "Mamani",
    "Martínez",
    "Mejía",
    "Morales",
    "Núñez",
    "Pereyra",
    "Quiroga",
    "Rivas",
    "Saldaña",
    "Sánchez",
    "Valenzuela",
    "Varela",
    "Zambrano",
];

/// Is called with the number of bets written so far.
pub type Progress<'a> = dyn FnMut(u64) + 'a;

/// Agencies of other users read the bets, and after a power cut they can be written again.
const FILES: Options = Options { replace: false, access: Access::Umask, durable: false };

/// Bets between two reports: some milliseconds.
const PROGRESS_EVERY: u64 = 4096;

/// Writes `agency-1.csv` to `agency-N.csv` into the folder, and returns their paths.
///
/// An existing file is left alone if it holds exactly what would be written; any other
/// content is an error. Nothing is overwritten. `progress` is called now and then.
///
/// # Errors
///
/// A file holds other bets, or cannot be written.
pub fn write_files(
    folder: &Path,
    agencies: u32,
    bets: u64,
    seed: u64,
    progress: &mut Progress<'_>,
) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let shares = shares(agencies, bets);
    let mut written = 0;
    (1..)
        .zip(shares)
        .map(|(agency, bets): (u32, u64)| {
            let path = folder.join(format!("agency-{agency}.csv"));
            write_file(&path, bets, &mut random, &mut |bets| progress(written + bets))?;
            written += bets;
            Ok(path)
        })
        .collect()
}

/// Writes one file; where it exists, compares it with what would be written.
fn write_file(
    path: &Path,
    bets: u64,
    random: &mut ChaCha8Rng,
    progress: &mut Progress<'_>,
) -> io::Result<()> {
    if path.exists() {
        let mut existing = Expected::open(path)?;
        write_bets(&mut existing, bets, random, progress)?;
        return existing.require_end();
    }
    let file = AtomicFile::with_options(path, FILES).map_err(io::Error::other)?;
    write_bets(file.file(), bets, random, progress)?;
    file.finish().map_err(io::Error::other)
}

/// A file that is expected to hold what is written to it.
struct Expected<'a> {
    path: &'a Path,
    content: BufReader<File>,
}

impl<'a> Expected<'a> {
    fn open(path: &'a Path) -> io::Result<Self> {
        Ok(Self { path, content: BufReader::new(File::open(path)?) })
    }

    fn require_end(mut self) -> io::Result<()> {
        match self.content.fill_buf()? {
            [] => Ok(()),
            _ => Err(self.other_content()),
        }
    }

    fn other_content(&self) -> io::Error {
        let message = format!("{} exists and holds other bets: give another folder", self.path.display());
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    }
}

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut found = vec![0; bytes.len()];
        match self.content.read_exact(&mut found) {
            Ok(()) if found == bytes => Ok(bytes.len()),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Err(self.other_content()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns how many bets each agency has: five have the real sizes, others equal ones.
fn shares(agencies: u32, bets: u64) -> Vec<u64> {
    let parts = match agencies {
        5 => FIVE_AGENCIES.to_vec(),
        _ => vec![1; agencies as usize],
    };
    let whole: u64 = parts.iter().sum();
    // A share ends where the running sum, rounded down, ends, so that all add up exactly.
    let up_to = |part: u64| (u128::from(bets) * u128::from(part) / u128::from(whole)) as u64;
    let mut before = 0;
    parts
        .iter()
        .map(|part| {
            let share = up_to(before + part) - up_to(before);
            before += part;
            share
        })
        .collect()
}

fn write_bets(
    file: impl Write,
    bets: u64,
    random: &mut ChaCha8Rng,
    progress: &mut Progress<'_>,
) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(file);
    for bet in 0..bets {
        if bet % PROGRESS_EVERY == 0 {
            progress(bet);
        }
        csv.write_record(random_bet(random))?;
    }
    csv.flush()?;
    progress(bets);
    Ok(())
}

/// Returns the five fields of one made-up bet.
pub(crate) fn random_bet(random: &mut ChaCha8Rng) -> [String; 5] {
    let first_names = &FIRST_NAMES;
    let mut first_name = first_names[random.random_range(0..first_names.len())].to_owned();
    if random.random_bool(0.6) {
        first_name.push(' ');
        first_name.push_str(first_names[random.random_range(0..first_names.len())]);
    }
    let last_name = LAST_NAMES[random.random_range(0..LAST_NAMES.len())].to_owned();
    let document = random.random_range(20_000_000..40_000_000_u32).to_string();
    let (year, month, day) = (
        random.random_range(1980..2005_u32),
        random.random_range(1..=12_u32),
        random.random_range(1..=28_u32),
    );
    let number = random.random_range(0..=NUMBER_MAX).to_string();
    [first_name, last_name, document, format!("{year}-{month:02}-{day:02}"), number]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_five_agencies_have_the_real_sizes() {
        assert_eq!(shares(5, BETS), FIVE_AGENCIES);
        for (agencies, bets) in [(1, 10), (3, 10), (5, 7), (7, 1_000_003), (5, 0)] {
            let shares = shares(agencies, bets);
            assert_eq!(shares.len(), agencies as usize);
            assert_eq!(shares.iter().sum::<u64>(), bets);
        }
    }

    #[test]
    fn the_same_seed_writes_the_same_files_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let content = |name: &str, seed| {
            let paths = write_files(&folder.path().join(name), 2, 50, seed, &mut |_| {}).unwrap();
            paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
        };
        let first = content("a", 1);
        assert_eq!(first.iter().map(|text| text.lines().count()).sum::<usize>(), 50);
        assert_eq!(first, content("b", 1));
        assert_ne!(first, content("c", 2));
        assert_eq!(first, content("a", 1), "the same again is fine");
        let other = write_files(&folder.path().join("a"), 2, 50, 2, &mut |_| {}).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(folder.path().join("a/agency-1.csv")).unwrap(), first[0]);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 2, "no leftovers");
    }

    #[test]
    fn progress_counts_the_bets_of_all_files_and_ends_with_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        write_files(folder.path(), 2, 3 * PROGRESS_EVERY, 1, &mut |bets| told.push(bets)).unwrap();
        assert!(told.is_sorted(), "{told:?}");
        assert_eq!(told.last(), Some(&(3 * PROGRESS_EVERY)));
        assert!(told.len() > 4, "{told:?}");
    }
}
