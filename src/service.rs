//! All policy: what a request means, what is replied, and which line is logged. Knows
//! requests, replies and the store, but no socket and no byte of the wire.
//!
//! [`Service::begin`] begins a request. One that writes comes back as
//! [`Begun::Committing`], so that the connection's next requests can join the same
//! commit; [`Service::finish`] waits for it. The server's
//! [`conversation`](crate::server::conversation) calls both.

mod access;
mod lines;
mod quotas;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::access::Access;
pub use self::access::{Auth, Identity};
use self::lines::{log_authenticated, log_closed, log_done_refused, log_not_authenticated, log_unpaged};
pub use self::lines::{log_batch_cut_short, log_drawn, log_refusal};
use self::lines::{log_batch_refused, log_batch_stored, log_bet_refused, log_bet_stored};
pub use self::quotas::QuotaLimits;
use self::quotas::{Quotas, ReservedBets};
use crate::logging::limits::Peer;
use crate::metrics::{BatchResult, Metrics, seconds_since};
use crate::store::{
    AppendRefusal, Appended, CloseRefusal, Closed, DrawStatus, NotAdmitted, Role, Store, StoreError,
    Submitter, Ticket, WinningBet as StoredBet,
};
use sorteo_protocol::wire::framed::Documents;
use sorteo_protocol::wire::{
    Claim, Hello, Reason, Reply, Request, Sender, Status, Winners, WinnersSize, WinningBet, WinningBets,
};
use sorteo_protocol::{AgencyId, Batch, DrawId, Token, TokenId, UploadId};

/// Most documents of one page. A page has room for at least 247; the bets that were read
/// and do not fit are read again for the next page.
const WINNERS_READ: usize = 1_000;

/// Winning bets read at a time for a reply that must fit one frame: whether it does not
/// is known after at most 247 of them.
const ALL_WINNERS_READ: usize = 256;

/// Agencies of a draw that are remembered since their winners did not fit one frame.
const UNPAGED_LOGGED_MAX: usize = 1_000;

/// Winning bets in one piece of a long reply: 32 KiB or so at most.
const WINNERS_PIECE: usize = 128;

/// How long the end of a server waits for the last uses of tokens to be written.
const USES_WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// The lottery's rules on top of a store.
#[derive(Debug)]
pub struct Service<S> {
    store: S,
    metrics: Arc<Metrics>,
    access: Access,
    quotas: Quotas,
    unpaged: Mutex<Unpaged>,
}

/// The agencies of one draw whose winners do not fit one frame and were asked for in one:
/// the log tells of each once, however often its client asks.
#[derive(Debug, Default)]
struct Unpaged {
    draw: Option<DrawId>,
    agencies: BTreeSet<AgencyId>,
}

impl Unpaged {
    /// Returns whether this is the first time for this agency of this draw.
    fn add(&mut self, draw: DrawId, agency: AgencyId) -> bool {
        if self.draw != Some(draw) {
            *self = Self { draw: Some(draw), agencies: BTreeSet::new() };
        }
        self.agencies.len() < UNPAGED_LOGGED_MAX && self.agencies.insert(agency)
    }
}

/// A request that was begun.
#[derive(Debug)]
pub enum Begun {
    /// It is carried out.
    Done(Outcome),
    /// It waits for the store's commit: pass it to [`Service::finish`].
    Committing(Commit),
}

/// The end of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Reply(Reply),
    /// Send this, then piece by piece the rest of the winners.
    LongReply(Reply, MoreWinners),
    /// The draw is not drawn: ask again once it is, or reply `not_ready` after this time.
    Wait(AwaitedWinners, Duration),
    /// Whether the request was carried out is not known: close without a reply.
    Unknown,
}

/// A request that waits for a commit.
#[derive(Debug)]
pub struct Commit {
    write: Write,
    begun_at: Instant,
    reserved: Option<ReservedBets>,
}

#[derive(Debug)]
enum Write {
    Bet { agency: AgencyId, document: String, number: u32, ticket: Ticket<Appended> },
    Batch { count: u64, single: Option<Single>, sender: Sender, ticket: Ticket<Appended> },
    Done { agency: AgencyId, ticket: Ticket<Closed> },
    DoneThenWinners { agency: AgencyId, ticket: Ticket<Closed> },
}

