//! The client against servers that follow a script: one binary, a file for each concern.

mod authority;
mod files;
mod hostile_server;
mod relay;
mod server;
mod tls;
mod token;
mod uploads;
mod window;
