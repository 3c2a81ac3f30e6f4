//! One attached client: what it types, what it sees.

use super::frame::Frame;
use super::input::Cutter;
use super::input::Piece;
use super::paint::transition;
use super::prefix::Key;
use super::prefix::Motion;
use super::prefix::Prefix;
use super::view::Overlay;
use super::view::ViewModel;
use super::view::surround;
use super::view::terminal_area;
use crate::terminal::Colors;
use crate::terminal::Id;
use crate::terminal::Rgb;
use crate::terminal::Screen;
use crate::terminal::Size;
use crate::terminal::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::mem;
use std::ops::Deref;
use tokio::time::Instant;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bytes for a terminal, untouched.
    Write(Id, Vec<u8>),
    /// A paste for a terminal, without its brackets.
    Paste(Id, Vec<u8>),
    /// A terminal came to the front of this window, or left it; or the window itself did.
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
    /// What the user's terminal said about itself; told once, when it has answered all questions.
    Learned(Outer),
}

/// What the user's terminal can do and looks like, as far as it answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// It speaks the kitty keyboard protocol.
    pub kitty: bool,
    /// Its colours, if it told both.
    pub colors: Option<Colors>,
}

/// A terminal of the list, as far as keys are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    id: Id,
    number: u16,
    ended: bool,
}

/// One attached client.
#[derive(Debug)]
pub struct Session {
    size: Size,
    prefix: Prefix,
    cutter: Cutter,
    /// The prefix was typed; the next key is a command.
    armed: bool,
    /// Keys whose press was ours: their release is, too.
    held: Vec<char>,
    /// The rest of a character that was no command.
    rest: usize,
    overlay: Overlay,
    focused: Option<Id>,
    listed: Vec<Listed>,
    /// A new terminal was asked for: it is shown when it comes.
    awaits_new: bool,
    last: Option<Frame>,
    /// Our own lines have no colours.
    plain: bool,
    /// The run ends with this window.
    last_window: bool,
    outer: Outer,
    foreground: Option<Rgb>,
    background: Option<Rgb>,
}

/// Opens the window: alternate screen, an entry of our own on the keyboard stack, pastes and focus told; then the
/// questions, the one that every terminal answers at the end.
const ENTER: &str =
    "\x1b[?1049h\x1b[?25l\x1b[>0u\x1b[?2004h\x1b[?1004h\x1b]10;?\x1b\\\x1b]11;?\x1b\\\x1b[?u\x1b[c";

/// See [`leave`].
const LEAVE: &str = "\x1b[?2026l\x1b]8;;\x1b\\\x1b[<u\x1b[>4;0m\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?1006l\x1b[?1004l\
\x1b[?2004l\x1b[?2031l\x1b[?1l\x1b>\x1b[?25h\x1b[0 q\x1b[0m\x1b[?1049l";

/// The bytes that give the user's terminal back: everything that a session may have switched on, off. Harmless when
/// written twice but for the keyboard stack, and to a terminal that was never entered.
pub fn leave() -> &'static [u8] {
    LEAVE.as_bytes()
}

/// The bytes that put a text on the user's clipboard (OSC 52), where their terminal allows it.
pub fn clipboard(text: &str) -> Vec<u8> {
    format!("\x1b]52;c;{}\x1b\\", STANDARD.encode(text)).into_bytes()
}

impl Session {
    /// A client's window of this size.
    pub fn new(size: Size, prefix: Prefix) -> Self {
        Self {
            size: size.clamped(),
            prefix,
            cutter: Cutter::new(),
            armed: false,
            held: Vec::new(),
            rest: 0,
            overlay: Overlay::None,
            awaits_new: false,
            focused: None,
            listed: Vec::new(),
            last: None,
            plain: false,
            last_window: false,
            outer: Outer::default(),
            foreground: None,
            background: None,
        }
    }

    /// Whether what this draws around the screens does without colours. The screens keep theirs.
    pub fn set_plain(&mut self, plain: bool) {
        self.plain = plain;
    }

    /// Whether the run ends when this window lets go of it, so that its user is asked first.
    pub fn set_last(&mut self, last: bool) {
        self.last_window = last;
    }

    /// The bytes that open the window: alternate screen, questions about the terminal. The next paint is a full one.
    pub fn enter(&mut self) -> Vec<u8> {
        self.last = None;
        ENTER.as_bytes().to_vec()
    }

    /// The user's terminal has a new size; the next paint is a full one.
    pub fn resize(&mut self, size: Size) {
        self.size = size.clamped();
        self.last = None;
    }

