//! The vectors, each with its sweeps, whole and streamed.

use std::collections::BTreeMap;
use std::sync::Arc;

use kimiq::normalize::{Request, Rules};
use kimiq::wire::Dialect;
use serde_json::{Value, json};

use crate::client::Seen;
use crate::judge::judge;
use crate::upstream::{Wire, bytes, chunk, rules, stream, whole};

pub(crate) const VECTORS: &str = include_str!("k2-output.json");

#[test]
fn vectors() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut table: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in vectors["cases"].as_array().unwrap() {
        let wrong = check(case);
        let (passed, failed) = table
            .entry(case["kind"].as_str().unwrap().to_owned())
            .or_default();
        *if wrong.is_empty() { passed } else { failed } += 1;
        for wrong in wrong {
            failures.push(format!("{} {wrong}\n    {}", case["id"], case["about"]));
        }
    }
    let (passed, failed) = table.entry("round".to_owned()).or_default();
    for case in vectors["roundtrip"].as_array().unwrap() {
        let wrong = round_trip(case);
        *if wrong.is_none() {
            &mut *passed
        } else {
            &mut *failed
        } += 1;
        failures.extend(wrong);
    }
    for (kind, (passed, failed)) in &table {
        println!("{kind:6} passed {passed:3}  failed {failed:3}");
    }
    let shown: Vec<&str> = failures.iter().map(String::as_str).take(20).collect();
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        shown.join("\n")
    );
}

/// Runs a case in every way; tells what was wrong, each way by its name.
pub(crate) fn check(case: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let expect = &case["expect"];
    if case["stream"] == true {
        let events = case["upstream"].as_array().unwrap();
        let model = events
            .iter()
            .find_map(|event| event["model"].as_str())
            .unwrap_or("kimi-k2");
        let rules = rules(model, &case["tools"], &case["request"]);
        let own = wire_of(case);
        let mut run = |way: &str, events: &[Value], wire: Wire| {
            let (out, _) = stream(&rules, &bytes(events, wire), wire.split);
            report(&mut wrong, way, &Seen::stream(&out), case);
        };
        run("as it is", events, own);
        run("at once", events, Wire::default());
        run("by bytes", events, Wire { split: 1, ..own });
        run("by 7 bytes", events, Wire { split: 7, ..own });
        run(
            "with CR LF",
            events,
            Wire {
                crlf: true,
                split: 1,
                ..own
            },
        );
        run(
            "without blanks",
            events,
            Wire {
                no_space: true,
                ..own
            },
        );
        for sweep in case["sweep"].as_array().into_iter().flatten() {
            for (way, events) in sweeps(sweep.as_str().unwrap(), events, model) {
                run(&way, &events, own);
            }
        }
        if let Some(body) = folded(events, model)
            && case["alone"] != true
        {
            let (out, _) = whole(&rules, body.to_string().as_bytes());
            report(&mut wrong, "as one body", &Seen::body(&out), case);
        }
    } else {
        let body = &case["upstream"];
        let model = body["model"].as_str().unwrap_or("kimi-k2");
        let rules = rules(model, &case["tools"], &case["request"]);
        let (out, _) = whole(&rules, body.to_string().as_bytes());
        report(&mut wrong, "whole", &Seen::body(&out), case);
        if !close_tag_comes_late(body, &rules, expect) && case["alone"] != true {
            let events = unfolded(body, model);
            for split in [0, 1] {
                let (out, _) = stream(&rules, &bytes(&events, Wire::default()), split);
                report(&mut wrong, "streamed", &Seen::stream(&out), case);
            }
            if body["choices"][0]["message"]["content"].is_string() {
                for (way, events) in sweeps("content-1char", &events, model) {
                    let (out, _) = stream(&rules, &bytes(&events, Wire::default()), 0);
                    report(&mut wrong, &way, &Seen::stream(&out), case);
                }
            }
        }
    }
    wrong
}

fn report(wrong: &mut Vec<String>, way: &str, seen: &Seen, case: &Value) {
    let mut found = judge(seen, &case["expect"]);
    for other in case["accept"].as_array().into_iter().flatten() {
        if judge(seen, other).is_empty() {
            found.clear();
        }
    }
    if !found.is_empty() {
        wrong.push(format!("{way}: {}", found.join("; ")));
    }
}

fn wire_of(case: &Value) -> Wire {
    let wire = &case["wire"];
    Wire {
        crlf: wire["crlf"] == true,
        no_space: wire["no_space"] == true,
        split: wire["split"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0),
    }
}

