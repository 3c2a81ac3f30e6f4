//! Answers in the dialects besides `OpenAI` chat: the vectors of garbled answers shown to clients of
//! Anthropic messages and of responses, the same damage from an upstream that speaks Anthropic messages.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "the runs tell what passed")]

mod said;
mod streams;
mod vectors;

use std::fmt::Write as _;

use kimiq::normalize::{
    Channel, Counted, Finish, MessagesEncoder, Piece, Repairer, ResponsesEncoder, Text, whole_chat,
    whole_messages,
};
use serde_json::{Value, json};

use said::Said;
use vectors::{Form, Vector};

/// Prints what passed and what failed, and fails if anything did.
fn judge(what: &str, results: Vec<(String, Vec<String>)>) {
    let failed: Vec<_> = results
        .iter()
        .filter(|(_, faults)| !faults.is_empty())
        .collect();
    let mut text = String::new();
    for (name, faults) in &failed {
        writeln!(text, "  {name}: {}", faults.join("; ")).unwrap();
    }
    println!(
        "{what}: {} of {} passed\n{text}",
        results.len() - failed.len(),
        results.len()
    );
    assert!(failed.is_empty(), "{what}");
}

#[test]
fn vectors_for_clients_of_other_dialects() {
    let mut results = Vec::new();
    for vector in Vector::each() {
        let rules = vector.rules();
        let chunks = if !rules.kimi {
            // Answers of other models never meet the repairs.
            vector.upstream()
        } else if vector.streams() {
            let stream = vectors::chat_stream(&vector);
            vectors::chunks(&vectors::repaired(
                Repairer::chat(rules, false),
                &stream,
                stream.len(),
            ))
        } else {
            let body = vector.upstream()[0].to_string();
            let repaired = whole_chat(rules, body.as_bytes()).0;
            vec![serde_json::from_slice(&repaired.unwrap_or_else(|| body.into_bytes())).unwrap()]
        };
        let events = vectors::events(&chunks);
        let none = Counted::default();
        let mut out = Vec::new();
        let mut encoder = MessagesEncoder::start("m", "kimi", none, &mut out);
        for event in &events {
            encoder.write(event, &mut out);
        }
        encoder.end(none, &mut out);
        let body =
            serde_json::from_slice(&MessagesEncoder::whole("m", "kimi", &events, none)).unwrap();
        let mut stream = Vec::new();
        let mut encoder = ResponsesEncoder::start("r", "kimi", 1, &mut stream);
        for event in &events {
            encoder.write(event, &mut stream);
        }
        encoder.end(none, &mut stream);
        let whole = serde_json::from_slice(&ResponsesEncoder::whole("r", "kimi", 1, &events, none))
            .unwrap();
        for (form, said) in [
            (Form::Messages, Said::messages(&out)),
            (Form::MessagesBody, Said::messages_body(&body)),
            (Form::Responses, Said::responses(&stream)),
            (Form::Responses, Said::responses_body(&whole)),
        ] {
            results.push((
                format!("{} {form:?}", vector.name()),
                vector.faults(&said, form),
            ));
        }
    }
    judge("vectors shown to other clients", results);
}

/// The same damage in the dialect of Anthropic messages. The thinking of a second field has no counterpart there, and
/// blocks never interleave.
const CHAT_ONLY: [&str; 2] = ["K14", "K22"];

