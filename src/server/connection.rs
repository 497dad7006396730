//! One peer's connection: its socket, its bytes, and how long it may take.
//!
//! [`Connection::serve`] is a worker's whole job: read what arrived, have the
//! [`Conversation`] carry it out, send what the peer takes, until there is nothing to do,
//! and stay a moment for the next request. It waits for the store's commits, but for a
//! peer only while no other connection needs the worker.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use super::buffer_budget::BufferShare;
use super::close_reason::CloseReason;
use super::context::Context;
use super::conversation::{Conversation, Pause, Turn};
use super::limits::{BUFFER_BYTES_FREE, Limits};
use super::ready::Weight;
use super::tls::{self, Tls};
use super::transport::{FirstByte, ReceiveError, Received, Transport};
use crate::event;
use crate::logging::limits::Peer;
use crate::metrics::HandshakeResult;
use crate::service::{Auth, Service};
use crate::store::{Store, Submitter};
use sorteo_protocol::wire::Sender;

/// Reads in one turn of a worker, before others get theirs.
const READS_PER_TURN: usize = 16;
/// How long a peer may go on sending after the last reply. Closing at once would reset
/// the connection, and the peer might never read that reply.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Work after which a turn of a worker ends, if others wait for one.
const TURN_TIME: Duration = Duration::from_millis(1);
/// Bytes of requests from which on they are taken to be much work: more than two batches of
/// the original servers' clients.
const LARGE_INPUT_BYTES: usize = 16 << 10;
/// Bytes of bets that are stored in a microsecond: a third of a bet.
const BYTES_PER_MICROSECOND: u64 = 16;
/// Bets in a batch from which on it is taken to be much work.
const LARGE_BATCH_BETS: u64 = 1_000;
/// What a turn of a handshake costs a processor, in microseconds: mostly one signature and one
/// key exchange.
const HANDSHAKE_MICROSECONDS: u64 = 200;

/// How long a worker stays for its peer's next request: agencies send a batch as soon as
/// the one before is answered. A connection that needs a worker meanwhile waits at most
/// this long.
const STAY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Returns the time that this thread has used a processor: unlike time by the clock, it
/// does not grow while others are served or a commit is waited for.
fn processor_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec as u64, tv_nsec as u32)
}

/// What a worker leaves for the reactor to do.
#[derive(Debug)]
pub(super) enum Next {
    /// Wait for the peer: nothing is left to do for now.
    Park,
    /// Serve it again after the others: there is more to do.
    Again,
    /// Close it.
    Close(CloseReason),
}

/// One peer's connection. See the module.
#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    ip: IpAddr,
    ending: Ending,
    conversation: Conversation,
    /// Bytes of an incomplete request, and of those behind a wait or a long reply.
    input: Vec<u8>,
    /// Bytes of replies that the peer has not taken yet.
    output: Vec<u8>,
    /// Since when the peer has taken nothing, though output waits.
    stuck_since: Option<Instant>,
    /// When the peer last sent something or took something.
    active_at: Instant,
    buffer_share: BufferShare,
    /// Until when its peer must prove who it is, if it must.
    auth_until: Option<Instant>,
    /// Work of the last two turns, the later one last: see [`Connection::take_turn`].
    turn_times: [Duration; 2],
}

/// How far the socket is closed.
#[derive(Debug)]
enum Ending {
    /// It is open in both directions.
    Open,
    /// The peer has closed its side, and has replies to take.
    PeerClosed,
    /// We have closed our side after the last reply, and discard what still arrives.
    Lingering { until: Instant },
}

impl Connection {
    /// Creates the connection of a peer that was accepted now.
    pub(super) fn new<S: Store>(
        stream: TcpStream,
        peer: Peer,
        submitter: Submitter,
        context: &Context<S>,
        now: Instant,
    ) -> Self {
        let (tls, limits) = (context.tls.as_deref(), &context.limits);
        let must_prove = context.service.auth() == Auth::Required;
        Self {
            transport: Transport::new(stream, tls.is_some(), tls.is_some_and(Tls::is_required), now),
            ip: peer.ip,
            ending: Ending::Open,
            conversation: Conversation::new(limits.wire, submitter, peer),
            input: Vec::new(),
            output: Vec::new(),
            stuck_since: None,
            active_at: now,
            buffer_share: BufferShare::new(Arc::clone(&context.buffered_bytes)),
            auth_until: must_prove.then(|| now + limits.auth_timeout),
            turn_times: [Duration::ZERO; 2],
        }
    }

