//! Answers in the form of OpenAI responses: one output item for the thinking, one for the text, one per tool call.

use serde_json::Value;
use serde_json::json;

use super::agent::Answer;
use super::agent::Call;
use super::agent::tokens_of;
use super::reply::Event;
use super::reply::Frame;

fn usage(frame: &Frame) -> Value {
    let tokens = &frame.tokens;
    json!({
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.generated,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.total(),
    })
}

/// The response object; finished when it gets its output.
fn response(frame: &Frame, answer: &Answer, output: Option<Vec<Value>>) -> Value {
    let status = match (&output, answer.cut_short) {
        (None, _) => "in_progress",
        (Some(_), true) => "incomplete",
        (Some(_), false) => "completed",
    };
    let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
    json!({
        "id": frame.id, "object": "response", "created_at": frame.created, "model": frame.model, "status": status,
        "usage": output.is_some().then(|| usage(frame)), "output": output.unwrap_or_default(),
        "incomplete_details": incomplete, "error": null,
    })
}

fn reasoning_item(frame: &Frame, text: &str) -> Value {
    let summary = if text.is_empty() {
        json!([])
    } else {
        json!([{"type": "summary_text", "text": text}])
    };
    json!({"type": "reasoning", "id": format!("rs_{}", frame.id), "summary": summary})
}

fn message_item(frame: &Frame, text: &str, status: &str) -> Value {
    let content = if text.is_empty() {
        json!([])
    } else {
        json!([{"type": "output_text", "text": text, "annotations": []}])
    };
    json!({"type": "message", "id": format!("msg_{}", frame.id), "role": "assistant", "status": status, "content": content})
}

fn call_item(frame: &Frame, index: usize, name: &str, arguments: &str, status: &str) -> Value {
    let number = frame.calls_before + index;
    json!({
        "type": "function_call", "id": format!("fc_{}_{index}", frame.id), "call_id": format!("call_{number:024}"),
        "name": name, "arguments": arguments, "status": status,
    })
}

/// Numbers the events and the output items as they come.
struct Writer {
    events: Vec<Event>,
    item: usize,
}

impl Writer {
    fn push(&mut self, mut event: Value, tokens: u64) {
        if let Some(fields) = event.as_object_mut() {
            fields.insert("sequence_number".to_owned(), self.events.len().into());
        }
        self.events.push(Event::typed(&event, tokens));
    }

    fn added(&mut self, item: Value, tokens: u64) {
        let event =
            json!({"type": "response.output_item.added", "output_index": self.item, "item": item});
        self.push(event, tokens);
    }

    fn done(&mut self, item: Value) {
        let event =
            json!({"type": "response.output_item.done", "output_index": self.item, "item": item});
        self.push(event, 0);
        self.item += 1;
    }

    fn call(&mut self, frame: &Frame, index: usize, call: &Call) {
        let id = format!("fc_{}_{index}", frame.id);
        self.added(
            call_item(frame, index, &call.name, "", "in_progress"),
            tokens_of(&call.name),
        );
        for (part, tokens) in frame.pieces(&call.arguments) {
            self.push(
                json!({
                    "type": "response.function_call_arguments.delta", "item_id": id, "output_index": self.item,
                    "delta": part,
                }),
                tokens,
            );
        }
        self.push(
            json!({
                "type": "response.function_call_arguments.done", "item_id": id, "output_index": self.item,
                "arguments": call.arguments,
            }),
            0,
        );
        self.done(call_item(
            frame,
            index,
            &call.name,
            &call.arguments,
            "completed",
        ));
    }
}

