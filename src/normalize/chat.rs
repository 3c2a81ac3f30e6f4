//! The codec of `OpenAI` chat: chunks of a stream, and whole bodies.
//!
//! A chunk is read into pieces, and if the answer's machine shows just these pieces again the chunk leaves as it came.
//! Otherwise each event gets a chunk of its own in the upstream's envelope: id, model, time and what else the upstream
//! says stay as they are, what belongs to the delta goes with the first of them, usage and the finish with the last.
//!
//! Three fields are read as reasoning, as providers have them: `reasoning_content` (Moonshot, Fireworks), `reasoning`
//! and `reasoning_details` (OpenRouter). Only the first is written. Answers with several choices pass unread, since no
//! client of ours asks for them.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::normalize::answer::Answer;
use crate::normalize::event::{CallPart, Channel, Event, Finish, Piece};
use crate::normalize::frames;
use crate::normalize::members::{Members, items};
use crate::normalize::repairs::Kind;
use crate::normalize::stream::Codec;
use crate::normalize::text::Text;
use crate::normalize::usual::{Usual, plain};
use crate::normalize::writing::Writer;

const DONE: &[u8] = b"[DONE]";

/// Most bytes of an envelope that are kept.
const LARGEST_ENVELOPE: usize = 4096;

/// The chunks of one stream.
#[derive(Debug, Default)]
pub(super) struct Chat {
    usual: Option<Usual>,
    /// The envelope of the first chunk, for a chunk that the upstream did not send.
    envelope: Vec<(String, String)>,
}

impl Codec for Chat {
    fn passes(&mut self, data: &[u8], answer: &mut Answer) -> bool {
        let Some(usual) = &self.usual else {
            return false;
        };
        let Some(text) = usual.text(data) else {
            return false;
        };
        match memchr::memchr2(b'"', b'\\', text) {
            None => !text.is_empty() && answer.passes(usual.channel, text),
            Some(_) => {
                plain(text).is_some_and(|text| answer.passes(usual.channel, text.as_bytes()))
            }
        }
    }

    fn event(
        &mut self,
        _name: Option<&[u8]>,
        data: &[u8],
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool {
        if data.trim_ascii() == DONE {
            let before = out.len();
            self.end(answer, out);
            let replaced = out.len() > before;
            if replaced {
                frames::write(None, data, out);
            }
            return replaced;
        }
        let Some(chunk) = Chunk::read(data) else {
            return false;
        };
        if self.envelope.is_empty() {
            self.envelope = chunk.envelope();
        }
        let mut events = Vec::new();
        for repair in &chunk.delta.repairs {
            answer.count(*repair);
        }
        for piece in &chunk.delta.pieces {
            answer.push(piece.clone(), &mut events);
        }
        if chunk.delta.repairs.is_empty() && shows(&chunk.delta.pieces, &events, answer.calls()) {
            self.learn(data, &chunk.delta.pieces);
            return false;
        }
        chunk.write(&events, out);
        true
    }

    fn end(&mut self, answer: &mut Answer, out: &mut Vec<u8>) {
        let mut events = Vec::new();
        answer.end(&mut events);
        if self.envelope.is_empty() {
            return;
        }
        let top = self.envelope.iter().map(|(key, value)| (&**key, &**value));
        let top: Vec<_> = top.chain([("choices", "")]).collect();
        let deltas = Deltas::of(&events);
        write_chunks(&top, &[], &[], &deltas, out);
    }
}

impl Chat {
    fn learn(&mut self, data: &[u8], pieces: &[Piece]) {
        let [Piece::Text(channel, text)] = pieces else {
            return;
        };
        let name: &[u8] = match channel {
            Channel::Content => b"\"content\":",
            Channel::Reasoning => b"\"reasoning_content\":",
        };
        self.usual = Usual::learn(data, name, *channel, text);
    }
}

/// Whether the events show just these pieces, when so many calls have begun.
fn shows(pieces: &[Piece], events: &[Event], calls: usize) -> bool {
    let mut events = events
        .iter()
        .filter(|event| !matches!(event, Event::CallEnd { .. }));
    let same = pieces.iter().all(|piece| match piece {
        Piece::Text(channel, text) => {
            matches!(events.next(), Some(Event::Text(shown, said)) if shown == channel && said == text)
        }
        Piece::Call(part) => {
            let slot = part.slot.and_then(|slot| usize::try_from(slot).ok());
            let begins = part.name.is_none()
                || matches!(events.next(), Some(Event::CallBegin { index, id, name })
                    if Some(*index) == slot && part.id.as_ref() == Some(id) && part.name.as_ref() == Some(name));
            let arguments = part.arguments.as_ref().filter(|text| !text.is_empty());
            begins
                && slot.is_some_and(|slot| slot < calls)
                && arguments.is_none_or(|arguments| {
                    matches!(events.next(), Some(Event::CallArguments { index, text })
                        if Some(*index) == slot && text == arguments)
                })
        }
        Piece::CallEnd { .. } => true,
        Piece::Finish(finish) => {
            matches!(events.next(), Some(Event::Finish(shown)) if shown == finish)
        }
    });
    same && events.next().is_none()
}

/// A chunk of one choice.
#[derive(Debug)]
struct Chunk<'a> {
    top: Members<'a>,
    choice: Members<'a>,
    delta: Said<'a>,
}

