//! Streams of Anthropic messages on their way through: what is right keeps its bytes, and what is not keeps its order.

use std::sync::Arc;

use bytes::Bytes;
use kimiq::normalize::{Asked, Kind, Repairer, Rules, Tools, whole_messages};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::said::Said;
use crate::vectors::repaired;

fn rules() -> Arc<Rules> {
    let schema = r#"{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}"#;
    Arc::new(Rules::of_model("kimi-k2.6").asking(Asked {
        tools: Tools::new([("Read", Some(schema)), ("Ping", Some("{}"))]),
        ..Asked::default()
    }))
}

fn repairer() -> Repairer {
    Repairer::messages(rules(), false)
}

fn stream(events: &[Value]) -> String {
    let event = |event: &Value| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    };
    events.iter().map(event).collect()
}

fn begin() -> Value {
    json!({"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 0, "output_tokens": 0}}})
}

fn finish(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ]
}

fn block(index: u64, start: Value, deltas: &[Value]) -> Vec<Value> {
    let mut events =
        vec![json!({"type": "content_block_start", "index": index, "content_block": start})];
    events.extend(
        deltas
            .iter()
            .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
    );
    events.push(json!({"type": "content_block_stop", "index": index}));
    events
}

fn thinking(index: u64, texts: &[&str], signature: &str) -> Vec<Value> {
    let mut deltas: Vec<_> = texts
        .iter()
        .map(|text| json!({"type": "thinking_delta", "thinking": text}))
        .collect();
    if !signature.is_empty() {
        deltas.push(json!({"type": "signature_delta", "signature": signature}));
    }
    block(
        index,
        json!({"type": "thinking", "thinking": "", "signature": ""}),
        &deltas,
    )
}

fn text(index: u64, texts: &[&str]) -> Vec<Value> {
    let deltas: Vec<_> = texts
        .iter()
        .map(|text| json!({"type": "text_delta", "text": text}))
        .collect();
    block(index, json!({"type": "text", "text": ""}), &deltas)
}

fn call(index: u64, id: &str, name: &str, parts: &[&str]) -> Vec<Value> {
    let deltas: Vec<_> = parts
        .iter()
        .map(|part| json!({"type": "input_json_delta", "partial_json": part}))
        .collect();
    block(
        index,
        json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
        &deltas,
    )
}

fn right() -> String {
    let mut events = vec![begin(), json!({"type": "ping"})];
    events.extend(thinking(0, &["First I ", "look. <| no", " a<b"], "EqQB"));
    events.extend(block(
        1,
        json!({"type": "redacted_thinking", "data": "x"}),
        &[],
    ));
    events.extend(text(
        2,
        &[
            "See:\n```\n<|tool_calls_section_begin|>\n",
            "```\nand `</think>` 🌊\\",
            "\"令牌\"",
        ],
    ));
    events.extend(call(
        3,
        "toolu_01",
        "Read",
        &["", "{\"path\": ", "\"a\\u00e9\"", "}"],
    ));
    events.extend(call(4, "toolu_02", "Ping", &[""]));
    events.extend(block(
        5,
        json!({"type": "server_tool_use", "id": "s", "name": "web", "input": {}}),
        &[json!({"type": "input_json_delta", "partial_json": "{}"})],
    ));
    events.extend(finish("tool_use"));
    stream(&events)
}

#[test]
fn a_right_answer_keeps_its_bytes() {
    for end in ["\n", "\r\n"] {
        let right = right().replace('\n', end);
        for piece in [1, 2, 7, 64, right.len()] {
            let mut repairer = repairer();
            let mut out = Vec::new();
            for piece in right.as_bytes().chunks(piece) {
                repairer.push(&Bytes::copy_from_slice(piece), &mut out);
            }
            repairer.finish(&mut out);
            assert_eq!(
                String::from_utf8(out.concat()).unwrap(),
                right,
                "by {piece}"
            );
            assert!(repairer.repairs().is_empty(), "{:?}", repairer.repairs());
        }
    }
}

#[test]
fn text_leaves_in_the_push_that_brought_it() {
    let mut repairer = repairer();
    let mut events = vec![begin()];
    events.extend(text(0, &["word "; 1000]));
    events.extend(finish("end_turn"));
    for event in &events {
        let bytes = Bytes::from(stream(std::slice::from_ref(event)));
        let mut out = Vec::new();
        repairer.push(&bytes, &mut out);
        assert_eq!(out.concat(), bytes);
    }
}

#[test]
fn blocks_are_our_own_once_something_was_changed() {
    let mut events = vec![begin()];
    events.extend(thinking(0, &["Look.<|tool_call_begin|>functions.Read:0<|tool_call_argument_begin|>{\"path\":\"a\"}<|tool_call_end|> Then"], ""));
    events.extend(text(1, &["There."]));
    events.extend(call(
        2,
        "functions.Read:1",
        "functions.Read:1",
        &["{\"path\":\"b\"}}"],
    ));
    events.extend(block(
        3,
        json!({"type": "server_tool_use", "id": "s", "name": "web", "input": {}}),
        &[json!({"type": "odd_delta", "x": 1})],
    ));
    events.extend(finish("end_turn"));
    let stream = stream(&events);
    let mut shown = Vec::new();
    for piece in [1, 5, stream.len()] {
        let out = repaired(repairer(), stream.as_bytes(), piece);
        let said = Said::messages(&out);
        assert_eq!(said.content, "There.");
        assert_eq!(said.reasoning, "Look. Then");
        let calls: Vec<_> = said
            .calls
            .iter()
            .map(|call| (&*call.id, &*call.name, &*call.arguments))
            .collect();
        assert_eq!(
            calls,
            [
                ("functions_Read_0", "Read", "{\"path\":\"a\"}"),
                ("functions_Read_1", "Read", "{\"path\":\"b\"}"),
            ]
        );
        assert_eq!(said.finish, "tool_use");
        assert_eq!(said.wrong, ["odd_delta in 5"]);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#""usage":{"output_tokens":9}"#), "{text}");
        shown.push(said);
    }
}

#[test]
fn thinking_without_a_signature_gets_ours() {
    let mut events = vec![begin()];
    events.extend(thinking(0, &["so"], ""));
    events.extend(text(1, &["Yes."]));
    events.extend(finish("end_turn"));
    let mut repairer = repairer();
    let mut out = Vec::new();
    repairer.push(&Bytes::from(stream(&events)), &mut out);
    assert_eq!(repairer.repairs().of(Kind::Unsigned), 1);
    let said = Said::messages(&out.concat());
    assert_eq!(
        (said.content.as_str(), said.reasoning.as_str()),
        ("Yes.", "so")
    );
    assert!(said.wrong.is_empty());
}

#[test]
fn an_end_that_is_missing_is_told() {
    let mut events = vec![begin()];
    events.extend(call(0, "toolu_1", "Ping", &[""]));
    let body = stream(&events);
    let with_stop = body.clone() + &stream(&[json!({"type": "message_stop"})]);
    for stream in [body, with_stop] {
        let said = Said::messages(&repaired(repairer(), stream.as_bytes(), stream.len()));
        assert_eq!((said.calls.len(), said.finish.as_str()), (1, "tool_use"));
        assert!(said.wrong.is_empty(), "{:?}", said.wrong);
    }
}

#[test]
fn whole_bodies_are_rebuilt_only_if_they_have_to_be() {
    let check = |content: Value, reason: &str, expected: Option<(Value, &str)>| {
        let body = json!({"id": "m", "content": content, "stop_reason": reason, "usage": {"output_tokens": 3}});
        let repaired = whole_messages(rules(), body.to_string().as_bytes()).0;
        let repaired: Option<Value> = repaired.map(|it| serde_json::from_slice(&it).unwrap());
        let expected = expected.map(|(content, reason)| json!({"id": "m", "content": content, "stop_reason": reason, "usage": {"output_tokens": 3}}));
        assert_eq!(repaired, expected);
    };
    let text = |text: &str| json!({"type": "text", "text": text});
    let used = |id: &str, path: &str| json!({"type": "tool_use", "id": id, "name": "Read", "input": {"path": path}});
    let signed = json!({"type": "thinking", "thinking": "so", "signature": "EqQB"});
    check(
        json!([signed, text("a"), used("toolu_1", "x"), {"type": "odd"}]),
        "tool_use",
        None,
    );
    check(
        json!([{"type": "tool_use", "id": "t", "name": "Ping", "input": {}}]),
        "tool_use",
        None,
    );
    check(json!([text("")]), "end_turn", None);
    check(
        json!([signed, text("a"), used("functions.Read:7", "x"), {"type": "odd"}]),
        "end_turn",
        Some((
            json!([signed, text("a"), used("functions_Read_7", "x"), {"type": "odd"}]),
            "tool_use",
        )),
    );
    let leak = "a<|tool_call_begin|>functions.Read:0<|tool_call_argument_begin|>{\"path\":\"y\"}<|tool_call_end|>";
    check(
        json!([text(leak)]),
        "end_turn",
        Some((
            json!([text("a"), used("functions_Read_0", "y")]),
            "tool_use",
        )),
    );
    check(
        json!([{"type": "thinking", "thinking": "so"}, text("a")]),
        "end_turn",
        Some((
            json!([{"type": "thinking", "thinking": "so", "signature": "a2ltaXEgdGhpbmtpbmc="}, text("a")]),
            "end_turn",
        )),
    );
}

proptest! {
    #[test]
    fn right_answers_keep_their_bytes(
        thoughts in prop::collection::vec("[a-zé令🦀 .\n\"\\\\]{0,9}[ .令🦀]", 0..5),
        texts in prop::collection::vec("[a-z<|>é令🦀 .\n\"\\\\`~]{0,12}[ .令🦀\n`]", 0..9),
        calls in prop::collection::vec("[a-zé🦀\\\\\" ]{0,9}", 0..3),
        piece in 1usize..80,
    ) {
        let mut events = vec![begin()];
        let mut index = 0;
        if !thoughts.is_empty() {
            let thoughts: Vec<_> = thoughts.iter().map(String::as_str).collect();
            events.extend(thinking(index, &thoughts, "sig"));
            index += 1;
        }
        if !texts.is_empty() {
            let mut texts: Vec<_> = texts.iter().map(String::as_str).collect();
            // Placeholders and think tags are told by the beginning.
            texts.insert(0, "so ");
            events.extend(text(index, &texts));
            index += 1;
        }
        for (number, path) in calls.iter().enumerate() {
            let arguments = json!({"path": path}).to_string();
            let (one, two) = arguments.split_at(9);
            events.extend(call(index, &format!("toolu_{number}"), "Read", &[one, two]));
            index += 1;
        }
        events.extend(finish(if calls.is_empty() { "end_turn" } else { "tool_use" }));
        let right = stream(&events);
        let out = repaired(repairer(), right.as_bytes(), piece);
        let said = Said::messages(&out);
        prop_assert_eq!(&said, &Said::messages(right.as_bytes()));
        // What may be the beginning of a marker at the end of a delta leaves with the next.
        let undecided = |text: &String| text.trim_end().ends_with(['<', '|']);
        if !texts.iter().any(undecided) {
            prop_assert_eq!(String::from_utf8(out).unwrap(), right);
        }
    }

    #[test]
    fn arbitrary_events_never_panic_and_splits_do_not_matter(
        events in prop::collection::vec((0usize..10, 0u64..4, "(<\\|tool_call_begin\\|>|functions.Read:0|<\\|tool_call_argument_begin\\|>|\\{\"path\":1\\}|<\\|tool_call_end\\|>|</think>|a){0,4}"), 0..14),
        piece in 1usize..60,
        junk in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let event = |(sort, index, text): &(usize, u64, String)| match sort {
            0 => json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": text}}),
            1 => json!({"type": "content_block_start", "index": index, "content_block": {"type": "thinking", "thinking": ""}}),
            2 => json!({"type": "content_block_start", "index": index, "content_block": {"type": "tool_use", "id": text, "name": "Read", "input": {}}}),
            3 => json!({"type": "content_block_start", "index": index}),
            4 => json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}),
            5 => json!({"type": "content_block_delta", "index": index, "delta": {"type": "thinking_delta", "thinking": text}}),
            6 => json!({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": text}}),
            7 => json!({"type": "content_block_stop", "index": index}),
            8 => json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
            _ => begin(),
        };
        let events: Vec<_> = events.iter().map(event).collect();
        let mut bytes = stream(&events).into_bytes();
        bytes.extend_from_slice(&junk);
        let whole = repaired(repairer(), &bytes, bytes.len().max(1));
        prop_assert_eq!(repaired(repairer(), &bytes, piece), whole);
    }
}
