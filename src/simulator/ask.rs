//! Reads a request of any of the three dialects into what the simulator needs of it.
//!
//! The outer object is read without looking into messages and tools; those are opened only where the count, the cache
//! or the scripted agent needs them, so that a bench which declares its own numbers pays for one scan only.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::cache::Prefix;
use super::truth::Dialect;

/// Tokens that the chat template adds to the text (measured on Fireworks for a one-message chat).
const TEMPLATE_TOKENS: u64 = 8;

/// Pictures are counted as this many bytes of text, whatever their size: about 1000 tokens.
const PICTURE_BYTES: usize = 4096;

/// A request, read.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) stream: bool,
    /// `prompt_cache_key`, `user` or `metadata.user_id`.
    pub(super) session: Option<String>,
    pub(super) priority: bool,
    /// Output tokens allowed.
    pub(super) cap: Option<u64>,
    pub(super) thinks: bool,
    pub(super) perf_metrics: bool,
    /// Stand-in count of the prompt, and its blocks.
    pub(super) prompt: u64,
    pub(super) blocks: Vec<u64>,
    pub(super) talk: Talk,
}

/// What the scripted agent looks at.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) tools: Vec<Tool>,
    /// The newest text that a person typed.
    pub(super) typed: String,
    /// The one before it.
    pub(super) before: String,
    /// Texts of the tool results since `typed`, oldest first.
    pub(super) results: Vec<String>,
    /// Tool results in the whole conversation.
    pub(super) calls: usize,
    /// The client says that it approves tool calls by itself.
    pub(super) unattended: bool,
}

/// A tool that the client offers.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) schema: Value,
}

/// How far a request has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depth {
    /// Count the prompt and cut it into blocks of this many tokens.
    pub(super) prompt: Option<u64>,
    /// Read the conversation.
    pub(super) talk: bool,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    system: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(default)]
    reasoning_effort: Option<Value>,
    #[serde(default)]
    prompt_cache_key: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    max_output_tokens: Option<u64>,
    #[serde(default)]
    perf_metrics_in_response: Option<bool>,
}

impl Ask {
    /// Reads a body.
    ///
    /// # Errors
    /// A sentence that tells the client what is wrong with the request.
    pub(super) fn read(dialect: Dialect, body: &[u8], depth: Depth) -> Result<Self, String> {
        let body: Body<'_> = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no valid request: {error}"))?;
        let model = body
            .model
            .filter(|model| !model.is_empty())
            .ok_or("`model` is required")?;
        let messages = match dialect {
            Dialect::Responses => body.input.ok_or("`input` is required")?,
            _ => body.messages.ok_or("`messages` is required")?,
        };
        let cap = match dialect {
            Dialect::Chat => body.max_completion_tokens.or(body.max_tokens),
            Dialect::Responses => body.max_output_tokens,
            _ => body.max_tokens,
        };
        if dialect == Dialect::Messages && cap.unwrap_or(0) == 0 {
            return Err("`max_tokens` is required and must be greater than 0".to_owned());
        }
        let switched_off = body
            .thinking
            .is_some_and(|raw| raw.get().contains("\"disabled\""))
            || body.reasoning_effort.is_some_and(|effort| effort == "none");
        let mut ask = Self {
            model: model.into_owned(),
            stream: body.stream.unwrap_or(false),
            session: body.prompt_cache_key.or(body.user).or_else(|| {
                let id = body.metadata.as_ref()?.get("user_id")?.as_str()?;
                Some(id.to_owned())
            }),
            priority: body.service_tier.as_deref() == Some("priority"),
            cap,
            thinks: !switched_off,
            perf_metrics: body.perf_metrics_in_response.unwrap_or(false),
            prompt: 0,
            blocks: Vec::new(),
            talk: Talk::default(),
        };
        if depth.prompt.is_some() || depth.talk {
            let open = |part: Option<&RawValue>| {
                part.map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get()))
                    .map_err(|error| format!("the body is no valid request: {error}"))
            };
            let tools = open(body.tools)?;
            let messages = open(Some(messages))?;
            if let Some(block) = depth.prompt {
                let mut prefix = Prefix::new(block);
                feed(&tools, &mut prefix);
                feed(&open(body.system)?, &mut prefix);
                feed(&open(body.instructions)?, &mut prefix);
                feed(&messages, &mut prefix);
                ask.prompt = prefix.tokens() + TEMPLATE_TOKENS;
                ask.blocks = prefix.into_blocks();
            }
            if depth.talk {
                ask.talk = Talk::read(&tools, &messages);
            }
        }
        Ok(ask)
    }
}

