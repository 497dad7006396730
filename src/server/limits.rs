//! What one server allows: the limits of every wait, queue and buffer.

use std::num::NonZeroU32;
use std::time::Duration;

use sorteo_protocol::wire::WireLimits;

/// What one server allows: the limits of every wait, queue and buffer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that carry out requests.
    pub workers: usize,
    /// Most connections at once; one more is closed without a reply.
    pub connections_max: usize,
    /// Most connections at once from one address; `None`: as many as there may be.
    pub address_connections_max: Option<u32>,
    /// A request arrives whole within this time from its first byte.
    pub request_timeout: Duration,
    /// A peer proves who it is within this time from its connection or its handshake, if it
    /// must.
    pub auth_timeout: Duration,
    /// A handshake of TLS is over within this time.
    pub handshake_timeout: Duration,
    /// A connection without a request may stay this long.
    pub idle_timeout: Duration,
    /// Requests that are in flight when the server stops are finished within this time.
    pub drain_timeout: Duration,
    /// Most bytes of replies that may wait for a peer to read them.
    pub output_bytes_max: usize,
    /// Bytes of half-received requests of all connections together, beyond
    /// [`BUFFER_BYTES_FREE`] for each.
    pub buffer_bytes_max: usize,
    /// Limits of one message.
    pub wire: WireLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 64,
            connections_max: 10_000,
            address_connections_max: None,
            request_timeout: Duration::from_secs(30),
            auth_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15 * 60),
            drain_timeout: Duration::from_secs(8),
            output_bytes_max: 64 << 10,
            buffer_bytes_max: 256 << 20,
            wire: WireLimits::default(),
        }
    }
}

/// Handshakes of TLS that one address may begin in a second, in the long run: a thirtieth of a
/// processor, where the peer pays almost nothing.
pub const HANDSHAKES_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Handshakes that it may begin at once: all agencies of a site, after a power failure.
pub const HANDSHAKES_AT_ONCE: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

/// Bytes of half-received requests that each connection may hold whatever the others
/// hold. Every batch of the original servers' clients fits, so no flood of large requests
/// can crowd out a small one.
pub const BUFFER_BYTES_FREE: usize = 64 << 10;
