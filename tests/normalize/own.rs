//! Cases of our own, one for each clause of what is damaged and what must stay.
//!
//! Markers are written short: `[S]` and `[/S]` begin and end a section, `[s]` and `[/s]` in the singular, `[C]`, `[A]` and
//! `[/C]` are a call's begin, arguments and end, `[T]` and `[/T]` a think block's. Each case is run as vectors are.

use serde_json::{Value, json};

use crate::upstream::chunk;
use crate::vectors::check;

const MODEL: &str = "accounts/fireworks/models/kimi-k2p6";

/// A field and its text.
type Said = (&'static str, &'static str);

struct Case {
    name: &'static str,
    said: &'static [Said],
    /// The upstream's finish and the right one.
    finish: (&'static str, &'static str),
    content: &'static str,
    reasoning: &'static str,
    /// Name and argument text; what parses is compared as JSON.
    calls: &'static [(&'static str, &'static str)],
}

const fn case(
    name: &'static str,
    said: &'static [Said],
    finish: (&'static str, &'static str),
    content: &'static str,
    calls: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        name,
        said,
        finish,
        content,
        reasoning: "",
        calls,
    }
}

const fn thought(
    name: &'static str,
    said: &'static [Said],
    finish: (&'static str, &'static str),
    reasoning: &'static str,
    content: &'static str,
    calls: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        name,
        said,
        finish,
        content,
        reasoning,
        calls,
    }
}

