//! All policy: what a request means, who is answered what, and which log line
//! tells of it. Knows requests, replies and the store; no socket, no byte.
//!
//! A request is begun with [`Service::begin`]. What needs a commit comes back as
//! [`Begun::Committing`], so that a connection's next requests can join the same
//! commit; [`Service::finish`] waits for it. The server calls both.

use std::sync::Arc;
use std::time::Duration;

use crate::event;
use crate::metrics::{BatchResult, Metrics};
use crate::store::{
    AppendRefusal, Appended, CloseRefusal, Closed, Closing, DrawStatus, Store, StoreError, Ticket, WinningBet,
};
use sorteo_protocol::wire::counted::winner_line;
use sorteo_protocol::wire::framed::PAGE_BYTES_MAX;
use sorteo_protocol::wire::{Reason, Reply, Request, Status, Winners};
use sorteo_protocol::{AgencyId, Batch, DrawId};

/// Winning bets read at a time. A page of the wire holds at least 247 documents, and
/// at most so many; what does not fit is read again with the next page.
const WINNERS_READ: usize = 1_000;

/// Winning bets read at a time for an answer that must fit one frame: whether
/// it does not is known after at most 247 of them.
const ALL_WINNERS_READ: usize = 256;

/// Winning bets that one piece of a long answer holds: at most 32 KiB or so.
const WINNERS_PIECE: usize = 128;

/// The lottery's rules on top of a store.
#[derive(Debug)]
pub struct Service<S> {
    store: S,
    metrics: Arc<Metrics>,
}

/// What a request has come to so far.
#[derive(Debug)]
pub enum Begun {
    /// It is answered.
    Done(Outcome),
    /// It waits for the store's commit: pass it to [`Service::finish`].
    Committing(Commit),
}

/// How a request ends.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Reply(Reply),
    /// Send this, then the rest of the winners as the peer takes them.
    LongReply(Reply, MoreWinners),
    /// The draw is not made: ask again when it is, or after this long.
    Wait(AwaitedWinners, Duration),
    /// Nobody knows what became of it: close without an answer.
    Unknown,
}

/// A request that waits for a commit.
#[derive(Debug)]
pub struct Commit(Committing);

#[derive(Debug)]
enum Committing {
    Bet { document: String, number: u32, ticket: Ticket<Appended> },
    Batch { count: u64, ticket: Ticket<Appended> },
    Done { agency: AgencyId, ticket: Ticket<Closed> },
    DoneThenWinners { agency: AgencyId, ticket: Ticket<Closed> },
}

/// The winners that a peer waits for: of the draw that was open when it asked, also
/// when the next one is opened before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedWinners {
    agency: AgencyId,
    draw: DrawId,
}

/// Where a long answer goes on.
#[derive(Debug)]
pub struct MoreWinners {
    draw: DrawId,
    agency: AgencyId,
    after: u64,
}

impl<S: Store> Service<S> {
    /// A service on this store, which counts into these metrics.
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The store, given back for closing.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Begins a request. Writes are only submitted: see [`Service::finish`].
    pub fn begin(&self, request: Request) -> Begun {
        match request {
            Request::Bet(batch) => self.begin_bet(batch),
            Request::Batch(batch) => self.begin_batches(vec![batch]),
            Request::Payload(batches) => self.begin_batches(batches),
            Request::Done { agency, bets } => match self.store.close_agency(agency, bets) {
                Ok(ticket) => Begun::committing(Committing::Done { agency, ticket }),
                Err(error) => Begun::Done(done_outcome(agency, Err(error))),
            },
            Request::DoneAndWinners { agency } => self.begin_done_and_winners(agency),
            Request::Winners { agency } => Begun::winners(self.all_winners(agency)),
            Request::WinnersPage { agency, after, draw } => {
                Begun::winners(self.winners_page(agency, after, draw))
            }
            Request::WaitWinners { agency, wait } => Begun::Done(self.wait_winners(agency, wait)),
            Request::Resume { agency, upload } => {
                let next_row = self.store.next_row(agency, &upload);
                Begun::Done(Outcome::Reply(Reply::Resume(next_row.map_err(reason))))
            }
            Request::Status => {
                let status = self.store.newest_draw().map(status).map_err(reason);
                Begun::Done(Outcome::Reply(Reply::Status(status)))
            }
        }
    }