/// Feeds every string of a value, in its order. Cache marks are left out, since clients move them from turn to turn.
fn feed(value: &Value, prefix: &mut Prefix) {
    match value {
        Value::String(text) => feed_text(text, text.starts_with("data:"), prefix),
        Value::Array(items) => items.iter().for_each(|item| feed(item, prefix)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    _ if name == "cache_control" => {}
                    Value::String(text) if name == "data" => feed_text(text, true, prefix),
                    _ => feed(value, prefix),
                }
            }
        }
        _ => {}
    }
}

fn feed_text(text: &str, picture: bool, prefix: &mut Prefix) {
    let length = if picture {
        text.floor_char_boundary(PICTURE_BYTES)
    } else {
        text.len()
    };
    prefix.feed(text.get(..length).unwrap_or(text));
}

/// One step of the conversation, whatever its dialect.
enum Turn {
    User(String),
    Result(String),
}

impl Talk {
    fn read(tools: &Value, messages: &Value) -> Self {
        let mut turns = Vec::new();
        match messages {
            Value::String(text) => turns.push(Turn::User(text.clone())),
            _ => list(messages).for_each(|message| read_message(message, &mut turns)),
        }
        let mut talk = Self {
            tools: list(tools).filter_map(read_tool).collect(),
            ..Self::default()
        };
        for turn in turns {
            match turn {
                Turn::Result(text) => {
                    talk.calls += 1;
                    talk.results.push(text);
                }
                Turn::User(text) if text.trim_start().starts_with("<system-reminder>") => {
                    // Kimi Code 2.1.0 tells its permission mode by such a message; the newest one counts.
                    if text.contains("permission mode") {
                        talk.unattended = text.contains("Auto permission mode is active");
                    }
                }
                Turn::User(text) => {
                    talk.before = std::mem::replace(&mut talk.typed, text);
                    talk.results.clear();
                }
            }
        }
        talk
    }
}

fn read_tool(tool: &Value) -> Option<Tool> {
    // Chat nests the definition; messages and responses do not, and messages names the schema differently.
    let tool = tool
        .get("function")
        .filter(|inner| inner.is_object())
        .unwrap_or(tool);
    Some(Tool {
        name: tool.get("name")?.as_str()?.to_owned(),
        description: word(tool, "description").to_owned(),
        schema: tool
            .get("parameters")
            .or_else(|| tool.get("input_schema"))
            .cloned()
            .unwrap_or(Value::Null),
    })
}

fn read_message(message: &Value, turns: &mut Vec<Turn>) {
    let content = message.get("content").unwrap_or(&Value::Null);
    match (word(message, "role"), word(message, "type")) {
        ("user", _) => match content {
            Value::String(text) => turns.push(Turn::User(text.clone())),
            parts => turns.extend(list(parts).filter_map(|part| match word(part, "type") {
                "tool_result" => Some(Turn::Result(text_of(part.get("content")?))),
                "text" | "input_text" => Some(Turn::User(text_of(part))),
                _ => None,
            })),
        },
        ("tool", _) => turns.push(Turn::Result(text_of(content))),
        (_, "function_call_output") => {
            turns.push(Turn::Result(
                message.get("output").map(text_of).unwrap_or_default(),
            ));
        }
        _ => {}
    }
}

