//! TLS on the server's one port: all that the server has of rustls.
//!
//! [`Tls`] holds what connections begin with: the certificate, its key, and whose client
//! certificates count. It is built from files, whole and checked, and can be replaced while the
//! server runs. `session` is one connection's records; `identity` reads the agency in a
//! client's certificate. The bytes of sockets are `transport`'s job.
//!
//! TLS 1.3 alone, without tickets: an agency keeps one connection, and a ticket would be a
//! second secret to rotate.

mod error;
mod files;
pub(super) mod identity;
pub(super) mod session;
mod verifier;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

pub use self::error::{TlsError, TlsProblem};
pub use self::files::TlsFiles;
/// Why a session fails.
pub(super) use rustls::Error as Failure;

/// What our clients and the server agree to speak within TLS: see `docs/protocol.md`.
pub const ALPN: &[u8] = b"sorteo/1";
/// What browsers agree to speak with the operators' HTTP.
const OPERATORS_ALPN: &[u8] = b"http/1.1";

/// Which connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// None: a peer that starts TLS is closed.
    Off,
    /// Those whose peer starts TLS.
    Optional,
    /// All: any other peer is closed without a reply.
    Required,
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

/// What a server offers TLS with. See the module.
#[derive(Debug)]
pub struct Tls {
    is_required: bool,
    current: ArcSwap<Configs>,
}

/// What the files became.
#[derive(Debug)]
struct Configs {
    agencies: Arc<ServerConfig>,
    operators: Arc<ServerConfig>,
}

impl Configs {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let loaded = files.load()?;
        Ok(Self {
            agencies: loaded.config(true, ALPN).into(),
            operators: loaded.config(false, OPERATORS_ALPN).into(),
        })
    }
}

impl Tls {
    /// Reads the files; `is_required` as [`TlsMode::Required`].
    ///
    /// # Errors
    ///
    /// The first file that is wrong, and what is wrong with it.
    pub fn load(is_required: bool, files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { is_required, current: ArcSwap::from_pointee(Configs::load(files)?) })
    }

    /// Reads the files again. Connections that begin from now on get what is in them; those
    /// that there are go on.
    ///
    /// # Errors
    ///
    /// The first file that is wrong: all stays as it was.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        self.current.store(Arc::new(Configs::load(files)?));
        Ok(())
    }

    /// Returns whether a peer that does not start TLS is closed.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Returns what a connection of an agency begins with now.
    pub(super) fn for_agencies(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().agencies)
    }

    /// Returns what a connection to the operators' HTTP begins with now: the same certificate,
    /// HTTP/1.1, and no client certificates. To be asked for with each connection, since it
    /// changes with [`Tls::reload`].
    pub fn for_operators(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().operators)
    }
}
