//! A conversation without its socket: what it takes in a turn, how a wait ends, and what
//! is counted of messages that are no requests.

use std::time::Duration;

use sorteo::metrics::{BatchLabel, BatchResult, Metrics};
use sorteo::server::conversation::{Pause, Turn};
use sorteo_protocol::wire::WireLimits;
use sorteo_test_support::conversation::Peer;

use crate::wire_support::{ROW, frame, payload};

fn peer() -> Peer {
    Peer::new(Some(1), WireLimits::default())
}

/// Batches that were stored, and that were refused.
fn batches(metrics: &Metrics) -> (u64, u64) {
    let count = |result| metrics.batches.get_or_create(&BatchLabel { result }).get();
    (count(BatchResult::stored), count(BatchResult::refused))
}

fn refused(metrics: &Metrics) -> Vec<(String, u64)> {
    metrics.refused().into_iter().map(|(code, count)| (code.to_string(), count)).collect()
}

#[test]
fn what_is_no_request_counts_as_a_refusal_and_not_as_a_batch() {
    let mut framed = peer();
    let input = [frame("NOPE"), frame("\u{ff}"), frame(format!("BET|1|{ROW}")), vec![0, 0, 0, 0]].concat();
    let replies = framed.send(&input);
    assert_eq!(
        replies.escape_ascii().to_string(),
        [
            frame("ACK|ERR|unknown\n"),
            frame("ACK|ERR|unknown\n"),
            frame("ACK|OK\n"),
            frame("ACK|ERR|bad_frame\n")
        ]
        .concat()
        .escape_ascii()
        .to_string()
    );
    assert_eq!(batches(framed.service.metrics()), (1, 0));
    assert_eq!(refused(framed.service.metrics()), [("unknown".to_owned(), 2), ("bad_frame".to_owned(), 1)]);

    let mut counted = peer();
    assert_eq!(counted.send(b"7x"), payload("ERROR_INVALID_BATCH"));
    assert_eq!(batches(counted.service.metrics()), (0, 0));
    assert_eq!(refused(counted.service.metrics()), [("bad_length".to_owned(), 1)]);
}

#[test]
fn bad_rows_and_bad_headers_still_count_as_batches() {
    let mut framed = peer();
    framed.send(&[frame("BATCH|1|-5"), frame("BET|1|Ana"), frame("BATCH|1|1"), frame("STATUS")].concat());
    assert_eq!(batches(framed.service.metrics()), (0, 3));
    let mut counted = peer();
    counted.send(&[payload("STATUS"), payload("")].concat());
    assert_eq!(batches(counted.service.metrics()), (0, 2));
}

#[test]
fn a_turn_ends_when_its_time_is_up_and_the_next_goes_on_behind_it() {
    let mut peer = peer();
    peer.offer(&frame("STATUS").repeat(100));
    let status = frame("STATUS|OK|1|open|0|1|0\n");
    let mut output = Vec::new();
    let mut pauses = Vec::new();
    // Replies are sent when there are enough of them, which does not end the turn.
    let mut turn_left = 64;
    while turn_left > 0 {
        let before = output.len();
        pauses.push(peer.advance(turn_left, &mut output));
        turn_left -= (output.len() - before) / status.len();
    }
    assert_eq!(output, status.repeat(64));
    assert_eq!(pauses.pop(), Some(Pause::NextTurn));
    assert!(pauses.iter().all(|pause| *pause == Pause::Output), "{pauses:?}");
    output.extend(peer.send(b""));
    assert_eq!(output, status.repeat(100));
}

#[test]
fn a_turn_ends_with_its_first_wait_for_a_commit() {
    let bet = |document: u32| frame(format!("BET|1|Ana|Paz|{document}|1999-03-17|1"));
    let bets: Vec<u8> = (0..30).flat_map(bet).collect();
    let ok = frame("ACK|OK\n");
    let mut peer = peer();
    let mut output = Vec::new();
    peer.offer(&bets);
    // So many share a commit.
    assert_eq!(peer.advance(usize::MAX, &mut output), Pause::NextTurn);
    assert_eq!(output, ok.repeat(12));
    assert_eq!(peer.advance(usize::MAX, &mut output), Pause::NextTurn);
    assert_eq!(peer.advance(usize::MAX, &mut output), Pause::Input);
    assert_eq!(output, ok.repeat(30));
    // A read waits for the write before it, and what comes behind waits for the next turn.
    output.clear();
    peer.offer(&[bet(30), frame("STATUS"), frame("STATUS")].concat());
    assert_eq!(peer.advance(usize::MAX, &mut output), Pause::NextTurn);
    let status = frame("STATUS|OK|1|open|0|1|31\n");
    assert_eq!(output, [ok, status.clone()].concat());
    assert_eq!(peer.advance(usize::MAX, &mut output), Pause::Input);
    assert!(output.ends_with(&status.repeat(2)));
}

#[test]
fn a_wait_ends_at_its_time_or_when_the_server_stops_or_when_the_draw_is_drawn() {
    let not_ready = frame("WINNERS|ERR|not_ready\n");
    let wait = [frame("WAIT_WINNERS|1|500"), frame("STATUS")].concat();
    for (later, is_stopping, draw, expected) in [
        (Duration::from_millis(499), false, false, Vec::new()),
        (Duration::from_millis(500), false, false, not_ready.clone()),
        (Duration::ZERO, true, false, not_ready),
        (Duration::ZERO, false, true, frame("WINNERS|OK||\n")),
    ] {
        let mut peer = peer();
        peer.offer(&wait);
        let mut output = Vec::new();
        assert_eq!(peer.advance(usize::MAX, &mut output), Pause::Draw);
        assert_eq!(
            peer.conversation.wait().map(|wait| wait.until),
            Some(peer.now + Duration::from_millis(500))
        );
        if draw {
            draw_on(&peer);
        }
        let mut turn = Turn::new(&peer.service, peer.now + later, usize::MAX, &|| false);
        turn.is_stopping = is_stopping;
        peer.conversation.advance(&mut &[][..], &mut output, &mut turn).unwrap();
        assert_eq!(output, expected, "{later:?}, {is_stopping}, {draw}");
        assert_eq!(turn.found_draw, draw, "the server was not told of it");
    }
}

/// Has the draw drawn behind the conversation's back.
fn draw_on(peer: &Peer) {
    use sorteo::store::Store as _;
    let ticket = peer.service.store().close_agency(sorteo_protocol::AgencyId(1), None).unwrap();
    ticket.wait().unwrap().unwrap();
}

#[test]
fn a_peer_that_holds_too_much_before_it_has_said_anything_is_closed_without_a_reply() {
    let mut peer = peer();
    let mut output = Vec::new();
    peer.conversation.refuse_as_busy(&mut output, &peer.service);
    assert_eq!(output, b"");
    assert!(!peer.conversation.takes_requests());
    assert_eq!(refused(peer.service.metrics()), []);
}
