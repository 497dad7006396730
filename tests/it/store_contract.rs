//! What every engine must do, written against the `Store` trait alone.
//!
//! Each test is a function of how an engine is opened. The last section
//! instantiates all of them; another engine is one line there.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use sorteo::store::sqlite::AGENCIES_MAX;
use sorteo::store::sqlite::operator::{NewToken, Operator};
use sorteo::store::{
    AppendRefusal, Appended, CloseRefusal, Closed, Closing, DrawStatus, ExpectedAgencies, NotAdmitted, Role,
    Store, StoreError, StoredToken, Submitter, Ticket, TokenHolder, TokenUse, Tokens, WinnersSize,
    WinningBet,
};
use sorteo_protocol::{
    AgencyId, Batch, Bets, DEFAULT_WINNING_NUMBER as WINS, DrawId, Token, TokenId, UploadId, UploadPosition,
};

/// How the operator set up the first draw of a fresh database.
#[derive(Clone, Default)]
struct Setup {
    agencies: Option<ExpectedAgencies>,
    winning_number: Option<u32>,
    agencies_max: Option<u64>,
}

/// An engine on a fresh database.
struct Opened<S> {
    store: S,
    /// How many draws the engine said that it made.
    draws_made: Arc<AtomicUsize>,
    /// The database that other processes open beside it; nothing for a store in memory.
    database: PathBuf,
    /// What must outlive the store.
    _keep: Box<dyn Any>,
}

impl<S> Deref for Opened<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

impl<S> Opened<S> {
    fn draws_made(&self) -> usize {
        self.draws_made.load(Ordering::SeqCst)
    }
}

/// N is inferred.
const INFERRED: Setup = expecting(None);

const fn expecting(agencies: Option<u32>) -> Setup {
    let agencies = match agencies {
        Some(count) => Some(ExpectedAgencies::Count(count)),
        None => None,
    };
    Setup { agencies, winning_number: None, agencies_max: None }
}

/// A bet in these tests: its document and its number.
type Row<'a> = (&'a str, u32);

fn bets(rows: &[Row<'_>]) -> Bets {
    let mut bets = Bets::default();
    for (document, number) in rows {
        bets.push(["Ana", "Paz", document, "1999-03-17", &number.to_string()]).unwrap();
    }
    bets
}

fn batch(agency: u32, rows: &[Row<'_>]) -> Batch {
    Batch { agency: AgencyId(agency), bets: bets(rows), position: None }
}

fn placed(agency: u32, upload: &str, first_row: u64, rows: &[Row<'_>]) -> Batch {
    let position = UploadPosition { upload: self::upload(upload), first_row, draw: None };
    Batch { position: Some(position), ..batch(agency, rows) }
}

fn upload(name: &str) -> UploadId {
    UploadId::new(name).unwrap()
}

fn append_all(store: &impl Store, batches: Vec<Batch>) -> Appended {
    store.append(batches).unwrap().wait().unwrap()
}

fn append(store: &impl Store, batch: Batch) -> Appended {
    append_all(store, vec![batch])
}

fn close(store: &impl Store, agency: u32) -> Result<(), CloseRefusal> {
    close_counted(store, agency, None)
}

fn close_counted(store: &impl Store, agency: u32, bets: Option<u64>) -> Result<(), CloseRefusal> {
    closing(store, agency, bets).map(|_| ())
}

fn closing(store: &impl Store, agency: u32, bets: Option<u64>) -> Closed {
    store.close_agency(AgencyId(agency), bets).unwrap().wait().unwrap()
}

fn standing(store: &impl Store) -> DrawStatus {
    store.newest_draw().unwrap()
}

fn stored(store: &impl Store) -> u64 {
    standing(store).bets
}

fn next_row(store: &impl Store, agency: u32, name: &str) -> u64 {
    store.next_row(standing(store).draw, AgencyId(agency), &upload(name)).unwrap()
}

fn winners(store: &impl Store, agency: u32) -> Vec<WinningBet> {
    let draw = standing(store).draw;
    store.winners(draw, AgencyId(agency), 0, 100_000).unwrap()
}

fn documents(bets: &[WinningBet]) -> Vec<&str> {
    bets.iter().map(|bet| bet.document.as_str()).collect()
}

// ---- Atomic -----------------------------------------------------------------

fn batches_of_one_append_are_stored_all_or_none<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(2)));
    append(&*store, placed(3, "u", 0, &[("30", 1), ("31", 1)])).unwrap();
    close(&*store, 4).unwrap();
    let refused = [
        (batch(4, &[("40", 1)]), AppendRefusal::AgencyDone),
        (placed(3, "u", 3, &[("33", 1)]), AppendRefusal::Gap { next_row: 2 }),
        (placed(3, "u", 0, &[("other", 1)]), AppendRefusal::Conflict),
    ];
    for (bad, refusal) in refused {
        let good = placed(1, "u", 0, &[("10", 1), ("11", 1)]);
        let also_good = batch(2, &[("20", 1)]);
        for batches in [
            vec![good.clone(), bad.clone()],
            vec![bad.clone(), good.clone()],
            vec![good.clone(), also_good.clone(), bad.clone(), also_good.clone()],
        ] {
            assert_eq!(append_all(&*store, batches), Err(refusal));
            assert_eq!(stored(&*store), 2, "nothing of the append is stored");
            assert_eq!(next_row(&*store, 1, "u"), 0);
        }
    }
    let whole = vec![placed(1, "u", 0, &[("10", 1), ("11", 1)]), batch(2, &[("20", 1)])];
    assert_eq!(append_all(&*store, whole), Ok(()), "what was undone can be stored");
    assert_eq!(stored(&*store), 5);
    assert_eq!(close_counted(&*store, 1, Some(2)), Ok(()));
}

fn a_refused_append_takes_no_other_with_it<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(9)));
    close(&*store, 2).unwrap();
    // Submitted together, so that an engine that commits in groups groups them; the
    // refused are those of no regular order, so that none passes for another.
    let is_refused = |i: u32| i.is_power_of_two();
    let tickets: Vec<Ticket<Appended>> = (0..30_u32)
        .map(|i| {
            let agency = if is_refused(i) { 2 } else { 1 };
            store.append(vec![batch(agency, &[(&i.to_string(), 1)])]).unwrap()
        })
        .collect();
    for (i, ticket) in (0..).zip(tickets) {
        let expected = if is_refused(i) { Err(AppendRefusal::AgencyDone) } else { Ok(()) };
        assert_eq!(ticket.wait().unwrap(), expected, "append {i}");
    }
    assert_eq!(stored(&*store), 25);
}

