//! The tokens by which agencies and operators prove who they are.
//!
//! A token is `sorteo_<id>_<secret>`: 64 random bits that name it and 256 random bits that
//! nobody can guess, both in lower-case hexadecimal. A database holds its id and the SHA-256
//! of the whole text, so that whoever reads the database can use none.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::text::hexadecimal;

/// What every token begins with: by it people, and scanners for leaked secrets, recognise one.
const PREFIX: &str = "sorteo_";
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;

/// Characters of a token.
pub const TOKEN_CHARS: usize = PREFIX.len() + ID_DIGITS + "_".len() + SECRET_DIGITS;

/// A secret token. It is not displayed, and [`Debug`](fmt::Debug) shows its id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// The public part of a token, by which it is looked up, listed and revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(Box<str>);

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: one is `sorteo_`, 16 hexadecimal digits, `_` and 64 more")]
pub struct NotAToken;

/// The text is no token's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a token, which is 16 hexadecimal digits")]
pub struct NotATokenId;

impl Token {
    /// Returns the token of these random bytes.
    pub fn from_random(id: [u8; ID_DIGITS / 2], secret: [u8; SECRET_DIGITS / 2]) -> Self {
        Self(format!("{PREFIX}{}_{}", hexadecimal(&id), hexadecimal(&secret)).into())
    }

    /// Returns the part that is no secret.
    pub fn id(&self) -> TokenId {
        TokenId(self.0[PREFIX.len()..PREFIX.len() + ID_DIGITS].into())
    }

    /// Returns the SHA-256 of the whole text, which a database keeps in its place.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Returns the secret text itself: to be sent, or shown to its owner once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (id, secret) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(NotAToken)?;
        match is_hexadecimal(id, ID_DIGITS) && is_hexadecimal(secret, SECRET_DIGITS) {
            true => Ok(Self(text.into())),
            false => Err(NotAToken),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret)", self.id())
    }
}

impl TokenId {
    /// Returns the id, as it is listed and stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        if is_hexadecimal(text, ID_DIGITS) { Ok(Self(text.into())) } else { Err(NotATokenId) }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_shows_no_secret() {
        let token = Token::from_random([0xab; 8], [0xcd; 32]);
        assert_eq!(token.reveal(), format!("sorteo_{}_{}", "ab".repeat(8), "cd".repeat(32)));
        assert_eq!((token.reveal().len(), token.reveal().parse()), (TOKEN_CHARS, Ok(token.clone())));
        assert_eq!(format!("{token:?}"), format!("Token({}, secret)", "ab".repeat(8)));
        assert_eq!(token.id(), "ab".repeat(8).parse().unwrap());
        // As `printf %s TOKEN | sha256sum` prints it.
        let sha256 = "48202961026b6bd0ffbf56e3a58abf0817435dcef4ca66df9b265046a854cdbb";
        assert_eq!(hexadecimal(&token.digest()), sha256);
    }

    #[test]
    fn nothing_else_is_a_token() {
        let token = Token::from_random([1; 8], [2; 32]);
        let text = token.reveal();
        for wrong in [
            text.to_uppercase(),
            text.replace("sorteo_", "sorteo-"),
            text.replace("01", "0g"),
            format!("{text}0"),
            format!("{text}\n"),
            format!(" {text}"),
            text[..text.len() - 1].to_owned(),
            String::new(),
        ] {
            assert_eq!(wrong.parse::<Token>(), Err(NotAToken), "{wrong:?}");
        }
    }
}
