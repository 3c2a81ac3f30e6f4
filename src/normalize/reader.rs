//! Reads an answer's texts: what is text, what is a call that came as text.
//!
//! Both fields of an answer, content and reasoning, go through one reader, because a section may begin in the one and
//! end in the other. Outside of calls it passes text on at once and holds at most an undecided marker, the header of a
//! call whose beginning was lost ([`headless`]), or, in a talk about markers, a section that may still be canonical
//! ([`guard`]). Inside it knows three places: between the calls of a section, in a header, in the arguments.
//!
//! Words between calls are noise and dropped, but only once a marker shows that the section went on; if none does, they
//! were the answer's words and are given back at the end. So are words behind complete arguments.
//!
//! Where text is code ([`Mask`](super::mask::Mask)) nothing is a marker.

use std::sync::Arc;

use crate::normalize::boundary::Boundary;
use crate::normalize::calls::Sink;
use crate::normalize::event::Channel;
use crate::normalize::field::{Field, Lead};
use crate::normalize::guard::{self, Verdict};
use crate::normalize::headless;
use crate::normalize::markers::{self, Marker, Start};
use crate::normalize::repairs::Kind;
use crate::normalize::rules::Rules;
use crate::normalize::text::Text;

/// Most noise that is held; beyond, it is taken for words.
const MOST_NOISE: usize = 16 * 1024;

/// Longest header of a call.
const LONGEST_HEADER: usize = 256;

/// Most blanks between an argument marker and its object that are waited for.
const MOST_BLANKS: usize = 64;

/// Shortest beginning of a marker that nobody means as text.
const SHORTEST_FRAGMENT: usize = b"<|too".len();

/// The reader of one answer.
#[derive(Debug)]
pub(super) struct Reader {
    rules: Arc<Rules>,
    place: Place,
    /// What is undecided of the field that came last.
    carry: Text,
    /// That field.
    last: Channel,
    content: Field,
    reasoning: Field,
}

#[derive(Debug)]
enum Place {
    Text,
    /// Between the calls of a section, with the noise that stood there.
    Section(Vec<u8>),
    Header {
        header: Vec<u8>,
        in_section: bool,
    },
    Arguments {
        boundary: Boundary,
        /// What stood behind the complete arguments.
        behind: Vec<u8>,
        in_section: bool,
    },
}