fn an_empty_batch_stores_nothing<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(INFERRED);
    assert_eq!(append(&*store, batch(9, &[])), Ok(()));
    assert_eq!(append(&*store, placed(9, "u", 0, &[])), Ok(()));
    assert_eq!(append_all(&*store, vec![]), Ok(()));
    assert_eq!(stored(&*store), 0);
    assert_eq!(standing(&*store).expected, 0, "an agency without a bet is not seen");
    assert_eq!(next_row(&*store, 9, "u"), 0);
    assert_eq!(append(&*store, placed(9, "u", 0, &[("1", 1)])), Ok(()), "the place is free");
    assert_eq!(append(&*store, placed(9, "u", 1, &[])), Ok(()));
    assert_eq!(next_row(&*store, 9, "u"), 1);
    assert_eq!(stored(&*store), 1);
}

// ---- Exactly once -----------------------------------------------------------

fn a_batch_at_its_place_is_stored_once_however_often_it_is_sent<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    let batches = [placed(1, "u", 0, &[("1", WINS), ("2", 1)]), placed(1, "u", 2, &[("3", WINS)])];
    for _ in 0..3 {
        for batch in &batches {
            assert_eq!(append(&*store, batch.clone()), Ok(()));
        }
        assert_eq!(append_all(&*store, batches.to_vec()), Ok(()));
    }
    assert_eq!(stored(&*store), 3);
    assert_eq!(close_counted(&*store, 1, Some(3)), Ok(()));
    assert_eq!(documents(&winners(&*store, 1)), ["1", "3"]);
}

fn a_batch_sent_from_many_threads_at_once_is_stored_once<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    let start = Barrier::new(8);
    let store = &store.store;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for first_row in 0..10 {
                    let document = first_row.to_string();
                    let batch = placed(1, "u", first_row, &[(&document, 1)]);
                    assert_eq!(append(store, batch), Ok(()));
                }
            });
        }
    });
    assert_eq!(stored(store), 10);
    assert_eq!(close_counted(store, 1, Some(10)), Ok(()));
}

fn without_a_place_the_same_batch_is_stored_each_time<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    for _ in 0..3 {
        assert_eq!(append(&*store, batch(1, &[("1", WINS)])), Ok(()));
    }
    assert_eq!(close_counted(&*store, 1, Some(3)), Ok(()));
    assert_eq!(documents(&winners(&*store, 1)), ["1", "1", "1"]);
}

fn other_rows_at_a_stored_place_are_a_conflict<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    let rows = [("0", 1), ("1", 1), ("2", 1), ("3", 1)];
    append(&*store, placed(1, "u", 0, &rows)).unwrap();
    append(&*store, placed(1, "u", 4, &[("4", 1)])).unwrap();
    let cases: &[(&str, u64, &[Row<'_>])] = &[
        ("another document", 0, &[("0", 1), ("1", 1), ("2", 1), ("x", 1)]),
        ("another number", 0, &[("0", 2), ("1", 1), ("2", 1), ("3", 1)]),
        ("another order", 0, &[("1", 1), ("0", 1), ("2", 1), ("3", 1)]),
        ("a leading zero", 0, &[("00", 1), ("1", 1), ("2", 1), ("3", 1)]),
        ("no row", 0, &[]),
        ("the first half", 0, &rows[..2]),
        ("the second half", 2, &rows[2..]),
        ("a piece inside", 1, &rows[1..3]),
        ("over the end", 2, &[("2", 1), ("3", 1), ("4", 1)]),
        ("both batches as one", 0, &[("0", 1), ("1", 1), ("2", 1), ("3", 1), ("4", 1)]),
        ("more than the last", 4, &[("4", 1), ("5", 1)]),
    ];
    for (what, first_row, rows) in cases {
        let outcome = append(&*store, placed(1, "u", *first_row, rows));
        assert_eq!(outcome, Err(AppendRefusal::Conflict), "{what}");
        assert_eq!(stored(&*store), 5, "{what}");
        assert_eq!(next_row(&*store, 1, "u"), 5, "{what}");
    }
}

fn a_hole_is_refused_with_the_row_to_go_on_with<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    for next_row in 0..4 {
        for first_row in [next_row + 1, next_row + 2, 99, i64::MAX as u64] {
            assert_eq!(
                append(&*store, placed(1, "u", first_row, &[("x", 1)])),
                Err(AppendRefusal::Gap { next_row })
            );
            assert_eq!(stored(&*store), next_row, "nothing of it is stored");
        }
        append(&*store, placed(1, "u", next_row, &[("y", 1)])).unwrap();
    }
    for (agency, name) in [(1, "other"), (2, "u")] {
        assert_eq!(
            append(&*store, placed(agency, name, 4, &[("x", 1)])),
            Err(AppendRefusal::Gap { next_row: 0 }),
            "rows of another upload fill no hole"
        );
    }
}

fn the_next_row_is_where_the_upload_ends<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    assert_eq!(next_row(&*store, 1, "u"), 0, "an upload that was never begun");
    append(&*store, placed(1, "u", 0, &[("1", 1), ("2", 1)])).unwrap();
    assert_eq!(next_row(&*store, 1, "u"), 2);
    append(&*store, batch(1, &[("3", 1)])).unwrap();
    assert_eq!(next_row(&*store, 1, "u"), 2, "a batch without a place is in no upload");
    append(&*store, placed(1, "u", 2, &[("4", 1), ("5", 1), ("6", 1)])).unwrap();
    append(&*store, placed(1, "u", 5, &[("7", 1)])).unwrap();
    assert_eq!(next_row(&*store, 1, "u"), 6);
    assert_eq!(next_row(&*store, 1, "U"), 0, "names differ by case");
    assert_eq!(next_row(&*store, 2, "u"), 0);
    close(&*store, 1).unwrap();
    assert_eq!(next_row(&*store, 1, "u"), 6, "it can be asked after the draw");
}

fn the_same_upload_name_of_two_agencies_is_two_uploads<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(2)));
    append(&*store, placed(1, "u", 0, &[("1", 1)])).unwrap();
    assert_eq!(append(&*store, placed(2, "u", 0, &[("other", 1), ("rows", 1)])), Ok(()));
    assert_eq!(append(&*store, placed(1, "u", 1, &[("2", 1)])), Ok(()));
    assert_eq!(append(&*store, placed(2, "u", 1, &[("2", 1)])), Err(AppendRefusal::Conflict));
    assert_eq!((next_row(&*store, 1, "u"), next_row(&*store, 2, "u")), (2, 2));
    assert_eq!(close_counted(&*store, 1, Some(2)), Ok(()));
    assert_eq!(close_counted(&*store, 2, Some(2)), Ok(()));
}

