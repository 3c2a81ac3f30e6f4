//! Answers in the form of OpenAI chat completions, as Fireworks streams them for Kimi: thinking in
//! `reasoning_content`, tool ids `functions.NAME:INDEX`.

use serde_json::Value;
use serde_json::json;

use super::agent::Answer;
use super::agent::tokens_of;
use super::options::UsagePlacement;
use super::reply::Event;
use super::reply::Frame;

fn finish(answer: &Answer) -> &'static str {
    if answer.cut_short {
        "length"
    } else if answer.calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    }
}

fn usage(frame: &Frame) -> Value {
    let tokens = &frame.tokens;
    json!({
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.generated,
        "total_tokens": tokens.total(),
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    })
}

fn call_id(frame: &Frame, index: usize, name: &str) -> String {
    format!("functions.{name}:{}", frame.calls_before + index)
}

fn set(document: &mut Value, field: &str, value: Value) {
    if let Some(fields) = document.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

fn chunk(frame: &Frame, choices: Value) -> Value {
    json!({
        "id": frame.id, "object": "chat.completion.chunk", "created": frame.created, "model": frame.model,
        "choices": choices,
    })
}

/// A chunk with a delta.
pub(super) fn delta(frame: &Frame, delta: Value, tokens: u64) -> Event {
    let choices = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
    Event::data(&chunk(frame, choices), tokens)
}

/// The chunk that begins a stream.
pub(super) fn opening(frame: &Frame) -> Event {
    delta(frame, json!({"role": "assistant", "content": ""}), 0)
}

/// The chunks that end a stream.
pub(super) fn ending(frame: &Frame, finish: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut last = chunk(
        frame,
        json!([{"index": 0, "delta": {}, "finish_reason": finish}]),
    );
    match frame.usage {
        UsagePlacement::Finish => set(&mut last, "usage", usage(frame)),
        UsagePlacement::Separate => {
            events.push(Event::data(&last, 0));
            last = chunk(frame, json!([]));
            set(&mut last, "usage", usage(frame));
        }
        UsagePlacement::None => {}
    }
    if let Some(perf) = &frame.perf {
        set(&mut last, "perf_metrics", perf.clone());
    }
    events.push(Event::data(&last, 0));
    events.push(Event::new("data: [DONE]\n\n".to_owned(), 0));
    events
}

pub(super) fn stream(frame: &Frame, answer: &Answer) -> Vec<Event> {
    let delta = |value: Value, tokens: u64| delta(frame, value, tokens);
    let mut events = vec![opening(frame)];
    events.extend(
        frame
            .pieces(&answer.thinking)
            .map(|(text, tokens)| delta(json!({"reasoning_content": text}), tokens)),
    );
    events.extend(
        frame
            .pieces(&answer.text)
            .map(|(text, tokens)| delta(json!({"content": text}), tokens)),
    );
    for (index, call) in answer.calls.iter().enumerate() {
        let start = json!({"tool_calls": [{
            "index": index, "id": call_id(frame, index, &call.name), "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }]});
        events.push(delta(start, tokens_of(&call.name)));
        events.extend(frame.pieces(&call.arguments).map(|(part, tokens)| {
            delta(
                json!({"tool_calls": [{"index": index, "function": {"arguments": part}}]}),
                tokens,
            )
        }));
    }
    events.extend(ending(frame, finish(answer)));
    events
}

/// The document around a message.
pub(super) fn envelope(frame: &Frame, message: Value, finish: &str) -> Value {
    let mut document = json!({
        "id": frame.id, "object": "chat.completion", "created": frame.created, "model": frame.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage(frame),
    });
    if let Some(perf) = &frame.perf {
        set(&mut document, "perf_metrics", perf.clone());
    }
    document
}

pub(super) fn document(frame: &Frame, answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if !answer.thinking.is_empty() {
        set(&mut message, "reasoning_content", json!(answer.thinking));
    }
    if !answer.calls.is_empty() {
        let calls = answer.calls.iter().enumerate().map(|(index, call)| {
            json!({
                "index": index, "id": call_id(frame, index, &call.name), "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            })
        });
        set(&mut message, "tool_calls", calls.collect());
    }
    envelope(frame, message, finish(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::reply::tests::{data, everything, frame};
    use crate::simulator::truth::Dialect;

    fn collect(chunks: &[Value], pointer: &str) -> String {
        chunks
            .iter()
            .filter_map(|chunk| chunk.pointer(pointer)?.as_str())
            .collect()
    }

    #[test]
    fn a_stream_adds_up_to_the_answer() {
        let events = stream(&frame(Dialect::Chat), &everything());
        let chunks = data(&events);
        assert_eq!(
            collect(&chunks, "/choices/0/delta/reasoning_content"),
            "thoughts"
        );
        assert_eq!(collect(&chunks, "/choices/0/delta/content"), "some text");
        assert_eq!(
            collect(&chunks, "/choices/0/delta/tool_calls/0/id"),
            "functions.Read:3"
        );
        assert_eq!(
            collect(&chunks, "/choices/0/delta/tool_calls/0/function/arguments"),
            r#"{"path":"a"}"#
        );
        assert_eq!(collect(&chunks, "/choices/0/finish_reason"), "tool_calls");
        assert_eq!(events.last().unwrap().bytes, "data: [DONE]\n\n");
    }

    #[test]
    fn usage_stands_where_the_option_says() {
        let check = |placement, expected: &[(bool, bool)]| {
            let frame = Frame {
                usage: placement,
                ..frame(Dialect::Chat)
            };
            let chunks = data(&stream(&frame, &everything()));
            let tail: Vec<_> = chunks[chunks.len() - 2..]
                .iter()
                .map(|chunk| {
                    (
                        chunk["choices"] == json!([]),
                        chunk["usage"]["prompt_tokens"] == 100,
                    )
                })
                .collect();
            assert_eq!(tail, expected, "{placement}");
        };
        check(UsagePlacement::Finish, &[(false, false), (false, true)]);
        check(UsagePlacement::Separate, &[(false, false), (true, true)]);
        check(UsagePlacement::None, &[(false, false), (false, false)]);
    }

    #[test]
    fn the_document_holds_the_same() {
        let whole = document(&frame(Dialect::Chat), &everything());
        assert_eq!(
            whole["choices"][0]["message"]["reasoning_content"],
            "thoughts"
        );
        assert_eq!(
            whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
            "Read"
        );
        assert_eq!(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 60);
    }
}