/// What a delta or a message says.
#[derive(Debug)]
struct Said<'a> {
    members: Members<'a>,
    pieces: Vec<Piece>,
    /// Damage that shows in the form alone.
    repairs: Vec<Kind>,
}

impl<'a> Chunk<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let top = Members::of_body(data)?;
        let choices = items(top.told("choices")?)?;
        let [choice] = choices.as_slice() else {
            return None;
        };
        let choice = Members::of(choice)?;
        if choice.told("index").is_some_and(|index| index != "0") {
            return None;
        }
        let members = Members::of(choice.told("delta")?)?;
        let mut delta = Said::read(members, false);
        if let Some(finish) = choice.text("finish_reason") {
            delta.pieces.push(Piece::Finish(Finish::of_chat(&finish)));
        }
        Some(Self { top, choice, delta })
    }

    fn envelope(&self) -> Vec<(String, String)> {
        let members = self.top.iter().filter(|(key, value)| {
            !matches!(*key, "choices" | "usage") && value.len() <= LARGEST_ENVELOPE
        });
        let owned = members.map(|(key, value)| (key.to_owned(), value.to_owned()));
        owned.take(16).collect()
    }

    fn write(&self, events: &[Event], out: &mut Vec<u8>) {
        let deltas = Deltas::of(events);
        let top: Vec<_> = self.top.iter().collect();
        let choice: Vec<_> = self
            .choice
            .iter()
            .filter(|(key, _)| !matches!(*key, "index" | "delta" | "finish_reason"))
            .collect();
        let others: Vec<_> = self.delta.others().collect();
        write_chunks(&top, &choice, &others, &deltas, out);
    }
}

impl<'a> Said<'a> {
    /// Reads a delta, or, with `whole`, a message, whose calls stand in the order of their numbers.
    fn read(members: Members<'a>, whole: bool) -> Self {
        let mut said = Self {
            members,
            pieces: Vec::new(),
            repairs: Vec::new(),
        };
        let mut calls = Vec::new();
        said.calls(whole, &mut calls);
        if whole {
            said.pieces.append(&mut calls);
        }
        if let Some(text) = said.reasoning() {
            said.pieces.push(Piece::Text(Channel::Reasoning, text));
        }
        if let Some(text) = said.members.said("content").filter(|text| !text.is_empty()) {
            said.pieces.push(Piece::Text(Channel::Content, text));
        }
        said.pieces.append(&mut calls);
        said
    }

