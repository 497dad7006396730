//! A store in memory: it has all guarantees of `sorteo::store` but durability, and costs
//! nothing to open. `store_contract` tests it like any other engine.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use sorteo::store::{
    AppendRefusal, Appended, CloseRefusal, Closed, Closing, DrawStatus, Store, StoreError, Ticket,
    WinnersSize, WinningBet,
};
use sorteo_protocol::{AgencyId, Batch, Bets, Digest, DrawId, UploadId};

const DRAW: DrawId = DrawId(1);

/// One lottery with one draw, in memory.
pub struct MemoryStore {
    agencies: Option<u32>,
    winning_number: u32,
    on_draw: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    bets: Vec<(AgencyId, WinningBet)>,
    /// What each agency has stored.
    stored: HashMap<AgencyId, u64>,
    uploads: HashMap<(AgencyId, UploadId), Upload>,
    done: BTreeSet<AgencyId>,
    drawn: bool,
}

/// The batches of one upload by their first row.
#[derive(Clone, Default)]
struct Upload {
    batches: HashMap<u64, Digest>,
    next_row: u64,
}

impl MemoryStore {
    /// `agencies` must be done, or `None`: all of 1 to the highest seen.
    pub fn new(
        agencies: Option<u32>,
        winning_number: u32,
        on_draw: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { agencies, winning_number, on_draw: Box::new(on_draw), state: Mutex::default() }
    }

    fn winners_of(&self, draw: DrawId, agency: AgencyId) -> Vec<WinningBet> {
        let state = self.state.lock().unwrap();
        let is_drawn = state.drawn && draw == DRAW;
        let wins = |(other, bet): &&(AgencyId, WinningBet)| {
            is_drawn && *other == agency && bet.number == self.winning_number
        };
        state.bets.iter().filter(wins).map(|(_, bet)| bet.clone()).collect()
    }
}

impl State {
    fn append(&mut self, batch: &Batch) -> Appended {
        let digest = batch.bets.digest();
        let upload = batch.position.as_ref().map(|place| (batch.agency, place.upload.clone()));
        let known = upload.as_ref().and_then(|upload| self.uploads.get(upload));
        let first_row = batch.position.as_ref().map_or(0, |place| place.first_row);
        match known.and_then(|known| known.batches.get(&first_row)) {
            Some(stored) if *stored == digest => return Ok(()),
            Some(_) => return Err(AppendRefusal::Conflict),
            None if self.drawn => return Err(AppendRefusal::DrawClosed),
            None if self.done.contains(&batch.agency) => return Err(AppendRefusal::AgencyDone),
            None => {}
        }
        let next_row = known.map_or(0, |known| known.next_row);
        if first_row > next_row {
            return Err(AppendRefusal::Gap { next_row });
        }
        if first_row < next_row {
            return Err(AppendRefusal::Conflict);
        }
        if batch.bets.is_empty() {
            return Ok(());
        }
        if let Some(upload) = upload {
            let upload = self.uploads.entry(upload).or_default();
            upload.batches.insert(first_row, digest);
            upload.next_row += batch.bets.len() as u64;
        }
        self.insert(batch.agency, &batch.bets);
        Ok(())
    }

    fn insert(&mut self, agency: AgencyId, bets: &Bets) {
        *self.stored.entry(agency).or_default() += bets.len() as u64;
        for bet in bets.iter() {
            let texts = [bet.first_name, bet.last_name, bet.document, bet.birthdate].map(str::to_owned);
            let [first_name, last_name, document, birthdate] = texts;
            let (id, number) = (self.bets.len() as u64 + 1, bet.number);
            let bet = WinningBet { id, first_name, last_name, document, birthdate, number };
            self.bets.push((agency, bet));
        }
    }

    fn close(&mut self, agency: AgencyId, bets: Option<u64>) -> Closed {
        let stored = self.stored.get(&agency).copied().unwrap_or(0);
        if bets.is_some_and(|bets| bets != stored) {
            return Err(CloseRefusal::CountMismatch { stored });
        }
        let is_new = !self.drawn && self.done.insert(agency);
        Ok(if is_new { Closing::Now } else { Closing::AlreadyDone })
    }

    fn highest_seen(&self) -> u32 {
        self.stored.keys().chain(&self.done).map(|agency| agency.0).max().unwrap_or(0)
    }

    fn is_complete(&self, agencies: Option<u32>) -> bool {
        match agencies {
            Some(agencies) => self.done.len() as u64 >= u64::from(agencies),
            None => {
                let highest = self.highest_seen();
                let done = self.done.range(AgencyId(1)..).count() as u64;
                highest > 0 && done == u64::from(highest)
            }
        }
    }
}

/// A ticket for what is done already.
fn resolved<T>(result: T) -> Result<Ticket<T>, StoreError> {
    let (resolver, ticket) = Ticket::new();
    resolver.resolve(Ok(result));
    Ok(ticket)
}

impl Store for MemoryStore {
    fn append(&self, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        let mut state = self.state.lock().unwrap();
        let mut changed = state.clone();
        let appended = batches.iter().try_for_each(|batch| changed.append(batch));
        if appended.is_ok() {
            *state = changed;
        }
        resolved(appended)
    }

    fn close_agency(&self, agency: AgencyId, bets: Option<u64>) -> Result<Ticket<Closed>, StoreError> {
        let mut state = self.state.lock().unwrap();
        let closed = state.close(agency, bets);
        if !state.drawn && closed == Ok(Closing::Now) && state.is_complete(self.agencies) {
            state.drawn = true;
            (self.on_draw)();
        }
        resolved(closed)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        resolved(())
    }

    fn next_row(&self, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError> {
        let state = self.state.lock().unwrap();
        Ok(state.uploads.get(&(agency, upload.clone())).map_or(0, |upload| upload.next_row))
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        let state = self.state.lock().unwrap();
        let wins = |(_, bet): &&(AgencyId, WinningBet)| state.drawn && bet.number == self.winning_number;
        Ok(DrawStatus {
            draw: DRAW,
            drawn: state.drawn,
            done: state.done.len() as u64,
            expected: self.agencies.unwrap_or_else(|| state.highest_seen()).into(),
            bets: state.bets.len() as u64,
            winners: state.bets.iter().filter(wins).count() as u64,
            winning_number: self.winning_number,
        })
    }

    fn draw(&self, draw: DrawId) -> Result<Option<DrawStatus>, StoreError> {
        if draw == DRAW { self.newest_draw().map(Some) } else { Ok(None) }
    }

    fn previous_draw_for(&self, _: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        Ok(None)
    }

    fn winners(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
        bets_max: usize,
    ) -> Result<Vec<WinningBet>, StoreError> {
        let behind = self.winners_of(draw, agency).into_iter().filter(|bet| bet.id > after);
        Ok(behind.take(bets_max).collect())
    }

    fn winners_size(&self, draw: DrawId, agency: AgencyId) -> Result<WinnersSize, StoreError> {
        let winners = self.winners_of(draw, agency);
        let text_bytes = winners
            .iter()
            .map(|bet| [&bet.first_name, &bet.last_name, &bet.document, &bet.birthdate].map(String::len))
            .map(|lengths| lengths.iter().sum::<usize>() as u64)
            .sum();
        Ok(WinnersSize { bets: winners.len() as u64, text_bytes })
    }
}
