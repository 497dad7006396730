//! That the random conversations reach every kind of reply.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use sorteo_test_support::model::Lottery;

use super::{any_talk, default_limits};

#[test]
fn conversations_come_to_every_kind_of_answer() {
    let kinds = kinds_of_answers(200);
    let missing: Vec<_> = KINDS.iter().filter(|kind| !kinds.contains(**kind)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {kinds:#?}");
}

/// The kinds of the model's own replies: see [`kind`].
fn kinds_of_answers(lotteries: u32) -> BTreeSet<String> {
    let mut runner = TestRunner::deterministic();
    let talks = (option::of(1..4_u32), vec(any_talk(), 1..5));
    let mut kinds = BTreeSet::new();
    for _ in 0..lotteries {
        let (agencies, talks) = talks.new_tree(&mut runner).unwrap().current();
        let mut lottery = Lottery::new(agencies);
        for talk in talks {
            let answers = lottery.hear(&talk.bytes(), default_limits());
            kinds.extend(answers.answers.iter().map(|answer| kind(&answer.bytes)));
        }
    }
    kinds
}

/// An answer without what differs from one of its kind to the next.
fn kind(answer: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let without_digits = |text: String| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let [0, 0, _, _, line @ .., b'\n'] = answer else {
        let length_end = answer.iter().position(|b| *b == b'\n').unwrap();
        return match text(&answer[length_end + 1..]) {
            lines if lines.contains('|') && lines.lines().count() > 128 => "many lines".into(),
            lines if lines.contains('|') => "lines".into(),
            words => words,
        };
    };
    let line = text(line);
    match line.split('|').collect::<Vec<_>>()[..] {
        ["WINNERS", "OK", list] => format!("WINNERS|OK|{}", if list.is_empty() { "" } else { "list" }),
        ["WINNERS", "OK", list, _] => format!("WINNERS|OK|{}|", if list.is_empty() { "" } else { "list" }),
        _ => without_digits(line),
    }
}

const KINDS: &[&str] = &[
    "",
    "lines",
    "many lines",
    "ACK",
    "ERROR_EMPTY_BATCH",
    "ERROR_INVALID_BATCH",
    "ERROR_INVALID_GET_WINNERS",
    "ERROR_LOTTERY_HASNT_ENDED",
    "ACK|OK",
    "ACK|ERR|agency_done",
    "ACK|ERR|bad_fields",
    "ACK|ERR|bad_first_name",
    "ACK|ERR|bad_frame",
    "ACK|ERR|bad_utf",
    "ACK|ERR|draw_closed",
    "ACK|ERR|stray_row",
    "ACK|ERR|unknown",
    "ACK_BATCH|OK|",
    "ACK_BATCH|ERR||agency_done",
    "ACK_BATCH|ERR||bad_agency",
    "ACK_BATCH|ERR||bad_count",
    "ACK_BATCH|ERR||bad_first_row",
    "ACK_BATCH|ERR||bad_header",
    "ACK_BATCH|ERR||bad_upload",
    "ACK_BATCH|ERR||conflict",
    "ACK_BATCH|ERR||draw_closed",
    "ACK_BATCH|ERR||gap|",
    "ACK_BATCH|ERR||row : agency_mismatch",
    "ACK_BATCH|ERR||row : bad_agency",
    "ACK_BATCH|ERR||row : bad_birthdate",
    "ACK_BATCH|ERR||row : bad_document",
    "ACK_BATCH|ERR||row : bad_fields",
    "ACK_BATCH|ERR||row : bad_last_name",
    "ACK_BATCH|ERR||row : bad_number",
    "ACK_BATCH|ERR||row : bad_utf",
    "ACK_BATCH|ERR||too_many",
    "ACK_DONE|OK",
    "ACK_DONE|ERR|bad_agency",
    "ACK_DONE|ERR|bad_count",
    "ACK_DONE|ERR|bad_header",
    "ACK_DONE|ERR|count_mismatch|",
    "RESUME|OK|",
    "RESUME|ERR|bad_agency",
    "RESUME|ERR|bad_header",
    "RESUME|ERR|bad_upload",
    "STATUS|OK||drawn|||",
    "STATUS|OK||open|||",
    "STATUS|ERR|bad_header",
    "WINNERS|OK|",
    "WINNERS|OK||",
    "WINNERS|OK|list",
    "WINNERS|OK|list|",
    "WINNERS|ERR|bad_after",
    "WINNERS|ERR|bad_agency",
    "WINNERS|ERR|bad_draw",
    "WINNERS|ERR|bad_header",
    "WINNERS|ERR|bad_wait",
    "WINNERS|ERR|not_ready",
];
