//! Cases of our own, one for each clause of what is damaged and what must stay.
//!
//! Markers are written short: `[S]` and `[/S]` begin and end a section, `[s]` and `[/s]` in the singular, `[C]`, `[A]` and
//! `[/C]` are a call's begin, arguments and end, `[T]` and `[/T]` a think block's. Each case is run as vectors are.

use serde_json::{Value, json};

use crate::upstream::chunk;
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
