//! The emulated screen of one terminal.

use super::queries::Signal;
pub use alacritty_terminal::term::cell::{Cell, Flags, Hyperlink};
pub use alacritty_terminal::vte::ansi::{Color, CursorShape, NamedColor, Rgb};

/// Cells of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Cells across.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}
/// What feeding bytes brought to light.
#[derive(Debug, Default)]
pub struct Fed {
    /// Answers to the program's questions, in the order of the questions.
    pub replies: Vec<u8>,
    /// What the program told beside its picture, in order.
    pub signals: Vec<Signal>,
}
/// The modes that a program has switched on and that the outer terminal has to mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// Kitty keyboard flags, 0 to 31.
    pub kitty: u8,
    /// `CSI > 4 ; n m`, 0 to 2.
    pub modify_other_keys: u8,
    /// DECCKM.
    pub application_cursor: bool,
    /// DECKPAM.
    pub application_keypad: bool,
    /// 2004.
    pub bracketed_paste: bool,
    /// 1004.
    pub focus_reports: bool,
    /// 0, 1000, 1002 or 1003.
    pub mouse: u16,
    /// 1006.
    pub sgr_mouse: bool,
    /// The alternate screen is shown.
    pub alternate_screen: bool,
}
/// Where the cursor is and how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// From 0, at the left.
    pub column: u16,
    /// From 0, at the top.
    pub row: u16,
    /// `CSI ? 25 h`.
    pub visible: bool,
    /// DECSCUSR.
    pub shape: CursorShape,
    /// DECSCUSR, odd values.
    pub blinking: bool,
}
/// The colours that a program is told when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colors {
    /// OSC 10.
    pub foreground: Rgb,
    /// OSC 11; also decides dark or light.
    pub background: Rgb,
}
/// The emulated screen of one terminal.
#[derive(Debug)]
pub struct Screen {}
impl Screen {
    /// An empty screen that keeps up to `scrollback` lines above it.
    pub fn new(size: Size, scrollback: usize) -> Self {
        Self {}
    }
    /// Takes what the program wrote.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        Fed::default()
    }
    /// Changes the size; lines are rewrapped.
    pub fn resize(&mut self, size: Size) {}
    /// The size, after clamping.
    pub fn size(&self) -> Size {
        Size {
            columns: 80,
            rows: 24,
        }
    }
    /// The modes that the program has switched on.
    pub fn modes(&self) -> Modes {
        Modes::default()
    }
    /// The cursor.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            column: 0,
            row: 0,
            visible: true,
            shape: CursorShape::Block,
            blinking: false,
        }
    }
    /// The cells of a visible line.
    pub fn row(&self, row: u16) -> &[Cell] {
        &[]
    }
    /// The visible screen as text, one line a row, without trailing blanks.
    pub fn text(&self) -> String {
        String::new()
    }
    /// The title the program set, if any.
    pub fn title(&self) -> &str {
        ""
    }
    /// Whether the program is in the middle of a synchronized update (mode 2026).
    pub fn updating(&self) -> bool {
        false
    }
    /// Whether kitty keyboard queries are answered; without, programs fall back to older ways.
    pub fn set_kitty(&mut self, on: bool) {}
    /// The colours of the user's terminal. Returns the report that a program which asked for changes (2031) gets.
    pub fn set_colors(&mut self, colors: Colors) -> Vec<u8> {
        Vec::new()
    }
}
