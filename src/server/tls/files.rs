//! From files to what connections begin with: read whole, checked whole.
//!
//! What a client would only find out in its handshake is found here: a certificate whose time
//! is over, a chain in the wrong order, a key of another certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _, X509Certificate};

use super::error::{TlsError, TlsProblem};
use super::verifier::AgencyVerifier;
use crate::secret_file;

/// The files of TLS, all in PEM form.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, followed by its issuers without the root.
    pub cert: PathBuf,
    /// The private key of the first certificate, without a passphrase.
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted; none are without it.
    pub client_ca: Option<PathBuf>,
    /// Their lists of revoked certificates, one of each authority.
    pub crl: Option<PathBuf>,
}

/// What the files hold.
pub(super) struct Loaded {
    provider: Arc<CryptoProvider>,
    certified_key: Arc<SingleCertAndKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// A file and the setting that names it, which each of its errors has.
#[derive(Clone, Copy)]
struct Origin<'a>(&'a Path, &'static str);

impl Origin<'_> {
    fn error(self, problem: TlsProblem) -> TlsError {
        TlsError { path: self.0.to_owned(), setting: self.1, problem }
    }

    /// Reads a file that holds no secret.
    fn read(self) -> Result<Vec<u8>, TlsError> {
        fs::read(self.0).map_err(|error| self.error(error.into()))
    }

    /// Returns all sections of one kind; at least one.
    fn sections<T: PemObject>(self, what: &'static str) -> Result<Vec<T>, TlsError> {
        let sections: Result<Vec<T>, PemError> = T::pem_slice_iter(&self.read()?).collect();
        match sections {
            Ok(none) if none.is_empty() => Err(self.error(TlsProblem::Nothing(what))),
            Ok(sections) => Ok(sections),
            Err(error) => Err(self.error(TlsProblem::Pem(error.to_string()))),
        }
    }
}

impl TlsFiles {
    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        warm_up(&provider);
        let chain = read_chain(Origin(&self.cert, "tls_cert"), &provider)?;
        let certified_key = self.read_key(chain, &provider)?;
        let clients = self.client_ca.as_deref().map(|path| {
            let crl = self.crl.as_deref().map(|path| Origin(path, "tls_crl"));
            read_clients(Origin(path, "tls_client_ca"), crl, &provider)
        });
        Ok(Loaded { clients: clients.transpose()?, certified_key, provider })
    }

    fn read_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<Arc<SingleCertAndKey>, TlsError> {
        let origin = Origin(&self.key, "tls_key");
        let pem = secret_file::read(&self.key).map_err(|error| origin.error(error.into()))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| origin.error(no_key(&pem, &error)))?;
        let signer = provider.key_provider.load_private_key(key);
        let signer = signer.map_err(|error| origin.error(TlsProblem::UnusableKey(error)))?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            // A key that does not tell its public half cannot be compared.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Arc::new(certified.into()))
            }
            Err(_) => Err(origin.error(TlsProblem::OtherKey(self.cert.clone()))),
        }
    }
}

/// Has the generator of random numbers gather its entropy, which takes tens of milliseconds:
/// the first agency would wait for it.
fn warm_up(provider: &CryptoProvider) {
    // Where it fails, handshakes fail and say so.
    let _ = provider.secure_random.fill(&mut [0; 32]);
}

/// Returns why a file holds no key.
fn no_key(pem: &[u8], error: &PemError) -> TlsProblem {
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    match error {
        _ if has(b"ENCRYPTED") => TlsProblem::EncryptedKey,
        PemError::NoItemsFound => TlsProblem::Nothing("private key"),
        other => TlsProblem::Pem(other.to_string()),
    }
}

/// Reads the server's certificate and its issuers.
fn read_chain(
    origin: Origin<'_>,
    provider: &CryptoProvider,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = read_certificates(origin)?;
    let parsed: Vec<_> = chain.iter().filter_map(|der| parse(der).ok()).collect();
    for (at, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            return Err(origin.error(TlsProblem::OutOfOrder {
                number: at + 1,
                issuer: pair[0].issuer().to_string(),
                next: pair[1].subject().to_string(),
            }));
        }
    }
    match verify_chain(&chain, provider) {
        Err(error) if chain.len() > 1 => Err(origin.error(TlsProblem::NoChain(error))),
        _ => Ok(chain),
    }
}

