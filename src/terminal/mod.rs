//! One PTY with one program and its emulated screen.
//!
//! [`Terminal`] is a cheap handle; one task per terminal owns the PTY, the child and the emulator behind it. Bytes
//! flow one way in each direction: program to [`Screen`] to whoever paints, and keys to the program. The room does
//! not know what program runs: what a notification means, when a prompt is typed and how a program is asked to leave
//! are data that the caller hands in ([`Phrases`], [`Ending`]).
//!
//! Invariants:
//! - Reading never waits for anybody: not for a full input queue, not for a watcher, not for a painter.
//! - Nothing is polled. Exit is the child's wait status, never the end of its output.
//! - Whatever bytes a program writes, the task survives: sizes are clamped, a panic of the emulator rebuilds it.
//! - After [`Terminal::end`] no process that this terminal started is alive, `nohup` and `setsid` ones included
//!   (on Linux; elsewhere the process group only).
//!
//! It does not paint, does not decide who is shown, and reads no state from screen text.

mod child;
mod colors;
mod ending;
mod graphemes;
mod kin;
mod pty;
mod queries;
mod screen;
mod shim;
mod supervisor;
mod task;

pub use child::{Exit, become_subreaper, end_everything, end_marked, reap_strangers};
pub use colors::Colors;
pub use ending::{Ending, Stage, Step, Target};
pub use pty::{Event, Fault, Id, Spec, Terminal};
pub use queries::Signal;
pub use screen::{
    Cell, Color, Cursor, CursorShape, Fed, Flags, Hyperlink, Modes, NamedColor, Rgb, Screen, Size,
};
pub use supervisor::{Decision, Facts, Note, Patience, Phrases, State, Supervisor, Verdict};
