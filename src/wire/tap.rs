//! Stands beside an answer and finds what it cost and whether it came to its end.
//!
//! An event stream is looked at line by line, and only lines that can matter are parsed: a marker cannot hide inside a
//! model's text, because quotes are escaped there. A plain JSON answer is walked incrementally. Neither is kept.
//!
//! The end matters because the clients take a stream that just stops for a whole answer (measured on Kimi Code 2.1.0
//! in chat and messages): whoever relays it must know that it was cut.

use memchr::memmem;
use serde::Deserialize;

use crate::usage::Tokens;
use crate::wire::Dialect;
use crate::wire::json::{Visitor, Walk, Want};
use crate::wire::report::Usage;
use crate::wire::sse::Splitter;

/// How an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No end was seen yet; a connection that closes now has cut the answer.
    Open,
    /// The model came to its end.
    Whole {
        /// It asked the client to run tools, so the client will come back by itself.
        wants_tools: bool,
    },
    /// The upstream reported an error inside the answer.
    Failed,
}

/// A looker at one answer. Feed it every chunk.
#[derive(Debug)]
pub struct Tap {
    dialect: Dialect,
    form: Form,
    seen: Seen,
}

#[derive(Debug)]
enum Form {
    Events(Splitter),
    Json(Walk),
}

#[derive(Debug)]
struct Seen {
    usage: Usage,
    ending: Ending,
    wants_tools: bool,
}

impl Tap {
    /// For an answer in this dialect, as an event stream or as one JSON text.
    pub fn new(dialect: Dialect, events: bool) -> Self {
        Self {
            dialect,
            form: if events {
                Form::Events(Splitter::default())
            } else {
                Form::Json(Walk::default())
            },
            seen: Seen {
                usage: Usage::default(),
                ending: Ending::Open,
                wants_tools: false,
            },
        }
    }

    /// Looks at the next chunk and tells how many bytes of the model's own output it carried (text, thinking, and the
    /// arguments of tool calls; escapes counted as they stand).
    pub fn feed(&mut self, chunk: &[u8]) -> u64 {
        let Self {
            dialect,
            form,
            seen,
        } = self;
        match form {
            Form::Events(splitter) => {
                let mut output = 0;
                splitter.feed(chunk, |data| output += seen.event(*dialect, data));
                output
            }
            Form::Json(walk) => {
                walk.feed(chunk, seen);
                if walk.ended() {
                    seen.end(seen.wants_tools);
                }
                // Counted without the envelope, which is small beside any answer worth counting.
                chunk.len() as u64
            }
        }
    }

    /// The tokens reported so far; `None` until both input and output are known.
    pub fn tokens(&self) -> Option<Tokens> {
        self.seen.usage.tokens(self.dialect)
    }

    /// How the answer stands.
    pub fn ending(&self) -> Ending {
        self.seen.ending
    }
}

impl Seen {
    fn event(&mut self, dialect: Dialect, data: &[u8]) -> u64 {
        if holds_object(data, b"\"usage\"") {
            self.read_usage(data);
        }
        match dialect {
            Dialect::Chat => self.chat_event(data),
            Dialect::Messages => self.messages_event(data),
            Dialect::Responses => self.responses_event(data),
        }
    }

    fn chat_event(&mut self, data: &[u8]) -> u64 {
        if data.trim_ascii() == b"[DONE]" {
            self.end(self.wants_tools);
            return 0;
        }
        if let Some(reason) = string_member(data, b"\"finish_reason\"") {
            if reason == b"error" {
                self.ending = Ending::Failed;
            } else {
                self.wants_tools |= reason == b"tool_calls";
                self.end(self.wants_tools);
            }
        }
        if holds_object(data, b"\"error\"") {
            self.ending = Ending::Failed;
        }
        output_bytes(
            data,
            &[
                b"\"content\"",
                b"\"reasoning_content\"",
                b"\"reasoning\"",
                b"\"arguments\"",
            ],
        )
    }

    fn messages_event(&mut self, data: &[u8]) -> u64 {
        if let Some(reason) = string_member(data, b"\"stop_reason\"") {
            self.wants_tools = reason == b"tool_use";
        }
        if has_type(data, b"message_stop") {
            self.end(self.wants_tools);
        } else if has_type(data, b"error") {
            self.ending = Ending::Failed;
        }
        output_bytes(data, &[b"\"text\"", b"\"thinking\"", b"\"partial_json\""])
    }