// ---- Closed means closed ----------------------------------------------------

fn an_agency_that_is_done_bets_no_more<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(2)));
    append(&*store, placed(1, "u", 0, &[("1", 1)])).unwrap();
    close(&*store, 1).unwrap();
    for late in [batch(1, &[("2", 1)]), placed(1, "u", 1, &[("2", 1)]), placed(1, "v", 0, &[("2", 1)])] {
        assert_eq!(append(&*store, late), Err(AppendRefusal::AgencyDone));
    }
    assert_eq!(stored(&*store), 1);
    assert_eq!(append(&*store, batch(2, &[("3", 1)])), Ok(()), "another agency may");
    assert_eq!(stored(&*store), 2);
}

fn nobody_bets_in_a_draw_that_is_made<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    append(&*store, placed(1, "u", 0, &[("1", WINS)])).unwrap();
    close(&*store, 1).unwrap();
    for late in [
        // Agency 1 is also done: the draw is the reason that it gets.
        batch(1, &[("2", WINS)]),
        placed(1, "u", 1, &[("2", WINS)]),
        batch(2, &[("2", WINS)]),
        placed(2, "u", 0, &[("2", WINS)]),
    ] {
        assert_eq!(append(&*store, late), Err(AppendRefusal::DrawClosed));
    }
    assert_eq!(stored(&*store), 1);
    assert_eq!(documents(&winners(&*store, 1)), ["1"]);
    assert_eq!(documents(&winners(&*store, 2)), [""; 0]);
}

fn a_stored_batch_repeated_after_betting_closed_is_still_acknowledged<S: Store>(
    open: impl Fn(Setup) -> Opened<S>,
) {
    let store = open(expecting(Some(2)));
    let first = placed(1, "u", 0, &[("1", WINS)]);
    let second = placed(1, "u", 1, &[("2", WINS)]);
    append_all(&*store, vec![first.clone(), second.clone()]).unwrap();
    for closes in [1, 2] {
        close(&*store, closes).unwrap();
        assert_eq!(append(&*store, first.clone()), Ok(()), "after {closes} is done");
        assert_eq!(append(&*store, second.clone()), Ok(()), "after {closes} is done");
        assert_eq!(append(&*store, placed(1, "u", 0, &[("other", WINS)])), Err(AppendRefusal::Conflict));
        assert_eq!(stored(&*store), 2);
    }
    assert!(standing(&*store).drawn);
    assert_eq!(documents(&winners(&*store, 1)), ["1", "2"]);
}

fn a_wrong_count_closes_nothing<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    assert_eq!(close_counted(&*store, 1, Some(1)), Err(CloseRefusal::CountMismatch { stored: 0 }));
    append(&*store, placed(1, "u", 0, &[("1", 1), ("2", 1)])).unwrap();
    append(&*store, placed(1, "u", 0, &[("1", 1), ("2", 1)])).unwrap();
    append(&*store, batch(1, &[("3", 1)])).unwrap();
    append(&*store, batch(2, &[("4", 1)])).unwrap();
    for wrong in [0, 2, 4, 5, u64::MAX] {
        assert_eq!(close_counted(&*store, 1, Some(wrong)), Err(CloseRefusal::CountMismatch { stored: 3 }));
        let now = standing(&*store);
        assert_eq!((now.done, now.drawn), (0, false), "after the count {wrong}");
    }
    assert_eq!(append(&*store, batch(1, &[("5", 1)])), Ok(()), "it is not done");
    assert_eq!(close_counted(&*store, 1, Some(4)), Ok(()));
    assert!(standing(&*store).drawn);
}

fn closing_again_changes_nothing<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(2)));
    append(&*store, batch(1, &[("1", 1)])).unwrap();
    for (count, told) in [
        (None, Closing::Now),
        (Some(1), Closing::AlreadyDone),
        (None, Closing::AlreadyDone),
        (Some(1), Closing::AlreadyDone),
    ] {
        assert_eq!(closing(&*store, 1, count), Ok(told));
        let now = standing(&*store);
        assert_eq!((now.done, now.drawn), (1, false), "one agency is done, once");
    }
    assert_eq!(close_counted(&*store, 1, Some(2)), Err(CloseRefusal::CountMismatch { stored: 1 }));
    assert_eq!(standing(&*store).done, 1, "a wrong count later opens nothing");
    assert_eq!(close_counted(&*store, 2, Some(0)), Ok(()), "an agency without a bet");
    let drawn = standing(&*store);
    assert_eq!((drawn.done, drawn.drawn), (2, true));
    for agency in [1, 2, 3] {
        assert_eq!(closing(&*store, agency, None), Ok(Closing::AlreadyDone), "after the draw");
        assert_eq!(standing(&*store), drawn);
    }
    assert_eq!(store.draws_made(), 1);
}

// ---- When the draw happens --------------------------------------------------

fn the_draw_is_made_when_as_many_distinct_agencies_as_told_are_done<S: Store>(
    open: impl Fn(Setup) -> Opened<S>,
) {
    let store = open(expecting(Some(3)));
    append(&*store, batch(8, &[("80", WINS)])).unwrap();
    for (agency, done) in [(0, 1), (0, 1), (u32::MAX, 2), (0, 2), (u32::MAX, 2)] {
        close(&*store, agency).unwrap();
        let now = standing(&*store);
        assert_eq!((now.done, now.expected, now.drawn), (done, 3, false), "after {agency}");
    }
    close(&*store, 7).unwrap();
    let now = standing(&*store);
    assert_eq!((now.done, now.expected, now.drawn), (3, 3, true));
    assert_eq!(documents(&winners(&*store, 8)), ["80"], "one that is not done wins too");
    assert_eq!(store.draws_made(), 1);
}

fn an_inferred_draw_is_made_when_all_of_one_to_the_highest_seen_are_done<S: Store>(
    open: impl Fn(Setup) -> Opened<S>,
) {
    /// The agencies that bet first, and those that are then done, in order; the last completes the draw.
    struct Case {
        bet: &'static [u32],
        done: &'static [u32],
        expected: u64,
    }
    let cases = [
        Case { bet: &[], done: &[1], expected: 1 },
        Case { bet: &[3], done: &[1, 2, 3], expected: 3 },
        Case { bet: &[1, 2, 3], done: &[3, 1, 2], expected: 3 },
        // The highest is seen by its being done.
        Case { bet: &[], done: &[3, 2, 1], expected: 3 },
        Case { bet: &[2], done: &[4, 2, 3, 1], expected: 4 },
        // Agency 0 is none of 1 to N.
        Case { bet: &[0, 2], done: &[0, 2, 1], expected: 2 },
        Case { bet: &[], done: &[0, 2, 0, 2, 1], expected: 2 },
    ];
    for Case { bet, done, expected } in cases {
        let store = open(INFERRED);
        for agency in bet {
            append(&*store, batch(*agency, &[("1", 1)])).unwrap();
        }
        for agency in done {
            let before = standing(&*store);
            assert!(!before.drawn, "bets of {bet:?}, before {agency} of {done:?} is done");
            close(&*store, *agency).unwrap();
        }
        let now = standing(&*store);
        assert_eq!((now.drawn, now.expected), (true, expected), "{bet:?}, {done:?}");
        assert_eq!(store.draws_made(), 1, "{bet:?}, {done:?}");
    }
}

