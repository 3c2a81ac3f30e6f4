//! Reads the texts of a Kimi K3 answer, whose markup is another.
//!
//! ```text
//! <|open|>think<|sep|>…<|close|>think<|sep|><|open|>response<|sep|>…<|close|>response<|sep|>
//! <|open|>tools<|sep|><|open|>call tool="NAME" index="N"<|sep|>
//! <|open|>argument key="K" type="T"<|sep|>VALUE<|close|>argument<|sep|><|close|>call<|sep|>
//! <|close|>tools<|sep|><|close|>message<|sep|>
//! ```
//!
//! A string's value stands raw, any other as JSON; values of attributes are escaped as in HTML. A call may also hold its
//! arguments as one object in a `json` tag. Servers that hand the markup over as text may lose the separators, so these
//! are optional. The calls leave as JSON while they stream, and as in the older grammar nothing is closed that was
//! not. Source: tests of `SGLang`'s detector for K3.

use std::sync::Arc;

use crate::normalize::calls::Sink;
use crate::normalize::event::Channel;
use crate::normalize::mask::Mask;
use crate::normalize::repairs::Kind;
use crate::normalize::rules::Rules;
use crate::normalize::tags::{Found, Tag, find};
use crate::normalize::text::Text;

/// The reader of one answer.
#[derive(Debug)]
pub(super) struct K3 {
    rules: Arc<Rules>,
    carry: Text,
    last: Channel,
    /// Where the words of the content field go.
    channel: Channel,
    mask: Mask,
    place: Place,
}

/// Where the markup is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Text,
    /// Among calls, where words are noise.
    Tools,
    /// In a call that has so many arguments.
    Call(usize),
    Argument {
        count: usize,
        is_text: bool,
    },
    /// In arguments that stand as one object.
    Json,
}

