//! The emulated screen of one terminal, behind a guard.
//!
//! The emulator is a large program fed by strangers' bytes: sizes are clamped before they reach it, a panic inside it
//! is caught and the screen rebuilt empty, and a string without end is dropped before it eats the memory. Lines above
//! the screen are allocated as they come, so an idle terminal costs little.

use super::colors::Colors;
use super::colors::xterm;
use super::graphemes::Joiner;
use super::graphemes::torn;
use super::queries::CELL_HEIGHT;
use super::queries::CELL_WIDTH;
use super::queries::Scanner;
use super::queries::Signal;
use super::queries::plain;
use super::queries::theme_report;
use super::shim::Extras;
use super::shim::Shim;
use super::shim::Unheld;
use alacritty_terminal::Term;
use alacritty_terminal::event::Event;
use alacritty_terminal::event::EventListener;
use alacritty_terminal::event::WindowSize;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::Config;
use alacritty_terminal::term::TermMode;
pub use alacritty_terminal::term::cell::Cell;
pub use alacritty_terminal::term::cell::Flags;
pub use alacritty_terminal::term::cell::Hyperlink;
use alacritty_terminal::vte::ansi::Processor;
pub use alacritty_terminal::vte::ansi::{Color, CursorShape, NamedColor, Rgb};
use parking_lot::Mutex;
use std::fmt;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

/// Longest title that is kept, in bytes.
const TITLE: usize = 256;

/// Most text that a program may put on the clipboard, in bytes.
const CLIPBOARD: usize = 1024 * 1024;

/// Bytes without any recognised sequence or character after which a string counts as endless: a full clipboard in
/// base64 still fits.
const ENDLESS: usize = 2 * CLIPBOARD;

/// Smallest and largest screens: below the first the emulator's arithmetic fails, above the second pixel sizes do.
const SMALLEST: u16 = 2;
const MOST_COLUMNS: u16 = 2000;
const MOST_ROWS: u16 = 1000;

/// Cells of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Cells across.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Size {
    /// The nearest size that a screen can have: 2 to 2000 columns, 2 to 1000 lines.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            columns: self.columns.clamp(SMALLEST, MOST_COLUMNS),
            rows: self.rows.clamp(SMALLEST, MOST_ROWS),
        }
    }
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }

    fn screen_lines(&self) -> usize {
        usize::from(self.rows)
    }

    fn columns(&self) -> usize {
        usize::from(self.columns)
    }
}

/// What feeding bytes brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
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

/// Collects what the emulator reports while it is fed.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Event>>>);

impl EventListener for Sink {
    fn send_event(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// The emulated screen of one terminal.
pub struct Screen {
    term: Term<Sink>,
    sink: Sink,
    processor: Processor<Unheld>,
    joiner: Joiner,
    extras: Extras,
    parser: vte::Parser,
    scanner: Scanner,
    /// The start of a character whose rest has not come. The parser would lose the character between two whose first
    /// is torn (vte 0.15: a two-byte character, one of ASCII, the start of another).
    torn: Vec<u8>,
    /// Bytes fed since a parser last recognised anything.
    silent: usize,
    title: String,
    size: Size,
    config: Config,
    colors: Colors,
}

impl fmt::Debug for Screen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Screen")
            .field("size", &self.size)
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}

impl Screen {
    /// An empty screen that keeps up to `scrollback` lines above it.
    pub fn new(size: Size, scrollback: usize) -> Self {
        let size = size.clamped();
        let config = Config {
            scrolling_history: scrollback,
            kitty_keyboard: true,
            ..Config::default()
        };
        let sink = Sink::default();
        Self {
            term: Term::new(config.clone(), &size, sink.clone()),
            sink,
            processor: Processor::new(),
            joiner: Joiner::default(),
            extras: Extras::default(),
            parser: vte::Parser::new(),
            scanner: Scanner::default(),
            torn: Vec::new(),
            silent: 0,
            title: String::new(),
            size,
            config,
            colors: Colors::default(),
        }
    }

