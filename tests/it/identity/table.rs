//! The table of what is answered when: every message of both dialects, from its own agency,
//! from another and from a stranger, under each rule of who must prove who it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use sorteo::service::{Auth, Service};
use sorteo::store::sqlite::AGENCIES_MAX;
use sorteo::store::{ExpectedAgencies, Store as _, StoredToken, TokenHolder};
use sorteo_protocol::wire::{Incoming, Request, WireLimits};
use sorteo_protocol::{AgencyId, Batch, Bets, Token, UploadId, UploadPosition};
use sorteo_test_support::conversation::Peer;
use sorteo_test_support::delivery::deliver;
use sorteo_test_support::memory_store::MemoryStore;

use crate::test_server::{counted, frame, frames, raw_frame};

const LIMITS: WireLimits = WireLimits { batch_bets_max: 3, payload_bytes_max: 5_000 };

const ROW: &str = "Ana|Paz|30904465|1999-03-17|7574";

/// A message about agency 1, and what becomes of it.
struct Row {
    send: Vec<u8>,
    /// Whether the draw is drawn before.
    is_drawn: bool,
    /// Where nobody must prove who it is.
    off: Cell,
    /// From a peer that has not proved who it is, but need not.
    stranger: Cell,
    /// From one that must.
    stranger_refused: Cell,
    /// From agency 1.
    own: Cell,
    /// From agency 2.
    other: Cell,
}

#[derive(Clone, Copy)]
struct Cell {
    reply: &'static str,
    stays: bool,
    /// Whether anything is stored, or an agency done, that was not before.
    changes: bool,
}

/// A message that everybody may send, and its reply.
fn row(send: Vec<u8>, reply: &'static str) -> Row {
    let free = Cell { reply, stays: true, changes: false };
    let refused = if send[0] == 0 { "ACK|ERR|unauthorized" } else { "ERROR_UNAUTHORIZED" };
    let stranger_refused = Cell { reply: refused, stays: false, changes: false };
    Row { send, is_drawn: false, off: free, stranger: free, stranger_refused, own: free, other: free }
}

impl Row {
    fn drawn(self) -> Self {
        Self { is_drawn: true, ..self }
    }

    fn map_allowed(mut self, change: impl Fn(&mut Cell)) -> Self {
        [&mut self.off, &mut self.stranger, &mut self.own, &mut self.other].into_iter().for_each(change);
        self
    }

    fn changing(self) -> Self {
        self.map_allowed(|cell| cell.changes = true)
    }

    fn closing(self) -> Self {
        self.map_allowed(|cell| cell.stays = false)
    }

    /// What another agency gets, which must not be carried out.
    fn forbidden(self, reply: &'static str) -> Self {
        Self { other: Cell { reply, stays: true, changes: false }, ..self }
    }

    /// The same for its own agency, where the message is not its alone.
    fn for_nobody(self, reply: &'static str) -> Self {
        let own = Cell { reply, stays: true, changes: false };
        Self { own, ..self.forbidden(reply) }
    }

    /// What a peer gets that must prove who it is first.
    fn unproved(self, reply: &'static str) -> Self {
        Self { stranger_refused: Cell { reply, stays: false, changes: false }, ..self }
    }

    /// The same for a peer that must prove who it is: this proves it, or may become a proof.
    fn for_strangers_too(self) -> Self {
        Self { stranger_refused: self.stranger, ..self }
    }

    fn without_auth(mut self, reply: &'static str) -> Self {
        self.off.reply = reply;
        self.off.stays = true;
        self
    }
}

