//! What a server does to its open database before it serves.

use rusqlite::{Connection, TransactionBehavior};

use super::draw;
use super::status::newest_draw;
use super::terms::{self, DrawTerms, RecordedBy, TermNotTaken};
use crate::failpoint::Failpoint;
use crate::store::DrawStatus;
use sorteo_protocol::DrawId;

/// The newest draw of a database that is ready to be served.
pub(super) struct Prepared {
    pub(super) status: DrawStatus,
    /// Whether the draw was due, and was drawn now.
    pub(super) drawn_now: bool,
    /// Terms that the draw did not take. None if it is drawn: nothing could take them.
    pub(super) terms_not_taken: Vec<TermNotTaken>,
}

/// Opens the first draw where there is none, applies the given terms to an open draw,
/// and draws if that was due when the last server ended.
pub(super) fn prepare(connection: &mut Connection, given: &DrawTerms) -> rusqlite::Result<Prepared> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest: Option<i64> = transaction.query_row("SELECT max(id) FROM draws", [], |row| row.get(0))?;
    let mut terms_not_taken = Vec::new();
    match newest {
        None => terms::open_first_draw(&transaction, given)?,
        Some(draw) => terms_not_taken = terms::apply(&transaction, DrawId(draw), given)?,
    }
    let draw = newest_draw(&transaction)?.draw;
    terms::record(&transaction, draw, RecordedBy::Server)?;
    let drawn_now = draw::draw_if_due(&transaction, draw)?;
    let status = newest_draw(&transaction)?;
    if status.drawn {
        terms_not_taken.clear();
    }
    Failpoint::BeforePrepared.pass();
    transaction.commit()?;
    Failpoint::AfterPrepared.pass();
    Ok(Prepared { status, drawn_now, terms_not_taken })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;
    use crate::store::sqlite::terms::{DrawTerm, NotTakenReason};

    const NONE: DrawTerms = DrawTerms { agencies: None, winning_number: None };

    #[test]
    fn only_an_open_draw_of_an_operator_keeps_its_terms_and_reports_those_it_did_not_take() {
        let mut connection = schema::create_in_memory(schema::newest_version()).unwrap();
        let given = DrawTerms { agencies: Some(2.into()), winning_number: Some(5) };
        for terms in [&NONE, &given, &NONE] {
            assert_eq!(prepare(&mut connection, terms).unwrap().terms_not_taken, []);
        }
        let first = prepare(&mut connection, &NONE).unwrap().status;
        assert_eq!((first.expected, first.winning_number), (2, 5));
        connection.execute("UPDATE draws SET drawn_at = opened_at", []).unwrap();
        let drawn = prepare(&mut connection, &DrawTerms { agencies: Some(9.into()), ..NONE }).unwrap();
        assert_eq!((drawn.status.drawn, drawn.terms_not_taken), (true, Vec::new()));

        let transaction = connection.transaction().unwrap();
        terms::open_next_draw(&transaction, first.draw, &DrawTerms { agencies: Some(3.into()), ..NONE })
            .unwrap();
        transaction.commit().unwrap();
        let second = prepare(&mut connection, &given).unwrap();
        assert_eq!((second.status.expected, second.status.winning_number), (3, 5));
        let reason = NotTakenReason::SetByOperator;
        let expected = TermNotTaken { term: DrawTerm::Agencies, draw: second.status.draw, reason };
        assert_eq!(second.terms_not_taken, [expected], "the winning number is the same");
        assert_eq!(expected.to_string(), "draw 2 keeps what an operator set");
    }
}
