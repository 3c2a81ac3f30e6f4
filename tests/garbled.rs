//! Each way in which the simulated upstream garbles an answer, undone: what a client gets says the same as the answer
//! that was not garbled, in chat and in messages, streamed and whole.
//!
//! `cargo test --test garbled -- --nocapture` prints, for each way, what a client would have made of it without repair.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support {
    pub(crate) mod upstream;
}
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "dialects/said.rs"]
mod said;

use std::sync::Arc;

use bytes::Bytes;
use http::Request as Http;
use http_body_util::BodyExt;
use kimiq::normalize::{Repairer, Request, whole_chat, whole_messages};
use kimiq::simulator::{Commands, Garble, Options, declared};
use kimiq::wire::Dialect;
use serde_json::{Value, json};

use said::{Call, Said, payloads};
use support::upstream::{Bench, fast};

/// What a person may ask so that the agent calls two tools at once.
const PROMPT: &str = "look around here";

fn tools() -> Vec<(&'static str, Value)> {
    let object = |key: &str, sort: &str| json!({"type": "object", "properties": {key: {"type": sort}}, "required": [key]});
    vec![
        ("TodoList", object("todos", "array")),
        ("Bash", object("command", "string")),
        ("Read", object("path", "string")),
    ]
}

fn body(dialect: Dialect, stream: bool, model: &str) -> Value {
    let messages = json!([{"role": "user", "content": PROMPT}]);
    let tools: Vec<Value> = tools()
        .into_iter()
        .map(|(name, schema)| match dialect {
            Dialect::Messages => json!({"name": name, "input_schema": schema}),
            _ => json!({"type": "function", "function": {"name": name, "parameters": schema}}),
        })
        .collect();
    json!({"model": model, "max_tokens": 4000, "stream": stream, "messages": messages, "tools": tools})
}

/// K3 has a markup of its own, which is read in its answers only.
fn model(way: Option<Garble>) -> &'static str {
    match way {
        Some(way) if way.to_string() == "K30" => "kimi-k3",
        _ => "kimi-k2.6",
    }
}

async fn answer(bench: &Bench, dialect: Dialect, stream: bool, way: Option<Garble>) -> Vec<u8> {
    let path = if dialect == Dialect::Chat {
        "chat/completions"
    } else {
        "messages"
    };
    let mut request = Http::post(format!("{}/v1/{path}", bench.simulator.base_url()));
    if let Some(way) = way {
        request = request.header(declared::FAULT, way.to_string());
    }
    let body = body(dialect, stream, model(way));
    let response = bench.send(request, &body).await.unwrap();
    assert_eq!(response.status(), 200);
    response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec()
}

/// The answer as the repairs leave it.
fn repaired(dialect: Dialect, stream: bool, way: Option<Garble>, bytes: &[u8]) -> Vec<u8> {
    let request = body(dialect, stream, model(way)).to_string();
    let rules = Arc::new(
        Request::read(dialect, request.as_bytes(), None)
            .unwrap()
            .rules,
    );
    if !stream {
        let whole = if dialect == Dialect::Chat {
            whole_chat
        } else {
            whole_messages
        };
        return whole(rules, bytes).0.unwrap_or_else(|| bytes.to_vec());
    }
    let mut repairer = match dialect {
        Dialect::Chat => Repairer::chat(rules, false),
        _ => Repairer::messages(rules, false),
    };
    let mut out = Vec::new();
    for piece in bytes.chunks(100) {
        repairer.push(&Bytes::copy_from_slice(piece), &mut out);
    }
    repairer.finish(&mut out);
    out.concat()
}

/// What a client reads.
fn said(dialect: Dialect, stream: bool, bytes: &[u8]) -> Said {
    match (dialect, stream) {
        (Dialect::Messages, true) => Said::messages(bytes),
        (Dialect::Messages, false) => Said::messages_body(&serde_json::from_slice(bytes).unwrap()),
        (_, true) => chat(&payloads(bytes)),
        (_, false) => chat(&[serde_json::from_slice(bytes).unwrap()]),
    }
}

/// As the less careful of the two clients reads chat: argument text belongs to the latest call.
fn chat(chunks: &[Value]) -> Said {
    let mut said = Said::default();
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        let delta = choice.get("delta").unwrap_or(&choice["message"]);
        said.content += delta["content"].as_str().unwrap_or_default();
        said.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let function = &call["function"];
            if function.get("name").is_some() {
                said.calls.push(Call {
                    id: word(&call["id"]),
                    name: word(&function["name"]),
                    arguments: String::new(),
                });
            }
            if let Some(last) = said.calls.last_mut() {
                last.arguments += function["arguments"].as_str().unwrap_or_default();
            }
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            finish.clone_into(&mut said.finish);
        }
    }
    said
}