    fn reasoning(&mut self) -> Option<Text> {
        let own = self.members.said("reasoning_content");
        let filled = |text: &Text| !text.is_empty();
        let other = self.members.said("reasoning").filter(filled);
        let details = self.details().filter(filled);
        if other.is_none() && details.is_none() {
            return own;
        }
        self.repairs.push(Kind::ReasoningField);
        own.filter(filled).or(other).or(details)
    }

    /// The texts of `reasoning_details`, joined.
    fn details(&self) -> Option<Text> {
        let details = items(self.members.told("reasoning_details")?)?;
        let mut joined = Text::default();
        for detail in details {
            let detail = Members::of(detail)?;
            if detail
                .text("type")
                .is_none_or(|kind| kind == "reasoning.text")
            {
                joined.push(detail.said("text").unwrap_or_default().as_bytes());
            }
        }
        Some(joined)
    }

    fn calls(&mut self, whole: bool, pieces: &mut Vec<Piece>) {
        let Some(calls) = self.members.told("tool_calls").and_then(items) else {
            return;
        };
        if calls.is_empty() {
            self.repairs.push(Kind::CallOrder);
        }
        for (number, call) in calls.into_iter().enumerate() {
            let Some(call) = Members::of(call) else {
                continue;
            };
            let function = call
                .told("function")
                .and_then(Members::of)
                .unwrap_or_default();
            let slot = if whole {
                u64::try_from(number).ok()
            } else {
                call.told("index").and_then(|index| index.parse().ok())
            };
            let arguments = match function.iter().find(|(key, _)| *key == "arguments") {
                None => None,
                Some((_, "null")) => {
                    self.repairs.push(Kind::ArgumentsForm);
                    Some(Text::default())
                }
                Some((_, value)) if value.starts_with('"') => Text::from_json(value),
                Some((_, value)) => {
                    self.repairs.push(Kind::ArgumentsForm);
                    Some(Text::from(value))
                }
            };
            let filled = |text: Cow<'_, str>| (!text.is_empty()).then(|| text.into_owned());
            pieces.push(Piece::Call(CallPart {
                slot,
                id: call.text("id").and_then(filled),
                name: function.text("name").and_then(filled),
                arguments,
            }));
        }
    }

    /// The members that are no part of what is said.
    fn others(&self) -> impl Iterator<Item = (&str, &'a str)> {
        let unread = |name: &str, value: &str| match name {
            "content" => !value.starts_with('"') && value != "null",
            "reasoning_content" | "reasoning" | "tool_calls" => false,
            "reasoning_details" => self.details().is_none_or(|text| text.is_empty()),
            _ => true,
        };
        self.members
            .iter()
            .filter(move |(name, value)| unread(name, value))
    }
}

/// Events as the deltas of chunks, and the finish that the last of them tells.
#[derive(Debug, Default)]
struct Deltas<'a> {
    deltas: Vec<&'a Event>,
    finish: Option<&'a Finish>,
}

impl<'a> Deltas<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut deltas = Self::default();
        for event in events {
            match event {
                Event::CallEnd { .. } => {}
                Event::Finish(finish) => deltas.finish = Some(finish),
                other => deltas.deltas.push(other),
            }
        }
        deltas
    }
}

