//! A whole picture of the user's terminal: cells, cursor, modes.
//!
//! Cells are the emulator's own, so that a terminal's screen is copied and compared without translation. A frame is
//! normal: wide characters are followed by their spacer or replaced by a blank, control characters are blanks, and
//! flags that mean nothing on a screen are cleared.

use crate::terminal::Cell;
use crate::terminal::Color;
use crate::terminal::Cursor;
use crate::terminal::Flags;
use crate::terminal::Id;
use crate::terminal::Modes;
use crate::terminal::NamedColor;
use crate::terminal::Rgb;
use crate::terminal::Screen;
use crate::terminal::Size;
use ratatui::buffer::Buffer;
use ratatui::style::Color as Paint;
use ratatui::style::Modifier;
use unicode_width::UnicodeWidthStr;

/// Flags that say how lines were wrapped, not how they look.
const WRAPPING: Flags = Flags::WRAPLINE.union(Flags::LEADING_WIDE_CHAR_SPACER);

/// A part of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) top: u16,
    pub(crate) rows: u16,
}

/// A whole picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) size: Size,
    pub(crate) cells: Vec<Cell>,
    /// `None`: hidden.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) modes: Modes,
    /// The terminal whose screen is shown.
    pub(crate) shown: Option<Id>,
    /// What is laid over the cells has no colours.
    pub(crate) plain: bool,
    /// Nothing lies over the screen, so that it can be taken over into the next frame.
    pub(crate) whole: bool,
}

impl Frame {
    pub(crate) fn blank(size: Size) -> Self {
        Self {
            size,
            cells: vec![Cell::default(); usize::from(size.columns) * usize::from(size.rows)],
            cursor: None,
            modes: Modes::default(),
            shown: None,
            plain: false,
            whole: false,
        }
    }

    pub(crate) fn row(&self, row: u16) -> &[Cell] {
        let columns = usize::from(self.size.columns);
        let start = usize::from(row) * columns;
        &self.cells[start..start + columns]
    }

    fn row_mut(&mut self, row: u16) -> &mut [Cell] {
        let columns = usize::from(self.size.columns);
        let start = usize::from(row) * columns;
        &mut self.cells[start..start + columns]
    }

    /// Copies a terminal's screen; one of another size is cut or padded, so that the cursor's line is seen.
    pub(crate) fn place(&mut self, screen: &Screen, area: Area) {
        let cursor = screen.cursor();
        let hidden = (cursor.row + 1).saturating_sub(area.rows);
        for row in 0..area.rows {
            let source = screen.row(row + hidden);
            let target = self.row_mut(area.top + row);
            for (to, from) in target.iter_mut().zip(source) {
                to.clone_from(from);
            }
            normalize(target);
        }
        let row = cursor.row - hidden;
        self.cursor = (cursor.visible && row < area.rows && cursor.column < self.size.columns)
            .then_some(Cursor {
                row: area.top + row,
                ..cursor
            });
        self.modes = screen.modes();
    }

    /// Takes a part of another frame of the same size as it was.
    pub(crate) fn keep(&mut self, old: &Self, area: Area) {
        for row in area.top..area.top + area.rows {
            self.row_mut(row).clone_from_slice(old.row(row));
        }
        self.cursor = old.cursor;
        self.modes = old.modes;
    }

    /// Puts what was drawn with widgets over the cells; `buffer` lies somewhere inside the frame.
    pub(crate) fn lay(&mut self, buffer: &Buffer) {
        let (area, plain) = (buffer.area, self.plain);
        for y in area.top()..area.bottom().min(self.size.rows) {
            let right = area.right().min(self.size.columns);
            let row = self.row_mut(y);
            let mut spacer = false;
            for x in area.left()..right {
                let drawn = &buffer[(x, y)];
                let cell = &mut row[usize::from(x)];
                *cell = Cell {
                    fg: color(drawn.fg, NamedColor::Foreground),
                    bg: color(drawn.bg, NamedColor::Background),
                    flags: flags(drawn.modifier),
                    ..Cell::default()
                };
                if plain {
                    uncolor(cell);
                }
                if spacer {
                    cell.flags.insert(Flags::WIDE_CHAR_SPACER);
                    spacer = false;
                    continue;
                }
                let mut chars = drawn.symbol().chars();
                cell.c = chars.next().unwrap_or(' ');
                for mark in chars {
                    cell.push_zerowidth(mark);
                }
                if drawn.symbol().width() > 1 {
                    cell.flags.insert(Flags::WIDE_CHAR);
                    spacer = true;
                }
            }
            normalize(row);
        }
    }
}

/// A coloured ground is told from the default one all the same: it is reversed.
fn uncolor(cell: &mut Cell) {
    let plain = Cell::default();
    if cell.bg != plain.bg {
        cell.flags.insert(Flags::INVERSE);
    }
    (cell.fg, cell.bg) = (plain.fg, plain.bg);
}

/// Makes a row normal.
pub(crate) fn normalize(row: &mut [Cell]) {
    for column in 0..row.len() {
        let spacer_follows = row
            .get(column + 1)
            .is_some_and(|next| next.flags.contains(Flags::WIDE_CHAR_SPACER));
        let wide_precedes = column > 0 && row[column - 1].flags.contains(Flags::WIDE_CHAR);
        let cell = &mut row[column];
        cell.flags.remove(WRAPPING);
        let halved = (cell.flags.contains(Flags::WIDE_CHAR) && !spacer_follows)
            || (cell.flags.contains(Flags::WIDE_CHAR_SPACER) && !wide_precedes);
        if halved {
            cell.flags
                .remove(Flags::WIDE_CHAR | Flags::WIDE_CHAR_SPACER);
            cell.c = ' ';
            cell.extra = None;
        } else if cell.c.is_control() {
            cell.c = ' ';
        }
    }
}

fn flags(modifier: Modifier) -> Flags {
    [
        (Modifier::BOLD, Flags::BOLD),
        (Modifier::DIM, Flags::DIM),
        (Modifier::ITALIC, Flags::ITALIC),
        (Modifier::UNDERLINED, Flags::UNDERLINE),
        (Modifier::REVERSED, Flags::INVERSE),
    ]
    .into_iter()
    .filter(|(drawn, _)| modifier.contains(*drawn))
    .fold(Flags::empty(), |all, (_, flag)| all | flag)
}

fn color(paint: Paint, default: NamedColor) -> Color {
    match paint {
        Paint::Black => Color::Indexed(0),
        Paint::Red => Color::Indexed(1),
        Paint::Green => Color::Indexed(2),
        Paint::Yellow => Color::Indexed(3),
        Paint::Blue => Color::Indexed(4),
        Paint::Magenta => Color::Indexed(5),
        Paint::Cyan => Color::Indexed(6),
        Paint::Gray => Color::Indexed(7),
        Paint::DarkGray => Color::Indexed(8),
        Paint::LightRed => Color::Indexed(9),
        Paint::LightGreen => Color::Indexed(10),
        Paint::LightYellow => Color::Indexed(11),
        Paint::LightBlue => Color::Indexed(12),
        Paint::LightMagenta => Color::Indexed(13),
        Paint::LightCyan => Color::Indexed(14),
        Paint::White => Color::Indexed(15),
        Paint::Indexed(index) => Color::Indexed(index),
        Paint::Rgb(r, g, b) => Color::Spec(Rgb { r, g, b }),
        Paint::Reset => Color::Named(default),
    }
}
