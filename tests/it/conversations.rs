//! Whole conversations with a running server, compared with the model of
//! `tests/support`: every reply arrives exactly and in order, nothing else arrives, and
//! at the end the database holds what the model holds.
//!
//! `PROPTEST_CASES=3000 TMPDIR=/dev/shm cargo test --test it conversations` runs many
//! more cases; in memory, because most of the time is spent on the disk.

mod coverage;
mod steps;
mod stored;

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use sorteo::server::Limits;
use sorteo_protocol::wire::WireLimits;
use sorteo_test_support::cases::cases;
use sorteo_test_support::decoder::allowed;
use sorteo_test_support::model::{Answers, Lottery};
use sorteo_test_support::reading::Allowed;

use self::steps::Step;
use self::stored::assert_holds;
use crate::test_server::{Client, Setup, TestServer, frame};

/// What may wait unread: less than makes the server close.
const UNREAD_BYTES_MAX: usize = 32 << 10;
/// The longest wait for a draw that does not happen.
const WAITED_MS_MAX: u64 = 100;
/// Bytes that are sent one by one at most.
const SINGLE_BYTES_MAX: usize = 700;

fn default_limits() -> Allowed {
    allowed(WireLimits::default())
}

// ---- One connection --------------------------------------------------------------

/// What one connection sends, and in which pieces.
#[derive(Clone)]
struct Talk {
    steps: Vec<Step>,
    pace: Pace,
}

#[derive(Clone, Debug)]
enum Pace {
    AllAtOnce,
    ByteByByte,
    /// Each step after the answer to the one before.
    PingPong,
    /// Cut anywhere; after some pieces what is due is read.
    Pieces(Vec<(Index, bool)>),
}

fn talk(step: BoxedStrategy<Step>, end: BoxedStrategy<Step>) -> impl Strategy<Value = Talk> {
    let steps = prop_oneof![9 => vec(step.clone(), 0..25), 1 => vec(step, 60..100)];
    let end = option::weighted(0.15, end);
    (steps, end, pace()).prop_map(|(steps, end, pace)| {
        let steps = steps.into_iter().chain(end).collect();
        Talk { steps, pace }
    })
}

fn pace() -> impl Strategy<Value = Pace> {
    prop_oneof![
        2 => Just(Pace::AllAtOnce),
        1 => Just(Pace::ByteByByte),
        2 => Just(Pace::PingPong),
        5 => vec(any::<(Index, bool)>(), 0..30).prop_map(Pace::Pieces),
    ]
}

/// A talk in either dialect by any agency.
fn any_talk() -> impl Strategy<Value = Talk> {
    let framed = prop_oneof![15 => steps::framed(steps::agencies()), 1 => steps::framed_status()].boxed();
    let counted = steps::counted(steps::agencies());
    prop_oneof![
        3 => talk(framed, steps::framed_end()),
        2 => talk(counted, steps::counted_end()),
    ]
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.bytes();
        f.debug_struct("Talk").field("steps", &self.steps).finish()?;
        match self.pace {
            Pace::ByteByByte => write!(f, " byte by byte"),
            _ => write!(f, " in pieces {:?}", self.stops(bytes.len())),
        }
    }
}

impl Talk {
    fn bytes(&self) -> Vec<u8> {
        self.steps.iter().flat_map(|step| step.0.iter().copied()).collect()
    }

    /// Where a piece ends, and whether what is due is then read.
    fn stops(&self, bytes: usize) -> Vec<(usize, bool)> {
        let mut stops: Vec<_> = match &self.pace {
            Pace::AllAtOnce => Vec::new(),
            Pace::ByteByByte => (1..bytes.min(SINGLE_BYTES_MAX)).map(|stop| (stop, false)).collect(),
            Pace::PingPong => {
                let ends = self.steps.iter().scan(0, |end, step| {
                    *end += step.0.len();
                    Some((*end, true))
                });
                // The bytes may have been damaged since.
                ends.filter(|(stop, _)| *stop <= bytes).collect()
            }
            Pace::Pieces(cuts) => cuts.iter().map(|(cut, reads)| (cut.index(bytes + 1), *reads)).collect(),
        };
        stops.sort_unstable();
        stops.push((bytes, true));
        stops
    }
}

/// Says a talk on a connection, and hears exactly the answers that it must.
struct Speaker {
    client: Client,
    bytes: Vec<u8>,
    answers: Answers,
    stops: std::vec::IntoIter<(usize, bool)>,
    sent: usize,
    read: usize,
}

impl Speaker {
    /// Says these bytes, the talk's own or what became of them, at the talk's pace.
    fn new(server: &TestServer, talk: &Talk, bytes: Vec<u8>, answers: Answers) -> Self {
        let stops = talk.stops(bytes.len()).into_iter();
        Self { client: server.connect(), bytes, answers, stops, sent: 0, read: 0 }
    }

