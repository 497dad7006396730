//! An upload with several batches in flight, of which the server takes, refuses or leaves
//! unanswered one.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sorteo_agency::rows::FileError;
use sorteo_agency::{AgencyError, ClientOptions, Event, Observer, Upload};
use sorteo_protocol::wire::{
    Decoder, Dialect, Hello, Incoming, Reason, Reply, Request, Status, WireLimits, encode_reply,
};
use sorteo_protocol::{AgencyId, Batch, BetError, DrawId};

const BATCH_BETS: usize = 5;
const ROWS: u64 = 100;
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);
/// The batches that are in flight at first.
const FIRST_WINDOW: usize = 4;

/// What the server does with a batch.
#[derive(Clone)]
enum Act {
    /// Stores it, if it is the next one.
    Store,
    Refuse(Reason),
    /// Stores it, if it is the next one, and closes the connection without a reply.
    StoreAndClose,
    /// Stores it, and acknowledges another number of bets.
    Miscount,
    /// Never replies to it, nor to anything behind it.
    Silence,
}

/// Of all connections together.
#[derive(Default)]
struct Seen {
    connections: usize,
    batches: usize,
    stored: u64,
}

/// A server that stores an upload, and asks what to do with each batch, counted from 0.
struct Server {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (shared, act) = (Arc::clone(&seen), Arc::new(act));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, act) = (Arc::clone(&shared), Arc::clone(&act));
                shared.lock().unwrap().connections += 1;
                thread::spawn(move || serve(stream.unwrap(), &shared, &*act));
            }
        });
        Self { address, seen }
    }

    fn options(&self) -> ClientOptions {
        ClientOptions::new(self.address.as_str(), GIVE_UP_AFTER)
    }

    /// Uploads a file of [`ROWS`] bets; returns the rows acknowledged, and the outcome.
    fn upload(&self, mut options: ClientOptions) -> (u64, Result<(), AgencyError>) {
        let (folder, acknowledged) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(0)));
        let file = folder.path().join("bets.csv");
        let rows: String = (0..ROWS).map(|row| format!("Ana,Paz,{row},2000-01-01,1\n")).collect();
        std::fs::write(&file, rows).unwrap();
        let shared = Arc::clone(&acknowledged);
        options.observer = Observer::new(move |event| {
            if let Event::Resumed { stored, .. } | Event::Stored { stored, .. } = event {
                *shared.lock().unwrap() = *stored;
            }
        });
        let sent = Upload::start(options, AgencyId(1), &file).and_then(|mut upload| {
            upload.send(&file, BATCH_BETS)?;
            upload.done()
        });
        (*acknowledged.lock().unwrap(), sent)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// One connection, to its end.
fn serve(mut stream: TcpStream, seen: &Mutex<Seen>, act: &(dyn Fn(usize) -> Act + Send + Sync)) {
    let (mut decoder, mut input) = (Decoder::new(WireLimits::default()), Vec::new());
    loop {
        let mut rest = &input[..];
        let decoded = decoder.decode(&mut rest);
        let used = input.len() - rest.len();
        input.drain(..used);
        let Some(incoming) = decoded else {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(read) => input.extend_from_slice(&bytes[..read]),
            }
            continue;
        };
        let Incoming::Request(request) = incoming else { panic!("{incoming:?}") };
        let Some(reply) = reply(request, seen, act) else { return };
        let mut bytes = Vec::new();
        encode_reply(Dialect::Framed, &reply, &mut bytes);
        let _ = stream.write_all(&bytes);
    }
}

/// Returns the reply to a request; `None` closes the connection.
fn reply(request: Request, seen: &Mutex<Seen>, act: &dyn Fn(usize) -> Act) -> Option<Reply> {
    Some(match request {
        Request::Hello => Reply::Hello(Ok(Hello::of_this_version())),
        Request::Status => {
            Reply::Status(Ok(Status { draw: DrawId(1), drawn: false, done: 0, expected: 1, bets: 0 }))
        }
        Request::Resume { draw: Some(DrawId(1)), .. } => Reply::Resume(Ok(seen.lock().unwrap().stored)),
        Request::Done { bets, draw: Some(DrawId(1)), .. } => {
            assert_eq!(bets, Some(seen.lock().unwrap().stored), "done before all is stored");
            Reply::Done(Ok(()))
        }
        Request::Batch(batch) => {
            let count = batch.bets.len() as u64;
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.batches += 1;
                seen.batches - 1
            };
            let result = match act(number) {
                Act::Store => store(&batch, seen),
                Act::Refuse(reason) => Err(reason),
                Act::StoreAndClose => {
                    store(&batch, seen).unwrap();
                    return None;
                }
                Act::Miscount => {
                    store(&batch, seen).unwrap();
                    return Some(Reply::Batch { count: count + 1, result: Ok(()) });
                }
                Act::Silence => loop {
                    thread::park();
                },
            };
            Reply::Batch { count, result }
        }
        other => panic!("{other:?}"),
    })
}