fn framed_rows(own: &Token) -> Vec<Row> {
    const FORBIDDEN: &str = "ACK|ERR|forbidden";
    let winners = |line: &str, reply| {
        row(frame(line), reply)
            .drawn()
            .forbidden("WINNERS|ERR|forbidden")
            .unproved("WINNERS|ERR|unauthorized")
    };
    let batch = |lines: &[&str], reply| row(frames(lines), reply);
    let other_row = "Ana|Paz|30904465|1999-02-31|7574";
    vec![
        row(frame(&format!("BET|1|{ROW}")), "ACK|OK").changing().forbidden(FORBIDDEN),
        row(frame("BET|1|Ana"), "ACK|ERR|bad_fields"),
        row(raw_frame(b"BET|1|\xff"), "ACK|ERR|bad_utf8"),
        batch(&["BATCH|1|2", ROW, ROW], "ACK_BATCH|OK|2")
            .changing()
            .forbidden("ACK_BATCH|ERR|2|forbidden")
            .unproved("ACK_BATCH|ERR|2|unauthorized"),
        batch(&["BATCH|1|1|u|1", ROW], "ACK_BATCH|OK|1")
            .changing()
            .forbidden("ACK_BATCH|ERR|1|forbidden")
            .unproved("ACK_BATCH|ERR|1|unauthorized"),
        batch(&["BATCH|1|1|u|0|1", ROW], "ACK_BATCH|OK|1")
            .forbidden("ACK_BATCH|ERR|1|forbidden")
            .unproved("ACK_BATCH|ERR|1|unauthorized"),
        batch(&["BATCH|1|0"], "ACK_BATCH|OK|0")
            .forbidden("ACK_BATCH|ERR|0|forbidden")
            .unproved("ACK_BATCH|ERR|0|unauthorized"),
        // Half a batch, and one that is malformed.
        batch(&["BATCH|1|2"], "").unproved("ACK_BATCH|ERR|2|unauthorized"),
        batch(&["BATCH|1|2", ROW], "").unproved("ACK_BATCH|ERR|2|unauthorized"),
        batch(&["BATCH|1|2", ROW, other_row], "ACK_BATCH|ERR|2|row 2: bad_birthdate")
            .unproved("ACK_BATCH|ERR|2|unauthorized"),
        batch(&["BATCH|1|1", &format!("BET|2|{ROW}")], "ACK_BATCH|ERR|1|row 1: agency_mismatch")
            .unproved("ACK_BATCH|ERR|1|unauthorized"),
        batch(&["BATCH|x|1", ROW], "ACK_BATCH|ERR|1|bad_agency").unproved("ACK_BATCH|ERR|1|unauthorized"),
        batch(&["BATCH|1"], "ACK_BATCH|ERR|0|bad_header").unproved("ACK_BATCH|ERR|0|unauthorized"),
        batch(&["BATCH|1|-1"], "ACK_BATCH|ERR|0|bad_count").unproved("ACK_BATCH|ERR|0|unauthorized"),
        batch(&["BATCH|1|4"], "ACK_BATCH|ERR|4|too_many").closing().unproved("ACK_BATCH|ERR|4|unauthorized"),
        row(frame("DONE|1"), "ACK_DONE|OK")
            .changing()
            .forbidden("ACK_DONE|ERR|forbidden")
            .unproved("ACK_DONE|ERR|unauthorized"),
        row(frame("DONE|1|9|1"), "ACK_DONE|ERR|count_mismatch|1")
            .forbidden("ACK_DONE|ERR|forbidden")
            .unproved("ACK_DONE|ERR|unauthorized"),
        row(frame("DONE"), "ACK_DONE|ERR|bad_header").unproved("ACK_DONE|ERR|unauthorized"),
        winners("GET_WINNERS|1", "WINNERS|OK|A1"),
        winners("GET_WINNERS|1|0", "WINNERS|OK|A1|"),
        winners("GET_WINNERS|1|0|1", "WINNERS|OK|A1|"),
        winners("WAIT_WINNERS|1|60000", "WINNERS|OK|A1|"),
        row(frame("WAIT_WINNERS|1|60000"), "WINNERS|ERR|not_ready")
            .forbidden("WINNERS|ERR|forbidden")
            .unproved("WINNERS|ERR|unauthorized"),
        row(frame("GET_WINNERS|x"), "WINNERS|ERR|bad_agency").unproved("WINNERS|ERR|unauthorized"),
        row(frame("RESUME|1|u"), "RESUME|OK|1")
            .forbidden("RESUME|ERR|forbidden")
            .unproved("RESUME|ERR|unauthorized"),
        row(frame("RESUME|1|"), "RESUME|ERR|bad_upload").unproved("RESUME|ERR|unauthorized"),
        row(frame("HELLO"), "HELLO|OK|1|uploads,draws,pages,waits,auth")
            .unproved("HELLO|ERR|unauthorized")
            .without_auth("HELLO|OK|1|uploads,draws,pages,waits"),
        row(frame("HELLO|1"), "HELLO|ERR|bad_header").unproved("HELLO|ERR|unauthorized"),
        row(frame("STATUS"), "STATUS|OK|1|open|0|2|1").unproved("STATUS|ERR|unauthorized"),
        row(frame("STATUS|1"), "STATUS|ERR|bad_header").unproved("STATUS|ERR|unauthorized"),
        // No request, and no frame.
        row(frame("auth|1|x"), "ACK|ERR|unknown"),
        row(frame("\n"), "ACK|ERR|unknown"),
        row(vec![0, 0, 0, 0], "ACK|ERR|bad_frame").closing(),
        row(vec![0, 0, 0], "").for_strangers_too(),
        row(frame(&format!("AUTH|1|{}", own.reveal())), "ACK|OK")
            .for_strangers_too()
            .without_auth("ACK|ERR|unknown"),
        row(frame(&format!("AUTH|2|{}", own.reveal())), "ACK|ERR|unauthorized")
            .closing()
            .without_auth("ACK|ERR|unknown"),
        row(frame("AUTH"), "ACK|ERR|unauthorized").closing().without_auth("ACK|ERR|unknown"),
        row(frame(&format!("AUTH|1|{}|", own.reveal())), "ACK|ERR|unauthorized")
            .closing()
            .without_auth("ACK|ERR|unknown"),
    ]
}