/// The text of a string, of a part, or of a list of parts.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        _ => word(value, "text").to_owned(),
    }
}

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: Depth = Depth {
        prompt: Some(1),
        talk: true,
    };

    fn read(dialect: Dialect, body: &Value) -> Ask {
        Ask::read(dialect, body.to_string().as_bytes(), ALL).unwrap()
    }

    /// The same conversation as Kimi Code 2.1.0 sends it in each dialect.
    fn conversation(dialect: Dialect) -> Value {
        let reminder =
            "<system-reminder>\nAuto permission mode is active. Go on.\n</system-reminder>";
        match dialect {
            Dialect::Messages => json!({
                "model": "m", "max_tokens": 100, "stream": true, "metadata": {"user_id": "s"},
                "thinking": {"type": "adaptive", "display": "summarized"},
                "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "text", "text": reminder}]},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Bash", "input": {}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "out"}]}]},
                ],
            }),
            Dialect::Responses => json!({
                "model": "m", "max_output_tokens": 100, "stream": true, "prompt_cache_key": "s",
                "tools": [{"type": "function", "name": "Bash", "parameters": {"type": "object"}}],
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}]},
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": reminder}]},
                    {"type": "function_call", "call_id": "a", "name": "Bash", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "a", "output": "out"},
                ],
            }),
            _ => json!({
                "model": "m", "max_completion_tokens": 100, "stream": true, "prompt_cache_key": "s",
                "tools": [{"type": "function", "function": {"name": "Bash", "parameters": {"type": "object"}}}],
                "messages": [
                    {"role": "system", "content": "sys"},
                    {"role": "user", "content": "look"},
                    {"role": "user", "content": reminder},
                    {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": {"name": "Bash", "arguments": "{}"}}]},
                    {"role": "tool", "tool_call_id": "a", "content": "out"},
                ],
            }),
        }
    }

    #[test]
    fn the_three_dialects_say_the_same() {
        for dialect in [Dialect::Chat, Dialect::Messages, Dialect::Responses] {
            let ask = read(dialect, &conversation(dialect));
            assert!(ask.stream && ask.thinks, "{dialect:?}");
            assert_eq!(ask.session.as_deref(), Some("s"), "{dialect:?}");
            assert_eq!(ask.cap, Some(100), "{dialect:?}");
            assert_eq!(ask.talk.typed, "look", "{dialect:?}");
            assert_eq!(ask.talk.results, ["out"], "{dialect:?}");
            assert!(ask.talk.unattended, "{dialect:?}");
            assert_eq!(ask.talk.tools.first().unwrap().name, "Bash", "{dialect:?}");
        }
    }

    #[test]
    fn a_new_prompt_starts_over() {
        let ask = read(
            Dialect::Chat,
            &json!({"model": "m", "messages": [
                {"role": "user", "content": "first"}, {"role": "tool", "content": "old"},
                {"role": "assistant", "content": "done"}, {"role": "user", "content": "second"},
            ]}),
        );
        assert_eq!(
            (ask.talk.typed.as_str(), ask.talk.results.len()),
            ("second", 0)
        );
        assert_eq!((ask.talk.before.as_str(), ask.talk.calls), ("first", 1));
    }

    #[test]
    fn a_request_is_counted_by_its_text_and_a_longer_one_keeps_its_blocks() {
        let short = read(
            Dialect::Chat,
            &json!({"model": "m", "messages": [{"role": "user", "content": "12345678"}]}),
        );
        // "12345678" and "user" make three tokens.
        assert_eq!(short.prompt, 3 + TEMPLATE_TOKENS);
        let long = read(
            Dialect::Chat,
            &json!({"model": "m", "messages": [
                {"role": "user", "content": "12345678", "cache_control": {"type": "ephemeral"}},
                {"role": "assistant", "content": "more"},
            ]}),
        );
        assert!(long.blocks.starts_with(&short.blocks));
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |dialect, body: Value, expected: &str| {
            let told = Ask::read(dialect, body.to_string().as_bytes(), ALL).unwrap_err();
            assert!(told.contains(expected), "{told}");
        };
        check(Dialect::Chat, json!({"messages": []}), "`model`");
        check(Dialect::Chat, json!({"model": "m"}), "`messages`");
        check(Dialect::Responses, json!({"model": "m"}), "`input`");
        check(
            Dialect::Messages,
            json!({"model": "m", "messages": []}),
            "`max_tokens`",
        );
        check(Dialect::Chat, json!([1]), "no valid request");
    }

    #[test]
    fn a_shallow_read_opens_nothing() {
        let body = conversation(Dialect::Chat).to_string();
        let depth = Depth {
            prompt: None,
            talk: false,
        };
        let ask = Ask::read(Dialect::Chat, body.as_bytes(), depth).unwrap();
        assert_eq!((ask.prompt, ask.talk.tools.len()), (0, 0));
        assert_eq!(ask.model, "m");
    }
}
