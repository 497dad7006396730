//! The bounded queue of log lines, and the one thread that writes them: whoever logs never
//! waits for whatever reads the log.
//!
//! A line that does not fit is dropped and counted; the thread says how many there were
//! as soon as it can write again. Each [`Rank`] may fill the queue only so far, so that
//! the lines that matter most are the last to be dropped.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

/// Most bytes of lines that wait or are being written: some ten thousand lines.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the thread lets lines gather before it writes them: to be woken for each would
/// cost the threads that log more than their own work.
const GATHER: Duration = Duration::from_millis(2);

/// How long a line is kept while others are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// It is the first to be dropped.
    Ordinary,
    /// The contract's line of a batch or a bet: there may be any number of them.
    Bets,
    /// One of the few lines by which a draw and a process are understood afterwards.
    Vital,
}

impl Rank {
    /// Returns the rank of the lines of an action.
    pub(super) fn of(action: &str) -> Self {
        match action {
            "sorteo" | "config" | "recover" | "shutdown" | "panic" | "write_database" | "close_database"
            | "loop_finished" | "consulta_ganadores" => Self::Vital,
            "apuesta_recibida" | "apuesta_almacenada" | "apuesta_enviada" | "agencia_terminada" => Self::Bets,
            _ => Self::Ordinary,
        }
    }

    /// Returns the rank that was cast to this byte.
    pub(super) fn from_byte(byte: u8) -> Self {
        match byte {
            byte if byte == Self::Vital as u8 => Self::Vital,
            byte if byte == Self::Bets as u8 => Self::Bets,
            _ => Self::Ordinary,
        }
    }

    /// Returns how full the queue may be for a line of this rank, in bytes.
    const fn bytes_max(self) -> usize {
        match self {
            Self::Ordinary => QUEUE_BYTES_MAX / 2,
            Self::Bets => QUEUE_BYTES_MAX / 16 * 15,
            Self::Vital => QUEUE_BYTES_MAX,
        }
    }
}

/// The queue. See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The thread waits for lines.
    filled: Condvar,
    /// [`Queue::flush`] waits for the thread.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes that the thread took and has not written.
    in_flight: usize,
    /// Bytes that were ever taken into the queue, and those that left it.
    queued: u64,
    left: u64,
    /// Lines that were dropped and not told of.
    dropped: u64,
    /// Lines that were ever dropped.
    dropped_total: u64,
    /// Whether the last write failed: then there is no use in telling of dropped lines.
    is_failing: bool,
    is_thread_idle: bool,
    flushes: usize,
}

impl State {
    fn count_dropped(&mut self, lines: u64) {
        self.dropped += lines;
        self.dropped_total += lines;
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a line, or drops it if there is no room. Never waits for a write.
    pub(super) fn push(&self, rank: Rank, line: &[u8]) {
        let mut state = self.lock();
        if state.in_flight + state.waiting.len() + line.len() > rank.bytes_max() {
            state.count_dropped(1);
            return;
        }
        state.waiting.extend_from_slice(line);
        state.queued += line.len() as u64;
        if std::mem::take(&mut state.is_thread_idle) {
            self.filled.notify_one();
        }
    }

    /// Waits until all lines that are in the queue now are written, at most this long.
    pub(super) fn flush(&self, timeout: Duration) {
        let mut state = self.lock();
        let target = state.queued;
        state.flushes += 1;
        self.filled.notify_one();
        let waited = self.emptied.wait_timeout_while(state, timeout, |state| state.left < target);
        waited.unwrap_or_else(PoisonError::into_inner).0.flushes -= 1;
    }

    /// Returns how many lines were dropped since the start.
    pub(super) fn dropped_total(&self) -> u64 {
        self.lock().dropped_total
    }

    /// Writes lines for ever: the work of the thread. `tell` returns the line that tells of
    /// so many dropped ones.
    pub(super) fn write_to(&self, mut out: impl Write + AsFd, tell: impl Fn(u64) -> Vec<u8>) -> ! {
        let mut chunk = Vec::new();
        loop {
            let dropped = self.take(&mut chunk);
            let queued = chunk.len();
            if dropped > 0 {
                chunk.extend(tell(dropped));
            }
            let written = write_whole(&mut out, &chunk);
            let mut state = self.lock();
            state.in_flight = 0;
            state.left += queued as u64;
            state.is_failing = written.is_err();
            if let Err(rest) = written {
                // Those that are told of in the lost line are untold again.
                state.dropped += dropped;
                let lost = rest.iter().filter(|b| **b == b'\n').count() as u64;
                state.count_dropped(lost - u64::from(dropped > 0));
            }
            if state.flushes > 0 {
                self.emptied.notify_all();
            }
        }
    }

    /// Waits for lines and takes all that wait, in exchange for an empty buffer; returns
    /// how many were dropped.
    fn take(&self, chunk: &mut Vec<u8>) -> u64 {
        chunk.clear();
        let mut state = self.gather(self.lock());
        while state.waiting.is_empty() && (state.dropped == 0 || state.is_failing) {
            state.is_thread_idle = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_thread_idle = false;
            state = self.gather(state);
        }
        std::mem::swap(&mut state.waiting, chunk);
        state.in_flight = chunk.len();
        std::mem::take(&mut state.dropped)
    }

    /// Lets lines gather, unless somebody waits for those that there are.
    fn gather<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let gathered = self.filled.wait_timeout_while(state, GATHER, |state| state.flushes == 0);
        gathered.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Writes all bytes; on an error returns those that were not written.
fn write_whole<'a>(out: &mut (impl Write + AsFd), mut bytes: &'a [u8]) -> Result<(), &'a [u8]> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(bytes),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another program may have made the file that we share non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for_room(out).map_err(|_| bytes)?;
            }
            Err(_) => return Err(bytes),
        }
    }
    Ok(())
}

