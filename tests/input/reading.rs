//! What any bytes say, read from `docs/protocol.md` and not from the program:
//! slow, plain, and over the whole input at once.

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

/// What all bytes of one connection say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub speech: Option<Speech>,
    pub messages: Vec<Message>,
    /// How many bets the batch announced that the bytes end in, if they do.
    pub unfinished_batch: Option<u64>,
}

/// A connection's dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Framed,
    Counted,
}

/// One message, known once so many of the connection's bytes are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub end: usize,
    pub asked: Asked,
}

/// What one message asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Bet(u32, Bet),
    Batch {
        agency: u32,
        position: Option<(String, u64)>,
        bets: Vec<Bet>,
    },
    Payload(Vec<(u32, Bet)>),
    Done {
        agency: u32,
        bets: Option<u64>,
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
    },
    Resume {
        agency: u32,
        upload: String,
    },
    Status,
    DoneAndWinners {
        agency: u32,
    },
    /// Nothing that can be carried out: answered in these words whatever is stored.
    Refused(String),
    /// The same, and then the connection is closed.
    RefusedForGood(String),
    /// Neither dialect: closed without an answer.
    Foreign,
}

impl Asked {
    /// Whether nothing is read after it.
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
