//! What the emulator ignores and we need: signals to the outside, and questions that it does not answer.
//!
//! A second, bare parser runs beside the emulator and stops behind each signal it hears and each question it answers; the emulator is then fed
//! up to the same byte, so that all replies leave in the order of the questions. Kimi Code relies on that order: its
//! plain device query is the sentinel behind the keyboard query (measured on 2.1.0).
//!
//! Everything kept is bounded and free of control characters.

use serde::Deserialize;
use serde::Serialize;

/// Longest notification or folder that is kept, in bytes.
const TEXT: usize = 1024;

/// Signals kept of one read; a program that rings without end is heard once in a while.
const SIGNALS: usize = 256;

/// A cell in pixels, as told to programs that ask; a common size, since nobody can know the real one.
pub(crate) const CELL_WIDTH: u16 = 9;
/// See [`CELL_WIDTH`].
pub(crate) const CELL_HEIGHT: u16 = 18;

/// Something the program told the terminal beside its picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// OSC 9;4: 0 none, 1 normal, 2 error, 3 busy without a measure, 4 paused.
    Progress(u8),
    /// OSC 9, 99 or 777: text without control characters.
    Notify(String),
    /// BEL.
    Bell,
    /// OSC 0 or 2; empty when the title was taken back.
    Title(String),
    /// OSC 133: `A` prompt, `B` input, `C` output, `D` end.
    PromptMark(char),
    /// OSC 7: the address of the working folder.
    Cwd(String),
    /// OSC 52: text that the program wants on the user's clipboard.
    Clipboard(String),
}

/// The bare parser's side of it.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// An answer to the question that ended the last advance.
    pub(crate) reply: Option<String>,
    /// The signal that ended the last advance; told after what the emulator reports of the bytes before it.
    pub(crate) heard: Option<Signal>,
    /// What was told.
    pub(crate) signals: Vec<Signal>,
    /// Whether the user's terminal is light, for the theme question.
    pub(crate) light: bool,
    /// Something was recognised since this was cleared: the parser is not stuck in an endless string.
    pub(crate) alive: bool,
}

impl Scanner {
    /// Adds a signal, unless it only repeats the last one or too many wait; a flood of marks does not drown a message.
    pub(crate) fn tell(&mut self, signal: Signal) {
        let room = if matches!(signal, Signal::PromptMark(_) | Signal::Bell) {
            SIGNALS
        } else {
            2 * SIGNALS
        };
        if self.signals.len() < room && self.signals.last() != Some(&signal) {
            self.signals.push(signal);
        }
    }
}

/// The report on dark (1) or light (2).
pub(crate) fn theme_report(light: bool) -> String {
    format!("\x1b[?997;{}n", if light { 2 } else { 1 })
}

/// Text without control characters, cut at a character's border.
pub(crate) fn plain(text: &str, longest: usize) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > longest {
            break;
        }
        kept.push(c);
    }
    kept
}

fn joined(params: &[&[u8]]) -> String {
    let bytes = params.join(&b';');
    plain(&String::from_utf8_lossy(&bytes), TEXT)
}

impl vte::Perform for Scanner {
    fn print(&mut self, _c: char) {
        self.alive = true;
    }

    fn execute(&mut self, _byte: u8) {
        self.alive = true;
    }

    fn put(&mut self, _byte: u8) {
        // A device control string is not collected by either parser, however long it is.
        self.alive = true;
    }

    fn esc_dispatch(&mut self, _intermediates: &[u8], _ignore: bool, _byte: u8) {
        self.alive = true;
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        self.alive = true;
        self.heard = match params {
            [b"9", b"4"] => Some(Signal::Progress(0)),
            [b"9", b"4", state, ..] => {
                let state = str::from_utf8(state).ok().and_then(|s| s.parse().ok());
                Some(Signal::Progress(state.unwrap_or(0)))
            }
            [b"9", text @ ..] => Some(Signal::Notify(joined(text))),
            // The first field of these two names a protocol or metadata; the text is the rest.
            [b"777" | b"99", _, text @ ..] => Some(Signal::Notify(joined(text))),
            [b"133", mark, ..] => match mark.first() {
                Some(letter @ b'A'..=b'Z') => Some(Signal::PromptMark(char::from(*letter))),
                _ => None,
            },
            [b"7", address @ ..] => Some(Signal::Cwd(joined(address))),
            _ => None,
        };
    }

    fn csi_dispatch(
        &mut self,
        params: &vte::Params,
        intermediates: &[u8],
        _ignore: bool,
        action: char,
    ) {
        self.alive = true;
        let first = params
            .iter()
            .next()
            .and_then(|param| param.first())
            .copied()
            .unwrap_or(0);
        self.reply = match (intermediates, action, first) {
            (b">", 'q', 0) => Some(format!("\x1bP>|kimiq({})\x1b\\", env!("CARGO_PKG_VERSION"))),
            (b"", 't', 16) => Some(format!("\x1b[6;{CELL_HEIGHT};{CELL_WIDTH}t")),
            (b"?", 'n', 996) => Some(theme_report(self.light)),
            _ => return,
        };
    }

    fn terminated(&self) -> bool {
        self.reply.is_some() || self.heard.is_some()
    }
}