    /// Returns how much work its next turn is likely to be.
    pub(super) fn weight(&self) -> Weight {
        match self.turn_time() >= TURN_TIME / 2 || self.has_much_to_do() {
            _ if self.is_handshaking() => Weight::Handshake,
            true => Weight::Heavy,
            false => Weight::Light,
        }
    }

    fn is_handshaking(&self) -> bool {
        self.transport.is_handshaking() && matches!(self.ending, Ending::Open)
    }

    fn has_much_to_do(&self) -> bool {
        let batch = self.conversation.batch_in_progress();
        self.input.len() >= LARGE_INPUT_BYTES || batch.is_some_and(|bets| bets >= LARGE_BATCH_BETS)
    }

    /// Returns what its turns cost: the lesser of the last two, since one may be long by
    /// chance.
    fn turn_time(&self) -> Duration {
        self.turn_times[0].min(self.turn_times[1])
    }

    /// Returns what its next turn is likely to cost, in microseconds: as much as those before
    /// it and, since the writer has work with what has arrived, that too.
    pub(super) fn turn_cost(&self) -> u64 {
        if self.is_handshaking() {
            return HANDSHAKE_MICROSECONDS;
        }
        (self.turn_time().as_micros() as u64).max(self.input.len() as u64 / BYTES_PER_MICROSECOND)
    }

    /// Returns whether it waits for a draw.
    pub(super) fn is_waiting(&self) -> bool {
        self.conversation.wait().is_some()
    }

    /// Returns how many draws the server knew of when it last looked for the one that
    /// the connection waits for; `None` if it waits for none.
    pub(super) fn waits_since_draws(&self) -> Option<u64> {
        self.conversation.wait().map(|wait| wait.draws_seen)
    }

    /// Returns whether it reads what arrives. It does not while it waits for a draw, or
    /// for its peer to take a reply.
    pub(super) fn reads(&self) -> bool {
        match self.ending {
            Ending::Open => self.conversation.takes_requests(),
            Ending::PeerClosed => false,
            Ending::Lingering { .. } => true,
        }
    }

    /// Returns whether closing it now would cut nothing short.
    pub(super) fn is_idle(&self) -> bool {
        self.is_between_requests()
            || self.transport.is_handshaking()
            || matches!(self.ending, Ending::Lingering { .. })
    }

    /// Returns how many bets a half-received batch announced, if there is one, and its
    /// sender.
    pub(super) fn batch_in_progress(&self) -> Option<(u64, Sender)> {
        let bets = self.conversation.batch_in_progress()?;
        Some((bets, self.conversation.batch_sender()))
    }

    /// Has the reactor's poll report when the peer sends something and, if output waits,
    /// when it takes something; at once if it has already.
    ///
    /// # Errors
    ///
    /// Where the system watches no more sockets.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // A socket whose sending side is closed would be writable for ever.
        let interest = match self.is_all_sent() || matches!(self.ending, Ending::Lingering { .. }) {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        registry.register(self.transport.socket_mut(), token, interest)
    }

    /// Ends [`Connection::watch`], so that what a worker reads does not wake the reactor.
    pub(super) fn unwatch(&mut self, registry: &Registry) {
        // If it fails, the socket is still watched, and the next `watch` reports that.
        let _ = registry.deregister(self.transport.socket_mut());
    }

