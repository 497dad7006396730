//! An agency in the counted dialect, and a single `BET`, as the original servers' clients
//! send them: no request names its batch, so after a lost reply nobody can ask whether the
//! batch was stored. Here a lost reply is an error, and the batch is never sent twice.

use std::io;
use std::path::Path;
use std::time::Duration;

use sorteo_protocol::wire::{Dialect, Reason, Reply, Request, Winners};
use sorteo_protocol::{AgencyId, Batch};

use crate::backoff::Backoff;
use crate::connection::CONNECT_TIMEOUT;
use crate::file::{Batches, Scan};
use crate::{AgencyError, ClientOptions, Connection, Event, ExchangeError, REPLY_TIMEOUT};

/// Most bytes of a payload, as the original clients send it: far below what any server takes.
const PAYLOAD_BYTES_MAX: usize = 8 << 10;
/// How often the winners are asked for: this dialect has no way to wait.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Sends the file in batches of at most `batch_max` bets and 8 KiB, says done by asking for the
/// winners, asks until the draw has taken place, and returns the winning documents in
/// stored order.
///
/// # Errors
///
/// Where the file is malformed, the server cannot be reached or refuses, or a reply to a
/// batch is lost ([`AgencyError::Unknown`]).
pub fn upload(
    options: &ClientOptions,
    agency: AgencyId,
    path: &Path,
    batch_max: usize,
) -> Result<Vec<String>, AgencyError> {
    let scan = Scan::of(path, options.allow_empty)?;
    let mut batches = Batches::open(path, &scan, batch_max, PAYLOAD_BYTES_MAX)?;
    let mut connection = connect(options, Dialect::Counted)?;
    let mut stored = 0;
    while let Some(batch) = batches.next_batch()? {
        let bets = batch.len() as u64;
        store(&mut connection, options, agency, batch)?;
        stored += bets;
        options.observer.report(&Event::Stored { bets, stored, total: scan.rows });
    }
    winners(&mut connection, options, agency)
}

/// Sends bets until they are stored or refused for good; `ERROR_BUSY` means that nothing
/// was stored and a retry helps.
fn store(
    connection: &mut Connection,
    options: &ClientOptions,
    agency: AgencyId,
    bets: sorteo_protocol::Bets,
) -> Result<(), AgencyError> {
    let request = Request::Payload(vec![Batch { agency, bets, position: None }]);
    let mut backoff = Backoff::new(options);
    loop {
        let reply = ask(connection, options, &request)?;
        match reply.refusal() {
            None => return Ok(()),
            Some(Reason::Busy) if backoff.pause(options, &io::Error::other("ERROR_BUSY")) => {}
            Some(reason) => return Err(AgencyError::Refused { what: "bets", reason: reason.clone() }),
        }
    }
}

/// Sends one bet as the framed dialect's `BET`.
///
/// # Errors
///
/// As [`upload`].
pub fn send_bet(options: &ClientOptions, bet: Batch) -> Result<(), AgencyError> {
    let mut backoff = Backoff::new(options);
    let request = Request::Bet(bet);
    loop {
        let reply = ask(&mut connect(options, Dialect::Framed)?, options, &request)?;
        match reply.refusal() {
            None => return Ok(()),
            Some(reason)
                if reason.is_temporary() && backoff.pause(options, &io::Error::other(reason.to_string())) => {
            }
            Some(reason) => return Err(AgencyError::Refused { what: "BET", reason: reason.clone() }),
        }
    }
}

/// Asks until the draw has taken place. Other than with bets, asking again is harmless, so
/// a connection that breaks is replaced.
fn winners(
    connection: &mut Connection,
    options: &ClientOptions,
    agency: AgencyId,
) -> Result<Vec<String>, AgencyError> {
    let mut backoff = Backoff::new(options);
    loop {
        let reply = match ask(connection, options, &Request::DoneAndWinners { agency }) {
            Ok(reply) => reply,
            Err(AgencyError::Unknown { server, source }) => {
                if !backoff.pause(options, &source) {
                    return Err(AgencyError::Unreachable { server, source });
                }
                *connection = connect(options, Dialect::Counted)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        backoff = Backoff::new(options);
        match reply {
            Reply::Winners(Ok(Winners::All(documents))) => return Ok(documents),
            other => match other.refusal() {
                Some(Reason::NotReady | Reason::Busy) => std::thread::sleep(POLL_INTERVAL),
                Some(reason) => {
                    return Err(AgencyError::Refused { what: "GET_WINNERS", reason: reason.clone() });
                }
                None => return Err(unexpected(options, "ACK".to_owned())),
            },
        }
    }
}

fn connect(options: &ClientOptions, dialect: Dialect) -> Result<Connection, AgencyError> {
    let mut backoff = Backoff::new(options);
    loop {
        let (error, is_replaced) = match open(options, dialect, &backoff) {
            Ok(connection) => return Ok(connection),
            Err((error, is_replaced)) => (AgencyError::of_exchange(&options.server, error), is_replaced),
        };
        let may_pass = error.is_temporary() || (error.is_of_token() && is_replaced);
        if !may_pass || !backoff.pause_after(options, &error) {
            return Err(error);
        }
    }
}

/// Opens a connection, and authenticates it before anything else is sent: of bets that get
/// no reply nobody knows whether they are stored. With the error it says whether the token's
/// file holds another token by now.
fn open(
    options: &ClientOptions,
    dialect: Dialect,
    backoff: &Backoff,
) -> Result<Connection, (ExchangeError, bool)> {
    let timeout = backoff.timeout(CONNECT_TIMEOUT);
    let mut connection = Connection::open(&options.server, &options.security, dialect, timeout)
        .map_err(|error| (error, false))?;
    match connection.authenticate(backoff.timeout(REPLY_TIMEOUT)) {
        Ok(()) => Ok(connection),
        Err(error) => Err((error, connection.has_newer_token())),
    }
}

fn ask(
    connection: &mut Connection,
    options: &ClientOptions,
    request: &Request,
) -> Result<Reply, AgencyError> {
    connection.exchange(request, REPLY_TIMEOUT.min(options.give_up_after)).map_err(|error| match error {
        ExchangeError::Lost(source) => AgencyError::Unknown { server: options.server.clone(), source },
        error => AgencyError::of_exchange(&options.server, error),
    })
}

fn unexpected(options: &ClientOptions, answer: String) -> AgencyError {
    AgencyError::Protocol { server: options.server.clone(), answer }
}
