//! Carries out a group of commands inside one transaction.

use rusqlite::{Connection, Transaction};

use super::command::{Command, Outcome};
use crate::store::sqlite::append::{self, DigestedBatch};
use crate::store::sqlite::draw;
use crate::store::sqlite::status::newest_draw;
use crate::store::sqlite::time::now;
use crate::store::{AppendRefusal, DoneBy, DrawStatus};

/// The effects of a transaction that is about to be committed.
pub(super) struct Executed {
    /// The outcomes of the commands, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// Bets that were stored; none of a batch that was stored before.
    pub(super) bets: u64,
    /// The draw, if the group drew.
    pub(super) drawn: Option<DrawStatus>,
}

/// Carries out all commands of a group. After an error, the transaction must be rolled
/// back.
pub(super) fn execute_all(transaction: &Transaction<'_>, group: &[Command]) -> rusqlite::Result<Executed> {
    let stored_at = now();
    let mut executed = Executed { outcomes: Vec::with_capacity(group.len()), bets: 0, drawn: None };
    for command in group {
        let outcome = match command {
            Command::Append(batches, _) => {
                let appended = append_all_or_none(transaction, batches, &stored_at)?;
                executed.bets += appended.unwrap_or(0);
                Outcome::Appended(appended.map(drop))
            }
            Command::Close(agency, bets, _) => {
                let (closed, drawn) = draw::close_agency(transaction, *agency, *bets, DoneBy::Agency)?;
                if drawn {
                    executed.drawn = Some(newest_draw(transaction)?);
                }
                Outcome::Closed(closed)
            }
            Command::Probe(_) => {
                no_op_write(transaction)?;
                Outcome::Probed
            }
        };
        executed.outcomes.push(outcome);
    }
    Ok(executed)
}

/// Stores all batches of one append or, if one of them is refused, none, and leaves the
/// rest of the group as it is.
///
/// A single batch is refused before it has written anything: it needs no savepoint,
/// which would keep a copy of every page that it changes.
fn append_all_or_none(
    transaction: &Transaction<'_>,
    batches: &[DigestedBatch],
    stored_at: &str,
) -> rusqlite::Result<Result<u64, AppendRefusal>> {
    if let [_] = batches {
        return append::append(transaction, batches, stored_at);
    }
    let run = |sql| transaction.prepare_cached(sql)?.execute([]);
    run("SAVEPOINT batch")?;
    let appended = append::append(transaction, batches, stored_at)?;
    if appended.is_err() {
        run("ROLLBACK TO batch")?;
    }
    run("RELEASE batch")?;
    Ok(appended)
}

/// Writes a row as it is: it passes through the WAL and the sync like any other.
fn no_op_write(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE draws SET bets = bets WHERE id = (SELECT max(id) FROM draws)")?
        .execute([])
        .map(drop)
}
