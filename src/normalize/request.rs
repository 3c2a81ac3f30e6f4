//! Reads off a request what its answer has to be read by, and cleans its history.
//!
//! One borrowed pass over the body: members are lent, schemas are reduced to keys and sorts, messages are searched for
//! talk about markers, and the calls of the history are walked. Models that are not Kimi's cost the outermost members
//! only and are left alone.

use memchr::memmem;

use crate::normalize::history::History;
use crate::normalize::members::Members;
use crate::normalize::names::Tools;
use crate::normalize::repairs::Repairs;
use crate::normalize::rules::{Asked, Rules};
use crate::wire::Dialect;

/// A request, read.
#[derive(Debug)]
pub struct Request {
    /// How its answer is to be read.
    pub rules: Rules,
    /// The body with its history cleaned; `None` when there was nothing to clean, and then the bytes that came are right.
    pub body: Option<Vec<u8>>,
    /// What was cleaned.
    pub repairs: Repairs,
}

impl Request {
    /// Reads a body. `kimi` overrules what the model's id tells. `None` if the body is no request of this dialect.
    pub fn read(dialect: Dialect, body: &[u8], kimi: Option<bool>) -> Option<Self> {
        let members = Members::of_body(body)?;
        let mut rules = Rules::of_model(&members.text("model")?);
        rules.kimi = kimi.unwrap_or(rules.kimi);
        let mut repairs = Repairs::default();
        if !rules.kimi {
            return Some(Self {
                rules,
                body: None,
                repairs,
            });
        }
        let mut asked = Asked {
            tools: tools(&members),
            forbids_calls: forbids_calls(&members),
            ..Asked::default()
        };
        let (list, head) = match dialect {
            Dialect::Chat => ("messages", None),
            Dialect::Messages => ("messages", members.get("system")),
            Dialect::Responses => ("input", members.get("instructions")),
        };
        for said in [members.get(list), head].into_iter().flatten() {
            asked.mentions_markers |= mentions(said, "|tool_call", "<", "\\u003c");
            asked.mentions_think |= mentions_think(said);
        }
        let mut history = History::new(body, dialect);
        for message in members.items(list) {
            history.take(message);
        }
        asked.calls_before = history.calls();
        let body = history.cleaned(&mut repairs);
        Some(Self {
            rules: rules.asking(asked),
            body,
            repairs,
        })
    }
}

/// The declared tools; chat nests the definition, messages names the schema differently.
fn tools(members: &Members<'_>) -> Tools {
    let tools = members.items("tools");
    let opened = tools.iter().filter_map(|tool| {
        let tool = Members::of(tool)?;
        let tool = tool.get("function").and_then(Members::of).unwrap_or(tool);
        let schema = tool.get("parameters").or_else(|| tool.get("input_schema"));
        Some((tool.text("name")?, schema))
    });
    let opened: Vec<_> = opened.collect();
    Tools::new(opened.iter().map(|(name, schema)| (&**name, *schema)))
}

fn forbids_calls(members: &Members<'_>) -> bool {
    let choice = members.get("tool_choice");
    members.is("tool_choice", "none")
        || choice
            .and_then(Members::of)
            .is_some_and(|choice| choice.is("type", "none"))
}

