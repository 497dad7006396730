//! What `sorteo demo --secure` adds: a certificate for the server, a token for each agency, and
//! a look at what one agency's token gets of another's.
//!
//! The authority's private key is never written: nobody can issue a second certificate for
//! this demo. A real server's files come from an operator: see docs/operating.md.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::Failure;
use crate::server::tls::{Tls, TlsFiles};
use crate::store::TokenHolder;
use crate::store::sqlite::operator::{NewToken, Operator};
use sorteo_agency::{AgencyError, Client, ClientOptions, Security, TokenFile};
use sorteo_protocol::AgencyId;
use sorteo_protocol::wire::Reason;

/// What the server's certificate is for.
const SERVER_NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// The files of a secured demo, all of them in its folder.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    folder: PathBuf,
}

impl Credentials {
    /// Writes an authority's certificate, and the server's with its key.
    pub(super) fn write(folder: &Path) -> Result<Self, Failure> {
        let credentials = Self { folder: folder.to_owned() };
        let (ca, certificate, key) = issue().context("no certificate can be made")?;
        credentials.write_file("ca.pem", &ca)?;
        credentials.write_file("server.pem", &certificate)?;
        credentials.write_file("server.key", &key)?;
        Ok(credentials)
    }

    /// Returns what the server requires TLS with.
    pub(super) fn tls(&self) -> Result<Arc<Tls>, Failure> {
        let (cert, key) = (self.path("server.pem"), self.path("server.key"));
        let files = TlsFiles { cert, key, client_ca: None, crl: None };
        Ok(Arc::new(Tls::load(true, &files).context("the certificate is of no use")?))
    }

    /// Adds a token for each agency, as `sorteo token add` does, and writes it into a file.
    pub(super) fn add_tokens(&self, database: &Path, agencies: u32) -> Result<(), Failure> {
        let mut operator = Operator::open(database)?;
        for agency in 1..=agencies {
            let holder = TokenHolder::Agency(AgencyId(agency));
            let token =
                operator.add_token(&NewToken { holder, label: "demo".to_owned(), expires_at: None })?;
            self.write_file(&token_name(agency), &format!("{}\n", token.reveal()))?;
        }
        Ok(())
    }

    /// Returns what this agency connects with.
    pub(super) fn security(&self, agency: u32) -> Security {
        let token = TokenFile { agency: AgencyId(agency), path: self.path(&token_name(agency)) };
        let tls = sorteo_agency::Tls { ca: self.path("ca.pem"), certificate: None };
        Security { tls: Some(tls), token: Some(token) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a new file that its owner alone may read.
    fn write_file(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let write = |mut file: File| file.write_all(text.as_bytes());
        create().and_then(write).with_context(|| format!("{} cannot be written", path.display()))
    }
}

fn token_name(agency: u32) -> String {
    format!("agency-{agency}.token")
}

/// Returns the certificate of an authority, one that it issued to the server, and its key.
fn issue() -> Result<(String, String, String), rcgen::Error> {
    let mut authority = params("sorteo demo", &[])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = params("sorteo demo server", &SERVER_NAMES)?.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}

fn params(common_name: &str, names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // The clock of whoever tries the demo may be wrong.
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2100, 1, 1));
    Ok(params)
}

/// Requests the winners of another agency with this agency's connection, and requires that the
/// server refuses them.
pub(super) fn require_forbidden(options: ClientOptions, other: AgencyId) -> anyhow::Result<()> {
    match Client::new(options).winners(other, None) {
        Err(AgencyError::Refused { reason: Reason::Forbidden, .. }) => Ok(()),
        Err(error) => Err(error).context("not refused as another agency's"),
        Ok(_) => bail!("an agency received the winners of agency {other}"),
    }
}