fn agency_zero_alone_never_draws_an_inferred_draw<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(INFERRED);
    close(&*store, 0).unwrap();
    assert!(!standing(&*store).drawn);
    let other = open(INFERRED);
    append(&*other, batch(0, &[("1", 1)])).unwrap();
    close(&*other, 0).unwrap();
    let now = standing(&*other);
    assert_eq!((now.drawn, now.expected, now.done), (false, 0, 0));
    assert_eq!(store.draws_made() + other.draws_made(), 0);
}

fn a_bet_of_a_higher_agency_holds_an_inferred_draw_back<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(INFERRED);
    append(&*store, batch(2, &[("2", 1)])).unwrap();
    close(&*store, 1).unwrap();
    append(&*store, batch(3, &[("3", 1)])).unwrap();
    close(&*store, 2).unwrap();
    let now = standing(&*store);
    assert_eq!((now.drawn, now.expected, now.done), (false, 3, 2));
    close(&*store, 3).unwrap();
    assert!(standing(&*store).drawn);
}

fn a_draw_of_certain_agencies_admits_no_other_and_waits_for_all<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(Setup { agencies: Some("0-1,7".parse().unwrap()), ..Setup::default() });
    let unknown = NotAdmitted::Unknown;
    for stranger in [2, 6, 8, u32::MAX] {
        let bets = batch(stranger, &[("1", WINS)]);
        assert_eq!(append(&*store, bets.clone()), Err(AppendRefusal::NotAdmitted(unknown)));
        assert_eq!(
            append_all(&*store, vec![batch(7, &[("2", 1)]), bets]),
            Err(AppendRefusal::NotAdmitted(unknown))
        );
        assert_eq!(close(&*store, stranger), Err(CloseRefusal::NotAdmitted(unknown)));
        assert_eq!(close_counted(&*store, stranger, Some(5)), Err(CloseRefusal::NotAdmitted(unknown)));
    }
    assert_eq!((stored(&*store), standing(&*store).done, standing(&*store).expected), (0, 0, 3));
    for agency in [7, 0] {
        append(&*store, batch(agency, &[("3", WINS)])).unwrap();
        close_counted(&*store, agency, Some(1)).unwrap();
        assert!(!standing(&*store).drawn);
    }
    close(&*store, 1).unwrap();
    assert!(standing(&*store).drawn);
    assert_eq!(standing(&*store).winners, 2);
    assert_eq!(close(&*store, 2), Ok(()), "after the draw there is nothing to close");
}

fn a_draw_admits_so_many_agencies_and_no_more<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let too_many = NotAdmitted::TooMany;
    let store = open(Setup { agencies_max: Some(3), ..expecting(Some(2)) });
    append(&*store, batch(50, &[("1", 1)])).unwrap();
    close(&*store, 4_000_000_000).unwrap();
    let two_more = || vec![batch(8, &[("2", 1)]), batch(9, &[("3", 1)])];
    assert_eq!(append_all(&*store, two_more()), Err(AppendRefusal::NotAdmitted(too_many)));
    assert_eq!(append(&*store, batch(9, &[("3", 1)])), Ok(()), "the third; nothing of the payload counts");
    assert_eq!(append(&*store, batch(8, &[("2", 1)])), Err(AppendRefusal::NotAdmitted(too_many)));
    assert_eq!(append(&*store, batch(8, &[])), Err(AppendRefusal::NotAdmitted(too_many)));
    assert_eq!(close(&*store, 8), Err(CloseRefusal::NotAdmitted(too_many)));
    assert_eq!(append(&*store, batch(50, &[("4", 1)])), Ok(()), "who takes part already goes on");
    assert_eq!(close_counted(&*store, 50, Some(2)), Ok(()));
    assert!(standing(&*store).drawn);

    // A draw that waits for more admits as many as it waits for.
    let store = open(Setup { agencies_max: Some(1), ..expecting(Some(2)) });
    close(&*store, 5).unwrap();
    close(&*store, 6).unwrap();
    assert!(standing(&*store).drawn);
}

fn a_number_beyond_the_limit_does_not_hold_an_inferred_draw_back<S: Store>(
    open: impl Fn(Setup) -> Opened<S>,
) {
    let store = open(Setup { agencies_max: Some(2), ..INFERRED });
    let too_many = NotAdmitted::TooMany;
    assert_eq!(close(&*store, u32::MAX), Err(CloseRefusal::NotAdmitted(too_many)));
    assert_eq!(append(&*store, batch(3, &[("1", 1)])), Err(AppendRefusal::NotAdmitted(too_many)));
    close(&*store, 2).unwrap();
    assert_eq!((standing(&*store).done, standing(&*store).expected), (1, 2));
    close(&*store, 1).unwrap();
    assert!(standing(&*store).drawn);
}

/// Rounds of the tests that race threads against each other.
const ROUNDS: u32 = 50;
/// Threads of each round.
const THREADS: u32 = 16;

fn threads_that_close_at_the_same_moment_make_one_draw<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    for round in 0..ROUNDS {
        // In turn: the last of all makes the draw, each alone could, and all close one agency.
        let (expected, agency_of): (u32, fn(u32) -> u32) = match round % 3 {
            0 => (THREADS, |thread| thread + 1),
            1 => (1, |thread| thread + 1),
            _ => (1, |_| 1),
        };
        let opened = open(expecting(Some(expected)));
        let bets: Vec<Batch> = (0..THREADS)
            .map(|thread| batch(thread + 1, &[(&thread.to_string(), WINS), ("loses", 1)]))
            .collect();
        append_all(&*opened, bets).unwrap();
        let start = Barrier::new(THREADS as usize);
        let store = &opened.store;
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(close(store, agency_of(thread)), Ok(()));
                });
            }
        });
        assert_eq!(opened.draws_made(), 1, "round {round}");
        let now = standing(store);
        assert!(now.drawn, "round {round}");
        assert_eq!(now.winners, u64::from(THREADS), "round {round}");
        for thread in 0..THREADS {
            assert_eq!(documents(&winners(store, thread + 1)), [thread.to_string()]);
        }
    }
}

