//! The VFS below a real SQLite: what its faults do to a small program, and that SQLite
//! survives those that it promises to survive.
//!
//! A process has one default VFS, so every program runs in a process of its own: this
//! same binary, started for the one test in [`child`].

#![allow(missing_docs)]

mod child;
mod faults;
mod power;
mod run;
