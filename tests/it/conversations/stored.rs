//! Compares what a server's database holds with what the model holds.

use std::collections::BTreeMap;

use rusqlite::types::FromSql;
use sorteo::store::sqlite::check::{Report, check};
use sorteo_test_support::model::{Batch, Lottery};
use sorteo_test_support::reading::Bet;

use crate::test_server::TestServer;

/// An upload and a first row.
type Place = (String, u64);

/// All that lotteries with agencies of their own hold together. The bets and
/// batches of each agency are in stored order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holdings {
    drawn: bool,
    bets: BTreeMap<u32, Vec<Bet>>,
    batches: BTreeMap<u32, Vec<(Option<Place>, u64)>>,
    done: BTreeMap<u32, u64>,
    winners: BTreeMap<u32, Vec<Bet>>,
}

impl Holdings {
    fn of_lotteries(lotteries: &[Lottery]) -> Self {
        let mut all = Self::default();
        for lottery in lotteries {
            all.drawn |= lottery.drawn;
            for (agency, bet) in &lottery.bets {
                all.bets.entry(*agency).or_default().push(bet.clone());
            }
            for Batch { agency, position, bets } in &lottery.batches {
                all.batches.entry(*agency).or_default().push((position.clone(), bets.len() as u64));
            }
            all.done.extend(&lottery.done);
            for agency in all.bets.keys() {
                let winners: Vec<_> = lottery.winning_bets(*agency).map(|(_, bet)| bet.clone()).collect();
                if !winners.is_empty() {
                    all.winners.insert(*agency, winners);
                }
            }
        }
        all
    }

    fn of_database(server: &TestServer) -> Self {
        let database = server.database();
        let mut all = Self {
            drawn: database
                .query_row("SELECT drawn_at IS NOT NULL FROM draws", [], |row| row.get(0))
                .unwrap(),
            ..Self::default()
        };
        let bet_of = |row: &rusqlite::Row<'_>| {
            let [first_name, last_name, document, birthdate] = [1, 2, 3, 4].map(|at| get(row, at));
            Bet { first_name, last_name, document, birthdate, number: get(row, 5) }
        };
        let bet = "agency, first_name, last_name, document, birthdate, number FROM bets";
        for_each(&database, &format!("SELECT {bet} ORDER BY id"), |row| {
            all.bets.entry(get(row, 0)).or_default().push(bet_of(row));
        });
        let winners = format!("SELECT winners.{bet} JOIN winners ON bets.id = bet_id ORDER BY bet_id");
        for_each(&database, &winners, |row| all.winners.entry(get(row, 0)).or_default().push(bet_of(row)));
        for_each(&database, "SELECT agency, upload, first_row, bet_count FROM batches ORDER BY id", |row| {
            let position = get::<Option<String>>(row, 1).zip(get(row, 2));
            all.batches.entry(get(row, 0)).or_default().push((position, get(row, 3)));
        });
        for_each(&database, "SELECT agency, bet_count FROM done_agencies", |row| {
            all.done.insert(get(row, 0), get(row, 1));
        });
        all
    }
}

fn get<T: FromSql>(row: &rusqlite::Row<'_>, column: usize) -> T {
    row.get(column).unwrap()
}

fn for_each(database: &rusqlite::Connection, sql: &str, mut each: impl FnMut(&rusqlite::Row<'_>)) {
    let mut statement = database.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        each(row);
    }
}

/// The database is sound, and holds what the lotteries hold.
pub fn assert_holds(server: &TestServer, lotteries: &[Lottery]) {
    assert_eq!(Holdings::of_database(server), Holdings::of_lotteries(lotteries));
    let Report { findings, draws, .. } = check(&server.database_path(), &mut |_| {}).unwrap();
    assert_eq!((findings, draws), (Vec::new(), 1));
    let drawn = lotteries.iter().any(|lottery| lottery.drawn);
    assert_eq!(server.draws_made(), usize::from(drawn));
}
