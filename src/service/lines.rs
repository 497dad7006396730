//! The log lines of requests. A refusal's line names the agency, the address and the
//! upload, as far as they are known, and is logged only as often as the
//! [limits](crate::logging::limits) of its peer allow.

use log::kv::Value;

use super::access::{AuthFailure, Identity};
use crate::event;
use crate::logging::Number;
use crate::logging::limits::{Kind, Peer};
use crate::store::{Closing, DrawStatus};
use sorteo_protocol::wire::counted::PAYLOAD_AGENCIES_MAX;
use sorteo_protocol::wire::{Claim, Reason, Reply, Sender, SenderAgency};
use sorteo_protocol::{AgencyId, DrawId};

/// A number in JSON, if there is just one.
impl Number for SenderAgency {
    fn number(&self) -> Value<'static> {
        match self {
            Self::Unknown => Value::from(""),
            Self::One(agency) => agency.number(),
            Self::Several => Value::from("several"),
        }
    }
}

/// Returns the upload as the log has it, where none is empty.
fn upload(sender: &Sender) -> &str {
    sender.upload.as_ref().map_or("", |upload| upload.as_str())
}

/// Logs who a peer has proved to be. Clients that connect for each message prove it each time.
pub(super) fn log_authenticated(identity: &Identity, peer: &Peer) {
    let token = identity.token().map_or("", |token| token.as_str());
    event!(Debug, "authenticate", Success, agency = identity.agency, ip = peer.ip, token = token);
}

/// Logs that a peer is not who it says it is, and why: the peer learns only that.
pub(super) fn log_not_authenticated(claim: Option<&Claim>, failure: AuthFailure, peer: &mut Peer) {
    if peer.allow(Kind::Auth) {
        let agency: SenderAgency = claim.iter().map(|claim| claim.agency).collect();
        let token = claim.map(|claim| claim.token.id());
        let token = token.as_ref().map_or("", |token| token.as_str());
        event!(Warn, "authenticate", Fail, error = failure, agency = agency, ip = peer.ip, token = token);
    }
}

pub(super) fn log_bet_stored(document: &str, number: u32) {
    event!(Info, "apuesta_almacenada", Success, dni = document, numero = number);
}

pub(super) fn log_bet_refused(
    document: &str,
    number: u32,
    reason: &Reason,
    agency: AgencyId,
    peer: &mut Peer,
) {
    if peer.allow(Kind::Bet) {
        event!(
            Info,
            "apuesta_almacenada",
            Fail,
            dni = document,
            numero = number,
            error = logged(reason),
            agency = agency,
            ip = peer.ip,
        );
    }
}

/// Logs that a batch was stored. One without bets stores nothing, and so is limited.
pub(super) fn log_batch_stored(count: u64, peer: &mut Peer) {
    if count > 0 || peer.allow(Kind::Batch) {
        event!(Info, "apuesta_recibida", Success, cantidad = count);
    }
}

pub(super) fn log_batch_refused(count: u64, reason: &Reason, sender: &Sender, peer: &mut Peer) {
    if peer.allow(Kind::Batch) {
        log_batch_failed(count, &logged(reason), sender, peer);
    }
}

fn log_batch_failed(count: u64, error: &str, sender: &Sender, peer: &Peer) {
    let (agency, upload) = (sender.agency, upload(sender));
    event!(
        Info,
        "apuesta_recibida",
        Fail,
        cantidad = count,
        error = error,
        agency = agency,
        ip = peer.ip,
        upload = upload,
    );
}

/// Logs that a message was refused before it reached the store.
pub fn log_refusal(reply: &Reply, sender: &Sender, peer: &mut Peer) {
    match reply {
        Reply::Batch { count, result: Err(reason) } => log_batch_refused(*count, reason, sender, peer),
        // Such a length is of the counted dialect, where the log takes a message for a batch.
        Reply::Unrecognised(reason @ Reason::BadLength) => log_batch_refused(0, reason, sender, peer),
        reply => {
            if let Some(reason) = reply.refusal()
                && peer.allow(Kind::Message)
            {
                let (agency, upload) = (sender.agency, upload(sender));
                event!(
                    Info,
                    "mensaje_recibido",
                    Fail,
                    error = logged(reason),
                    agency = agency,
                    ip = peer.ip,
                    upload = upload,
                );
            }
        }
    }
}

/// Logs that a peer went away, or was too slow, in the middle of a batch.
pub fn log_batch_cut_short(count: u64, why: &str, sender: &Sender, peer: &mut Peer) {
    if peer.allow(Kind::Batch) {
        log_batch_failed(count, why, sender, peer);
    }
}

/// Logs an agency's end once for each draw: those of the counted dialect repeat it.
pub(super) fn log_closed(agency: AgencyId, closing: Closing) {
    if closing == Closing::Now {
        event!(Info, "agencia_terminada", Success, agencia = agency);
    }
}

pub(super) fn log_done_refused(agency: AgencyId, reason: &Reason, peer: &mut Peer) {
    if peer.allow(Kind::Done) {
        event!(Info, "agencia_terminada", Fail, agencia = agency, error = logged(reason), ip = peer.ip);
    }
}

/// Logs that the winners of an agency do not fit the frame that it asks for.
pub(super) fn log_unpaged(draw: DrawId, agency: AgencyId) {
    let error = "too_many use_pages: the winners do not fit one frame. A client that does not ask for pages may \
                 ask for ever; `sorteo winners` gets them";
    event!(Warn, "consulta_ganadores", Fail, draw = draw, agencia = agency, error = error);
}

/// Returns a reason as the log has it, where a `|` would end the value. Where it is a
/// limit, an operator must know which setting.
fn logged(reason: &Reason) -> String {
    match reason {
        Reason::TooMany => {
            format!("too_many (the limits: batch_bets_max, and {PAYLOAD_AGENCIES_MAX} agencies in a payload)")
        }
        Reason::BadLength => "bad_length (not a number, or more than payload_bytes_max)".to_owned(),
        reason => reason.to_string().replace('|', " "),
    }
}

/// Logs a draw. The process that drew calls it, once for each draw.
pub fn log_drawn(status: &DrawStatus) {
    event!(Info, "sorteo", Success, draw = status.draw, bets = status.bets, winners = status.winners);
}
