//! `sorteo token`: who may do what. A change takes effect in a running server at once.

use std::convert::Infallible;
use std::time::SystemTime;

use anyhow::anyhow;
use clap::{ArgGroup, Subcommand};
use comfy_table::{Table, presets};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::arguments::{DatabaseArg, agency};
use super::failure::Failure;
use super::output::{say, say_json};
use crate::store::sqlite::operator::{NewToken, Operator};
use crate::store::sqlite::overview::{Overview, TokenRecord};
use crate::store::{Role, TokenHolder};
use sorteo_protocol::{AgencyId, NotATokenId, TokenId};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a token for an agency, or for an operator, and print it
    #[command(after_help = "\
The token alone is printed, and can never be shown again: redirect it to the
file that its owner gives to --token-file, which others must not be able to
read (`umask 077`). The database holds only its digest.

Examples:
  umask 077
  sorteo token add 7 --label 'Rosario centro' > agency-7.token
  sorteo token add 8 --expires 90d > agency-8.token
  sorteo token add --role viewer --label 'the wall screen' > screen.token")]
    #[command(group(ArgGroup::new("holder").args(["agency", "role"]).required(true)))]
    Add {
        /// The agency's number
        #[arg(value_name = "AGENCY", value_parser = agency)]
        agency: Option<AgencyId>,
        /// Add it for an operator instead: viewer, auditor or operator
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
        /// What people call it, in one line
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        label: String,
        /// When it expires: 90d, 12h, 2027-06-30 or 2027-06-30T18:00:00Z, in UTC [default: never]
        #[arg(long, value_name = "TIME", value_parser = end)]
        expires: Option<SystemTime>,
        #[command(flatten)]
        database: DatabaseArg,
    },
    /// List all tokens: whose they are, and when each was last used
    #[command(after_help = "\
Examples:
  sorteo token list
  sorteo token list --json | jq '.[] | select(.last_used_at == null) | .id'")]
    List {
        #[command(flatten)]
        database: DatabaseArg,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a token in place of another, which expires after a while
    #[command(after_help = "\
Both count until the old one expires. `sorteo token list` shows whether the old
one is still used; `sorteo token revoke` ends it before its time.

Write the new token beside the old one and rename the file: a shell empties the
file that it redirects to before the new token is there.

Examples:
  sorteo token rotate 0123456789abcdef > new.token
  mv new.token agency-7.token
  sorteo token rotate 0123456789abcdef --overlap 1h > new.token")]
    Rotate {
        /// The old token's id
        #[arg(value_name = "ID", value_parser = token_id)]
        id: Result<TokenId, NotATokenId>,
        /// For how long the old one still counts
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = overlap)]
        overlap: SystemTime,
        /// When the new one expires; needed if the old one does [default: never]
        #[arg(long, value_name = "TIME", value_parser = end)]
        expires: Option<SystemTime>,
        #[command(flatten)]
        database: DatabaseArg,
    },
    /// Revoke a token, and close the connections that it has authenticated
    #[command(after_help = "\
It counts no more at once, and a running server closes its connections within a
second. This cannot be undone.

Examples:
  sorteo token revoke 0123456789abcdef")]
    Revoke {
        /// The token's id
        #[arg(value_name = "ID", value_parser = token_id)]
        id: Result<TokenId, NotATokenId>,
        #[command(flatten)]
        database: DatabaseArg,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Add { agency, role, label, expires, database } => {
            let holder = match (agency, role) {
                (Some(agency), _) => TokenHolder::Agency(*agency),
                (None, Some(role)) => TokenHolder::Operator(*role),
                (None, None) => unreachable!("one of both is required"),
            };
            let new = NewToken { holder, label: label.clone(), expires_at: *expires };
            let token = Operator::open(&database.path()?)?.add_token(&new)?;
            Ok(say!("{}", token.reveal())?)
        }
        Command::List { database, json } => {
            list(&Overview::open(&database.path_to_read()?)?.tokens()?, *json)
        }
        Command::Rotate { id, overlap, expires, database } => {
            let id = require_id(id)?;
            let token = Operator::open(&database.path()?)?.rotate_token(id, *overlap, *expires)?;
            Ok(say!("{}", token.reveal())?)
        }
        Command::Revoke { id, database } => {
            let id = require_id(id)?;
            let token = Operator::open(&database.path()?)?.revoke_token(id)?;
            Ok(say!("token {id} of {} is revoked", token.holder)?)
        }
    }
}

