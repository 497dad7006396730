//! TLS of the operators' HTTP, on the same port as plain HTTP where both are allowed: the
//! first byte tells them apart.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::rate_limit::{Network, RateLimit};

/// The first byte of a TLS handshake. No HTTP request begins with it.
const HANDSHAKE: u8 = 0x16;
/// Handshakes that one address may begin in a second, in the long run. They are done on the
/// thread that does all else here, and a peer that repeats one begins it for almost nothing.
const HANDSHAKES_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Handshakes that it may begin at once: every page, when all connect again through one proxy.
pub(super) const HANDSHAKES_AT_ONCE: NonZeroU32 = NonZeroU32::new(256).unwrap();

/// Returns the newest configuration. It must offer `http/1.1` by ALPN, or nothing, and
/// require no certificate of the client.
pub type TlsConfigSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// TLS of the operators' HTTP.
#[derive(Clone)]
pub struct OpsTls {
    /// Whether plain HTTP is refused, except on the Unix socket.
    pub is_required: bool,
    /// Asked for each connection, so that a new certificate is used from then on.
    pub config: TlsConfigSource,
    /// How long a connection may take until its handshake is done.
    pub handshake_timeout: Duration,
}

/// Opens the connections that are accepted.
#[derive(Debug)]
pub(super) struct Opener {
    tls: Option<OpsTls>,
    handshakes: RateLimit<Network>,
}

/// A connection that is ready for HTTP.
pub(super) enum Opened {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// Why a connection is closed before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// It is not encrypted.
    #[error("tls_required")]
    Required,
    /// The peer went away, or its handshake was refused.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// It sent nothing, or not the whole handshake.
    #[error("handshake_timeout")]
    TooSlow,
    /// Its address began too many handshakes.
    #[error("rate_limited")]
    RateLimited,
}

impl Opener {
    /// Opens plain connections alone, if there is no TLS.
    pub(super) fn new(tls: Option<OpsTls>) -> Self {
        Self { tls, handshakes: RateLimit::new(HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE) }
    }

    /// Opens a connection from this address: does the handshake if the peer begins one.
    pub(super) async fn open(&self, stream: TcpStream, ip: IpAddr) -> Result<Opened, OpenError> {
        let Some(tls) = &self.tls else { return Ok(Opened::Plain(stream)) };
        let opened = timeout(tls.handshake_timeout, async {
            let mut first = [0];
            match stream.peek(&mut first).await? {
                1 if first == [HANDSHAKE] => {
                    if !self.handshakes.allows(&ip.into()) {
                        return Err(OpenError::RateLimited);
                    }
                    let encrypted = TlsAcceptor::from((tls.config)()).accept(stream).await?;
                    Ok(Opened::Encrypted(Box::new(encrypted)))
                }
                1 if tls.is_required => Err(OpenError::Required),
                _ => Ok(Opened::Plain(stream)),
            }
        });
        opened.await.unwrap_or(Err(OpenError::TooSlow))
    }
}

impl fmt::Debug for OpsTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpsTls").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}