    /// Waits for the commit, logs what became of it, and answers.
    pub fn finish(&self, Commit(commit): Commit) -> Outcome {
        match commit {
            Committing::Bet { document, number, ticket } => {
                self.counted(bet_outcome(&document, number, ticket.wait()))
            }
            Committing::Batch { count, ticket } => self.counted(batch_outcome(count, ticket.wait())),
            Committing::Done { agency, ticket } => done_outcome(agency, ticket.wait()),
            Committing::DoneThenWinners { agency, ticket } => match ticket.wait() {
                Ok(Ok(closing)) => {
                    log_closed(agency, closing);
                    self.winner_lines(agency)
                }
                // Without a count nothing can mismatch.
                Ok(Err(CloseRefusal::CountMismatch { .. })) => Outcome::Unknown,
                Err(error) => failed(error, |reason| Reply::Winners(Err(reason))),
            },
        }
    }

    /// The next piece of a long answer, and where it goes on after that.
    ///
    /// Winners never change once the draw is made, so the pieces add up to the
    /// length that was announced.
    pub fn more_winners(&self, more: &MoreWinners) -> Result<(String, Option<MoreWinners>), StoreError> {
        let bets = self.store.winners(more.draw, more.agency, more.after, WINNERS_PIECE + 1)?;
        Ok(lines_piece(bets, more.draw, more.agency, more.after > 0))
    }

    /// Asks again for the winners that a peer waits for. `None`: still not drawn.
    pub fn winners_if_drawn(&self, awaited: AwaitedWinners) -> Option<Reply> {
        match self.winners_page(awaited.agency, 0, Some(awaited.draw)) {
            Err(Reason::NotReady) => None,
            result => Some(Reply::Winners(result)),
        }
    }

    /// Counts a batch of which nobody knows what became; the others when they are answered.
    fn counted(&self, outcome: Outcome) -> Outcome {
        if let Outcome::Unknown = outcome {
            self.metrics.count_batch(BatchResult::unknown);
        }
        outcome
    }

    /// Counts an answer that leaves. That a draw is not made yet refuses nothing.
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

    fn begin_bet(&self, batch: Batch) -> Begun {
        let bet = batch.bets.iter().next().expect("a BET holds one bet");
        let (document, number) = (bet.document.to_owned(), bet.number);
        match self.store.append(vec![batch]) {
            Ok(ticket) => Begun::committing(Committing::Bet { document, number, ticket }),
            Err(error) => Begun::Done(bet_outcome(&document, number, Err(error))),
        }
    }

    fn begin_batches(&self, batches: Vec<Batch>) -> Begun {
        let count = batches.iter().map(|batch| batch.bets.len() as u64).sum();
        match self.store.append(batches) {
            Ok(ticket) => Begun::committing(Committing::Batch { count, ticket }),
            Err(error) => Begun::Done(batch_outcome(count, Err(error))),
        }
    }

    /// After the draw there is nothing to close, and agencies of this dialect ask
    /// again and again: they do not take the writer's time.
    fn begin_done_and_winners(&self, agency: AgencyId) -> Begun {
        match self.made_draw_meant_by(agency) {
            Ok(Some(status)) => {
                return Begun::Done(lines_outcome(self.try_winner_lines(&status, agency)));
            }
            Ok(None) => {}
            Err(error) => return Begun::Done(failed(error, |reason| Reply::Winners(Err(reason)))),
        }
        match self.store.close_agency(agency, None) {
            Ok(ticket) => Begun::committing(Committing::DoneThenWinners { agency, ticket }),
            Err(error) => Begun::Done(failed(error, |reason| Reply::Winners(Err(reason)))),
        }
    }

    /// The draw that the counted dialect's question means, if it is made. An agency
    /// that still asks for its winners when the next draw is opened must not be
    /// taken for done in that one.
    fn made_draw_meant_by(&self, agency: AgencyId) -> Result<Option<DrawStatus>, StoreError> {
        let newest = self.store.newest_draw()?;
        if newest.drawn {
            return Ok(Some(newest));
        }
        self.store.draw_before(agency)
    }

