//! A server that stops: what is in flight is finished, everything else is closed.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use sorteo::service::Auth;
use sorteo::store::sqlite::SqliteStore;
use sorteo::store::sqlite::operator::{NewToken, Operator};
use sorteo::store::{
    Appended, Closed, DrawStatus, Resolver, Store, StoreError, StoredToken, Submitter, Ticket, TokenHolder,
    TokenUse, Tokens, WinnersSize, WinningBet,
};
use sorteo_protocol::{AgencyId, Batch, DrawId, TokenId, UploadId};

use super::{ACK_BATCH_2, FRESH_STATUS, NOT_READY, SECOND_HALF, SHORT, half_batch, waiter, winning_batch};
use crate::test_server::{Client, DEADLINE, Setup, TestServer, frame, until};

/// A store whose appends wait at a gate, and whose uses of tokens are never written, in front
/// of a real one.
struct Gated {
    store: SqliteStore,
    uses: Mutex<Vec<Resolver<()>>>,
    arrived: Mutex<Sender<()>>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Store for Gated {
    fn append_from(&self, submitter: Submitter, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        self.arrived.lock().unwrap().send(()).unwrap();
        // Opened once for each, or for good when its sender is gone.
        let _ = self.gate.lock().unwrap().recv_timeout(DEADLINE);
        self.store.append_from(submitter, batches)
    }

    fn close_agency_from(
        &self,
        submitter: Submitter,
        agency: AgencyId,
        bets: Option<u64>,
        draw: Option<DrawId>,
    ) -> Result<Ticket<Closed>, StoreError> {
        self.store.close_agency_from(submitter, agency, bets, draw)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        self.store.probe()
    }

    fn next_row(&self, draw: DrawId, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError> {
        self.store.next_row(draw, agency, upload)
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        self.store.newest_draw()
    }

    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        self.store.draw(draw)
    }

    fn previous_draw_for(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        self.store.previous_draw_for(agency)
    }

    fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError> {
        self.store.winners(draw, agency, after, bets_max)
    }

    fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError> {
        self.store.winners_size(draw, agency)
    }

    fn tokens(&self) -> &dyn Tokens {
        self
    }
}

impl Tokens for Gated {
    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        self.store.tokens().find(id)
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.store.tokens().version()
    }

    fn ends(&self) -> Result<BTreeMap<TokenId, SystemTime>, StoreError> {
        self.store.tokens().ends()
    }

    fn record_uses(&self, _: Vec<TokenUse>) -> Result<Ticket<()>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        self.uses.lock().unwrap().push(resolver);
        Ok(ticket)
    }
}

#[test]
fn stopping_does_not_wait_for_a_writer_that_records_no_uses_of_tokens() {
    let (arrived, gate) = (mpsc::channel().0, mpsc::channel().1);
    let mut server = TestServer::start(Setup::auth(Auth::Required), |store| Gated {
        store,
        uses: Mutex::default(),
        arrived: Mutex::new(arrived),
        gate: Arc::new(Mutex::new(gate)),
    });
    let new = NewToken { holder: TokenHolder::Agency(AgencyId(1)), label: String::new(), expires_at: None };
    let token = Operator::open(&server.database_path()).unwrap().add_token(&new).unwrap();
    server.ask_once(&frame(&format!("AUTH|1|{}", token.reveal())), &frame("ACK|OK\n"));
    server.stop().unwrap();
}

#[test]
fn stopping_finishes_what_is_in_flight_and_closes_the_rest() {
    let (arrived, arrivals) = mpsc::channel();
    let (open_gate, gate) = mpsc::channel();
    let mut server = TestServer::start(Setup::agencies(2), |store| Gated {
        store,
        uses: Mutex::default(),
        arrived: Mutex::new(arrived),
        gate: Arc::new(Mutex::new(gate)),
    });
    let mut idle = server.connect();
    idle.ask(&frame("STATUS"), FRESH_STATUS);
    let mut waiting = waiter(&server, 1, FRESH_STATUS);
    let mut slow = server.connect();
    slow.send(&[frame("STATUS"), half_batch()].concat());
    slow.expect(FRESH_STATUS);
    let mut busy = server.connect();
    busy.send(&winning_batch(1, &["3", "4"]));
    arrivals.recv_timeout(DEADLINE).unwrap();

    server.begin_to_stop();
    idle.expect_end();
    waiting.expect(NOT_READY);
    waiting.expect_end();
    assert!(!busy.has_answer() && !slow.has_answer(), "both are waited for");
    open_gate.send(()).unwrap();
    busy.expect(ACK_BATCH_2);
    busy.expect_end();
    assert_eq!(server.stored_bets(), 2, "what is acknowledged is stored");
    drop(open_gate);
    slow.ask(&frame(SECOND_HALF), ACK_BATCH_2);
    slow.expect_end();
    server.wait_end().unwrap();
    assert_eq!(server.stored_bets(), 4);
}

#[test]
fn stopping_waits_no_longer_than_the_drain_limit_for_a_slow_peer() {
    let setup = Setup::agencies(2).limits(|limits| limits.drain_timeout = SHORT);
    let mut server = setup.start();
    let mut slow = server.connect();
    slow.send(&[frame("STATUS"), half_batch()].concat());
    slow.expect(FRESH_STATUS);
    server.stop().unwrap();
    slow.expect_end();
    assert_eq!(server.stored_bets(), 0);
}

#[test]
fn stopping_a_server_that_nobody_talks_to_ends_at_once() {
    let mut fresh = Setup::default().start();
    fresh.stop().unwrap();
    let mut server = Setup::agencies(2).start();
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask(&frame("STATUS"), FRESH_STATUS);
    }
    server.stop().unwrap();
    for client in &mut clients {
        client.expect_end();
    }
}

#[test]
fn every_acknowledged_batch_of_a_server_that_stops_under_load_is_stored_once() {
    let mut server = Setup::agencies(99).start();
    let acknowledged: u64 = thread::scope(|scope| {
        let (begun, beginnings) = mpsc::channel();
        let clients: Vec<_> = (1..=8)
            .map(|agency| {
                let mut client = server.connect();
                let begun = begun.clone();
                scope.spawn(move || {
                    let mut acknowledged = 0;
                    // Until the server closes: whole answers only, each for its batch.
                    while client.try_send(&winning_batch(agency, &["1", "2"])) {
                        match client.answers_or_ends(ACK_BATCH_2) {
                            true => acknowledged += 2,
                            false => break,
                        }
                        if acknowledged == 20 {
                            begun.send(()).unwrap();
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        for _ in &clients {
            beginnings.recv_timeout(DEADLINE).unwrap();
        }
        server.stop().unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let stored = server.stored_bets();
    // One batch of each may be stored without its answer having arrived.
    assert!(
        (acknowledged..=acknowledged + 8 * 2).contains(&stored),
        "{acknowledged} were acknowledged, {stored} stored"
    );
    assert_eq!(stored % 2, 0, "whole batches only");
}

#[test]
fn a_peer_that_was_told_goodbye_and_sends_on_for_ever_is_closed() {
    let server = Setup::agencies(2).limits(|limits| limits.workers = 1).start();
    let mut talkative = server.connect();
    talkative.ask(b"99999999999\n", b"19\nERROR_INVALID_BATCH");
    // If the server read the peer endlessly, this would fail at the deadline.
    until("the peer is cut off", || !talkative.try_send(&[b'x'; 1 << 16]));
}
