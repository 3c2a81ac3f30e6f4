//! Answers in the form of Anthropic messages, as Fireworks documents its own: zeros as usage in `message_start`, the real
//! one in the single `message_delta`, cached tokens outside `input_tokens`, no `[DONE]`.

use serde_json::Value;
use serde_json::json;

use super::agent::Answer;
use super::agent::tokens_of;
use super::reply::Event;
use super::reply::Frame;

/// The client sends it back with the thinking; nobody verifies it here.
pub(super) const SIGNATURE: &str = "c2ltdWxhdGVk";

fn stop_reason(answer: &Answer) -> &'static str {
    if answer.cut_short {
        "max_tokens"
    } else if answer.calls.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    }
}

fn usage(frame: &Frame) -> Value {
    json!({
        "input_tokens": frame.tokens.uncached(),
        "cache_read_input_tokens": frame.tokens.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": frame.tokens.generated,
    })
}

fn call_id(frame: &Frame, index: usize) -> String {
    format!("toolu_{:024}", frame.calls_before + index)
}

/// The event that begins a stream.
pub(super) fn opening(frame: &Frame) -> Event {
    Event::typed(
        &json!({"type": "message_start", "message": {
            "id": frame.id, "type": "message", "role": "assistant", "model": frame.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0},
        }}),
        0,
    )
}

/// The events that end a stream.
pub(super) fn ending(frame: &Frame, reason: &str) -> [Event; 2] {
    let delta = json!({
        "type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage(frame),
    });
    [
        Event::typed(&delta, 0),
        Event::typed(&json!({"type": "message_stop"}), 0),
    ]
}

/// The document around its blocks.
pub(super) fn envelope(frame: &Frame, content: Vec<Value>, reason: &str) -> Value {
    json!({
        "id": frame.id, "type": "message", "role": "assistant", "model": frame.model, "content": content,
        "stop_reason": reason, "stop_sequence": null, "usage": usage(frame),
    })
}

pub(super) fn stream(frame: &Frame, answer: &Answer) -> Vec<Event> {
    let mut events = vec![opening(frame)];
    let mut index = 0;
    let mut block = |start: Value, start_tokens: u64, deltas: Vec<(Value, u64)>| {
        events.push(Event::typed(
            &json!({"type": "content_block_start", "index": index, "content_block": start}),
            start_tokens,
        ));
        events.extend(deltas.into_iter().map(|(delta, tokens)| {
            Event::typed(
                &json!({"type": "content_block_delta", "index": index, "delta": delta}),
                tokens,
            )
        }));
        events.push(Event::typed(
            &json!({"type": "content_block_stop", "index": index}),
            0,
        ));
        index += 1;
    };
    if !answer.thinking.is_empty() {
        let deltas = frame
            .pieces(&answer.thinking)
            .map(|(text, tokens)| (json!({"type": "thinking_delta", "thinking": text}), tokens))
            .chain([(
                json!({"type": "signature_delta", "signature": SIGNATURE}),
                0,
            )]);
        block(
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            0,
            deltas.collect(),
        );
    }
    if !answer.text.is_empty() {
        let deltas = frame
            .pieces(&answer.text)
            .map(|(text, tokens)| (json!({"type": "text_delta", "text": text}), tokens));
        block(json!({"type": "text", "text": ""}), 0, deltas.collect());
    }
    for (number, call) in answer.calls.iter().enumerate() {
        let deltas = frame.pieces(&call.arguments).map(|(part, tokens)| {
            (
                json!({"type": "input_json_delta", "partial_json": part}),
                tokens,
            )
        });
        block(
            json!({"type": "tool_use", "id": call_id(frame, number), "name": call.name, "input": {}}),
            tokens_of(&call.name),
            deltas.collect(),
        );
    }
    events.extend(ending(frame, stop_reason(answer)));
    events
}

pub(super) fn document(frame: &Frame, answer: &Answer) -> Value {
    let mut content = Vec::new();
    if !answer.thinking.is_empty() {
        content
            .push(json!({"type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE}));
    }
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    content.extend(answer.calls.iter().enumerate().map(|(number, call)| {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        json!({"type": "tool_use", "id": call_id(frame, number), "name": call.name, "input": input})
    }));
    envelope(frame, content, stop_reason(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::reply::tests::{data, everything, frame};
    use crate::simulator::truth::Dialect;

    #[test]
    fn blocks_open_and_close_in_order() {
        let events = data(&stream(&frame(Dialect::Messages), &everything()));
        let mut shape: Vec<String> = events
            .iter()
            .map(|event| {
                let index = event.get("index").map(Value::to_string).unwrap_or_default();
                format!("{}{index}", event["type"].as_str().unwrap())
            })
            .collect();
        shape.dedup();
        let block =
            |n: u8| ["start", "delta", "stop"].map(|part| format!("content_block_{part}{n}"));
        let expected = [
            &["message_start".to_owned()][..],
            &block(0),
            &block(1),
            &block(2),
            &["message_delta".to_owned(), "message_stop".to_owned()],
        ]
        .concat();
        assert_eq!(shape, expected);
    }

    #[test]
    fn usage_is_zero_first_and_leaves_the_cached_tokens_apart_last() {
        let events = data(&stream(&frame(Dialect::Messages), &everything()));
        assert_eq!(events[0]["message"]["usage"]["input_tokens"], 0);
        let last = &events[events.len() - 2];
        assert_eq!(last["delta"]["stop_reason"], "tool_use");
        assert_eq!(
            last["usage"],
            json!({
                "input_tokens": 40, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 0, "output_tokens": 9,
            })
        );
    }

    #[test]
    fn the_document_holds_the_same() {
        let whole = document(&frame(Dialect::Messages), &everything());
        assert_eq!(whole["content"][0]["thinking"], "thoughts");
        assert_eq!(whole["content"][2]["input"], json!({"path": "a"}));
        assert_eq!(whole["usage"]["input_tokens"], 40);
    }
}