/// The only bet of a payload: the counted original server logs it as a bet, too.
#[derive(Debug)]
struct Single {
    document: String,
    number: u32,
}

impl Single {
    fn of(batches: &[Batch]) -> Option<Self> {
        let mut bets = batches.iter().flat_map(|batch| batch.bets.iter());
        let bet = bets.next()?;
        bets.next().is_none().then(|| Self { document: bet.document.to_owned(), number: bet.number })
    }
}

/// A request that was given to the store.
enum Submitted {
    Done(Outcome),
    Write(Write),
}

/// The winners that a peer waits for: those of the draw that it names, or that was the
/// newest at the time of the request, even if the next draw is opened before the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedWinners {
    agency: AgencyId,
    draw: DrawId,
}

/// Where a long reply goes on.
#[derive(Debug)]
pub struct MoreWinners {
    draw: DrawId,
    agency: AgencyId,
    after: u64,
}

impl<S: Store> Service<S> {
    /// Creates a service on a store, which counts into these metrics. Whoever reaches it is
    /// whom it claims to be: see [`Service::with_auth`].
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        let quotas = Quotas::new(QuotaLimits::default());
        Self { store, metrics, access: Access::new(Auth::Off), quotas, unpaged: Mutex::default() }
    }

    /// Returns the service with another rule of who must prove who it is.
    pub fn with_auth(self, auth: Auth) -> Self {
        Self { access: Access::new(auth), ..self }
    }

    /// Returns the service with limits of each agency and address.
    pub fn with_quotas(self, limits: QuotaLimits) -> Self {
        Self { quotas: Quotas::new(limits), ..self }
    }

    /// Returns whether agencies must prove who they are.
    pub fn auth(&self) -> Auth {
        self.access.auth
    }

    /// Returns the store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the store, so that it can be closed.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Finds out who a peer is that sends `AUTH`, and has this certificate.
    ///
    /// # Errors
    ///
    /// Where it is not who it says it is, or has too many connections: this one is to be closed,
    /// after a reply with the reason if there is one.
    pub fn authenticate(
        &self,
        claim: Option<&Claim>,
        certified: Option<AgencyId>,
        peer: &mut Peer,
    ) -> Result<Identity, Option<Reason>> {
        match self.access.authenticate(&self.store, claim, certified) {
            Ok(Ok((agency, token))) => {
                let identity = self.identify(agency, Some(token)).ok_or(Some(Reason::Busy))?;
                log_authenticated(&identity, peer);
                Ok(identity)
            }
            Ok(Err(failure)) => {
                log_not_authenticated(claim, failure, peer);
                Err(self.access.answers_failure(peer).then_some(Reason::Unauthorized))
            }
            Err(error) => Err(Some(reason(error))),
        }
    }

    /// Returns the identity of an agency that has shown its certificate; `None` if it has as
    /// many connections as it may.
    pub fn identify_certified(&self, agency: AgencyId) -> Option<Identity> {
        self.identify(agency, None)
    }

    fn identify(&self, agency: AgencyId, token: Option<TokenId>) -> Option<Identity> {
        Some(Identity::new(agency, token, self.quotas.take_connection(agency)?))
    }

    /// Returns why a peer may not send a request, if it may not: it has to prove who it is
    /// first, it is another agency, or it asks too much.
    pub fn refusal(&self, identity: Option<&Identity>, request: &Request, peer: &Peer) -> Option<Reason> {
        if let Some(reason) = self.access.refusal(identity, request) {
            return Some(reason);
        }
        (!self.allows_request(identity.map(|identity| identity.agency), peer)).then_some(Reason::Busy)
    }

    /// Returns whether a peer may ask once more now, and counts that it does.
    pub fn allows_request(&self, agency: Option<AgencyId>, peer: &Peer) -> bool {
        self.quotas.allows_request(agency, peer)
    }

    /// Counts the bets of a request towards those of its address, before they are stored, and
    /// returns what to give back if they are not. A batch that is stored already counts once.
    fn reserve_bets(&self, request: &Request, peer: &Peer) -> Result<Option<ReservedBets>, Reason> {
        let bets = request.bets();
        if bets == 0 || !self.quotas.counts_bets() || self.is_stored(request)? {
            return Ok(None);
        }
        let newest = self.store.newest_draw().map_err(reason)?.draw;
        self.quotas.reserve_bets(bets, newest, peer).map(Some).ok_or(Reason::TooManyBets)
    }

    /// Returns whether a request is a batch whose place in its upload is taken, as one that is
    /// repeated.
    fn is_stored(&self, request: &Request) -> Result<bool, Reason> {
        let Request::Batch(Batch { agency, position: Some(position), .. }) = request else {
            return Ok(false);
        };
        Ok(position.first_row < self.next_row(*agency, &position.upload, position.draw)?)
    }

    /// Returns whether an identity still counts.
    pub fn is_live(&self, identity: &Identity) -> bool {
        identity.token().is_none_or(|token| self.access.is_live(token))
    }

    /// Returns whether a token still counts that was good once.
    pub fn is_token_live(&self, token: &TokenId) -> bool {
        self.access.is_live(token)
    }

    /// Returns the role of the operator whose token this is; `None` if it is no operator's, or
    /// counts no more.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub fn operator(&self, token: &Token) -> Result<Option<Role>, StoreError> {
        self.access.operator(&self.store, token)
    }

    /// Reads anew which tokens count, and has their last uses written from time to time.
    /// Returns whether one may have ended since the last call.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub fn refresh_tokens(&self) -> Result<bool, StoreError> {
        // Not waited for: what holds the writer up must not keep an ended token alive. What is
        // lost if it fails is when a token was last used.
        let _ = self.access.submit_uses(&self.store, false);
        self.access.refresh(&self.store)
    }

    /// Has the last uses of tokens written that are not yet, and waits for it some seconds at
    /// most.
    ///
    /// # Errors
    ///
    /// Where the store cannot be written.
    pub fn write_token_uses(&self) -> Result<(), StoreError> {
        match self.access.submit_uses(&self.store, true)? {
            Some(ticket) => ticket.wait_at_most(USES_WRITTEN_WITHIN).unwrap_or(Err(StoreError::Busy)),
            None => Ok(()),
        }
    }

    /// Begins a request of a connection. Writes are only submitted: see [`Service::finish`].
    pub fn begin(&self, request: Request, submitter: Submitter, peer: &mut Peer) -> Begun {
        let begun_at = Instant::now();
        let reserved = match self.reserve_bets(&request, peer) {
            Ok(reserved) => reserved,
            Err(reason) => {
                let (reply, sender) = (request.refused(reason), request.sender());
                log_refusal(&reply, &sender, peer);
                return Begun::Done(Outcome::Reply(reply));
            }
        };
        let submitted = match request {
            Request::Bet(batch) => self.begin_bet(batch, submitter, peer),
            Request::Batch(batch) => self.append_batches(vec![batch], None, submitter, peer),
            Request::Payload(batches) => self.begin_batches(batches, submitter, peer),
            Request::Done { agency, bets, draw } => self.begin_done(agency, bets, draw, submitter, peer),
            Request::DoneAndWinners { agency } => self.begin_done_and_winners(agency, submitter),
            Request::Winners { agency } => Submitted::winners(self.all_winners(agency)),
            Request::WinnersPage { agency, after, draw } => {
                Submitted::winners(self.winners_page(agency, after, draw))
            }
            Request::WaitWinners { agency, wait, draw } => {
                Submitted::Done(self.wait_winners(agency, wait, draw))
            }
            Request::Resume { agency, upload, draw } => {
                Submitted::Done(Outcome::Reply(Reply::Resume(self.next_row(agency, &upload, draw))))
            }
            // The conversation keeps who its peer is: see `Service::authenticate`.
            Request::Auth(_) => Submitted::Done(Outcome::Reply(Reply::Unrecognised(Reason::Unknown))),
            Request::Hello => Submitted::Done(Outcome::Reply(Reply::Hello(Ok(self.hello())))),
            Request::Status => {
                let status = self.store.newest_draw().map(status).map_err(reason);
                Submitted::Done(Outcome::Reply(Reply::Status(status)))
            }
        };
        match submitted {
            Submitted::Write(write) => Begun::Committing(Commit { write, begun_at, reserved }),
            Submitted::Done(outcome) => {
                self.observe_reply(&outcome, begun_at);
                Begun::Done(outcome)
            }
        }
    }

    /// Waits for the commit, logs the request's outcome, and returns it.
    pub fn finish(&self, Commit { write, begun_at, reserved }: Commit, peer: &mut Peer) -> Outcome {
        let outcome = match write {
            Write::Bet { agency, document, number, ticket } => {
                self.count_unknown(bet_outcome(agency, &document, number, ticket.wait(), peer))
            }
            Write::Batch { count, single, sender, ticket } => {
                self.count_unknown(batch_outcome(count, single, &sender, ticket.wait(), peer))
            }
            Write::Done { agency, ticket } => done_outcome(agency, ticket.wait(), peer),
            Write::DoneThenWinners { agency, ticket } => {
                self.finish_done_and_winners(agency, ticket.wait(), peer)
            }
        };
        if let (Outcome::Reply(reply), Some(reserved)) = (&outcome, reserved)
            && reply.refusal().is_none()
        {
            reserved.keep();
        }
        self.observe_reply(&outcome, begun_at);
        outcome
    }

    /// Returns the next piece of a long reply, and where it goes on after that.
    ///
    /// The winners of a draw never change, so the pieces add up to the length that was
    /// announced.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read. Without the rest, the reply is worth nothing.
    pub fn more_winners(&self, more: &MoreWinners) -> Result<(WinningBets, Option<MoreWinners>), StoreError> {
        self.winners_piece(more.draw, more.agency, more.after)
    }

    /// Looks again for the winners that a peer waits for; `None` while the draw is not
    /// drawn.
    pub fn winners_if_drawn(&self, awaited: AwaitedWinners) -> Option<Reply> {
        match self.winners_page(awaited.agency, 0, Some(awaited.draw)) {
            Err(Reason::NotReady) => None,
            result => Some(Reply::Winners(result)),
        }
    }

    /// Counts a reply that is about to be sent. `not_ready` is not a refusal.
    pub fn count_reply(&self, reply: &Reply) {
        let refusal = reply.refusal();
        if let Reply::Bet(_) | Reply::Batch { .. } = reply {
            self.metrics.count_batch(match refusal {
                None => BatchResult::stored,
                Some(_) => BatchResult::refused,
            });
        }
        if let Some(reason) = refusal.filter(|reason| **reason != Reason::NotReady) {
            self.metrics.count_refusal(reason.code());
        }
    }

    /// Counts a batch whose outcome is not known; others are counted with their replies.
    fn count_unknown(&self, outcome: Outcome) -> Outcome {
        if let Outcome::Unknown = outcome {
            self.metrics.count_batch(BatchResult::unknown);
        }
        outcome
    }

    /// Records how long a request took. Waiting for the draw is not part of it.
    fn observe_reply(&self, outcome: &Outcome, begun_at: Instant) {
        if let Outcome::Reply(_) | Outcome::LongReply(..) = outcome {
            self.metrics.answer_seconds.observe(seconds_since(begun_at));
        }
    }

    fn hello(&self) -> Hello {
        match self.auth() {
            Auth::Off => Hello::of_this_version(),
            Auth::Optional | Auth::Required => Hello::of_this_version().with(Hello::AUTH),
        }
    }

    fn begin_bet(&self, batch: Batch, submitter: Submitter, peer: &mut Peer) -> Submitted {
        let bet = batch.bets.iter().next().expect("a BET has one bet");
        let (agency, document, number) = (batch.agency, bet.document.to_owned(), bet.number);
        match self.store.append_from(submitter, vec![batch]) {
            Ok(ticket) => Submitted::Write(Write::Bet { agency, document, number, ticket }),
            Err(error) => Submitted::Done(bet_outcome(agency, &document, number, Err(error), peer)),
        }
    }

    fn begin_batches(&self, batches: Vec<Batch>, submitter: Submitter, peer: &mut Peer) -> Submitted {
        let single = Single::of(&batches);
        self.append_batches(batches, single, submitter, peer)
    }

    fn append_batches(
        &self,
        batches: Vec<Batch>,
        single: Option<Single>,
        submitter: Submitter,
        peer: &mut Peer,
    ) -> Submitted {
        let count = batches.iter().map(|batch| batch.bets.len() as u64).sum();
        let sender = Sender::of_batches(&batches);
        match self.store.append_from(submitter, batches) {
            Ok(ticket) => Submitted::Write(Write::Batch { count, single, sender, ticket }),
            Err(error) => Submitted::Done(batch_outcome(count, single, &sender, Err(error), peer)),
        }
    }

    fn begin_done(
        &self,
        agency: AgencyId,
        bets: Option<u64>,
        draw: Option<DrawId>,
        submitter: Submitter,
        peer: &mut Peer,
    ) -> Submitted {
        match self.store.close_agency_from(submitter, agency, bets, draw) {
            Ok(ticket) => Submitted::Write(Write::Done { agency, ticket }),
            Err(error) => Submitted::Done(done_outcome(agency, Err(error), peer)),
        }
    }

    /// Writes nothing once the draw is drawn: there is nothing to close, and agencies of
    /// the counted dialect repeat this request until they have their winners.
    fn begin_done_and_winners(&self, agency: AgencyId, submitter: Submitter) -> Submitted {
        let found = self.store.newest_draw().and_then(|newest| {
            let meant = self.drawn_draw_meant_by(newest, agency)?;
            Ok((newest.draw, meant))
        });
        let newest = match found {
            Ok((_, Some(meant))) => return Submitted::Done(self.winning_bets(&meant, agency)),
            Ok((newest, None)) => newest,
            Err(error) => return Submitted::Done(winners_failed(error)),
        };
        // Another may be the newest by the time of the write: the agency is not done in that.
        match self.store.close_agency_from(submitter, agency, None, Some(newest)) {
            Ok(ticket) => Submitted::Write(Write::DoneThenWinners { agency, ticket }),
            Err(error) => Submitted::Done(winners_failed(error)),
        }
    }

    fn finish_done_and_winners(
        &self,
        agency: AgencyId,
        result: Result<Closed, StoreError>,
        peer: &mut Peer,
    ) -> Outcome {
        match result {
            Ok(Ok(closing)) => {
                log_closed(agency, closing);
                match self.store.newest_draw() {
                    Ok(status) => self.winning_bets(&status, agency),
                    Err(error) => winners_outcome(Err(reason(error))),
                }
            }
            Ok(Err(CloseRefusal::NotAdmitted(refusal))) => {
                let reason = not_admitted(refusal);
                log_done_refused(agency, &reason, peer);
                winners_outcome(Err(reason))
            }
            // There is no count that could be wrong, and the draw was found.
            Ok(Err(CloseRefusal::CountMismatch { .. } | CloseRefusal::NoSuchDraw)) => Outcome::Unknown,
            Err(error) => winners_failed(error),
        }
    }

    /// Returns the draw that a request of the counted dialect means, if it is drawn. The
    /// dialect cannot name a draw: an agency that asks for the winners of a draw after
    /// the next one was opened must not be taken for done in the next one.
    fn drawn_draw_meant_by(
        &self,
        newest: DrawStatus,
        agency: AgencyId,
    ) -> Result<Option<DrawStatus>, StoreError> {
        if newest.drawn {
            return Ok(Some(newest));
        }
        self.store.previous_draw_for(agency)
    }

    /// Returns the given draw, or the newest.
    fn require_draw(&self, draw: Option<DrawId>) -> Result<DrawStatus, Reason> {
        match draw {
            None => self.store.newest_draw().map_err(reason),
            Some(draw) => self.store.draw(draw).map_err(reason)?.ok_or(Reason::BadDraw),
        }
    }

    /// Returns the given draw, or the newest, if it is drawn.
    fn require_drawn(&self, draw: Option<DrawId>) -> Result<DrawId, Reason> {
        let status = self.require_draw(draw)?;
        if status.drawn { Ok(status.draw) } else { Err(Reason::NotReady) }
    }

    fn next_row(&self, agency: AgencyId, upload: &UploadId, draw: Option<DrawId>) -> Result<u64, Reason> {
        let draw = self.require_draw(draw)?.draw;
        self.store.next_row(draw, agency, upload).map_err(reason)
    }

    /// Returns all documents if they fit one frame, and stops reading when they do not.
    fn all_winners(&self, agency: AgencyId) -> Result<Winners, Reason> {
        let draw = self.require_drawn(None)?;
        let (mut documents, mut after) = (Documents::of_all(), 0);
        loop {
            let bets = self.store.winners(draw, agency, after, ALL_WINNERS_READ).map_err(reason)?;
            let is_last = bets.len() < ALL_WINNERS_READ;
            for bet in bets {
                after = bet.id;
                if !documents.push(bet.document) {
                    self.log_unpaged(draw, agency);
                    return Err(Reason::UsePages);
                }
            }
            if is_last {
                return Ok(Winners::All(documents.into_vec()));
            }
        }
    }

    /// Logs, once for each agency and draw, that a client gets no winners as it asks for
    /// them: the framed original one takes the refusal for "not yet", and asks for ever.
    fn log_unpaged(&self, draw: DrawId, agency: AgencyId) {
        if self.unpaged.lock().unwrap_or_else(PoisonError::into_inner).add(draw, agency) {
            log_unpaged(draw, agency);
        }
    }

    fn winners_page(&self, agency: AgencyId, after: u64, draw: Option<DrawId>) -> Result<Winners, Reason> {
        let draw = self.require_drawn(draw)?;
        let bets = self.store.winners(draw, agency, after, WINNERS_READ).map_err(reason)?;
        let mut is_last = bets.len() < WINNERS_READ;
        let (mut documents, mut after) = (Documents::of_page(), after);
        for bet in bets {
            if !documents.push(bet.document) {
                is_last = false;
                break;
            }
            after = bet.id;
        }
        let next = (!is_last).then_some(after);
        Ok(Winners::Page { documents: documents.into_vec(), next })
    }

    fn wait_winners(&self, agency: AgencyId, wait: Duration, draw: Option<DrawId>) -> Outcome {
        let draw = match self.require_draw(draw) {
            Ok(status) => status.draw,
            Err(reason) => return winners_outcome(Err(reason)),
        };
        match self.winners_page(agency, 0, Some(draw)) {
            Err(Reason::NotReady) if !wait.is_zero() => Outcome::Wait(AwaitedWinners { agency, draw }, wait),
            result => winners_outcome(result),
        }
    }

    /// Returns the winning bets of an agency; of many, the first piece.
    fn winning_bets(&self, draw: &DrawStatus, agency: AgencyId) -> Outcome {
        match self.try_winning_bets(draw, agency) {
            Ok((first, None)) => winners_outcome(Ok(Winners::Bets { first, total: None })),
            Ok((first, Some((total, more)))) => {
                let winners = Winners::Bets { first, total: Some(total) };
                Outcome::LongReply(Reply::Winners(Ok(winners)), more)
            }
            Err(reason) => winners_outcome(Err(reason)),
        }
    }

    fn try_winning_bets(
        &self,
        draw: &DrawStatus,
        agency: AgencyId,
    ) -> Result<(WinningBets, Option<(WinnersSize, MoreWinners)>), Reason> {
        if !draw.drawn {
            return Err(Reason::NotReady);
        }
        let (first, more) = self.winners_piece(draw.draw, agency, 0).map_err(reason)?;
        let Some(more) = more else {
            return Ok((first, None));
        };
        let size = self.store.winners_size(draw.draw, agency).map_err(reason)?;
        let total = WinnersSize { bets: size.bets, text_bytes: size.text_bytes };
        Ok((first, Some((total, more))))
    }

    /// Reads one piece of the winning bets, and returns where to go on if there are more.
    fn winners_piece(
        &self,
        draw: DrawId,
        agency: AgencyId,
        after: u64,
    ) -> Result<(WinningBets, Option<MoreWinners>), StoreError> {
        let mut bets = self.store.winners(draw, agency, after, WINNERS_PIECE + 1)?;
        let has_more = bets.len() > WINNERS_PIECE;
        bets.truncate(WINNERS_PIECE);
        let last = bets.last().map(|bet| bet.id);
        let more = last.filter(|_| has_more).map(|after| MoreWinners { draw, agency, after });
        let bets = bets.into_iter().map(winning_bet).collect();
        Ok((WinningBets { agency, bets }, more))
    }
}