/// The same answer with its content cut in other places.
pub(crate) fn sweeps(sweep: &str, events: &[Value], model: &str) -> Vec<(String, Vec<Value>)> {
    let text_of = |event: &Value| {
        let text = event["choices"][0]["delta"]["content"].as_str();
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let content: String = events.iter().filter_map(text_of).collect();
    let first = events.iter().position(|event| text_of(event).is_some());
    let Some(first) = first else {
        return Vec::new();
    };
    let with = |parts: Vec<&str>| {
        let mut swept = Vec::new();
        for (at, event) in events.iter().enumerate() {
            if at == first {
                let parts = parts.iter().filter(|part| !part.is_empty());
                swept.extend(parts.map(|part| chunk(model, json!({"content": part}), None)));
            }
            if let Some(text) = text_of(event) {
                let mut rest = event.clone();
                rest["choices"][0]["delta"]["content"] = Value::Null;
                let delta = rest["choices"][0]["delta"].as_object().unwrap();
                if delta.values().any(|value| !value.is_null())
                    || !rest["choices"][0]["finish_reason"].is_null()
                {
                    swept.push(rest);
                }
                drop(text);
            } else {
                swept.push(event.clone());
            }
        }
        swept
    };
    let cuts = content.char_indices().map(|(at, _)| at).skip(1);
    match sweep {
        "content-2way" => cuts
            .map(|cut| {
                (
                    format!("cut at {cut}"),
                    with(vec![&content[..cut], &content[cut..]]),
                )
            })
            .collect(),
        "content-1char" => {
            let mut bounds: Vec<usize> = [0].into_iter().chain(cuts).collect();
            bounds.push(content.len());
            let chars = bounds.windows(2).map(|pair| &content[pair[0]..pair[1]]);
            vec![("by characters".to_owned(), with(chars.collect()))]
        }
        "wire-1byte" => Vec::new(),
        other => panic!("an unknown sweep: {other}"),
    }
}

/// The stream as one body, if it is made of texts and a finish alone.
fn folded(events: &[Value], model: &str) -> Option<Value> {
    let (mut content, mut reasoning, mut finish) = (String::new(), String::new(), Value::Null);
    for event in events {
        if event["raw"] == "[DONE]" || event["line"].is_string() {
            continue;
        }
        let choice = event["choices"].get(0)?;
        for (key, value) in choice["delta"].as_object()? {
            match (key.as_str(), value.as_str()) {
                ("content", Some(text)) => content.push_str(text),
                ("reasoning_content", Some(text)) => reasoning.push_str(text),
                ("role", _) | (_, None) if !value.is_array() => {}
                _ => return None,
            }
        }
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    // A call that goes from the one field into the other has no place in one body.
    if !reasoning.is_empty() && reasoning.contains("<|") {
        return None;
    }
    let mut message = json!({"role": "assistant", "content": content});
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
    }
    Some(
        json!({"id": "cmpl-k", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}]}),
    )
}

/// A body as a stream of few chunks.
fn unfolded(body: &Value, model: &str) -> Vec<Value> {
    let choice = &body["choices"][0];
    let message = choice["message"].as_object().unwrap();
    let mut events = vec![chunk(
        model,
        json!({"role": "assistant", "content": ""}),
        None,
    )];
    let structured = message.get("tool_calls").and_then(Value::as_array);
    let mut part = |key: &str| {
        if let Some(value) = message.get(key).filter(|value| !value.is_null()) {
            events.push(chunk(model, json!({key: value}), None));
        }
    };
    part("reasoning");
    part("reasoning_details");
    part("reasoning_content");
    // In this order the first call is the structured one, as in the body.
    if structured.is_none() {
        part("content");
    }
    for (index, call) in structured.into_iter().flatten().enumerate() {
        let mut call = call.clone();
        call["index"] = json!(index);
        events.push(chunk(model, json!({"tool_calls": [call]}), None));
    }
    if structured.is_some()
        && message["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    {
        events.push(chunk(model, json!({"content": message["content"]}), None));
    }
    events.push(chunk(model, json!({}), choice["finish_reason"].as_str()));
    events.push(json!({"raw": "[DONE]"}));
    events
}

/// A close tag in mid-text makes what stands before it thinking only while nothing was sent.
fn close_tag_comes_late(body: &Value, rules: &Arc<Rules>, expect: &Value) -> bool {
    let content = body["choices"][0]["message"]["content"]
        .as_str()
        .unwrap_or_default();
    rules.kimi
        && content.contains("</think")
        && !content.trim_start().starts_with('<')
        && !expect["reasoning"].as_str().unwrap_or_default().is_empty()
}

fn round_trip(case: &Value) -> Option<String> {
    let dialect = match case["client"].as_str().unwrap() {
        "openai-chat" => Dialect::Chat,
        "anthropic" | "anthropic-messages" => Dialect::Messages,
        _ => Dialect::Responses,
    };
    let mut request = case["request"].clone();
    request["model"] = case["model"].clone();
    let body = request.to_string().into_bytes();
    let read = Request::read(dialect, &body, None).unwrap();
    let up: Value = serde_json::from_slice(read.body.as_deref().unwrap_or(&body)).unwrap();
    let (mut calls, mut results, mut reasoning) = (Vec::new(), Vec::new(), Vec::new());
    for message in up["messages"].as_array().into_iter().flatten() {
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            calls.push(call["id"].clone());
        }
        if message["role"] == "tool" {
            results.push(message["tool_call_id"].clone());
        }
        if message["role"] == "assistant" {
            reasoning.push(message["reasoning_content"].clone());
        }
    }
    let got = json!({"call_ids": calls, "result_ids": results, "reasoning": reasoning});
    let want = &case["expect_upstream"];
    let same = want
        .as_object()
        .unwrap()
        .iter()
        .all(|(key, value)| got[key] == *value);
    (!same).then(|| format!("{}: {got} and not {want}", case["id"]))
}
