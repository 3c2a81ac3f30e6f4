//! Cases of our own, one for each clause of what is damaged and what must stay.
//!
//! Markers are written short: `[S]` and `[/S]` begin and end a section, `[s]` and `[/s]` in the singular, `[C]`, `[A]` and
//! `[/C]` are a call's begin, arguments and end, `[T]` and `[/T]` a think block's. Each case is run as vectors are.

use kimiq::normalize::{Kind, Repairer, whole_chat};
use serde_json::{Value, json};

use crate::client::Seen;
use crate::judge::judge;
use crate::upstream::{Wire, bytes, chunk, rules, stream, whole};
use crate::vectors::check;

const MODEL: &str = "accounts/fireworks/models/kimi-k2p6";

const CASES: &str = include_str!("own.json");

/// Name; what is said, texts by field (`c` or `r`) or whole deltas; the upstream's finish and the right one; the right
/// reasoning and content; the right calls by name and argument text, of which what parses is compared as JSON.
type Case = (
    String,
    Vec<Value>,
    (String, String),
    String,
    String,
    Vec<(String, String)>,
);

fn cases(group: &str) -> Vec<Case> {
    let mut groups: Value = serde_json::from_str(CASES).unwrap();
    serde_json::from_value(groups[group].take()).unwrap()
}

fn talk(content: &str) -> Value {
    json!({"messages": [{"role": "user", "content": long(content)}]})
}

#[test]
fn texts_are_read() {
    all_pass("plain", &Value::Null);
}

#[test]
fn structured_calls_and_fields_are_put_in_order() {
    all_pass("structured", &Value::Null);
}

#[test]
fn in_a_talk_about_markers_only_whole_canonical_sections_are_calls() {
    all_pass("markers", &talk("why does [C] appear?"));
}

#[test]
fn in_a_talk_about_tags_stray_ones_stay() {
    all_pass("tags", &talk("what is [/T] for?"));
}

#[test]
fn the_markup_of_k3_is_read() {
    all_pass("k3", &json!({"model": "moonshotai/kimi-k3"}));
}

#[test]
fn a_thought_that_is_only_closed_is_one_in_a_whole_body() {
    for (model, text) in [
        ("kimi-k3", "so<|close|>think<|sep|>Yes."),
        (MODEL, "(no content)so[/T]Yes."),
    ] {
        let rules = rules(model, &tools(), &Value::Null);
        let body = json!({"choices": [{"index": 0, "message": {"content": long(text)}, "finish_reason": "stop"}]});
        let seen = Seen::body(&whole(&rules, body.to_string().as_bytes()).0);
        assert_eq!((&*seen.reasoning, &*seen.content), ("so", "Yes."));
        // In a stream what was sent stays content, and only the tag goes.
        let events = [chunk(model, json!({"content": long(text)}), Some("stop"))];
        let seen = Seen::stream(&stream(&rules, &bytes(&events, Wire::default()), 0).0);
        assert_eq!((&*seen.reasoning, &*seen.content), ("", "soYes."));
    }
}

#[test]
fn nothing_is_a_call_without_tools_or_where_calls_are_forbidden() {
    let text = "a [S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/C][/S] b [/C] run:0[A]{} <tool_call>x";
    let stop = || "stop".to_owned();
    let same: Case = (
        "same".to_owned(),
        vec![json!(["c", text])],
        (stop(), stop()),
        String::new(),
        text.to_owned(),
        Vec::new(),
    );
    for request in [
        json!({"tool_choice": "none"}),
        json!({"tools": []}),
        json!({"model": "deepseek-v3"}),
    ] {
        assert_eq!(run(&same, &request), None, "{request}");
    }
}