impl Submitted {
    fn winners(result: Result<Winners, Reason>) -> Self {
        Self::Done(winners_outcome(result))
    }
}

fn winning_bet(bet: StoredBet) -> WinningBet {
    let StoredBet { id: _, first_name, last_name, document, birthdate, number } = bet;
    WinningBet { first_name, last_name, document, birthdate, number }
}

fn winners_outcome(result: Result<Winners, Reason>) -> Outcome {
    Outcome::Reply(Reply::Winners(result))
}

fn winners_failed(error: StoreError) -> Outcome {
    failed(error, |reason| Reply::Winners(Err(reason)))
}

fn bet_outcome(
    agency: AgencyId,
    document: &str,
    number: u32,
    result: Result<Appended, StoreError>,
    peer: &mut Peer,
) -> Outcome {
    match appended(result) {
        Ok(()) => {
            log_bet_stored(document, number);
            Outcome::Reply(Reply::Bet(Ok(())))
        }
        Err(None) => Outcome::Unknown,
        Err(Some(reason)) => {
            log_bet_refused(document, number, &reason, agency, peer);
            Outcome::Reply(Reply::Bet(Err(reason)))
        }
    }
}

fn batch_outcome(
    count: u64,
    single: Option<Single>,
    sender: &Sender,
    result: Result<Appended, StoreError>,
    peer: &mut Peer,
) -> Outcome {
    let result = match appended(result) {
        Ok(()) => {
            if let Some(Single { document, number }) = single {
                log_bet_stored(&document, number);
            }
            log_batch_stored(count, peer);
            Ok(())
        }
        Err(None) => return Outcome::Unknown,
        Err(Some(reason)) => {
            log_batch_refused(count, &reason, sender, peer);
            Err(reason)
        }
    };
    Outcome::Reply(Reply::Batch { count, result })
}

