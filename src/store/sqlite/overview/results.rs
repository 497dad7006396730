//! The winners of a draw, page by page.

use rusqlite::{Connection, Row, named_params};
use serde::Serialize;

use sorteo_protocol::{AgencyId, DrawId};

/// A winning bet, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Winner {
    /// The agency that sent it.
    pub agency: u32,
    /// The bettor's identity document.
    pub document: String,
    /// The bettor's given names.
    pub first_name: String,
    /// The bettor's surname.
    pub last_name: String,
    /// The bettor's date of birth, `YYYY-MM-DD`.
    pub birthdate: String,
    /// The number: the draw's winning one.
    pub number: u32,
}

/// Which winners of a draw to return.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only those of this agency.
    pub agency: Option<AgencyId>,
    /// Only those with this in the document or a name; the case of ASCII letters does
    /// not matter.
    pub search: Option<String>,
    /// Only those after this cursor, which the page before returned.
    pub after: Option<ResultsCursor>,
    /// Most winners on a page.
    pub winners_max: usize,
}

/// A position in the results, which are ordered by agency and then as they were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultsCursor {
    /// The agency.
    pub agency: AgencyId,
    /// The bet's number among all bets ever stored.
    pub bet: i64,
}

/// A page of winners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// How many winners match, on all pages.
    pub total: u64,
    /// The winners of this page.
    pub winners: Vec<Winner>,
    /// The cursor for the next page, if there is one.
    pub next: Option<ResultsCursor>,
}

const MATCHING: &str = "
      FROM winners LEFT JOIN bets ON bets.id = winners.bet_id
     WHERE winners.draw_id = :draw
       AND (:agency IS NULL OR winners.agency = :agency)
       AND (:search IS NULL OR instr(lower(document), :search) OR instr(lower(first_name), :search)
            OR instr(lower(last_name), :search))";

/// Returns a page of a draw's winners.
pub(super) fn page(connection: &Connection, draw: DrawId, query: &Query) -> rusqlite::Result<Results> {
    let search = query.search.as_ref().map(|text| text.to_ascii_lowercase());
    let agency = query.agency.map(|agency| agency.0);
    let total = connection
        .prepare_cached(&format!("SELECT count(*) {MATCHING}"))?
        .query_row(named_params! {":draw": draw.0, ":agency": agency, ":search": search}, |row| row.get(0))?;
    let (after_agency, after_bet) = query.after.map_or((-1, 0), |at| (i64::from(at.agency.0), at.bet));
    let mut found: Vec<(ResultsCursor, Winner)> = connection
        .prepare_cached(&format!(
            "SELECT winners.agency, winners.bet_id, document, first_name, last_name, birthdate, number
             {MATCHING} AND (winners.agency, winners.bet_id) > (:after_agency, :after_bet)
             ORDER BY winners.agency, winners.bet_id LIMIT :rows"
        ))?
        .query_map(
            named_params! {":draw": draw.0, ":agency": agency, ":search": search,
            ":after_agency": after_agency, ":after_bet": after_bet, ":rows": query.winners_max + 1},
            read_winner,
        )?
        .collect::<rusqlite::Result<_>>()?;
    let there_is_more = found.len() > query.winners_max;
    found.truncate(query.winners_max);
    let next = found.last().map(|(cursor, _)| *cursor).filter(|_| there_is_more);
    Ok(Results { total, winners: found.into_iter().map(|(_, winner)| winner).collect(), next })
}

fn read_winner(row: &Row<'_>) -> rusqlite::Result<(ResultsCursor, Winner)> {
    let agency = row.get(0)?;
    let winner = Winner {
        agency,
        document: row.get(2)?,
        first_name: row.get(3)?,
        last_name: row.get(4)?,
        birthdate: row.get(5)?,
        number: row.get(6)?,
    };
    Ok((ResultsCursor { agency: AgencyId(agency), bet: row.get(1)? }, winner))
}
