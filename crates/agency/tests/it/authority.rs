//! Certificates that a test makes up, and the files that a client reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sorteo_agency::{ClientCertificate, Security, Tls, TokenFile};
use sorteo_protocol::{AgencyId, Token};

/// An authority that issues certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes the file by which a client trusts this authority.
    pub fn write(&self, folder: &Path) -> PathBuf {
        write(folder, "ca.pem", &self.0.pem())
    }

    /// What a client needs to connect with TLS.
    pub fn security(&self, folder: &Path) -> Security {
        Security { tls: Some(Tls { ca: self.write(folder), certificate: None }), token: None }
    }

    /// A server for the address on which the tests listen.
    pub fn server(&self) -> ServerConfig {
        self.issue(&["127.0.0.1"], |_| {}).server()
    }

    /// A server that requires a certificate of this authority's.
    pub fn server_with_client_certificates(&self) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let own = self.issue(&["127.0.0.1"], |_| {});
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
        builder.with_single_cert(vec![own.certificate()], own.private_key()).unwrap()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Issued {
    /// A server with this certificate.
    pub fn server(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = builder.with_no_client_auth();
        let mut config = builder.with_single_cert(vec![self.certificate()], self.private_key()).unwrap();
        config.alpn_protocols = vec![b"sorteo/1".to_vec()];
        config
    }

    /// Writes the files of a client with this certificate.
    pub fn write(&self, folder: &Path) -> ClientCertificate {
        let key = write(folder, "client.key", &self.key);
        ClientCertificate { chain: write(folder, "client.pem", &self.chain), key }
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A token that is the same whenever its number is.
pub fn token(number: u8) -> Token {
    Token::from_random([number; 8], [number + 100; 32])
}

/// Writes a token's file, and returns what a client needs to prove that it is agency 1.
pub fn with_token(folder: &Path, token: &Token) -> Security {
    let path = write(folder, "agency.token", &format!("{}\n", token.reveal()));
    Security { tls: None, token: Some(TokenFile { agency: AgencyId(1), path }) }
}

/// Replaces a file by one that only its owner may read, as a careful person does.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}
