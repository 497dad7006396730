//! Carries out a group of commands inside one transaction.

use rusqlite::{Connection, Transaction};

use super::command::{Command, Outcome};
use crate::store::sqlite::append::{Appender, DrawLimits};
use crate::store::sqlite::draw;
use crate::store::sqlite::status::newest_draw;
use crate::store::sqlite::time::now;
use crate::store::sqlite::tokens;
use crate::store::{DoneBy, DrawStatus};

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
pub(super) fn execute_all(
    transaction: &Transaction<'_>,
    group: &[Command],
    limits: DrawLimits,
) -> rusqlite::Result<Executed> {
    let stored_at = now();
    let mut appender = Appender::new(transaction, &stored_at, limits);
    let mut executed = Executed { outcomes: Vec::with_capacity(group.len()), bets: 0, drawn: None };
    for command in group {
        let outcome = match command {
            Command::Append(batches, _) => {
                let appended = appender.append(batches)?;
                executed.bets += appended.unwrap_or(0);
                Outcome::Appended(appended.map(drop))
            }
            Command::Close { agency, bets, draw, .. } => {
                appender.flush()?;
                let (closed, drawn) = draw::close_agency(
                    transaction,
                    *agency,
                    *bets,
                    *draw,
                    DoneBy::Agency,
                    limits.agencies_max,
                )?;
                if drawn {
                    executed.drawn = Some(newest_draw(transaction)?);
                }
                Outcome::Closed(closed)
            }
            Command::Probe(_) => {
                no_op_write(transaction)?;
                Outcome::Done
            }
            Command::TokenUses(uses, _) => {
                tokens::record_uses(transaction, uses)?;
                Outcome::Done
            }
        };
        executed.outcomes.push(outcome);
    }
    appender.flush()?;
    Ok(executed)
}

/// Writes a row as it is: it passes through the WAL and the sync like any other.
fn no_op_write(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE draws SET bets = bets WHERE id = (SELECT max(id) FROM draws)")?
        .execute([])
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::append::DigestedBatch;
    use crate::store::sqlite::terms::{self, DrawTerms};
    use crate::store::sqlite::{AGENCIES_MAX, schema};

    const LIMITS: DrawLimits = DrawLimits { agencies_max: AGENCIES_MAX, agency_bets_max: u64::MAX };
    use crate::store::{CloseRefusal, Ticket};
    use sorteo_protocol::{AgencyId, Batch, Bets};

    fn append(agency: u32, rows: &[&str]) -> Command {
        let mut bets = Bets::default();
        for document in rows {
            bets.push(["Ana", "Paz", document, "1999-03-17", "1"]).unwrap();
        }
        let batch = Batch { agency: AgencyId(agency), bets, position: None };
        Command::Append(vec![DigestedBatch::from(batch)], Ticket::new().0)
    }

    fn close(agency: u32, bets: u64) -> Command {
        Command::Close { agency: AgencyId(agency), bets: Some(bets), draw: None, resolver: Ticket::new().0 }
    }

    #[test]
    fn a_close_sees_what_its_group_stored_before_it_and_the_totals_hold_the_rest() {
        let mut connection = schema::create_in_memory(schema::newest_version()).unwrap();
        let transaction = connection.transaction().unwrap();
        terms::open_first_draw(&transaction, &DrawTerms::default()).unwrap();
        let group = [append(1, &["1", "2"]), append(2, &["3"]), append(1, &["4"]), close(1, 2), close(1, 3)];
        let executed = execute_all(&transaction, &group, LIMITS).unwrap();
        assert_eq!(executed.bets, 4);
        let closed: Vec<_> = executed
            .outcomes
            .into_iter()
            .filter_map(|outcome| match outcome {
                Outcome::Closed(closed) => Some(closed.map(drop)),
                Outcome::Appended(_) | Outcome::Done => None,
            })
            .collect();
        assert_eq!(closed, [Err(CloseRefusal::CountMismatch { stored: 3 }), Ok(())]);
        let executed = execute_all(&transaction, &[append(2, &["5"]), append(3, &[])], LIMITS).unwrap();
        assert_eq!(executed.bets, 1);
        let totals: Vec<(u32, u64, u64)> = transaction
            .prepare("SELECT agency, bets, batches FROM agency_totals ORDER BY agency")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(totals, [(1, 3, 2), (2, 2, 2)]);
        let draw: (u64, u64, u64) = transaction
            .query_row("SELECT bets, agencies, done FROM draws", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(draw, (5, 2, 1));
    }
}