    /// The size that terminals have in this window.
    pub fn terminal_size(&self) -> Size {
        Size {
            columns: self.size.columns,
            rows: terminal_area(self.size).rows,
        }
        .clamped()
    }

    /// The terminal in front.
    pub fn focused(&self) -> Option<Id> {
        self.focused
    }

    /// Takes the newest list of terminals; the focus moves on when its terminal is gone.
    pub fn update(&mut self, view: &ViewModel) -> Vec<Action> {
        let mut actions = Vec::new();
        let place = self.place();
        let came = view
            .terminals
            .iter()
            .find(|tab| !self.listed.iter().any(|listed| listed.id == tab.id));
        let came = came.map(|tab| tab.id).filter(|_| self.awaits_new);
        self.listed.clear();
        self.listed.extend(view.terminals.iter().map(|tab| Listed {
            id: tab.id,
            number: tab.number,
            ended: matches!(tab.state, State::Exited(_)),
        }));
        if let Overlay::Close(id) = self.overlay
            && !self.listed.iter().any(|tab| tab.id == id)
        {
            self.overlay = Overlay::None;
        }
        if self.place().is_none() {
            let next = place.unwrap_or(0).min(self.listed.len().saturating_sub(1));
            let id = self.listed.get(next).map(|tab| tab.id);
            self.bring(id, &mut actions);
        } else if came.is_some() {
            self.awaits_new = false;
            self.bring(came, &mut actions);
        }
        actions
    }

    /// Takes raw bytes of the user's terminal.
    pub fn input(&mut self, bytes: &[u8], now: Instant) -> Vec<Action> {
        let mut pieces = Vec::new();
        self.cutter
            .feed(bytes, now, &mut |piece| pieces.push(piece));
        self.pieces(pieces)
    }

    /// When [`Self::tick`] is wanted: a lone escape or an unfinished paste waits.
    pub fn wake(&self) -> Option<Instant> {
        self.cutter.wake()
    }

