//! One field of an answer as text: which channel its words belong to, and how they begin.
//!
//! Thinking may stand in the content between tags, or with the open tag missing, and an answer may follow a close tag
//! inside the reasoning field. A think block is opened only at the start of the content, after blanks and placeholders;
//! anywhere else a tag is text. It ends at its close tag, at a call, or at the end.

use crate::normalize::calls::Sink;
use crate::normalize::event::Channel;
use crate::normalize::headless;
use crate::normalize::markers::{Marker, Start};
use crate::normalize::mask::Mask;
use crate::normalize::repairs::Kind;
use crate::normalize::rules::Rules;

/// What some servers write where a message has no content.
const PLACEHOLDER: &[u8] = b"(no content)";

/// Most blanks at the start of a thought that are held, because the thought may be empty.
const MOST_BLANKS: usize = 256;

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    /// Where its words go now.
    pub(super) channel: Channel,
    pub(super) lead: Lead,
    pub(super) mask: Mask,
    /// The next word begins anew.
    pub(super) fresh: bool,
    own: Channel,
    /// The reasoning field brought words, so the content has no thought of its own.
    has_reasoning: bool,
    closing: Closing,
}

/// How far the start of a field was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nothing but blanks and placeholders so far.
    Start,
    /// A thought began, with nothing but blanks so far.
    Thought,
    /// Words came.
    Done,
}

/// Whether a close tag that no open one precedes may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// It may, unless the talk is about tags.
    Possible,
    /// A call interrupted a thought, whose close tag may follow.
    Due,
    Over,
}

impl Field {
    pub(super) fn content(rules: &Rules) -> Self {
        let (channel, lead) = if rules.starts_in_reasoning {
            (Channel::Reasoning, Lead::Thought)
        } else {
            (Channel::Content, Lead::Start)
        };
        Self {
            channel,
            lead,
            ..Self::of(Channel::Content)
        }
    }

    pub(super) fn reasoning() -> Self {
        Self::of(Channel::Reasoning)
    }

    fn of(own: Channel) -> Self {
        Self {
            channel: own,
            lead: Lead::Start,
            mask: Mask::default(),
            fresh: true,
            own,
            has_reasoning: false,
            closing: Closing::Possible,
        }
    }

    /// The reasoning field brought words.
    pub(super) fn reasoning_came(&mut self) {
        self.has_reasoning = true;
        if self.lead == Lead::Thought {
            self.channel = Channel::Content;
            self.lead = Lead::Start;
        }
    }

    /// The whole content is known: begins in a thought if a close tag comes that no open one precedes.
    pub(super) fn foresee(&mut self, content: &[u8], rules: &Rules) {
        if self.has_reasoning || self.lead != Lead::Start {
            return;
        }
        let mut start = content.trim_ascii_start();
        while let Some(rest) = start.strip_prefix(PLACEHOLDER) {
            start = rest.trim_ascii_start();
        }
        let mut mask = Mask::default();
        let mut at = content.len() - start.len();
        while let Some(next) = memchr::memchr(b'<', &content[at..]) {
            mask.advance(&content[at..at + next]);
            at += next;
            match Start::of(&content[at..], true, |_| true) {
                Start::Marker(Marker::ThinkOpen, _) if content.len() - at == start.len() => return,
                Start::Marker(marker, _) if !mask.in_code() => {
                    if marker == Marker::ThinkClose {
                        if rules.mentions_think {
                            return;
                        }
                        self.closing = Closing::Due;
                        self.channel = Channel::Reasoning;
                        return;
                    }
                    if marker.is_of_calls() && rules.recovers_calls() {
                        return;
                    }
                }
                _ => {}
            }
            mask.advance(b"<");
            at += 1;
        }
    }

    /// Whether this text holds nothing that might matter.
    pub(super) fn passes(&self, field: Channel, text: &[u8]) -> bool {
        self.lead == Lead::Done
            && self.channel == field
            && memchr::memchr3(b'<', b'`', b'~', text).is_none()
    }

