//! An upload with several batches in flight, of which the server takes, refuses or leaves
//! unanswered one.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sorteo_agency::rows::FileError;
use sorteo_agency::{AgencyError, ClientOptions, Event, Observer, Security, Upload};
use sorteo_protocol::wire::{Reason, Reply, Request};
use sorteo_protocol::{AgencyId, BetError};

use crate::server::{Act, Server, options};
use crate::uploads::{BATCH_BETS, ROWS, upload};

/// The batches that are in flight at first.
const FIRST_WINDOW: usize = 4;

/// A server that asks what to do with each batch, counted from 0 over all connections.
fn server(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Server {
    let batches = AtomicUsize::new(0);
    Server::plain(move |_, _, request| match request {
        Request::Batch(_) => act(batches.fetch_add(1, Ordering::SeqCst)),
        _ => Act::Serve,
    })
}

fn plain_options(server: &Server) -> ClientOptions {
    server.options(Security::default())
}

/// The refusal of a batch.
fn refuse(reason: Reason) -> Act {
    Act::Reply(Reply::Batch { count: BATCH_BETS as u64, result: Err(reason) })
}

#[test]
fn several_batches_are_in_flight_and_each_is_stored_once() {
    let (reached, waiting) = std::sync::mpsc::channel();
    let waiting = Mutex::new(waiting);
    // The first is answered once the others have come.
    let server = server(|_| Act::Serve);
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
    let (acknowledged, sent) = upload(options(&address, Security::default()));
    sent.unwrap();
    assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
    assert_eq!(server.seen().batches(), ROWS as usize / BATCH_BETS, "none is sent twice");
}

#[test]
fn a_refusal_in_mid_window_ends_the_upload_with_its_reason() {
    let row = Reason::Row { row: 2, error: BetError::Document };
    for reason in [row, Reason::AgencyDone, Reason::DrawClosed, Reason::UnknownAgency] {
        let refused = reason.clone();
        let server = server(move |batch| match batch {
            6 => refuse(refused.clone()),
            _ => Act::Serve,
        });
        let (acknowledged, sent) = upload(plain_options(&server));
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
    let server = server(|batch| if batch == 6 { Act::Miscount } else { Act::Serve });
    let (acknowledged, sent) = upload(plain_options(&server));
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("does not answer as a sorteo server does: `"), "{error}");
    assert!(error.to_string().contains("ACK_BATCH|OK|6"), "{error}");
    assert_eq!(acknowledged, 6 * BATCH_BETS as u64);
}

#[test]
fn after_what_may_pass_an_upload_resumes_behind_what_is_acknowledged() {
    for act in [
        refuse(Reason::Busy),
        refuse(Reason::StorageFull),
        refuse(Reason::Conflict),
        refuse(Reason::Gap { next_row: 0 }),
        refuse(Reason::TooMany),
        Act::ServeAndClose,
    ] {
        let acted = act.clone();
        let server = server(move |batch| if batch == 6 { acted.clone() } else { Act::Serve });
        let (acknowledged, sent) = upload(plain_options(&server));
        sent.unwrap();
        assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
        assert_eq!(server.seen().connections.len(), 2, "it resumes on one new connection");
    }
}

#[test]
fn a_conflict_without_progress_is_given_up() {
    let server = server(|batch| if batch < 3 { Act::Serve } else { refuse(Reason::Conflict) });
    let mut options = plain_options(&server);
    options.give_up_after = Duration::from_millis(500);
    let (acknowledged, sent) = upload(options);
    assert!(matches!(sent, Err(AgencyError::Refused { reason: Reason::Conflict, .. })), "{sent:?}");
    assert_eq!(acknowledged, 3 * BATCH_BETS as u64);
}

#[test]
fn a_server_that_falls_silent_with_batches_in_flight_is_given_up() {
    let server = server(|batch| match batch {
        3 => loop {
            thread::park();
        },
        _ => Act::Serve,
    });
    let mut options = plain_options(&server);
    options.give_up_after = Duration::from_millis(500);
    // Every later connection stores on: only this one is silent.
    let (acknowledged, sent) = upload(options.clone());
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("no reply within"), "{error}");
    assert_eq!(acknowledged, 3 * BATCH_BETS as u64, "what is in flight does not count");
    let (acknowledged, sent) = upload(options);
    sent.unwrap();
    assert_eq!((acknowledged, server.seen().stored), (ROWS, ROWS));
}

#[test]
fn progress_prolongs_the_time_until_an_upload_is_given_up() {
    // Together far longer than the time, and each far shorter.
    let server = server(|batch| {
        if batch < 6 {
            thread::sleep(Duration::from_millis(300));
        }
        Act::Serve
    });
    let mut options = plain_options(&server);
    options.give_up_after = Duration::from_secs(1);
    let (acknowledged, sent) = upload(options);
    sent.unwrap();
    assert_eq!(acknowledged, ROWS);
    assert_eq!(server.seen().connections.len(), 1, "nothing was given up");
}

#[test]
fn a_file_that_changes_while_batches_are_in_flight_sends_no_more() {
    let server = server(|_| Act::Serve);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bets.csv");
    std::fs::write(&file, "Ana,Paz,1,2000-01-01,1\n".repeat(40)).unwrap();
    let mut options = plain_options(&server);
    let changed = file.clone();
    options.observer = Observer::new(move |event| {
        if let Event::Stored { stored: 1, .. } = event {
            std::fs::write(&changed, "Eva,Paz,1,2000-01-01,1\n".repeat(41)).unwrap();
        }
    });
    let sent = Upload::start(options, AgencyId(1), &file).unwrap().send(&file, 1);
    assert!(matches!(sent, Err(AgencyError::File(FileError::Changed(_)))), "{sent:?}");
    assert!(server.seen().batches() <= FIRST_WINDOW, "{} batches", server.seen().batches());
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
        let options = options(&address, Security::default());
        let error = Upload::start(options, AgencyId(1), &file).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert!(server.join().unwrap().is_empty(), "more was sent");
    }
}
