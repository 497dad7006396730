//! The shim in front of a real SQLite: what it does to a small program, and
//! that SQLite stands it, where it promises to.
//!
//! The VFS is the process's, so every program runs in a process of its own:
//! this same binary, started for the one test in [`child`].

#![allow(missing_docs)]

mod child;
mod faults;
mod power;
mod run;