fn store(batch: &Batch, seen: &Mutex<Seen>) -> Result<(), Reason> {
    let mut seen = seen.lock().unwrap();
    let position = batch.position.as_ref().unwrap();
    assert_eq!(position.draw, Some(DrawId(1)), "a batch names its draw");
    if position.first_row > seen.stored {
        return Err(Reason::Gap { next_row: seen.stored });
    }
    // One that was in flight on a connection that has ended may be stored already.
    seen.stored = seen.stored.max(position.first_row + batch.bets.len() as u64);
    Ok(())
}

#[test]
fn several_batches_are_in_flight_and_each_is_stored_once() {
    let (reached, waiting) = std::sync::mpsc::channel();
    let waiting = Mutex::new(waiting);
    // The first is answered once the others have come.
    let server = Server::start(|_| Act::Store);
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = relay.local_addr().unwrap().to_string();
    let behind = server.address.clone();
    thread::spawn(move || {
        let (mut client, _) = relay.accept().unwrap();
        let mut server = TcpStream::connect(behind).unwrap();
        let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut is_held = true;
            while let Ok(read @ 1..) = from_server.read(&mut bytes) {
                if is_held && bytes[..read].windows(9).any(|text| text == b"ACK_BATCH") {
                    waiting.lock().unwrap().recv().unwrap();
                    is_held = false;
                }
                to_client.write_all(&bytes[..read]).unwrap();
            }
        });
        let (mut bytes, mut all) = ([0; 4096], Vec::new());
        while let Ok(read @ 1..) = client.read(&mut bytes) {
            server.write_all(&bytes[..read]).unwrap();
            all.extend_from_slice(&bytes[..read]);
            if all.windows(6).filter(|text| text == b"BATCH|").count() == FIRST_WINDOW {
                let _ = reached.send(());
            }
        }
    });
    let (acknowledged, sent) = server.upload(ClientOptions::new(address, GIVE_UP_AFTER));
    sent.unwrap();
    assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
    assert_eq!(server.seen().batches, ROWS as usize / BATCH_BETS, "none is sent twice");
}

#[test]
fn a_refusal_in_mid_window_ends_the_upload_with_its_reason() {
    let row = Reason::Row { row: 2, error: BetError::Document };
    for reason in [row, Reason::AgencyDone, Reason::DrawClosed, Reason::UnknownAgency] {
        let refused = reason.clone();
        let server = Server::start(move |batch| match batch {
            6 => Act::Refuse(refused.clone()),
            _ => Act::Store,
        });
        let (acknowledged, sent) = server.upload(server.options());
        let error = sent.unwrap_err();
        assert!(
            matches!(&error, AgencyError::Refused { what: "BATCH", reason: told } if *told == reason),
            "{error}"
        );
        assert_eq!(acknowledged, 6 * BATCH_BETS as u64, "{reason}: those before it");
        assert_eq!(server.seen().stored, acknowledged, "{reason}: none behind it");
    }
}

#[test]
fn an_acknowledgement_of_another_number_of_bets_is_none() {
    let server = Server::start(|batch| if batch == 6 { Act::Miscount } else { Act::Store });
    let (acknowledged, sent) = server.upload(server.options());
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("does not answer as a sorteo server does: `"), "{error}");
    assert!(error.to_string().contains("ACK_BATCH|OK|6"), "{error}");
    assert_eq!(acknowledged, 6 * BATCH_BETS as u64);
}

