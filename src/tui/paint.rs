//! The bytes that turn one picture into the next.
//!
//! Only cells that differ are written, inside a synchronized update, with the cursor hidden. Terminals disagree on the
//! width of clusters, so two blanks go before a wide one and the cursor is placed anew behind it. `CSI 3 J` is never
//! written: the scrollback belongs to the user.

use super::frame::Frame;
use crate::terminal::Cell;
use crate::terminal::Color;
use crate::terminal::Cursor;
use crate::terminal::CursorShape;
use crate::terminal::Flags;
use crate::terminal::Hyperlink;
use crate::terminal::Modes;
use std::fmt::Write;

/// How cells look that are written from here on.
#[derive(Clone, Debug, PartialEq)]
struct Pen {
    fg: Color,
    bg: Color,
    flags: Flags,
    underline: Option<Color>,
}

/// Flags that change the look.
const LOOK: Flags = Flags::all()
    .difference(Flags::WRAPLINE)
    .difference(Flags::WIDE_CHAR)
    .difference(Flags::WIDE_CHAR_SPACER)
    .difference(Flags::LEADING_WIDE_CHAR_SPACER);

impl Pen {
    fn plain() -> Self {
        Self::of(&Cell::default())
    }

    fn of(cell: &Cell) -> Self {
        Self {
            fg: cell.fg,
            bg: cell.bg,
            flags: cell.flags & LOOK,
            underline: cell.underline_color(),
        }
    }
}

/// Writes a picture.
struct Writer {
    out: String,
    pen: Pen,
    link: Option<Hyperlink>,
    /// Where the next character goes, if that is certain: column, row.
    at: Option<(u16, u16)>,
}

/// The bytes from `old` (nothing known: `None`) to `new`; empty if they are alike.
pub(crate) fn transition(old: Option<&Frame>, new: &Frame) -> Vec<u8> {
    let old = old.filter(|old| old.size == new.size);
    if old.is_some_and(|old| {
        old.cells == new.cells && old.cursor == new.cursor && old.modes == new.modes
    }) {
        return Vec::new();
    }
    let mut writer = Writer {
        out: String::from("\x1b[?2026h\x1b[?25l"),
        pen: Pen::plain(),
        link: None,
        at: None,
    };
    let blank;
    let base = if let Some(old) = old {
        old
    } else {
        writer.out.push_str("\x1b[0m\x1b[2J");
        blank = Frame::blank(new.size);
        &blank
    };
    for row in 0..new.size.rows {
        writer.row(row, base.row(row), new.row(row));
    }
    writer.end_style();
    modes(&mut writer.out, old.map(|old| old.modes), new.modes);
    if let Some(cursor) = new.cursor {
        let shape = |cursor: Cursor| (cursor.shape, cursor.blinking);
        if old.and_then(|old| old.cursor).map(shape) != Some(shape(cursor)) {
            put(&mut writer.out, format_args!("\x1b[{} q", style(cursor)));
        }
        writer.go(cursor.column, cursor.row);
        writer.out.push_str("\x1b[?25h");
    }
    writer.out.push_str("\x1b[?2026l");
    writer.out.into_bytes()
}

impl Writer {
    fn row(&mut self, row: u16, old: &[Cell], new: &[Cell]) {
        if old == new {
            return;
        }
        let plain = Cell::default();
        let filled = new
            .iter()
            .rposition(|cell| *cell != plain)
            .map_or(0, |last| last + 1);
        let mut column = 0;
        while column < new.len() {
            let cell = &new[column];
            let width = if cell.flags.contains(Flags::WIDE_CHAR) {
                2
            } else {
                1
            };
            let end = (column + width).min(new.len());
            if old[column..end] == new[column..end] {
                column = end;
                continue;
            }
            if column >= filled {
                self.go(narrow(column), row);
                self.style(&plain);
                self.out.push_str("\x1b[K");
                return;
            }
            self.cell(narrow(column), row, cell, width);
            // The last column leaves the cursor in doubt.
            if end == new.len() {
                self.at = None;
            }
            column = end;
        }
    }

    fn cell(&mut self, column: u16, row: u16, cell: &Cell, width: usize) {
        self.go(column, row);
        self.style(cell);
        let marks = cell.zerowidth().unwrap_or_default();
        if marks.is_empty() {
            self.out.push(cell.c);
            self.at = Some((column + narrow(width), row));
            return;
        }
        if width > 1 {
            self.out.push_str("  ");
            self.at = None;
            self.go(column, row);
        }
        self.out.push(cell.c);
        self.out.extend(marks);
        self.at = None;
    }

