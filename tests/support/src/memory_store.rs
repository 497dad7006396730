//! A store in memory: it has all guarantees of `sorteo::store` but durability, and costs
//! nothing to open. `store_contract` tests it like any other engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::SystemTime;

use sorteo::store::{
    AppendRefusal, Appended, CloseRefusal, Closed, Closing, DrawStatus, ExpectedAgencies, NotAdmitted, Store,
    StoreError, StoredToken, Submitter, Ticket, TokenUse, Tokens, WinnersSize, WinningBet,
};
use sorteo_protocol::{AgencyId, Batch, Bets, Digest, DrawId, TokenId, UploadId};

const DRAW: DrawId = DrawId(1);

/// One lottery with one draw, in memory.
pub struct MemoryStore {
    terms: Terms,
    winning_number: u32,
    on_draw: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

/// Who may take part, and who must be done.
struct Terms {
    agencies: Option<ExpectedAgencies>,
    agencies_max: u64,
}

#[derive(Clone, Default)]
struct State {
    bets: Vec<(AgencyId, WinningBet)>,
    /// What each agency has stored.
    stored: HashMap<AgencyId, u64>,
    uploads: HashMap<(AgencyId, UploadId), Upload>,
    done: BTreeSet<AgencyId>,
    drawn: bool,
    tokens: BTreeMap<TokenId, StoredToken>,
    /// Changes of the tokens so far.
    tokens_version: u64,
}

/// The batches of one upload by their first row.
#[derive(Clone, Default)]
struct Upload {
    batches: HashMap<u64, Digest>,
    next_row: u64,
}

impl MemoryStore {
    /// `agencies` must be done, or `None`: all of 1 to the highest seen. At most
    /// `agencies_max` take part, where no more are expected.
    pub fn new(
        agencies: Option<ExpectedAgencies>,
        agencies_max: u64,
        winning_number: u32,
        on_draw: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let terms = Terms { agencies, agencies_max };
        Self { terms, winning_number, on_draw: Box::new(on_draw), state: Mutex::default() }
    }

    /// Adds a token, or changes it.
    pub fn set_token(&self, id: TokenId, token: StoredToken) {
        let mut state = self.state.lock().unwrap();
        state.tokens.insert(id, token);
        state.tokens_version += 1;
    }