fn a_bet_that_races_with_the_draw_is_in_it_or_refused<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    for round in 0..ROUNDS {
        let opened = open(expecting(Some(1)));
        let start = Barrier::new(THREADS as usize);
        let store = &opened.store;
        let acknowledged: Vec<u32> = thread::scope(|scope| {
            let bettors: Vec<_> = (1..THREADS)
                .map(|agency| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        let outcome = append(store, batch(agency, &[(&agency.to_string(), WINS)]));
                        match outcome {
                            Ok(()) => Some(agency),
                            Err(AppendRefusal::DrawClosed) => None,
                            other => panic!("agency {agency} was answered {other:?}"),
                        }
                    })
                })
                .collect();
            start.wait();
            assert_eq!(close(store, 0), Ok(()));
            let outcomes = bettors.into_iter().map(|thread| thread.join().unwrap());
            outcomes.collect::<Vec<_>>().into_iter().flatten().collect()
        });
        let now = standing(store);
        assert_eq!(now.bets, acknowledged.len() as u64, "round {round}");
        assert_eq!(now.winners, now.bets, "round {round}: every stored bet won");
        for agency in 1..THREADS {
            let expected = acknowledged.contains(&agency);
            assert_eq!(winners(store, agency).len(), usize::from(expected), "round {round}");
        }
    }
}

// ---- Who won ----------------------------------------------------------------

fn winners_are_exactly_the_bets_with_the_winning_number<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    for (told, winning) in [(None, 7574), (Some(0), 0), (Some(u32::MAX), u32::MAX)] {
        let store = open(Setup { winning_number: told, ..expecting(Some(1)) });
        let near = [winning.wrapping_sub(1), winning.wrapping_add(1), winning / 2 + 7];
        append(&*store, batch(1, &[("a", winning), ("b", near[0]), ("c", winning)])).unwrap();
        append(&*store, batch(2, &[("d", winning), ("e", near[1])])).unwrap();
        append(&*store, batch(1, &[("f", near[2]), ("a", winning)])).unwrap();
        append(&*store, batch(3, &[("g", near[0])])).unwrap();
        assert_eq!(standing(&*store).winners, 0, "there are no winners before the draw");
        assert_eq!(winners(&*store, 1), []);
        close(&*store, 1).unwrap();
        let now = standing(&*store);
        assert_eq!((now.winners, now.winning_number), (4, winning));
        assert_eq!(documents(&winners(&*store, 1)), ["a", "c", "a"], "{winning}");
        assert_eq!(documents(&winners(&*store, 2)), ["d"], "{winning}");
        assert_eq!(winners(&*store, 3), [], "{winning}");
        assert_eq!(winners(&*store, 99), [], "an agency that sent nothing");
        assert!(winners(&*store, 1).iter().all(|bet| bet.number == winning));
    }
}

fn winners_are_paged_in_stored_order<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    let mut expected = Vec::new();
    for i in 0..40 {
        // Documents fall while bets are stored, and agencies alternate, so that
        // neither the order of documents nor dense ids will do.
        let document = (9000 - i).to_string();
        let number = if i % 3 == 0 { 1 } else { WINS };
        append(&*store, batch(1 + i % 2, &[(&document, number), ("loses", 2)])).unwrap();
        if i % 2 == 0 && number == WINS {
            expected.push(document);
        }
    }
    close(&*store, 1).unwrap();
    let all = winners(&*store, 1);
    assert_eq!(documents(&all), expected);
    assert!(all.is_sorted_by(|a, b| a.id < b.id), "ids rise in stored order");
    let draw = standing(&*store).draw;
    for bets_max in [1, 2, 5, 12, 13, 14, 1000] {
        let (mut paged, mut after) = (Vec::new(), 0);
        loop {
            let page = store.winners(draw, AgencyId(1), after, bets_max).unwrap();
            assert!(page.len() <= bets_max);
            let Some(last) = page.last() else { break };
            after = last.id;
            paged.extend(page);
            assert!(paged.len() <= all.len(), "a page repeats what was on another");
        }
        assert_eq!(paged, all, "in pages of {bets_max}");
    }
    assert_eq!(store.winners(draw, AgencyId(1), 0, 0).unwrap(), []);
    assert_eq!(store.winners(draw, AgencyId(1), i64::MAX as u64, 9).unwrap(), []);
    assert_eq!(
        store.winners(DrawId(draw.0 + 1), AgencyId(1), 0, 9).unwrap(),
        [],
        "another draw has other winners"
    );
}

fn the_size_of_the_winners_is_counted_in_bytes<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    let mut mixed = Bets::default();
    mixed.push(["Ñandú", "Ávila", "007", "2000-02-29", "7574"]).unwrap();
    mixed.push(["Ana", "Paz", "12", "1999-03-17", "7574"]).unwrap();
    mixed.push(["Eva", "Sol", "13", "1999-03-17", "1"]).unwrap();
    let batch_of = |agency, bets| Batch { agency: AgencyId(agency), bets, position: None };
    append(&*store, batch_of(1, mixed)).unwrap();
    append(&*store, batch(2, &[("123456", WINS)])).unwrap();
    close(&*store, 1).unwrap();
    let draw = standing(&*store).draw;
    let size = |agency| store.winners_size(draw, AgencyId(agency)).unwrap();
    // "Ñandú" and "Ávila" have five letters each, and 7 and 6 bytes.
    let text_bytes = (7 + 6 + 3 + 10) + (3 + 3 + 2 + 10);
    assert_eq!(size(1), WinnersSize { bets: 2, text_bytes });
    assert_eq!(size(2), WinnersSize { bets: 1, text_bytes: 3 + 3 + 6 + 10 });
    assert_eq!(size(3), WinnersSize::default());
    let elsewhere = store.winners_size(DrawId(draw.0 + 1), AgencyId(1)).unwrap();
    assert_eq!(elsewhere, WinnersSize::default());
}

