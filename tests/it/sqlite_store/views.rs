//! What a person sees with `sqlite3`.

use rusqlite::Connection;

use super::{Database, WINS, append, batch, close, placed, rows};

#[test]
fn the_views_show_who_won_and_how_far_everyone_is() {
    let database = Database::new();
    let store = database.open_expecting(2);
    append(&store, placed(2, 0, &["007", "8"])).unwrap();
    append(&store, batch(1, &["9"], WINS)).unwrap();
    append(&store, batch(2, &["10", "11"], 1)).unwrap();
    append(&store, batch(2, &["12"], WINS)).unwrap();
    close(&store, 2).unwrap();
    let raw = database.raw();
    let standings =
        "SELECT draw, state, done, expected, complete, bets, winners, winning_number FROM standings";
    let agencies = "SELECT draw, agency, bets, batches, state FROM agencies";
    let results = "SELECT draw, agency, document, first_name, last_name, birthdate, number FROM results";
    assert_eq!(rows(&raw, standings), ["1|open|1|2|0|6|0|7574"]);
    assert_eq!(rows(&raw, agencies), ["1|1|1|1|betting", "1|2|5|3|done"]);
    assert_eq!(rows(&raw, results), [""; 0], "there are no winners yet");
    close(&store, 3).unwrap();
    assert_eq!(rows(&raw, standings), ["1|drawn|2|2|1|6|4|7574"]);
    assert_eq!(
        rows(&raw, agencies),
        ["1|1|1|1|betting", "1|2|5|3|done", "1|3|0|0|done"],
        "one that only said that it is done is seen too"
    );
    assert_eq!(
        rows(&raw, results),
        [
            "1|1|9|Ana|Paz|1999-03-17|7574",
            "1|2|007|Ana|Paz|1999-03-17|7574",
            "1|2|8|Ana|Paz|1999-03-17|7574",
            "1|2|12|Ana|Paz|1999-03-17|7574",
        ]
    );
    let done = rows(&raw, r#"SELECT agency, bet_count, "by" FROM done_agencies ORDER BY agency"#);
    assert_eq!(done, ["2|5|agency", "3|0|agency"]);
}

#[test]
fn bets_and_the_audit_can_only_grow() {
    let database = Database::new();
    let store = database.open_expecting(2);
    append(&store, batch(1, &["1"], 1)).unwrap();
    store.close();
    database.open_expecting(3).close();
    let raw = database.raw();
    let kept = |raw: &Connection| (rows(raw, "SELECT * FROM bets"), rows(raw, "SELECT * FROM audit"));
    let before = kept(&raw);
    assert_eq!((before.0.len(), before.1.len()), (1, 3));
    for forbidden in [
        "UPDATE bets SET number = 7574",
        "UPDATE bets SET document = '2' WHERE id = 1",
        "DELETE FROM bets",
        "DELETE FROM bets WHERE id = 1",
        "UPDATE audit SET detail = ''",
        "DELETE FROM audit",
    ] {
        let error = raw.execute(forbidden, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{forbidden}: {error}");
        assert_eq!(kept(&raw), before, "{forbidden}");
    }
}