    /// The draw that winners are asked of: this one, or the newest.
    fn drawn(&self, draw: Option<DrawId>) -> Result<DrawId, Reason> {
        let status = match draw {
            None => self.store.newest_draw().map_err(reason)?,
            Some(draw) => self.store.draw(draw).map_err(reason)?.ok_or(Reason::BadDraw)?,
        };
        if status.drawn { Ok(status.draw) } else { Err(Reason::NotReady) }
    }

    /// All documents, where they fit one frame; reading stops where they do not.
    fn all_winners(&self, agency: AgencyId) -> Result<Winners, Reason> {
        let draw = self.drawn(None)?;
        let (mut documents, mut bytes, mut after) = (Vec::new(), 0, 0);
        loop {
            let bets = self.store.winners(draw, agency, after, ALL_WINNERS_READ).map_err(reason)?;
            let last = bets.len() < ALL_WINNERS_READ;
            for bet in bets {
                bytes += bet.document.len() + 1;
                after = bet.id;
                documents.push(bet.document);
            }
            if bytes > sorteo_protocol::wire::FRAME_BYTES_MAX {
                return Err(Reason::UsePages);
            }
            if last {
                return Ok(Winners::All(documents));
            }
        }
    }

    fn winners_page(&self, agency: AgencyId, after: u64, draw: Option<DrawId>) -> Result<Winners, Reason> {
        let draw = self.drawn(draw)?;
        let bets = self.store.winners(draw, agency, after, WINNERS_READ).map_err(reason)?;
        let mut whole = bets.len() < WINNERS_READ;
        let (mut documents, mut bytes, mut last) = (Vec::new(), 0, after);
        for bet in bets {
            bytes += bet.document.len() + 1;
            if bytes > PAGE_BYTES_MAX {
                whole = false;
                break;
            }
            last = bet.id;
            documents.push(bet.document);
        }
        let next = (!whole).then_some(last);
        Ok(Winners::Page { documents, next })
    }

    fn wait_winners(&self, agency: AgencyId, wait: Duration) -> Outcome {
        let draw = match self.store.newest_draw() {
            Ok(status) => status.draw,
            Err(error) => return Outcome::Reply(Reply::Winners(Err(reason(error)))),
        };
        match self.winners_page(agency, 0, Some(draw)) {
            Err(Reason::NotReady) if !wait.is_zero() => Outcome::Wait(AwaitedWinners { agency, draw }, wait),
            result => Outcome::Reply(Reply::Winners(result)),
        }
    }

    /// The counted dialect's winners, of which a long answer is begun only.
    fn winner_lines(&self, agency: AgencyId) -> Outcome {
        let status = self.store.newest_draw().map_err(reason);
        lines_outcome(status.and_then(|status| self.try_winner_lines(&status, agency)))
    }

    fn try_winner_lines(
        &self,
        status: &DrawStatus,
        agency: AgencyId,
    ) -> Result<(Winners, Option<MoreWinners>), Reason> {
        if !status.drawn {
            return Err(Reason::NotReady);
        }
        let draw = status.draw;
        let bets = self.store.winners(draw, agency, 0, WINNERS_PIECE + 1).map_err(reason)?;
        let (head, more) = lines_piece(bets, draw, agency, false);
        let total_bytes = match more {
            None => head.len() as u64,
            Some(_) => self.lines_bytes(status, agency)?,
        };
        Ok((Winners::Lines { total_bytes, head }, more))
    }

    /// Bytes of all winning lines of an agency: what its fields take, and what
    /// is the same in every line.
    fn lines_bytes(&self, status: &DrawStatus, agency: AgencyId) -> Result<u64, Reason> {
        let size = self.store.winners_size(status.draw, agency).map_err(reason)?;
        // Every winning bet has the winning number, and the agency is the one that asks.
        let same = format!("||||{}|{agency}", status.winning_number).len() as u64;
        let line_ends = size.bets.saturating_sub(1);
        Ok(size.text_bytes + size.bets * same + line_ends)
    }
}

impl Begun {
    fn committing(commit: Committing) -> Self {
        Self::Committing(Commit(commit))
    }

    fn winners(result: Result<Winners, Reason>) -> Self {
        Self::Done(Outcome::Reply(Reply::Winners(result)))
    }
}

