//! The agency's side: send a file of bets, resume what was cut off, ask for the
//! winners. The subcommands `upload`, `winners` and `status` are thin around it.
//!
//! [`Client`] makes one call after the other and reconnects by itself;
//! [`upload`] is a whole agency in the framed dialect, exactly once from end to
//! end; [`counted`] is one in the counted dialect, which cannot resume.

pub mod counted;
pub mod file;
pub mod upload;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::event;
use sorteo_protocol::wire::{Request, WAIT_MAX, framed};
use sorteo_protocol::{AgencyId, DrawId};

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take, beyond what its request asks to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause before a retry; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a retry.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long one `WAIT_WINNERS` waits: well below what a middlebox takes for dead.
const WAIT_EACH: Duration = Duration::from_secs(30);
const _: () = assert!(WAIT_EACH.as_millis() <= WAIT_MAX.as_millis());

/// Why a call or an upload did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AgencyError {
    /// The server could not be reached, or went away, for longer than allowed.
    #[error("no answer from {server} ({source}): is the server running there?")]
    Unreachable {
        /// The address tried.
        server: String,
        /// The last failure.
        source: io::Error,
    },
    /// The server refused for a reason that a retry does not change.
    #[error("the server refused {what}: {reason}{}", hint(reason))]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The protocol's reason code.
        reason: String,
    },
    /// The draw that the upload belongs to is over, and the next one takes bets.
    #[error(
        "draw {draw}, for which these bets are, is over, and draw {newest} was opened: nothing more was sent. \
         What is stored of them is in draw {draw}; send the file again only if it is for draw {newest}"
    )]
    OtherDraw {
        /// The draw in which the upload began.
        draw: DrawId,
        /// The newest draw.
        newest: DrawId,
    },
    /// What came back is none of the answers that the protocol knows.
    #[error("{server} does not answer as a sorteo server does: `{answer}`")]
    Protocol {
        /// The address.
        server: String,
        /// What it answered, escaped.
        answer: String,
    },
    /// The bets' file is missing, unreadable, empty or malformed.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// Whether the last batch was stored is not known, and the dialect has no
    /// way to find out.
    #[error(
        "{server} went away ({source}) and whether the last bets were stored is not known: \
         ask for the agency's count (`sorteo status`, view `agencies`) before sending again"
    )]
    Unknown {
        /// The address.
        server: String,
        /// What happened to the connection.
        source: io::Error,
    },
}

/// What an agency can do about a refusal.
fn hint(reason: &str) -> &'static str {
    match reason.split('|').next().unwrap_or_default() {
        "agency_done" => " (this agency said in this draw that it is done)",
        "draw_closed" => " (the draw is made)",
        "conflict" => " (other bets are stored under this upload)",
        "count_mismatch" => " (the server holds another number of bets of this agency in this draw)",
        "not_ready" => " (the draw is not made yet)",
        "bad_draw" => " (there is no such draw)",
        "storage_full" => " (the server's disk is full, and stayed so while this was tried again)",
        "busy" | "unavailable" => " (and went on to, while this was tried again)",
        _ => "",
    }
}

/// Where the server is, and how patient to be.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `HOST:PORT`; looked up anew with every connection.
    pub server: String,
    /// How long to go on trying without any success.
    pub give_up_after: Duration,
}

/// One framed conversation, reconnected whenever it breaks.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    connection: Option<Connection>,
    /// The only draw that it has anything to say in, if there is one.
    draw: Option<DrawId>,
}

/// A connection of either dialect, with what was read and not used yet.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    answer_timeout: Option<Duration>,
}

/// The fields of an `OK` answer, or the reason of an `ERR`.
type Answer = Result<Vec<String>, String>;

impl Client {
    /// A client that has not connected yet.
    pub fn new(options: ClientOptions) -> Self {
        Self { options, connection: None, draw: None }
    }

    /// From here on, a new connection is used only while this draw is the newest: what
    /// is sent again after the next was opened must not go into that one.
    pub(crate) fn stay_in(&mut self, draw: DrawId) {
        self.draw = Some(draw);
    }

