//! The window around the terminals: state, update, view, keys.
//!
//! One [`Session`] per attached client. It is pure: raw bytes of the user's terminal go in and [`Action`]s come out; a
//! [`ViewModel`] and the screens go in and the bytes that bring the user's terminal to that picture come out. It owns
//! no task, timer, socket or file; [`Session::wake`] says when it wants [`Session::tick`].
//!
//! Invariants:
//! - Keys are mirrored, not translated: the user's terminal has the modes of the focused program, so every byte but the
//!   prefix key goes through untouched, however the input was cut.
//! - What was painted plus what is painted is the composed frame, at any size.
//! - Nothing that a program writes reaches the user's terminal but as a cell, so none of its sequences can harm it.
//! - [`leave`] undoes everything that a session may have switched on.

mod frame;
mod input;
mod paint;
mod prefix;
mod session;
#[cfg(test)]
mod tests;
mod view;

pub use prefix::Prefix;
pub use session::{Action, Outer, Session, clipboard, leave};
pub use view::{Status, Tab, ViewModel};
