//! A store that is slow, full, or fails.

use sorteo::server::ServeError;
use sorteo::store::sqlite::SqliteStore;
use sorteo::store::{
    Appended, Closed, DrawStatus, Store, StoreError, Submitter, Ticket, Tokens, WinnersSize, WinningBet,
};
use sorteo_protocol::{AgencyId, Batch, DrawId, UploadId};

use super::{ACK_BATCH_1, FRESH_STATUS, done, winning_batch};
use crate::test_server::{Client, Setup, TestServer, counted, frame, until};

#[test]
fn a_full_queue_is_answered_busy_and_stores_nothing_of_it() {
    let setup = Setup { queue_max: 1, ..Setup::agencies(2) };
    let server = setup.limits(|limits| limits.workers = 64).start();
    let mut database = server.database();
    // While another process holds the write lock nothing is committed, so the
    // only reply can be `busy`.
    let lock = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut clients: Vec<Client> = (0..20)
        .map(|document: u32| {
            let mut client = server.connect();
            client.send(&winning_batch(1, &[&document.to_string()]));
            client
        })
        .collect();
    until("somebody is told `busy`", || clients.iter().any(Client::has_answer));
    let early: Vec<bool> = clients.iter().map(Client::has_answer).collect();
    lock.commit().unwrap();
    let mut stored = 0;
    for (client, early) in clients.iter_mut().zip(early) {
        match client.read_frame().as_str() {
            "ACK_BATCH|OK|1\n" if !early => stored += 1,
            "ACK_BATCH|ERR|1|busy\n" => {}
            other => panic!("{other:?}, early: {early}"),
        }
    }
    assert_eq!(server.stored_bets(), stored);
    clients[0].ask(&winning_batch(1, &["again"]), ACK_BATCH_1);
}

/// A real store behind one that fails as the test wants.
struct Failing {
    store: SqliteStore,
    error: StoreError,
}

impl Store for Failing {
    fn append_from(&self, _: Submitter, _: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        // As the writer does it: the submission succeeds, the commit does not.
        let (resolver, ticket) = Ticket::new();
        resolver.resolve(Err(self.error));
        Ok(ticket)
    }

    fn close_agency_from(
        &self,
        _: Submitter,
        _: AgencyId,
        _: Option<u64>,
        _: Option<DrawId>,
    ) -> Result<Ticket<Closed>, StoreError> {
        Err(self.error)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        Err(self.error)
    }

    fn next_row(&self, _: DrawId, _: AgencyId, _: &UploadId) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
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

    fn winners(&self, _: DrawId, _: AgencyId, _: u64, _: usize) -> Result<Vec<WinningBet>, StoreError> {
        Err(StoreError::Unavailable)
    }

    fn winners_size(&self, _: DrawId, _: AgencyId) -> Result<WinnersSize, StoreError> {
        Err(StoreError::Unavailable)
    }

    fn tokens(&self) -> &dyn Tokens {
        self.store.tokens()
    }
}

#[test]
fn what_the_store_refuses_is_told_and_the_connection_stays() {
    for (error, code) in [(StoreError::Busy, "busy"), (StoreError::Full, "storage_full")] {
        let server = TestServer::start(Setup::agencies(2), |store| Failing { store, error });
        let mut framed = server.connect();
        for (request, answer) in [
            (frame("BET|1|Ana|Paz|4|1999-03-17|7574"), format!("ACK|ERR|{code}\n")),
            (winning_batch(1, &["1", "2"]), format!("ACK_BATCH|ERR|2|{code}\n")),
            (done(1), format!("ACK_DONE|ERR|{code}\n")),
            (frame("RESUME|1|u"), "RESUME|ERR|unavailable\n".to_owned()),
        ] {
            framed.ask(&request, &frame(&answer));
        }
        framed.ask(&frame("STATUS"), FRESH_STATUS);
        let mut counting = server.connect();
        counting.ask(&counted("Ana|Paz|1|1999-03-17|7574|1"), b"10\nERROR_BUSY");
        counting.ask(&counted("GET_WINNERS|1"), b"10\nERROR_BUSY");
    }
}

#[test]
fn an_unknown_outcome_is_never_answered() {
    let server = TestServer::start(Setup::agencies(2), |store| Failing { store, error: StoreError::Unknown });
    for request in [
        frame("BET|1|Ana|Paz|4|1999-03-17|7574"),
        winning_batch(1, &["1", "2"]),
        done(1),
        counted("Ana|Paz|1|1999-03-17|7574|1"),
        counted("GET_WINNERS|1"),
    ] {
        let mut client = server.connect();
        client.send(&request);
        client.expect_end();
    }
}

#[test]
fn a_server_whose_database_fails_ends_with_that_error_and_without_an_answer() {
    let mut server = Setup::agencies(2).start();
    let mut client = server.connect();
    client.ask(&winning_batch(1, &["1"]), ACK_BATCH_1);
    server
        .database()
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'broken'); END",
        )
        .unwrap();
    client.send(&winning_batch(1, &["2"]));
    client.expect_gone();
    match server.wait_end() {
        Err(ServeError::StoreFailed(error)) => assert!(error.contains("broken"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.stored_bets(), 1);
}