    fn go(&mut self, column: u16, row: u16) {
        if self.at != Some((column, row)) {
            put(
                &mut self.out,
                format_args!("\x1b[{};{}H", row + 1, column + 1),
            );
            self.at = Some((column, row));
        }
    }

    fn style(&mut self, cell: &Cell) {
        let link = cell.hyperlink();
        if link != self.link {
            match &link {
                Some(link) => put(
                    &mut self.out,
                    format_args!("\x1b]8;id={};{}\x1b\\", clean(link.id()), clean(link.uri())),
                ),
                None => self.out.push_str("\x1b]8;;\x1b\\"),
            }
            self.link = link;
        }
        let pen = Pen::of(cell);
        if pen == self.pen {
            return;
        }
        self.out.push_str("\x1b[0");
        for (flag, code) in [
            (Flags::BOLD, ";1"),
            (Flags::DIM, ";2"),
            (Flags::ITALIC, ";3"),
            (Flags::UNDERLINE, ";4"),
            (Flags::DOUBLE_UNDERLINE, ";4:2"),
            (Flags::UNDERCURL, ";4:3"),
            (Flags::DOTTED_UNDERLINE, ";4:4"),
            (Flags::DASHED_UNDERLINE, ";4:5"),
            (Flags::INVERSE, ";7"),
            (Flags::HIDDEN, ";8"),
            (Flags::STRIKEOUT, ";9"),
        ] {
            if pen.flags.contains(flag) {
                self.out.push_str(code);
            }
        }
        self.color(pen.fg, 30);
        self.color(pen.bg, 40);
        match pen.underline {
            Some(Color::Indexed(index)) => put(&mut self.out, format_args!(";58:5:{index}")),
            Some(Color::Spec(rgb)) => put(
                &mut self.out,
                format_args!(";58:2::{}:{}:{}", rgb.r, rgb.g, rgb.b),
            ),
            _ => {}
        }
        self.out.push('m');
        self.pen = pen;
    }

    /// `base` is 30 for the foreground, 40 for the background.
    fn color(&mut self, color: Color, base: u32) {
        match color {
            Color::Spec(rgb) => put(
                &mut self.out,
                format_args!(";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b),
            ),
            Color::Indexed(index) => put(&mut self.out, format_args!(";{};5;{index}", base + 8)),
            Color::Named(name) => match name as u32 {
                index @ 0..=7 => put(&mut self.out, format_args!(";{}", base + index)),
                index @ 8..=15 => put(&mut self.out, format_args!(";{}", base + 60 + index - 8)),
                // The default, also for the names of dim and cursor colours.
                _ => {}
            },
        }
    }

    fn end_style(&mut self) {
        if self.link.take().is_some() {
            self.out.push_str("\x1b]8;;\x1b\\");
        }
        if self.pen != Pen::plain() {
            self.out.push_str("\x1b[0m");
            self.pen = Pen::plain();
        }
    }
}

/// Gives the user's terminal the modes of the program in front. Bracketed paste and focus reports are always on, since
/// the window itself reads them.
fn modes(out: &mut String, old: Option<Modes>, new: Modes) {
    let fresh = old.is_none();
    let old = old.unwrap_or_default();
    let changed = |pick: fn(&Modes) -> u16| fresh || pick(&old) != pick(&new);
    if changed(|modes| u16::from(modes.kitty)) {
        put(out, format_args!("\x1b[={};1u", new.kitty));
    }
    if changed(|modes| u16::from(modes.modify_other_keys)) {
        put(out, format_args!("\x1b[>4;{}m", new.modify_other_keys));
    }
    if changed(|modes| u16::from(modes.application_cursor)) {
        out.push_str(if new.application_cursor {
            "\x1b[?1h"
        } else {
            "\x1b[?1l"
        });
    }
    if changed(|modes| u16::from(modes.application_keypad)) {
        out.push_str(if new.application_keypad {
            "\x1b="
        } else {
            "\x1b>"
        });
    }
    if changed(|modes| modes.mouse) {
        out.push_str("\x1b[?1003l\x1b[?1002l\x1b[?1000l");
        if new.mouse == 0 {
            out.push_str("\x1b[?1006l");
        } else {
            put(out, format_args!("\x1b[?{}h\x1b[?1006h", new.mouse));
        }
    }
}

/// DECSCUSR.
fn style(cursor: Cursor) -> u8 {
    let steady = match cursor.shape {
        CursorShape::Underline => 4,
        CursorShape::Beam => 6,
        _ => 2,
    };
    if cursor.blinking { steady - 1 } else { steady }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn narrow(column: usize) -> u16 {
    u16::try_from(column).unwrap_or(u16::MAX)
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    if out.write_fmt(arguments).is_err() {
        tracing::error!("a string refused text");
    }
}
