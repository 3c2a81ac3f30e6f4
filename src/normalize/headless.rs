//! The header of a call whose beginning was lost.
//!
//! One router lets a call arrive as `NAME:0<|tool_call_argument_begin|>{…}`: its header is plain text until the marker
//! comes. So text that ends with what may become `NAME:IDX` of a declared tool, with or without `functions.`, is held
//! until it did or did not; nothing else ever is. Seen at Fireworks' router of kimi-k2p6-turbo.

use crate::normalize::names::Tools;

/// Most blanks between a header and its marker.
const MOST_BLANKS: usize = 16;

/// Most digits of a header's counter.
const MOST_DIGITS: usize = 12;

/// How many bytes at the end of this text are a header. With `open` more text may follow, and the beginning of a
/// header counts as well. `fresh` tells that the text begins a word.
pub(super) fn held(text: &[u8], fresh: bool, tools: &Tools, open: bool) -> usize {
    let body = text.trim_ascii_end();
    let blanks = text.len() - body.len();
    let word = last_word(body);
    if word.is_empty() || blanks > MOST_BLANKS || word.len() == text.len() && !fresh {
        return 0;
    }
    let may_grow = open && blanks == 0;
    if is_header(word, tools, may_grow) {
        word.len() + blanks
    } else {
        0
    }
}

/// The header at the end of this text, if it is one.
pub(super) fn at_end<'a>(text: &'a [u8], tools: &Tools) -> Option<&'a str> {
    let length = held(text, true, tools, false);
    let header = &text[text.len() - length..];
    (length > 0).then(|| std::str::from_utf8(header).ok())?
}

/// Whether this is a character of names and ids.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':')
}

fn last_word(text: &[u8]) -> &[u8] {
    let start = text.iter().rposition(|byte| !is_word(*byte));
    &text[start.map_or(0, |at| at + 1)..]
}

fn is_header(word: &[u8], tools: &Tools, may_grow: bool) -> bool {
    const PREFIX: &[u8] = b"functions.";
    if may_grow && PREFIX.starts_with(word) {
        return true;
    }
    let word = word.strip_prefix(PREFIX).unwrap_or(word);
    tools.names().any(|name| {
        let name = name.as_bytes();
        if may_grow && name.starts_with(word) {
            return true;
        }
        let digits = word
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(b":"));
        digits.is_some_and(|digits| {
            digits.len() <= MOST_DIGITS
                && digits.iter().all(u8::is_ascii_digit)
                && (may_grow || !digits.is_empty())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_their_beginnings_are_held() {
        let tools = Tools::new([("post_reply", None), ("run", None)]);
        for (text, open, closed) in [
            ("post_reply:0", 12, 12),
            ("ok post_reply:0 \n", 14, 14),
            ("functions.run:12", 16, 16),
            ("post_reply", 10, 0),
            ("so r", 1, 0),
            ("so f", 1, 0),
            ("so run ", 0, 0),
            ("so x", 0, 0),
            ("xpost_reply:0", 0, 0),
            ("other:0", 0, 0),
            ("run:0x", 0, 0),
            ("", 0, 0),
        ] {
            assert_eq!(held(text.as_bytes(), true, &tools, true), open, "{text}");
            assert_eq!(held(text.as_bytes(), true, &tools, false), closed, "{text}");
        }
        assert_eq!(held(b"run:0", false, &tools, true), 0);
        assert_eq!(at_end(b"\nrun:3", &tools), Some("run:3"));
    }
}