/// Reads the id of a token. clap would show what is wrong, which may be a whole token.
fn token_id(text: &str) -> Result<Result<TokenId, NotATokenId>, Infallible> {
    Ok(text.parse())
}

fn require_id(id: &Result<TokenId, NotATokenId>) -> Result<&TokenId, Failure> {
    Ok(id.as_ref().map_err(|error| anyhow!("{error}: see `sorteo token list`"))?)
}

/// Reads when something ends: a time, a date, or how long from now.
fn end(text: &str) -> Result<SystemTime, String> {
    let moment = text.parse::<Timestamp>().ok();
    let date =
        || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|midnight| midnight.timestamp());
    let after = || {
        let span: Span = text.parse().ok()?;
        Zoned::now().with_time_zone(TimeZone::UTC).checked_add(span).ok().map(|then| then.timestamp())
    };
    let end = moment.or_else(date).or_else(after);
    end.map(SystemTime::from).ok_or_else(|| "write 90d, 12h, 2027-06-30 or 2027-06-30T18:00:00Z".to_owned())
}

/// Reads until when an old token still counts: not a time that is over, which nobody means.
fn overlap(text: &str) -> Result<SystemTime, String> {
    let now = SystemTime::now();
    let end = end(text)?;
    if end < now {
        Err("it is over already: write 0s to end the old token at once".to_owned())
    } else {
        Ok(end)
    }
}

fn list(tokens: &[TokenRecord], json: bool) -> Result<(), Failure> {
    if json {
        return say_json(&tokens);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["id", "of", "label", "added", "last used", "state"]);
    let now = SystemTime::now();
    for token in tokens {
        table.add_row([
            token.id.clone(),
            holder(token),
            token.label.clone(),
            to_the_minute(&token.created_at),
            token.last_used_at.as_deref().map(to_the_minute).unwrap_or("never".to_owned()),
            state(token, now),
        ]);
    }
    Ok(say!("{}", table.trim_fmt())?)
}

fn holder(token: &TokenRecord) -> String {
    match (token.agency, &token.role) {
        (Some(agency), _) => format!("agency {agency}"),
        (None, role) => role.clone().unwrap_or_default(),
    }
}

fn state(token: &TokenRecord, now: SystemTime) -> String {
    let has_expired = |at: &str| at.parse().is_ok_and(|at: Timestamp| SystemTime::from(at) <= now);
    match (&token.revoked_at, &token.expires_at) {
        (Some(at), _) => format!("revoked {}", to_the_minute(at)),
        (None, Some(at)) if has_expired(at) => format!("expired {}", to_the_minute(at)),
        (None, Some(at)) => format!("valid until {}", to_the_minute(at)),
        (None, None) => "valid".to_owned(),
    }
}

/// Returns a stored time without its seconds.
fn to_the_minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_overlap_may_be_nothing_but_not_over() {
        assert!(["0s", "1h", "2999-01-01"].iter().all(|text| overlap(text).is_ok()));
        assert!(["-1s", "2020-01-01", "soon"].iter().all(|text| overlap(text).is_err()));
    }

    #[test]
    fn an_end_is_a_time_a_date_or_a_duration_from_now() {
        let at = |text: &str| SystemTime::from(text.parse::<Timestamp>().unwrap());
        assert_eq!(end("2027-06-30T18:00:00Z"), Ok(at("2027-06-30T18:00:00Z")));
        assert_eq!(end("2027-06-30"), Ok(at("2027-06-30T00:00:00Z")));
        let day = Duration::from_secs(86_400);
        for (text, expected) in [("90d", 90 * day), ("12h", day / 2), ("1h 30m", day / 16)] {
            let (before, read) = (SystemTime::now(), end(text).unwrap());
            assert!((before + expected..=SystemTime::now() + expected).contains(&read), "{text}");
        }
        for wrong in ["", "soon", "90", "2027-13-01", "tomorrow", "d"] {
            assert!(end(wrong).is_err(), "{wrong}");
        }
    }
}
