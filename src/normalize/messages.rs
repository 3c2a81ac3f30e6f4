//! The codec of Anthropic messages: events of a stream, and whole bodies.
//!
//! An event leaves as it came while the client sees the same blocks under the same numbers and the answer's machine
//! shows just what the event says. Once something was changed the client's blocks are our own: the next events are
//! written anew, until both sides stand in step again. What belongs to no block (the message's head, pings, errors)
//! always passes; of the end only the word for the finish is changed, so usage stays as the upstream told it.
//!
//! Thinking that bears no signature gets ours, since clients send thinking back only with one.

use crate::normalize::answer::Answer;
use crate::normalize::encode_messages::{Blocks, Open, Whole, stop_reason};
use crate::normalize::event::{CallPart, Channel, Event, Finish, Piece};
use crate::normalize::frames;
use crate::normalize::ids::safe;
use crate::normalize::members::{Edits, Members, items};
use crate::normalize::repairs::Kind;
use crate::normalize::stream::Codec;
use crate::normalize::text::Text;
use crate::normalize::usual::{Usual, plain};
use crate::normalize::writing::{Put, event, made};

/// The events of one stream.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// What the client has seen.
    blocks: Blocks,
    /// The upstream's open block.
    theirs: Option<Block>,
    usual: Option<Usual>,
    begun: bool,
    finished: bool,
    stopped: bool,
}

/// A block of the upstream's.
#[derive(Debug)]
struct Block {
    index: u64,
    sort: Sort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Text,
    Thinking,
    /// A call, which may have told arguments.
    Call {
        told: bool,
    },
    /// A block that we do not read.
    Other,
}

impl Sort {
    fn of(block: &Members<'_>) -> Self {
        match block.text("type").as_deref() {
            Some("text") => Self::Text,
            Some("thinking") => Self::Thinking,
            Some("tool_use") => Self::Call { told: false },
            _ => Self::Other,
        }
    }

    /// Whether the client's open block is of this sort.
    fn is(self, open: Open) -> bool {
        matches!(
            (self, open),
            (Self::Text, Open::Text)
                | (Self::Thinking, Open::Thinking { .. })
                | (Self::Call { .. }, Open::Call)
                | (Self::Other, Open::Other)
        )
    }

    fn opens(self) -> Open {
        match self {
            Self::Text => Open::Text,
            Self::Thinking => Open::Thinking { signed: false },
            Self::Call { .. } => Open::Call,
            Self::Other => Open::Other,
        }
    }
}

impl Codec for Messages {
    fn passes(&mut self, data: &[u8], answer: &mut Answer) -> bool {
        let Some(usual) = &self.usual else {
            return false;
        };
        let Some(text) = usual.text(data).filter(|text| !text.is_empty()) else {
            return false;
        };
        match memchr::memchr2(b'"', b'\\', text) {
            None => answer.passes(usual.channel, text),
            Some(_) => {
                plain(text).is_some_and(|text| answer.passes(usual.channel, text.as_bytes()))
            }
        }
    }

    fn event(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(said) = Members::of_body(data) else {
            return false;
        };
        self.usual = None;
        let index = said.get("index").and_then(|index| index.parse().ok());
        match (said.text("type").as_deref(), index) {
            (Some("message_start"), _) => {
                self.begun = true;
                false
            }
            (Some("content_block_start"), Some(index)) => self.start(index, &said, answer, out),
            (Some("content_block_delta"), Some(index)) if self.is_theirs(index) => {
                self.delta(name, data, &said, answer, out)
            }
            (Some("content_block_stop"), Some(index)) if self.is_theirs(index) => {
                self.stop(answer, out)
            }
            (Some("message_delta"), _) => self.finish(name, data, &said, answer, out),
            (Some("message_stop"), _) => {
                self.stopped = true;
                self.conclude(answer, out);
                let replaced = !out.is_empty();
                if replaced {
                    write_again(name, data, out);
                }
                replaced
            }
            _ => false,
        }
    }

    fn end(&mut self, answer: &mut Answer, out: &mut Vec<u8>) {
        if !self.begun || self.stopped {
            return;
        }
        self.conclude(answer, out);
        event(out, "message_stop", &[]);
    }
}

impl Messages {
    fn is_theirs(&self, index: u64) -> bool {
        self.theirs
            .as_ref()
            .is_some_and(|block| block.index == index)
    }

    /// Whether the client has the upstream's open block open, under the same number.
    fn in_step(&self) -> bool {
        let same = |block: &Block| {
            block.sort.is(self.blocks.open) && self.blocks.next == block.index.saturating_add(1)
        };
        self.theirs.as_ref().is_some_and(same)
    }