fn counted_rows(own: &Token) -> Vec<Row> {
    const FORBIDDEN: &str = "ERROR_INVALID_AGENCY";
    const INVALID: &str = "ERROR_INVALID_BATCH";
    let payload = |text: &str, reply| row(counted(text), reply);
    vec![
        payload(&format!("{ROW}|1"), "ACK").changing().forbidden(FORBIDDEN),
        payload(&format!("{ROW}|1\n{ROW}|1\n"), "ACK").changing().forbidden(FORBIDDEN),
        payload(&format!("{ROW}|1\n{ROW}|2"), "ACK").changing().for_nobody(FORBIDDEN),
        payload(&format!("{ROW}|2\n{ROW}|1"), "ACK").changing().for_nobody(FORBIDDEN),
        payload(&format!("{ROW}|1\n{ROW}|4294967295"), "ACK").changing().for_nobody(FORBIDDEN),
        payload(&format!("{ROW}|x"), INVALID),
        payload("\n", "ERROR_EMPTY_BATCH"),
        payload("HELLO", INVALID),
        payload(&format!("AUTH|1|{}|", own.reveal()), INVALID),
        // Half a payload: a stranger may send an AUTH, and no more.
        row(b"4000\nAna|".to_vec(), "").for_strangers_too(),
        row([b"4000\n".to_vec(), vec![b'a'; 1_019]].concat(), "").for_strangers_too(),
        row([b"4000\n".to_vec(), vec![b'a'; 1_020]].concat(), "").unproved("ERROR_UNAUTHORIZED"),
        row(b"5001\n".to_vec(), INVALID).closing(),
        row(b"1x".to_vec(), INVALID).closing(),
        payload("GET_WINNERS|1", "Ana|Paz|A1|1999-03-17|7574|1").drawn().forbidden(FORBIDDEN),
        payload("GET_WINNERS|1", "ERROR_LOTTERY_HASNT_ENDED").changing().forbidden(FORBIDDEN),
        payload("GET_WINNERS", "ERROR_INVALID_GET_WINNERS"),
        payload(&format!("AUTH|1|{}", own.reveal()), "ACK").for_strangers_too().without_auth(INVALID),
        payload(&format!("AUTH|1|{}\n", own.reveal()), "ACK").for_strangers_too().without_auth(INVALID),
        payload(&format!("AUTH|2|{}", own.reveal()), "ERROR_UNAUTHORIZED").closing().without_auth(INVALID),
        payload("AUTH|1|sorteo_", "ERROR_UNAUTHORIZED").closing().without_auth(INVALID),
    ]
}

/// A store with an upload of one row of agency 1, `A1`, which wins, and one of agency 2.
fn store(is_drawn: bool, tokens: &[(Token, u32)]) -> MemoryStore {
    let agencies = Some(ExpectedAgencies::from(2));
    let store = MemoryStore::new(agencies, AGENCIES_MAX, 7574, || {});
    for (token, agency) in tokens {
        let holder = TokenHolder::Agency(AgencyId(*agency));
        let stored = StoredToken { holder, digest: token.digest(), expires_at: None, is_revoked: false };
        store.set_token(token.id(), stored);
    }
    let mut bets = Bets::default();
    bets.push(ROW.split('|').collect::<Vec<_>>().try_into().unwrap()).unwrap();
    if is_drawn {
        bets = Bets::default();
        bets.push(["Ana", "Paz", "A1", "1999-03-17", "7574"]).unwrap();
    }
    let position = UploadPosition { upload: UploadId::new("u").unwrap(), first_row: 0, draw: None };
    let batch = Batch { agency: AgencyId(1), bets, position: Some(position) };
    store.append(vec![batch]).unwrap().wait().unwrap().unwrap();
    if is_drawn {
        for agency in [1, 2] {
            store.close_agency(AgencyId(agency), None).unwrap().wait().unwrap().unwrap();
        }
    }
    store
}

