//! A peer's side of the protocol without its socket: requests in, replies out.
//!
//! A [`Conversation`] decodes what arrived, has the service carry it out in order, and
//! appends the replies to an output buffer. It decides which requests share a commit,
//! that a read sees the writes before it, what waits for the draw, and how a long reply
//! is sent piece by piece. It knows no socket and no clock, and never calls the system:
//! bytes and time are arguments, so tests and fuzz targets drive it as `connection` does.
//! Deadlines and limits on bytes are `connection`'s job.

use std::time::Instant;

use sorteo_protocol::wire::{
    Claim, Decoder, Dialect, Incoming, Reason, Reply, Request, Sender, WireLimits,
    counted::encode_more_winners, encode_reply,
};

use crate::logging::limits::Peer;
use crate::service::{self, Auth, AwaitedWinners, Begun, Commit, Identity, MoreWinners, Outcome, Service};
use crate::store::{Store, StoreError, Submitter};
use sorteo_protocol::{AgencyId, Batch};

/// Batches of one connection that may join one commit. So many of each of the 64 workers
/// fit the writer's queue.
const BATCHES_TOGETHER: usize = 12;
/// Bytes of a counted payload that a peer may send that must prove who it is first: an `AUTH`,
/// with room to spare.
const UNPROVED_BYTES_MAX: usize = 1 << 10;
/// Bets that count as one batch more.
const BETS_PER_BATCH: usize = 128;

/// One peer's requests and replies. See the module.
#[derive(Debug)]
pub struct Conversation {
    submitter: Submitter,
    decoder: Decoder,
    /// Whom the log lines name.
    peer: Peer,
    /// Who the peer has proved to be.
    identity: Option<Identity>,
    /// The agency that its certificate names, if it has one.
    certified: Option<AgencyId>,
    phase: Phase,
    /// The rest of a long reply, which comes before any other reply.
    more: Option<MoreWinners>,
    /// When the first byte of an incomplete request arrived.
    request_since: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// Takes requests.
    Open,
    /// Waits for a draw; the requests behind wait too.
    Waiting(Wait),
    /// Its last reply is in the output.
    Closing,
}

/// A `WAIT_WINNERS` that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    awaited: AwaitedWinners,
    /// When it is answered `not_ready`.
    pub until: Instant,
    /// [`Turn::draws_seen`] of the last look at the database.
    pub draws_seen: u64,
}

/// What a conversation may use while it has a worker. It ends with the first wait for a
/// commit, or when its time is up: others come first then.
pub struct Turn<'a, S> {
    /// Carries out the requests.
    pub service: &'a Service<S>,
    /// When the input arrived.
    pub now: Instant,
    /// Draws that the server knew of before this turn looks at the database.
    pub draws_seen: u64,
    /// Whether the server stops, so that nothing waits for a draw any longer.
    pub is_stopping: bool,
    /// Bytes of replies after which no further request is taken: see [`Pause::Output`].
    pub output_bytes_max: usize,
    /// Whether the turn's time is up. Called before each request is taken.
    pub time_is_up: &'a dyn Fn() -> bool,
    /// Set when a wait ends with a draw that the server did not know of: another process
    /// has drawn it, and other peers may wait for the same draw.
    pub found_draw: bool,
    has_committed: bool,
    commits: Vec<Commit>,
    /// Batches in these, as [`batches_in`] counts them.
    batches: usize,
}

impl<'a, S> Turn<'a, S> {
    /// Creates a turn at the given time.
    pub fn new(
        service: &'a Service<S>,
        now: Instant,
        output_bytes_max: usize,
        time_is_up: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            service,
            now,
            draws_seen: 0,
            is_stopping: false,
            output_bytes_max,
            time_is_up,
            found_draw: false,
            has_committed: false,
            commits: Vec::new(),
            batches: 0,
        }
    }

    /// Returns whether it has waited for a commit.
    pub fn has_committed(&self) -> bool {
        self.has_committed
    }

    fn is_over(&self) -> bool {
        self.has_committed || (self.time_is_up)()
    }
}

/// What a conversation needs before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// More input: all whole requests are carried out.
    Input,
    /// Another turn: others come first.
    NextTurn,
    /// That the output is sent, and [`Conversation::append_more`] is called until there
    /// is no more.
    Output,
    /// A draw, or the end of its wait.
    Draw,
    /// Nothing: the last reply is in the output, and the connection is to be closed.
    Closed,
}

