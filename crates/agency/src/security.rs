//! How connections are protected, and how the client proves who it is.

use crate::secret::CredentialError;
use crate::tls::{Tls, TlsError};
use crate::token_file::TokenFile;

/// How connections are protected, and how the client proves who it is. All files are read
/// anew for each connection. By default the connection is plain, and the client is nobody.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// TLS, if connections are encrypted. Nothing falls back to plain text.
    pub tls: Option<Tls>,
    /// The token that each connection sends first.
    pub token: Option<TokenFile>,
}

/// Why a connection cannot be made or used, for a reason that a retry does not change.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file of a token, a key or certificates is of no use.
    #[error(transparent)]
    File(#[from] CredentialError),
    /// Client and server do not trust each other, or do not both speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
