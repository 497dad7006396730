//! What a draw is made with: how many agencies must be done, and which number
//! wins. The audit tells it too, and both must say the same.

use rusqlite::{Connection, Transaction, params};

use super::options::Options;
use super::time::now;
use sorteo_protocol::{DEFAULT_WINNING_NUMBER, DrawId};

/// What the next draw is opened with; what is not told is as in the draw before.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrawTerms {
    /// How many agencies must be done.
    pub agencies: Option<u32>,
    /// The number that wins.
    pub winning_number: Option<u32>,
}

/// Opens the first draw of a database.
pub(super) fn open_first_draw(transaction: &Transaction<'_>, options: &Options) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO draws (winning_number, expected_agencies, opened_at) VALUES ($1, $2, $3)",
        params![options.winning_number.unwrap_or(DEFAULT_WINNING_NUMBER), options.agencies, now()],
    )?;
    Ok(())
}

/// Opens the draw behind `before`. What the operator does not tell is as it was there.
pub(super) fn open_next_draw(
    transaction: &Transaction<'_>,
    before: DrawId,
    terms: DrawTerms,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO draws (winning_number, expected_agencies, opened_at)
         SELECT coalesce($1, winning_number), coalesce($2, expected_agencies), $3 FROM draws WHERE id = $4",
        params![terms.winning_number, terms.agencies, now(), before.0],
    )?;
    note(transaction, DrawId(transaction.last_insert_rowid()), RecordedBy::Operator)
}

/// Who tells the audit of a draw's settings.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordedBy {
    /// A server that opened the first draw, or was told other settings for an open one.
    Server,
    /// The operator who opened the draw.
    Operator,
}

impl RecordedBy {
    /// The audit's word for what was done.
    fn action(self) -> &'static str {
        match self {
            Self::Server => "serve",
            Self::Operator => "open-draw",
        }
    }
}

/// What a server is told explicitly holds for a draw that is still open; what is
/// not told stays as the draw was opened. A draw that an operator opened stays as
/// he opened it: a server that is restarted is told what it was always told.
pub(super) fn apply(transaction: &Transaction<'_>, draw: DrawId, options: &Options) -> rusqlite::Result<()> {
    for (column, value) in
        [("expected_agencies", options.agencies), ("winning_number", options.winning_number)]
    {
        let Some(value) = value else { continue };
        // `column` is one of the two names above.
        transaction.execute(
            &format!(
                "UPDATE draws SET {column} = $1 WHERE id = $2 AND drawn_at IS NULL AND {column} IS NOT $1
                    AND NOT EXISTS (SELECT 1 FROM audit WHERE draw_id = $2 AND action = 'open-draw')"
            ),
            params![value, draw.0],
        )?;
    }
    Ok(())
}

/// The settings of each draw, as the audit tells them.
const SETTINGS: &str = "
    SELECT id AS draw_id, 'expected_agencies ' AS setting,
           coalesce('expected_agencies set to ' || expected_agencies, 'expected_agencies inferred') AS held,
           drawn_at
      FROM draws
     UNION ALL
    SELECT id, 'winning_number ', 'winning_number set to ' || winning_number, drawn_at FROM draws";

/// What was said last of a setting in the audit; NULL where nobody did.
const NOTED: &str = "
    (SELECT detail FROM audit
      WHERE audit.draw_id = settings.draw_id AND action IN ('serve', 'open-draw')
        AND substr(detail, 1, length(setting)) = setting
      ORDER BY id DESC LIMIT 1)";

/// Notes in the audit what an open draw is made with, unless it says so already.
/// Besides telling an operator, it tells these numbers a second time: a draw is
/// right only if they are, and nothing else in the database depends on them.
pub(super) fn note(transaction: &Transaction<'_>, draw: DrawId, teller: RecordedBy) -> rusqlite::Result<()> {
    transaction.execute(
        &format!(
            "INSERT INTO audit (at, action, draw_id, detail)
             SELECT $1, $2, draw_id, held FROM ({SETTINGS}) AS settings
              WHERE draw_id = $3 AND drawn_at IS NULL AND {NOTED} IS NOT held
              ORDER BY setting"
        ),
        params![now(), teller.action(), draw.0],
    )?;
    Ok(())
}

/// A line for each setting of a draw that is not what was noted last.
pub(super) fn not_as_noted(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(&format!(
            "SELECT draw_id, held, noted
               FROM (SELECT draw_id, held, {NOTED} AS noted FROM ({SETTINGS}) AS settings)
              WHERE noted <> held"
        ))?
        .query_map([], |row| {
            let (draw, held, noted): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("draw {draw} has {held}, the audit tells {noted}"))
        })?
        .collect()
}