fn wait_for_room(out: &impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(out, PollFlags::OUT)], None) {
        Err(rustix::io::Errno::INTR) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn tell(dropped: u64) -> Vec<u8> {
        format!("dropped {dropped}\n").into_bytes()
    }

    /// A queue whose thread writes to the other end of a socket.
    fn written_to_a_socket() -> (Arc<Queue>, UnixStream) {
        let (queue, (ours, theirs)) = (Arc::<Queue>::default(), UnixStream::pair().unwrap());
        theirs.set_read_timeout(Some(LONG)).unwrap();
        let writing = Arc::clone(&queue);
        thread::spawn(move || writing.write_to(OwnedWriter(ours), tell));
        (queue, theirs)
    }

    struct OwnedWriter(UnixStream);

    impl Write for OwnedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for OwnedWriter {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    fn read_until(stream: &mut UnixStream, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let mut piece = [0; 4096];
            let bytes = stream.read(&mut piece).unwrap();
            assert!(bytes > 0, "{}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&piece[..bytes]);
        }
        String::from_utf8(read).unwrap()
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_dropped_is_told_once_there_is_room() {
        let (queue, mut reader) = written_to_a_socket();
        let line = |c: u8| [vec![c; 1023], b"\n".to_vec()].concat();
        // Far more than the queue and the socket take.
        for _ in 0..4_096 {
            queue.push(Rank::Ordinary, &line(b'o'));
        }
        let ordinary_dropped = queue.dropped_total();
        assert!((1..4_096).contains(&ordinary_dropped), "{ordinary_dropped}");
        // The ranks above still find room, until they have filled theirs.
        queue.push(Rank::Bets, &line(b'b'));
        assert_eq!(queue.dropped_total(), ordinary_dropped, "a bet's line was dropped first");
        for _ in 0..4_096 {
            queue.push(Rank::Bets, &line(b'b'));
        }
        let dropped = queue.dropped_total();
        assert!(dropped > ordinary_dropped);
        queue.push(Rank::Vital, b"sorteo\n");
        assert_eq!(queue.dropped_total(), dropped, "the draw's line was dropped");
        queue.flush(Duration::from_millis(1));
        let told = |read: &str| -> u64 {
            let counts = read.lines().filter_map(|line| line.strip_prefix("dropped "));
            counts.map(|count| count.parse::<u64>().unwrap()).sum()
        };
        let mut read = String::new();
        while told(&read) < dropped {
            read += &read_until(&mut reader, "\n");
        }
        let count = |c: char| read.lines().filter(|line| line.starts_with(c)).count() as u64;
        assert_eq!(count('o') + count('b') + dropped, 8_193);
        assert_eq!((count('s'), told(&read)), (1, dropped));
        queue.push(Rank::Ordinary, b"again\n");
        assert_eq!(read_until(&mut reader, "again\n"), "again\n");
        assert_eq!(queue.dropped_total(), dropped);
    }

    #[test]
    fn a_flush_returns_once_all_is_written() {
        let (queue, mut reader) = written_to_a_socket();
        reader.set_nonblocking(true).unwrap();
        for round in 0..100 {
            queue.push(Rank::Ordinary, b"line\n");
            queue.flush(LONG);
            let mut read = [0; 64];
            assert_eq!(reader.read(&mut read).ok(), Some(5), "round {round}");
        }
    }

    /// A file that fails, then works.
    struct Failing(UnixStream, mpsc::Receiver<()>, bool);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.2 {
                return self.0.write(bytes);
            }
            self.1.recv().unwrap();
            self.2 = true;
            Err(ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Failing {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    #[test]
    fn lines_that_a_full_disk_lost_are_told_of_with_the_next() {
        let (queue, (ours, mut theirs)) = (Arc::<Queue>::default(), UnixStream::pair().unwrap());
        theirs.set_read_timeout(Some(LONG)).unwrap();
        let (fail, failing) = mpsc::channel();
        queue.push(Rank::Vital, b"one\n");
        queue.push(Rank::Vital, b"two\n");
        let writing = Arc::clone(&queue);
        thread::spawn(move || writing.write_to(Failing(ours, failing, false), tell));
        fail.send(()).unwrap();
        queue.flush(LONG);
        assert_eq!(queue.dropped_total(), 2);
        queue.push(Rank::Ordinary, b"three\n");
        assert_eq!(read_until(&mut theirs, "dropped 2\n"), "three\ndropped 2\n");
    }
}
