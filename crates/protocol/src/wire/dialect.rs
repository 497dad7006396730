//! The two dialects, and how a connection's is recognised.

/// The dialect of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Big-endian `u32` length, then one line of `|`-separated fields.
    Framed,
    /// Decimal length, `\n`, then one or more lines.
    Counted,
}

impl Dialect {
    /// Returns the dialect of a connection with this first byte; `None` where it belongs to
    /// neither.
    pub fn detect(first_byte: u8) -> Option<Self> {
        match first_byte {
            0x00 => Some(Self::Framed),
            b'0'..=b'9' => Some(Self::Counted),
            _ => None,
        }
    }
}