/// Why a connection must be closed without a further reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// The first byte belongs to neither dialect.
    #[error("the first byte belongs to neither dialect")]
    UnknownDialect,
    /// Whether a request was carried out is not known, or the rest of a reply, whose
    /// beginning was sent, cannot be read.
    #[error("the outcome of a request is not known")]
    UnknownOutcome,
    /// It is not who it says it is, as too many from its address before.
    #[error("it has not proved who it is, like too many from its address")]
    Unauthorized,
    /// Its agency has as many connections as it may.
    #[error("its agency has as many connections as it may")]
    TooManyConnections,
}

impl From<StoreError> for Unanswerable {
    fn from(_: StoreError) -> Self {
        Self::UnknownOutcome
    }
}

impl Conversation {
    /// Creates the conversation with the peer of a new connection.
    pub fn new(limits: WireLimits, submitter: Submitter, peer: Peer) -> Self {
        Self {
            submitter,
            decoder: Decoder::new(limits),
            peer,
            identity: None,
            certified: None,
            phase: Phase::Open,
            more: None,
            request_since: None,
        }
    }

    /// Carries out the whole requests at the beginning of `input`, in order, and appends
    /// their replies to `output`; `input` is moved past them. Bytes that are left must be
    /// offered again, with those that arrive behind them.
    ///
    /// Waits for the store's commits, and returns what it needs before it goes on.
    ///
    /// # Errors
    ///
    /// Where the connection must be closed without a further reply.
    pub fn advance<S: Store>(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        turn: &mut Turn<'_, S>,
    ) -> Result<Pause, Unanswerable> {
        self.end_wait(output, turn);
        let (mut has_whole_request, mut is_over) = (true, false);
        while self.takes_requests() {
            is_over = turn.is_over();
            if is_over || output.len() > turn.output_bytes_max {
                break;
            }
            let Some(incoming) = self.decoder.decode(input) else {
                has_whole_request = false;
                self.refuse_unproved_batch(input, output, turn);
                break;
            };
            self.request_since = None;
            self.carry_out(incoming, output, turn)?;
        }
        self.finish_commits(output, turn)?;
        // What lies behind a wait or a long reply waits for us, not for the peer.
        if self.takes_requests() && (!input.is_empty() || self.batch_in_progress().is_some()) {
            self.request_since.get_or_insert(turn.now);
        }
        Ok(match self.phase {
            Phase::Closing => Pause::Closed,
            Phase::Waiting(_) => Pause::Draw,
            Phase::Open if self.more.is_some() => Pause::Output,
            Phase::Open if !has_whole_request => Pause::Input,
            Phase::Open if is_over => Pause::NextTurn,
            Phase::Open => Pause::Output,
        })
    }

    /// Takes the peer for this agency, since it has shown its certificate.
    ///
    /// # Errors
    ///
    /// Where the agency has as many connections as it may: this one is to be closed.
    pub fn set_certified<S: Store>(
        &mut self,
        agency: AgencyId,
        service: &Service<S>,
    ) -> Result<(), Unanswerable> {
        self.certified = Some(agency);
        self.identity = Some(service.identify_certified(agency).ok_or(Unanswerable::TooManyConnections)?);
        Ok(())
    }

    /// Returns who the peer has proved to be, if it has.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Returns whether the peer must still prove who it is.
    pub fn awaits_auth<S: Store>(&self, service: &Service<S>) -> bool {
        self.identity.is_none() && service.auth() == Auth::Required
    }

    /// Appends the next piece of a long reply, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// Where it cannot be read: without the rest, what was sent is no reply.
    pub fn append_more<S: Store>(
        &mut self,
        output: &mut Vec<u8>,
        service: &Service<S>,
    ) -> Result<bool, Unanswerable> {
        let Some(more) = self.more.take() else {
            return Ok(false);
        };
        let (piece, more) = service.more_winners(&more)?;
        encode_more_winners(&piece, output);
        self.more = more;
        Ok(true)
    }

    /// Refuses what is half received with `busy`, and ends the conversation.
    pub fn refuse_as_busy<S: Store>(&mut self, output: &mut Vec<u8>, service: &Service<S>) {
        self.phase = Phase::Closing;
        // Without a byte of a dialect there is none to reply in, and no batch.
        if self.decoder.dialect().is_none() {
            return;
        }
        let count = self.batch_in_progress().unwrap_or(0);
        let sender = self.decoder.batch_sender();
        self.refuse(&Reply::Batch { count, result: Err(Reason::Busy) }, &sender, output, service);
        self.decoder.abandon_batch();
    }