impl K3 {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            carry: Text::default(),
            last: Channel::Content,
            channel: Channel::Content,
            mask: Mask::default(),
            place: Place::Text,
        }
    }

    /// The content is whole; if it closes a thought that it did not open, it begins in one.
    pub(super) fn foresee(&mut self, content: &Text) {
        let find = |tag: &[u8]| memchr::memmem::find(content.as_bytes(), tag);
        let closes = find(b"<|close|>think");
        if closes.is_some() && find(b"<|open|>think").is_none_or(|opens| Some(opens) > closes) {
            self.channel = Channel::Reasoning;
        }
    }

    /// Takes the next text of a field.
    pub(super) fn push(&mut self, field: Channel, text: &Text, sink: &mut Sink<'_>) {
        if text.is_empty() {
            return;
        }
        if field != self.last {
            self.settle(sink);
            self.last = field;
            self.mask = Mask::default();
        }
        self.carry.push(text.as_bytes());
        self.run(false, sink);
    }

    /// Whether text of this field passes as it is; then it is taken for passed.
    pub(super) fn passes(&mut self, field: Channel, text: &[u8]) -> bool {
        let passes = field == self.last
            && self.carry.is_empty()
            && self.place == Place::Text
            && self.target() == field
            && memchr::memchr3(b'<', b'`', b'~', text).is_none();
        if passes {
            self.mask.advance(text);
        }
        passes
    }

    /// Something else than text comes.
    pub(super) fn settle(&mut self, sink: &mut Sink<'_>) {
        if self.place == Place::Text {
            self.run(true, sink);
        }
    }

    /// The answer is over. A tag that was cut is no text.
    pub(super) fn end(&mut self, sink: &mut Sink<'_>) {
        if self.carry.as_bytes().starts_with(b"<|") && self.carry.as_bytes().len() > 2 {
            self.carry = Text::default();
            sink.count(Kind::K3Markup);
        }
        self.run(true, sink);
        if !matches!(self.place, Place::Text | Place::Tools) {
            sink.end();
        }
        self.place = Place::Text;
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.carry.as_bytes().len()
    }

    fn target(&self) -> Channel {
        match self.last {
            Channel::Content => self.channel,
            Channel::Reasoning => Channel::Reasoning,
        }
    }

    fn run(&mut self, last: bool, sink: &mut Sink<'_>) {
        let mut text = std::mem::take(&mut self.carry);
        let half = if last {
            Text::default()
        } else {
            text.split_half()
        };
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let code = self.place == Place::Text && self.mask.in_code();
            let taken = match find(rest, last) {
                Found::Tag(tag, length) if !code && self.takes(&tag, sink) => length,
                Found::Undecided if !code => break,
                _ => {
                    let next = memchr::memchr(b'<', &rest[1..]).map_or(rest.len(), |at| at + 1);
                    self.words(&rest[..next], sink);
                    next
                }
            };
            at += taken;
        }
        self.carry.push(&bytes[at..]);
        self.carry.push(half.as_bytes());
    }

    /// Words where the markup is now.
    fn words(&mut self, text: &[u8], sink: &mut Sink<'_>) {
        match self.place {
            Place::Text => {
                self.mask.advance(text);
                sink.text(self.target(), text);
            }
            Place::Tools | Place::Call(_) => {}
            Place::Argument { is_text: true, .. } => sink.arguments(&escaped(text)),
            Place::Argument { .. } | Place::Json => sink.arguments(text),
        }
    }

    /// Follows a tag; tells whether it means anything here.
    fn takes(&mut self, tag: &Tag, sink: &mut Sink<'_>) -> bool {
        let inside = !matches!(self.place, Place::Text);
        match (&self.place, tag.name, tag.opens) {
            (Place::Argument { count, is_text }, "argument", false) => {
                if *is_text {
                    sink.arguments(b"\"");
                }
                self.place = Place::Call(*count);
            }
            (Place::Json, "json", false) => self.place = Place::Call(usize::MAX),
            // Whatever else stands in a value is data.
            (Place::Argument { .. } | Place::Json, ..) => return false,
            (Place::Call(count), "argument", true) => {
                let mut head = if *count == 0 {
                    b"{".to_vec()
                } else {
                    b",".to_vec()
                };
                Text::from(&*tag.get("key")).write_json(&mut head);
                head.push(b':');
                let kind = tag.get("type");
                let is_text = kind == "string" || kind.is_empty();
                if is_text {
                    head.push(b'"');
                }
                sink.arguments(&head);
                self.place = Place::Argument {
                    count: count.saturating_add(1),
                    is_text,
                };
            }
            (Place::Call(0), "json", true) => self.place = Place::Json,
            (Place::Call(count), "call", false) => {
                sink.arguments(match *count {
                    0 => b"{}",
                    usize::MAX => b"",
                    _ => b"}",
                });
                sink.end();
                self.place = Place::Tools;
            }
            (Place::Text | Place::Tools, "call", true) if self.rules.recovers_calls() => {
                let kind = match self.last {
                    Channel::Content => Kind::CallInText,
                    Channel::Reasoning => Kind::CallInReasoning,
                };
                self.channel = Channel::Content;
                sink.begin(&tag.get("tool"), kind);
                self.place = Place::Call(0);
            }
            (Place::Text, "tools", true) if self.rules.recovers_calls() => {
                self.channel = Channel::Content;
                self.place = Place::Tools;
            }
            (_, "tools" | "message", false) if self.rules.recovers_calls() => {
                if matches!(self.place, Place::Call(_)) {
                    sink.end();
                }
                self.place = Place::Text;
            }
            (Place::Text, "think", opens) => {
                self.channel = if opens {
                    Channel::Reasoning
                } else {
                    Channel::Content
                };
            }
            (Place::Text | Place::Tools, "response", _) => {
                self.channel = Channel::Content;
                self.place = Place::Text;
            }
            (Place::Text, "message", _) => {}
            _ => return inside,
        }
        sink.count(Kind::K3Markup);
        true
    }
}

/// Raw text as the inside of a JSON string.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    Text::from_bytes(text.to_vec()).write_json(&mut out);
    out.pop();
    out.remove(0);
    out
}
