//! What holds for every answer: splits do not matter, what is right is untouched and never held, nothing panics, and
//! what is kept is bounded.

use std::sync::Arc;

use bytes::Bytes;
use kimiq::normalize::{Repairer, Rules};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::client::Seen;
use crate::upstream::{Wire, bytes, chunk, rules, stream};

const MODEL: &str = "accounts/fireworks/models/kimi-k2p6";

/// What an answer may be made of, damage and all.
const SOUP: &[&str] = &[
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "functions.run:0",
    "run:1",
    "walk",
    "{\"cmd\":\"ls\"}",
    "{\"cmd\":\"<|tool_call_end|>",
    "\"}",
    "{}",
    "<think>",
    "</think>",
    "(no content)",
    "<|im_end|>",
    "<tool_call>run",
    "<",
    "<|",
    "`",
    "```\n",
    "~~~",
    "\n",
    " ",
    "words ",
    "run",
    "🌊",
    "\\",
    "\"",
];

fn tools() -> Value {
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object",
            "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}}})
    };
    json!([tool("run"), tool("walk")])
}

fn soup() -> impl Strategy<Value = Vec<(bool, String)>> {
    let word = prop::sample::select(SOUP).prop_map(str::to_owned);
    vec((prop::bool::weighted(0.2), word), 0..14)
}

fn any_rules() -> impl Strategy<Value = Arc<Rules>> {
    let content = prop::sample::select(vec!["q", "about <|tool_call_begin|>", "about </think>"]);
    content.prop_map(|content| {
        rules(
            MODEL,
            &tools(),
            &json!({"messages": [{"role": "user", "content": content}]}),
        )
    })
}

/// A stream of these texts, reasoning where it says so, each text cut at some of its characters.
fn spread(texts: &[(bool, String)], cuts: &[usize]) -> Vec<u8> {
    let mut events = Vec::new();
    let mut cuts = cuts.iter().cycle();
    for (reasoning, text) in texts {
        let field = if *reasoning {
            "reasoning_content"
        } else {
            "content"
        };
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let length = cuts.next().copied().unwrap_or(usize::MAX).min(rest.len());
            let length = (length..=rest.len())
                .find(|at| rest.is_char_boundary(*at))
                .unwrap();
            events.push(chunk(MODEL, json!({field: rest[..length]}), None));
            rest = &rest[length..];
        }
    }
    events.push(chunk(MODEL, json!({}), Some("stop")));
    events.push(json!({"raw": "[DONE]"}));
    bytes(&events, Wire::default())
}

/// A part of a structured call, as odd as they come.
fn part() -> impl Strategy<Value = Value> {
    let index = prop::option::of(0u8..3);
    let id = prop::sample::select(vec![None, Some("a"), Some("b"), Some("functions.run:0")]);
    let name = prop::sample::select(vec![None, Some("run"), Some("functions.walk:1"), Some("3")]);
    let texts = vec![
        None,
        Some(""),
        Some("{\"cmd\""),
        Some(":1}"),
        Some("{}"),
        Some("\"{}\""),
        Some("x"),
    ];
    let arguments = prop::sample::select(texts);
    (index, id, name, arguments).prop_map(|(index, id, name, arguments)| {
        let mut part = json!({"function": {}});
        for (key, value) in [("index", json!(index)), ("id", json!(id))] {
            if !value.is_null() {
                part[key] = value;
            }
        }
        for (key, value) in [("name", name), ("arguments", arguments)] {
            if let Some(value) = value {
                part["function"][key] = json!(value);
            }
        }
        part
    })
}

