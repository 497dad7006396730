//! What can be wrong with the files, each told in one line by the program, which exits with 78;
//! and SIGHUP to the program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sorteo_test_support::process::{Server, run, sorteo};

use super::certificates::{
    FUTURE, NOW, PAST, Site, authority, authority_of, crl, intermediate, server_certificate,
};
use super::client::{TlsClient, config};
use crate::server::FRESH_STATUS;
use crate::test_server::frame;

/// The flags of a server with TLS and client certificates.
fn flags() -> Vec<&'static str> {
    let mut flags =
        vec!["--listen", "127.0.0.1:0", "--agencies", "2", "--tls", "required", "--auth", "optional"];
    flags.extend(["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    flags.extend(["--tls-client-ca", "ca.pem", "--tls-crl", "crl.pem"]);
    flags
}

/// What is wrong with a site's files, and a part of the line that says so. `{}` is a time.
type Case = (&'static str, fn(&Site), &'static str);

const CASES: &[Case] = &[
    (
        "a missing certificate",
        |site| fs::remove_file(site.path("cert.pem")).unwrap(),
        "cert.pem (tls_cert): cannot be read: No such file or directory (os error 2)",
    ),
    (
        "a folder",
        |site| {
            fs::remove_file(site.path("cert.pem")).unwrap();
            fs::create_dir(site.path("cert.pem")).unwrap();
        },
        "cert.pem (tls_cert): cannot be read: Is a directory (os error 21)",
    ),
    (
        "an empty certificate",
        |site| _ = site.write("cert.pem", ""),
        "cert.pem (tls_cert): holds no certificate in PEM form",
    ),
    (
        "a key in place of the certificate",
        |site| _ = fs::copy(site.path("key.pem"), site.path("cert.pem")).unwrap(),
        "cert.pem (tls_cert): holds no certificate in PEM form",
    ),
    (
        "PEM that is cut",
        |site| {
            let text = fs::read_to_string(site.path("cert.pem")).unwrap();
            site.write("cert.pem", &text[..text.len() / 2]);
        },
        "cert.pem (tls_cert): is damaged PEM: ",
    ),
    (
        "PEM of something else",
        |site| _ = site.write("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "cert.pem (tls_cert): certificate 1 is damaged: ",
    ),
    (
        "an expired certificate",
        |site| _ = site.write("cert.pem", &server_certificate(&site.authority, PAST).certificate.pem()),
        "cert.pem (tls_cert): certificate 1 expired at 2001-01-01T00:00:00Z",
    ),
    (
        "a certificate of the future",
        |site| _ = site.write("cert.pem", &server_certificate(&site.authority, FUTURE).certificate.pem()),
        "cert.pem (tls_cert): certificate 1 is not valid before 3998-01-01T00:00:00Z",
    ),
    (
        "the issuer first",
        |site| {
            let middle = intermediate("middle", &site.authority);
            let issued = server_certificate(&middle, NOW);
            site.write_key("key.pem", &issued.key);
            site.write("cert.pem", &[middle.pem(), issued.certificate.pem()].concat());
        },
        "cert.pem (tls_cert): certificate 1 is of the issuer `CN=site`, but behind it comes `CN=server`: the \
         server's certificate comes first, and each is followed by its issuer",
    ),
    (
        "another issuer",
        |site| {
            let issued = server_certificate(&intermediate("middle", &site.authority), NOW);
            site.write_key("key.pem", &issued.key);
            site.write("cert.pem", &[issued.certificate.pem(), authority("stranger").pem()].concat());
        },
        "cert.pem (tls_cert): certificate 1 is of the issuer `CN=middle`, but behind it comes `CN=stranger`: ",
    ),
    (
        "an issuer of the same name",
        |site| {
            let issued = server_certificate(&intermediate("middle", &site.authority), NOW);
            site.write_key("key.pem", &issued.key);
            site.write("cert.pem", &[issued.certificate.pem(), authority("middle").pem()].concat());
        },
        "cert.pem (tls_cert): the certificates are no chain: ",
    ),
    (
        "a missing key",
        |site| fs::remove_file(site.path("key.pem")).unwrap(),
        "key.pem (tls_key): cannot be read: No such file or directory (os error 2)",
    ),
    (
        "an empty key",
        |site| _ = site.write("key.pem", ""),
        "key.pem (tls_key): holds no private key in PEM form",
    ),
    (
        "an encrypted key",
        |site| {
            let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
            site.write("key.pem", text);
        },
        "key.pem (tls_key): is encrypted: give a key without a passphrase",
    ),
    (
        "a damaged key",
        |site| _ = site.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "key.pem (tls_key): is no key that TLS 1.3 can use: ",
    ),
    (
        "the key of another certificate",
        |site| _ = site.write_key("key.pem", &server_certificate(&site.authority, NOW).key),
        "key.pem (tls_key): does not match the certificate in cert.pem",
    ),
    (
        "a key that others can read",
        |site| {
            fs::set_permissions(site.path("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        },
        "key.pem (tls_key): is open to other users (mode 0644): chmod 600 key.pem",
    ),
    (
        "a missing authority",
        |site| fs::remove_file(site.path("ca.pem")).unwrap(),
        "ca.pem (tls_client_ca): cannot be read: No such file or directory (os error 2)",
    ),
    (
        "an authority's file without a certificate",
        |site| _ = fs::copy(site.path("crl.pem"), site.path("ca.pem")).unwrap(),
        "ca.pem (tls_client_ca): holds no certificate in PEM form",
    ),
    (
        "an authority whose time is over",
        |site| _ = site.write("ca.pem", &[site.authority.pem(), authority_of("old", PAST).pem()].concat()),
        "ca.pem (tls_client_ca): certificate 2 expired at 2001-01-01T00:00:00Z",
    ),
    (
        "a missing CRL",
        |site| fs::remove_file(site.path("crl.pem")).unwrap(),
        "crl.pem (tls_crl): cannot be read: No such file or directory (os error 2)",
    ),
    (
        "no CRL",
        |site| _ = fs::copy(site.path("ca.pem"), site.path("crl.pem")).unwrap(),
        "crl.pem (tls_crl): holds no CRL in PEM form",
    ),
    (
        "a damaged CRL",
        |site| _ = site.write("crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
        "crl.pem (tls_crl): CRL 1 cannot be used: ",
    ),
    (
        "a CRL whose time is over",
        |site| _ = site.write("crl.pem", &crl(&site.authority, &[], PAST)),
        "crl.pem (tls_crl): CRL 1 expired at 2001-01-01T00:00:00Z: replace it, since it no longer says what is \
         revoked",
    ),
    (
        "the CRL of another authority",
        |site| _ = site.write("crl.pem", &crl(&authority("other"), &[], NOW)),
        "crl.pem (tls_crl): holds no CRL of the authority `CN=site`",
    ),
];

#[test]
fn every_wrong_file_is_told_in_one_line_by_serve_and_by_config_check() {
    for (what, break_it, expected) in CASES {
        let site = Site::new().with_clients(&[]);
        let folder = site.folder.path();
        let check = [&["config", "check"], &flags()[..]].concat();
        assert_eq!(run(&mut sorteo(folder, &check)).succeeded(), "OK\n", "{what}");
        break_it(&site);
        for command in [check, [&["serve"], &flags()[..]].concat()] {
            let refused = run(&mut sorteo(folder, &command));
            let line = refused.failed(78);
            assert!(line.starts_with(expected), "{what}: {line}");
            assert_eq!(line.lines().count(), 1, "{what}: {line}");
        }
        assert!(!site.path("sorteo.db").exists(), "{what}: a database was created");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_told_too() {
    let site = Site::new().with_clients(&[]);
    for name in ["cert.pem", "key.pem"] {
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(site.path(name)).is_ok() {
            eprintln!("skipped: root reads everything");
            return;
        }
        let refused = run(&mut sorteo(site.folder.path(), [&["serve"], &flags()[..]].concat()));
        assert!(refused.failed(78).contains(&format!("{name} (tls_")), "{name}");
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn sighup_takes_new_files_keeps_the_old_on_an_error_and_drops_no_connection() {
    let site = Site::new().with_clients(&[]);
    let server = Server::start(site.folder.path(), &flags()[2..]);
    assert_eq!(server.process.count("action: config | result: success | listen: "), 1);
    assert_eq!(server.process.count(" | tls: required | "), 1);
    let connect = || TlsClient::connect(server.address, config(&site.authority, None));
    let mut before = connect();
    before.ask(&frame("STATUS"), FRESH_STATUS);

    site.write_key("key.pem", &server_certificate(&site.authority, NOW).key);
    server.process.send("HUP");
    let wrong =
        "config | result: fail | error: key.pem (tls_key): does not match the certificate in cert.pem";
    server.process.wait_log(wrong, 1);
    assert_eq!(connect().certificate(), before.certificate());

    site.renew();
    server.process.send("HUP");
    server.process.wait_log("config | result: success | tls_cert: cert.pem", 1);
    assert_ne!(connect().certificate(), before.certificate());
    before.ask(&frame("STATUS"), FRESH_STATUS);
    server.stop();
}

#[test]
fn whether_tls_is_on_does_not_change_with_sighup() {
    let site = Site::new();
    let file = |mode: &str| {
        let text = format!("tls = \"{mode}\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n");
        site.write("sorteo.toml", &text)
    };
    file("optional");
    let server = Server::start(site.folder.path(), &["--config", "sorteo.toml", "--agencies", "2"]);
    assert_eq!(server.process.count(" | tls: optional | "), 1);
    file("required");
    server.process.send("HUP");
    server.process.wait_log("config | result: fail | error: tls changes with a restart alone", 1);
    // Both ways still work.
    run(&mut server.command(site.folder.path(), &["status"])).succeeded();
    TlsClient::connect(server.address, config(&site.authority, None)).ask(&frame("STATUS"), FRESH_STATUS);
    server.stop();
}
