//! An agency in the counted dialect, and a single `BET`, as the seeds' clients
//! send them: nothing names a batch, so a lost answer cannot be asked for again.
//! Here a lost answer is an error, never a second sending.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::file::{self, Batches};
use super::upload::Progress;
use super::{ANSWER_TIMEOUT, AgencyError, Backoff, ClientOptions, Connection, is_passing};
use crate::event;
use sorteo_protocol::wire::{Request, counted, framed};
use sorteo_protocol::{AgencyId, Batch};

/// How often the winners are asked for: this dialect has no way to wait.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Sends the file, says done by asking for the winners, and asks until there
/// are some to read. Answers the winning documents in stored order.
pub fn upload(
    options: &ClientOptions,
    agency: AgencyId,
    path: &Path,
    batch_max: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<String>, AgencyError> {
    let scan = file::scan(path)?;
    let mut batches = Batches::open(path, &scan, batch_max)?;
    let mut connection = connect(options)?;
    let mut sent = 0;
    while let Some(bets) = batches.next_batch()? {
        let count = bets.len() as u64;
        let request = Request::Payload(vec![Batch { agency, bets, position: None }]);
        store(&mut connection, options, &request)?;
        event!(Info, "apuesta_enviada", Success, cantidad = count);
        sent += count;
        progress(sent, scan.rows);
    }
    let documents = winners(&mut connection, options, agency)?;
    event!(Info, "consulta_ganadores", Success, cant_ganadores = documents.len());
    Ok(documents)
}

/// Sends bets until they are stored or refused for good; `ERROR_BUSY` says that
/// nothing was stored and a retry helps.
fn store(connection: &mut Connection, options: &ClientOptions, request: &Request) -> Result<(), AgencyError> {
    let mut backoff = Backoff::new(options.give_up_after);
    loop {
        match ask(connection, options, request)?.as_str() {
            "ACK" => return Ok(()),
            "ERROR_BUSY" if backoff.pause(&io::Error::other("ERROR_BUSY")) => {}
            refusal => return Err(AgencyError::Refused { what: "bets", reason: refusal.to_owned() }),
        }
    }
}

/// Sends one bet in the framed dialect's `BET`.
pub fn send_bet(options: &ClientOptions, bet: Batch) -> Result<(), AgencyError> {
    let mut backoff = Backoff::new(options.give_up_after);
    let mut bytes = Vec::new();
    framed::encode_request(&Request::Bet(bet), &mut bytes);
    loop {
        match ask_for_bet(options, &bytes) {
            Err(AgencyError::Refused { reason, .. })
                if is_passing(&reason) && backoff.pause(&io::Error::other(reason.clone())) => {}
            result => return result,
        }
    }
}

fn ask_for_bet(options: &ClientOptions, bytes: &[u8]) -> Result<(), AgencyError> {
    let mut connection = connect(options)?;
    let answer = connection
        .exchange(bytes, ANSWER_TIMEOUT, |input| framed::decode_answer(input).map_err(io::Error::other));
    let fields = answer.map_err(|source| unknown(options, source))?;
    match fields.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ACK", "OK"] => Ok(()),
        ["ACK", "ERR", ref reason @ ..] => {
            Err(AgencyError::Refused { what: "BET", reason: reason.join("|") })
        }
        _ => Err(AgencyError::Protocol { server: options.server.clone(), answer: fields.join("|") }),
    }
}

/// Asks until the draw is made. Asking again is harmless, so here, other than
/// with bets, a connection that breaks is replaced.
fn winners(
    connection: &mut Connection,
    options: &ClientOptions,
    agency: AgencyId,
) -> Result<Vec<String>, AgencyError> {
    loop {
        let answer = match ask(connection, options, &Request::DoneAndWinners { agency }) {
            Ok(answer) => answer,
            Err(AgencyError::Unknown { source, .. }) => {
                event!(Warn, "connect", Fail, error = source);
                *connection = connect(options)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if answer == "ERROR_LOTTERY_HASNT_ENDED" || answer == "ERROR_BUSY" {
            std::thread::sleep(POLL_INTERVAL);
            continue;
        }
        if answer.starts_with("ERROR_") {
            return Err(AgencyError::Refused { what: "GET_WINNERS", reason: answer });
        }
        let document = |line: &str| line.split('|').nth(2).map(str::to_owned);
        return Ok(answer.lines().filter_map(document).collect());
    }
}

fn connect(options: &ClientOptions) -> Result<Connection, AgencyError> {
    let mut backoff = Backoff::new(options.give_up_after);
    loop {
        match Connection::open(&options.server) {
            Ok(connection) => return Ok(connection),
            Err(error) if !backoff.pause(&error) => {
                return Err(AgencyError::Unreachable { server: options.server.clone(), source: error });
            }
            Err(_) => {}
        }
    }
}

fn ask(
    connection: &mut Connection,
    options: &ClientOptions,
    request: &Request,
) -> Result<String, AgencyError> {
    let mut bytes = Vec::new();
    counted::encode_request(request, &mut bytes);
    let decode = |input: &mut &[u8]| match counted::decode_answer(input) {
        Ok(answer) => Ok(answer.map(str::to_owned)),
        Err(error) => Err(io::Error::other(error)),
    };
    connection.exchange(&bytes, ANSWER_TIMEOUT, decode).map_err(|source| unknown(options, source))
}

fn unknown(options: &ClientOptions, source: io::Error) -> AgencyError {
    AgencyError::Unknown { server: options.server.clone(), source }
}