    /// Takes what the program wrote.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        match catch_unwind(AssertUnwindSafe(|| self.take(bytes))) {
            Ok(fed) => fed,
            Err(_panic) => {
                tracing::error!(
                    "the terminal emulator failed on its input; the screen was emptied"
                );
                self.rebuild();
                Fed::default()
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Fed {
        let joined;
        let mut bytes = bytes;
        if !self.torn.is_empty() {
            joined = [&mem::take(&mut self.torn), bytes].concat();
            bytes = &joined;
        }
        let (whole, torn) = bytes.split_at(bytes.len() - torn(bytes));
        self.torn.extend(torn);
        bytes = whole;
        let mut fed = Fed::default();
        self.scanner.alive = false;
        let total = bytes.len();
        while !bytes.is_empty() {
            let count = self
                .parser
                .advance_until_terminated(&mut self.scanner, bytes);
            let (now, rest) = bytes.split_at(count);
            let mut shim = Shim {
                term: &mut self.term,
                joiner: &mut self.joiner,
                extras: &mut self.extras,
                events: &self.sink,
            };
            self.processor.advance(&mut shim, now);
            self.collect(&mut fed.replies);
            if let Some(reply) = self.scanner.reply.take() {
                fed.replies.extend(reply.bytes());
            }
            if let Some(signal) = self.scanner.heard.take() {
                self.scanner.tell(signal);
            }
            bytes = rest;
        }
        self.silent = if self.scanner.alive {
            0
        } else {
            self.silent + total
        };
        if self.silent > ENDLESS {
            tracing::warn!("a control string without end was dropped");
            self.parser = vte::Parser::new();
            self.processor = Processor::new();
            self.silent = 0;
        }
        fed.signals = mem::take(&mut self.scanner.signals);
        fed
    }

    fn collect(&mut self, replies: &mut Vec<u8>) {
        let events = mem::take(&mut *self.sink.0.lock());
        for event in events {
            match event {
                Event::PtyWrite(text) => replies.extend(text.bytes()),
                Event::ColorRequest(index, render) => {
                    replies.extend(render(self.color(index)).bytes());
                }
                Event::TextAreaSizeRequest(render) => {
                    let window = WindowSize {
                        num_lines: self.size.rows,
                        num_cols: self.size.columns,
                        cell_width: CELL_WIDTH,
                        cell_height: CELL_HEIGHT,
                    };
                    replies.extend(render(window).bytes());
                }
                Event::Title(title) => self.entitle(&title),
                Event::ResetTitle => self.entitle(""),
                Event::Bell => self.scanner.tell(Signal::Bell),
                Event::ClipboardStore(_kind, text) if text.len() <= CLIPBOARD => {
                    self.scanner.tell(Signal::Clipboard(text));
                }
                _ => {}
            }
        }
    }

    fn entitle(&mut self, title: &str) {
        let title = plain(title, TITLE);
        if title != self.title {
            self.scanner.tell(Signal::Title(title.clone()));
            self.title = title;
        }
    }

    /// What a program is told about the colour with this index of the emulator.
    fn color(&self, index: usize) -> Rgb {
        const BACKGROUND: usize = NamedColor::Background as usize;
        if let Some(set) = self.term.colors()[index] {
            return set;
        }
        match index {
            0..=255 => xterm(u8::try_from(index).unwrap_or(0)),
            BACKGROUND => self.colors.background,
            _ => self.colors.foreground,
        }
    }

    fn rebuild(&mut self) {
        let mut fresh = Self::new(self.size, self.config.scrolling_history);
        fresh.colors = self.colors;
        fresh.scanner.light = self.colors.light();
        fresh.set_kitty(self.config.kitty_keyboard);
        *self = fresh;
    }

    /// Changes the size; lines are rewrapped.
    pub fn resize(&mut self, size: Size) {
        let size = size.clamped();
        if size == self.size {
            return;
        }
        self.size = size;
        self.joiner.forget();
        if catch_unwind(AssertUnwindSafe(|| self.term.resize(size))).is_err() {
            tracing::error!("the terminal emulator failed to resize; the screen was emptied");
            self.rebuild();
        }
    }

    /// The size, after clamping.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The modes that the program has switched on.
    pub fn modes(&self) -> Modes {
        let mode = *self.term.mode();
        let kitty = [
            TermMode::DISAMBIGUATE_ESC_CODES,
            TermMode::REPORT_EVENT_TYPES,
            TermMode::REPORT_ALTERNATE_KEYS,
            TermMode::REPORT_ALL_KEYS_AS_ESC,
            TermMode::REPORT_ASSOCIATED_TEXT,
        ];
        Modes {
            kitty: kitty
                .iter()
                .enumerate()
                .filter(|(_, flag)| mode.contains(**flag))
                .map(|(bit, _)| 1 << bit)
                .sum(),
            modify_other_keys: self.extras.modify_other_keys,
            application_cursor: mode.contains(TermMode::APP_CURSOR),
            application_keypad: mode.contains(TermMode::APP_KEYPAD),
            bracketed_paste: mode.contains(TermMode::BRACKETED_PASTE),
            focus_reports: mode.contains(TermMode::FOCUS_IN_OUT),
            mouse: if mode.contains(TermMode::MOUSE_MOTION) {
                1003
            } else if mode.contains(TermMode::MOUSE_DRAG) {
                1002
            } else if mode.contains(TermMode::MOUSE_REPORT_CLICK) {
                1000
            } else {
                0
            },
            sgr_mouse: mode.contains(TermMode::SGR_MOUSE),
            alternate_screen: mode.contains(TermMode::ALT_SCREEN),
        }
    }

    /// The cursor.
    pub fn cursor(&self) -> Cursor {
        let point = self.term.grid().cursor.point;
        let style = self.term.cursor_style();
        Cursor {
            column: u16::try_from(point.column.0).unwrap_or(0),
            row: u16::try_from(point.line.0).unwrap_or(0),
            visible: self.term.mode().contains(TermMode::SHOW_CURSOR),
            shape: style.shape,
            blinking: style.blinking,
        }
    }

    /// The cells of a visible line, from the top; empty below the screen.
    pub fn row(&self, row: u16) -> &[Cell] {
        if row < self.size.rows {
            &self.term.grid()[Line(i32::from(row))][..]
        } else {
            &[]
        }
    }

    /// The visible screen as text, one line a row, without trailing blanks.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for row in 0..self.size.rows {
            let start = text.len();
            for cell in self.row(row) {
                if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
                    continue;
                }
                text.push(if cell.c == '\t' { ' ' } else { cell.c });
                text.extend(cell.zerowidth().into_iter().flatten());
            }
            let kept = text[start..].trim_end().len();
            text.truncate(start + kept);
            text.push('\n');
        }
        text
    }

    /// Lines kept above the screen.
    pub fn history(&self) -> usize {
        self.term.grid().history_size()
    }

    /// The title the program set; empty if none.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Whether the program is in the middle of a synchronized update (mode 2026): the picture is half of the next one.
    pub fn updating(&self) -> bool {
        self.extras.updating
    }

    /// Ends a synchronized update that the program has not ended in time.
    pub fn stop_updating(&mut self) {
        self.extras.updating = false;
    }

    /// Whether kitty keyboard queries are answered; without, programs fall back to older ways. Takes back what a
    /// program has pushed.
    pub fn set_kitty(&mut self, on: bool) {
        if self.config.kitty_keyboard != on {
            self.config.kitty_keyboard = on;
            self.term.set_options(self.config.clone());
            // The emulator repeats the title on any change of its options.
            self.sink.0.lock().clear();
        }
    }

    /// The colours of the user's terminal. Returns the report that a program which asked for changes (2031) gets.
    pub fn set_colors(&mut self, colors: Colors) -> Vec<u8> {
        let changed = colors.light() != self.colors.light();
        self.colors = colors;
        self.scanner.light = colors.light();
        if changed && self.extras.theme_reports {
            theme_report(colors.light()).into_bytes()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        columns: 80,
        rows: 24,
    };

    fn screen() -> Screen {
        Screen::new(SIZE, 100)
    }

    #[test]
    fn one_visible_character_takes_the_columns_that_programs_count() {
        for (text, columns) in [
            ("a", 1),
            ("e\u{301}", 1),
            ("漢", 2),
            ("👍🏽", 2),
            ("👨‍👩‍👧‍👦", 2),
            ("❤️", 2),
            ("1️⃣", 2),
            ("🇩🇪", 2),
            ("🇩🇪🇫🇷", 4),
            ("🏴󠁧󠁢󠁳󠁣󠁴󠁿", 2),
            ("🇩", 1),
            ("👩‍💻👩‍💻", 4),
        ] {
            for chunk in [1, 3, 100] {
                let mut screen = screen();
                for part in text.as_bytes().chunks(chunk) {
                    screen.feed(part);
                }
                assert_eq!(screen.cursor().column, columns, "{text}");
                assert_eq!(screen.text().trim_end(), text);
            }
        }
    }

    #[test]
    fn a_cluster_joins_right_behind_a_wrap_and_not_behind_a_move() {
        let mut screen = Screen::new(
            Size {
                columns: 4,
                rows: 4,
            },
            0,
        );
        screen.feed("abcd👍🏽x".as_bytes());
        assert_eq!(screen.text(), "abcd\n👍🏽x\n\n\n");
        screen.feed("\x1b[H👍\x1b[4;1H🏽".as_bytes());
        assert_eq!(screen.text(), "👍cd\n👍🏽x\n\n🏽\n");
    }

    #[test]
    fn a_torn_character_takes_nothing_with_it() {
        let text = "й п — é漢 ü👍 x";
        for at in 0..text.len() {
            let mut screen = screen();
            screen.feed(&text.as_bytes()[..at]);
            screen.feed(&text.as_bytes()[at..]);
            assert_eq!(screen.text().trim_end(), text, "torn at {at}");
        }
    }

    #[test]
    fn marks_without_end_cost_nothing() {
        let mut screen = screen();
        screen.feed("e".as_bytes());
        screen.feed("\u{301}".repeat(100_000).as_bytes());
        screen.feed("👍".as_bytes());
        screen.feed("\u{200d}".repeat(100_000).as_bytes());
        assert!(screen.text().len() < 200);
    }

    #[test]
    fn signals_are_heard_in_order_and_without_control_characters() {
        let fed = screen().feed(
            b"\x1b]9;4;3\x07\x1b]9;Client approval required: B\x01ash\x07\x07\x07\x1b]0;ti\x7ftle\x07\x1b]0;title\x07\
            \x1b]133;A\x07\x1b]7;file:///x;y\x1b\\\x1b]777;notify;head;body\x07\x1b]52;c;aGVsbG8=\x07\x1b]9;4;0\x07",
        );
        assert_eq!(
            fed.signals,
            [
                Signal::Progress(3),
                Signal::Notify("Client approval required: Bash".to_owned()),
                Signal::Bell,
                Signal::Title("title".to_owned()),
                Signal::PromptMark('A'),
                Signal::Cwd("file:///x;y".to_owned()),
                Signal::Notify("head;body".to_owned()),
                Signal::Clipboard("hello".to_owned()),
                Signal::Progress(0),
            ]
        );
    }

    #[test]
    fn questions_are_answered() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"\x1b[6n", b"\x1b[1;1R"),
            (b"\x1b[>7u\x1b[?u", b"\x1b[?7u"),
            (b"\x1b]10;?\x07", b"\x1b]10;rgb:d8d8/d8d8/d8d8\x07"),
            (
                b"\x1b]4;1;?\x07\x1b]4;196;?\x07",
                b"\x1b]4;1;rgb:cdcd/0000/0000\x07\x1b]4;196;rgb:ffff/0000/0000\x07",
            ),
            (
                b"\x1b]4;1;#010203\x07\x1b]4;1;?\x07",
                b"\x1b]4;1;rgb:0101/0202/0303\x07",
            ),
            (
                b"\x1b[?2026$p\x1b[?2026h\x1b[?2026$p",
                b"\x1b[?2026;2$y\x1b[?2026;1$y",
            ),
            (
                b"\x1b[?2027$p\x1b[?2031h\x1b[?2031$p",
                b"\x1b[?2027;3$y\x1b[?2031;1$y",
            ),
            (b"\x1b[?2004h\x1b[?2004$p", b"\x1b[?2004;1$y"),
            (b"\x1b[>4;2m\x1b[?4m", b"\x1b[>4;2m"),
            (b"\x1b[14t\x1b[18t", b"\x1b[4;432;720t\x1b[8;24;80t"),
        ];
        for (question, answer) in cases {
            let fed = screen().feed(question);
            assert_eq!(
                fed.replies.escape_ascii().to_string(),
                answer.escape_ascii().to_string()
            );
        }
        let version = screen().feed(b"\x1b[>q").replies;
        assert!(version.starts_with(b"\x1bP>|kimiq("));
    }

    #[test]
    fn a_light_terminal_is_told_as_light() {
        let mut screen = screen();
        let white = Rgb {
            r: 255,
            g: 255,
            b: 255,
        };
        let light = Colors {
            foreground: Rgb::default(),
            background: white,
        };
        screen.feed(b"\x1b[?2031h");
        assert_eq!(screen.set_colors(light), b"\x1b[?997;2n");
        assert_eq!(screen.set_colors(light), b"");
        assert_eq!(screen.feed(b"\x1b[?996n").replies, b"\x1b[?997;2n");
    }

    #[test]
    fn a_terminal_without_kitty_keyboard_says_nothing_to_that_question() {
        let mut screen = screen();
        screen.feed(b"\x1b]0;x\x07\x1b[>7u");
        assert_eq!(screen.modes().kitty, 7);
        screen.set_kitty(false);
        assert_eq!(screen.modes().kitty, 0);
        let fed = screen.feed(b"\x1b[>7u\x1b[?u\x1b[c");
        assert_eq!((fed.replies, fed.signals), (b"\x1b[?6c".to_vec(), vec![]));
    }

    #[test]
    fn a_string_without_end_does_not_eat_the_memory() {
        let mut screen = screen();
        screen.feed(b"\x1b]52;c;");
        for _ in 0..40 {
            screen.feed(&vec![b'A'; 64 * 1024]);
        }
        screen.feed(b"\x1b[2J\x1b[Hback");
        assert!(screen.text().contains("back"));
    }

    #[test]
    fn a_panic_of_the_emulator_empties_the_screen_and_life_goes_on() {
        let mut screen = screen();
        screen.feed(b"before");
        // The emulator's bound on this stack takes from another one, which is empty.
        let pushes = b"\x1b[>1u".repeat(5000);
        screen.feed(&pushes);
        screen.feed(b"after");
        assert!(screen.text().contains("after"));
    }

    #[test]
    fn sizes_are_clamped_and_lines_are_wrapped_anew() {
        let mut screen = Screen::new(
            Size {
                columns: 0,
                rows: 0,
            },
            10,
        );
        assert_eq!(
            screen.size(),
            Size {
                columns: 2,
                rows: 2
            }
        );
        screen.resize(Size {
            columns: u16::MAX,
            rows: u16::MAX,
        });
        screen.feed(b"\x1b[14t");
        let mut screen = Screen::new(
            Size {
                columns: 10,
                rows: 4,
            },
            10,
        );
        screen.feed(b"0123456789abc");
        screen.resize(Size {
            columns: 5,
            rows: 4,
        });
        assert_eq!(screen.text().trim_end(), "56789\nabc");
        assert_eq!(screen.history(), 1);
    }

    #[test]
    fn lines_that_left_the_screen_are_kept_up_to_the_limit() {
        let mut screen = screen();
        assert_eq!(screen.history(), 0);
        screen.feed(&b"line\r\n".repeat(500));
        assert_eq!(screen.history(), 100);
    }
}
