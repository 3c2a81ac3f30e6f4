//! Garbled answers on the wire: the parts of a [`Script`] in chat and in messages, streamed and as one document.
//!
//! Responses are not garbled: no provider of Kimi models is known to speak that dialect.

use serde_json::Value;
use serde_json::json;

use super::agent::tokens_of;
use super::chat;
use super::garble::{CallPart, Field, HALVES, Part, Script};
use super::messages;
use super::reply::{Event, Frame};
use super::truth::Dialect;

/// The stream of a garbled answer; `None` in a dialect that has no garbled form.
pub(super) fn stream(frame: &Frame, script: &Script) -> Option<Vec<Event>> {
    let mut events = match frame.dialect {
        Dialect::Chat => chat_stream(frame, script),
        Dialect::Messages => messages_stream(frame, script),
        _ => return None,
    };
    // Markers are tokens of the model too, but they are not charged beyond the answer itself.
    let mut left = frame.tokens.generated;
    for event in &mut events {
        event.tokens = event.tokens.min(left);
        left -= event.tokens;
        event.bytes = halved(&event.bytes);
    }
    if let Some(last) = events.last_mut() {
        last.tokens += left;
    }
    Some(events)
}

/// The document of a garbled answer, if the dialect has a garbled form.
pub(super) fn document(frame: &Frame, script: &Script) -> Option<String> {
    let document = match frame.dialect {
        Dialect::Chat => chat_document(frame, script),
        Dialect::Messages => messages_document(frame, script),
        _ => return None,
    };
    Some(halved(&document.to_string()))
}

/// The stand-ins for half characters, as the escapes that they stand for.
fn halved(bytes: &str) -> String {
    let [high, low] = HALVES;
    bytes.replace(high, "\\ud83c").replace(low, "\\udf0a")
}

/// The deltas of a part that is text.
fn deltas(frame: &Frame, part: &Part) -> Option<(Field, Vec<(String, u64)>)> {
    match part {
        Part::Text(field, text) => {
            let pieces = frame.pieces(text);
            let pieces = pieces.map(|(text, tokens)| (text.to_owned(), tokens));
            Some((*field, pieces.collect()))
        }
        Part::Delta(field, text) => Some((*field, vec![(text.clone(), tokens_of(text))])),
        Part::Call(_) | Part::Noise => None,
    }
}