/// Logs that a message was refused before it reached the store.
pub fn log_refusal(reply: &Reply) {
    match reply {
        Reply::Batch { count, result: Err(reason) } => log_batch_failed(*count, reason),
        Reply::Bet(Err(reason))
        | Reply::Done(Err(reason))
        | Reply::Winners(Err(reason))
        | Reply::Resume(Err(reason))
        | Reply::Status(Err(reason)) => event!(Info, "mensaje_recibido", Fail, error = logged(reason)),
        _ => {}
    }
}

/// Logs that a peer went away, or was too slow, in the middle of a batch.
pub fn log_batch_cut_short(count: u64, why: &str) {
    event!(Info, "apuesta_recibida", Fail, cantidad = count, error = why);
}

fn log_batch_failed(count: u64, reason: &Reason) {
    event!(Info, "apuesta_recibida", Fail, cantidad = count, error = logged(reason));
}

/// A reason as the log shows it: there, a `|` would end the value.
fn logged(reason: &Reason) -> String {
    reason.to_string().replace('|', " ")
}

fn bet_outcome(document: &str, number: u32, result: Result<Appended, StoreError>) -> Outcome {
    match appended(result) {
        Ok(()) => {
            event!(Info, "apuesta_almacenada", Success, dni = document, numero = number);
            Outcome::Reply(Reply::Bet(Ok(())))
        }
        Err(None) => Outcome::Unknown,
        Err(Some(reason)) => {
            event!(
                Info,
                "apuesta_almacenada",
                Fail,
                dni = document,
                numero = number,
                error = logged(&reason)
            );
            Outcome::Reply(Reply::Bet(Err(reason)))
        }
    }
}

fn batch_outcome(count: u64, result: Result<Appended, StoreError>) -> Outcome {
    let result = match appended(result) {
        Ok(()) => {
            event!(Info, "apuesta_recibida", Success, cantidad = count);
            Ok(())
        }
        Err(None) => return Outcome::Unknown,
        Err(Some(reason)) => {
            log_batch_failed(count, &reason);
            Err(reason)
        }
    };
    Outcome::Reply(Reply::Batch { count, result })
}

fn done_outcome(agency: AgencyId, result: Result<Closed, StoreError>) -> Outcome {
    let refused = |reason: Reason| {
        event!(Info, "agencia_terminada", Fail, agencia = agency, error = logged(&reason));
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
        Err(error) => failed(error, refused),
    }
}

/// Once for each agency and draw: agencies of the counted dialect ask again and again.
fn log_closed(agency: AgencyId, closing: Closing) {
    if closing == Closing::Now {
        event!(Info, "agencia_terminada", Success, agencia = agency);
    }
}

/// The reason of a refusal; `None` where nobody knows.
fn appended(result: Result<Appended, StoreError>) -> Result<(), Option<Reason>> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(Some(match refusal {
            AppendRefusal::DrawClosed => Reason::DrawClosed,
            AppendRefusal::AgencyDone => Reason::AgencyDone,
            AppendRefusal::Gap { next_row } => Reason::Gap { next_row },
            AppendRefusal::Conflict => Reason::Conflict,
        })),
        Err(StoreError::Unknown) => Err(None),
        Err(error) => Err(Some(reason(error))),
    }
}

/// An answer to what the store did not carry out; none where nobody knows.
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

fn lines_outcome(lines: Result<(Winners, Option<MoreWinners>), Reason>) -> Outcome {
    match lines {
        Ok((winners, None)) => Outcome::Reply(Reply::Winners(Ok(winners))),
        Ok((winners, Some(more))) => Outcome::LongReply(Reply::Winners(Ok(winners)), more),
        Err(reason) => Outcome::Reply(Reply::Winners(Err(reason))),
    }
}

/// The lines of up to [`WINNERS_PIECE`] bets, and where to go on if there are
/// more. `continued`: lines came before, so one line end separates them.
fn lines_piece(
    mut bets: Vec<WinningBet>,
    draw: DrawId,
    agency: AgencyId,
    continued: bool,
) -> (String, Option<MoreWinners>) {
    let more = bets.len() > WINNERS_PIECE;
    bets.truncate(WINNERS_PIECE);
    let mut lines = String::new();
    for bet in &bets {
        if continued || !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&winner_line(agency, bet.as_bet()));
    }
    let last = bets.last().map(|bet| bet.id);
    let more = last.filter(|_| more).map(|after| MoreWinners { draw, agency, after });
    (lines, more)
}