#[derive(Clone, Copy, Debug)]
enum From {
    Stranger,
    Own,
    Other,
}

fn assert_cell(row: &Row, auth: Auth, from: From, tokens: &[(Token, u32); 2]) {
    let is_framed = row.send[0] == 0;
    let message = |text: &str| if is_framed { frame(&format!("{text}\n")) } else { counted(text) };
    let shown = format!("{:?} from {from:?}, auth {auth:?}", row.send.escape_ascii().to_string());
    let mut peer =
        Peer::of(Service::new(store(row.is_drawn, tokens), Arc::default()).with_auth(auth), LIMITS);
    if let Some((token, agency)) = match from {
        From::Stranger => None,
        From::Own => Some(&tokens[0]),
        From::Other => Some(&tokens[1]),
    } {
        let line = format!("AUTH|{agency}|{}", token.reveal());
        let ok = match (auth, is_framed) {
            (Auth::Off, true) => "ACK|ERR|unknown",
            (Auth::Off, false) => "ERROR_INVALID_BATCH",
            (_, true) => "ACK|OK",
            (_, false) => "ACK",
        };
        let request = if is_framed { frame(&line) } else { counted(&line) };
        assert_eq!(peer.send(&request), message(ok), "{shown}");
    }
    let before = peer.service.store().stored();
    let expected = match (auth, from) {
        (Auth::Off, _) => row.off,
        (Auth::Optional, From::Stranger) => row.stranger,
        (Auth::Required, From::Stranger) => row.stranger_refused,
        (_, From::Own) => row.own,
        (_, From::Other) => row.other,
    };
    let replied = peer.send(&row.send).escape_ascii().to_string();
    let reply = if expected.reply.is_empty() { Vec::new() } else { message(expected.reply) };
    assert_eq!(replied, reply.escape_ascii().to_string(), "{shown}");
    assert_eq!(!peer.is_closed(), expected.stays, "whether the connection stays: {shown}");
    let has_changed = peer.service.store().stored() != before;
    assert_eq!(has_changed, expected.changes, "whether anything changes: {shown}");
    if peer.is_closed() {
        assert_eq!(peer.conversation.held_bytes(), 0, "{shown}");
        assert_eq!(peer.conversation.batch_in_progress(), None, "{shown}");
    }
}

/// Another variant needs a row, and a line here.
fn kind(request: &Request) -> &'static str {
    match request {
        Request::Bet(_) => "bet",
        Request::Batch(_) => "batch",
        Request::Payload(_) => "payload",
        Request::Done { .. } => "done",
        Request::Winners { .. } => "winners",
        Request::WinnersPage { .. } => "page",
        Request::WaitWinners { .. } => "wait",
        Request::DoneAndWinners { .. } => "done and winners",
        Request::Resume { .. } => "resume",
        Request::Hello => "hello",
        Request::Status => "status",
        Request::Auth(Some(_)) => "auth",
        Request::Auth(None) => "auth without a claim",
    }
}
const KINDS: usize = 13;

#[test]
fn every_message_from_everybody_under_every_rule_gets_what_the_table_says() {
    let tokens = [(Token::from_random([1; 8], [1; 32]), 1), (Token::from_random([2; 8], [2; 32]), 2)];
    let own = &tokens[0].0;
    let rows: Vec<Row> = framed_rows(own).into_iter().chain(counted_rows(own)).collect();
    let mut kinds = BTreeSet::new();
    for row in &rows {
        kinds.extend(deliver(LIMITS, [&row.send[..]]).messages.iter().filter_map(|message| match message {
            Incoming::Request(request) => Some(kind(request)),
            _ => None,
        }));
        for auth in [Auth::Off, Auth::Optional, Auth::Required] {
            for from in [From::Stranger, From::Own, From::Other] {
                assert_cell(row, auth, from, &tokens);
            }
        }
    }
    assert_eq!(kinds.len(), KINDS, "a request has no row: {kinds:?}");
}