/// Writes chunks in an envelope, whose member `choices` shows where the deltas go.
fn write_chunks(
    top: &[(&str, &str)],
    choice: &[(&str, &str)],
    others: &[(&str, &str)],
    deltas: &Deltas<'_>,
    out: &mut Vec<u8>,
) {
    let told = |members: &[(&str, &str)]| members.iter().any(|(_, value)| *value != "null");
    let usage = top.iter().find(|(key, _)| *key == "usage");
    let says = deltas.finish.is_some()
        || told(others)
        || told(choice)
        || usage.is_some_and(|(_, value)| *value != "null");
    let count = deltas.deltas.len().max(usize::from(says));
    for number in 0..count {
        let last = number + 1 == count;
        let mut data = Vec::new();
        let mut chunk = Writer::object(&mut data);
        for (key, value) in top {
            match *key {
                "choices" => {
                    let list = chunk.key(key);
                    list.push(b'[');
                    let mut one = Writer::object(list);
                    one.raw("index", "0");
                    let event = deltas.deltas.get(number).copied();
                    let others = if number == 0 { others } else { &[] };
                    write_delta(event, others, one.key("delta"));
                    if last {
                        for (key, value) in choice {
                            one.raw(key, value);
                        }
                    }
                    match deltas.finish.filter(|_| last) {
                        Some(finish) => one.text("finish_reason", &Text::from(finish.chat())),
                        None => one.raw("finish_reason", "null"),
                    };
                    one.close();
                    list.push(b']');
                }
                "usage" if !last => {}
                key => {
                    chunk.raw(key, value);
                }
            }
        }
        chunk.close();
        frames::write(None, &data, out);
    }
}

fn write_delta(event: Option<&Event>, others: &[(&str, &str)], out: &mut Vec<u8>) {
    let mut delta = Writer::object(out);
    for (key, value) in others {
        delta.raw(key, value);
    }
    match event {
        Some(Event::Text(Channel::Content, text)) => {
            delta.text("content", text);
        }
        Some(Event::Text(Channel::Reasoning, text)) => {
            delta.text("reasoning_content", text);
        }
        Some(Event::CallBegin { index, id, name }) => {
            let list = delta.key("tool_calls");
            list.push(b'[');
            write_call(Some(*index), Some((id, name)), &Text::default(), list);
            list.push(b']');
        }
        Some(Event::CallArguments { index, text }) => {
            let list = delta.key("tool_calls");
            list.push(b'[');
            write_call(Some(*index), None, text, list);
            list.push(b']');
        }
        Some(Event::CallEnd { .. } | Event::Finish(_)) | None => {}
    }
    delta.close();
}

fn write_call(
    index: Option<usize>,
    begin: Option<(&str, &str)>,
    arguments: &Text,
    out: &mut Vec<u8>,
) {
    let mut call = Writer::object(out);
    if let Some(index) = index {
        call.raw("index", &index.to_string());
    }
    if let Some((id, _)) = begin {
        call.text("id", &Text::from(id)).raw("type", "\"function\"");
    }
    let mut function = Writer::object(call.key("function"));
    if let Some((_, name)) = begin {
        function.text("name", &Text::from(name));
    }
    function.text("arguments", arguments);
    function.close();
    call.close();
}

/// Repairs a whole body; `None` if there is nothing to repair.
pub(super) fn whole(body: &[u8], answer: &mut Answer) -> Option<Vec<u8>> {
    if is_plain(body) {
        return None;
    }
    let top = Members::of_body(body)?;
    let choices = items(top.told("choices")?)?;
    let [choice] = choices.as_slice() else {
        return None;
    };
    let choice = Members::of(choice)?;
    let mut said = Said::read(Members::of(choice.told("message")?)?, true);
    let finish = choice.text("finish_reason");
    let finish = finish.map_or(Finish::Missing, |word| Finish::of_chat(&word));
    said.pieces.push(Piece::Finish(finish));
    let has_reasoning = said
        .pieces
        .iter()
        .any(|piece| matches!(piece, Piece::Text(Channel::Reasoning, text) if !text.is_empty()));
    let mut events = Vec::new();
    for repair in &said.repairs {
        answer.count(*repair);
    }
    for piece in &said.pieces {
        if let Piece::Text(Channel::Content, text) = piece {
            answer.foresee(text, has_reasoning);
        }
        answer.push(piece.clone(), &mut events);
    }
    if said.repairs.is_empty() && shows(&said.pieces, &events, answer.calls()) {
        return None;
    }
    let message = Message::of(&events);
    let mut out = Vec::with_capacity(body.len());
    let mut writer = Writer::object(&mut out);
    for (key, value) in top.iter() {
        if key == "choices" {
            let list = writer.key(key);
            list.push(b'[');
            message.write(&choice, &said, list);
            list.push(b']');
        } else {
            writer.raw(key, value);
        }
    }
    writer.close();
    Some(out)
}