    fn responses_event(&mut self, data: &[u8]) -> u64 {
        if has_type(data, b"response.completed") || has_type(data, b"response.incomplete") {
            self.end(memmem::find(data, b"\"function_call\"").is_some());
        } else if has_type(data, b"response.failed") || has_type(data, b"error") {
            self.ending = Ending::Failed;
        }
        output_bytes(data, &[b"\"delta\""])
    }

    fn end(&mut self, wants_tools: bool) {
        if self.ending != Ending::Failed {
            self.ending = Ending::Whole { wants_tools };
        }
    }

    fn read_usage(&mut self, data: &[u8]) {
        // A line that is no JSON carries no usage; what else is wrong with it is the client's to judge.
        let Ok(envelope) = serde_json::from_slice::<Envelope>(data) else {
            return;
        };
        let inner = envelope
            .message
            .or(envelope.response)
            .and_then(|it| it.usage);
        let in_choice = envelope
            .choices
            .unwrap_or_default()
            .into_iter()
            .find_map(|it| it.usage);
        for usage in [inner, in_choice, envelope.usage].into_iter().flatten() {
            self.usage.update(usage);
        }
    }
}

impl Visitor for Seen {
    fn wants(&mut self, key: &[u8]) -> Want {
        match key {
            b"usage" | b"stop_reason" | b"error" => Want::Capture,
            _ => Want::Skip,
        }
    }

    fn captured(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(value) = value else { return };
        match key {
            b"usage" => {
                if let Ok(usage) = serde_json::from_slice(value) {
                    self.usage.update(usage);
                }
            }
            b"stop_reason" => self.wants_tools |= value == b"\"tool_use\"",
            _ if value != b"null" => self.ending = Ending::Failed,
            _ => {}
        }
    }
}

/// The places in an event where usage can stand.
#[derive(Deserialize)]
struct Envelope {
    usage: Option<Usage>,
    message: Option<Holder>,
    response: Option<Holder>,
    choices: Option<Vec<Holder>>,
}

#[derive(Deserialize)]
struct Holder {
    usage: Option<Usage>,
}

/// What follows `key` and its colon, from the first byte of the value on.
fn value_after<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let after = &data[memmem::find(data, key)? + key.len()..];
    Some(
        after
            .trim_ascii_start()
            .strip_prefix(b":")?
            .trim_ascii_start(),
    )
}

fn holds_object(data: &[u8], key: &[u8]) -> bool {
    value_after(data, key).is_some_and(|value| value.first() == Some(&b'{'))
}

/// The raw inside of the string after `key`, if its value is a string.
fn string_member<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let inside = value_after(data, key)?.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        let stop = at + memchr::memchr2(b'"', b'\\', &inside[at..])?;
        if inside[stop] == b'"' {
            return Some(&inside[..stop]);
        }
        at = (stop + 2).min(inside.len());
    }
}

/// Whether any object of an event is of this type. Members come in any order, so the first `type` may be a nested one.
fn has_type(data: &[u8], wanted: &[u8]) -> bool {
    let types = memmem::find_iter(data, b"\"type\"");
    types.into_iter().any(|at| {
        let value = data[at + 6..]
            .trim_ascii_start()
            .strip_prefix(b":")
            .map(<[u8]>::trim_ascii_start);
        value
            .and_then(|value| value.strip_prefix(b"\"")?.strip_prefix(wanted))
            .is_some_and(|rest| rest.starts_with(b"\""))
    })
}