    /// Returns the bets of each agency that has any, and the agencies that are done.
    pub fn stored(&self) -> (BTreeMap<u32, u64>, Vec<u32>) {
        let state = self.state.lock().unwrap();
        let bets = state.stored.iter().map(|(agency, bets)| (agency.0, *bets));
        (bets.filter(|(_, bets)| *bets > 0).collect(), state.done.iter().map(|agency| agency.0).collect())
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

impl Terms {
    /// Agencies that are expected, where that is not inferred.
    fn count(&self) -> Option<u64> {
        self.agencies.as_ref().map(|agencies| match agencies {
            ExpectedAgencies::Count(count) => u64::from(*count),
            ExpectedAgencies::Set(set) => set.size(),
        })
    }

    fn expects(&self, agency: AgencyId) -> bool {
        match &self.agencies {
            None => agency.0 >= 1,
            Some(ExpectedAgencies::Count(_)) => true,
            Some(ExpectedAgencies::Set(set)) => set.ranges().any(|range| range.contains(&agency.0)),
        }
    }

    fn admit(&self, agency: AgencyId, seen: &BTreeSet<AgencyId>) -> Result<(), NotAdmitted> {
        if matches!(self.agencies, Some(ExpectedAgencies::Set(_))) && !self.expects(agency) {
            return Err(NotAdmitted::Unknown);
        }
        let most = self.agencies_max.max(self.count().unwrap_or(0));
        let is_beyond = self.agencies.is_none() && u64::from(agency.0) > most;
        let is_full = seen.len() as u64 >= most && !seen.contains(&agency);
        if is_beyond || is_full { Err(NotAdmitted::TooMany) } else { Ok(()) }
    }
}

impl State {
    fn append(&mut self, batch: &Batch, terms: &Terms) -> Appended {
        let digest = batch.bets.digest();
        let upload = batch.position.as_ref().map(|place| (batch.agency, place.upload.clone()));
        let known = upload.as_ref().and_then(|upload| self.uploads.get(upload));
        let first_row = batch.position.as_ref().map_or(0, |place| place.first_row);
        if batch.position.as_ref().and_then(|place| place.draw).is_some_and(|draw| draw != DRAW) {
            return Err(AppendRefusal::NoSuchDraw);
        }
        match known.and_then(|known| known.batches.get(&first_row)) {
            Some(stored) if *stored == digest => return Ok(()),
            Some(_) => return Err(AppendRefusal::Conflict),
            None if self.drawn => return Err(AppendRefusal::DrawClosed),
            None if self.done.contains(&batch.agency) => return Err(AppendRefusal::AgencyDone),
            None => terms.admit(batch.agency, &self.seen()).map_err(AppendRefusal::NotAdmitted)?,
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

    fn close(&mut self, agency: AgencyId, bets: Option<u64>, terms: &Terms) -> Closed {
        if !self.drawn && !self.done.contains(&agency) {
            terms.admit(agency, &self.seen()).map_err(CloseRefusal::NotAdmitted)?;
        }
        let stored = self.stored.get(&agency).copied().unwrap_or(0);
        if bets.is_some_and(|bets| bets != stored) {
            return Err(CloseRefusal::CountMismatch { stored });
        }
        let is_new = !self.drawn && self.done.insert(agency);
        Ok(if is_new { Closing::Now } else { Closing::AlreadyDone })
    }

    fn seen(&self) -> BTreeSet<AgencyId> {
        self.stored.keys().chain(&self.done).copied().collect()
    }

    fn expected(&self, terms: &Terms) -> u64 {
        terms.count().unwrap_or_else(|| self.seen().last().map_or(0, |highest| highest.0.into()))
    }

    fn done_and_expected(&self, terms: &Terms) -> u64 {
        self.done.iter().filter(|agency| terms.expects(**agency)).count() as u64
    }

    fn is_complete(&self, terms: &Terms) -> bool {
        let expected = self.expected(terms);
        expected > 0 && self.done_and_expected(terms) >= expected
    }
}

/// A ticket for what is done already.
fn resolved<T>(result: T) -> Result<Ticket<T>, StoreError> {
    let (resolver, ticket) = Ticket::new();
    resolver.resolve(Ok(result));
    Ok(ticket)
}

impl Store for MemoryStore {
    fn append_from(&self, _: Submitter, batches: Vec<Batch>) -> Result<Ticket<Appended>, StoreError> {
        let mut state = self.state.lock().unwrap();
        let mut changed = state.clone();
        let appended = batches.iter().try_for_each(|batch| changed.append(batch, &self.terms));
        if appended.is_ok() {
            *state = changed;
        }
        resolved(appended)
    }

    fn close_agency_from(
        &self,
        _: Submitter,
        agency: AgencyId,
        bets: Option<u64>,
        draw: Option<DrawId>,
    ) -> Result<Ticket<Closed>, StoreError> {
        if draw.is_some_and(|draw| draw != DRAW) {
            return resolved(Err(CloseRefusal::NoSuchDraw));
        }
        let mut state = self.state.lock().unwrap();
        let closed = state.close(agency, bets, &self.terms);
        if !state.drawn && closed == Ok(Closing::Now) && state.is_complete(&self.terms) {
            state.drawn = true;
            (self.on_draw)();
        }
        resolved(closed)
    }

    fn probe(&self) -> Result<Ticket<()>, StoreError> {
        resolved(())
    }

    fn next_row(&self, draw: DrawId, agency: AgencyId, upload: &UploadId) -> Result<u64, StoreError> {
        assert_eq!(draw, DRAW);
        let state = self.state.lock().unwrap();
        Ok(state.uploads.get(&(agency, upload.clone())).map_or(0, |upload| upload.next_row))
    }

    fn newest_draw(&self) -> Result<DrawStatus, StoreError> {
        let state = self.state.lock().unwrap();
        let wins = |(_, bet): &&(AgencyId, WinningBet)| state.drawn && bet.number == self.winning_number;
        Ok(DrawStatus {
            draw: DRAW,
            drawn: state.drawn,
            done: state.done_and_expected(&self.terms),
            expected: state.expected(&self.terms),
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

    fn tokens(&self) -> &dyn Tokens {
        self
    }
}

impl Tokens for MemoryStore {
    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        Ok(self.state.lock().unwrap().tokens.get(id).cloned())
    }

    fn version(&self) -> Result<u64, StoreError> {
        Ok(self.state.lock().unwrap().tokens_version)
    }

    fn ends(&self) -> Result<BTreeMap<TokenId, SystemTime>, StoreError> {
        let state = self.state.lock().unwrap();
        let end = |(id, token): (&TokenId, &StoredToken)| {
            let end = if token.is_revoked { Some(SystemTime::UNIX_EPOCH) } else { token.expires_at };
            Some((id.clone(), end?))
        };
        Ok(state.tokens.iter().filter_map(end).collect())
    }

    fn record_uses(&self, _: Vec<TokenUse>) -> Result<Ticket<()>, StoreError> {
        let (resolver, ticket) = Ticket::new();
        resolver.resolve(Ok(()));
        Ok(ticket)
    }
}