fn a_winning_bet_comes_back_as_it_was_sent<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let long_name = "ñ".repeat(60);
    let long_document = "9".repeat(32);
    let rows: [[&str; 5]; 5] = [
        ["Ana", "Paz", "007", "1999-03-17", "7574"],
        ["Ana", "Paz", "7", "1999-03-17", "7574"],
        ["Ñandú 'x' \"y\"; --", "O'Higgins", "00", "2000-02-29", "7574"],
        [&long_name, &long_name, &long_document, "0001-01-01", "007574"],
        ["🎲", "1.50", "1e3", "9999-12-31", "7574"],
    ];
    let mut bets = Bets::default();
    for row in rows {
        bets.push(row).unwrap();
    }
    let store = open(expecting(Some(1)));
    let batch = Batch { agency: AgencyId(1), bets, position: None };
    append(&*store, batch).unwrap();
    close(&*store, 1).unwrap();
    let back = winners(&*store, 1);
    assert_eq!(back.len(), rows.len());
    for (bet, row) in back.iter().zip(rows) {
        let fields = [bet.first_name.as_str(), &bet.last_name, &bet.document, &bet.birthdate];
        assert_eq!(fields, row[..4], "text stays text: leading zeros count");
        assert_eq!(bet.number, 7574);
    }
}

fn the_largest_agency_and_number_are_kept<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    const MAX: u32 = u32::MAX;
    let store = open(Setup { winning_number: Some(MAX), ..expecting(Some(1)) });
    append(&*store, placed(MAX, "u", 0, &[("1", MAX), ("2", 0)])).unwrap();
    assert_eq!(next_row(&*store, MAX, "u"), 2);
    assert_eq!(close_counted(&*store, MAX, Some(2)), Ok(()));
    let now = standing(&*store);
    assert_eq!((now.drawn, now.winning_number, now.winners), (true, MAX, 1));
    let won = winners(&*store, MAX);
    assert_eq!((won[0].document.as_str(), won[0].number), ("1", MAX));
    let inferred = open(Setup { agencies_max: Some(MAX.into()), ..INFERRED });
    append(&*inferred, batch(MAX, &[("1", 1)])).unwrap();
    close(&*inferred, MAX).unwrap();
    let now = standing(&*inferred);
    assert_eq!((now.expected, now.done, now.drawn), (u64::from(MAX), 1, false));
}

// ---- The status, and order ---------------------------------------------------

fn the_standing_tells_every_field<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(Setup { winning_number: Some(5), ..expecting(Some(2)) });
    let draw = standing(&*store).draw;
    let fresh =
        DrawStatus { draw, drawn: false, done: 0, expected: 2, bets: 0, winners: 0, winning_number: 5 };
    let stands = |expected: DrawStatus| {
        assert_eq!(standing(&*store), expected);
        assert_eq!(store.draw(draw).unwrap(), Some(expected));
    };
    stands(fresh);
    append(&*store, batch(1, &[("1", 5), ("2", 6), ("3", 5)])).unwrap();
    stands(DrawStatus { bets: 3, ..fresh });
    close(&*store, 1).unwrap();
    stands(DrawStatus { bets: 3, done: 1, ..fresh });
    append(&*store, batch(2, &[("4", 5)])).unwrap();
    close(&*store, 2).unwrap();
    stands(DrawStatus { bets: 4, done: 2, drawn: true, winners: 3, ..fresh });
    let inferred = open(INFERRED);
    assert_eq!(standing(&*inferred), DrawStatus { expected: 0, winning_number: 7574, ..fresh });
    append(&*inferred, batch(4, &[("1", 5)])).unwrap();
    assert_eq!(standing(&*inferred).expected, 4);
}

fn there_is_no_draw_that_was_not_opened<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(INFERRED);
    let draw = standing(&*store).draw;
    for unknown in [draw.0 + 1, draw.0 - 1, -1, i64::MAX, i64::MIN] {
        assert_eq!(store.draw(DrawId(unknown)).unwrap(), None, "{unknown}");
    }
    assert!(store.draw(draw).unwrap().is_some());
}

fn what_names_a_draw_that_was_not_opened_changes_nothing<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    let draw = standing(&*store).draw;
    let in_draw = |draw| {
        let mut batch = placed(1, "u", 0, &[("1", 1)]);
        batch.position.as_mut().unwrap().draw = Some(draw);
        batch
    };
    let close = |draw| store.close_agency_from(Submitter(1), AgencyId(1), None, Some(draw)).unwrap().wait();
    for unknown in [draw.0 + 1, draw.0 - 1, -1, i64::MAX, i64::MIN].map(DrawId) {
        assert_eq!(append(&*store, in_draw(unknown)), Err(AppendRefusal::NoSuchDraw), "{unknown}");
        assert_eq!(close(unknown), Ok(Err(CloseRefusal::NoSuchDraw)), "{unknown}");
    }
    assert_eq!((stored(&*store), standing(&*store).done), (0, 0));
    assert_eq!(append(&*store, in_draw(draw)), Ok(()));
    assert_eq!(close(draw), Ok(Ok(Closing::Now)));
    assert_eq!((stored(&*store), standing(&*store).drawn), (1, true));
}

fn writes_of_one_submitter_are_carried_out_in_order<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(1)));
    // No ticket is waited for before all is submitted. Each batch is good only
    // if the one before it is stored already, and the last only refused if the
    // close before it holds.
    let mut tickets: Vec<Ticket<Appended>> = (0..50_u64)
        .map(|row| {
            let document = row.to_string();
            store.append(vec![placed(1, "u", row, &[(&document, WINS)])]).unwrap()
        })
        .collect();
    let closed = store.close_agency(AgencyId(1), Some(50)).unwrap();
    let late = store.append(vec![batch(1, &[("late", WINS)])]).unwrap();
    for (row, ticket) in tickets.drain(..).enumerate() {
        assert_eq!(ticket.wait(), Ok(Ok(())), "row {row}");
    }
    assert_eq!(closed.wait(), Ok(Ok(Closing::Now)));
    assert_eq!(late.wait(), Ok(Err(AppendRefusal::DrawClosed)));
    let expected: Vec<String> = (0..50).map(|row| row.to_string()).collect();
    assert_eq!(documents(&winners(&*store, 1)), expected);
}

fn a_read_sees_every_write_that_has_resolved<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(expecting(Some(4)));
    let store = &store.store;
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for agency in 1..=4 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for row in 0..50 {
                    let before = stored(store);
                    append(store, placed(agency, "u", row, &[("1", WINS)])).unwrap();
                    assert_eq!(next_row(store, agency, "u"), row + 1);
                    assert!(stored(store) > before);
                }
                let done = standing(store).done;
                close(store, agency).unwrap();
                assert!(standing(store).done > done);
            });
        }
    });
    assert_eq!(stored(store), 200);
    assert_eq!(winners(store, 3).len(), 50, "the draw is seen at once");
}

