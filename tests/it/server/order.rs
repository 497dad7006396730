//! Replies come in the order of their requests, and connections share the workers.

use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use super::{
    ACK, ACK_BATCH_1, ACK_BATCH_2, ACK_DONE, COUNTED_ACK, FRESH_STATUS, NO_WINNERS, NOT_READY, winning_batch,
};
use crate::test_server::{Setup, counted, frame, frames, long_winning_lines};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Setup::agencies(1).start();
    let mut client = server.connect();
    let requests = [
        winning_batch(1, &["1", "2"]),
        winning_batch(1, &["3"]),
        frame("STATUS"),
        frame("BET|1|Ana|Paz|4|1999-03-17|7574"),
        frames(&["BATCH|1|2", "bad", "Ana|Paz|5|1999-03-17|7574"]),
        frame("GET_WINNERS|1"),
        frame("DONE|1|4"),
        frame("BET|1|Ana|Paz|6|1999-03-17|7574"),
        frame("STATUS"),
        frame("GET_WINNERS|1"),
        frame("DONE|1"),
    ];
    let answers = [
        ACK_BATCH_2,
        ACK_BATCH_1,
        b"\0\0\0\x17STATUS|OK|1|open|0|1|3\n",
        ACK,
        b"\0\0\0\x22ACK_BATCH|ERR|2|row 1: bad_fields\n",
        NOT_READY,
        ACK_DONE,
        b"\0\0\0\x14ACK|ERR|draw_closed\n",
        b"\0\0\0\x18STATUS|OK|1|drawn|1|1|4\n",
        b"\0\0\0\x13WINNERS|OK|1,2,3,4\n",
        ACK_DONE,
    ];
    client.ask(&requests.concat(), &answers.concat());
    // The connection is as good as new.
    client.ask(&frame("GET_WINNERS|2"), NO_WINNERS);
}

#[test]
fn long_pipelines_on_many_connections_are_never_answered_out_of_turn() {
    const STEPS: u64 = 150;
    let server = Setup::agencies(99).start();
    thread::scope(|scope| {
        for agency in 1..=8 {
            let mut client = server.connect();
            scope.spawn(move || {
                let (mut requests, mut answers) = (Vec::new(), Vec::new());
                for step in 0..STEPS {
                    // Each answer can only be right in its place: what is read
                    // depends on what was written just before.
                    let row = format!("Ana|Paz|{step}|1999-03-17|7574");
                    requests.extend(frames(&[&format!("BATCH|{agency}|1|u|{step}"), &row]));
                    answers.extend(frame("ACK_BATCH|OK|1\n"));
                    requests.extend(frames(&[&format!("BATCH|{agency}|1|u|{}", step + 2), &row]));
                    answers.extend(frame(&format!("ACK_BATCH|ERR|1|gap|{}\n", step + 1)));
                    if step % 7 == 0 {
                        requests.extend(frame(&format!("RESUME|{agency}|u")));
                        answers.extend(frame(&format!("RESUME|OK|{}\n", step + 1)));
                    }
                    if step % 11 == 0 {
                        requests.extend(frame("what?"));
                        answers.extend(frame("ACK|ERR|unknown\n"));
                    }
                }
                // Cut anywhere, and differently for each.
                for piece in requests.chunks(97 + 400 * agency) {
                    client.send(piece);
                }
                client.expect(&answers);
            });
        }
    });
    assert_eq!(server.stored_bets(), 8 * STEPS);
}

#[test]
fn requests_behind_a_long_answer_are_answered_after_it() {
    let server = Setup::agencies(1).start();
    let lines = long_winning_lines(1, 0, 1000);
    let mut client = server.connect();
    client.ask(&counted(&lines), COUNTED_ACK);
    let winners = counted(&lines);
    // Sent at once: four long answers, and short ones between them.
    let bet_too_late = counted("Ana|Paz|1|1999-03-17|7574|1");
    let question = counted("GET_WINNERS|1");
    let other = counted("GET_WINNERS|2");
    let requests =
        [&question, &bet_too_late, &question, &question, &other, &question].map(|bytes| &bytes[..]);
    let answers = [&winners[..], b"19\nERROR_INVALID_BATCH", &winners, &winners, b"0\n", &winners];
    client.ask(&requests.concat(), &answers.concat());
    client.ask(&other, b"0\n");
}

#[test]
fn two_that_ask_again_and_again_take_turns_at_the_only_worker() {
    const QUESTIONS: usize = 1_000;
    // So that the worker waits for each question, and not so long that it gives up.
    const THOUGHT: Duration = Duration::from_micros(100);
    let server = Setup::agencies(2).limits(|limits| limits.workers = 1).start();
    let answered = Mutex::new(Vec::new());
    let begin = Barrier::new(2);
    thread::scope(|scope| {
        for asker in 0..2 {
            let mut client = server.connect();
            let (answered, begin) = (&answered, &begin);
            scope.spawn(move || {
                begin.wait();
                for _ in 0..QUESTIONS {
                    thread::sleep(THOUGHT);
                    client.ask(&frame("STATUS"), FRESH_STATUS);
                    answered.lock().unwrap().push(asker);
                }
            });
        }
    });
    let turns = answered.into_inner().unwrap().chunk_by(|one, next| one == next).count();
    // Two, if the first keeps the worker to its end; a busy machine runs one client for long.
    assert!(turns > QUESTIONS / 100, "{turns} turns");
}