    /// Refuses to go on where another draw is the newest.
    pub(crate) fn require_newest(&mut self, draw: DrawId) -> Result<(), AgencyError> {
        match self.status()?.draw {
            newest if newest == draw => Ok(()),
            newest => Err(AgencyError::OtherDraw { draw, newest }),
        }
    }

    /// From here on, any draw may be the newest.
    pub(crate) fn leave(&mut self) {
        self.draw = None;
    }

    /// How the newest draw stands: the fields behind `STATUS|OK`.
    pub fn status(&mut self) -> Result<StatusAnswer, AgencyError> {
        let fields = self.ask("STATUS", &Request::Status)?;
        let parsed = || {
            let [draw, state, done, expected, bets] = <[String; 5]>::try_from(fields.clone()).ok()?;
            Some(StatusAnswer {
                draw: DrawId(draw.parse().ok()?),
                state,
                done: done.parse().ok()?,
                expected: expected.parse().ok()?,
                bets: bets.parse().ok()?,
            })
        };
        parsed().ok_or_else(|| self.protocol_error(&fields.join("|")))
    }

    /// The winners of a draw that is made, all pages; `None` before the draw.
    pub fn winners(
        &mut self,
        agency: AgencyId,
        draw: Option<DrawId>,
    ) -> Result<Option<Vec<String>>, AgencyError> {
        // Pages are asked of one draw, even if the next one opens meanwhile.
        let draw = match draw {
            Some(draw) => draw,
            None => self.status()?.draw,
        };
        let (mut documents, mut after) = (Vec::new(), 0);
        loop {
            let request = Request::WinnersPage { agency, after, draw: Some(draw) };
            match self.call("GET_WINNERS", &request)? {
                Err(reason) if reason == "not_ready" => return Ok(None),
                Err(reason) => {
                    return Err(AgencyError::Refused { what: "GET_WINNERS", reason });
                }
                Ok(fields) => match self.read_page(&fields, &mut documents)? {
                    None => return Ok(Some(documents)),
                    Some(next) => after = next,
                },
            }
        }
    }

    /// Waits for a draw, then answers its winners. The server tells when the
    /// draw is made; nothing is polled while the connection holds.
    pub fn wait_winners(&mut self, agency: AgencyId, draw: DrawId) -> Result<Vec<String>, AgencyError> {
        loop {
            if let Some(documents) = self.winners(agency, Some(draw))? {
                return Ok(documents);
            }
            let wait = Request::WaitWinners { agency, wait: WAIT_EACH };
            match self.call("WAIT_WINNERS", &wait)? {
                Err(reason) if reason != "not_ready" => {
                    return Err(AgencyError::Refused { what: "WAIT_WINNERS", reason });
                }
                // Drawn, or time to ask again: either way the pages tell.
                _ => {}
            }
        }
    }

    fn read_page(&self, fields: &[String], documents: &mut Vec<String>) -> Result<Option<u64>, AgencyError> {
        let [list, next] = fields else {
            return Err(self.protocol_error(&fields.join("|")));
        };
        documents.extend(list.split(',').filter(|document| !document.is_empty()).map(str::to_owned));
        if next.is_empty() {
            return Ok(None);
        }
        next.parse().map(Some).map_err(|_| self.protocol_error(next))
    }

    /// Asks, and takes a refusal for an error.
    pub(crate) fn ask(&mut self, what: &'static str, request: &Request) -> Result<Vec<String>, AgencyError> {
        self.call(what, request)?.map_err(|reason| AgencyError::Refused { what, reason })
    }

    /// Sends a request until it is answered with other than a passing failure.
    ///
    /// Only for requests that may be carried out twice: all but a batch without
    /// a place, and a single bet.
    pub(crate) fn call(&mut self, what: &'static str, request: &Request) -> Result<Answer, AgencyError> {
        let mut backoff = Backoff::new(self.options.give_up_after);
        loop {
            if self.connection.is_none()
                && let Some(draw) = self.draw.take()
            {
                // Without a draw to stay in it asks on the connection that is used then.
                self.require_newest(draw)?;
                self.draw = Some(draw);
            }
            let failure = match self.exchange(request) {
                Ok(fields) => match self.read_answer(fields)? {
                    Err(reason) if is_passing(&reason) => {
                        if backoff.pause(&io::Error::other(format!("{what}: {reason}"))) {
                            continue;
                        }
                        return Err(AgencyError::Refused { what, reason });
                    }
                    answer => return Ok(answer),
                },
                Err(error) => {
                    self.connection = None;
                    error
                }
            };
            if !backoff.pause(&failure) {
                let server = self.options.server.clone();
                return Err(AgencyError::Unreachable { server, source: failure });
            }
        }
    }