fn done_outcome(agency: AgencyId, result: Result<Closed, StoreError>, peer: &mut Peer) -> Outcome {
    let mut refused = |reason: Reason| {
        log_done_refused(agency, &reason, peer);
        Reply::Done(Err(reason))
    };
    match result {
        Ok(Ok(closing)) => {
            log_closed(agency, closing);
            Outcome::Reply(Reply::Done(Ok(())))
        }
        Ok(Err(CloseRefusal::CountMismatch { stored })) => {
            Outcome::Reply(refused(Reason::CountMismatch { stored }))
        }
        Ok(Err(CloseRefusal::NotAdmitted(refusal))) => Outcome::Reply(refused(not_admitted(refusal))),
        Ok(Err(CloseRefusal::NoSuchDraw)) => Outcome::Reply(refused(Reason::BadDraw)),
        Err(error) => failed(error, refused),
    }
}

/// Returns the reason of a refusal, or `None` where the outcome is not known.
fn appended(result: Result<Appended, StoreError>) -> Result<(), Option<Reason>> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(Some(match refusal {
            AppendRefusal::DrawClosed => Reason::DrawClosed,
            AppendRefusal::NoSuchDraw => Reason::BadDraw,
            AppendRefusal::AgencyDone => Reason::AgencyDone,
            AppendRefusal::TooManyBets => Reason::TooManyBets,
            AppendRefusal::NotAdmitted(refusal) => not_admitted(refusal),
            AppendRefusal::Gap { next_row } => Reason::Gap { next_row },
            AppendRefusal::Conflict => Reason::Conflict,
        })),
        Err(StoreError::Unknown) => Err(None),
        Err(error) => Err(Some(reason(error))),
    }
}

fn not_admitted(refusal: NotAdmitted) -> Reason {
    match refusal {
        NotAdmitted::Unknown => Reason::UnknownAgency,
        NotAdmitted::TooMany => Reason::TooManyAgencies,
    }
}

/// Returns the reply to a request that the store did not carry out, or none where the
/// outcome is not known.
fn failed(error: StoreError, reply: impl FnOnce(Reason) -> Reply) -> Outcome {
    match error {
        StoreError::Unknown => Outcome::Unknown,
        error => Outcome::Reply(reply(reason(error))),
    }
}

fn reason(error: StoreError) -> Reason {
    match error {
        StoreError::Busy => Reason::Busy,
        StoreError::Full => Reason::StorageFull,
        StoreError::Unavailable | StoreError::Unknown => Reason::Unavailable,
    }
}

fn status(status: DrawStatus) -> Status {
    Status {
        draw: status.draw,
        drawn: status.drawn,
        done: status.done,
        expected: status.expected,
        bets: status.bets,
    }
}