/// Verifies the signatures of a chain whose last certificate is trusted.
fn verify_chain(chain: &[CertificateDer<'_>], provider: &CryptoProvider) -> Result<(), rustls::Error> {
    let [first, issuers @ .., last] = chain else { return Ok(()) };
    let mut roots = RootCertStore::empty();
    roots.add(last.clone().into_owned())?;
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(first)?,
        &roots,
        issuers,
        UnixTime::now(),
        provider.signature_verification_algorithms.all,
    )
}

/// Reads certificates that are valid now; at least one.
fn read_certificates(origin: Origin<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<CertificateDer<'static>> = origin.sections("certificate")?;
    for (at, der) in certificates.iter().enumerate() {
        require_valid(at + 1, der).map_err(|problem| origin.error(problem))?;
    }
    Ok(certificates)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

fn require_valid(number: usize, der: &CertificateDer<'_>) -> Result<(), TlsProblem> {
    let validity = parse(der).map_err(|error| TlsProblem::Damaged(number, error))?.validity.clone();
    let now = ASN1Time::now();
    match () {
        () if now > validity.not_after => Err(TlsProblem::Expired(number, time(validity.not_after))),
        () if now < validity.not_before => Err(TlsProblem::NotYetValid(number, time(validity.not_before))),
        () => Ok(()),
    }
}

/// Returns a time as a person reads it, in UTC.
fn time(time: ASN1Time) -> String {
    Timestamp::from_second(time.timestamp()).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// Reads whose client certificates are accepted, and which are revoked.
fn read_clients(
    origin: Origin<'_>,
    crl: Option<Origin<'_>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let certificates = read_certificates(origin)?;
    let mut roots = RootCertStore::empty();
    for (at, der) in certificates.iter().enumerate() {
        let added = roots.add(der.clone());
        added.map_err(|error| origin.error(TlsProblem::Damaged(at + 1, error.to_string())))?;
    }
    let crls = crl.map_or(Ok(Vec::new()), |crl| read_crls(crl, &certificates))?;
    // A CRL whose time is over says nothing of what was revoked since. So all clients of its
    // authority are refused then, as OpenSSL does.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
        .with_crls(crls)
        .enforce_revocation_expiration()
        .allow_unauthenticated()
        .build();
    let unusable = |error: rustls::server::VerifierBuilderError| TlsProblem::Unusable(error.to_string());
    let verifier = verifier.map_err(|error| crl.unwrap_or(origin).error(unusable(error)))?;
    Ok(Arc::new(AgencyVerifier(verifier)))
}

/// Reads lists of revoked certificates, one of each authority.
fn read_crls(
    origin: Origin<'_>,
    authorities: &[CertificateDer<'_>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists: Vec<CertificateRevocationListDer<'static>> = origin.sections("CRL")?;
    let mut issuers = Vec::new();
    for (at, der) in lists.iter().enumerate() {
        issuers.push(current_crl_issuer(at + 1, der).map_err(|problem| origin.error(problem))?);
    }
    for authority in authorities.iter().filter_map(|der| parse(der).ok()) {
        if !issuers.iter().any(|issuer| issuer == authority.subject().as_raw()) {
            return Err(origin.error(TlsProblem::NoCrlOf(authority.subject().to_string())));
        }
    }
    Ok(lists)
}

/// Returns the issuer's name of a CRL that has not expired.
fn current_crl_issuer(number: usize, der: &CertificateRevocationListDer<'_>) -> Result<Vec<u8>, TlsProblem> {
    let (_, crl) = CertificateRevocationList::from_der(der)
        .map_err(|error| TlsProblem::BadCrl(number, error.to_string()))?;
    match crl.next_update() {
        Some(until) if until < ASN1Time::now() => Err(TlsProblem::ExpiredCrl(number, time(until))),
        Some(_) => Ok(crl.issuer().as_raw().to_vec()),
        None => Err(TlsProblem::BadCrl(number, "it has no time of its next update".to_owned())),
    }
}

impl Loaded {
    /// Returns the configuration with one protocol; `with_clients` if client certificates are
    /// asked for.
    pub(super) fn config(&self, with_clients: bool, alpn: &[u8]) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3");
        let builder = match self.clients.as_ref().filter(|_| with_clients) {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.certified_key.clone());
        config.alpn_protocols = vec![alpn.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config
    }
}
