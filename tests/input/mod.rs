//! What must hold of whatever a peer sends, in one place for all who ask: the
//! tests in `tests/it` and the fuzz targets in `fuzz/` include this module.
//!
//! [`reading`] and [`model`] are the protocol written a second time, from
//! `docs/protocol.md` and without a line of the program: what any bytes say, and
//! what a server answers them. [`properties`] holds the program against them;
//! [`delivery`] brings bytes to a decoder in pieces, and [`memory_store`] is a
//! store that costs nothing to open.

pub mod delivery;
pub mod memory_store;
pub mod model;
pub mod properties;
pub mod reading;
