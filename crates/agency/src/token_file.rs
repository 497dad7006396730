//! The file that holds an agency's token, and the `AUTH` of one connection.

use std::path::PathBuf;
use std::str;

use sorteo_protocol::wire::{Claim, Dialect, Reason, Reply, Request, encode_request};
use sorteo_protocol::{AgencyId, Token};

use crate::secret::{Credential, CredentialError, Problem};

/// The file of an agency's token. It is read anew for each connection, so that a token is
/// replaced by replacing the file.
#[derive(Clone, Debug)]
pub struct TokenFile {
    /// The agency that the token is of.
    pub agency: AgencyId,
    /// A file that only its owner may read, with the token and at most a line end behind it.
    pub path: PathBuf,
}

impl TokenFile {
    /// Reads the token.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, others may read it, or it holds anything but one token.
    pub fn read(&self) -> Result<Token, CredentialError> {
        let file = Credential { what: "token file", path: &self.path };
        let bytes = file.read_secret()?;
        parse(&bytes).map_err(|problem| file.wrong(problem))
    }
}

fn parse(bytes: &[u8]) -> Result<Token, Problem> {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let is_ended = match lines.next() {
        Some([]) => true,
        None => false,
        Some(_) => return Err(Problem::Content("holds more than one token: a line too many")),
    };
    let line = if is_ended { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    let token = str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    token.ok_or(match line {
        [] => Problem::Empty,
        _ => Problem::Content("holds no token: one begins with `sorteo_`, as `sorteo token add` prints it"),
    })
}

/// The `AUTH` of one connection.
#[derive(Debug)]
pub(crate) struct Auth {
    file: TokenFile,
    token: Token,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsent,
    Unanswered,
    Answered,
}

impl Auth {
    /// Reads the token that the connection proves its agency with.
    pub(crate) fn read(file: &TokenFile) -> Result<Self, CredentialError> {
        Ok(Self { file: file.clone(), token: file.read()?, state: State::Unsent })
    }

    /// Returns whether the request is sent: it is the first of its connection.
    pub(crate) fn is_sent(&self) -> bool {
        self.state != State::Unsent
    }

    /// Returns the request, which counts as sent from now on.
    pub(crate) fn encode(&mut self, dialect: Dialect) -> Vec<u8> {
        let claim = Claim { agency: self.file.agency, token: self.token.clone() };
        let mut bytes = Vec::new();
        encode_request(dialect, &Request::Auth(Some(claim)), &mut bytes);
        self.state = State::Unanswered;
        bytes
    }

    /// Returns whether the next reply is the one to the request.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.state == State::Unanswered
    }

    /// Takes the reply. Fails with the reason of a refusal, or with what is no reply to it. A
    /// server that authenticates nobody does not know the request: whoever gave a token relies
    /// on its being asked for.
    pub(crate) fn answer(&mut self, reply: Reply) -> Result<(), NotAccepted> {
        self.state = State::Answered;
        match reply {
            Reply::Bet(Ok(())) | Reply::Batch { result: Ok(()), .. } => Ok(()),
            Reply::Unrecognised(Reason::Unknown) => Err(NotAccepted::Refused(Reason::Unknown)),
            Reply::Batch { result: Err(Reason::Other(word)), .. } if &*word == "ERROR_INVALID_BATCH" => {
                Err(NotAccepted::Refused(Reason::Unknown))
            }
            Reply::Bet(Err(reason)) | Reply::Batch { result: Err(reason), .. } => {
                Err(NotAccepted::Refused(reason))
            }
            other => Err(NotAccepted::Unexpected(other)),
        }
    }

    /// Returns whether the file holds another token by now.
    pub(crate) fn is_replaced(&self) -> bool {
        self.file.read().is_ok_and(|token| token != self.token)
    }
}

/// Why a connection is not authenticated.
pub(crate) enum NotAccepted {
    /// The server refused the token.
    Refused(Reason),
    /// This is no reply to an `AUTH`.
    Unexpected(Reply),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_have_one_line_end_and_nothing_else_behind_it() {
        let token = Token::from_random([1; 8], [2; 32]);
        let text = token.reveal();
        for right in [text.to_owned(), format!("{text}\n"), format!("{text}\r\n")] {
            assert_eq!(parse(right.as_bytes()).unwrap(), token, "{right:?}");
        }
        let wrong = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        for more in ["\n", "\r\n", " ", &format!("{text}\n"), "# mine"] {
            let told = wrong(format!("{text}\n{more}").as_bytes());
            assert_eq!(told, "holds more than one token: a line too many", "{more:?}");
        }
        for no_token in [format!("{text}\r"), format!(" {text}"), format!("\u{feff}{text}"), "x".to_owned()] {
            assert!(wrong(no_token.as_bytes()).starts_with("holds no token"), "{no_token:?}");
        }
        assert!(wrong(&[0xff; 88]).starts_with("holds no token"));
        assert_eq!([&b""[..], b"\n", b"\r\n"].map(wrong), ["is empty"; 3]);
    }
}
