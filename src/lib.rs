//! Many Kimi coding terminals on one API key.
//!
//! # Map
//!
//! The request, in the order a request meets the rooms:
//! [`proxy`] takes it and leads it through, [`wire`] reads the dialects, [`limits`] makes it wait until every
//! budget has room, [`upstream`] sends it, [`normalize`] repairs the answer, [`usage`] counts what it cost.
//!
//! The session, in the order a session meets the rooms:
//! [`cli`] takes the command, [`config`] resolves the settings, [`control`] finds or starts the host,
//! [`instance`] is the host and the only room that knows all others, [`kimi`] prepares the client's
//! configuration, [`terminal`] runs the client in a PTY, [`tui`] draws the window around it.
//!
//! [`simulator`] is an upstream to try and test against. [`clock`] and [`fsx`] are the only places that ask for the
//! wall clock and that write files.
//!
//! # Invariants
//!
//! - The arrows between the rooms are those of `tests/architecture.rs`.
//! - Pure cores take `now` and return decisions; they own no task, timer, socket or file.
//! - Every admission ends exactly once: settled, refused or given back by its destructor.
//! - A byte of an answer that went to a client is never followed by a retry.
//! - The user's files are whole at every instant, whatever kills the program.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod fsx;
pub mod instance;
pub mod kimi;
pub mod limits;
pub mod normalize;
pub mod proxy;
pub mod simulator;
pub mod terminal;
pub mod tui;
pub mod upstream;
pub mod usage;
pub mod wire;