pub(super) fn stream(frame: &Frame, answer: &Answer) -> Vec<Event> {
    let mut out = Writer {
        events: Vec::new(),
        item: 0,
    };
    let open = response(frame, answer, None);
    out.push(json!({"type": "response.created", "response": open}), 0);
    out.push(json!({"type": "response.in_progress", "response": open}), 0);
    if !answer.thinking.is_empty() {
        let id = format!("rs_{}", frame.id);
        let place = |kind: &str, index: usize, field: &str, value: Value| json!({"type": kind, "item_id": id, "output_index": index, "summary_index": 0, field: value});
        out.added(reasoning_item(frame, ""), 0);
        let part = json!({"type": "summary_text", "text": ""});
        out.push(
            place(
                "response.reasoning_summary_part.added",
                out.item,
                "part",
                part,
            ),
            0,
        );
        for (text, tokens) in frame.pieces(&answer.thinking) {
            out.push(
                place(
                    "response.reasoning_summary_text.delta",
                    out.item,
                    "delta",
                    text.into(),
                ),
                tokens,
            );
        }
        let whole = answer.thinking.as_str();
        out.push(
            place(
                "response.reasoning_summary_text.done",
                out.item,
                "text",
                whole.into(),
            ),
            0,
        );
        let part = json!({"type": "summary_text", "text": whole});
        out.push(
            place(
                "response.reasoning_summary_part.done",
                out.item,
                "part",
                part,
            ),
            0,
        );
        out.done(reasoning_item(frame, whole));
    }
    if !answer.text.is_empty() {
        let id = format!("msg_{}", frame.id);
        let place = |kind: &str, index: usize, field: &str, value: Value| json!({"type": kind, "item_id": id, "output_index": index, "content_index": 0, field: value});
        out.added(message_item(frame, "", "in_progress"), 0);
        let part = json!({"type": "output_text", "text": "", "annotations": []});
        out.push(
            place("response.content_part.added", out.item, "part", part),
            0,
        );
        for (text, tokens) in frame.pieces(&answer.text) {
            out.push(
                place("response.output_text.delta", out.item, "delta", text.into()),
                tokens,
            );
        }
        let whole = answer.text.as_str();
        out.push(
            place("response.output_text.done", out.item, "text", whole.into()),
            0,
        );
        let part = json!({"type": "output_text", "text": whole, "annotations": []});
        out.push(
            place("response.content_part.done", out.item, "part", part),
            0,
        );
        out.done(message_item(frame, whole, "completed"));
    }
    for (index, call) in answer.calls.iter().enumerate() {
        out.call(frame, index, call);
    }
    let kind = if answer.cut_short {
        "response.incomplete"
    } else {
        "response.completed"
    };
    out.push(
        json!({"type": kind, "response": document(frame, answer)}),
        0,
    );
    out.events
}

pub(super) fn document(frame: &Frame, answer: &Answer) -> Value {
    let mut output = Vec::new();
    if !answer.thinking.is_empty() {
        output.push(reasoning_item(frame, &answer.thinking));
    }
    if !answer.text.is_empty() {
        output.push(message_item(frame, &answer.text, "completed"));
    }
    output.extend(
        answer
            .calls
            .iter()
            .enumerate()
            .map(|(index, call)| call_item(frame, index, &call.name, &call.arguments, "completed")),
    );
    response(frame, answer, Some(output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::reply::tests::{data, everything, frame};
    use crate::simulator::truth::Dialect;

    #[test]
    fn every_item_is_added_and_done_under_its_own_index() {
        let events = data(&stream(&frame(Dialect::Responses), &everything()));
        let items: Vec<_> = events
            .iter()
            .filter(|event| event.get("item").is_some())
            .map(|event| {
                let kind = event["type"]
                    .as_str()
                    .unwrap()
                    .trim_start_matches("response.output_item.");
                format!(
                    "{kind} {} {}",
                    event["output_index"],
                    event["item"]["type"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            items,
            [
                "added 0 reasoning",
                "done 0 reasoning",
                "added 1 message",
                "done 1 message",
                "added 2 function_call",
                "done 2 function_call"
            ]
        );
        let numbers: Vec<_> = events
            .iter()
            .filter_map(|event| event["sequence_number"].as_u64())
            .collect();
        assert!(numbers.iter().copied().eq(0..events.len() as u64));
    }

    #[test]
    fn the_end_reports_usage_and_whether_the_answer_is_whole() {
        let check = |answer: &Answer, kind: &str, status: &str| {
            let events = data(&stream(&frame(Dialect::Responses), answer));
            let last = events.last().unwrap();
            assert_eq!(
                (last["type"].as_str(), last["response"]["status"].as_str()),
                (Some(kind), Some(status))
            );
            assert_eq!(
                last["response"]["usage"]["input_tokens_details"]["cached_tokens"],
                60
            );
        };
        check(&everything(), "response.completed", "completed");
        check(
            &everything().within(Some(1)),
            "response.incomplete",
            "incomplete",
        );
    }
}
