//! Files of tokens, keys and certificates that are of no use: a clear line each, and no
//! connection.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sorteo_agency::{AgencyError, Client, ClientCertificate, Event, Security, SecurityError, Tls};

use crate::authority::{Authority, token, with_token, write};
use crate::server::{Act, GIVE_UP_AFTER, Server, options};
use crate::uploads::upload_and_tell;

/// The error of a client with these files. Nothing listens where it would connect.
fn error(security: Security) -> String {
    let started = Instant::now();
    let error = Client::new(options("127.0.0.1:1", security)).status().unwrap_err();
    assert!(started.elapsed() < GIVE_UP_AFTER / 2, "nothing is tried again");
    assert!(matches!(error, AgencyError::Security(SecurityError::File(_))), "{error}");
    let told = error.to_string();
    assert!(!told.contains('\n') && told.contains("/"), "one line, with the file: {told}");
    told
}

/// The error of a client whose token's file is changed like this.
fn token_error(change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let security = with_token(folder.path(), &token(1));
    let path = security.token.as_ref().unwrap().path.clone();
    change(&path);
    let told = error(security);
    for secret in [&token(1).reveal()[25..], "hunter2"] {
        assert!(!told.contains(secret), "{told}");
    }
    let (start, file) = ("the token file ", path.display().to_string());
    told.strip_prefix(start).unwrap().strip_prefix(&file).unwrap().trim_start().replace(&file, "FILE")
}

#[test]
fn a_token_file_of_no_use_is_told_what_is_wrong_with_it() {
    let holding = |text: &str| token_error(|path| fs::write(path, text).unwrap());
    assert_eq!(token_error(|path| fs::remove_file(path).unwrap()), "does not exist");
    let folder = |path: &Path| fs::remove_file(path).and_then(|()| fs::create_dir(path)).unwrap();
    assert_eq!(token_error(folder), "is not a regular file");
    assert_eq!(holding(""), "is empty");
    assert_eq!(holding("\n"), "is empty");
    let two = format!("{0}\n{0}\n", token(1).reveal());
    assert_eq!(holding(&two), "holds more than one token: a line too many");
    assert_eq!(
        holding("hunter2"),
        "holds no token: one begins with `sorteo_`, as `sorteo token add` prints it"
    );
    assert_eq!(holding(&"x".repeat(5 << 20)), "is larger than 4 MiB");
}

#[test]
fn a_token_file_that_others_may_read_is_refused() {
    let with_mode =
        |mode| move |path: &Path| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for mode in [0o644, 0o604, 0o620, 0o601, 0o666] {
        let expected = format!("may be read by others (mode {mode:04o}): run `chmod 600 FILE`");
        assert_eq!(token_error(with_mode(mode)), expected);
    }
    let of_nobody = |path: &Path| {
        chown(path, Some(65534), None).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o640)))
    };
    let folder = tempfile::tempdir().unwrap();
    if chown(folder.path(), Some(65534), None).is_err() {
        // Our own file then: its group may not read it either.
        assert!(token_error(with_mode(0o640)).contains("(mode 0640)"));
        return;
    }
    assert!(token_error(|path| of_nobody(path).unwrap()).contains("(mode 0640)"));
    let security = with_token(folder.path(), &token(1));
    let file = security.token.unwrap();
    with_mode(0o640)(&file.path);
    assert_eq!(file.read().unwrap(), token(1), "root may let a group read");
}

#[test]
fn tls_files_of_no_use_are_told_what_is_wrong_with_them() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let own = authority.issue(&["agency"], |_| {});
    let fresh = || Tls { ca: authority.write(folder.path()), certificate: Some(own.write(folder.path())) };
    let told = |change: &dyn Fn(&Tls, &ClientCertificate)| {
        let tls = fresh();
        change(&tls, tls.certificate.as_ref().unwrap());
        error(Security { tls: Some(tls), token: None })
    };
    let holding = |text: &'static str| move |path: &Path| fs::write(path, text).unwrap();
    let ca = |change: &dyn Fn(&Path)| told(&|tls, _| change(&tls.ca));
    assert!(ca(&|path| fs::remove_file(path).unwrap()).ends_with("ca.pem does not exist"));
    assert!(ca(&holding("none")).ends_with("ca.pem holds no certificate in PEM form"));
    let not_one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(ca(&holding(not_one)).ends_with("ca.pem holds a certificate that is not valid"));
    let chain = |change: &dyn Fn(&Path)| told(&|_, own| change(&own.chain));
    assert!(chain(&|path| fs::remove_file(path).unwrap()).ends_with("client.pem does not exist"));
    assert!(chain(&holding("none")).ends_with("client.pem holds no certificate in PEM form"));
    let key = |change: &dyn Fn(&Path)| told(&|_, own| change(&own.key));
    assert!(key(&holding("hunter2")).ends_with("holds no private key in PEM form without a passphrase"));
    let exposed = key(&|path| fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap());
    assert!(exposed.contains("client.key may be read by others (mode 0644): run `chmod 600 "), "{exposed}");
    let other = authority.issue(&["agency"], |_| {}).key;
    let mismatch = key(&|path| fs::write(path, &other).unwrap());
    assert!(mismatch.ends_with("holds a key that is not the one of the client's certificate"), "{mismatch}");
}

#[test]
fn a_file_that_is_being_replaced_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let security = with_token(folder.path(), &token(1));
    let path = security.token.as_ref().unwrap().path.clone();
    // The first connection ends when its file is half written.
    let server = Server::plain(move |connection, _, request| match request {
        sorteo_protocol::wire::Request::Resume { .. } if connection == 0 => {
            fs::write(&path, "sorteo_").unwrap();
            Act::Close
        }
        _ => Act::Serve,
    });
    let (retried, retries) = mpsc::channel();
    let tell = move |event: &Event<'_>| {
        if let Event::Retrying { error } = event {
            let _ = retried.send(error.to_string());
        }
    };
    let home = folder.path().to_owned();
    let repair = std::thread::spawn(move || {
        let wait = || retries.recv_timeout(Duration::from_secs(10)).unwrap();
        let told = std::iter::repeat_with(wait).find(|told| told.contains("holds no token")).unwrap();
        write(&home, "agency.token", token(2).reveal());
        told
    });
    upload_and_tell(server.options(security), tell).1.unwrap();
    assert!(repair.join().unwrap().starts_with("the token file "));
    assert_eq!(server.seen().connections.len(), 2);
}