/// Whether an answer in one body is nothing but text that came to its end, so that there is nothing to read in it: told
/// by a few searches, which cost a fraction of opening it.
fn is_plain(body: &[u8]) -> bool {
    static KEYS: LazyLock<[Finder<'static>; 4]> = LazyLock::new(|| {
        [
            "\"content\":\"",
            "\"finish_reason\":\"stop\"",
            "_call",
            "\"reasoning",
        ]
        .map(Finder::new)
    });
    let [content, finish, calls, reasoning] = &*KEYS;
    let begins = |text: &[u8]| !matches!(text.first(), None | Some(b'"' | b'\\' | b' ' | b'('));
    memchr::memchr(b'<', body).is_none()
        && content
            .find(body)
            .is_some_and(|at| begins(&body[at + content.needle().len()..]))
        && finish.find(body).is_some()
        && calls.find(body).is_none()
        && reasoning.find(body).is_none()
        && (memchr::memchr(b'\\', body).is_none() || memchr::memmem::find(body, b"\\u00").is_none())
}

/// A whole answer, put together.
#[derive(Debug, Default)]
struct Message {
    content: Text,
    reasoning: Option<Text>,
    calls: Vec<(String, String, Text)>,
    finish: Option<Finish>,
}

impl Message {
    fn of(events: &[Event]) -> Self {
        let mut message = Self::default();
        for event in events {
            match event {
                Event::Text(Channel::Content, text) => message.content.push(text.as_bytes()),
                Event::Text(Channel::Reasoning, text) => {
                    let reasoning = message.reasoning.get_or_insert_default();
                    reasoning.push(text.as_bytes());
                }
                Event::CallBegin { id, name, .. } => {
                    let call = (id.clone(), name.clone(), Text::default());
                    message.calls.push(call);
                }
                Event::CallArguments { text, .. } => {
                    if let Some((_, _, arguments)) = message.calls.last_mut() {
                        arguments.push(text.as_bytes());
                    }
                }
                Event::CallEnd { .. } => {}
                Event::Finish(finish) => message.finish = Some(finish.clone()),
            }
        }
        message
    }

    fn write(&self, choice: &Members<'_>, said: &Said<'_>, out: &mut Vec<u8>) {
        let mut one = Writer::object(out);
        for (key, value) in choice.iter() {
            match key {
                "message" => self.write_message(said, one.key(key)),
                "finish_reason" => {}
                key => {
                    one.raw(key, value);
                }
            }
        }
        let finish = self.finish.as_ref().map_or("stop", Finish::chat);
        one.text("finish_reason", &Text::from(finish));
        one.close();
    }

    fn write_message(&self, said: &Said<'_>, out: &mut Vec<u8>) {
        let mut message = Writer::object(out);
        for (key, value) in said.others() {
            message.raw(key, value);
        }
        if said.others().all(|(key, _)| key != "content") {
            if self.content.is_empty() && !self.calls.is_empty() {
                message.raw("content", "null");
            } else {
                message.text("content", &self.content);
            }
        }
        if let Some(reasoning) = &self.reasoning {
            message.text("reasoning_content", reasoning);
        }
        if !self.calls.is_empty() {
            let list = message.key("tool_calls");
            list.push(b'[');
            for (number, (id, name, arguments)) in self.calls.iter().enumerate() {
                if number > 0 {
                    list.push(b',');
                }
                write_call(None, Some((id, name)), arguments, list);
            }
            list.push(b']');
        }
        message.close();
    }
}
