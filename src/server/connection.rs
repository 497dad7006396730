//! One peer's connection: its bytes, its decoder, its unread answers.
//!
//! [`Connection::serve`] is a worker's whole job: send what waits, carry out what has
//! arrived, read more, until there is nothing to do, and stay a moment for more. It
//! waits for the store's commit, and never for a peer while others need the worker.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::charge::Charge;
use super::close_reason::CloseReason;
use super::{BUFFER_BYTES_FREE, Context, Limits};
use crate::failpoint::Failpoint;
use crate::metrics::seconds_since;
use crate::service::{self, AwaitedWinners, Begun, Commit, MoreWinners, Outcome};
use crate::store::Store;
use sorteo_protocol::wire::{Decoder, Incoming, Reason, Reply, Request, WireLimits, encode_reply};

/// Bytes read at once: a full batch of the seeds' clients with room to spare.
const READ_BYTES: usize = 16 << 10;
/// Reads in one turn of a worker, before others get theirs.
const READS_PER_TURN: usize = 16;
/// Requests in one turn: what a peer asks may cost far more than sending it.
const REQUESTS_PER_TURN: usize = 64;
/// Malformed messages of one connection that are logged; a peer that sends
/// nothing else could fill a disk with their lines.
const REFUSALS_LOGGED_MAX: u32 = 100;
/// Requests of one connection that may join one commit.
const COMMITS_TOGETHER: usize = 32;
/// How long a peer may go on sending after it was told that we close. Closing
/// at once would reset the connection, and take our last answer with it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker stays for its peer's next request: agencies send a batch as soon
/// as the one before is answered. Who begins to wait for a worker meanwhile waits at
/// most so long.
const STAY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// What a worker leaves for the reactor to do.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing more for now: wait for the peer.
    Park,
    /// There is more, but others come first.
    Again,
    /// It is over.
    Close(CloseReason),
}

/// One peer's connection. See the module.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    /// Bytes of an incomplete message, or behind one that waits.
    input: Vec<u8>,
    output: Output,
    phase: Phase,
    /// When the first byte of an incomplete request arrived.
    request_since: Option<Instant>,
    /// When the peer last sent something or took something.
    active_at: Instant,
    refusals: u32,
    charge: Charge,
}

/// What a connection does besides taking requests.
#[derive(Debug)]
enum Phase {
    /// Takes requests.
    Open,
    /// Holds a `WAIT_WINNERS`; requests behind it wait too.
    Waiting { awaited: AwaitedWinners, until: Instant, draws_made: u64 },
    /// Its last answer is on its way.
    Closing,
    /// Its last answer is sent; what still arrives is thrown away.
    Lingering { until: Instant },
    /// The peer sends no more.
    PeerDone,
}

/// A request that waits for a commit, and when it was there whole.
struct Asked {
    commit: Commit,
    at: Instant,
}

/// Answers that the peer has not taken yet.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
    more: Option<MoreWinners>,
    /// Since when the peer has taken nothing, though something waits.
    stuck_since: Option<Instant>,
}

