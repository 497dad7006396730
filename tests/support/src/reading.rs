//! What any bytes mean, implemented from `docs/protocol.md` and not from the program:
//! slowly, plainly, and on the whole input at once.

mod counted;
mod fields;
mod framed;

use self::counted::read_counted;
use self::framed::read_framed;

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub batch_bets: u64,
    pub payload_bytes: u64,
}

/// What all bytes of one connection mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub speech: Option<Speech>,
    pub messages: Vec<Message>,
    /// If the bytes end in the middle of a batch: how many bets it announced.
    pub unfinished_batch: Option<u64>,
}

/// A connection's dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Framed,
    Counted,
}

/// One message, which is complete once so many of the connection's bytes have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub end: usize,
    pub asked: Asked,
}

/// The content of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Bet(u32, Bet),
    Batch {
        agency: u32,
        position: Option<(String, u64)>,
        draw: Option<u64>,
        bets: Vec<Bet>,
    },
    Payload(Vec<(u32, Bet)>),
    Done {
        agency: u32,
        bets: Option<u64>,
        draw: Option<u64>,
    },
    Winners {
        agency: u32,
    },
    Page {
        agency: u32,
        after: u64,
        draw: Option<u64>,
    },
    Wait {
        agency: u32,
        ms: u64,
        draw: Option<u64>,
    },
    Resume {
        agency: u32,
        upload: String,
        draw: Option<u64>,
    },
    Hello,
    Status,
    DoneAndWinners {
        agency: u32,
    },
    /// It cannot be carried out: it gets this answer, whatever is stored.
    Refused(String),
    /// The same, and then the connection is closed.
    RefusedForGood(String),
    /// Neither dialect: the connection is closed without an answer.
    Foreign,
}

impl Asked {
    /// Returns whether the server reads nothing after it.
    pub fn ends_the_connection(&self) -> bool {
        matches!(self, Self::RefusedForGood(_) | Self::Foreign)
    }
}

/// A bet in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bet {
    pub first_name: String,
    pub last_name: String,
    pub document: String,
    pub birthdate: String,
    pub number: u32,
}

/// Reads all bytes of one connection.
pub fn read(bytes: &[u8], allowed: Allowed) -> Reading {
    let mut reading = Reading::default();
    match bytes.first() {
        None => {}
        Some(0x00) => {
            reading.speech = Some(Speech::Framed);
            read_framed(bytes, allowed, &mut reading);
        }
        Some(0x30..=0x39) => {
            reading.speech = Some(Speech::Counted);
            read_counted(bytes, allowed, &mut reading);
        }
        Some(_) => reading.messages.push(Message { end: 1, asked: Asked::Foreign }),
    }
    reading
}
