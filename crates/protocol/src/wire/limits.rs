//! What a message may hold.

use std::time::Duration;

/// Largest frame of the framed dialect, in bytes after its length: the original framed
/// server's constant. It keeps the first byte of every frame zero, by which the dialect is
/// recognised.
pub const FRAME_BYTES_MAX: usize = 8192;
const _: () = assert!(FRAME_BYTES_MAX < 1 << 24, "the first length byte must be zero");

/// Longest time that a `WAIT_WINNERS` may ask to wait.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a client may send at most. Both limits are checked before the bytes are kept.
#[derive(Clone, Copy, Debug)]
pub struct WireLimits {
    /// Most bets in one framed batch.
    pub batch_bets_max: u64,
    /// Largest payload of the counted dialect, in bytes.
    pub payload_bytes_max: u64,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self { batch_bets_max: 10_000, payload_bytes_max: 1 << 20 }
    }
}
