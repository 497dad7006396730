//! TLS on the one port: a client of rustls, used plainly, and clients that break off, stall or
//! lie at every point.

mod certificates;
mod client;
mod files;
mod refused;
mod reload;
mod sessions;
mod stalled;
