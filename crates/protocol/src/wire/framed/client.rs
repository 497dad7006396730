//! The client's side of the dialect: requests to bytes, bytes to replies.

use super::*;

/// Appends a request as an agency sends it: a batch is a frame for its header
/// and one for each row.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let line = match request {
        Request::Bet(batch) => {
            let bet = batch.bets.iter().next().expect("a BET holds one bet");
            format!("BET|{}|{}", batch.agency, row_line(bet))
        }
        Request::Batch(batch) => {
            encode_batch(batch, out);
            return;
        }
        Request::Done { agency, bets: None } => format!("DONE|{agency}"),
        Request::Done { agency, bets: Some(bets) } => format!("DONE|{agency}|{bets}"),
        Request::Winners { agency } => format!("GET_WINNERS|{agency}"),
        Request::WinnersPage { agency, after, draw: None } => format!("GET_WINNERS|{agency}|{after}"),
        Request::WinnersPage { agency, after, draw: Some(draw) } => {
            format!("GET_WINNERS|{agency}|{after}|{draw}")
        }
        Request::WaitWinners { agency, wait } => format!("WAIT_WINNERS|{agency}|{}", wait.as_millis()),
        Request::Resume { agency, upload } => format!("RESUME|{agency}|{}", upload.as_str()),
        Request::Status => "STATUS".to_owned(),
        Request::Payload(_) | Request::DoneAndWinners { .. } => {
            unreachable!("the counted dialect's requests have no frame")
        }
    };
    append_frame(&[line.as_bytes()], out);
}

fn encode_batch(batch: &Batch, out: &mut Vec<u8>) {
    let count = batch.bets.len();
    let header = match &batch.position {
        None => format!("BATCH|{}|{count}", batch.agency),
        Some(UploadPosition { upload, first_row }) => {
            format!("BATCH|{}|{count}|{}|{first_row}", batch.agency, upload.as_str())
        }
    };
    append_frame(&[header.as_bytes()], out);
    for bet in batch.bets.iter() {
        append_frame(&[row_line(bet).as_bytes()], out);
    }
}

fn row_line(bet: crate::Bet<'_>) -> String {
    let crate::Bet { first_name, last_name, document, birthdate, number } = bet;
    format!("{first_name}|{last_name}|{document}|{birthdate}|{number}")
}

/// An answer as an agency reads it: the fields of one line.
///
/// `Ok(None)` means that not all of it has arrived; an error, that the peer
/// does not speak this dialect.
pub fn decode_answer(input: &mut &[u8]) -> Result<Option<Vec<String>>, NotAnAnswer> {
    match next_frame(input) {
        None => Ok(None),
        Some(Err(BadFrame)) => Err(NotAnAnswer),
        Some(Ok(frame)) => {
            let line = str::from_utf8(frame).map_err(|_| NotAnAnswer)?;
            Ok(Some(line.split('|').map(str::to_owned).collect()))
        }
    }
}

/// What came back is no frame of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's answer is not in the framed dialect")]
pub struct NotAnAnswer;
