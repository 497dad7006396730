//! An authority of the tests, the certificates that it issues, and the files of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use sorteo::server::tls::{Tls, TlsFiles};

/// The years in which a certificate is valid.
pub type Years = (i32, i32);
pub const NOW: Years = (2000, 4000);
pub const PAST: Years = (2000, 2001);
pub const FUTURE: Years = (3998, 4000);

pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key.
pub struct Issued {
    pub certificate: Certificate,
    pub key: KeyPair,
}

fn params(name: &str, years: Years) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

fn authority_params(name: &str, years: Years) -> CertificateParams {
    let mut params = params(name, years);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub fn authority(name: &str) -> Authority {
    authority_of(name, NOW)
}

pub fn authority_of(name: &str, years: Years) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name, years), KeyPair::generate().unwrap()).unwrap()
}

/// An authority below another one.
pub fn intermediate(name: &str, issuer: &Authority) -> Authority {
    CertifiedIssuer::signed_by(authority_params(name, NOW), KeyPair::generate().unwrap(), issuer).unwrap()
}

/// A server's certificate.
pub fn server_certificate(issuer: &Authority, years: Years) -> Issued {
    let names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    issue(params("server", years), names, issuer)
}

/// A client's certificate with these URIs.
pub fn client_certificate(issuer: &Authority, uris: &[&str], years: Years) -> Issued {
    let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    issue(params("client", years), names, issuer)
}

fn issue(mut params: CertificateParams, names: Vec<SanType>, issuer: &Authority) -> Issued {
    let key = KeyPair::generate().unwrap();
    params.subject_alt_names = names;
    params.serial_number = Some(SerialNumber::from(u64::from(rand::random::<u32>()) + 1));
    let certificate = params.signed_by(&key, issuer).unwrap();
    Issued { certificate, key }
}

/// A list of what the authority has revoked.
pub fn crl(issuer: &Authority, revoked: &[&Issued], years: Years) -> String {
    let until = date_time_ymd(years.1, 1, 1) - date_time_ymd(1970, 1, 1);
    crl_until(issuer, revoked, years.0, Duration::from_secs(until.whole_seconds().unsigned_abs()))
}

/// One whose time is over so long after 1970.
pub fn crl_until(issuer: &Authority, revoked: &[&Issued], since_year: i32, until: Duration) -> String {
    let serial = |issued: &&Issued| {
        let (_, parsed) = x509_parser::parse_x509_certificate(issued.certificate.der()).unwrap();
        SerialNumber::from(parsed.raw_serial().to_vec())
    };
    let revoked_certs = revoked.iter().map(|issued| RevokedCertParams {
        serial_number: serial(issued),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(since_year, 1, 1),
        next_update: date_time_ymd(1970, 1, 1) + until,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

/// What a server has of TLS: its authority, and its files.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub files: TlsFiles,
}

impl Site {
    /// A server's certificate, and no client certificates.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority("site");
        let path = |name| folder.path().join(name);
        let files = TlsFiles { cert: path("cert.pem"), key: path("key.pem"), client_ca: None, crl: None };
        let site = Self { folder, authority, files };
        site.renew();
        site
    }

    /// With client certificates of the same authority, which has revoked some.
    pub fn with_clients(mut self, revoked: &[&Issued]) -> Self {
        self.files.client_ca = Some(self.write("ca.pem", &self.authority.pem()));
        self.files.crl = Some(self.write("crl.pem", &crl(&self.authority, revoked, NOW)));
        self
    }

    /// Writes a new certificate of the server, and its key.
    pub fn renew(&self) {
        let issued = server_certificate(&self.authority, NOW);
        self.write("cert.pem", &issued.certificate.pem());
        self.write_key("key.pem", &issued.key);
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.folder.path(), name, text)
    }

    pub fn write_key(&self, name: &str, key: &KeyPair) -> PathBuf {
        self.write(name, &key.serialize_pem())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn load(&self, is_required: bool) -> Arc<Tls> {
        Arc::new(Tls::load(is_required, &self.files).unwrap())
    }

    pub fn client(&self, agency: u32) -> Issued {
        client_certificate(&self.authority, &[&format!("urn:sorteo:agency:{agency}")], NOW)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}
