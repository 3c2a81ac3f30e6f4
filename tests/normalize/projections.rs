//! The vectors' answers, shown to clients of Anthropic messages and of `OpenAI` responses.

use kimiq::normalize::{Channel, Counted, Event, Finish, MessagesEncoder, ResponsesEncoder, Text};
use serde_json::{Value, json};

use crate::client::{Call, Seen};
use crate::judge::judge;
use crate::upstream::{Wire, bytes, rules, stream, whole};
use crate::vectors::VECTORS;

#[test]
fn clients_of_other_dialects_see_the_same() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut wrong = Vec::new();
    for case in vectors["cases"].as_array().unwrap() {
        let events = events_of(case);
        for (way, seen) in [
            ("messages, whole", messages_whole(&events)),
            ("messages, streamed", messages_stream(&events)),
            ("responses, whole", responses_whole(&events)),
            ("responses, streamed", responses_stream(&events)),
        ] {
            let mut expect = case["expect"].clone();
            expect["finish_reason"] =
                json!(finish_of(way, expect["finish_reason"].as_str().unwrap()));
            for call in expect["tool_calls"].as_array_mut().into_iter().flatten() {
                if let Some(id) = call["id"].as_str() {
                    call["id"] = json!(id.replace(['.', ':'], "_"));
                }
                if way == "messages, whole"
                    && let Some(raw) = call["arguments_raw"].as_str().map(str::to_owned)
                {
                    // An input is an object; what was cut is told by the reason.
                    call.as_object_mut().unwrap().remove("arguments_raw");
                    if serde_json::from_str::<Value>(&raw).is_err() {
                        expect["finish_reason"] = json!("max_tokens");
                        break;
                    }
                }
            }
            for call in &seen.calls {
                let safe = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-');
                assert!(
                    call.id.len() <= 64 && call.id.chars().all(safe),
                    "{}",
                    call.id
                );
            }
            let mut found = judge(&seen, &expect);
            if way.starts_with("responses") && expect["finish_reason"] == "completed" {
                // A cut call's item is incomplete, and so is the answer.
                found.retain(|fault| !(fault == "finish: incomplete" && has_cut_call(&expect)));
            }
            if !found.is_empty() {
                wrong.push(format!("{} {way}: {}", case["id"], found.join("; ")));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn has_cut_call(expect: &Value) -> bool {
    let calls = expect["tool_calls"].as_array().into_iter().flatten();
    calls
        .filter_map(|call| call["arguments_raw"].as_str())
        .any(|raw| serde_json::from_str::<Value>(raw).is_err())
}

fn finish_of(way: &str, chat: &str) -> &'static str {
    match (way.starts_with("messages"), chat) {
        (true, "tool_calls") => "tool_use",
        (true, "length") => "max_tokens",
        (true, "content_filter") => "refusal",
        (true, _) => "end_turn",
        (false, "length" | "content_filter") => "incomplete",
        (false, _) => "completed",
    }
}

/// The repaired answer as events, in the order in which a chat client gets them.
fn events_of(case: &Value) -> Vec<Event> {
    let upstream = &case["upstream"];
    let chunks: Vec<Value> = if case["stream"] == true {
        let sent = upstream.as_array().unwrap();
        let model = sent
            .iter()
            .find_map(|event| event["model"].as_str())
            .unwrap();
        let rules = rules(model, &case["tools"], &case["request"]);
        let (out, _) = stream(&rules, &bytes(sent, Wire::default()), 0);
        let text = String::from_utf8(out).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    } else {
        let model = upstream["model"].as_str().unwrap();
        let rules = rules(model, &case["tools"], &case["request"]);
        let (out, _) = whole(&rules, upstream.to_string().as_bytes());
        let mut body: Value = serde_json::from_slice(&out).unwrap();
        let choice = &mut body["choices"][0];
        choice["delta"] = choice["message"].take();
        for (index, call) in choice["delta"]["tool_calls"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .enumerate()
        {
            call["index"] = json!(index);
        }
        vec![body]
    };
    let mut events = Vec::new();
    let mut open = None;
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        for (key, channel) in [
            ("reasoning_content", Channel::Reasoning),
            ("content", Channel::Content),
        ] {
            if let Some(text) = delta[key].as_str().filter(|text| !text.is_empty()) {
                end(&mut open, &mut events);
                events.push(Event::Text(channel, Text::from(text)));
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if let Some(name) = call["function"]["name"].as_str() {
                end(&mut open, &mut events);
                open = Some(index);
                let id = call["id"].as_str().unwrap().to_owned();
                events.push(Event::CallBegin {
                    index,
                    id,
                    name: name.to_owned(),
                });
            }
            if let Some(text) = call["function"]["arguments"]
                .as_str()
                .filter(|text| !text.is_empty())
            {
                events.push(Event::CallArguments {
                    index,
                    text: Text::from(text),
                });
            }
        }
        if let Some(word) = choice["finish_reason"].as_str() {
            end(&mut open, &mut events);
            events.push(Event::Finish(Finish::of_chat(word)));
        }
    }
    events
}

fn end(open: &mut Option<usize>, events: &mut Vec<Event>) {
    if let Some(index) = open.take() {
        events.push(Event::CallEnd { index });
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn messages_whole(events: &[Event]) -> Seen {
    let body = MessagesEncoder::whole("msg_1", "kimi", events, Counted::default());
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut seen = Seen::default();
    for block in body["content"].as_array().unwrap() {
        take_block(block, &mut seen);
        if block["type"] == "thinking" && text(&block["signature"]).is_empty() {
            seen.faults.push("thinking without a signature".to_owned());
        }
    }
    for (call, block) in seen.calls.iter_mut().zip(
        body["content"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|block| block["type"] == "tool_use"),
    ) {
        call.arguments = block["input"].to_string();
    }
    seen.finish = body["stop_reason"].as_str().map(str::to_owned);
    seen
}

fn take_block(block: &Value, seen: &mut Seen) {
    match text(&block["type"]) {
        "text" => seen.content.push_str(text(&block["text"])),
        "thinking" => seen.reasoning.push_str(text(&block["thinking"])),
        "tool_use" => seen.calls.push(Call {
            id: text(&block["id"]).to_owned(),
            name: text(&block["name"]).to_owned(),
            arguments: String::new(),
        }),
        other => seen.faults.push(format!("a block of type {other}")),
    }
}

fn data(stream: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stream).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn messages_stream(events: &[Event]) -> Seen {
    let mut out = Vec::new();
    let mut encoder = MessagesEncoder::start("msg_1", "kimi", Counted::default(), &mut out);
    for event in events {
        encoder.write(event, &mut out);
    }
    encoder.end(Counted::default(), &mut out);
    let mut seen = Seen::default();
    let mut blocks = 0;
    let mut open = None;
    for event in data(&out) {
        match text(&event["type"]) {
            "content_block_start" => {
                if open.is_some() || event["index"] != blocks {
                    seen.faults.push("a block begins inside another".to_owned());
                }
                open = Some(blocks);
                blocks += 1;
                take_block(&event["content_block"], &mut seen);
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                seen.content.push_str(text(&delta["text"]));
                seen.reasoning.push_str(text(&delta["thinking"]));
                if let Some(call) = seen.calls.last_mut() {
                    call.arguments.push_str(text(&delta["partial_json"]));
                }
            }
            "content_block_stop" => open = None,
            "message_delta" => {
                seen.finish = event["delta"]["stop_reason"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }
    if open.is_some() {
        seen.faults.push("a block is left open".to_owned());
    }
    seen
}

fn take_items(response: &Value) -> Seen {
    let mut seen = Seen::default();
    for item in response["output"].as_array().unwrap() {
        let words: String = item["content"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|part| text(&part["text"]))
            .collect();
        match text(&item["type"]) {
            "message" => seen.content.push_str(&words),
            "reasoning" => seen.reasoning.push_str(&words),
            "function_call" => seen.calls.push(Call {
                id: text(&item["call_id"]).to_owned(),
                name: text(&item["name"]).to_owned(),
                arguments: text(&item["arguments"]).to_owned(),
            }),
            other => seen.faults.push(format!("an item of type {other}")),
        }
    }
    seen.finish = response["status"].as_str().map(str::to_owned);
    seen
}

fn responses_whole(events: &[Event]) -> Seen {
    let body = ResponsesEncoder::whole("resp_1", "kimi", 1, events, Counted::default());
    take_items(&serde_json::from_slice(&body).unwrap())
}

fn responses_stream(events: &[Event]) -> Seen {
    let mut out = Vec::new();
    let mut encoder = ResponsesEncoder::start("resp_1", "kimi", 1, &mut out);
    for event in events {
        encoder.write(event, &mut out);
    }
    encoder.end(Counted::default(), &mut out);
    let sent = data(&out);
    let mut seen = take_items(&sent.last().unwrap()["response"]);
    let deltas = |kind: &str| -> String {
        let wanted = sent.iter().filter(|event| event["type"] == kind);
        wanted.map(|event| text(&event["delta"])).collect()
    };
    if deltas("response.output_text.delta") != seen.content {
        seen.faults.push("the deltas say something else".to_owned());
    }
    seen
}
