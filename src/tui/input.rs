//! Cuts the raw bytes of the user's terminal into keys, sequences and pastes.
//!
//! The cutter keeps its place between reads, so bytes may be split anywhere. Nothing is interpreted beyond its borders
//! and nothing is lost: what it gives, put together, is what came in, except for the brackets of a paste. A sequence
//! that does not go on is let go as it is when its time is over: an escape may be the key itself.

use std::mem;
use std::time::Duration;
use tokio::time::Instant;

/// An escape byte that nothing follows in this time is the key. Bytes of one sequence arrive together.
const LONE: Duration = Duration::from_millis(30);

/// A paste that stops in the middle is taken as it is: its end got lost.
const STALLED: Duration = Duration::from_secs(1);

/// Longest answer of a terminal; more is no answer.
const STRING: usize = 64 * 1024;

/// A paste beyond this is handed on in parts.
const PASTE: usize = 4 * 1024 * 1024;

const PASTE_END: &[u8] = b"\x1b[201~";

/// A piece of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// One byte of text or an old control key.
    Byte(u8),
    /// A whole escape sequence, or the start of one that did not go on.
    Sequence(Vec<u8>),
    /// An answer of the terminal: OSC, DCS or APC.
    Answer(Vec<u8>),
    /// Pasted text.
    Paste(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ground,
    Escape,
    Csi,
    /// After `ESC O`.
    Ss3,
    /// An old mouse report: three bytes follow.
    Mouse(u8),
    String,
    /// An escape inside a string: its end, if a backslash follows.
    StringEscape,
    Paste,
}

/// The cutter.
#[derive(Debug)]
pub(crate) struct Cutter {
    place: Place,
    held: Vec<u8>,
    since: Option<Instant>,
}

impl Cutter {
    pub(crate) fn new() -> Self {
        Self {
            place: Place::Ground,
            held: Vec::new(),
            since: None,
        }
    }

    /// Takes bytes and gives each finished piece to `out`.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: Instant, out: &mut impl FnMut(Piece)) {
        for byte in bytes {
            self.take(*byte, out);
        }
        self.since = (self.place != Place::Ground).then_some(now);
    }

    /// When [`Self::expire`] is wanted.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let patience = if self.place == Place::Paste {
            STALLED
        } else {
            LONE
        };
        self.since.map(|since| since + patience)
    }

    /// Lets go of what did not go on in time.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut impl FnMut(Piece)) {
        if self.wake().is_none_or(|at| now < at) {
            return;
        }
        self.since = None;
        let place = mem::replace(&mut self.place, Place::Ground);
        let held = mem::take(&mut self.held);
        match place {
            Place::Paste if held.is_empty() => {}
            Place::Paste => out(Piece::Paste(held)),
            _ => out(Piece::Sequence(held)),
        }
    }

    fn take(&mut self, byte: u8, out: &mut impl FnMut(Piece)) {
        match self.place {
            Place::Ground => {
                if byte == 0x1b {
                    self.held.push(byte);
                    self.place = Place::Escape;
                } else {
                    out(Piece::Byte(byte));
                }
                return;
            }
            // An escape begins anew wherever it comes, except inside a string or a paste.
            Place::Escape | Place::Csi | Place::Ss3 if byte == 0x1b => {
                out(Piece::Sequence(mem::take(&mut self.held)));
                self.held.push(byte);
                self.place = Place::Escape;
                return;
            }
            _ => self.held.push(byte),
        }
        match self.place {
            Place::Escape => match byte {
                b'[' => self.place = Place::Csi,
                b'O' => self.place = Place::Ss3,
                b']' | b'P' | b'_' => self.place = Place::String,
                _ => self.finish(out),
            },
            Place::Csi if self.held == b"\x1b[M" => self.place = Place::Mouse(3),
            Place::Csi if self.held == b"\x1b[200~" => {
                self.held.clear();
                self.place = Place::Paste;
            }
            // What is neither parameter nor end breaks the sequence off.
            Place::Csi if !(0x20..0x40).contains(&byte) => self.finish(out),
            Place::Csi if self.held.len() > STRING => self.finish(out),
            Place::Csi => {}
            Place::Mouse(1) => self.finish(out),
            Place::Mouse(left) => self.place = Place::Mouse(left - 1),
            Place::Ss3 => self.finish(out),
            Place::String if byte == 0x07 => self.answer(out),
            Place::String if byte == 0x1b => self.place = Place::StringEscape,
            Place::String if self.held.len() > STRING => self.finish(out),
            Place::String => {}
            Place::StringEscape if byte == b'\\' => self.answer(out),
            Place::StringEscape => self.place = Place::String,
            Place::Paste => {
                if self.held.ends_with(PASTE_END) {
                    self.held.truncate(self.held.len() - PASTE_END.len());
                    self.place = Place::Ground;
                    out(Piece::Paste(mem::take(&mut self.held)));
                } else if self.held.len() > PASTE {
                    // The end bracket may have begun already; it stays.
                    let tail = self.held.split_off(self.held.len() - PASTE_END.len());
                    out(Piece::Paste(mem::replace(&mut self.held, tail)));
                }
            }
            Place::Ground => {}
        }
    }

    fn finish(&mut self, out: &mut impl FnMut(Piece)) {
        self.place = Place::Ground;
        out(Piece::Sequence(mem::take(&mut self.held)));
    }

    fn answer(&mut self, out: &mut impl FnMut(Piece)) {
        self.place = Place::Ground;
        out(Piece::Answer(mem::take(&mut self.held)));
    }
}