    /// Returns when something is due even if the peer does nothing.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        match (&self.ending, self.conversation.wait()) {
            (Ending::Lingering { until }, _) => *until,
            (_, Some(wait)) => wait.until,
            _ => self.peer_deadline(limits).unwrap_or(self.active_at + limits.idle_timeout),
        }
    }

    /// Returns until when its peer must prove who it is, if it must and has not.
    fn auth_deadline(&self) -> Option<Instant> {
        self.auth_until.filter(|_| self.conversation.identity().is_none())
    }

    /// Returns whether its peer has proved who it is.
    pub(super) fn is_proved(&self) -> bool {
        self.conversation.identity().is_some()
    }

    /// Returns whether it may go on: not if what proved who its peer is counts no more.
    pub(super) fn is_live<S: Store>(&self, service: &Service<S>) -> bool {
        self.conversation.identity().is_none_or(|identity| service.is_live(identity))
    }

    /// Returns when the peer must have sent the rest of its request, or taken its reply.
    fn request_deadline(&self, limits: &Limits) -> Option<Instant> {
        // A peer that takes nothing is as slow as one that sends nothing. One that does
        // both may not prolong either by the other.
        let since = [self.stuck_since, self.conversation.request_since(), self.transport.record_since()];
        Some(since.into_iter().flatten().min()? + limits.request_timeout)
    }

    /// Returns when the peer must have got its handshake over.
    fn handshake_deadline(&self, limits: &Limits) -> Option<Instant> {
        self.transport.handshake_since().map(|since| since + limits.handshake_timeout)
    }

    /// Returns when the peer must have done what it is waited for.
    fn peer_deadline(&self, limits: &Limits) -> Option<Instant> {
        if let Some(handshake_until) = self.handshake_deadline(limits) {
            return Some(handshake_until);
        }
        [self.request_deadline(limits), self.auth_deadline()].into_iter().flatten().min()
    }

    /// Returns whether the time for its handshake, its request or its reply is over, even if the
    /// peer still sends.
    pub(super) fn is_late(&self, now: Instant, limits: &Limits) -> bool {
        let is_lingering = matches!(self.ending, Ending::Lingering { .. });
        !is_lingering && self.peer_deadline(limits).is_some_and(|deadline| deadline <= now)
    }

    /// Returns why it ends once its deadline has passed; `None` if only its wait ends.
    pub(super) fn expired(&self) -> Option<CloseReason> {
        match self.ending {
            Ending::Lingering { .. } => Some(CloseReason::Finished),
            _ if self.is_waiting() => None,
            _ if self.transport.handshake_since().is_some() => Some(CloseReason::HandshakeTimeout),
            _ if !self.is_all_sent() => Some(CloseReason::UnreadAnswers),
            _ if self.auth_deadline().is_some_and(|until| until <= Instant::now()) => {
                Some(CloseReason::AuthTimeout)
            }
            _ if self.has_part_of_request() => Some(CloseReason::RequestTimeout),
            _ => Some(CloseReason::IdleTimeout),
        }
    }

    /// Serves the peer for one turn of a worker and, as long as no other connection needs
    /// the worker, stays for the next request.
    ///
    /// To park a connection and wake a worker again costs more than most requests.
    pub(super) fn serve<S: Store>(&mut self, context: &Context<S>) -> Next {
        // A peer that waited for the draw has its winners, and mostly no more requests.
        let may_stay = !self.is_waiting();
        let was_handshaking = self.is_handshaking();
        loop {
            let next = self.take_turn(context).unwrap_or_else(Next::Close);
            self.share_buffers();
            let goes_on = match next {
                _ if !context.has_spare_worker() => false,
                // Handshakes have few workers, which others need; and those few alone.
                _ if was_handshaking || self.is_handshaking() => false,
                // It would come back at once.
                Next::Again => !self.is_late(Instant::now(), &context.limits),
                Next::Park => may_stay && self.is_between_requests() && self.wait_for_next_request(),
                Next::Close(_) => false,
            };
            if !goes_on {
                return next;
            }
        }
    }

    /// Waits a moment for the peer's next request.
    fn wait_for_next_request(&self) -> bool {
        let mut stream = [PollFd::new(self.transport.socket(), PollFlags::IN)];
        poll(&mut stream, Some(&STAY)).is_ok_and(|ready| ready > 0)
    }

    /// Returns whether no request is half received, waited for, or not yet answered.
    fn is_between_requests(&self) -> bool {
        matches!(self.ending, Ending::Open)
            && self.conversation.takes_requests()
            && !self.has_part_of_request()
            && self.is_all_sent()
    }

    fn has_part_of_request(&self) -> bool {
        self.conversation.request_since().is_some() || self.transport.record_since().is_some()
    }

    fn is_all_sent(&self) -> bool {
        self.output.is_empty() && !self.conversation.has_more() && !self.transport.wants_write()
    }

    /// Takes one turn, and measures its work: by the clock or, behind a turn that was long
    /// by it, as the time of a processor.
    fn take_turn<S: Store>(&mut self, context: &Context<S>) -> Result<Next, CloseReason> {
        if !self.is_live(&context.service) {
            return Err(CloseReason::AuthEnded);
        }
        let (weight, began_at) = (self.weight(), Instant::now());
        // The clock is cheaper to read, and no less: it says enough of most turns.
        let began = (self.turn_times[1] >= TURN_TIME / 2).then(processor_time);
        let used = || began.map_or_else(|| began_at.elapsed(), |began| processor_time() - began);
        let time_is_up = || began_at.elapsed() >= TURN_TIME && used() >= TURN_TIME;
        let output_bytes_max = context.limits.output_bytes_max;
        let mut turn = Turn::new(&context.service, began_at, output_bytes_max, &time_is_up);
        let next = self.serve_once(&mut turn, context, weight);
        // A turn that waited for a commit has not done much else.
        let time = if turn.has_committed() { Duration::ZERO } else { used() };
        self.turn_times = [self.turn_times[1], time];
        next
    }

    /// Does what can be done without waiting for the peer. What turns out to be much work
    /// is done in a turn for which that was known.
    fn serve_once<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        context: &Context<S>,
        weight: Weight,
    ) -> Result<Next, CloseReason> {
        for _ in 0..READS_PER_TURN {
            if let Ending::Lingering { until } = self.ending {
                if self.discard_input(until)? == 0 {
                    return Ok(Next::Park);
                }
                continue;
            }
            if !self.transport.is_ready() {
                match self.advance_handshake(context)? {
                    Some(next) => return Ok(next),
                    None => continue,
                }
            }
            if weight == Weight::Light && self.has_much_to_do() && self.conversation.takes_requests() {
                return Ok(Next::Again);
            }
            match self.converse(turn, context)? {
                Pause::NextTurn => return Ok(Next::Again),
                Pause::Output if self.is_all_sent() => continue,
                Pause::Closed if self.is_all_sent() => {
                    if !self.linger() {
                        return Ok(Next::Park);
                    }
                    continue;
                }
                Pause::Output | Pause::Draw | Pause::Closed => return Ok(Next::Park),
                Pause::Input => {}
            }
            if matches!(self.ending, Ending::PeerClosed) {
                return self.end_behind_peer();
            }
            match self.read(context)? {
                Received::Nothing => return Ok(Next::Park),
                Received::End => return self.end_behind_peer(),
                Received::Bytes(_) => turn.now = self.active_at,
                Received::Part => {}
            }
            self.enforce_buffer_limit(context);
        }
        Ok(Next::Again)
    }

    /// Carries out the requests that have arrived, and sends the replies as far as the
    /// peer takes them.
    fn converse<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        context: &Context<S>,
    ) -> Result<Pause, CloseReason> {
        self.postpone_record();
        let input = mem::take(&mut self.input);
        let mut rest = &input[..];
        let pause = loop {
            turn.draws_seen = context.handle.draws_seen();
            turn.is_stopping = context.handle.is_stopping();
            let pause = self.conversation.advance(&mut rest, &mut self.output, turn)?;
            if mem::take(&mut turn.found_draw) {
                context.handle.report_draw();
            }
            let is_long = self.conversation.has_more();
            self.flush(turn, context)?;
            if pause != Pause::Output || is_long {
                break pause;
            }
        };
        self.input = match rest.len() {
            all if all == input.len() => input,
            _ => rest.to_vec(),
        };
        self.postpone_record();
        Ok(pause)
    }

    /// Lets the time of an incomplete record begin anew while it lies behind a wait or a long
    /// reply: it waits for us then, not for the peer.
    fn postpone_record(&mut self) {
        if !self.conversation.takes_requests() {
            self.transport.postpone_record(Instant::now());
        }
    }

    /// Sends as much as the peer takes; of a long reply, piece after piece until the turn's
    /// time is up.
    fn flush<S: Store>(&mut self, turn: &Turn<'_, S>, context: &Context<S>) -> Result<(), CloseReason> {
        loop {
            if !self.send_output()? {
                let unsent = self.output.len() + self.transport.unsent_bytes();
                let is_too_much = unsent > context.limits.output_bytes_max;
                return if is_too_much { Err(CloseReason::UnreadAnswers) } else { Ok(()) };
            }
            if self.conversation.has_more() && (turn.time_is_up)() {
                // Whether the peer takes the rest is not known.
                self.stuck_since.get_or_insert_with(Instant::now);
                return Ok(());
            }
            if !self.conversation.append_more(&mut self.output, &context.service)? {
                return Ok(());
            }
        }
    }

    /// Sends the output, and returns whether the peer took all of it.
    fn send_output(&mut self) -> Result<bool, CloseReason> {
        let sent = self.transport.send(&self.output).map_err(CloseReason::Lost)?;
        if sent.has_progressed {
            self.stuck_since = None;
            self.active_at = Instant::now();
        }
        match sent.taken == self.output.len() {
            // An idle connection keeps no memory for replies.
            true => self.output = Vec::new(),
            false => drop(self.output.drain(..sent.taken)),
        }
        if sent.is_blocked {
            self.stuck_since.get_or_insert_with(Instant::now);
        }
        Ok(!sent.is_blocked)
    }

    /// Reads once. At the peer's end, output may still wait for it.
    fn read<S: Store>(&mut self, context: &Context<S>) -> Result<Received, CloseReason> {
        let received = match self.transport.receive(&mut self.input) {
            Ok(received) => received,
            Err(ReceiveError::Io(error)) => return Err(CloseReason::Lost(error)),
            Err(ReceiveError::Tls(error)) => return self.fail_tls(&error, context),
        };
        match received {
            Received::End => self.ending = Ending::PeerClosed,
            Received::Bytes(_) => self.active_at = Instant::now(),
            Received::Part | Received::Nothing => {}
        }
        Ok(received)
    }

    /// Finds out whether the peer starts TLS, or goes on with its handshake. Returns what the
    /// worker leaves to do, if it is nothing more now.
    fn advance_handshake<S: Store>(&mut self, context: &Context<S>) -> Result<Option<Next>, CloseReason> {
        if !self.transport.is_tls() {
            return self.detect_tls(context);
        }
        match self.read(context)? {
            Received::End => Err(CloseReason::HandshakeFailed(HandshakeResult::closed, None)),
            received => {
                // What the server has to say to it, or a part of that.
                self.send_output()?;
                if self.transport.is_ready() {
                    self.log_handshake(context);
                    self.begin_behind_handshake(context)?;
                    // What it costs from here on is another matter.
                    return Ok(Some(Next::Again));
                }
                Ok((received == Received::Nothing).then_some(Next::Park))
            }
        }
    }

    /// Takes the peer for the agency of its certificate; without one, its time to prove who it
    /// is begins now.
    fn begin_behind_handshake<S: Store>(&mut self, context: &Context<S>) -> Result<(), CloseReason> {
        if self.auth_until.is_some() {
            self.auth_until = Some(Instant::now() + context.limits.auth_timeout);
        }
        match self.transport.client_agency() {
            Some(agency) => Ok(self.conversation.set_certified(agency, &context.service)?),
            None => Ok(()),
        }
    }

    /// Counts and logs a handshake that is over.
    fn log_handshake<S: Store>(&self, context: &Context<S>) {
        context.service.metrics().count_handshake(HandshakeResult::success);
        let agency = self.transport.client_agency().map_or("-".to_owned(), |agency| agency.to_string());
        event!(Debug, "tls_handshake", Success, ip = self.ip, agency = agency);
    }

    fn detect_tls<S: Store>(&mut self, context: &Context<S>) -> Result<Option<Next>, CloseReason> {
        let now = Instant::now();
        match (self.transport.first_byte().map_err(CloseReason::Lost)?, &context.tls) {
            (FirstByte::None, _) => Ok(Some(Next::Park)),
            (FirstByte::Eof, _) => Err(CloseReason::Eof),
            (FirstByte::Tls, Some(_)) if !context.handshakes.allows(&self.ip.into()) => {
                Err(CloseReason::HandshakeFailed(HandshakeResult::rate_limited, None))
            }
            (FirstByte::Tls, Some(tls)) => {
                let started = self.transport.start_tls(tls, now);
                started.map_err(|error| failed_handshake(&error))?;
                self.active_at = now;
                // Its turn comes with the other handshakes.
                Ok(Some(Next::Again))
            }
            (_, Some(tls)) if tls.is_required() => Err(CloseReason::TlsRequired),
            _ => {
                self.transport.set_plain();
                Ok(None)
            }
        }
    }

    /// Logs why TLS failed, tells the peer, and lets it finish what it is sending: closing at
    /// once would reset the connection, and the peer might never read why.
    fn fail_tls<S: Store>(
        &mut self,
        error: &tls::Failure,
        context: &Context<S>,
    ) -> Result<Received, CloseReason> {
        let reason = match self.transport.is_ready() {
            true => CloseReason::TlsFailed(error.to_string()),
            false => failed_handshake(error),
        };
        if let Some(result) = reason.handshake_result() {
            context.service.metrics().count_handshake(result);
        }
        reason.log(&mut Peer::new(self.ip, Arc::clone(&context.lines)), self.batch_in_progress());
        let _ = self.transport.send(&[]);
        self.begin_to_linger();
        Ok(Received::Part)
    }

    /// Ends a connection whose peer sends no more, once it has all its replies.
    fn end_behind_peer(&mut self) -> Result<Next, CloseReason> {
        if !self.is_all_sent() {
            return Ok(Next::Park);
        }
        if !self.transport.is_tls() {
            return Err(CloseReason::Eof);
        }
        // Something may still arrive behind the end of TLS, and would reset the connection.
        Ok(if self.linger() { Next::Again } else { Next::Park })
    }

    /// Closes our side of the connection, and lets the peer finish what it is sending. Returns
    /// whether it did: within TLS, the peer may have to take something first.
    fn linger(&mut self) -> bool {
        let is_closed = self.transport.say_goodbye();
        if is_closed {
            self.begin_to_linger();
        }
        is_closed
    }

    fn begin_to_linger(&mut self) {
        self.transport.shut_down();
        (self.input, self.output) = (Vec::new(), Vec::new());
        self.ending = Ending::Lingering { until: Instant::now() + LINGER_TIMEOUT };
    }

    /// Within TLS, tells the peer that this is the end, if it takes that at once. To be called
    /// before a connection is closed from which nothing is missing.
    pub(super) fn say_goodbye(&mut self) {
        if self.transport.is_tls() && self.transport.is_ready() && self.is_all_sent() {
            self.transport.say_goodbye();
        }
    }

    /// Reads once and throws it away; returns the bytes read.
    fn discard_input(&mut self, until: Instant) -> Result<usize, CloseReason> {
        if Instant::now() >= until {
            return Err(CloseReason::Finished);
        }
        let discarded = self.transport.discard().map_err(CloseReason::Lost)?;
        self.input = Vec::new();
        discarded.ok_or(CloseReason::Eof)
    }

    /// Ends the conversation with `busy` if all connections together hold too much
    /// memory, and this one holds more than each may.
    fn enforce_buffer_limit<S: Store>(&mut self, context: &Context<S>) {
        let total = self.share_buffers();
        if self.buffer_share.is_used() && total > context.limits.buffer_bytes_max {
            self.conversation.refuse_as_busy(&mut self.output, &context.service);
            self.input = Vec::new();
        }
    }

    /// Charges what is half received, and returns what all connections hold together.
    fn share_buffers(&mut self) -> usize {
        let bytes = self.input.len() + self.conversation.held_bytes() + self.transport.held_bytes();
        self.buffer_share.set(bytes.saturating_sub(BUFFER_BYTES_FREE))
    }
}

/// Returns why a connection ends whose handshake failed with this error.
fn failed_handshake(error: &tls::Failure) -> CloseReason {
    CloseReason::HandshakeFailed(tls::session::result_of(error), Some(error.to_string()))
}
