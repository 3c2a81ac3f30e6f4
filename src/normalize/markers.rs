//! The markers of Kimi's own tool grammar, as text.
//!
//! ```text
//! answer   := [ "<think>" text "</think>" ] content [ section ]
//! section  := "<|tool_calls_section_begin|>" call+ "<|tool_calls_section_end|>"
//! call     := "<|tool_call_begin|>" id "<|tool_call_argument_begin|>" json-object "<|tool_call_end|>"
//! id       := "functions." NAME ":" DIGITS
//! ```
//!
//! For the engine they are single tokens; a gateway that turns tokens to text may cut them anywhere. So a text that
//! ends with the beginning of a marker is undecided, and nothing longer ever is. The singular section markers are what
//! some servers write. Source: tool call guidance of `MoonshotAI/Kimi-K2`; parsers of vLLM and `SGLang`.

/// One marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    SectionBegin,
    SectionEnd,
    CallBegin,
    Arguments,
    CallEnd,
    /// The end of a turn, which a detokenizer may leave at the end of the text.
    TurnEnd,
    /// A tag of another grammar, which Kimi sometimes ends its words with.
    ForeignCall,
    ThinkOpen,
    ThinkClose,
}

impl Marker {
    /// Whether it belongs to a section or a call.
    pub(super) fn is_of_calls(self) -> bool {
        matches!(
            self,
            Self::SectionBegin
                | Self::SectionEnd
                | Self::CallBegin
                | Self::Arguments
                | Self::CallEnd
        )
    }

    /// Whether it may be the last thing of an answer without meaning anything.
    fn may_end(self) -> bool {
        matches!(
            self,
            Self::SectionEnd | Self::CallEnd | Self::TurnEnd | Self::ForeignCall
        )
    }
}

const MARKERS: &[(&[u8], Marker)] = &[
    (b"<|tool_calls_section_begin|>", Marker::SectionBegin),
    (b"<|tool_call_section_begin|>", Marker::SectionBegin),
    (b"<|tool_calls_section_end|>", Marker::SectionEnd),
    (b"<|tool_call_section_end|>", Marker::SectionEnd),
    (b"<|tool_call_begin|>", Marker::CallBegin),
    (b"<|tool_call_argument_begin|>", Marker::Arguments),
    (b"<|tool_call_end|>", Marker::CallEnd),
    (b"<|im_end|>", Marker::TurnEnd),
    (b"<tool_call>", Marker::ForeignCall),
    (b"<think>", Marker::ThinkOpen),
    (b"<thinking>", Marker::ThinkOpen),
    (b"</think>", Marker::ThinkClose),
    (b"</thinking>", Marker::ThinkClose),
];

/// What a text that begins with `<` begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A marker of this length.
    Marker(Marker, usize),
    /// The whole text may be the beginning of a marker.
    Undecided,
    Nothing,
}

impl Start {
    /// Looks at the beginning of a text, for the markers that matter there. With `last` no more text comes, and nothing
    /// is undecided.
    pub(super) fn of(text: &[u8], last: bool, matters: impl Fn(Marker) -> bool) -> Self {
        let mut start = Self::Nothing;
        for (word, marker) in MARKERS.iter().filter(|(_, marker)| matters(*marker)) {
            if text.starts_with(word) {
                return Self::Marker(*marker, word.len());
            }
            if !last && word.starts_with(text) {
                start = Self::Undecided;
            }
        }
        start
    }
}

/// Whether the text, which begins with a marker that may end an answer, is nothing but such markers to its end; `None`
/// while that may still be.
pub(super) fn is_tail(mut text: &[u8], last: bool) -> Option<bool> {
    if text.len() > LONGEST_TAIL {
        return Some(false);
    }
    loop {
        text = text.trim_ascii_start();
        if text.is_empty() {
            return last.then_some(true);
        }
        match Start::of(text, last, Marker::may_end) {
            Start::Marker(Marker::ForeignCall, length) => {
                let word = text[length..].iter().take_while(|byte| is_word(**byte));
                text = &text[length + word.count()..];
            }
            Start::Marker(_, length) => text = &text[length..],
            Start::Undecided => return None,
            Start::Nothing => return Some(false),
        }
    }
}

const LONGEST_TAIL: usize = 512;

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_told() {
        for (text, expected) in [
            ("<|tool_call_begin|>x", Start::Marker(Marker::CallBegin, 19)),
            ("<|tool_call_", Start::Undecided),
            ("<", Start::Undecided),
            ("<|x", Start::Nothing),
            ("</thinking> a", Start::Marker(Marker::ThinkClose, 11)),
            ("<tool_calls>", Start::Nothing),
        ] {
            assert_eq!(
                Start::of(text.as_bytes(), false, |_| true),
                expected,
                "{text}"
            );
        }
        assert_eq!(Start::of(b"<|tool", true, |_| true), Start::Nothing);
        let foreign = |marker| marker == Marker::ForeignCall;
        assert_eq!(Start::of(b"<|tool", false, foreign), Start::Nothing);
    }

    #[test]
    fn tails_are_markers_to_the_end() {
        for (text, open, closed) in [
            ("<|im_end|>", None, Some(true)),
            ("<|im_end|>\n<|im_end|> ", None, Some(true)),
            ("<tool_call>Web<tool_call>mcp__per", None, Some(true)),
            ("<tool_call>Web is", Some(false), Some(false)),
            ("<|im_end|> and", Some(false), Some(false)),
            ("<tool_call>Web<|im_e", None, Some(false)),
        ] {
            assert_eq!(is_tail(text.as_bytes(), false), open, "{text}");
            assert_eq!(is_tail(text.as_bytes(), true), closed, "{text}");
        }
    }
}
