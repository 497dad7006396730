//! Who an agency is: tokens, `AUTH` in both dialects, and what each peer may ask for.

mod auth;
mod ended;
mod strangers;
mod table;
mod token_command;

use std::path::Path;
use std::time::{Duration, SystemTime};

use sorteo::store::sqlite::operator::{NewToken, Operator};
use sorteo::store::{Role, TokenHolder};
use sorteo_protocol::{AgencyId, Token};

use crate::test_server::{counted, frame};

/// How a dialect says what these tests ask and are told.
struct Words {
    /// Puts a message into bytes.
    message: fn(&str) -> Vec<u8>,
    ok: &'static str,
    unauthorized: &'static str,
}

impl Words {
    fn auth(&self, agency: u32, token: &str) -> Vec<u8> {
        (self.message)(&format!("AUTH|{agency}|{token}"))
    }

    fn ok(&self) -> Vec<u8> {
        (self.message)(self.ok)
    }

    fn unauthorized(&self) -> Vec<u8> {
        (self.message)(self.unauthorized)
    }
}

const FRAMED: Words = Words { message: frame, ok: "ACK|OK\n", unauthorized: "ACK|ERR|unauthorized\n" };
const COUNTED: Words = Words { message: counted, ok: "ACK", unauthorized: "ERROR_UNAUTHORIZED" };
const DIALECTS: [Words; 2] = [FRAMED, COUNTED];

/// Adds a token as `sorteo token add` does, beside the server.
fn add(database: &Path, holder: TokenHolder, expires_in: Option<Duration>) -> Token {
    let expires_at = expires_in.map(|time| SystemTime::now() + time);
    let new = NewToken { holder, label: String::new(), expires_at };
    Operator::open(database).unwrap().add_token(&new).unwrap()
}

fn agency_token(database: &Path, agency: u32) -> Token {
    add(database, TokenHolder::Agency(AgencyId(agency)), None)
}

fn operator_token(database: &Path) -> Token {
    add(database, TokenHolder::Operator(Role::Operator), None)
}

/// The token with the same id and another secret.
fn with_another_secret(token: &Token) -> Token {
    let text = token.reveal();
    let (head, last) = text.split_at(text.len() - 1);
    format!("{head}{}", if last == "0" { "1" } else { "0" }).parse().unwrap()
}