fn any_event() -> impl Strategy<Value = Value> {
    let word = || prop::sample::select(SOUP);
    prop_oneof![
        word().prop_map(|text| chunk(MODEL, json!({"content": text}), None)),
        word().prop_map(|text| chunk(MODEL, json!({"reasoning_content": text}), None)),
        word().prop_map(|text| chunk(MODEL, json!({"content": "", "reasoning": text}), None)),
        vec(part(), 0..3).prop_map(|parts| chunk(MODEL, json!({"tool_calls": parts}), None)),
        Just(chunk(MODEL, json!({"reasoning_content": ""}), None)),
        Just(json!({"line": ": comment"})),
        Just(json!({"raw": "{\"choices\":[{\"delta\":{\"content\":\"\\ud83c\"}}]}"})),
        Just(json!({"raw": "{\"choices\":[],\"usage\":{\"total_tokens\":1}}"})),
        Just(json!({"raw": "[DONE]"})),
        Just(chunk(MODEL, json!({}), Some("tool_calls"))),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_bytes(
        events in vec(any_event(), 0..12),
        rules in any_rules(),
        crlf in any::<bool>(),
        split in 1usize..40,
    ) {
        let bytes = bytes(&events, Wire { crlf, ..Wire::default() });
        let (once, counts) = stream(&rules, &bytes, 0);
        let (cut, counts_of_cut) = stream(&rules, &bytes, split);
        prop_assert_eq!(String::from_utf8_lossy(&cut), String::from_utf8_lossy(&once));
        prop_assert_eq!(counts_of_cut, counts);
    }

    #[test]
    fn any_cut_of_the_texts_gives_the_same_answer(
        texts in soup(),
        cuts in vec(1usize..9, 1..6),
        rules in any_rules(),
    ) {
        let mut joined: Vec<(bool, String)> = Vec::new();
        for (reasoning, text) in &texts {
            match joined.last_mut() {
                Some((last, said)) if last == reasoning => said.push_str(text),
                _ => joined.push((*reasoning, text.clone())),
            }
        }
        let (once, _) = stream(&rules, &spread(&joined, &[usize::MAX]), 0);
        let (cut, _) = stream(&rules, &spread(&joined, &cuts), 0);
        let (once, cut) = (Seen::stream(&once), Seen::stream(&cut));
        prop_assert_eq!(&cut, &once);
        prop_assert!(once.faults.is_empty(), "{:?}", once.faults);
    }

    #[test]
    fn clients_never_stumble(events in vec(any_event(), 0..12), rules in any_rules()) {
        let (out, _) = stream(&rules, &bytes(&events, Wire::default()), 0);
        let seen = Seen::stream(&out);
        // Half a character that never meets its other half leaves as it came, and so does a second finish.
        let broken = |fault: &&String| !fault.starts_with("two finishes") && !fault.starts_with("unreadable: ");
        prop_assert!(seen.faults.iter().find(broken).is_none(), "{:?}", seen.faults);
    }

    #[test]
    fn arbitrary_bytes_pass_through(
        noise in vec(any::<u8>(), 0..300),
        split in 1usize..30,
        rules in any_rules(),
    ) {
        let (out, _) = stream(&rules, &noise, split);
        prop_assert_eq!(out, noise);
    }
}

/// Words of a right answer: code, markers in code, emoji, CJK.
fn right_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z ,.!?]{1,30}",
        "[\u{4e00}-\u{4e40}]{1,12}",
        Just("🌊👩‍💻 ".to_owned()),
        Just("if a < b && c <| d { x <- y }\n".to_owned()),
        Just(
            "\n```rust\nlet x = \"<|tool_call_begin|>\"; // </think> (no content)\n```\n"
                .to_owned()
        ),
        Just("\n~~~\n<|tool_calls_section_begin|><|tool_call_begin|>run:0\n~~~\n".to_owned()),
        Just("the marker `<|tool_call_end|>` and `</think>` ".to_owned()),
        Just("tabs\tand \\ and \"quotes\"\n".to_owned()),
        Just("(no content) in the middle, <div> and <tool_calls> too. ".to_owned()),
    ];
    vec(part, 1..8).prop_map(|parts| format!("So: {}.", parts.concat()))
}