    /// These words went out.
    pub(super) fn said(&mut self, text: &[u8]) {
        self.mask.advance(text);
        if let Some(last) = text.last() {
            self.fresh = !headless::is_word(*last);
        }
        if self.lead != Lead::Done && !text.trim_ascii().is_empty() {
            self.lead = Lead::Done;
        }
    }

    /// Whether a close tag, where text comes next, ends or means anything.
    pub(super) fn may_close(&self, rules: &Rules) -> bool {
        if self.channel == Channel::Reasoning {
            return true;
        }
        let leads =
            self.lead == Lead::Start && (self.has_reasoning || self.closing == Closing::Over);
        self.own == Channel::Content
            && (leads
                || match self.closing {
                    Closing::Due => true,
                    Closing::Possible => !self.has_reasoning && !rules.mentions_think,
                    Closing::Over => false,
                })
    }

    /// A close tag came where it may.
    pub(super) fn close(&mut self, sink: &mut Sink<'_>) {
        sink.count(match (self.own, self.channel) {
            (Channel::Reasoning, _) => Kind::ContentInThinking,
            (Channel::Content, Channel::Reasoning) => Kind::ThinkingInContent,
            (Channel::Content, Channel::Content) => Kind::StrayTag,
        });
        if self.channel == Channel::Reasoning {
            self.channel = Channel::Content;
            self.lead = Lead::Start;
            self.mask = Mask::default();
        }
        self.closing = Closing::Over;
    }

    /// A call begins, which ends a thought in the content.
    pub(super) fn interrupt(&mut self) {
        if self.own == Channel::Content && self.channel == Channel::Reasoning {
            self.channel = Channel::Content;
            self.lead = Lead::Start;
            self.mask = Mask::default();
            self.closing = Closing::Due;
        }
    }

    /// Reads the start: how many bytes it takes and whether they are shown. `None` leaves them to be read as any text;
    /// nothing is taken while more is needed to decide.
    pub(super) fn lead(
        &mut self,
        rest: &[u8],
        last: bool,
        rules: &Rules,
        sink: &mut Sink<'_>,
    ) -> Option<(usize, bool)> {
        let blanks = rest.len() - rest.trim_ascii_start().len();
        if self.lead == Lead::Thought {
            return thought(rest, blanks, last, rules);
        }
        if blanks > 0 {
            return Some((blanks, true));
        }
        if self.own == Channel::Content || self.channel == Channel::Content {
            if rest.starts_with(PLACEHOLDER) {
                sink.count(Kind::Placeholder);
                return Some((PLACEHOLDER.len(), false));
            }
            if !last && PLACEHOLDER.starts_with(rest) {
                return Some((0, false));
            }
        }
        match Start::of(rest, last, |marker| marker == Marker::ThinkOpen) {
            Start::Undecided => Some((0, false)),
            Start::Marker(_, length) => {
                if self.channel == Channel::Content {
                    sink.count(Kind::ThinkingInContent);
                    self.channel = Channel::Reasoning;
                    self.lead = Lead::Thought;
                    self.mask = Mask::default();
                } else {
                    sink.count(Kind::StrayTag);
                }
                Some((length, false))
            }
            Start::Nothing => None,
        }
    }
}

/// The start of a thought: blanks wait, because an empty pair of tags vanishes.
fn thought(rest: &[u8], blanks: usize, last: bool, rules: &Rules) -> Option<(usize, bool)> {
    if blanks == 0 {
        return None;
    }
    let behind = &rest[blanks..];
    let ends = |marker: Marker| {
        marker == Marker::ThinkClose || marker.is_of_calls() && rules.recovers_calls()
    };
    match Start::of(behind, last, ends) {
        _ if last && behind.is_empty() => Some((blanks, false)),
        Start::Marker(..) => Some((blanks, false)),
        Start::Undecided if blanks <= MOST_BLANKS => Some((0, false)),
        Start::Undecided | Start::Nothing => Some((blanks, true)),
    }
}