    fn start(
        &mut self,
        index: u64,
        said: &Members<'_>,
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool {
        let raw = said.get("content_block").unwrap_or("{}");
        let block = Members::of(raw).unwrap_or_default();
        let mut sort = Sort::of(&block);
        let mut pieces = Vec::new();
        match &mut sort {
            Sort::Text => pieces.extend(text(&block, "text", Channel::Content)),
            Sort::Thinking => pieces.extend(text(&block, "thinking", Channel::Reasoning)),
            Sort::Call { told } => {
                let part = call(index, &block);
                *told = part.arguments.is_some();
                pieces.push(Piece::Call(part));
            }
            Sort::Other => {}
        }
        let events = pushed(&pieces, answer);
        let follows = self.blocks.open == Open::Nothing && self.blocks.next == index;
        let passes = follows && shows(&pieces, &events);
        if passes {
            self.blocks.next += 1;
            self.blocks.open = sort.opens();
            self.note_signature(&block);
        } else if sort == Sort::Other {
            self.blocks.start(Open::Other, raw.as_bytes(), out);
        } else {
            self.write(&events, out);
        }
        self.theirs = Some(Block { index, sort });
        !passes
    }

    fn delta(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        said: &Members<'_>,
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(block) = &mut self.theirs else {
            return false;
        };
        let delta = said.get("delta").and_then(Members::of).unwrap_or_default();
        let (key, piece): (&[u8], _) = match delta.text("type").as_deref() {
            Some("text_delta") => (b"\"text\":", text(&delta, "text", Channel::Content)),
            Some("thinking_delta") => (
                b"\"thinking\":",
                text(&delta, "thinking", Channel::Reasoning),
            ),
            Some("input_json_delta") if matches!(block.sort, Sort::Call { .. }) => {
                let arguments = delta.get("partial_json").and_then(Text::from_json);
                let arguments = arguments.filter(|text| !text.is_empty());
                if arguments.is_some() {
                    block.sort = Sort::Call { told: true };
                }
                let slot = Some(block.index);
                let part = |text| CallPart {
                    slot,
                    arguments: Some(text),
                    ..CallPart::default()
                };
                (b"", arguments.map(|text| Piece::Call(part(text))))
            }
            Some("signature_delta") => {
                return self.signature(&delta, name, data, answer, out);
            }
            _ => return self.unread(name, data, out),
        };
        let Some(piece) = piece else {
            // An empty text says nothing; a client whose blocks are others need not see it.
            return !self.in_step();
        };
        let pieces = [piece];
        let events = pushed(&pieces, answer);
        if self.in_step() && shows(&pieces, &events) {
            if let [Piece::Text(channel, text)] = &pieces {
                self.usual = Usual::learn(data, key, *channel, text);
            }
            return false;
        }
        self.write(&events, out);
        true
    }

    fn stop(&mut self, answer: &mut Answer, out: &mut Vec<u8>) -> bool {
        let in_step = self.in_step();
        let Some(Block { index, sort }) = self.theirs.take() else {
            return false;
        };
        let slot = Some(index);
        let mut pieces = Vec::new();
        if let Sort::Call { told } = sort {
            if !told {
                // The dialect's way to say that there are no arguments.
                pieces.push(Piece::Call(CallPart {
                    slot,
                    arguments: Some("{}".into()),
                    ..CallPart::default()
                }));
            }
            pieces.push(Piece::CallEnd { slot });
        }
        let mut events = pushed(&pieces, answer);
        if pieces.is_empty() {
            answer.settle(&mut events);
        }
        let unsigned = self.blocks.open == (Open::Thinking { signed: false });
        if in_step && !unsigned && shows(&pieces, &events) {
            self.blocks.open = Open::Nothing;
            return false;
        }
        self.write(&events, out);
        if sort.is(self.blocks.open) && !matches!(sort, Sort::Call { .. }) {
            if unsigned {
                answer.count(Kind::Unsigned);
            }
            self.blocks.close(out);
        }
        true
    }

    /// A signature of the upstream's own.
    fn signature(
        &mut self,
        delta: &Members<'_>,
        name: Option<&[u8]>,
        data: &[u8],
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut held = Vec::new();
        answer.settle(&mut held);
        self.write(&held, out);
        if !matches!(self.blocks.open, Open::Thinking { .. }) {
            return true;
        }
        let passes = held.is_empty() && self.in_step();
        self.note_signature(delta);
        if !passes {
            self.renumber(name, data, out);
        }
        !passes
    }

    /// A delta that we do not read.
    fn unread(&mut self, name: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) -> bool {
        let open = self
            .theirs
            .as_ref()
            .is_some_and(|block| block.sort.is(self.blocks.open));
        if self.in_step() {
            return false;
        }
        if open {
            self.renumber(name, data, out);
        }
        true
    }

    fn note_signature(&mut self, holder: &Members<'_>) {
        let signed = holder.text("signature").is_some_and(|it| !it.is_empty());
        if let Open::Thinking { signed: known } = &mut self.blocks.open {
            *known |= signed;
        }
    }

    fn finish(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        said: &Members<'_>,
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool {
        let delta = said.get("delta").and_then(Members::of).unwrap_or_default();
        let Some(word) = delta.text("stop_reason") else {
            return false;
        };
        let events = pushed(&[Piece::Finish(finish_of(&word))], answer);
        self.finished = true;
        let told = events.iter().find_map(|event| match event {
            Event::Finish(finish) => Some(stop_reason(finish).to_owned()),
            _ => None,
        });
        let told = told.unwrap_or_else(|| word.clone().into_owned());
        let alone = events.len() == 1 && self.blocks.open == Open::Nothing;
        if alone && told == word {
            return false;
        }
        self.write(&events, out);
        self.blocks.close(out);
        let mut edits = Edits::new(data);
        if let (Some(raw), true) = (delta.get("stop_reason"), told != word) {
            edits.replace(raw, format!("\"{told}\"").into_bytes());
        }
        let changed = edits.apply();
        write_again(name, changed.as_deref().unwrap_or(data), out);
        true
    }

    /// The answer is over: what was held, and a finish if none came.
    fn conclude(&mut self, answer: &mut Answer, out: &mut Vec<u8>) {
        let mut events = Vec::new();
        answer.end(&mut events);
        self.write(&events, out);
        self.blocks.close(out);
        for event in &events {
            if let Event::Finish(finish) = event {
                write_finish(finish, out);
            }
        }
    }

    fn write(&mut self, events: &[Event], out: &mut Vec<u8>) {
        for event in events {
            self.blocks.write(event, out);
        }
    }

    /// Writes an event of the upstream's under the number of the client's open block.
    fn renumber(&self, name: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) {
        let said = Members::of_body(data).unwrap_or_default();
        let mut edits = Edits::new(data);
        if let Some(raw) = said.get("index") {
            let ours = self.blocks.next.saturating_sub(1);
            edits.replace(raw, ours.to_string().into_bytes());
        }
        let changed = edits.apply();
        write_again(name, changed.as_deref().unwrap_or(data), out);
    }
}

/// The finish that a word of the dialect means; some servers use the words of chat.
fn finish_of(word: &str) -> Finish {
    match word {
        "end_turn" | "stop" | "eos" => Finish::Stop,
        "tool_use" | "tool_calls" | "function_call" => Finish::ToolCalls,
        "max_tokens" | "length" => Finish::Length,
        "refusal" | "content_filter" => Finish::ContentFilter,
        other => Finish::Other(other.to_owned()),
    }
}

fn write_again(name: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) {
    let name = name.map(String::from_utf8_lossy);
    frames::write(name.as_deref(), data, out);
}

fn write_finish(finish: &Finish, out: &mut Vec<u8>) {
    let delta = made(&[
        ("stop_reason", Put::Word(stop_reason(finish))),
        ("stop_sequence", Put::Json(b"null")),
    ]);
    let usage = made(&[("output_tokens", Put::Count(0))]);
    let members = [("delta", Put::Json(&delta)), ("usage", Put::Json(&usage))];
    event(out, "message_delta", &members);
}

fn pushed(pieces: &[Piece], answer: &mut Answer) -> Vec<Event> {
    let mut events = Vec::new();
    for piece in pieces {
        answer.push(piece.clone(), &mut events);
    }
    events
}

/// A member that is a text with something in it.
fn text(holder: &Members<'_>, key: &str, channel: Channel) -> Option<Piece> {
    let text = holder.get(key).and_then(Text::from_json)?;
    (!text.is_empty()).then_some(Piece::Text(channel, text))
}

/// What a `tool_use` block says. Its input is empty where the arguments follow.
fn call(index: u64, block: &Members<'_>) -> CallPart {
    let word = |key: &str| block.text(key).map(std::borrow::Cow::into_owned);
    let input = block.get("input");
    let told = input.filter(|raw| {
        !matches!(*raw, "null" | "\"\"") && Members::of(raw).is_none_or(|it| !it.is_empty())
    });
    CallPart {
        slot: Some(index),
        id: word("id").filter(|id| !id.is_empty()),
        name: word("name").filter(|name| !name.is_empty()),
        arguments: told.map(Text::from),
    }
}

/// Whether the events show just these pieces, ids in the form that clients take.
fn shows(pieces: &[Piece], events: &[Event]) -> bool {
    let mut events = events.iter();
    let same = pieces.iter().all(|piece| match piece {
        Piece::Text(channel, text) => {
            matches!(events.next(), Some(Event::Text(shown, said)) if shown == channel && said == text)
        }
        Piece::Call(part) => {
            let begins = part.name.is_none()
                || matches!(events.next(), Some(Event::CallBegin { id, name, .. })
                    if part.id.as_ref() == Some(id) && part.name.as_ref() == Some(name) && safe(id) == *id);
            begins
                && part.arguments.as_ref().is_none_or(|arguments| {
                    matches!(events.next(), Some(Event::CallArguments { text, .. }) if text == arguments)
                })
        }
        Piece::CallEnd { .. } => matches!(events.next(), Some(Event::CallEnd { .. })),
        Piece::Finish(finish) => {
            matches!(events.next(), Some(Event::Finish(shown)) if shown == finish)
        }
    });
    same && events.next().is_none()
}

/// Repairs a whole body; `None` if there is nothing to repair.
pub(super) fn whole(body: &[u8], answer: &mut Answer) -> Option<Vec<u8>> {
    let top = Members::of_body(body)?;
    let content = top.get("content")?;
    let raws = items(content)?;
    let opened: Vec<_> = raws
        .iter()
        .map(|raw| Members::of(raw).unwrap_or_default())
        .collect();
    foresee(&opened, answer);
    let mut whole = Whole::default();
    let mut same = true;
    let mut push = |pieces: &[Piece], whole: &mut Whole| {
        let events = pushed(pieces, answer);
        for event in &events {
            whole.take(event);
        }
        shows(pieces, &events)
    };
    let mut unsigned = false;
    for (index, (raw, block)) in raws.iter().zip(&opened).enumerate() {
        let index = index as u64;
        let pieces: Vec<Piece> = match Sort::of(block) {
            Sort::Text => text(block, "text", Channel::Content).into_iter().collect(),
            Sort::Thinking => {
                let signature = block.get("signature").filter(|raw| raw.len() > 2);
                match signature {
                    Some(signature) => whole.sign(signature),
                    None => unsigned = true,
                }
                let text = text(block, "thinking", Channel::Reasoning);
                text.into_iter().collect()
            }
            Sort::Call { .. } => {
                let mut part = call(index, block);
                part.arguments.get_or_insert("{}".into());
                vec![Piece::Call(part), Piece::CallEnd { slot: Some(index) }]
            }
            Sort::Other => {
                whole.block(raw);
                Vec::new()
            }
        };
        same &= push(&pieces, &mut whole);
    }
    let word = top.text("stop_reason").unwrap_or_default();
    let finish = match &*word {
        "" => Finish::Missing,
        word => finish_of(word),
    };
    same &= push(&[Piece::Finish(finish)], &mut whole);
    if unsigned {
        answer.count(Kind::Unsigned);
    }
    let changed = !same || unsigned;
    let rebuilt = whole.content();
    let reason = whole.stop_reason();
    if !changed && reason == word {
        return None;
    }
    let mut edits = Edits::new(body);
    edits.replace(content, rebuilt);
    let reason = format!("\"{reason}\"");
    match top.get("stop_reason") {
        Some(raw) => edits.replace(raw, reason.into_bytes()),
        None => edits.insert(
            std::str::from_utf8(body.trim_ascii_start()).ok()?,
            &format!("\"stop_reason\":{reason}"),
        ),
    }
    edits.apply()
}

/// Tells the machine the texts of a whole answer beforehand.
fn foresee(blocks: &[Members<'_>], answer: &mut Answer) {
    let joined = |sort: Sort, key: &str| {
        let mut joined = Text::default();
        for block in blocks.iter().filter(|block| Sort::of(block) == sort) {
            let text = block.get(key).and_then(Text::from_json);
            joined.push(text.unwrap_or_default().as_bytes());
        }
        joined
    };
    let thinks = !joined(Sort::Thinking, "thinking").is_empty();
    answer.foresee(&joined(Sort::Text, "text"), thinks);
}
