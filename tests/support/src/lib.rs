//! What the test binaries and the fuzz targets share.
//!
//! [`reading`] and [`model`] implement the protocol a second time, from
//! `docs/protocol.md` and without any code of the program: what any bytes mean, and
//! what a server answers them. [`decoder`] and [`conversation`] compare the program with
//! them. [`delivery`] gives bytes to a decoder in pieces, as a network does.
//!
//! [`process`] runs the real program and [`log_line`] reads its log; [`memory_store`]
//! is a store that costs nothing to open, [`version_one`] and [`version_two`] make databases
//! of earlier schema versions; [`cases`] configures property tests.

#[cfg(feature = "program")]
pub mod cases;
#[cfg(feature = "program")]
pub mod conversation;
pub mod decoder;
pub mod delivery;
pub mod log_line;
#[cfg(feature = "program")]
pub mod memory_store;
pub mod model;
#[cfg(feature = "program")]
pub mod process;
pub mod reading;
#[cfg(feature = "program")]
pub mod version_one;
#[cfg(feature = "program")]
pub mod version_two;