/// A right answer: thinking or not, words, calls or not.
fn right_answer() -> impl Strategy<Value = Vec<Value>> {
    let texts = (prop::option::of(right_text()), right_text());
    let calls = vec(("[a-z]{1,8}", right_text()), 0..3);
    (texts, calls, vec(1usize..20, 1..6), any::<bool>()).prop_map(|((thought, words), calls, cuts, usage)| {
        let mut events = vec![chunk(MODEL, json!({"role": "assistant", "content": ""}), None)];
        let mut cuts = cuts.into_iter().cycle();
        let mut say = |text: &str, delta: &dyn Fn(&str) -> Value| {
            let mut rest = text;
            while !rest.is_empty() {
                let length = cuts.next().unwrap().min(rest.len());
                let length = (length..=rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap();
                // A marker that is only half here would have to wait; a real one is one token.
                let length = rest[length..].find(['>', ' ', '\n']).map_or(rest.len(), |more| length + more + 1);
                events.push(chunk(MODEL, delta(&rest[..length]), None));
                rest = &rest[length..];
            }
        };
        if let Some(thought) = &thought {
            say(thought, &|text| json!({"reasoning_content": text}));
        }
        say(&words, &|text| json!({"content": text}));
        for (index, (key, value)) in calls.iter().enumerate() {
            let id = format!("functions.run:{index}");
            let begin = json!({"tool_calls": [{"index": index, "id": id, "type": "function",
                "function": {"name": "run", "arguments": ""}}]});
            say("{", &|_| begin.clone());
            let arguments = json!({key.as_str(): value}).to_string();
            say(&arguments, &|text| {
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            });
        }
        let finish = if calls.is_empty() { "stop" } else { "tool_calls" };
        events.push(chunk(MODEL, json!({}), Some(finish)));
        if usage {
            events.push(json!({"raw": "{\"id\":\"cmpl-k\",\"choices\":[],\"usage\":{\"total_tokens\":9}}"}));
        }
        events.push(json!({"raw": "[DONE]"}));
        events
    })
}

#[test]
fn right_answers_leave_byte_by_byte_in_the_event_that_brought_them() {
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    });
    let rules = rules(MODEL, &tools(), &Value::Null);
    let right = |events: Vec<Value>| {
        let mut repairer = Repairer::chat(rules.clone(), false);
        for event in &events {
            let sent = bytes(std::slice::from_ref(event), Wire::default());
            let mut out = Vec::new();
            repairer.push(&Bytes::from(sent.clone()), &mut out);
            let out = out.concat();
            prop_assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&sent)
            );
        }
        let mut out = Vec::new();
        repairer.finish(&mut out);
        prop_assert!(out.is_empty());
        prop_assert!(repairer.repairs().is_empty(), "{:?}", repairer.repairs());
        Ok(())
    };
    if let Err(error) = runner.run(&right_answer(), right) {
        panic!("{error}");
    }
}

#[test]
fn a_thousand_plain_chunks_leave_as_they_come_without_a_copy() {
    let rules = rules(MODEL, &tools(), &Value::Null);
    let mut repairer = Repairer::chat(rules, false);
    for number in 0..1000 {
        let delta = json!({"content": format!("The {number}th word, \"quoted\"\n")});
        let sent = Bytes::from(bytes(&[chunk(MODEL, delta, None)], Wire::default()));
        let mut out = Vec::new();
        repairer.push(&sent, &mut out);
        assert_eq!(out, std::slice::from_ref(&sent));
        assert_eq!(out[0].as_ptr(), sent.as_ptr(), "a copy");
        assert!(repairer.held() < 4096);
    }
}

#[test]
fn what_is_held_is_bounded_whatever_comes() {
    let rules = rules(
        MODEL,
        &tools(),
        &json!({"messages": [{"role": "user", "content": "<|tool_call"}]}),
    );
    let plain = crate::upstream::rules(MODEL, &tools(), &Value::Null);
    for opening in [
        "",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>",
        "<|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>",
        "<|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>{}",
        "<|tool_call_begin|>3<|tool_call_argument_begin|>{\"",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>{\"a",
    ] {
        for filling in ["x", " ", "<", "run ", "<|im_end|>"] {
            for rules in [&rules, &plain] {
                let mut repairer = Repairer::chat(rules.clone(), false);
                let mut out = Vec::new();
                let mut most = 0;
                let long = filling.repeat(16 * 1024 / filling.len());
                for text in [opening].into_iter().chain([long.as_str(); 90]) {
                    let sent = bytes(
                        &[chunk(MODEL, json!({"content": text}), None)],
                        Wire::default(),
                    );
                    repairer.push(&sent.into(), &mut out);
                    out.clear();
                    most = most.max(repairer.held());
                }
                assert!(most < 3 * 1024 * 1024, "{opening} {filling}: {most}");
            }
        }
    }
    let mut repairer = Repairer::chat(plain, false);
    let mut out = Vec::new();
    for _ in 0..400 {
        repairer.push(&Bytes::from(vec![b'x'; 64 * 1024]), &mut out);
        assert!(repairer.held() <= 8 * 1024 * 1024);
    }
    assert_eq!(out.concat().len() + repairer.held(), 400 * 64 * 1024);
}