impl Reader {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        let content = Field::content(&rules);
        Self {
            rules,
            place: Place::Text,
            carry: Text::default(),
            last: Channel::Content,
            content,
            reasoning: Field::reasoning(),
        }
    }

    /// The content is whole; a close tag in it, without an open one, makes what stands before it thinking.
    pub(super) fn foresee(&mut self, content: &Text) {
        self.content.foresee(content.as_bytes(), &self.rules);
    }

    /// Takes the next text of a field.
    pub(super) fn push(&mut self, field: Channel, text: &Text, sink: &mut Sink<'_>) {
        if text.is_empty() {
            return;
        }
        if field != self.last {
            self.settle(sink);
            self.last = field;
        }
        if field == Channel::Reasoning {
            self.content.reasoning_came();
        }
        self.carry.push(text.as_bytes());
        self.run(false, sink);
    }

    /// Whether text of this field that holds nothing suspicious passes as it is; then it is taken for passed.
    pub(super) fn passes(&mut self, field: Channel, text: &[u8]) -> bool {
        if field != self.last || !self.carry.is_empty() || !matches!(self.place, Place::Text) {
            return false;
        }
        let recovers = self.rules.recovers_calls() && !self.rules.mentions_markers;
        let seen = self.field();
        if !seen.passes(field, text) {
            return false;
        }
        if recovers && headless::held(text, seen.fresh, &self.rules.tools, true) > 0 {
            return false;
        }
        self.field_mut().said(text);
        true
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        let place = match &self.place {
            Place::Text => 0,
            Place::Section(noise) => noise.len(),
            Place::Header { header, .. } => header.len(),
            Place::Arguments { behind, .. } => behind.len(),
        };
        place + self.carry.as_bytes().len()
    }

    /// Something else than text comes: what is undecided outside of calls is decided.
    pub(super) fn settle(&mut self, sink: &mut Sink<'_>) {
        if matches!(self.place, Place::Text) {
            self.run(true, sink);
        }
    }

    /// The answer is over.
    pub(super) fn end(&mut self, sink: &mut Sink<'_>) {
        self.drop_fragment(sink);
        self.run(true, sink);
        match std::mem::replace(&mut self.place, Place::Text) {
            Place::Text => {}
            Place::Section(noise) => self.say(&noise, sink),
            Place::Header { .. } => sink.count(Kind::CallDropped),
            Place::Arguments { behind, .. } => {
                sink.end();
                if behind.iter().any(u8::is_ascii_alphanumeric) {
                    self.say(&behind, sink);
                } else if !behind.trim_ascii().is_empty() {
                    sink.count(Kind::TrailingJunk);
                }
            }
        }
    }

    /// A marker that was cut by the end is no text. Outside of calls the shortest beginnings are, as in `a <`.
    fn drop_fragment(&mut self, sink: &mut Sink<'_>) {
        let carry = self.carry.as_bytes();
        let Some(at) = memchr::memrchr(b'<', carry) else {
            return;
        };
        let fragment = &carry[at..];
        let inside = !matches!(self.place, Place::Text);
        let cut = |marker: Marker| marker.is_of_calls() && (inside || self.matters(marker));
        if (inside || fragment.len() >= SHORTEST_FRAGMENT)
            && Start::of(fragment, false, cut) == Start::Undecided
        {
            self.carry = Text::from_bytes(carry[..at].to_vec());
            sink.count(Kind::OrphanMarker);
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
            let taken = self.step(&bytes[at..], last, sink);
            if taken == 0 {
                break;
            }
            at += taken;
        }
        self.carry.push(&bytes[at..]);
        self.carry.push(half.as_bytes());
    }

    /// Takes the next bytes and tells how many; none while more are needed to decide.
    fn step(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> usize {
        match self.place {
            Place::Text => self.text(rest, last, sink),
            Place::Section(_) => self.between(rest, last, sink),
            Place::Header { .. } => self.header(rest, last, sink),
            Place::Arguments { .. } => self.arguments(rest, last, sink),
        }
    }

    fn field(&self) -> &Field {
        match self.last {
            Channel::Content => &self.content,
            Channel::Reasoning => &self.reasoning,
        }
    }

    fn field_mut(&mut self) -> &mut Field {
        match self.last {
            Channel::Content => &mut self.content,
            Channel::Reasoning => &mut self.reasoning,
        }
    }

    fn say(&mut self, text: &[u8], sink: &mut Sink<'_>) {
        let field = self.field_mut();
        field.said(text);
        sink.text(field.channel, text);
    }

    /// Whether a marker means anything in the text that comes.
    fn matters(&self, marker: Marker) -> bool {
        match marker {
            Marker::ThinkOpen => false,
            Marker::ThinkClose => self.field().may_close(&self.rules),
            Marker::SectionBegin => self.rules.recovers_calls(),
            _ => self.rules.recovers_calls() && !self.rules.mentions_markers,
        }
    }

    // Outside of calls.

    fn text(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> usize {
        if let Some(taken) = self.lead(rest, last, sink) {
            return taken;
        }
        let mut from = 0;
        if rest[0] == b'<' {
            if !self.field().mask.in_code() {
                match Start::of(rest, last, |marker| self.matters(marker)) {
                    Start::Undecided => return 0,
                    Start::Marker(marker, length) => {
                        if let Some(taken) = self.marker(marker, length, rest, last, sink) {
                            return taken;
                        }
                    }
                    Start::Nothing => {}
                }
            }
            from = 1;
        }
        let next = memchr::memchr(b'<', &rest[from..]).map_or(rest.len(), |at| from + at);
        let (run, behind) = rest.split_at(next);
        let held = self.headless(run, behind, last);
        if held < run.len() {
            self.say(&run[..run.len() - held], sink);
            return run.len() - held;
        }
        match Start::of(behind, last, |marker| marker == Marker::Arguments) {
            Start::Marker(_, length) => {
                let header = String::from_utf8_lossy(run).into_owned();
                self.begin(&header, Kind::HeadlessCall, false, sink);
                run.len() + length
            }
            _ => 0,
        }
    }

    /// How much of the run's end waits for an argument marker behind it.
    fn headless(&self, run: &[u8], behind: &[u8], last: bool) -> usize {
        if !self.matters(Marker::Arguments) {
            return 0;
        }
        let open = behind.is_empty();
        if open && last {
            return 0;
        }
        let next = Start::of(behind, last, |marker| marker == Marker::Arguments);
        if next == Start::Nothing {
            return 0;
        }
        let field = self.field();
        let held = headless::held(run, field.fresh, &self.rules.tools, open);
        if held == 0 {
            return 0;
        }
        let mut mask = field.mask.clone();
        mask.advance(run);
        if mask.in_code() { 0 } else { held }
    }

    /// The start of an answer or of a thought: placeholders, tags, blanks.
    fn lead(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> Option<usize> {
        if self.field().lead == Lead::Done {
            return None;
        }
        let rules = self.rules.clone();
        let field = self.field_mut();
        let (taken, shown) = field.lead(rest, last, &rules, sink)?;
        if shown {
            self.say(&rest[..taken], sink);
        }
        Some(taken)
    }

    /// A marker in text; `None` if it is text after all.
    fn marker(
        &mut self,
        marker: Marker,
        length: usize,
        rest: &[u8],
        last: bool,
        sink: &mut Sink<'_>,
    ) -> Option<usize> {
        match marker {
            Marker::ThinkOpen => return None,
            Marker::ThinkClose => self.field_mut().close(sink),
            Marker::SectionBegin if self.rules.mentions_markers => {
                return self.guarded(rest, last, sink);
            }
            Marker::SectionBegin => {
                self.field_mut().interrupt();
                self.place = Place::Section(Vec::new());
            }
            Marker::CallBegin => {
                self.field_mut().interrupt();
                self.place = Place::Header {
                    header: Vec::new(),
                    in_section: false,
                };
            }
            Marker::Arguments => {
                let behind = rest[length..].trim_ascii_start();
                if behind.is_empty() && !last && rest.len() < length + MOST_BLANKS {
                    return Some(0);
                }
                if behind.starts_with(b"{") {
                    self.begin("", Kind::HeadlessCall, false, sink);
                } else {
                    sink.count(Kind::OrphanMarker);
                }
            }
            Marker::CallEnd | Marker::SectionEnd => sink.count(Kind::OrphanMarker),
            Marker::TurnEnd | Marker::ForeignCall => match markers::is_tail(rest, last) {
                None => return Some(0),
                Some(false) => return None,
                Some(true) => {
                    sink.count(Kind::OrphanMarker);
                    return Some(rest.len());
                }
            },
        }
        self.field_mut().fresh = true;
        Some(length)
    }

    fn guarded(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> Option<usize> {
        let rules = self.rules.clone();
        match guard::read(rest, &rules.tools, last) {
            Verdict::Text => None,
            Verdict::Undecided => Some(0),
            Verdict::Section(length, calls) => {
                self.field_mut().interrupt();
                for (header, arguments) in calls {
                    sink.begin(header, self.kind());
                    sink.arguments(arguments);
                    sink.end();
                }
                Some(length)
            }
        }
    }

    // Inside.

    fn kind(&self) -> Kind {
        match self.last {
            Channel::Content => Kind::CallInText,
            Channel::Reasoning => Kind::CallInReasoning,
        }
    }

    fn begin(&mut self, header: &str, kind: Kind, in_section: bool, sink: &mut Sink<'_>) {
        self.field_mut().interrupt();
        sink.begin(header, kind);
        self.place = Place::Arguments {
            boundary: Boundary::default(),
            behind: Vec::new(),
            in_section,
        };
    }

    fn between(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> usize {
        let Place::Section(noise) = &mut self.place else {
            return 0;
        };
        let (taken, marker) = match Start::of(rest, last, Marker::is_of_calls) {
            Start::Marker(marker, length) => (length, Some(marker)),
            Start::Undecided => return 0,
            Start::Nothing => (run(rest), None),
        };
        let Some(marker) = marker else {
            noise.extend_from_slice(&rest[..taken]);
            if noise.len() > MOST_NOISE {
                let noise = std::mem::take(noise);
                self.place = Place::Text;
                self.say(&noise, sink);
            }
            return taken;
        };
        match marker {
            Marker::CallBegin => self.place = header(true),
            Marker::SectionEnd => self.place = Place::Text,
            Marker::Arguments => {
                let noise = std::mem::take(noise);
                let header = headless::at_end(&noise, &self.rules.tools).unwrap_or_default();
                self.begin(header, Kind::HeadlessCall, true, sink);
            }
            _ => {}
        }
        taken
    }

    fn header(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> usize {
        let Place::Header { header, in_section } = &mut self.place else {
            return 0;
        };
        let in_section = *in_section;
        let (marker, taken) = match Start::of(rest, last, Marker::is_of_calls) {
            Start::Marker(marker, length) => (marker, length),
            Start::Undecided => return 0,
            Start::Nothing => {
                let taken = run(rest);
                header.extend_from_slice(&rest[..taken]);
                if header.len() > LONGEST_HEADER || !in_section && !may_be_id(header) {
                    let mut words = b"<|tool_call_begin|>".to_vec();
                    words.append(header);
                    self.place = Place::Text;
                    self.say(&words, sink);
                }
                return taken;
            }
        };
        if marker == Marker::Arguments {
            let header = String::from_utf8_lossy(header).into_owned();
            self.begin(&header, self.kind(), in_section, sink);
        } else {
            sink.count(Kind::CallDropped);
            self.after_call(marker, in_section);
        }
        taken
    }

    fn arguments(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> usize {
        let Place::Arguments {
            boundary,
            behind,
            in_section,
        } = &mut self.place
        else {
            return 0;
        };
        if boundary.is_empty() && rest[0].is_ascii_whitespace() {
            return rest.len() - rest.trim_ascii_start().len();
        }
        if !boundary.is_complete() {
            let taken = boundary.take(rest);
            if taken > 0 {
                sink.arguments(&rest[..taken]);
                return taken;
            }
        }
        let (marker, taken) = match Start::of(rest, last, Marker::is_of_calls) {
            Start::Marker(marker, length) => (marker, length),
            Start::Undecided => return 0,
            Start::Nothing if boundary.is_complete() => {
                let taken = run(rest);
                behind.extend_from_slice(&rest[..taken]);
                if behind.len() > MOST_NOISE {
                    let words = std::mem::take(behind);
                    self.place = Place::Text;
                    sink.end();
                    self.say(&words, sink);
                }
                return taken;
            }
            Start::Nothing => {
                boundary.take_one(rest[0]);
                sink.arguments(&rest[..1]);
                return 1;
            }
        };
        let in_section = *in_section;
        if marker == Marker::Arguments {
            let behind = std::mem::take(behind);
            if let Some(header) = headless::at_end(&behind, &self.rules.tools) {
                sink.end();
                self.begin(header, Kind::HeadlessCall, in_section, sink);
            }
            return taken;
        }
        if !behind.trim_ascii().is_empty() {
            sink.count(Kind::TrailingJunk);
        }
        sink.end();
        self.after_call(marker, in_section);
        taken
    }

    /// Where the text goes on after the marker that ended a call.
    fn after_call(&mut self, marker: Marker, in_section: bool) {
        self.place = match marker {
            Marker::CallBegin => header(in_section),
            Marker::SectionBegin => Place::Section(Vec::new()),
            Marker::CallEnd if in_section => Place::Section(Vec::new()),
            _ => Place::Text,
        };
        self.field_mut().fresh = true;
    }
}

fn header(in_section: bool) -> Place {
    Place::Header {
        header: Vec::new(),
        in_section,
    }
}

/// How much there is before the next `<` that is not the first byte.
fn run(rest: &[u8]) -> usize {
    memchr::memchr(b'<', &rest[1..]).map_or(rest.len(), |at| at + 1)
}

/// Whether this may be, or become, the id of a call with blanks around it. What is not was typed by somebody.
fn may_be_id(header: &[u8]) -> bool {
    let id = header.trim_ascii();
    id.iter().all(|byte| headless::is_word(*byte))
}
