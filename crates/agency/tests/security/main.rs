//! Tokens and TLS, against servers that follow a script.

mod authority;
mod files;
mod relay;
mod server;
mod tls;
mod token;
mod uploads;