fn many_agencies_at_once_lose_and_double_nothing<S: Store>(open: impl Fn(Setup) -> Opened<S>) {
    let opened = open(expecting(Some(8)));
    let store = &opened.store;
    thread::scope(|scope| {
        for agency in 1..=8_u32 {
            scope.spawn(move || {
                for row in 0..25_u64 {
                    let (a, b) = (format!("{agency}-{row}-a"), format!("{agency}-{row}-b"));
                    let batch = placed(agency, "u", row * 2, &[(&a, WINS), (&b, 1)]);
                    // Every third is sent twice without waiting, as after a lost answer.
                    let again = (row % 3 == 0).then(|| store.append(vec![batch.clone()]).unwrap());
                    append(store, batch).unwrap();
                    if let Some(ticket) = again {
                        assert_eq!(ticket.wait(), Ok(Ok(())));
                    }
                }
                assert_eq!(close_counted(store, agency, Some(50)), Ok(()));
            });
        }
    });
    let now = standing(store);
    assert_eq!((now.bets, now.winners, now.drawn), (400, 200, true));
    let mut ids = HashSet::new();
    for agency in 1..=8 {
        let won = winners(store, agency);
        let expected: Vec<String> = (0..25).map(|row| format!("{agency}-{row}-a")).collect();
        assert_eq!(documents(&won), expected);
        ids.extend(won.iter().map(|bet| bet.id));
    }
    assert_eq!(ids.len(), 200, "a bet is one agency's");
}

// ---- Tokens -----------------------------------------------------------------

/// An engine to whose tokens a test can do what an operator does, beside the server.
trait WithTokens: Store {
    /// Adds a token.
    fn add(&self, database: &Path, holder: TokenHolder, expires_at: Option<SystemTime>) -> Token;

    fn revoke(&self, database: &Path, token: &Token);

    /// Lets it expire at another time, as a rotation does.
    fn expire(&self, database: &Path, token: &Token, at: SystemTime);
}

impl<S: WithTokens> Opened<S> {
    fn add(&self, holder: TokenHolder, expires_at: Option<SystemTime>) -> Token {
        self.store.add(&self.database, holder, expires_at)
    }

    fn revoke(&self, token: &Token) {
        self.store.revoke(&self.database, token);
    }

    fn expire(&self, token: &Token, at: SystemTime) {
        self.store.expire(&self.database, token, at);
    }
}

/// A time that a store keeps to the last digit.
fn in_so_many(seconds: u64) -> SystemTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(now + seconds)
}

fn a_token_is_found_by_its_id_with_all_that_decides_whether_it_counts<S: WithTokens>(
    open: impl Fn(Setup) -> Opened<S>,
) {
    let store = open(INFERRED);
    let unknown: TokenId = "0123456789abcdef".parse().unwrap();
    assert_eq!(store.tokens().find(&unknown), Ok(None));
    let end = in_so_many(60);
    for (holder, expires_at) in [
        (TokenHolder::Agency(AgencyId(0)), None),
        (TokenHolder::Agency(AgencyId(u32::MAX)), Some(end)),
        (TokenHolder::Operator(Role::Viewer), None),
        (TokenHolder::Operator(Role::Auditor), Some(end)),
        (TokenHolder::Operator(Role::Operator), None),
    ] {
        let token = store.add(holder, expires_at);
        let expected = StoredToken { holder, digest: token.digest(), expires_at, is_revoked: false };
        assert_eq!(store.tokens().find(&token.id()), Ok(Some(expected.clone())));
        assert!(expected.is_valid(SystemTime::now()));
        store.revoke(&token);
        let revoked = store.tokens().find(&token.id()).unwrap().unwrap();
        assert_eq!(revoked, StoredToken { is_revoked: true, ..expected });
        assert!(!revoked.is_valid(SystemTime::UNIX_EPOCH), "nor at a time before it was revoked");
    }
    assert_eq!(store.tokens().find(&unknown), Ok(None));
    let holder = TokenHolder::Operator(Role::Viewer);
    let expiring = StoredToken { holder, digest: [0; 32], expires_at: Some(end), is_revoked: false };
    assert!(expiring.is_valid(end - Duration::from_millis(1)) && !expiring.is_valid(end));
}

fn the_version_of_the_tokens_is_another_after_each_change<S: WithTokens>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(INFERRED);
    let mut versions = vec![store.tokens().version().unwrap()];
    let mut assert_another = |what: &str| {
        let version = store.tokens().version().unwrap();
        assert!(!versions.contains(&version), "{what} changes the version");
        assert_eq!(store.tokens().version(), Ok(version), "looking changes nothing");
        versions.push(version);
    };
    let [first, second] = [1, 2].map(|agency| {
        let token = store.add(TokenHolder::Agency(AgencyId(agency)), None);
        assert_another("adding a token");
        token
    });
    store.expire(&first, in_so_many(60));
    assert_another("another end");
    store.revoke(&first);
    assert_another("revoking a token");
    store.revoke(&second);
    assert_another("revoking another");
}

fn a_token_ends_when_it_expires_and_for_good_when_it_is_revoked<S: WithTokens>(
    open: impl Fn(Setup) -> Opened<S>,
) {
    let store = open(INFERRED);
    let [end, sooner] = [120, 60].map(in_so_many);
    let [endless, kept, cut, revoked, both] = [None, Some(end), Some(end), None, Some(end)]
        .map(|expires_at| store.add(TokenHolder::Agency(AgencyId(1)), expires_at));
    let assert_ends = |ends: &[(&Token, SystemTime)]| {
        let ends: BTreeMap<_, _> = ends.iter().map(|(token, end)| (token.id(), *end)).collect();
        let mut found = store.tokens().ends().unwrap();
        // One that takes the place of another ends too.
        let known = [&endless, &kept, &cut, &revoked, &both].map(|token| token.id());
        found.retain(|id, _| known.contains(id));
        assert_eq!(found, ends);
    };
    assert_ends(&[(&kept, end), (&cut, end), (&both, end)]);
    store.expire(&cut, sooner);
    store.revoke(&revoked);
    store.revoke(&both);
    let epoch = SystemTime::UNIX_EPOCH;
    assert_ends(&[(&kept, end), (&cut, sooner), (&revoked, epoch), (&both, epoch)]);
}

fn recording_uses_of_tokens_changes_nothing_that_counts<S: WithTokens>(open: impl Fn(Setup) -> Opened<S>) {
    let store = open(INFERRED);
    let token = store.add(TokenHolder::Agency(AgencyId(1)), None);
    let all = || (store.tokens().find(&token.id()), store.tokens().version(), store.tokens().ends());
    let before = all();
    let of = |id: TokenId| TokenUse { token: id, at: SystemTime::now() };
    let unknown: TokenId = "0123456789abcdef".parse().unwrap();
    for uses in [vec![], vec![of(token.id())], vec![of(token.id()), of(unknown.clone())]] {
        store.tokens().record_uses(uses).unwrap().wait().unwrap();
    }
    assert_eq!(all(), before);
    assert_eq!(store.tokens().find(&unknown), Ok(None));
}