/// Whether a text holds `word` with `sign` before it, which JSON may have escaped.
fn mentions(said: &str, word: &str, sign: &str, escaped: &str) -> bool {
    memmem::find_iter(said.as_bytes(), word).any(|at| {
        let before = &said[..at];
        let escape = before.len().checked_sub(escaped.len());
        before.ends_with(sign)
            || escape
                .and_then(|from| before.get(from..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(escaped))
    })
}

fn mentions_think(said: &str) -> bool {
    memmem::find_iter(said.as_bytes(), "think").any(|at| {
        let after = &said[at + "think".len()..];
        let escape = after.get(.."\\u003e".len());
        after.starts_with('>') || escape.is_some_and(|it| it.eq_ignore_ascii_case("\\u003e"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::names::Name;

    fn rules(dialect: Dialect, body: &str) -> Rules {
        Request::read(dialect, body.as_bytes(), None).unwrap().rules
    }

    #[test]
    fn the_model_s_id_tells_whether_it_is_a_kimi() {
        for (id, kimi, k3) in [
            ("accounts/fireworks/models/kimi-k2p6", true, false),
            ("moonshotai/Kimi-K2-Instruct-0905", true, false),
            ("kimi-for-coding", true, false),
            ("accounts/fireworks/routers/kimi-k3-fast", true, true),
            ("moonshotai/Kimi-K3", true, true),
            ("accounts/fireworks/models/glm-4p6", false, false),
            ("gpt-k3", false, false),
        ] {
            let rules = Rules::of_model(id);
            assert_eq!((rules.kimi, rules.k3), (kimi, k3), "{id}");
        }
    }

    #[test]
    fn tools_of_every_dialect_are_read() {
        let schema =
            r#"{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}"#;
        let other = r#"{"type":"object","properties":{"cmd":{"type":"string"}}}"#;
        for (dialect, tools) in [
            (
                Dialect::Chat,
                format!(
                    r#"{{"type":"function","function":{{"name":"Read","parameters":{schema}}}}},{{"type":"function","function":{{"name":"Run","parameters":{other}}}}}"#
                ),
            ),
            (
                Dialect::Messages,
                format!(
                    r#"{{"name":"Read","input_schema":{schema}}},{{"name":"Run","input_schema":{other}}}"#
                ),
            ),
            (
                Dialect::Responses,
                format!(
                    r#"{{"type":"web_search"}},{{"type":"function","name":"Read","parameters":{schema}}},{{"type":"function","name":"Run","parameters":{other}}}"#
                ),
            ),
        ] {
            let body = format!(r#"{{"model":"kimi-k2.6","tools":[{tools}]}}"#);
            let rules = rules(dialect, &body);
            assert!(rules.recovers_calls());
            assert_eq!(rules.tools.names().collect::<Vec<_>>(), ["Read", "Run"]);
            assert_eq!(rules.tools.infer(br#"{"path":"a"}"#), Some("Read"));
            assert_eq!(
                rules.tools.resolve("functions.run:0"),
                Name::Declared("Run".to_owned())
            );
        }
    }

    #[test]
    fn choice_and_talk_about_markers_are_seen() {
        let check = |dialect, rest: &str, expected: (bool, bool, bool)| {
            let rules = rules(dialect, &format!(r#"{{"model":"kimi-k2.6",{rest}}}"#));
            let found = (
                rules.forbids_calls,
                rules.mentions_markers,
                rules.mentions_think,
            );
            assert_eq!(found, expected, "{rest}");
        };
        let (chat, messages, responses) = (Dialect::Chat, Dialect::Messages, Dialect::Responses);
        check(chat, r#""tool_choice":"none""#, (true, false, false));
        check(chat, r#""tool_choice":"auto""#, (false, false, false));
        check(
            messages,
            r#""tool_choice":{"type":"none"}"#,
            (true, false, false),
        );
        let said = |text: &str| format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
        check(
            chat,
            &said("why <|tool_call_begin|>?"),
            (false, true, false),
        );
        check(chat, &said("why \\u003C|tool_calls?"), (false, true, false));
        check(chat, &said("a |tool_call"), (false, false, false));
        check(chat, &said("é|tool_call"), (false, false, false));
        check(chat, &said("the </think> tag"), (false, false, true));
        check(chat, &said("the think\\u003e tag"), (false, false, true));
        check(chat, &said("I think so"), (false, false, false));
        check(messages, r#""system":"<think>""#, (false, false, true));
        check(
            messages,
            r#""system":[{"type":"text","text":"<|tool_call"}]"#,
            (false, true, false),
        );
        check(
            responses,
            r#""instructions":"think>""#,
            (false, false, true),
        );
        check(responses, r#""input":"think>""#, (false, false, true));
        // What a tool is described with is no message.
        check(
            chat,
            r#""tools":[{"function":{"name":"a","description":"</think><|tool_call"}}]"#,
            (false, false, false),
        );
    }

    #[test]
    fn others_models_and_others_bodies_are_left_alone() {
        let call = r#"{"model":"MODEL","messages":[{"role":"assistant","tool_calls":[{"id":"x","function":{"name":"a","arguments":"{}"}}]}]}"#;
        let read = |body: &str, kimi| Request::read(Dialect::Chat, body.as_bytes(), kimi);
        let other = call.replace("MODEL", "glm-4p6");
        assert!(read(&other, None).unwrap().body.is_none());
        assert!(read(&other, Some(true)).unwrap().body.is_some());
        let ours = call.replace("MODEL", "kimi-k2.6");
        assert!(read(&ours, None).unwrap().body.is_some());
        assert!(read(&ours, Some(false)).unwrap().body.is_none());
        for broken in ["", "[]", "{}", "{\"model\":1}", "{\"model\":\"kimi\""] {
            assert!(read(broken, None).is_none(), "{broken}");
        }
    }
}