impl Output {
    fn pending(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn is_empty(&self) -> bool {
        self.pending() == 0 && self.more.is_none()
    }
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        limits: WireLimits,
        buffered_bytes: Arc<AtomicUsize>,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            decoder: Decoder::new(limits),
            input: Vec::new(),
            output: Output::default(),
            phase: Phase::Open,
            request_since: None,
            active_at: now,
            refusals: 0,
            charge: Charge::new(buffered_bytes),
        }
    }

    /// Whether it holds a `WAIT_WINNERS`.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// How many draws were made when its `WAIT_WINNERS` looked, if it holds one.
    pub(super) fn waits_since_draws(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting { draws_made, .. } => Some(draws_made),
            _ => None,
        }
    }

    /// Whether it reads what arrives. One that waits for the draw, or for its peer to
    /// take an answer, reads nothing before that.
    pub(super) fn reads(&self) -> bool {
        self.takes_requests() || matches!(self.phase, Phase::Lingering { .. })
    }

    /// Whether closing it now would cut nothing short.
    pub(super) fn is_idle(&self) -> bool {
        self.is_between_requests() || matches!(self.phase, Phase::Lingering { .. })
    }

    /// How many bets the batch announced that is half received, if one is.
    pub(super) fn batch_in_progress(&self) -> Option<u64> {
        self.decoder.batch_in_progress()
    }

    /// Has the reactor told when the peer sends something or, where answers wait,
    /// takes something; at once if it has already.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = match self.output.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        registry.register(&mut self.stream, token, interest)
    }

    /// Ends [`Connection::watch`], so that what a worker reads wakes nobody else.
    pub(super) fn unwatch(&mut self, registry: &Registry) {
        // If it fails, the socket is still watched, and watching it anew says so.
        let _ = registry.deregister(&mut self.stream);
    }

    /// When the connection is due though nothing happens.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        match self.phase {
            Phase::Waiting { until, .. } | Phase::Lingering { until } => until,
            _ => self.request_deadline(limits).unwrap_or(self.active_at + limits.idle_timeout),
        }
    }

    /// When the peer must have sent the rest of its request, or taken its answer.
    fn request_deadline(&self, limits: &Limits) -> Option<Instant> {
        // A peer that takes nothing is as slow as one that sends nothing. One that
        // does both may not prolong either by the other.
        let since = [self.output.stuck_since, self.request_since].into_iter().flatten().min()?;
        Some(since + limits.request_timeout)
    }

    /// Whether the time for its request or its answer is over, though the peer may
    /// still be busy.
    pub(super) fn is_late(&self, now: Instant, limits: &Limits) -> bool {
        self.request_deadline(limits).is_some_and(|deadline| deadline <= now)
    }

    /// Why it is over once its deadline has passed; `None` if its wait is.
    pub(super) fn expired(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Waiting { .. } => None,
            Phase::Lingering { .. } => Some(CloseReason::Finished),
            _ if !self.output.is_empty() => Some(CloseReason::UnreadAnswers),
            _ if self.request_since.is_some() => Some(CloseReason::RequestTimeout),
            _ => Some(CloseReason::IdleTimeout),
        }
    }

    /// A worker's turn: serves the peer and, as long as nobody waits for a worker,
    /// stays for what it asks next.
    ///
    /// To park a connection and wake a worker again costs more than most requests.
    pub(super) fn serve<S: Store>(&mut self, context: &Context<S>) -> Next {
        // Who waited for the draw has its winners, and mostly no more to ask.
        let stays = !self.is_waiting();
        loop {
            match self.advance(context) {
                Next::Park
                    if stays
                        && self.is_between_requests()
                        && context.has_spare_worker()
                        && self.wait_for_next_request() => {}
                next => return next,
            }
        }
    }

    /// Waits a little for the peer's next request.
    fn wait_for_next_request(&self) -> bool {
        let mut stream = [PollFd::new(&self.stream, PollFlags::IN)];
        poll(&mut stream, Some(&STAY)).is_ok_and(|ready| ready > 0)
    }

    /// Whether nothing is half received, half answered or waited for.
    fn is_between_requests(&self) -> bool {
        let open = matches!(self.phase, Phase::Open);
        open && self.request_since.is_none() && self.output.is_empty()
    }

    /// Does all that can be done now.
    fn advance<S: Store>(&mut self, context: &Context<S>) -> Next {
        let next = self.try_advance(context).unwrap_or_else(Next::Close);
        let holds = self.input.len() + self.decoder.held_bytes();
        self.charge.set(holds.saturating_sub(BUFFER_BYTES_FREE));
        next
    }

    fn try_advance<S: Store>(&mut self, context: &Context<S>) -> Result<Next, CloseReason> {
        let mut requests_left = REQUESTS_PER_TURN;
        for _ in 0..READS_PER_TURN {
            self.answer_wait(context);
            self.answer_input(&mut requests_left, context)?;
            let long_answer = self.output.more.is_some();
            self.flush(context)?;
            if requests_left == 0 {
                return Ok(Next::Again);
            }
            if long_answer && self.output.is_empty() && matches!(self.phase, Phase::Open) {
                // Requests that arrived behind the long answer are next.
                continue;
            }
            if !self.output.is_empty() && !matches!(self.phase, Phase::Open) || self.output.more.is_some() {
                return Ok(Next::Park);
            }
            match self.phase {
                Phase::Waiting { .. } => return Ok(Next::Park),
                Phase::PeerDone => return Err(CloseReason::Eof),
                Phase::Closing => self.linger(),
                Phase::Lingering { until } if Instant::now() >= until => return Err(CloseReason::Finished),
                Phase::Open | Phase::Lingering { .. } => {}
            }
            match self.read()? {
                0 => return Ok(Next::Park),
                _ if matches!(self.phase, Phase::Lingering { .. }) => self.input = Vec::new(),
                _ => self.enforce_buffer_limit(context),
            }
        }
        Ok(Next::Again)
    }

    /// Ends the wait for a draw if it is made, the time is up, or the server stops.
    fn answer_wait<S: Store>(&mut self, context: &Context<S>) {
        let Phase::Waiting { awaited, until, ref mut draws_made } = self.phase else {
            return;
        };
        let before = context.handle.draws_made_so_far();
        let reply = match context.service.winners_if_drawn(awaited) {
            Some(reply) => {
                if before == *draws_made {
                    // Another process made the draw: the others wait for it too.
                    context.handle.draw_made();
                }
                reply
            }
            None if Instant::now() >= until || context.handle.stops() => {
                Reply::Winners(Err(Reason::NotReady))
            }
            None => {
                *draws_made = before;
                return;
            }
        };
        self.phase = Phase::Open;
        self.reply(&reply, context);
    }

    /// Carries out the whole requests that have arrived, in order, as many as
    /// this turn has left.
    fn answer_input<S: Store>(
        &mut self,
        requests_left: &mut usize,
        context: &Context<S>,
    ) -> Result<(), CloseReason> {
        let input = mem::take(&mut self.input);
        let mut rest = &input[..];
        let mut commits: Vec<Asked> = Vec::new();
        while *requests_left > 0 && self.takes_requests() {
            let Some(incoming) = self.decoder.decode(&mut rest) else {
                break;
            };
            *requests_left -= 1;
            self.request_since = None;
            self.carry_out(incoming, &mut commits, context)?;
            if commits.len() >= COMMITS_TOGETHER {
                self.settle(&mut commits, context)?;
            }
            if self.output.pending() > context.limits.output_bytes_max {
                self.flush(context)?;
            }
        }
        self.settle(&mut commits, context)?;
        // What lies behind a wait or a long answer waits for us, not for the peer.
        let incomplete = !rest.is_empty() || self.decoder.batch_in_progress().is_some();
        if incomplete && self.takes_requests() {
            self.request_since.get_or_insert_with(Instant::now);
        }
        self.input = match rest.len() {
            all if all == input.len() => input,
            _ => rest.to_vec(),
        };
        Ok(())
    }

    /// A long answer, a wait or a farewell comes before the next request.
    fn takes_requests(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.output.more.is_none()
    }

    fn carry_out<S: Store>(
        &mut self,
        incoming: Incoming,
        commits: &mut Vec<Asked>,
        context: &Context<S>,
    ) -> Result<(), CloseReason> {
        match incoming {
            Incoming::Request(request) => {
                if !is_write(&request) {
                    // A read must see what the requests before it wrote.
                    self.settle(commits, context)?;
                }
                let may_be_long = matches!(request, Request::DoneAndWinners { .. });
                let draws_made = context.handle.draws_made_so_far();
                let at = Instant::now();
                match context.service.begin(request) {
                    Begun::Committing(commit) => {
                        commits.push(Asked { commit, at });
                        if may_be_long {
                            // Nothing may be answered before the last piece of a long answer.
                            self.settle(commits, context)?;
                        }
                    }
                    Begun::Done(outcome) => {
                        self.settle(commits, context)?;
                        self.answer(outcome, at, draws_made, context)?;
                    }
                }
            }
            Incoming::Refused(reply) => {
                self.settle(commits, context)?;
                self.refuse(&reply, context);
            }
            Incoming::RefusedForGood(reply) => {
                self.settle(commits, context)?;
                self.refuse(&reply, context);
                self.phase = Phase::Closing;
            }
            Incoming::Foreign => return Err(CloseReason::Foreign),
        }
        Ok(())
    }

    /// Waits for what was submitted and answers it, in order.
    fn settle<S: Store>(
        &mut self,
        commits: &mut Vec<Asked>,
        context: &Context<S>,
    ) -> Result<(), CloseReason> {
        for Asked { commit, at } in commits.drain(..) {
            let draws_made = context.handle.draws_made_so_far();
            let outcome = context.service.finish(commit);
            self.answer(outcome, at, draws_made, context)?;
        }
        Ok(())
    }

    /// Answers what was asked at this time.
    fn answer<S: Store>(
        &mut self,
        outcome: Outcome,
        asked_at: Instant,
        draws_made: u64,
        context: &Context<S>,
    ) -> Result<(), CloseReason> {
        match outcome {
            Outcome::Reply(reply) => self.reply(&reply, context),
            Outcome::LongReply(reply, more) => {
                self.reply(&reply, context);
                self.output.more = Some(more);
            }
            Outcome::Wait(awaited, wait) => {
                let until = Instant::now() + wait;
                self.phase = Phase::Waiting { awaited, until, draws_made };
                return Ok(());
            }
            Outcome::Unknown => return Err(CloseReason::UnknownOutcome),
        }
        context.service.metrics().answer_seconds.observe(seconds_since(asked_at));
        Ok(())
    }

    fn refuse<S: Store>(&mut self, reply: &Reply, context: &Context<S>) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= REFUSALS_LOGGED_MAX {
            service::log_refusal(reply);
        }
        self.reply(reply, context);
    }

    fn reply<S: Store>(&mut self, reply: &Reply, context: &Context<S>) {
        context.service.count_reply(reply);
        let dialect = self.decoder.dialect().expect("a request has been decoded");
        encode_reply(dialect, reply, &mut self.output.bytes);
    }

    /// Sends as much as the peer takes; of a long answer, piece after piece.
    fn flush<S: Store>(&mut self, context: &Context<S>) -> Result<(), CloseReason> {
        loop {
            while self.output.pending() > 0 {
                Failpoint::BeforeAnswer.pass();
                match self.stream.write(&self.output.bytes[self.output.sent..]) {
                    Ok(0) => return Err(CloseReason::Lost(ErrorKind::WriteZero.into())),
                    Ok(sent) => {
                        self.output.sent += sent;
                        self.output.stuck_since = None;
                        self.active_at = Instant::now();
                        Failpoint::AfterAnswer.pass();
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.output.bytes.drain(..self.output.sent);
                        self.output.sent = 0;
                        self.output.stuck_since.get_or_insert_with(Instant::now);
                        let too_much = self.output.pending() > context.limits.output_bytes_max;
                        return if too_much { Err(CloseReason::UnreadAnswers) } else { Ok(()) };
                    }
                    Err(error) => return Err(CloseReason::Lost(error)),
                }
            }
            self.output.bytes = Vec::new();
            self.output.sent = 0;
            let Some(more) = self.output.more.take() else {
                return Ok(());
            };
            // The length is announced: without the rest there is no answer.
            let (piece, rest) =
                context.service.more_winners(&more).map_err(|_| CloseReason::UnknownOutcome)?;
            self.output.bytes = piece.into_bytes();
            self.output.more = rest;
        }
    }

    /// Reads once. 0: nothing there, or the peer is done, which the phase tells.
    fn read(&mut self) -> Result<usize, CloseReason> {
        let filled = self.input.len();
        self.input.resize(filled + READ_BYTES, 0);
        let result = loop {
            match self.stream.read(&mut self.input[filled..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.input.truncate(filled + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) if self.output.is_empty() => Err(CloseReason::Eof),
            Ok(0) => {
                self.phase = Phase::PeerDone;
                Ok(0)
            }
            Ok(read) => {
                self.active_at = Instant::now();
                Ok(read)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // A peer that drips keeps what it sent, not the room it might have used.
                self.input.shrink_to_fit();
                Ok(0)
            }
            Err(error) => Err(CloseReason::Lost(error)),
        }
    }

    /// Says that we are done, and lets the peer finish its sentence.
    fn linger(&mut self) {
        // If it is gone already, the next read says so.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.input = Vec::new();
        self.request_since = None;
        let until = Instant::now() + LINGER_TIMEOUT;
        self.phase = Phase::Lingering { until };
    }

    /// Where all connections together hold too many bytes, the one that would
    /// add to them is told `busy`.
    fn enforce_buffer_limit<S: Store>(&mut self, context: &Context<S>) {
        let holds = self.input.len() + self.decoder.held_bytes();
        let total = self.charge.set(holds.saturating_sub(BUFFER_BYTES_FREE));
        if self.charge.is_charged() && total > context.limits.buffer_bytes_max {
            let reply = Reply::Batch {
                count: self.decoder.batch_in_progress().unwrap_or(0),
                result: Err(Reason::Busy),
            };
            self.refuse(&reply, context);
            self.decoder.abandon_batch();
            self.input = Vec::new();
            self.phase = Phase::Closing;
        }
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
        | Request::Status => false,
    }
}