#[test]
fn whole_bodies_are_put_right() {
    let call = |arguments: Value| json!({"id": "functions.run:0", "type": "function", "function": {"name": "run", "arguments": arguments}});
    let ls = json!({"cmd": "ls"});
    let run = json!([{"name": "run", "arguments_json": ls}]);
    let none = json!([]);
    for (message, finish, reasoning, content, calls, right) in [
        (
            json!({"content": null, "tool_calls": [call(ls.clone())]}),
            json!(null),
            "",
            "",
            &run,
            "tool_calls",
        ),
        (
            json!({"content": null, "tool_calls": [call(json!("{\"cmd\":\"ls\"}"))]}),
            json!("function_call"),
            "",
            "",
            &run,
            "tool_calls",
        ),
        (
            json!({"content": "a", "tool_calls": []}),
            json!("stop"),
            "",
            "a",
            &none,
            "stop",
        ),
        (
            json!({"content": "a", "reasoning": "so"}),
            json!("stop"),
            "so",
            "a",
            &none,
            "stop",
        ),
        (
            json!({"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "so"}]}),
            json!("stop"),
            "so",
            "a",
            &none,
            "stop",
        ),
        (
            json!({"reasoning_content": long("so [S][C]functions.run:0[A]{\"cmd\":"), "content": long("\"ls\"}[/C][/S]Ok")}),
            json!("stop"),
            "so ",
            "Ok",
            &run,
            "tool_calls",
        ),
        (json!({"content": "a"}), json!(null), "", "a", &none, "stop"),
        (
            json!({"content": "", "reasoning_content": "so"}),
            json!("stop"),
            "so",
            "",
            &none,
            "stop",
        ),
    ] {
        let rules = rules(MODEL, &tools(), &Value::Null);
        let body = json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})
            .to_string();
        let seen = Seen::body(&whole(&rules, body.as_bytes()).0);
        let expect = json!({"content": content, "reasoning": reasoning, "tool_calls": calls, "finish_reason": right});
        assert_eq!(judge(&seen, &expect), Vec::<String>::new(), "{body}");
    }
    let nothing = r#"{"choices": [ {"index":0,"message":{"content":""},"finish_reason":"stop"}]}"#;
    let rules = rules(MODEL, &tools(), &Value::Null);
    assert_eq!(whole_chat(rules.clone(), nothing.as_bytes()).0, None);
    // What is only observed leaves as it came and is counted.
    let leak = long("[S][C]functions.run:0[A]{}[/C][/S]");
    let sent = bytes(
        &[chunk(MODEL, json!({"content": leak}), Some("stop"))],
        Wire::default(),
    );
    let mut repairer = Repairer::chat(rules, true);
    let mut out = Vec::new();
    repairer.push(&sent.clone().into(), &mut out);
    repairer.finish(&mut out);
    assert_eq!(out.concat(), sent);
    assert_eq!(repairer.repairs().of(Kind::CallInText), 1);
}

fn all_pass(group: &str, request: &Value) {
    let wrong: Vec<String> = cases(group)
        .iter()
        .filter_map(|case| run(case, request))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first that was wrong; the sweeps would repeat it a hundred times.
fn run(case: &Case, request: &Value) -> Option<String> {
    let wrong = check(&json_of(case, request)).into_iter().next()?;
    Some(format!("{}: {wrong}", case.0))
}

fn json_of((_, said, finish, reasoning, content, calls): &Case, request: &Value) -> Value {
    let model = request["model"].as_str().unwrap_or(MODEL);
    let delta = |said: &Value| match (said[0].as_str(), said[1].as_str()) {
        (Some("c"), Some(text)) => json!({"content": text}),
        (Some(_), Some(text)) => json!({"reasoning_content": text}),
        _ => said.clone(),
    };
    let events = said.iter().map(|said| chunk(model, delta(said), None));
    let last = chunk(model, json!({}), Some(finish.0.as_str()));
    let events: Vec<Value> = events.chain([last, json!({"raw": "[DONE]"})]).collect();
    let calls: Vec<Value> = calls
        .iter()
        .map(
            |(name, arguments)| match serde_json::from_str::<Value>(arguments) {
                Ok(json) => json!({"name": name, "arguments_json": json}),
                Err(_) => json!({"name": name, "arguments_raw": arguments}),
            },
        )
        .collect();
    let case = json!({
        "stream": true,
        "tools": tools(),
        "request": request,
        "upstream": events,
        "sweep": ["content-1char", "content-2way"],
        "expect": {
            "content": content,
            "reasoning": reasoning,
            "tool_calls": calls,
            "finish_reason": finish.1,
        },
    });
    serde_json::from_str(&long(&case.to_string())).unwrap()
}

fn tools() -> Value {
    let tool = |name: &str, required: &[&str], optional: &[&str]| {
        let keys = required.iter().chain(optional);
        let properties: serde_json::Map<String, Value> =
            keys.map(|key| ((*key).to_owned(), json!({}))).collect();
        json!({"type": "function", "function": {"name": name,
            "parameters": {"type": "object", "properties": properties, "required": required}}})
    };
    json!([
        tool("run", &["cmd"], &["cwd"]),
        tool("read", &["path"], &["start"]),
        tool("ping", &[], &[]),
        tool("srv.get", &[], &["what", "key"]),
    ])
}

/// The markers as they are.
fn long(text: &str) -> String {
    [
        ("[S]", "<|tool_calls_section_begin|>"),
        ("[/S]", "<|tool_calls_section_end|>"),
        ("[s]", "<|tool_call_section_begin|>"),
        ("[/s]", "<|tool_call_section_end|>"),
        ("[C]", "<|tool_call_begin|>"),
        ("[A]", "<|tool_call_argument_begin|>"),
        ("[/C]", "<|tool_call_end|>"),
        ("[T]", "<think>"),
        ("[/T]", "</think>"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (short, long)| {
        text.replace(short, long)
    })
}
