//! How fast SQLite alone takes the bets: the ceiling for any server on top of it.
//!
//! One connection on one thread, the server's own `bets` table and durability
//! (a write-ahead log, `synchronous=FULL`), but none of a server's work: no
//! network, no validation, no digest, no row for the batch, and transactions so
//! large that a sync costs nearly nothing. The log is copied into the database
//! when SQLite does so by itself, every 1,000 pages. `bench/compare.sh` runs
//! this beside the servers.
//!
//! Arguments: a CSV file of bets as `sorteo generate` writes them, which are
//! inserted over and over; the database file to make; for how many seconds.
//! Prints one line of JSON: `bets_per_second`, and what it comes from.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use csv::StringRecord;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde_json::json;

const SCHEMA: &str = include_str!("../migrations/1-initial/up.sql");
const ROWS_PER_TRANSACTION: usize = 10_000;

/// One bet of the file. The number is parsed once, as a server's validation
/// would have left it; the texts are bound where they lie.
struct Bet {
    texts: StringRecord,
    number: u32,
}

fn main() -> anyhow::Result<()> {
    // `cargo bench` adds `--bench` to whatever it is told to pass on.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [csv, database, seconds] = arguments.as_slice() else {
        bail!("usage: sqlite_ceiling BETS.csv DATABASE SECONDS");
    };
    let seconds: f64 = seconds.parse().context("SECONDS is not a number")?;
    let duration = Duration::try_from_secs_f64(seconds).context("SECONDS is no duration")?;
    let bets = read(Path::new(csv)).with_context(|| format!("reading {csv}"))?;
    ensure!(!bets.is_empty(), "{csv} has no bets");
    let mut connection = open(Path::new(database)).with_context(|| format!("opening {database}"))?;

    let started = Instant::now();
    let mut inserted = 0_u64;
    let mut endless = bets.iter().cycle();
    while started.elapsed() < duration {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        insert(&transaction, &mut endless)?;
        transaction.commit()?;
        inserted += ROWS_PER_TRANSACTION as u64;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let bets_per_second = inserted as f64 / elapsed;
    println!("{}", json!({ "bets_per_second": bets_per_second, "bets": inserted, "seconds": elapsed }));
    Ok(())
}

fn read(csv: &Path) -> anyhow::Result<Vec<Bet>> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .from_path(csv)?
        .into_records()
        .map(|record| {
            let texts = record?;
            ensure!(texts.len() == 5, "a bet has 5 fields, not {}", texts.len());
            let number = texts[4].parse().context("the number of a bet")?;
            Ok(Bet { texts, number })
        })
        .collect()
}

/// A new database, because one that has bets already is not the same measurement.
fn open(database: &Path) -> anyhow::Result<Connection> {
    ensure!(!database.exists(), "it exists already");
    let connection = Connection::open(database)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite keeps no write-ahead log here");
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Binds as the server does: value by value, and the two that do not change once.
fn insert<'b>(
    transaction: &Transaction<'_>,
    bets: &mut impl Iterator<Item = &'b Bet>,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO bets (draw_id, agency, first_name, last_name, document, birthdate, number)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )?;
    statement.raw_bind_parameter(1, 1)?;
    statement.raw_bind_parameter(2, 1)?;
    for bet in bets.take(ROWS_PER_TRANSACTION) {
        for column in 0..4 {
            statement.raw_bind_parameter(3 + column, &bet.texts[column])?;
        }
        statement.raw_bind_parameter(7, bet.number)?;
        statement.raw_execute()?;
    }
    Ok(())
}
