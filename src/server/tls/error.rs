//! What can be wrong with the files of TLS: one line each, which names the file.

use std::io;
use std::path::PathBuf;

use crate::secret_file::SecretFileError;

/// A file of TLS is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{} ({setting}): {problem}", path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// The setting that names it.
    pub setting: &'static str,
    /// What is wrong with it.
    pub problem: TlsProblem,
}

/// What is wrong with a file of TLS. Certificates are counted from 1, in the file's order.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// It is missing, or may not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The key's file cannot be read, or others can read it too.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Its PEM is damaged.
    #[error("is damaged PEM: {0}")]
    Pem(String),
    /// It holds nothing of what it should: it may be empty, or DER.
    #[error("holds no {0} in PEM form")]
    Nothing(&'static str),
    /// The key has a passphrase.
    #[error("is encrypted: give a key without a passphrase")]
    EncryptedKey,
    /// The key is damaged, or of a kind that TLS 1.3 has no signature for.
    #[error("is no key that TLS 1.3 can use: {0}")]
    UnusableKey(rustls::Error),
    /// The key belongs to another certificate.
    #[error("does not match the certificate in {}", .0.display())]
    OtherKey(PathBuf),
    /// A certificate is not one.
    #[error("certificate {0} is damaged: {1}")]
    Damaged(usize, String),
    /// A certificate's time is over.
    #[error("certificate {0} expired at {1}")]
    Expired(usize, String),
    /// A certificate's time has not come.
    #[error("certificate {0} is not valid before {1}")]
    NotYetValid(usize, String),
    /// A certificate was not issued by the one behind it.
    #[error(
        "certificate {number} is of the issuer `{issuer}`, but behind it comes `{next}`: \
         the server's certificate comes first, and each is followed by its issuer"
    )]
    OutOfOrder {
        /// The certificate.
        number: usize,
        /// Its issuer.
        issuer: String,
        /// Whom the next certificate is of.
        next: String,
    },
    /// A certificate has its issuer's name, but not its signature; or one of them may not
    /// issue certificates.
    #[error("the certificates are no chain: {0}")]
    NoChain(rustls::Error),
    /// The CRL is damaged, or of a kind that is not supported.
    #[error("CRL {0} cannot be used: {1}")]
    BadCrl(usize, String),
    /// A newer CRL should be there by now.
    #[error("CRL {0} expired at {1}: replace it, since it no longer says what is revoked")]
    ExpiredCrl(usize, String),
    /// An authority has no CRL, so that all of its certificates would be refused.
    #[error("holds no CRL of the authority `{0}`")]
    NoCrlOf(String),
    /// The authorities cannot be used.
    #[error("cannot be used: {0}")]
    Unusable(String),
}