// ---- Tickets ----------------------------------------------------------------

#[test]
fn a_ticket_whose_resolver_is_lost_is_unknown() {
    let (resolver, ticket) = Ticket::<()>::new();
    drop(resolver);
    assert_eq!(ticket.wait(), Err(StoreError::Unknown));
    let (resolver, ticket) = Ticket::new();
    resolver.resolve(Ok(7));
    assert_eq!(ticket.wait(), Ok(7));
    let (resolver, ticket) = Ticket::<()>::new();
    drop(ticket);
    resolver.resolve(Ok(()));
}

// ---- The engines ------------------------------------------------------------

/// Holds an engine to all of the above.
macro_rules! held_to_the_contract {
    ($engine:ident, $open:path) => {
        mod $engine {
            held_to_the_contract! { @each $open;
                batches_of_one_append_are_stored_all_or_none
                a_refused_append_takes_no_other_with_it
                an_empty_batch_stores_nothing
                a_batch_at_its_place_is_stored_once_however_often_it_is_sent
                a_batch_sent_from_many_threads_at_once_is_stored_once
                without_a_place_the_same_batch_is_stored_each_time
                other_rows_at_a_stored_place_are_a_conflict
                a_hole_is_refused_with_the_row_to_go_on_with
                the_next_row_is_where_the_upload_ends
                the_same_upload_name_of_two_agencies_is_two_uploads
                an_agency_that_is_done_bets_no_more
                nobody_bets_in_a_draw_that_is_made
                a_stored_batch_repeated_after_betting_closed_is_still_acknowledged
                a_wrong_count_closes_nothing
                closing_again_changes_nothing
                the_draw_is_made_when_as_many_distinct_agencies_as_told_are_done
                an_inferred_draw_is_made_when_all_of_one_to_the_highest_seen_are_done
                agency_zero_alone_never_draws_an_inferred_draw
                a_bet_of_a_higher_agency_holds_an_inferred_draw_back
                a_draw_of_certain_agencies_admits_no_other_and_waits_for_all
                a_draw_admits_so_many_agencies_and_no_more
                a_number_beyond_the_limit_does_not_hold_an_inferred_draw_back
                threads_that_close_at_the_same_moment_make_one_draw
                a_bet_that_races_with_the_draw_is_in_it_or_refused
                winners_are_exactly_the_bets_with_the_winning_number
                winners_are_paged_in_stored_order
                the_size_of_the_winners_is_counted_in_bytes
                a_winning_bet_comes_back_as_it_was_sent
                the_largest_agency_and_number_are_kept
                the_standing_tells_every_field
                there_is_no_draw_that_was_not_opened
                what_names_a_draw_that_was_not_opened_changes_nothing
                writes_of_one_submitter_are_carried_out_in_order
                a_read_sees_every_write_that_has_resolved
                many_agencies_at_once_lose_and_double_nothing
                a_token_is_found_by_its_id_with_all_that_decides_whether_it_counts
                the_version_of_the_tokens_is_another_after_each_change
                a_token_ends_when_it_expires_and_for_good_when_it_is_revoked
                recording_uses_of_tokens_changes_nothing_that_counts
            }
        }
    };
    (@each $open:path; $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                super::$test($open);
            }
        )*
    };
}

held_to_the_contract!(sqlite, super::open_sqlite);
held_to_the_contract!(memory, super::open_memory);

fn open_sqlite(setup: Setup) -> Opened<sorteo::store::sqlite::SqliteStore> {
    use sorteo::store::sqlite::{Event, Options, SqliteStore};

    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        agencies: setup.agencies,
        winning_number: setup.winning_number,
        agencies_max: setup.agencies_max.unwrap_or(AGENCIES_MAX),
        ..Options::new(folder.path().join("sorteo.db"))
    };
    let draws_made = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&draws_made);
    let observer = Arc::new(move |event| match event {
        Event::Drawn(_) => _ = told.fetch_add(1, Ordering::SeqCst),
        Event::Failed(error) => panic!("the store failed: {error}"),
    });
    let (store, _) = SqliteStore::open(&options, observer).unwrap();
    Opened { store, draws_made, database: options.database, _keep: Box::new(folder) }
}

/// The store that tests of other things stand on.
fn open_memory(setup: Setup) -> Opened<sorteo_test_support::memory_store::MemoryStore> {
    let draws_made = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&draws_made);
    let on_draw = move || _ = told.fetch_add(1, Ordering::SeqCst);
    let winning_number = setup.winning_number.unwrap_or(WINS);
    let store = sorteo_test_support::memory_store::MemoryStore::new(
        setup.agencies,
        setup.agencies_max.unwrap_or(AGENCIES_MAX),
        winning_number,
        on_draw,
    );
    Opened { store, draws_made, database: PathBuf::new(), _keep: Box::new(()) }
}

impl WithTokens for sorteo::store::sqlite::SqliteStore {
    fn add(&self, database: &Path, holder: TokenHolder, expires_at: Option<SystemTime>) -> Token {
        let new = NewToken { holder, label: String::new(), expires_at };
        Operator::open(database).unwrap().add_token(&new).unwrap()
    }

    fn revoke(&self, database: &Path, token: &Token) {
        Operator::open(database).unwrap().revoke_token(&token.id()).unwrap();
    }

    fn expire(&self, database: &Path, token: &Token, at: SystemTime) {
        Operator::open(database)
            .unwrap()
            .rotate_token(&token.id(), at, Some(SystemTime::now() + Duration::from_secs(86_400)))
            .unwrap();
    }
}

impl WithTokens for sorteo_test_support::memory_store::MemoryStore {
    fn add(&self, _: &Path, holder: TokenHolder, expires_at: Option<SystemTime>) -> Token {
        let number = self.version().unwrap() as u8;
        let token = Token::from_random([number; 8], [number; 32]);
        let stored = StoredToken { holder, digest: token.digest(), expires_at, is_revoked: false };
        self.set_token(token.id(), stored);
        token
    }

    fn revoke(&self, _: &Path, token: &Token) {
        let stored = self.find(&token.id()).unwrap().unwrap();
        self.set_token(token.id(), StoredToken { is_revoked: true, ..stored });
    }

    fn expire(&self, _: &Path, token: &Token, at: SystemTime) {
        let stored = self.find(&token.id()).unwrap().unwrap();
        self.set_token(token.id(), StoredToken { expires_at: Some(at), ..stored });
    }
}