    /// Returns whether input is read. What arrives behind a wait or a long reply is left
    /// for later.
    pub fn takes_requests(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.more.is_none()
    }

    /// Returns the wait for a draw, if there is one.
    pub fn wait(&self) -> Option<&Wait> {
        match &self.phase {
            Phase::Waiting(wait) => Some(wait),
            Phase::Open | Phase::Closing => None,
        }
    }

    /// Returns whether a long reply is not in the output to its end.
    pub fn has_more(&self) -> bool {
        self.more.is_some()
    }

    /// Returns when the first byte of an incomplete request arrived, if there is one.
    pub fn request_since(&self) -> Option<Instant> {
        self.request_since
    }

    /// Returns how many bets a half-received batch announced, if there is one.
    pub fn batch_in_progress(&self) -> Option<u64> {
        self.decoder.batch_in_progress()
    }

    /// Returns who sends the half-received batch.
    pub fn batch_sender(&self) -> Sender {
        self.decoder.batch_sender()
    }

    /// Returns the bytes of memory that a half-received batch takes.
    pub fn held_bytes(&self) -> usize {
        self.decoder.held_bytes()
    }

    /// Ends the wait if the draw is drawn, its time is over, or the server stops.
    fn end_wait<S: Store>(&mut self, output: &mut Vec<u8>, turn: &mut Turn<'_, S>) {
        let Phase::Waiting(wait) = &mut self.phase else {
            return;
        };
        let reply = match turn.service.winners_if_drawn(wait.awaited) {
            Some(reply) => {
                turn.found_draw = turn.draws_seen == wait.draws_seen;
                reply
            }
            None if turn.now >= wait.until || turn.is_stopping => Reply::Winners(Err(Reason::NotReady)),
            None => {
                wait.draws_seen = turn.draws_seen;
                return;
            }
        };
        self.phase = Phase::Open;
        self.reply(&reply, output, turn.service);
    }