fn told(field: Field, text: &str) -> Value {
    match field {
        Field::Content => json!({"content": text}),
        Field::Reasoning => json!({"reasoning_content": text}),
        Field::Mirrored => {
            json!({"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text}]})
        }
    }
}

fn chat_call(part: &CallPart) -> Value {
    let mut call = json!({"index": part.index, "function": {"arguments": part.arguments}});
    if let Some(id) = &part.id {
        call["id"] = json!(id);
        call["type"] = json!("function");
    }
    if let Some(name) = &part.name {
        call["function"]["name"] = json!(name);
    }
    call
}

fn chat_stream(frame: &Frame, script: &Script) -> Vec<Event> {
    let mut events = vec![chat::opening(frame)];
    for part in &script.parts {
        match part {
            Part::Call(call) => {
                let mut delta = json!({"tool_calls": [chat_call(call)]});
                if call.thought {
                    delta["reasoning_content"] = json!("");
                }
                events.push(chat::delta(frame, delta, tokens_of(&call.arguments)));
            }
            Part::Noise => events.push(Event::new(": keep-alive\n\n".to_owned(), 0)),
            text => {
                let (field, deltas) = deltas(frame, text).unwrap_or((Field::Content, Vec::new()));
                let deltas = deltas.into_iter();
                events.extend(
                    deltas.map(|(text, tokens)| chat::delta(frame, told(field, &text), tokens)),
                );
            }
        }
    }
    events.extend(chat::ending(frame, script.finish));
    events
}

/// The parts of each call put together, in the order in which the calls began.
fn whole_calls(script: &Script) -> Vec<CallPart> {
    let mut calls: Vec<CallPart> = Vec::new();
    for part in &script.parts {
        let Part::Call(part) = part else { continue };
        match calls.iter_mut().find(|call| call.index == part.index) {
            Some(call) => call.arguments += &part.arguments,
            None => calls.push(part.clone()),
        }
    }
    calls
}

/// The texts of a field, joined.
fn joined(script: &Script, wanted: Field) -> String {
    let text = |part: &Part| match part {
        Part::Text(field, text) | Part::Delta(field, text) if *field == wanted => text.clone(),
        _ => String::new(),
    };
    script.parts.iter().map(text).collect()
}

fn chat_document(frame: &Frame, script: &Script) -> Value {
    let mut message = json!({"role": "assistant", "content": joined(script, Field::Content)});
    for field in [Field::Reasoning, Field::Mirrored] {
        let text = joined(script, field);
        if !text.is_empty()
            && let (Some(message), Value::Object(members)) =
                (message.as_object_mut(), told(field, &text))
        {
            message.extend(members);
        }
    }
    let calls: Vec<Value> = whole_calls(script).iter().map(chat_call).collect();
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    chat::envelope(frame, message, script.finish)
}

fn reason(script: &Script) -> &'static str {
    match script.finish {
        "tool_calls" => "tool_use",
        "length" => "max_tokens",
        _ => "end_turn",
    }
}

/// Ids as the dialect allows them.
fn tool_id(call: &CallPart) -> String {
    let id = call.id.clone().unwrap_or_default();
    id.replace(['.', ':'], "_")
}

/// Writes blocks, one open at a time.
struct Blocks {
    events: Vec<Event>,
    next: usize,
    open: Option<Field>,
}

impl Blocks {
    fn push(&mut self, mut event: Value, tokens: u64) {
        event["index"] = json!(self.next);
        self.events.push(Event::typed(&event, tokens));
    }

    fn delta(&mut self, delta: Value, tokens: u64) {
        self.push(
            json!({"type": "content_block_delta", "delta": delta}),
            tokens,
        );
    }

    fn start(&mut self, block: Value) {
        self.push(
            json!({"type": "content_block_start", "content_block": block}),
            0,
        );
    }

    fn stop(&mut self) {
        self.push(json!({"type": "content_block_stop"}), 0);
        self.next += 1;
    }

    fn close(&mut self) {
        match self.open.take() {
            // Thinking of the damaged sort bears no signature.
            Some(Field::Reasoning) => {
                self.delta(
                    json!({"type": "signature_delta", "signature": messages::SIGNATURE}),
                    0,
                );
                self.stop();
            }
            Some(_) => self.stop(),
            None => {}
        }
    }
}

fn messages_stream(frame: &Frame, script: &Script) -> Vec<Event> {
    let mut out = Blocks {
        events: vec![messages::opening(frame)],
        next: 0,
        open: None,
    };
    let mut calls = whole_calls(script).into_iter();
    let mut called = Vec::new();
    for part in &script.parts {
        match part {
            Part::Call(part) if called.contains(&part.index) => {}
            Part::Call(part) => {
                // Blocks cannot interleave; the disorder of calls shows in their numbers.
                out.close();
                if called.is_empty() {
                    out.next += part.index;
                }
                called.push(part.index);
                let Some(call) = calls.next() else { continue };
                out.start(json!({"type": "tool_use", "id": tool_id(&call), "name": call.name, "input": {}}));
                for (text, tokens) in frame.pieces(&call.arguments) {
                    out.delta(
                        json!({"type": "input_json_delta", "partial_json": text}),
                        tokens,
                    );
                }
                out.stop();
            }
            Part::Noise => out.events.push(Event::typed(&json!({"type": "ping"}), 0)),
            text => {
                let (field, deltas) = deltas(frame, text).unwrap_or((Field::Content, Vec::new()));
                if out.open != Some(field) {
                    out.close();
                    out.open = Some(field);
                    out.start(match field {
                        Field::Content => json!({"type": "text", "text": ""}),
                        _ => json!({"type": "thinking", "thinking": "", "signature": ""}),
                    });
                }
                for (text, tokens) in deltas {
                    let delta = match field {
                        Field::Content => json!({"type": "text_delta", "text": text}),
                        _ => json!({"type": "thinking_delta", "thinking": text}),
                    };
                    out.delta(delta, tokens);
                }
            }
        }
    }
    out.close();
    out.events.extend(messages::ending(frame, reason(script)));
    out.events
}

fn messages_document(frame: &Frame, script: &Script) -> Value {
    let mut content = Vec::new();
    for (field, signature) in [
        (Field::Reasoning, messages::SIGNATURE),
        (Field::Mirrored, ""),
    ] {
        let thinking = joined(script, field);
        if !thinking.is_empty() {
            content.push(json!({"type": "thinking", "thinking": thinking, "signature": signature}));
        }
    }
    let text = joined(script, Field::Content);
    if !text.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    content.extend(whole_calls(script).iter().map(|call| {
        let input = serde_json::from_str(&call.arguments);
        let input: Value = input.unwrap_or_else(|_| json!(call.arguments));
        json!({"type": "tool_use", "id": tool_id(call), "name": call.name, "input": input})
    }));
    messages::envelope(frame, content, reason(script))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::garble::Garble;
    use crate::simulator::reply::tests::{data, everything, frame};

    #[test]
    fn every_way_has_a_stream_and_a_document_in_both_dialects() {
        for way in Garble::all() {
            let script = way.script(&everything(), 3);
            for dialect in [Dialect::Chat, Dialect::Messages] {
                let frame = frame(dialect);
                let events = stream(&frame, &script).unwrap();
                let tokens: u64 = events.iter().map(|event| event.tokens).sum();
                assert_eq!(tokens, frame.tokens.generated, "{way}");
                let document = document(&frame, &script).unwrap();
                let document: Value = serde_json::from_str(&document).unwrap();
                assert_eq!(document["model"], "m");
                if way.to_string() != "K28" {
                    let expected = events
                        .iter()
                        .filter(|event| event.bytes.contains("data: {"));
                    assert_eq!(data(&events).len(), expected.count(), "{way}");
                }
            }
            assert!(stream(&frame(Dialect::Responses), &script).is_none());
        }
    }

    #[test]
    fn the_right_answer_is_the_usual_one() {
        let script = "K27".parse::<Garble>().unwrap().script(&everything(), 3);
        let text = |events: &[Event], pointer: &str| -> String {
            let all = data(events);
            all.iter()
                .filter_map(|event| event.pointer(pointer)?.as_str())
                .collect()
        };
        for (dialect, pointers) in [
            (
                Dialect::Chat,
                &[
                    "/choices/0/delta/content",
                    "/choices/0/delta/reasoning_content",
                    "/choices/0/delta/tool_calls/0/id",
                    "/choices/0/delta/tool_calls/0/function/arguments",
                    "/choices/0/finish_reason",
                ][..],
            ),
            (
                Dialect::Messages,
                &[
                    "/delta/text",
                    "/delta/thinking",
                    "/delta/partial_json",
                    "/delta/signature",
                    "/delta/stop_reason",
                ],
            ),
        ] {
            let frame = frame(dialect);
            let (garbled, usual) = (
                stream(&frame, &script).unwrap(),
                frame.stream(&everything()),
            );
            for pointer in pointers {
                assert_eq!(text(&garbled, pointer), text(&usual, pointer), "{pointer}");
            }
        }
    }

    #[test]
    fn half_characters_arrive_apart_and_whole_documents_join_them() {
        let script = "K28".parse::<Garble>().unwrap().script(&everything(), 0);
        let events = stream(&frame(Dialect::Chat), &script).unwrap();
        let with = |part: &str| {
            events
                .iter()
                .position(|event| event.bytes.contains(part))
                .unwrap()
        };
        assert_eq!(with("\\udf0a"), with("\\ud83c") + 2);
        let document = document(&frame(Dialect::Messages), &script).unwrap();
        assert!(document.contains("A wave \\ud83c\\udf0a é"));
    }
}