/// Pieces as an upstream of the messages dialect writes them.
fn messages_stream(pieces: &[Piece], signature: &str, ids: bool) -> Vec<u8> {
    let mut out = String::new();
    let mut write = |event: Value| {
        writeln!(
            out,
            "event: {}\ndata: {event}\n",
            event["type"].as_str().unwrap()
        )
        .unwrap();
    };
    let json = |text: &Text| {
        let mut json = Vec::new();
        text.write_json(&mut json);
        serde_json::from_slice::<Value>(&json).unwrap()
    };
    write(
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "kimi",
        "content": [], "stop_reason": null, "usage": {"input_tokens": 0, "output_tokens": 0}}}),
    );
    let mut open: Option<(u64, String)> = None;
    let mut next = 0;
    let mut finish = None;
    let close = |open: &mut Option<(u64, String)>, write: &mut dyn FnMut(Value)| {
        if let Some((index, sort)) = open.take() {
            if sort == "thinking" && !signature.is_empty() {
                write(
                    json!({"type": "content_block_delta", "index": index, "delta": {"type": "signature_delta", "signature": signature}}),
                );
            }
            write(json!({"type": "content_block_stop", "index": index}));
        }
    };
    for piece in pieces {
        let (sort, block, delta) = match piece {
            Piece::Text(Channel::Content, text) => (
                "text".to_owned(),
                json!({"type": "text", "text": ""}),
                json!({"type": "text_delta", "text": json(text)}),
            ),
            Piece::Text(Channel::Reasoning, text) => (
                "thinking".to_owned(),
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                json!({"type": "thinking_delta", "thinking": json(text)}),
            ),
            Piece::Call(part) => {
                let id = part.id.clone().unwrap_or_default();
                let id = if ids { id.replace(['.', ':'], "_") } else { id };
                (
                    format!("call {:?}", part.slot),
                    json!({"type": "tool_use", "id": id, "name": part.name, "input": {}}),
                    json!({"type": "input_json_delta", "partial_json": part.arguments.as_ref().map_or_else(|| json!(""), &json)}),
                )
            }
            Piece::CallEnd { .. } => continue,
            Piece::Finish(reason) => {
                finish = Some(reason);
                continue;
            }
        };
        if open.as_ref().is_none_or(|(_, now)| *now != sort) {
            close(&mut open, &mut write);
            write(json!({"type": "content_block_start", "index": next, "content_block": block}));
            open = Some((next, sort));
            next += 1;
        }
        write(json!({"type": "content_block_delta", "index": next - 1, "delta": delta}));
    }
    close(&mut open, &mut write);
    if let Some(finish) = finish {
        let word = match finish {
            Finish::Stop => "end_turn",
            Finish::ToolCalls => "tool_use",
            Finish::Length => "max_tokens",
            other => other.chat(),
        };
        write(
            json!({"type": "message_delta", "delta": {"stop_reason": word, "stop_sequence": null}, "usage": {"input_tokens": 3, "output_tokens": 7}}),
        );
    }
    write(json!({"type": "message_stop"}));
    out.into_bytes()
}

/// Pieces as one body of the messages dialect. Arguments that are no object stand in a string.
fn messages_body(pieces: &[Piece]) -> Value {
    let mut content: Vec<Value> = Vec::new();
    let mut reason = Value::Null;
    let string = |text: &Text| text.to_string_lossy();
    for piece in pieces {
        match piece {
            Piece::Text(channel, text) => {
                let sort = if *channel == Channel::Content {
                    "text"
                } else {
                    "thinking"
                };
                match content.last_mut().filter(|last| last["type"] == sort) {
                    Some(last) => {
                        last[sort] =
                            json!(format!("{}{}", last[sort].as_str().unwrap(), string(text)));
                    }
                    None => content.push(json!({"type": sort, sort: string(text)})),
                }
            }
            Piece::Call(part) => {
                let arguments = part.arguments.as_ref().map(&string).unwrap_or_default();
                if let Some(name) = &part.name {
                    content.push(json!({"type": "tool_use", "id": part.id, "name": name, "input": arguments}));
                } else {
                    let last = content.last_mut().unwrap();
                    let before = last["input"].as_str().unwrap().to_owned();
                    last["input"] = json!(before + &arguments);
                }
            }
            Piece::CallEnd { .. } => {}
            Piece::Finish(finish) => {
                reason = match finish {
                    Finish::Stop => json!("end_turn"),
                    Finish::ToolCalls => json!("tool_use"),
                    Finish::Length => json!("max_tokens"),
                    other => json!(other.chat()),
                }
            }
        }
    }
    for block in &mut content {
        if let Some(input) = block["input"].as_str() {
            block["input"] = serde_json::from_str(input).unwrap_or_else(|_| json!(input));
        }
    }
    json!({"id": "m", "type": "message", "role": "assistant", "model": "kimi", "content": content, "stop_reason": reason,
        "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 7}})
}

#[test]
fn vectors_from_an_upstream_of_messages() {
    let mut results = Vec::new();
    for vector in Vector::each() {
        // Answers of other models never meet the repairs.
        if CHAT_ONLY.contains(&vector.0["kind"].as_str().unwrap()) || !vector.rules().kimi {
            continue;
        }
        let pieces = vectors::pieces(&vector);
        if vector.streams() {
            let stream = messages_stream(&pieces, "", false);
            for piece in [stream.len(), 1, 7] {
                let repairer = Repairer::messages(vector.rules(), false);
                let repaired = vectors::repaired(repairer, &stream, piece);
                let said = Said::messages(&repaired);
                results.push((
                    format!("{} by {piece}", vector.name()),
                    vector.faults(&said, Form::Messages),
                ));
            }
        } else {
            let body = messages_body(&pieces);
            let bytes = body.to_string();
            let repaired = whole_messages(vector.rules(), bytes.as_bytes()).0;
            let shown = repaired.map_or(body, |it| serde_json::from_slice(&it).unwrap());
            let said = Said::messages_body(&shown);
            results.push((vector.name(), vector.faults(&said, Form::MessagesBody)));
        }
    }
    judge("vectors from an upstream of messages", results);
}
