//! The writer's queue: bounded, and fair to those who submit.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::command::Command;
use crate::fair_queue::FairQueue;
use crate::store::{StoreError, Submitter};

/// Commands that wait for the writer. See the module.
#[derive(Debug)]
pub(super) struct CommandQueue {
    state: Mutex<State>,
    changed: Condvar,
    commands_max: usize,
}

#[derive(Debug, Default)]
struct State {
    commands: FairQueue<Command>,
    /// Whether nobody submits any more, or nobody takes any more.
    closed: bool,
    /// Whether the writer waits: to wake it costs a call of the system.
    is_awaited: bool,
}

impl CommandQueue {
    /// Creates an empty queue for so many commands.
    pub(super) fn new(commands_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), commands_max }
    }

    /// Adds a command.
    ///
    /// A submitter that has commands here already may have no more than there is room
    /// left: so one more submitter always finds room, unless there are as many of them as
    /// commands may wait.
    ///
    /// # Errors
    ///
    /// Fails with `Busy` if there is no room, and with `Unknown` if the queue is closed.
    pub(super) fn submit(&self, submitter: Submitter, command: Command) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Unknown);
        }
        let room = self.commands_max.saturating_sub(state.commands.len());
        let waiting = state.commands.waiting(submitter.0);
        if room == 0 || waiting > 0 && waiting >= room {
            return Err(StoreError::Busy);
        }
        state.commands.push(submitter.0, command.pages(), command);
        let is_awaited = mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for the next command, at most for this long: `Ok(None)` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the queue is closed and empty.
    pub(super) fn next(&self, wait: Duration) -> Result<Option<Command>, Closed> {
        let is_idle = |state: &mut State| {
            state.is_awaited = state.commands.is_empty() && !state.closed;
            state.is_awaited
        };
        let waited = self.changed.wait_timeout_while(self.lock(), wait, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.commands.pop() {
            None if state.closed => Err(Closed),
            command => Ok(command),
        }
    }

    /// Takes the next command if it writes at most so many pages.
    pub(super) fn next_within(&self, pages_max: u64) -> Option<Command> {
        let mut state = self.lock();
        state.commands.peek().filter(|command| command.pages() <= pages_max)?;
        state.commands.pop()
    }

    /// Takes no more commands. Those that wait can still be taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Takes no more commands, and drops those that wait: nobody will carry them out.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.commands = FairQueue::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue is closed, and all commands were taken.
pub(super) struct Closed;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Ticket;
    use crate::store::sqlite::append::DigestedBatch;
    use sorteo_protocol::{AgencyId, Batch, Bets};

    fn close() -> Command {
        Command::Close { agency: AgencyId(1), bets: None, draw: None, resolver: Ticket::new().0 }
    }

    fn append(batches: u32) -> Command {
        let mut bets = Bets::default();
        bets.push(["Ana", "Paz", "1", "1999-03-17", "1"]).unwrap();
        let batch = |agency| Batch { agency: AgencyId(agency), bets: bets.clone(), position: None };
        Command::Append((0..batches).map(batch).map(DigestedBatch::from).collect(), Ticket::new().0)
    }

    #[test]
    fn a_submitter_with_many_commands_leaves_room_for_another() {
        let queue = CommandQueue::new(10);
        let submit = |submitter| queue.submit(Submitter(submitter), close());
        let accepted = (0..10).filter(|_| submit(1).is_ok()).count();
        assert_eq!(accepted, 5);
        assert_eq!(submit(1), Err(StoreError::Busy));
        for other in 2..7 {
            assert_eq!(submit(other), Ok(()), "{other}");
        }
        assert_eq!(submit(7), Err(StoreError::Busy), "as many wait as may");
    }

    #[test]
    fn a_group_ends_before_a_command_that_would_be_too_much_for_it() {
        let queue = CommandQueue::new(10);
        queue.submit(Submitter(1), append(500)).unwrap();
        queue.submit(Submitter(2), append(1)).unwrap();
        queue.submit(Submitter(3), close()).unwrap();
        let first = queue.next(Duration::ZERO).ok().flatten().unwrap();
        assert_eq!(first.pages(), 4, "the cheap ones come first");
        assert!(queue.next_within(100).is_some());
        assert!(queue.next_within(100).is_none(), "the next writes 2000 pages");
        queue.close();
        assert_eq!(queue.submit(Submitter(4), close()), Err(StoreError::Unknown));
        assert_eq!(
            queue.next(Duration::ZERO).ok().flatten().unwrap().pages(),
            2000,
            "what waits is carried out"
        );
        assert!(queue.next(Duration::ZERO).is_err());
    }
}