const TOOLED: (&str, &str) = ("stop", "tool_calls");
const STOPPED: (&str, &str) = ("stop", "stop");
const LS: (&str, &str) = ("run", r#"{"cmd":"ls"}"#);
const PING: (&str, &str) = ("ping", "{}");

const CASES: &[Case] = &[
    // K01-K03
    case(
        "K01 nothing but a section",
        &[("c", "[S][C]functions.ping:0[A]{}[/C][/S]")],
        TOOLED,
        "",
        &[PING],
    ),
    case(
        "K01 a high counter",
        &[("c", "ok [S][C]functions.ping:117[A]{}[/C][/S]")],
        TOOLED,
        "ok ",
        &[PING],
    ),
    case(
        "K02 a begin that is none",
        &[("c", "a <|tool_calls_x <|tool b")],
        STOPPED,
        "a <|tool_calls_x <|tool b",
        &[],
    ),
    case(
        "K02 comparisons",
        &[("c", "a<b <|c| <- d << e")],
        STOPPED,
        "a<b <|c| <- d << e",
        &[],
    ),
    case(
        "K03 three calls",
        &[(
            "c",
            "[S][C]functions.ping:0[A]{}[/C][C]functions.run:1[A]{\"cmd\":\"ls\"}[/C] [C]functions.ping:2[A]{}[/C][/S]",
        )],
        TOOLED,
        "",
        &[PING, LS, PING],
    ),
    case(
        "K03 two sections in a row",
        &[(
            "c",
            "[S][C]functions.ping:0[A]{}[/C][/S][S][C]functions.run:1[A]{\"cmd\":\"ls\"}[/C][/S]",
        )],
        TOOLED,
        "",
        &[PING, LS],
    ),
    // K04
    case(
        "K04 noise without a call goes with the section's end",
        &[("c", "a [S] so [/S] b")],
        STOPPED,
        "a  b",
        &[],
    ),
    case(
        "K04 words of a section that never goes on are given back",
        &[("c", "a [S]and then words")],
        STOPPED,
        "a and then words",
        &[],
    ),
    case(
        "K04 words after the last call of an open section",
        &[("c", "[S][C]functions.ping:0[A]{}[/C] All done.")],
        TOOLED,
        "All done.",
        &[PING],
    ),
    // K05
    case(
        "K05 two bare calls",
        &[(
            "c",
            "[C]functions.ping:0[A]{}[/C]\n[C]functions.run:1[A]{\"cmd\":\"ls\"}[/C]",
        )],
        TOOLED,
        "",
        &[PING, LS],
    ),
    case(
        "K05 a bare call and words",
        &[("c", "a [C]functions.ping:0[A]{}[/C] b")],
        TOOLED,
        "a  b",
        &[PING],
    ),
    case(
        "K05 a bare call closed by a section's end",
        &[("c", "[C]functions.ping:0[A]{}[/C][/S]")],
        TOOLED,
        "",
        &[PING],
    ),
    // K06
    case(
        "K06 no call end",
        &[("c", "[S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/S]")],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K06 no section end",
        &[("c", "[S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/C]")],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K06 no call end between calls",
        &[(
            "c",
            "[S][C]functions.run:0[A]{\"cmd\":\"ls\"}[C]functions.ping:1[A]{}[/S]",
        )],
        TOOLED,
        "",
        &[LS, PING],
    ),
    case(
        "K06 cut in the header",
        &[("c", "Go. [S][C]functions.ru")],
        ("length", "length"),
        "Go. ",
        &[],
    ),
    case(
        "K06 cut before the header",
        &[("c", "Go. [S]")],
        ("length", "length"),
        "Go. ",
        &[],
    ),
    case(
        "K06 cut in a marker",
        &[("c", "Go. [S][C]functions.run:0<|tool_call_argu")],
        ("length", "length"),
        "Go. ",
        &[],
    ),
    case(
        "K06 cut in the first marker",
        &[("c", "Go. <|tool_calls_sec")],
        ("length", "length"),
        "Go. ",
        &[],
    ),
    case(
        "K06 cut in the end marker",
        &[("c", "[S][C]functions.run:0[A]{\"cmd\":\"ls\"}<|tool_call")],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K06 cut behind the argument marker",
        &[("c", "[S][C]functions.run:0[A]")],
        ("length", "length"),
        "",
        &[("run", "{}")],
    ),
    case(
        "K06 cut in nested arguments",
        &[("c", "[S][C]functions.run:0[A]{\"cmd\":[\"a\",{\"b\"")],
        ("length", "length"),
        "",
        &[("run", r#"{"cmd":["a",{"b""#)],
    ),
    case(
        "K06 the second of two cut",
        &[(
            "c",
            "[S][C]functions.ping:0[A]{}[/C][C]functions.run:1[A]{\"cm",
        )],
        ("length", "length"),
        "",
        &[PING, ("run", r#"{"cm"#)],
    ),
    // K07
    case(
        "K07 singular begin, plural end",
        &[("c", "a [s][C]functions.ping:0[A]{}[/C][/S] b")],
        TOOLED,
        "a  b",
        &[PING],
    ),
    // K08
    case(
        "K08 newlines round the id and the object",
        &[(
            "c",
            "[S]\n[C]\n functions.run:0 \n[A]\n{\"cmd\":\"ls\"}\n[/C]\n[/S]",
        )],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K08 a dot in the name",
        &[("c", "[S][C]functions.srv.get:3[A]{}[/C][/S]")],
        TOOLED,
        "",
        &[("srv.get", "{}")],
    ),
    case(
        "K08 an unknown tool by its full name",
        &[("c", "[S][C]functions.img_gen:0[A]{\"x\":1}[/C][/S]")],
        TOOLED,
        "",
        &[("img_gen", r#"{"x":1}"#)],
    ),
    // K09
    case(
        "K09 prefix and index without signs",
        &[("c", "[S][C]functions.run5[A]{\"cmd\":\"ls\"}[/C][/S]")],
        TOOLED,
        "",
        &[LS],
    ),
    // K10
    case(
        "K10 a foreign id whose arguments fit one tool",
        &[("c", "[S][C]call_9f2[A]{\"cmd\":\"ls\"}[/C][/S]")],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K10 a UUID",
        &[(
            "c",
            "[S][C]123e4567-e89b-12d3-a456-426614174000[A]{\"cmd\":\"ls\"}[/C][/S]",
        )],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K10 only the nameless call is dropped",
        &[(
            "c",
            "[S][C]7[A]{\"other\":1}[/C][C]functions.ping:1[A]{}[/C][/S]",
        )],
        TOOLED,
        "",
        &[PING],
    ),
    case(
        "K10 a bad form is told by its arguments",
        &[("c", "[S][C]functions.x.0[A]{\"cmd\":\"ls\"}[/C][/S]")],
        TOOLED,
        "",
        &[LS],
    ),
    // K11
    case(
        "K11 headless after words",
        &[("c", "Now run:0[A]{\"cmd\":\"ls\"}[/S]")],
        TOOLED,
        "Now ",
        &[LS],
    ),
    case(
        "K11 with the prefix",
        &[("c", "functions.run:0[A]{\"cmd\":\"ls\"}[/C][/S]")],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K11 no end between two",
        &[("c", "run:0[A]{\"cmd\":\"ls\"}\nping:1[A]{}")],
        TOOLED,
        "",
        &[LS, PING],
    ),
    case(
        "K11 names in plain words",
        &[("c", "We run ping:0 and run:1 times, run")],
        STOPPED,
        "We run ping:0 and run:1 times, run",
        &[],
    ),
    // K12
    thought(
        "K12 begun in reasoning, ended in content",
        &[
            ("r", "Hm. [S][C]functions.run:0[A]{\"cmd\""),
            ("c", ":\"ls\"}[/C][/S]Ok."),
        ],
        TOOLED,
        "Hm. ",
        "Ok.",
        &[LS],
    ),
    thought(
        "K12 reasoning after the section stays reasoning",
        &[("r", "a [C]functions.ping:0[A]{}[/C] b"), ("c", "c")],
        TOOLED,
        "a  b",
        "c",
        &[PING],
    ),
    thought(
        "K12 a section's begin alone in reasoning",
        &[("r", "a [S]"), ("c", "[C]functions.ping:0[A]{}[/C][/S]")],
        TOOLED,
        "a ",
        "",
        &[PING],
    ),
    // K13
    thought(
        "K13 a block with blanks round it",
        &[("c", "\n[T]\nso\n[/T]\n\nYes.")],
        STOPPED,
        "so",
        "Yes.",
        &[],
    ),
    thought(
        "K13 the long tag",
        &[("c", "<thinking>so</thinking>Yes.")],
        STOPPED,
        "so",
        "Yes.",
        &[],
    ),
    thought(
        "K13 never closed",
        &[("c", "[T]so it goes")],
        STOPPED,
        "so it goes",
        "",
        &[],
    ),
    case(
        "K13 an empty pair vanishes",
        &[("c", "[T]\n\n[/T]Yes.")],
        STOPPED,
        "Yes.",
        &[],
    ),
    case(
        "K13 a tag in mid-text is text",
        &[("c", "The tag <think> opens it.")],
        STOPPED,
        "The tag <think> opens it.",
        &[],
    ),
    thought(
        "K13 a placeholder before the block",
        &[("c", "(no content)[T]so[/T](no content)Yes.")],
        STOPPED,
        "so",
        "Yes.",
        &[],
    ),
    thought(
        "K13 an answer behind the tag in the field",
        &[("r", "so[/T]Yes."), ("c", " And no.")],
        STOPPED,
        "so",
        "Yes. And no.",
        &[],
    ),
    thought(
        "K13 a tag in mid-content beside reasoning is text",
        &[("r", "so"), ("c", "Yes [/T] no.")],
        STOPPED,
        "so",
        "Yes [/T] no.",
        &[],
    ),
    thought(
        "K13 a call ends the block",
        &[("c", "[T]so[C]functions.ping:0[A]{}[/C]Yes.")],
        TOOLED,
        "so",
        "Yes.",
        &[PING],
    ),
    thought(
        "K13 a block about code",
        &[("c", "[T]use `</think>` here[/T]Yes.")],
        STOPPED,
        "use `</think>` here",
        "Yes.",
        &[],
    ),
    // K15
    case(
        "K15 a placeholder and a call",
        &[("c", "(no content)[S][C]functions.ping:0[A]{}[/C][/S]")],
        TOOLED,
        "",
        &[PING],
    ),
    case(
        "K15 elsewhere it stays",
        &[("c", "It says (no content) here.")],
        STOPPED,
        "It says (no content) here.",
        &[],
    ),
    case(
        "K15 the beginning of one",
        &[("c", "(no, that is not it)")],
        STOPPED,
        "(no, that is not it)",
        &[],
    ),
    case(
        "K15 nothing else",
        &[("c", "(no content)\n(no content)")],
        STOPPED,
        "",
        &[],
    ),
    // K16-K19
    case(
        "K16 null",
        &[("c", "[S][C]functions.ping:0[A]null[/C][/S]")],
        TOOLED,
        "",
        &[PING],
    ),
    case(
        "K16 blanks",
        &[("c", "[S][C]functions.ping:0[A]  [/C][/S]")],
        TOOLED,
        "",
        &[PING],
    ),
    case(
        "K17 a raw newline",
        &[("c", "[S][C]functions.run:0[A]{\"cmd\":\"a\nb\"}[/C][/S]")],
        TOOLED,
        "",
        &[("run", r#"{"cmd":"a\nb"}"#)],
    ),
    case(
        "K17 junk behind the object",
        &[("c", "[S][C]functions.run:0[A]{\"cmd\":\"ls\"}}]x[/C][/S]")],
        TOOLED,
        "",
        &[LS],
    ),
    case(
        "K18 single quotes",
        &[(
            "c",
            "[S][C]functions.run:0[A]{'cmd':1}[/C][C]functions.ping:1[A]{}[/C][/S]",
        )],
        TOOLED,
        "",
        &[("run", "{'cmd':1}"), PING],
    ),
    case(
        "K19 a whole section in a string",
        &[(
            "c",
            "[S][C]functions.run:0[A]{\"cmd\":\"[S][C]functions.ping:0[A]{}[/C][/S]\"}[/C][/S]",
        )],
        TOOLED,
        "",
        &[("run", r#"{"cmd":"[S][C]functions.ping:0[A]{}[/C][/S]"}"#)],
    ),
    case(
        "K19 fences and tags in a string",
        &[(
            "c",
            "[S][C]functions.run:0[A]{\"cmd\":\"```\\n</think> `\"}[/C][/S]ok",
        )],
        TOOLED,
        "ok",
        &[("run", r#"{"cmd":"```\n</think> `"}"#)],
    ),
    case(
        "K19 an escaped quote before a marker",
        &[(
            "c",
            "[S][C]functions.run:0[A]{\"cmd\":\"a\\\"[/C]\"}[/C][/S]",
        )],
        TOOLED,
        "",
        &[("run", r#"{"cmd":"a\"[/C]"}"#)],
    ),
    // K20
    case(
        "K20 calls that are not there",
        &[("c", "Yes.")],
        ("tool_calls", "stop"),
        "Yes.",
        &[],
    ),
    case(
        "K20 a limit with a complete call",
        &[("c", "[S][C]functions.ping:0[A]{}[/C][/S]")],
        ("length", "length"),
        "",
        &[PING],
    ),
    case(
        "K20 a filter with a call",
        &[("c", "[S][C]functions.ping:0[A]{}[/C][/S]")],
        ("content_filter", "content_filter"),
        "",
        &[PING],
    ),
    case(
        "K20 a word of another dialect",
        &[("c", "[S][C]functions.ping:0[A]{}[/C][/S]")],
        ("end_turn", "tool_calls"),
        "",
        &[PING],
    ),
    // K24
    case(
        "K24 the end of the turn at the end",
        &[("c", "Yes.<|im_end|>")],
        STOPPED,
        "Yes.",
        &[],
    ),
    case(
        "K24 the end of the turn in the middle",
        &[("c", "It is <|im_end|> there.")],
        STOPPED,
        "It is <|im_end|> there.",
        &[],
    ),
    case(
        "K24 foreign tags at the end",
        &[("c", "Searching now.<tool_call>Web<tool_call>mcp__per")],
        STOPPED,
        "Searching now.",
        &[],
    ),
    case(
        "K24 a foreign tag in the middle",
        &[("c", "The <tool_call> tag is here.")],
        STOPPED,
        "The <tool_call> tag is here.",
        &[],
    ),
    case(
        "K24 ends behind a call",
        &[("c", "[S][C]functions.ping:0[A]{}[/C][/S][/S]<|im_end|>")],
        TOOLED,
        "",
        &[PING],
    ),
    // K25
    case(
        "K25 a span",
        &[("c", "Write `[S][C]run:0[A]{}[/C]` so.")],
        STOPPED,
        "Write `[S][C]run:0[A]{}[/C]` so.",
        &[],
    ),
    case(
        "K25 a fence of tildes",
        &[("c", "~~~\n[C]functions.ping:0[A]{}[/C]\n~~~\nok")],
        STOPPED,
        "~~~\n[C]functions.ping:0[A]{}[/C]\n~~~\nok",
        &[],
    ),
    case(
        "K25 a longer fence",
        &[("c", "````\n```\n[/C]\n```\n[/T]\n````\nok")],
        STOPPED,
        "````\n```\n[/C]\n```\n[/T]\n````\nok",
        &[],
    ),
    case(
        "K25 a call behind closed code",
        &[(
            "c",
            "So `x`:\n```\ny\n```\n[S][C]functions.ping:0[A]{}[/C][/S]",
        )],
        TOOLED,
        "So `x`:\n```\ny\n```\n",
        &[PING],
    ),
    case(
        "K25 a span ends with its line",
        &[("c", "an odd ` sign\n[S][C]functions.ping:0[A]{}[/C][/S]")],
        TOOLED,
        "an odd ` sign\n",
        &[PING],
    ),
    case(
        "K25 a begin typed in prose",
        &[("c", "The [C] token, then.")],
        STOPPED,
        "The [C] token, then.",
        &[],
    ),
];

#[test]
fn own_cases() {
    let wrong: Vec<String> = CASES
        .iter()
        .flat_map(|case| run(case, Value::Null))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn nothing_is_a_call_without_tools_or_where_calls_are_forbidden() {
    let text = "a [S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/C][/S] b [/C] run:0[A]{} <tool_call>x";
    let same = Case {
        name: "untouched",
        said: &[("c", "")],
        finish: STOPPED,
        content: "",
        reasoning: "",
        calls: &[],
    };
    for request in [
        json!({"tool_choice": "none"}),
        json!({"tools": []}),
        json!({"model": "deepseek-v3"}),
    ] {
        let mut json = json_of(&same, &request);
        json["upstream"][0]["choices"][0]["delta"]["content"] = json!(long(text));
        json["expect"]["content"] = json!(long(text));
        assert_eq!(check(&json), Vec::<String>::new(), "{request}");
    }
}

#[test]
fn in_a_talk_about_markers_only_whole_canonical_sections_are_calls() {
    let talk = |content: &str| json!({"messages": [{"role": "user", "content": long(content)}]});
    let about = talk("why does [C] appear?");
    for case in [
        case(
            "canonical",
            &[(
                "c",
                "Ok [S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/C][/S] done",
            )],
            TOOLED,
            "Ok  done",
            &[LS],
        ),
        case(
            "bare",
            &[("c", "Ok [C]functions.run:0[A]{\"cmd\":\"ls\"}[/C]")],
            STOPPED,
            "Ok [C]functions.run:0[A]{\"cmd\":\"ls\"}[/C]",
            &[],
        ),
        case(
            "cut",
            &[("c", "Ok [S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/C]")],
            STOPPED,
            "Ok [S][C]functions.run:0[A]{\"cmd\":\"ls\"}[/C]",
            &[],
        ),
        case(
            "not declared",
            &[("c", "[S][C]functions.nope:0[A]{}[/C][/S]")],
            STOPPED,
            "[S][C]functions.nope:0[A]{}[/C][/S]",
            &[],
        ),
        case(
            "broken",
            &[("c", "[S][C]functions.run:0[A]{\"cmd\"}[/C][/S]")],
            STOPPED,
            "[S][C]functions.run:0[A]{\"cmd\"}[/C][/S]",
            &[],
        ),
        case(
            "orphans",
            &[("c", "The [/C] and [/S] and run:0[A]{}.")],
            STOPPED,
            "The [/C] and [/S] and run:0[A]{}.",
            &[],
        ),
    ] {
        assert_eq!(run(&case, about.clone()), Vec::<String>::new());
    }
    let tags = case(
        "tags",
        &[("c", "It ends with [/T] there.")],
        STOPPED,
        "It ends with [/T] there.",
        &[],
    );
    assert_eq!(
        run(&tags, talk("what is </think> for?")),
        Vec::<String>::new()
    );
}

fn run(case: &Case, request: Value) -> Vec<String> {
    let found = check(&json_of(case, &request));
    // The first tells enough; the sweeps would repeat it a hundred times.
    found
        .into_iter()
        .take(1)
        .map(|wrong| format!("{}: {wrong}", case.name))
        .collect()
}

fn json_of(case: &Case, request: &Value) -> Value {
    let model = request["model"].as_str().unwrap_or(MODEL);
    let mut events: Vec<Value> = case
        .said
        .iter()
        .map(|(field, text)| {
            let field = if *field == "c" {
                "content"
            } else {
                "reasoning_content"
            };
            chunk(model, json!({field: long(text)}), None)
        })
        .collect();
    events.push(chunk(model, json!({}), Some(case.finish.0)));
    events.push(json!({"raw": "[DONE]"}));
    let calls: Vec<Value> = case
        .calls
        .iter()
        .map(
            |(name, arguments)| match serde_json::from_str::<Value>(&long(arguments)) {
                Ok(json) => json!({"name": name, "arguments_json": json}),
                Err(_) => json!({"name": name, "arguments_raw": long(arguments)}),
            },
        )
        .collect();
    json!({
        "stream": true,
        "tools": tools(),
        "request": request,
        "upstream": events,
        "sweep": ["content-1char", "content-2way"],
        "expect": {
            "content": long(case.content),
            "reasoning": long(case.reasoning),
            "tool_calls": calls,
            "finish_reason": case.finish.1,
        },
    })
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
