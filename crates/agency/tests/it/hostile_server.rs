//! A client of a server that says nothing, goes away, or sends what no server should.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sorteo_agency::{AgencyError, Client, ClientOptions, counted};
use sorteo_protocol::{AgencyId, DrawId};

/// A server that does this with each connection, and counts them.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            serve(stream.unwrap());
        }
    });
    (address, connections)
}

/// A server that answers every framed request with the same line.
fn answering(line: &'static str) -> String {
    let (address, _) = server(move |mut stream| {
        let mut request = [0; 4096];
        while stream.read(&mut request).is_ok_and(|read| read > 0) {
            let length = u32::try_from(line.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&length, line.as_bytes()].concat());
        }
    });
    address
}

fn options(server: String) -> ClientOptions {
    ClientOptions::new(server, Duration::from_millis(500))
}

#[test]
fn a_server_that_is_older_than_the_client_is_told_as_such() {
    let error = Client::new(options(answering("ACK|ERR|unknown\n"))).status().unwrap_err().to_string();
    assert!(error.starts_with("the server refused STATUS: unknown ("), "{error}");
    assert!(error.contains("older than this client: upgrade the server"), "{error}");
}

fn winners(line: &'static str) -> Result<Option<Vec<String>>, AgencyError> {
    Client::new(options(answering(line))).winners(AgencyId(1), Some(DrawId(1)))
}

#[test]
fn a_server_that_says_nothing_is_given_up_and_the_error_says_so() {
    let kept = std::sync::Mutex::new(Vec::new());
    let (address, _) = server(move |stream| kept.lock().unwrap().push(stream));
    let error = Client::new(options(address)).status().unwrap_err().to_string();
    assert!(error.contains("no reply within"), "{error}");
    assert!(!error.contains("os error"), "{error}");
}

#[test]
fn a_server_that_accepts_and_closes_is_asked_with_pauses_and_given_up() {
    // The only batch is acknowledged; then every question for the winners is cut off.
    let (address, connections) = server(|mut stream| {
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap_or(0);
        if !String::from_utf8_lossy(&request[..read]).contains("GET_WINNERS") {
            let _ = stream.write_all(b"3\nACK");
            let _ = stream.read(&mut request);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bets.csv");
    std::fs::write(&file, "Ana,Paz,1,2000-01-01,1\n").unwrap();
    let error = counted::upload(&options(address), AgencyId(1), &file, 99).unwrap_err();
    assert!(matches!(error, AgencyError::Unreachable { .. }), "{error}");
    let connections = connections.load(Ordering::SeqCst);
    assert!((2..20).contains(&connections), "{connections} connections");
}

#[test]
fn what_could_mislead_a_terminal_or_a_file_of_winners_is_refused() {
    for line in ["WINNERS|OK|1,\u{1b}[2J|", "WINNERS|OK|1,,2|", "WINNERS|OK|1\n2|", "WINNERS|ERR|\u{1b}[2J"] {
        let error = winners(line).unwrap_err();
        assert!(matches!(error, AgencyError::Protocol { .. }), "{line:?}: {error}");
        assert!(!error.to_string().chars().any(char::is_control), "{line:?}");
    }
    assert_eq!(winners("WINNERS|OK|1,2|").unwrap(), Some(vec!["1".to_owned(), "2".to_owned()]));
}

#[test]
fn pages_that_lead_nowhere_end() {
    for line in ["WINNERS|OK|1|0", "WINNERS|OK|1|5", "WINNERS|OK||7"] {
        let error = winners(line).unwrap_err();
        assert!(error.to_string().contains("without end"), "{line}: {error}");
    }
}