/// What is wrong with an answer, given the one that was not garbled.
fn faults(way: Garble, whole: bool, got: &Said, right: &Said) -> Vec<String> {
    let mut faults = got.wrong.clone();
    let name = way.to_string();
    let mut expected: Vec<(String, Value)> = Vec::new();
    for call in &right.calls {
        let mut arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        // Two of the ways put something into the commands themselves.
        let more = match name.as_str() {
            "K17" => "\n",
            "K19" => " # <|tool_call_end|> in a comment",
            _ => "",
        };
        if let Some(Value::String(command)) = arguments.get_mut("command") {
            command.push_str(more);
        }
        expected.push((call.name.clone(), arguments));
    }
    if name == "K18" {
        // Broken arguments reach the client as they are, or, in a body, as what is valid of them.
        let broken = if whole {
            json!({"unclosed": "yes"})
        } else {
            json!("{\"unclosed\": \"yes\"")
        };
        expected.insert(0, (right.calls[0].name.clone(), broken));
    }
    if name == "K29" {
        expected.clear();
    }
    let found = got.calls.iter().map(|call| {
        let arguments = serde_json::from_str(&call.arguments);
        (
            call.name.clone(),
            arguments.unwrap_or_else(|_| json!(call.arguments)),
        )
    });
    let found: Vec<_> = found.collect();
    if found != expected {
        faults.push(format!("calls {found:?}"));
    }
    let text = match name.as_str() {
        "K04" => format!("{} That is under way.", right.content),
        "K25" | "K26" => {
            let ends = got.content.ends_with(&right.content);
            let kept = [
                "\n```\n<|tool_calls_section_begin|>",
                "`</think>`, not (no content)",
            ];
            if ends && kept.iter().any(|part| got.content.contains(part)) {
                got.content.clone()
            } else {
                "text that only looks like damage".to_owned()
            }
        }
        "K28" => format!("A wave 🌊 é. {}", right.content),
        "K29" => String::new(),
        _ => right.content.clone(),
    };
    if got.content.trim() != text.trim() {
        faults.push(format!("content {:?}", got.content));
    }
    if got.reasoning.trim() != right.reasoning.trim() {
        faults.push(format!("reasoning {:?}", got.reasoning));
    }
    let finish = match name.as_str() {
        "K18" if whole => "max_tokens",
        "K29" => {
            if right.finish == "tool_use" {
                "end_turn"
            } else {
                "stop"
            }
        }
        _ => &right.finish,
    };
    if got.finish != finish {
        faults.push(format!("finish {:?}", got.finish));
    }
    faults
}

#[tokio::test]
async fn every_way_is_undone() {
    let bench = Bench::start(Options {
        commands: Commands::Always,
        ..fast()
    })
    .await;
    let mut wrong = Vec::new();
    for dialect in [Dialect::Chat, Dialect::Messages] {
        for stream in [true, false] {
            let right = answer(&bench, dialect, stream, None).await;
            assert_eq!(
                repaired(dialect, stream, None, &right),
                right,
                "the right answer"
            );
            let right = said(dialect, stream, &right);
            assert_eq!(right.calls.len(), 2, "{right:?}");
            let form = format!(
                "{}{}",
                dialect.name(),
                if stream { ", streamed" } else { "" }
            );
            for way in Garble::all() {
                let garbled = answer(&bench, dialect, stream, Some(way)).await;
                let whole = dialect == Dialect::Messages && !stream;
                let before = faults(way, whole, &said(dialect, stream, &garbled), &right);
                let got = said(
                    dialect,
                    stream,
                    &repaired(dialect, stream, Some(way), &garbled),
                );
                let after = faults(way, whole, &got, &right);
                let words = if before.is_empty() {
                    "nothing wrong".to_owned()
                } else {
                    before.join("; ")
                };
                let short: String = words.chars().take(110).collect();
                let verdict = if after.is_empty() { "right" } else { "WRONG" };
                println!("{form:18} {way}: repaired {verdict}; without: {short}");
                if !after.is_empty() {
                    wrong.push(format!("{form} {way}: {}", after.join("; ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
