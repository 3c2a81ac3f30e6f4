//! One attached client: what it types, what it sees.

use super::prefix::Prefix;
use super::view::ViewModel;
use crate::terminal::Colors;
use crate::terminal::Id;
use crate::terminal::Screen;
use crate::terminal::Size;
use std::ops::Deref;
use tokio::time::Instant;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bytes for a terminal, untouched.
    Write(Id, Vec<u8>),
    /// A paste for a terminal, without its brackets.
    Paste(Id, Vec<u8>),
    /// A terminal came to the front of this window, or left it.
    Focus(Id, bool),
    /// A new terminal.
    New,
    /// End this terminal and take its tab away; the user has confirmed.
    Close(Id),
    /// Start this dead terminal again.
    Restart(Id),
    /// Let go of this window; everything runs on.
    Detach,
    /// Paint soon: the window itself changed.
    Repaint,
    /// What the user's terminal said about itself.
    Learned(Outer),
}
/// What the user's terminal can do and looks like, as far as it answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// It speaks the kitty keyboard protocol.
    pub kitty: bool,
    /// Its colours.
    pub colors: Option<Colors>,
}
/// One attached client.
#[derive(Debug)]
pub struct Session {}
impl Session {
    /// A client's window of this size.
    pub fn new(size: Size, prefix: Prefix) -> Self {
        Self {}
    }
    /// The bytes that open the window: alternate screen, questions about the terminal.
    pub fn enter(&mut self) -> Vec<u8> {
        Vec::new()
    }
    /// The user's terminal has a new size; the next paint is a full one.
    pub fn resize(&mut self, size: Size) {}
    /// The size that terminals have in this window.
    pub fn terminal_size(&self) -> Size {
        Size {
            columns: 80,
            rows: 22,
        }
    }
    /// The terminal in front.
    pub fn focused(&self) -> Option<Id> {
        None
    }
    /// Brings a terminal to the front.
    pub fn focus(&mut self, id: Id) -> Vec<Action> {
        Vec::new()
    }
    /// Takes the newest list of terminals; the focus moves on when its terminal is gone.
    pub fn update(&mut self, view: &ViewModel) -> Vec<Action> {
        Vec::new()
    }
    /// Takes raw bytes of the user's terminal.
    pub fn input(&mut self, bytes: &[u8], now: Instant) -> Vec<Action> {
        Vec::new()
    }
    /// When [`Self::tick`] is wanted: a lone escape or an unfinished paste waits.
    pub fn wake(&self) -> Option<Instant> {
        None
    }
    /// Lets go of what waited too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        Vec::new()
    }
    /// The bytes that bring the user's terminal to the picture of `view`; empty when it is there already. `screen` is
    /// asked once, for the focused terminal.
    pub fn paint<S: Deref<Target = Screen>>(
        &mut self,
        view: &ViewModel,
        screen: impl FnOnce(Id) -> Option<S>,
    ) -> Vec<u8> {
        Vec::new()
    }
}
/// The bytes that give the user's terminal back: everything that a session may have switched on, off.
pub fn leave() -> &'static [u8] {
    b""
}