    /// Says the next piece, if there is one.
    fn say_piece(&mut self) -> bool {
        let Some((stop, reads)) = self.stops.next() else { return false };
        if !self.client.try_send(&self.bytes[self.sent..stop]) {
            assert!(self.answers.closes, "closed before byte {stop}");
        }
        self.sent = stop;
        let (due, all) = (self.answers.bytes_due(stop).len(), self.answers.bytes());
        let is_over = self.answers.closes && due == all.len();
        if reads || is_over || due - self.read > UNREAD_BYTES_MAX {
            self.client.expect(&all[self.read..due]);
            self.read = due;
            assert!(self.answers.closes || !self.client.has_answer(), "an answer that nothing asked for");
        }
        if is_over {
            // It listens for a moment only: the rest is said at once, and not heard.
            self.client.try_send(&self.bytes[self.sent..]);
            self.stops = Vec::new().into_iter();
        }
        true
    }

    /// Says the rest, and hears nothing behind the last answer but the end.
    fn finish(mut self) {
        while self.say_piece() {}
        if !self.answers.closes {
            self.client.half_close();
            self.client.expect_end();
        } else if self.answers.answers.is_empty() {
            // Not spoken to, the server may leave with bytes unread.
            self.client.expect_gone();
        } else {
            self.client.expect_end();
        }
    }
}

// ---- The properties --------------------------------------------------------------

fn start(agencies: Option<u32>) -> TestServer {
    let patient = |limits: &mut Limits| limits.request_timeout = Duration::from_secs(600);
    Setup { agencies, ..Setup::default() }.limits(patient).start()
}

/// Bytes of a talk, some of them changed, lost, doubled or added.
fn damaged(bytes: Vec<u8>, damages: &[(Index, Index, u8, u8)]) -> Vec<u8> {
    let mut damaged = bytes;
    for (from, length, kind, byte) in damages {
        let from = from.index(damaged.len() + 1);
        let to = (from + length.index(20)).min(damaged.len());
        match kind % 5 {
            0 if from < to => damaged[from] = *byte,
            1 => drop(damaged.drain(from..to)),
            2 => drop(damaged.splice(from..from, damaged[from..to].to_vec())),
            3 => damaged.truncate(to),
            _ => damaged.insert(from, *byte),
        }
    }
    damaged
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn conversations_one_after_another_are_answered_and_kept_as_the_protocol_says(
        agencies in option::of(1..4_u32),
        talks in vec(any_talk(), 1..5),
    ) {
        let server = start(agencies);
        let mut lottery = Lottery::new(agencies);
        for talk in talks {
            let bytes = talk.bytes();
            let answers = lottery.hear(&bytes, default_limits());
            Speaker::new(&server, &talk, bytes, answers).finish();
        }
        assert_holds(&server, &[lottery]);
    }

    /// What the damage makes of the bytes is read by the protocol as well: up to
    /// it, and behind it where the connection stays in step.
    #[test]
    fn damaged_conversations_are_answered_as_far_as_they_go_and_harm_nobody(
        agencies in option::of(1..4_u32),
        talks in vec((any_talk(), vec(any::<(Index, Index, u8, u8)>(), 0..4)), 1..4),
        noise in (any_talk(), vec(any::<u8>(), 0..300)),
    ) {
        let heard = talks.iter().map(|(talk, damages)| (talk, damaged(talk.bytes(), damages)));
        let heard: Vec<_> = heard.chain([(&noise.0, noise.1.clone())]).collect();
        let mut lottery = Lottery::new(agencies);
        let answers: Vec<_> = heard.iter().map(|(_, bytes)| lottery.hear(bytes, default_limits())).collect();
        prop_assume!(answers.iter().map(|answers| answers.waited_ms).sum::<u64>() <= WAITED_MS_MAX);
        let server = start(agencies);
        for ((talk, bytes), answers) in heard.into_iter().zip(answers) {
            Speaker::new(&server, talk, bytes, answers).finish();
        }
        let another = lottery.hear(&frame("STATUS"), default_limits());
        server.ask_once(&frame("STATUS"), &another.bytes());
        assert_holds(&server, &[lottery]);
    }

    /// Agencies of their own, and none is the first: the draw is never made.
    #[test]
    fn connections_at_once_are_each_answered_as_if_alone(
        talks in (own_talk(2), own_talk(3), own_talk(4), own_talk(5)).prop_map(<[Talk; 4]>::from),
        turns in vec(any::<Index>(), 0..120),
    ) {
        let server = start(None);
        let mut lotteries = [(); 4].map(|()| Lottery::new(None));
        let speaker = |(talk, lottery): (&Talk, &mut Lottery)| {
            let bytes = talk.bytes();
            let answers = lottery.hear(&bytes, default_limits());
            Speaker::new(&server, talk, bytes, answers)
        };
        let mut speakers: Vec<_> = talks.iter().zip(&mut lotteries).map(speaker).collect();
        for turn in turns {
            turn.get_mut(&mut speakers).say_piece();
        }
        speakers.into_iter().for_each(Speaker::finish);
        assert_holds(&server, &lotteries);
    }
}

/// A talk by one agency alone.
fn own_talk(agency: u32) -> impl Strategy<Value = Talk> {
    let agency = || Just(agency).boxed();
    prop_oneof![
        3 => talk(steps::framed(agency()), steps::framed_end()),
        2 => talk(steps::counted(agency()), steps::counted_end()),
    ]
}
