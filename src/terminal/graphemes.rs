//! Joins the code points of one visible character into one cell.
//!
//! The emulator gives each code point its own cells; Kimi Code counts every standard emoji as two columns (measured on
//! 2.1.0), so borders would drift apart. The joiner remembers the cell that was written last, as long as the cursor
//! stays behind it, and adds to that cell what belongs to it: a joiner and what follows it, skin tones, tags, the
//! second half of a flag. A flag or an emoji presentation selector makes the cell wide. Such writes bypass the
//! emulator's record of damage, so painters compare whole frames.
//!
//! A character torn between two reads is held until it is whole.
//!
//! One cell takes a bounded number of code points: a stream of combining marks costs nothing.

use alacritty_terminal::Term;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::Flags;
use unicode_width::UnicodeWidthChar;

/// Code points that one cell takes beyond its first; the longest standard emoji sequence has ten in all.
const CLUSTER: usize = 16;

/// Below this, no code point joins or is joined by its own nature.
const FIRST_COMBINING: char = '\u{300}';
const JOINER: char = '\u{200D}';
const EMOJI_PRESENTATION: char = '\u{FE0F}';

/// What the next code point may join.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// The cell written last, while the cursor stays behind it.
    base: Option<(Line, Column)>,
    /// The last code point was a joiner.
    joining: bool,
    /// The base is the first half of a flag.
    half_flag: bool,
}

impl Joiner {
    /// The cursor moved: nothing can join any more.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.base = None;
    }

    /// Adds `c` to the last cell if it belongs there. `false`: it is a character of its own.
    pub(crate) fn join<T>(&mut self, term: &mut Term<T>, c: char) -> bool {
        if c < FIRST_COMBINING {
            return false;
        }
        let Some((line, column)) = self.base else {
            return false;
        };
        let widens = match c {
            JOINER => {
                self.joining = true;
                false
            }
            EMOJI_PRESENTATION => has_emoji_form(term.grid()[line][column].c),
            '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..='\u{E007F}' => false,
            _ if self.joining => {
                self.joining = false;
                false
            }
            _ if self.half_flag && is_half_flag(c) => {
                self.half_flag = false;
                true
            }
            // Other combining marks go the emulator's own way, unless the cell is full.
            _ => return c.width() == Some(0) && is_full(term, line, column),
        };
        if !is_full(term, line, column) {
            term.grid_mut()[line][column].push_zerowidth(c);
        }
        if widens {
            widen(term, line, column);
        }
        true
    }

    /// Remembers the cell that `c` went to; `before` is the cursor and its pending wrap before the write.
    #[inline]
    pub(crate) fn wrote<T>(&mut self, term: &Term<T>, c: char, before: ((Line, Column), bool)) {
        let cursor = &term.grid().cursor;
        let now = (
            (cursor.point.line, cursor.point.column),
            cursor.input_needs_wrap,
        );
        if now == before && c >= FIRST_COMBINING {
            // A combining mark: the base stays.
            return;
        }
        let width = if c < FIRST_COMBINING {
            1
        } else {
            c.width().unwrap_or(1).max(1)
        };
        self.joining = false;
        self.half_flag = is_half_flag(c);
        // A pending wrap leaves the cursor on the last column instead of behind it.
        let behind = cursor.point.column.0 + usize::from(cursor.input_needs_wrap);
        self.base = behind
            .checked_sub(width)
            .map(|column| (cursor.point.line, Column(column)));
    }
}

fn is_half_flag(c: char) -> bool {
    ('\u{1F1E6}'..='\u{1F1FF}').contains(&c)
}

/// Whether a character has an emoji form that the presentation selector chooses: keycaps and symbols.
fn has_emoji_form(c: char) -> bool {
    matches!(c, '#' | '*' | '0'..='9' | '\u{A9}' | '\u{AE}') || c >= '\u{203C}'
}

fn is_full<T>(term: &Term<T>, line: Line, column: Column) -> bool {
    term.grid()[line][column]
        .zerowidth()
        .is_some_and(|marks| marks.len() >= CLUSTER)
}

/// Makes the cell before the cursor two columns wide.
fn widen<T>(term: &mut Term<T>, line: Line, column: Column) {
    let columns = term.columns();
    let grid = term.grid_mut();
    let behind = grid.cursor.point.line == line && grid.cursor.point.column == column + 1;
    if !behind
        || grid.cursor.input_needs_wrap
        || grid[line][column].flags.contains(Flags::WIDE_CHAR)
    {
        return;
    }
    let next = column + 1;
    if grid[line][next].flags.contains(Flags::WIDE_CHAR) && next.0 + 1 < columns {
        // Half of a wide character is overwritten; the other half becomes blank.
        grid[line][next + 1].clear_wide();
        grid[line][next + 1].flags.remove(Flags::WIDE_CHAR_SPACER);
    }
    let mut spacer = grid[line][column].clone();
    spacer.c = ' ';
    spacer.extra = None;
    spacer.flags.insert(Flags::WIDE_CHAR_SPACER);
    grid[line][column].flags.insert(Flags::WIDE_CHAR);
    grid[line][next] = spacer;
    if next.0 + 1 < columns {
        grid.cursor.point.column = next + 1;
    } else {
        grid.cursor.input_needs_wrap = true;
    }
}

/// How many bytes at the end begin a character of UTF-8 that is not complete.
pub(crate) fn torn(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(lead) = tail.iter().rposition(|byte| *byte >= 0xc0) else {
        return 0;
    };
    let length = match tail[lead] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    let there = &tail[lead..];
    if there.len() < length && there[1..].iter().all(|byte| (0x80..0xc0).contains(byte)) {
        there.len()
    } else {
        0
    }
}
