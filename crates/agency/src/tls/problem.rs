//! Why TLS fails for good, in words for the person who runs the client.

use std::path::{Path, PathBuf};

use rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};

/// Client and server do not trust each other, or do not both speak TLS: a line that names
/// the server and what is wrong. A retry does not change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{server}: {problem}")]
pub struct TlsError {
    server: String,
    problem: TlsProblem,
}

impl TlsError {
    pub(super) fn new(server: &str, problem: TlsProblem) -> Self {
        Self { server: server.to_owned(), problem }
    }

    /// Returns what is wrong.
    pub fn problem(&self) -> &TlsProblem {
        &self.problem
    }
}

/// What is wrong between a client and a server that should speak TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsProblem {
    /// No authority that the client trusts issued the server's certificate.
    #[error("the server's certificate is not trusted: no authority in {} issued it", .0.display())]
    Untrusted(PathBuf),
    /// The server's certificate is for other names or addresses.
    #[error("the server's certificate is for another name: connect by a name or address that it has")]
    WrongName,
    /// The time of the server's certificate is over.
    #[error("the server's certificate has expired, or this machine's clock is wrong")]
    Expired,
    /// The time of the server's certificate has not begun.
    #[error("the server's certificate is not valid yet, or this machine's clock is wrong")]
    NotYetValid,
    /// The server's certificate cannot be used for another reason.
    #[error("the server's certificate is of no use: {0}")]
    BadCertificate(String),
    /// The host of the server's address is neither a name nor an address that a certificate
    /// can have.
    #[error("no certificate can be for this host: connect by a name or an IP address")]
    NoName,
    /// The server replied to TLS in plain text.
    #[error("the server replied in plain text: it does not speak TLS there")]
    PlainText,
    /// The server does not speak TLS 1.3.
    #[error("the server does not speak TLS 1.3")]
    Version,
    /// The server does not speak this protocol over TLS.
    #[error("the server speaks another protocol than sorteo/1 over TLS")]
    Protocol,
    /// The server requires a certificate of its clients, and got none.
    #[error("the server requires a certificate: give one with its key (--tls-cert, --tls-key)")]
    CertificateRequired,
    /// The server refused the client's certificate.
    #[error("the server refused this client's certificate ({0})")]
    CertificateRefused(String),
    /// The server refused the handshake for another reason.
    #[error("the server refused the TLS handshake ({0})")]
    Refused(String),
}

impl TlsProblem {
    /// Returns what is wrong; `None` where another try may succeed, because bytes were
    /// damaged on their way or the server had a problem of its own.
    pub(super) fn of(error: &Error, ca: &Path) -> Option<Self> {
        match error {
            Error::InvalidCertificate(error) => Some(Self::of_certificate(error, ca)),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Some(Self::Version),
            Error::PeerIncompatible(why) => Some(Self::Refused(format!("{why:?}"))),
            _ => None,
        }
    }

    fn of_certificate(error: &CertificateError, ca: &Path) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::Untrusted(ca.to_owned())
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            // What it says may hold text of the certificate.
            other => Self::BadCertificate(other.to_string().escape_debug().take(200).collect()),
        }
    }

    fn of_alert(alert: Alert) -> Option<Self> {
        match alert {
            Alert::ProtocolVersion => Some(Self::Version),
            Alert::NoApplicationProtocol => Some(Self::Protocol),
            Alert::CertificateRequired => Some(Self::CertificateRequired),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            // Of its signature, which an authority of the same name did not make.
            | Alert::DecryptError
            | Alert::AccessDenied => Some(Self::CertificateRefused(format!("{alert:?}"))),
            Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::UnrecognisedName => {
                Some(Self::Refused(format!("{alert:?}")))
            }
            _ => None,
        }
    }
}