    fn carry_out<S: Store>(
        &mut self,
        incoming: Incoming,
        output: &mut Vec<u8>,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Unanswerable> {
        match incoming {
            Incoming::Request(request) => return self.carry_out_request(request, output, turn),
            Incoming::Refused(reply) | Incoming::RefusedForGood(reply) if self.awaits_auth(turn.service) => {
                self.refuse_decoded(&reply.with_refusal(Reason::Unauthorized), output, turn.service);
                self.phase = Phase::Closing;
            }
            Incoming::Refused(reply) => {
                self.finish_commits(output, turn)?;
                self.refuse_decoded(&reply, output, turn.service);
            }
            Incoming::RefusedForGood(reply) => {
                self.finish_commits(output, turn)?;
                self.refuse_decoded(&reply, output, turn.service);
                self.phase = Phase::Closing;
            }
            Incoming::Foreign => return Err(Unanswerable::UnknownDialect),
        }
        Ok(())
    }

    fn carry_out_request<S: Store>(
        &mut self,
        request: Request,
        output: &mut Vec<u8>,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Unanswerable> {
        if !is_write(&request) {
            // A read must see what the requests before it wrote.
            self.finish_commits(output, turn)?;
        }
        if let Request::Auth(claim) = &request
            && turn.service.auth() != Auth::Off
        {
            return self.authenticate(claim.as_ref(), output, turn);
        }
        if let Some(reason) = turn.service.refusal(self.identity.as_ref(), &request, &self.peer) {
            self.finish_commits(output, turn)?;
            self.refuse(&request.refused(reason.clone()), &request.sender(), output, turn.service);
            if reason == Reason::Unauthorized {
                self.phase = Phase::Closing;
            }
            return Ok(());
        }
        let may_be_long = matches!(request, Request::DoneAndWinners { .. });
        let batches = batches_in(&request);
        match turn.service.begin(request, self.submitter, &mut self.peer) {
            Begun::Committing(commit) => {
                turn.commits.push(commit);
                turn.batches += batches;
                // No reply may come before the last piece of a long one.
                if may_be_long || turn.batches >= BATCHES_TOGETHER {
                    self.finish_commits(output, turn)?;
                }
                Ok(())
            }
            Begun::Done(outcome) => {
                self.finish_commits(output, turn)?;
                self.complete(outcome, output, turn)
            }
        }
    }

    /// Finds out who the peer is; one that is not who it says it is gets no second try.
    fn authenticate<S: Store>(
        &mut self,
        claim: Option<&Claim>,
        output: &mut Vec<u8>,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Unanswerable> {
        let agency = self.identity.as_ref().map(|identity| identity.agency);
        if !turn.service.allows_request(agency, &self.peer) {
            self.reply(&Reply::Auth(Err(Reason::Busy)), output, turn.service);
            return Ok(());
        }
        // It is none of its agency's connections any more.
        self.identity = None;
        let result = match turn.service.authenticate(claim, self.certified, &mut self.peer) {
            Ok(identity) => {
                self.identity = Some(identity);
                Ok(())
            }
            Err(reason) => {
                self.phase = Phase::Closing;
                Err(reason.ok_or(Unanswerable::Unauthorized)?)
            }
        };
        self.reply(&Reply::Auth(result), output, turn.service);
        Ok(())
    }

    /// Refuses a batch of a peer that must prove who it is first as soon as it begins: its rows
    /// are not worth their memory.
    fn refuse_unproved_batch<S: Store>(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        turn: &Turn<'_, S>,
    ) {
        if !self.awaits_auth(turn.service) {
            return;
        }
        let is_large = self.decoder.dialect() == Some(Dialect::Counted) && input.len() > UNPROVED_BYTES_MAX;
        if let Some(count) = self.decoder.batch_in_progress().or(is_large.then_some(0)) {
            let (reply, sender) =
                (Reply::Batch { count, result: Err(Reason::Unauthorized) }, self.batch_sender());
            self.decoder.abandon_batch();
            *input = &[];
            self.refuse(&reply, &sender, output, turn.service);
            self.phase = Phase::Closing;
        }
    }

    /// Waits for the commits that were begun, and replies to their requests in order.
    fn finish_commits<S: Store>(
        &mut self,
        output: &mut Vec<u8>,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Unanswerable> {
        let mut commits = std::mem::take(&mut turn.commits);
        turn.has_committed |= !commits.is_empty();
        turn.batches = 0;
        for commit in commits.drain(..) {
            let outcome = turn.service.finish(commit, &mut self.peer);
            self.complete(outcome, output, turn)?;
        }
        // Empty again, and its room is kept for the commits that follow.
        turn.commits = commits;
        Ok(())
    }

    fn complete<S: Store>(
        &mut self,
        outcome: Outcome,
        output: &mut Vec<u8>,
        turn: &Turn<'_, S>,
    ) -> Result<(), Unanswerable> {
        match outcome {
            Outcome::Reply(reply) => self.reply(&reply, output, turn.service),
            Outcome::LongReply(reply, more) => {
                self.reply(&reply, output, turn.service);
                self.more = Some(more);
            }
            Outcome::Wait(awaited, time) => {
                let (until, draws_seen) = (turn.now + time, turn.draws_seen);
                self.phase = Phase::Waiting(Wait { awaited, until, draws_seen });
            }
            Outcome::Unknown => return Err(Unanswerable::UnknownOutcome),
        }
        Ok(())
    }

    fn refuse_decoded<S: Store>(&mut self, reply: &Reply, output: &mut Vec<u8>, service: &Service<S>) {
        let sender = self.decoder.refused_sender().clone();
        self.refuse(reply, &sender, output, service);
    }

    fn refuse<S: Store>(
        &mut self,
        reply: &Reply,
        sender: &Sender,
        output: &mut Vec<u8>,
        service: &Service<S>,
    ) {
        service::log_refusal(reply, sender, &mut self.peer);
        self.reply(reply, output, service);
    }

    fn reply<S: Store>(&self, reply: &Reply, output: &mut Vec<u8>, service: &Service<S>) {
        service.count_reply(reply);
        let dialect = self.decoder.dialect().expect("a message has been decoded");
        encode_reply(dialect, reply, output);
    }
}

/// Returns how many batches a request stores; a large one counts as several.
fn batches_in(request: &Request) -> usize {
    let count = |batch: &Batch| 1 + batch.bets.len() / BETS_PER_BATCH;
    match request {
        Request::Bet(batch) | Request::Batch(batch) => count(batch),
        Request::Payload(batches) => batches.iter().map(count).sum(),
        _ => 1,
    }
}

fn is_write(request: &Request) -> bool {
    match request {
        Request::Bet(_)
        | Request::Batch(_)
        | Request::Payload(_)
        | Request::Done { .. }
        | Request::DoneAndWinners { .. } => true,
        Request::Winners { .. }
        | Request::WinnersPage { .. }
        | Request::WaitWinners { .. }
        | Request::Resume { .. }
        | Request::Hello
        | Request::Status
        | Request::Auth(_) => false,
    }
}
