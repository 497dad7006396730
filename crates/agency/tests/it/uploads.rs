//! Uploads through what breaks.

use std::sync::{Arc, Mutex};

use sorteo_agency::{AgencyError, ClientOptions, Event, Observer, Upload};
use sorteo_protocol::AgencyId;
use sorteo_protocol::wire::{Reason, Reply, Request};

use crate::authority::{Authority, token, with_token, write};
use crate::relay::{self, Way};
use crate::server::{Act, Server, options};

pub const ROWS: u64 = 200;
pub const BATCH_BETS: usize = 5;
/// The bytes of a handshake and a whole upload, about.
const UPLOAD_BYTES: u64 = 14_000;
/// Connections of an upload that are cut.
const CUTS: usize = 5;

/// Uploads a file of [`ROWS`] bets; returns the rows acknowledged, and the outcome.
pub fn upload(options: ClientOptions) -> (u64, Result<(), AgencyError>) {
    upload_and_tell(options, |_| {})
}

/// The same; this is told of all that happens too.
pub fn upload_and_tell(
    mut options: ClientOptions,
    also: impl Fn(&Event<'_>) + Send + Sync + 'static,
) -> (u64, Result<(), AgencyError>) {
    let (folder, acknowledged) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(0)));
    let file = folder.path().join("bets.csv");
    let rows: String = (0..ROWS).map(|row| format!("Ana,Paz,{row},2000-01-01,1\n")).collect();
    std::fs::write(&file, rows).unwrap();
    let shared = Arc::clone(&acknowledged);
    options.observer = Observer::new(move |event| {
        also(event);
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

/// The next of a row of numbers that look random.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn an_upload_over_tls_that_is_cut_at_random_bytes_resumes() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let uploads: Vec<_> =
        (0..6).map(|number| std::thread::spawn(move || cut_upload(seed + number))).collect();
    let cuts: usize = uploads.into_iter().map(|upload| upload.join().unwrap()).sum();
    assert!(cuts > 0, "nothing was cut");
}

/// Uploads through a relay that cuts the first connections, and returns how many it cut.
fn cut_upload(seed: u64) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Server::tls(authority.server(), |_, _, _| Act::Serve);
    let relay = relay::start(server.address.clone(), move |at| {
        let mut state = seed.wrapping_mul(1_000_003).wrapping_add(at as u64);
        let bytes = if at < CUTS { (random(&mut state) % UPLOAD_BYTES) as i64 } else { i64::MAX };
        Way { bytes, at_once: 4096 }
    });
    let mut security = authority.security(folder.path());
    security.token = with_token(folder.path(), &token(1)).token;
    let (acknowledged, sent) = upload(options(&relay, security));
    sent.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let seen = server.seen();
    assert_eq!((acknowledged, seen.stored), (ROWS, ROWS), "seed {seed}");
    for requests in seen.connections.iter().filter(|requests| !requests.is_empty()) {
        assert!(matches!(requests[0], Request::Auth(Some(_))), "seed {seed}: {:?}", requests[0]);
    }
    seen.connections.len() - 1
}

/// A server that accepts only this token, and closes the first connection at its sixth batch
/// as if the token was revoked. Then this happens.
fn revoking(accepted: u8, then: impl Fn() + Send + Sync + 'static) -> Server {
    Server::plain(move |connection, number, request| match request {
        Request::Auth(Some(claim)) if connection > 0 && claim.token != token(accepted) => {
            Act::ReplyAndClose(Reply::Auth(Err(Reason::Unauthorized)))
        }
        Request::Batch(_) if connection == 0 && number > 8 => {
            then();
            Act::Close
        }
        _ => Act::Serve,
    })
}

#[test]
fn after_its_token_was_revoked_an_upload_resumes_with_the_one_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let security = with_token(folder.path(), &token(1));
    let home = folder.path().to_owned();
    let server = revoking(2, move || _ = write(&home, "agency.token", token(2).reveal()));
    let (acknowledged, sent) = upload(server.options(security));
    sent.unwrap();
    let seen = server.seen();
    assert_eq!((acknowledged, seen.stored, seen.connections.len()), (ROWS, ROWS, 2));
}

#[test]
fn after_its_only_token_was_revoked_an_upload_ends() {
    let folder = tempfile::tempdir().unwrap();
    let security = with_token(folder.path(), &token(1));
    let server = revoking(2, || {});
    let (acknowledged, sent) = upload(server.options(security));
    let error = sent.unwrap_err();
    assert!(matches!(error, AgencyError::Refused { what: "AUTH", reason: Reason::Unauthorized }), "{error}");
    assert!(acknowledged < ROWS);
    assert_eq!(server.seen().connections.len(), 2, "nothing is tried again");
}