    /// `VERB|OK|fields…` or `VERB|ERR|reason`. A batch's answers have its count
    /// in between, which a refusal's reader does not need.
    fn read_answer(&self, fields: Vec<String>) -> Result<Answer, AgencyError> {
        let (verb, outcome) = (fields.first().map(String::as_str), fields.get(1).map(String::as_str));
        match (verb, outcome) {
            (Some(_), Some("OK")) => Ok(Ok(fields[2..].to_vec())),
            (Some("ACK_BATCH"), Some("ERR")) if fields.len() > 3 => Ok(Err(fields[3..].join("|"))),
            (Some(_), Some("ERR")) if fields.len() > 2 => Ok(Err(fields[2..].join("|"))),
            _ => Err(self.protocol_error(&fields.join("|"))),
        }
    }

    fn protocol_error(&self, answer: &str) -> AgencyError {
        let answer = answer.chars().take(100).flat_map(char::escape_debug).collect();
        AgencyError::Protocol { server: self.options.server.clone(), answer }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Vec<String>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.options.server)?),
        };
        let mut bytes = Vec::new();
        framed::encode_request(request, &mut bytes);
        let wait = match request {
            Request::WaitWinners { wait, .. } => *wait,
            _ => Duration::ZERO,
        };
        connection.exchange(&bytes, ANSWER_TIMEOUT + wait, |input| {
            framed::decode_answer(input).map_err(io::Error::other)
        })
    }
}

/// The answer to `STATUS`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StatusAnswer {
    /// The newest draw.
    #[serde(serialize_with = "serialize_draw")]
    pub draw: DrawId,
    /// `open` or `drawn`.
    pub state: String,
    /// Agencies that are done.
    pub done: u64,
    /// Agencies that must be.
    pub expected: u64,
    /// Bets stored.
    pub bets: u64,
}

fn serialize_draw<S: serde::Serializer>(draw: &DrawId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(draw.0)
}

/// Refusals that pass by themselves.
fn is_passing(reason: &str) -> bool {
    matches!(reason, "busy" | "storage_full" | "unavailable")
}

impl Connection {
    pub(crate) fn open(server: &str) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in server.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
                    return Ok(Self { stream, input: Vec::new(), answer_timeout: None });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends all of it, then waits for the answer at most so long.
    pub(crate) fn exchange<T>(
        &mut self,
        bytes: &[u8],
        answer_timeout: Duration,
        decode: impl Fn(&mut &[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        self.stream.write_all(bytes)?;
        if self.answer_timeout != Some(answer_timeout) {
            self.stream.set_read_timeout(Some(answer_timeout))?;
            self.answer_timeout = Some(answer_timeout);
        }
        self.read_answer(decode)
    }

    /// Reads until `decode` has found an answer.
    fn read_answer<T>(&mut self, decode: impl Fn(&mut &[u8]) -> io::Result<Option<T>>) -> io::Result<T> {
        loop {
            let mut rest = &self.input[..];
            let decoded = decode(&mut rest)?;
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            if let Some(answer) = decoded {
                return Ok(answer);
            }
            let mut bytes = [0; 8192];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Growing pauses between tries, with jitter, until the time is up.
#[derive(Debug)]
pub(crate) struct Backoff {
    give_up_at: Instant,
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new(give_up_after: Duration) -> Self {
        Self { give_up_at: Instant::now() + give_up_after, pause: PAUSE_MIN }
    }

    /// Pauses before the next try; answers whether there should be one.
    pub(crate) fn pause(&mut self, failure: &io::Error) -> bool {
        let left = self.give_up_at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        event!(Warn, "connect", Fail, error = failure);
        // Agencies that lost the same server must not all come back at once.
        let jittered = self.pause.mul_f64(rand::rng().random_range(0.5..1.0));
        std::thread::sleep(jittered.min(left));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}