    /// Lets go of what waited too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut pieces = Vec::new();
        self.cutter.expire(now, &mut |piece| pieces.push(piece));
        self.pieces(pieces)
    }

    /// The bytes that bring the user's terminal to the picture of `view`; empty when it is there already. `screen` is
    /// asked once, for the focused terminal; call [`Self::update`] first, or the focus is that of an older list.
    pub fn paint<S: Deref<Target = Screen>>(
        &mut self,
        view: &ViewModel,
        screen: impl FnOnce(Id) -> Option<S>,
    ) -> Vec<u8> {
        let frame = self.compose(view, screen);
        let bytes = transition(self.last.as_ref(), &frame);
        self.last = Some(frame);
        bytes
    }

    fn compose<S: Deref<Target = Screen>>(
        &self,
        view: &ViewModel,
        screen: impl FnOnce(Id) -> Option<S>,
    ) -> Frame {
        let mut frame = Frame::blank(self.size);
        frame.plain = self.plain;
        let area = terminal_area(self.size);
        frame.shown = self.focused;
        if let Some(screen) = self.focused.and_then(screen) {
            let last = self
                .last
                .as_ref()
                .filter(|last| last.size == frame.size && last.shown == frame.shown && last.whole);
            match last {
                // Half of a picture is not shown while the whole one before it can stay.
                Some(last) if screen.updating() => frame.keep(last, area),
                _ => frame.place(&screen, area),
            }
        }
        let prefix = self.prefix.label();
        surround(
            &mut frame,
            view,
            self.focused,
            self.overlay,
            &prefix,
            self.armed,
        );
        frame.whole = self.overlay == Overlay::None;
        frame
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Vec<Action> {
        let mut actions = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Byte(byte) => self.byte(byte, &mut actions),
                Piece::Sequence(bytes) => self.sequence(bytes, &mut actions),
                Piece::Answer(bytes) => self.answer(&bytes),
                Piece::Paste(text) => {
                    if self.overlay == Overlay::None
                        && let Some(id) = self.living()
                    {
                        actions.push(Action::Paste(id, text));
                    }
                }
            }
        }
        actions
    }

    fn byte(&mut self, byte: u8, actions: &mut Vec<Action>) {
        if self.rest > 0 && (0x80..0xc0).contains(&byte) {
            self.rest -= 1;
            return;
        }
        self.rest = 0;
        let key = Key::byte(byte);
        if self.takes(&key, actions) {
            // A character of several bytes is swallowed whole.
            self.rest = match byte {
                0xc0..=0xdf => 1,
                0xe0..=0xef => 2,
                0xf0.. => 3,
                _ => 0,
            };
        } else {
            self.write(&[byte], actions);
        }
    }

    fn sequence(&mut self, bytes: Vec<u8>, actions: &mut Vec<Action>) {
        self.rest = 0;
        match bytes.as_slice() {
            b"\x1b[I" => return self.window_focus(true, actions),
            b"\x1b[O" => return self.window_focus(false, actions),
            // Answers to our questions, and reports that no key makes.
            [0x1b, b'[', b'?', .., b'u'] => {
                self.outer.kitty = true;
                return;
            }
            [0x1b, b'[', b'?', .., b'c'] => {
                self.outer.colors =
                    self.foreground
                        .zip(self.background)
                        .map(|(foreground, background)| Colors {
                            foreground,
                            background,
                        });
                return actions.push(Action::Learned(self.outer));
            }
            [0x1b, b'[', b'?' | b'>', ..] => return,
            [0x1b, b'[', b'<', .., b'm' | b'M'] | [0x1b, b'[', b'M', _, _, _] => {
                return self.mouse(&bytes, actions);
            }
            _ => {}
        }
        if let Some(key) = Key::sequence(&bytes) {
            if key.motion == Motion::Release {
                if let Some(index) = self.held.iter().position(|code| *code == key.code) {
                    self.held.swap_remove(index);
                    return;
                }
            } else if self.takes(&key, actions) {
                if !self.held.contains(&key.code) {
                    self.held.push(key.code);
                }
                return;
            }
        } else if self.overlay != Overlay::None {
            return self.dismiss(actions);
        } else if mem::take(&mut self.armed) {
            return actions.push(Action::Repaint);
        }
        self.write(&bytes, actions);
    }

    /// Reads a pressed key; `false` if it is for the program.
    fn takes(&mut self, key: &Key, actions: &mut Vec<Action>) -> bool {
        // Modifiers alone, where the terminal reports them: they decide nothing.
        if ('\u{E000}'..='\u{F8FF}').contains(&key.code)
            && (self.armed || self.overlay != Overlay::None)
        {
            return true;
        }
        if let Overlay::Close(id) = self.overlay {
            self.dismiss(actions);
            if matches!(key.types, 'y' | 'Y') && !key.control {
                actions.push(Action::Close(id));
            }
            return true;
        }
        if matches!(self.overlay, Overlay::Help | Overlay::Lives) {
            self.dismiss(actions);
            return true;
        }
        if self.overlay == Overlay::End {
            self.dismiss(actions);
            if matches!(key.types, 'y' | 'Y') && !key.control {
                actions.push(Action::Detach);
            }
            return true;
        }
        if mem::take(&mut self.armed) {
            actions.push(Action::Repaint);
            // Twice: the program gets it.
            if self.prefix.is(key) {
                return false;
            }
            self.command(key, actions);
            return true;
        }
        if self.prefix.is(key) {
            self.armed = true;
            actions.push(Action::Repaint);
            return true;
        }
        if self.living().is_none() {
            if let Some(id) = self.focused
                && !key.control
            {
                match key.types {
                    'r' => actions.push(Action::Restart(id)),
                    // Asked as well: the key may have been meant for the program that has just ended.
                    'x' => {
                        self.overlay = Overlay::Close(id);
                        actions.push(Action::Repaint);
                    }
                    _ => {}
                }
            }
            return true;
        }
        false
    }

    fn command(&mut self, key: &Key, actions: &mut Vec<Action>) {
        if key.control || key.other {
            return;
        }
        match key.types {
            'n' => self.step(1, actions),
            'p' => self.step(self.listed.len().saturating_sub(1), actions),
            digit @ '0'..='9' => {
                let number = digit
                    .to_digit(10)
                    .map_or(0, |digit| if digit == 0 { 10 } else { digit });
                let found = self
                    .listed
                    .iter()
                    .find(|tab| u32::from(tab.number) == number);
                if let Some(id) = found.map(|tab| tab.id) {
                    self.bring(Some(id), actions);
                }
            }
            'c' => {
                self.awaits_new = true;
                actions.push(Action::New);
            }
            'x' | '&' => {
                if let Some(id) = self.focused {
                    self.overlay = Overlay::Close(id);
                }
            }
            'r' if self.living().is_some() => self.overlay = Overlay::Lives,
            'r' => {
                if let Some(id) = self.focused {
                    actions.push(Action::Restart(id));
                }
            }
            // Where nothing lives, nothing ends.
            'd' if self.last_window && self.listed.iter().any(|tab| !tab.ended) => {
                self.overlay = Overlay::End;
            }
            'd' => actions.push(Action::Detach),
            '?' => self.overlay = Overlay::Help,
            _ => {}
        }
    }

    fn dismiss(&mut self, actions: &mut Vec<Action>) {
        self.overlay = Overlay::None;
        self.armed = false;
        actions.push(Action::Repaint);
    }

    fn step(&mut self, by: usize, actions: &mut Vec<Action>) {
        if let Some(place) = self.place() {
            let next = self.listed[(place + by) % self.listed.len()].id;
            self.bring(Some(next), actions);
        }
    }

    fn bring(&mut self, id: Option<Id>, actions: &mut Vec<Action>) {
        if id == self.focused {
            return;
        }
        if let Some(old) = self.focused {
            actions.push(Action::Focus(old, false));
        }
        if let Some(new) = id {
            actions.push(Action::Focus(new, true));
        }
        self.focused = id;
        self.overlay = Overlay::None;
        actions.push(Action::Repaint);
    }

    fn window_focus(&mut self, on: bool, actions: &mut Vec<Action>) {
        if let Some(id) = self.focused {
            actions.push(Action::Focus(id, on));
        }
    }

    /// A mouse report goes to the program that asked for it, in its own coordinates; the rest is dropped.
    fn mouse(&self, bytes: &[u8], actions: &mut Vec<Action>) {
        let Some(frame) = self.last.as_ref().filter(|frame| frame.modes.mouse != 0) else {
            return;
        };
        let Some((button, column, row, end)) = report(bytes) else {
            return;
        };
        let area = terminal_area(self.size);
        let inside = row > area.top && row <= area.top + area.rows;
        if self.overlay != Overlay::None || !inside {
            return;
        }
        let row = row - area.top;
        let bytes = if frame.modes.sgr_mouse {
            format!("\x1b[<{button};{column};{row}{}", char::from(end)).into_bytes()
        } else {
            // The old form has one byte a value and calls every release by the same button.
            let button = if end == b'm' { 3 } else { button };
            let old = |value: u16| u8::try_from(value + 32).ok();
            match (old(button), old(column), old(row)) {
                (Some(button), Some(column), Some(row)) => {
                    vec![0x1b, b'[', b'M', button, column, row]
                }
                _ => return,
            }
        };
        self.write(&bytes, actions);
    }

    fn answer(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(['\x07', '\x1b', '\\']);
        if let Some(color) = text.strip_prefix("\x1b]10;") {
            self.foreground = rgb(color);
        } else if let Some(color) = text.strip_prefix("\x1b]11;") {
            self.background = rgb(color);
        }
    }

    fn write(&self, bytes: &[u8], actions: &mut Vec<Action>) {
        let Some(id) = self.living() else { return };
        if let Some(Action::Write(last, written)) = actions.last_mut()
            && *last == id
        {
            written.extend(bytes);
        } else {
            actions.push(Action::Write(id, bytes.to_vec()));
        }
    }

    /// The focused terminal, if a program runs there.
    fn living(&self) -> Option<Id> {
        self.place()
            .map(|place| self.listed[place])
            .filter(|tab| !tab.ended)
            .map(|tab| tab.id)
    }

    fn place(&self) -> Option<usize> {
        self.listed
            .iter()
            .position(|tab| Some(tab.id) == self.focused)
    }
}

/// Button, column, row (from 1) and the last byte of a mouse report.
fn report(bytes: &[u8]) -> Option<(u16, u16, u16, u8)> {
    let text = str::from_utf8(bytes.strip_prefix(b"\x1b[<")?).ok()?;
    let (fields, end) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let mut fields = fields.split(';').map(|field| field.parse().ok());
    let report = (fields.next()??, fields.next()??, fields.next()??);
    Some((report.0, report.1, report.2, *end.as_bytes().first()?))
}

/// `rgb:rrrr/gggg/bbbb`, with one to four digits each.
fn rgb(text: &str) -> Option<Rgb> {
    let mut parts = text.strip_prefix("rgb:")?.split('/').map(|digits| {
        let value = u32::from_str_radix(digits, 16).ok()?;
        let most = 16_u32.checked_pow(u32::try_from(digits.len()).ok()?)? - 1;
        u8::try_from(value * 255 / most.max(1)).ok()
    });
    Some(Rgb {
        r: parts.next()??,
        g: parts.next()??,
        b: parts.next()??,
    })
}
