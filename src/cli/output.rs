//! The only printer. A reader that went away is success: `kimiq ps | head -1` must not fail.
//!
//! Colour is used on a terminal only, and never when `NO_COLOR` is set.

use std::io;
use std::io::IsTerminal;
use std::io::Write;

use serde::Serialize;

use crate::config::Environment;

/// Where results go (standard output) and where remarks go (standard error).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    colour: bool,
    colour_of_remarks: bool,
}

/// Looks of a piece of text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
    Cyan,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Green => "32",
            Self::Cyan => "36",
        }
    }
}

impl Output {
    pub(crate) fn new(env: &Environment) -> Self {
        let wanted = env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb");
        Self {
            colour: wanted && io::stdout().is_terminal(),
            colour_of_remarks: wanted && io::stderr().is_terminal(),
        }
    }

    /// Text with a look, where colours are on.
    pub(crate) fn paint(self, look: Look, text: &str) -> String {
        dress(self.colour, look, text)
    }

    /// A line of the result.
    #[expect(
        clippy::unused_self,
        reason = "who prints must have been given the printer"
    )]
    pub(crate) fn line(self, text: impl AsRef<str>) -> io::Result<()> {
        raw(format!("{}\n", text.as_ref()).as_bytes())
    }

    /// The result as JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.line(text)
    }

    /// A remark beside the result. When standard error is gone there is nobody to tell.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        self.remark(Look::Cyan, "kimiq", text.as_ref());
    }

    /// Something odd that does not stop the command.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        self.remark(Look::Yellow, "warning", text.as_ref());
    }

    /// The end of a failed command.
    pub(crate) fn error(self, text: impl AsRef<str>) {
        self.remark(Look::Red, "error", text.as_ref());
    }

    fn remark(self, look: Look, head: &str, text: &str) {
        let head = dress(self.colour_of_remarks, look, head);
        if writeln!(io::stderr().lock(), "{head}: {text}").is_err() {
            tracing::debug!("nobody reads standard error");
        }
    }

    /// Rows below a head, columns aligned by display width; `right` columns hold numbers.
    pub(crate) fn table(
        self,
        head: &[&str],
        right: &[usize],
        rows: &[Vec<String>],
    ) -> io::Result<()> {
        let widths: Vec<usize> = head
            .iter()
            .enumerate()
            .map(|(column, title)| {
                let cells = rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| width(cell));
                cells.max().unwrap_or(0).max(width(title))
            })
            .collect();
        let format = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (column, cell) in cells.enumerate() {
                let gap = widths
                    .get(column)
                    .copied()
                    .unwrap_or(0)
                    .saturating_sub(width(cell));
                if right.contains(&column) {
                    line.extend(std::iter::repeat_n(' ', gap));
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.extend(std::iter::repeat_n(' ', gap));
                }
                line.push_str("  ");
            }
            line.trim_end().to_owned()
        };
        self.line(self.paint(Look::Bold, &format(&mut head.iter().copied())))?;
        for row in rows {
            self.line(format(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// Writes bytes of the result.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Asks a question that takes yes or no; the answer is no where nobody can be asked.
pub(crate) fn ask(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let mut err = io::stderr().lock();
    if write!(err, "{question} [y/N] ")
        .and_then(|()| err.flush())
        .is_err()
    {
        return false;
    }
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok()
        && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn dress(colour: bool, look: Look, text: &str) -> String {
    if colour {
        format!("\x1b[{}m{text}\x1b[0m", look.code())
    } else {
        text.to_owned()
    }
}

/// `1 run`, `2 runs`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// Cells that a text takes, escape sequences of our own looks not counted.
fn width(text: &str) -> usize {
    let mut inside = false;
    let plain: String = text
        .chars()
        .filter(|&c| match c {
            '\x1b' => {
                inside = true;
                false
            }
            'm' if inside => {
                inside = false;
                false
            }
            _ => !inside,
        })
        .collect();
    unicode_width::UnicodeWidthStr::width(plain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_take_no_width() {
        assert_eq!(width("\x1b[31mab\x1b[0m"), 2);
        assert_eq!(width("日本"), 4);
    }
}