#[test]
fn after_what_may_pass_an_upload_resumes_behind_what_is_acknowledged() {
    for act in [
        Act::Refuse(Reason::Busy),
        Act::Refuse(Reason::StorageFull),
        Act::Refuse(Reason::Conflict),
        Act::Refuse(Reason::Gap { next_row: 0 }),
        Act::Refuse(Reason::TooMany),
        Act::StoreAndClose,
    ] {
        let acted = act.clone();
        let server = Server::start(move |batch| if batch == 6 { acted.clone() } else { Act::Store });
        let (acknowledged, sent) = server.upload(server.options());
        sent.unwrap();
        assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
        assert_eq!(server.seen().connections, 2, "it resumes on one new connection");
    }
}

#[test]
fn a_conflict_without_progress_is_given_up() {
    let server = Server::start(|batch| if batch < 3 { Act::Store } else { Act::Refuse(Reason::Conflict) });
    let mut options = server.options();
    options.give_up_after = Duration::from_millis(500);
    let (acknowledged, sent) = server.upload(options);
    assert!(matches!(sent, Err(AgencyError::Refused { reason: Reason::Conflict, .. })), "{sent:?}");
    assert_eq!(acknowledged, 3 * BATCH_BETS as u64);
}

#[test]
fn a_server_that_falls_silent_with_batches_in_flight_is_given_up() {
    let server = Server::start(|batch| if batch == 3 { Act::Silence } else { Act::Store });
    let mut options = server.options();
    options.give_up_after = Duration::from_millis(500);
    // Every later connection stores on: only this one is silent.
    let (acknowledged, sent) = server.upload(options.clone());
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("no reply within"), "{error}");
    assert_eq!(acknowledged, 3 * BATCH_BETS as u64, "what is in flight does not count");
    let (acknowledged, sent) = server.upload(options);
    sent.unwrap();
    assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
}

#[test]
fn progress_prolongs_the_time_until_an_upload_is_given_up() {
    // Together far longer than the time, and each far shorter.
    let server = Server::start(|batch| {
        if batch < 6 {
            thread::sleep(Duration::from_millis(300));
        }
        Act::Store
    });
    let mut options = server.options();
    options.give_up_after = Duration::from_secs(1);
    let (acknowledged, sent) = server.upload(options);
    sent.unwrap();
    assert_eq!(acknowledged, ROWS);
    assert_eq!(server.seen().connections, 1, "nothing was given up");
}

#[test]
fn a_file_that_changes_while_batches_are_in_flight_sends_no_more() {
    let server = Server::start(|_| Act::Store);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bets.csv");
    std::fs::write(&file, "Ana,Paz,1,2000-01-01,1\n".repeat(40)).unwrap();
    let mut options = server.options();
    let changed = file.clone();
    options.observer = Observer::new(move |event| {
        if let Event::Stored { stored: 1, .. } = event {
            std::fs::write(&changed, "Eva,Paz,1,2000-01-01,1\n".repeat(41)).unwrap();
        }
    });
    let sent = Upload::start(options, AgencyId(1), &file).unwrap().send(&file, 1);
    assert!(matches!(sent, Err(AgencyError::File(FileError::Changed(_)))), "{sent:?}");
    assert!(server.seen().batches <= FIRST_WINDOW, "{} batches", server.seen().batches);
}

#[test]
fn a_server_of_another_version_is_told_to_be_one() {
    let upgrade = "older than this client: upgrade the server";
    for (hello, told) in [
        ("ACK|ERR|unknown\n", upgrade),
        ("HELLO|OK|1|uploads,pages\n", upgrade),
        ("HELLO|OK|2|draws,uploads\n", "newer than this client: use a client of its version"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; b"....HELLO....STATUS".len()];
            stream.read_exact(&mut asked).unwrap();
            for line in [hello, "STATUS|OK|1|open|0|1|0\n"] {
                let length = u32::try_from(line.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length, line.as_bytes()].concat()).unwrap();
            }
            let mut more = Vec::new();
            stream.read_to_end(&mut more).unwrap();
            more
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bets.csv");
        std::fs::write(&file, "Ana,Paz,1,2000-01-01,1\n").unwrap();
        let options = ClientOptions::new(address, GIVE_UP_AFTER);
        let error = Upload::start(options, AgencyId(1), &file).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert!(server.join().unwrap().is_empty(), "more was sent");
    }
}