fn output_bytes(data: &[u8], keys: &[&[u8]]) -> u64 {
    let lengths = keys.iter().filter_map(|key| string_member(data, key));
    lengths.map(|text| text.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(dialect: Dialect, events: bool, text: &str) -> (Option<Tokens>, Ending, u64) {
        let mut whole = Tap::new(dialect, events);
        let output = whole.feed(text.as_bytes());
        let mut bytewise = Tap::new(dialect, events);
        for byte in text.as_bytes() {
            bytewise.feed(&[*byte]);
        }
        assert_eq!(whole.tokens(), bytewise.tokens());
        assert_eq!(whole.ending(), bytewise.ending());
        (whole.tokens(), whole.ending(), output)
    }

    fn tokens(prompt: u64, cached: u64, generated: u64, reasoning: u64) -> Tokens {
        Tokens {
            prompt,
            cached,
            generated,
            reasoning,
        }
    }

    const STOP: Ending = Ending::Whole { wants_tools: false };
    const TOOLS: Ending = Ending::Whole { wants_tools: true };

    #[test]
    fn chat_usage_is_found_in_every_known_place() {
        let details = r#"{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":3}}"#;
        for text in [
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"hi\"}},\"finish_reason\":\"stop\"}}],\"usage\":{details}}}\n\ndata: [DONE]\n\n"
            ),
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"hi\"}},\"finish_reason\":\"stop\"}}],\"usage\":null}}\n\ndata: {{\"choices\":[],\"usage\" : {details}}}\n\ndata: [DONE]\n\n"
            ),
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"hi\"}},\"usage\":{details},\"finish_reason\":\"stop\"}}]}}\r\n\r\n"
            ),
        ] {
            assert_eq!(
                tap(Dialect::Chat, true, &text),
                (Some(tokens(100, 60, 7, 3)), STOP, 2),
                "{text}"
            );
        }
        let moonshot = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"cached_tokens\":4}}]}\n\n";
        assert_eq!(
            tap(Dialect::Chat, true, moonshot),
            (Some(tokens(9, 4, 1, 0)), TOOLS, 0)
        );
    }

    #[test]
    fn messages_usage_adds_the_cache_and_takes_the_later_values() {
        let text = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"abc\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\"\"}}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"input_tokens\":40,\"cache_read_input_tokens\":60,\"cache_creation_input_tokens\":5,\"output_tokens\":7}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
        );
        assert_eq!(
            tap(Dialect::Messages, true, text),
            (Some(tokens(105, 60, 7, 0)), TOOLS, 9)
        );
    }

    #[test]
    fn responses_usage_stands_in_the_last_event() {
        let text = concat!(
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"type\":\"message\"}],\"usage\":{\"input_tokens\":11,\"input_tokens_details\":{\"cached_tokens\":2},\"output_tokens\":5,\"output_tokens_details\":{\"reasoning_tokens\":1}}}}\n\n"
        );
        assert_eq!(
            tap(Dialect::Responses, true, text),
            (Some(tokens(11, 2, 5, 1)), STOP, 5)
        );
    }

    #[test]
    fn plain_answers_are_walked() {
        let chat = r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":1}"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
        let (found, ending, _) = tap(Dialect::Chat, false, chat);
        assert_eq!((found, ending), (Some(tokens(3, 0, 4, 0)), STOP));
        let messages = r#"{"type":"message","content":[],"stop_reason":"tool_use","usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":1}}"#;
        let (found, ending, _) = tap(Dialect::Messages, false, messages);
        assert_eq!((found, ending), (Some(tokens(4, 1, 4, 0)), TOOLS));
    }

    #[test]
    fn a_cut_or_failed_answer_is_told_from_a_whole_one() {
        for (dialect, text, expected) in [
            (
                Dialect::Chat,
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n",
                Ending::Open,
            ),
            (
                Dialect::Chat,
                "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}}]}\n\n",
                Ending::Open,
            ),
            (
                Dialect::Chat,
                "data: {\"error\":{\"message\":\"x\"},\"choices\":[{\"finish_reason\":\"error\"}]}\n\ndata: [DONE]\n\n",
                Ending::Failed,
            ),
            (
                Dialect::Messages,
                "data: {\"type\":\"content_block_stop\"}\n\n",
                Ending::Open,
            ),
            (
                Dialect::Messages,
                "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
                Ending::Failed,
            ),
            (
                Dialect::Responses,
                "data: {\"type\":\"response.failed\",\"response\":{}}\n\n",
                Ending::Failed,
            ),
            (
                Dialect::Messages,
                "data: {\"error\":{\"type\":\"overloaded_error\"},\"type\": \"error\"}\n\n",
                Ending::Failed,
            ),
            (
                Dialect::Responses,
                "data: {\"response\":{\"output\":[{\"type\":\"message\"}]},\"type\":\"response.completed\"}\n\n",
                STOP,
            ),
            (
                Dialect::Responses,
                "data: {\"type\":\"response.created\"}\n\n",
                Ending::Open,
            ),
        ] {
            assert_eq!(tap(dialect, true, text).1, expected, "{text}");
        }
    }
}
