//! Where text is code.
//!
//! Engines tell markers by their token, a proxy sees only characters; what stands in code is taken for typed text. The
//! mask follows Markdown as it streams, a byte at a time at most, and knows fences of backticks or tildes as `CommonMark`
//! has them, also in lists and quotes, and inline spans that are still open on their line. It never looks ahead: an
//! open span counts as code until its line ends, whether or not it will be closed.

use memchr::{memchr2, memchr3, memrchr};

/// Follows one text.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    place: Place,
    /// Only blanks, quote and list signs stood on this line so far.
    line_start: bool,
    /// The run of fence signs that the text ends with: the sign, how many, and whether it began the line.
    run: Run,
    /// The text ends with a backslash that escapes what follows.
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Text,
    /// In an inline span opened by so many backticks.
    Span(usize),
    /// In a fence of so many of this sign; on its first line while `info` holds.
    Fence {
        sign: u8,
        length: usize,
        info: bool,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    sign: u8,
    length: usize,
    at_start: bool,
}

impl Default for Mask {
    fn default() -> Self {
        Self {
            place: Place::Text,
            line_start: true,
            run: Run::default(),
            escaped: false,
        }
    }
}

impl Mask {
    /// Whether the next character, if it is no sign of code itself, stands in code.
    pub(super) fn in_code(&self) -> bool {
        if self.run.length == 0 {
            return self.place != Place::Text;
        }
        let mut after = self.clone();
        after.close_run(b'x');
        after.place != Place::Text
    }

    /// Takes the next text.
    pub(super) fn advance(&mut self, text: &[u8]) {
        if self.place == Place::Text
            && self.run.length == 0
            && !self.escaped
            && memchr3(b'`', b'~', b'\\', text).is_none()
        {
            self.plain(text);
            return;
        }
        let mut at = 0;
        while at < text.len() {
            if self.run.length == 0 && !self.line_start && !self.escaped {
                at += self.skip(&text[at..]);
            }
            if let Some(&byte) = text.get(at) {
                self.byte(byte);
                at += 1;
            }
        }
    }

    /// Takes text that holds no sign of code.
    fn plain(&mut self, text: &[u8]) {
        let line = memrchr(b'\n', text).map(|at| at + 1);
        self.line_start = (self.line_start || line.is_some())
            && text[line.unwrap_or(0)..].iter().copied().all(is_prefix);
    }

    /// How much of the text changes nothing.
    fn skip(&self, text: &[u8]) -> usize {
        let next = match self.place {
            Place::Fence { info: false, .. } => memchr::memchr(b'\n', text),
            Place::Span(_) => memchr2(b'`', b'\n', text),
            Place::Text | Place::Fence { info: true, .. } => memchr3(b'`', b'\n', b'\\', text),
        };
        next.unwrap_or(text.len())
    }

    fn byte(&mut self, byte: u8) {
        if self.run.length > 0 && byte == self.run.sign {
            self.run.length += 1;
            return;
        }
        self.close_run(byte);
        if std::mem::take(&mut self.escaped) && byte != b'\n' {
            self.line_start = false;
            return;
        }
        match byte {
            b'\n' => self.end_line(),
            b'`' | b'~' => {
                self.run = Run {
                    sign: byte,
                    length: 1,
                    at_start: self.line_start,
                };
            }
            b'\\' if self.place == Place::Text => {
                self.escaped = true;
                self.line_start = false;
            }
            other => self.line_start &= is_prefix(other),
        }
    }

    /// The run of signs is over, because another byte comes.
    fn close_run(&mut self, next: u8) {
        let Run {
            sign,
            length,
            at_start,
        } = std::mem::take(&mut self.run);
        if length == 0 {
            return;
        }
        self.place = match self.place {
            Place::Text if at_start && length >= 3 => Place::Fence {
                sign,
                length,
                info: true,
            },
            Place::Text if sign == b'`' => Place::Span(length),
            Place::Span(open) if sign == b'`' && open == length => Place::Text,
            // Backticks after backticks on one line are a span and no fence.
            Place::Fence {
                sign: b'`',
                length: open,
                info: true,
            } if sign == b'`' => {
                if open == length {
                    Place::Text
                } else {
                    Place::Span(open)
                }
            }
            Place::Fence {
                sign: open,
                length: least,
                info: false,
            } if at_start && sign == open && length >= least && next.is_ascii_whitespace() => {
                Place::Text
            }
            same => same,
        };
        self.line_start = false;
    }

    fn end_line(&mut self) {
        self.place = match self.place {
            Place::Span(_) => Place::Text,
            Place::Fence { sign, length, .. } => Place::Fence {
                sign,
                length,
                info: false,
            },
            Place::Text => Place::Text,
        };
        self.line_start = true;
    }
}

/// What may stand before a fence on its line: blanks, and the signs of quotes and lists.
fn is_prefix(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | b'\r' | b'>' | b'-' | b'*' | b'+' | b'.' | b')'
    ) || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(text: &str) -> bool {
        let mut mask = Mask::default();
        mask.advance(text.as_bytes());
        mask.in_code()
    }

    #[test]
    fn code_is_told_from_text() {
        for (text, code) in [
            ("", false),
            ("say `", true),
            ("say `x` ", false),
            ("say `x`", false),
            ("say ``x` ", true),
            ("say ``x`` ", false),
            ("say `x\n", false),
            ("say \\`x ", false),
            ("a\n```\n", true),
            ("a\n```rust\nlet", true),
            ("a\n```\nx\n```\n", false),
            ("a\n```\nx\n```", true),
            ("a\n```\nx\n``` y\nz", false),
            ("a\n```\nx\n```y\nz", true),
            ("a\n````\nx\n```\n", true),
            ("a\n````\nx\n`````\n", false),
            ("~~~\n```\n~~~\n", false),
            ("~~~\n```\nx", true),
            ("~~ x", false),
            ("1. ```\n   x", true),
            ("> ```\n> x\n> ```\n", false),
            ("```x``` y", false),
            ("```x `` y", true),
            ("text ```\n", false),
            ("\\\\`x", true),
        ] {
            assert_eq!(after(text), code, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_is_the_same(text in "[a`~\n\\\\ >-]{0,24}", cut in 0usize..24) {
            let cut = cut.min(text.len());
            let mut mask = Mask::default();
            mask.advance(&text.as_bytes()[..cut]);
            mask.advance(&text.as_bytes()[cut..]);
            prop_assert_eq!(mask.in_code(), after(&text));
        }
    }
}
