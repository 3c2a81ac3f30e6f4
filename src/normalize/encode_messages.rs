//! Events as an Anthropic messages answer, streamed and whole.
//!
//! Texts, thinking and calls become blocks, of which one is open at a time. Thinking that the upstream did not sign is
//! signed by us, since clients return thinking only with a signature; [`history`](super::history) knows it again.
//! A whole answer has its thinking first and its arguments as objects. Arguments that are none are cut to their longest
//! valid beginning there, and the answer then counts as cut by its limit, so that no client takes them for complete.

use crate::normalize::arguments::object_of;
use crate::normalize::event::{Channel, Event, Finish};
use crate::normalize::history::SIGNATURE;
use crate::normalize::ids::safe;
use crate::normalize::text::Text;
use crate::normalize::writing::{Put, event, list, made};

/// Tokens of an answer, as Anthropic counts them: what the cache held stands apart from the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Prompt tokens that no cache held.
    pub input: u64,
    /// Prompt tokens that the cache held.
    pub cached: u64,
    /// Generated tokens.
    pub output: u64,
}

/// The word of the messages dialect for a finish.
pub(super) fn stop_reason(finish: &Finish) -> &str {
    match finish {
        Finish::Stop | Finish::Missing => "end_turn",
        Finish::ToolCalls => "tool_use",
        Finish::Length => "max_tokens",
        Finish::ContentFilter => "refusal",
        Finish::Other(word) => word,
    }
}

/// The blocks that a client has seen of a streamed answer.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The number of the next block.
    pub(super) next: u64,
    pub(super) open: Open,
}

/// The block that is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Open {
    #[default]
    Nothing,
    Text,
    /// Thinking, which may have its signature.
    Thinking {
        signed: bool,
    },
    Call,
    /// A block that only the upstream understands.
    Other,
}

impl Blocks {
    /// The number of the open block.
    fn index(&self) -> Put<'static> {
        Put::Count(self.next.saturating_sub(1))
    }

    /// Appends what an event adds to the stream. The finish only closes what is open.
    pub(super) fn write(&mut self, said: &Event, out: &mut Vec<u8>) {
        match said {
            Event::Text(_, text) if text.is_empty() => {}
            Event::Text(Channel::Content, text) => {
                if self.open != Open::Text {
                    let block = made(&[("type", Put::Word("text")), ("text", Put::Word(""))]);
                    self.start(Open::Text, &block, out);
                }
                self.delta("text_delta", "text", text, out);
            }
            Event::Text(Channel::Reasoning, text) => {
                if !matches!(self.open, Open::Thinking { signed: false }) {
                    let block = thinking("", "");
                    self.start(Open::Thinking { signed: false }, &block, out);
                }
                self.delta("thinking_delta", "thinking", text, out);
            }
            Event::CallBegin { id, name, .. } => {
                let block = made(&[
                    ("type", Put::Word("tool_use")),
                    ("id", Put::Word(&safe(id))),
                    ("name", Put::Word(name)),
                    ("input", Put::Json(b"{}")),
                ]);
                self.start(Open::Call, &block, out);
            }
            Event::CallArguments { text, .. } => {
                self.delta("input_json_delta", "partial_json", text, out);
            }
            Event::CallEnd { .. } | Event::Finish(_) => self.close(out),
        }
    }

    /// Closes the open block.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.open == (Open::Thinking { signed: false }) {
            self.sign(out);
        }
        if self.open != Open::Nothing {
            event(out, "content_block_stop", &[("index", self.index())]);
            self.open = Open::Nothing;
        }
    }

    /// Signs the open thinking with our name.
    pub(super) fn sign(&mut self, out: &mut Vec<u8>) {
        self.delta("signature_delta", "signature", &SIGNATURE.into(), out);
        self.open = Open::Thinking { signed: true };
    }

    /// Opens a block that is ready.
    pub(super) fn start(&mut self, open: Open, block: &[u8], out: &mut Vec<u8>) {
        self.close(out);
        self.next += 1;
        self.open = open;
        let members = [("index", self.index()), ("content_block", Put::Json(block))];
        event(out, "content_block_start", &members);
    }

    fn delta(&self, sort: &str, field: &str, text: &Text, out: &mut Vec<u8>) {
        let delta = made(&[("type", Put::Word(sort)), (field, Put::Text(text))]);
        let members = [("index", self.index()), ("delta", Put::Json(&delta))];
        event(out, "content_block_delta", &members);
    }
}

fn thinking(text: &str, signature: &str) -> Vec<u8> {
    made(&[
        ("type", Put::Word("thinking")),
        ("thinking", Put::Word(text)),
        ("signature", Put::Word(signature)),
    ])
}

/// The blocks of a whole answer.
#[derive(Debug, Default)]
pub(super) struct Whole {
    thinking: Text,
    signature: Option<Vec<u8>>,
    blocks: Vec<Vec<u8>>,
    text: Text,
    call: Option<(String, String, Text)>,
    /// Arguments were cut to what is valid.
    pub(super) cut: bool,
    /// Why the model stopped.
    pub(super) finish: Option<Finish>,
}

impl Whole {
    /// Takes the next event.
    pub(super) fn take(&mut self, said: &Event) {
        match said {
            Event::Text(Channel::Content, text) => self.text.push(text.as_bytes()),
            Event::Text(Channel::Reasoning, text) => self.thinking.push(text.as_bytes()),
            Event::CallBegin { id, name, .. } => {
                self.settle();
                self.call = Some((safe(id), name.clone(), Text::default()));
            }
            Event::CallArguments { text, .. } => {
                if let Some((_, _, arguments)) = &mut self.call {
                    arguments.push(text.as_bytes());
                }
            }
            Event::CallEnd { .. } => self.settle(),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
        }
    }

    /// Keeps the upstream's own signature, as JSON.
    pub(super) fn sign(&mut self, signature: &str) {
        self.signature = Some(signature.as_bytes().to_vec());
    }

    /// Takes a block over that is ready.
    pub(super) fn block(&mut self, block: &str) {
        self.settle();
        self.blocks.push(block.as_bytes().to_vec());
    }

    /// The list of blocks.
    pub(super) fn content(&mut self) -> Vec<u8> {
        self.settle();
        if !self.thinking.is_empty() {
            let ours = made_word(SIGNATURE);
            let block = made(&[
                ("type", Put::Word("thinking")),
                ("thinking", Put::Text(&self.thinking)),
                (
                    "signature",
                    Put::Json(self.signature.as_ref().unwrap_or(&ours)),
                ),
            ]);
            self.blocks.insert(0, block);
            self.thinking = Text::default();
        }
        list(&self.blocks)
    }

    /// The word for the finish; arguments that were cut are told as the limit's doing.
    pub(super) fn stop_reason(&self) -> &str {
        match &self.finish {
            _ if self.cut => stop_reason(&Finish::Length),
            Some(finish) => stop_reason(finish),
            None => stop_reason(&Finish::Missing),
        }
    }

    /// Finishes the text or call at hand.
    fn settle(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            let members = [("type", Put::Word("text")), ("text", Put::Text(&text))];
            self.blocks.push(made(&members));
        }
        if let Some((id, name, arguments)) = self.call.take() {
            let object = object_of(arguments.as_bytes());
            self.cut |= object.is_some();
            let input = object.unwrap_or_else(|| arguments.as_bytes().to_vec());
            // Half characters inside are escaped already or are no JSON, so the bytes can stand as they are.
            let input = String::from_utf8(input).unwrap_or_else(|_| "{}".to_owned());
            self.blocks.push(made(&[
                ("type", Put::Word("tool_use")),
                ("id", Put::Word(&id)),
                ("name", Put::Word(&name)),
                ("input", Put::Json(input.as_bytes())),
            ]));
        }
    }
}

fn made_word(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Text::from(word).write_json(&mut out);
    out
}

fn usage(counted: Counted) -> Vec<u8> {
    made(&[
        ("input_tokens", Put::Count(counted.input)),
        ("cache_read_input_tokens", Put::Count(counted.cached)),
        ("cache_creation_input_tokens", Put::Count(0)),
        ("output_tokens", Put::Count(counted.output)),
    ])
}

fn message(id: &str, model: &str, content: &[u8], reason: &[u8], counted: Counted) -> Vec<u8> {
    made(&[
        ("id", Put::Word(id)),
        ("type", Put::Word("message")),
        ("role", Put::Word("assistant")),
        ("model", Put::Word(model)),
        ("content", Put::Json(content)),
        ("stop_reason", Put::Json(reason)),
        ("stop_sequence", Put::Json(b"null")),
        ("usage", Put::Json(&usage(counted))),
    ])
}

/// Writes the stream of an answer for a client of the messages dialect.
#[derive(Debug, Default)]
pub struct MessagesEncoder {
    blocks: Blocks,
    finish: Option<Finish>,
}

impl MessagesEncoder {
    /// Begins an answer. `counted` is what is known by now; the end tells it again.
    pub fn start(id: &str, model: &str, counted: Counted, out: &mut Vec<u8>) -> Self {
        let message = message(id, model, b"[]", b"null", counted);
        event(out, "message_start", &[("message", Put::Json(&message))]);
        Self::default()
    }

    /// Appends what an event adds.
    pub fn write(&mut self, said: &Event, out: &mut Vec<u8>) {
        self.blocks.write(said, out);
        if let Event::Finish(finish) = said {
            self.finish = Some(finish.clone());
        }
    }

    /// Ends the answer.
    pub fn end(mut self, counted: Counted, out: &mut Vec<u8>) {
        self.blocks.close(out);
        let finish = self.finish.unwrap_or(Finish::Missing);
        let delta = made(&[
            ("stop_reason", Put::Word(stop_reason(&finish))),
            ("stop_sequence", Put::Json(b"null")),
        ]);
        let members = [
            ("delta", Put::Json(&delta)),
            ("usage", Put::Json(&usage(counted))),
        ];
        event(out, "message_delta", &members);
        event(out, "message_stop", &[]);
    }

    /// A whole answer.
    pub fn whole(id: &str, model: &str, events: &[Event], counted: Counted) -> Vec<u8> {
        let mut whole = Whole::default();
        for event in events {
            whole.take(event);
        }
        let content = whole.content();
        let reason = made_word(whole.stop_reason());
        message(id, model, &content, &reason, counted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::normalize::writing::payloads;

    pub(super) fn events() -> Vec<Event> {
        let call = |index: usize, id: &str, parts: &[&str]| {
            let mut events = vec![Event::CallBegin {
                index,
                id: id.to_owned(),
                name: "Read".to_owned(),
            }];
            events.extend(parts.iter().map(|part| Event::CallArguments {
                index,
                text: (*part).into(),
            }));
            events.push(Event::CallEnd { index });
            events
        };
        let mut events = vec![
            Event::Text(Channel::Reasoning, "so ".into()),
            Event::Text(Channel::Reasoning, "it is".into()),
            Event::Text(Channel::Content, "".into()),
            Event::Text(Channel::Content, "look".into()),
        ];
        events.extend(call(0, "functions.Read:0", &["{\"p\"", ":1}"]));
        events.push(Event::Text(Channel::Content, "more".into()));
        events.extend(call(1, "functions.Read:1", &["{}"]));
        events.push(Event::Finish(Finish::ToolCalls));
        events
    }

    #[test]
    fn a_stream_opens_one_block_at_a_time() {
        let mut out = Vec::new();
        let mut encoder = MessagesEncoder::start("m1", "kimi", Counted::default(), &mut out);
        for event in events() {
            encoder.write(&event, &mut out);
        }
        encoder.end(
            Counted {
                input: 3,
                cached: 2,
                output: 1,
            },
            &mut out,
        );
        let shape: Vec<String> = payloads(&out)
            .iter()
            .map(|event| {
                let part = &event["delta"]["type"];
                let block = &event["content_block"]["type"];
                let word = part.as_str().or(block.as_str()).unwrap_or_default();
                format!(
                    "{}{} {word}",
                    event["type"].as_str().unwrap(),
                    event["index"]
                )
                .replace("content_block_", "")
                .replace("null", "")
            })
            .collect();
        assert_eq!(
            shape,
            [
                "message_start ",
                "start0 thinking",
                "delta0 thinking_delta",
                "delta0 thinking_delta",
                "delta0 signature_delta",
                "stop0 ",
                "start1 text",
                "delta1 text_delta",
                "stop1 ",
                "start2 tool_use",
                "delta2 input_json_delta",
                "delta2 input_json_delta",
                "stop2 ",
                "start3 text",
                "delta3 text_delta",
                "stop3 ",
                "start4 tool_use",
                "delta4 input_json_delta",
                "stop4 ",
                "message_delta ",
                "message_stop ",
            ]
        );
        let all = payloads(&out);
        assert_eq!(all[9]["content_block"]["id"], "functions_Read_0");
        let end = &all[all.len() - 2];
        assert_eq!(end["delta"]["stop_reason"], "tool_use");
        assert_eq!(end["usage"]["cache_read_input_tokens"], 2);
    }

    #[test]
    fn a_whole_answer_has_its_thinking_first_and_objects_for_arguments() {
        let body = MessagesEncoder::whole("m1", "kimi", &events(), Counted::default());
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body["content"],
            json!([
                {"type": "thinking", "thinking": "so it is", "signature": SIGNATURE},
                {"type": "text", "text": "look"},
                {"type": "tool_use", "id": "functions_Read_0", "name": "Read", "input": {"p": 1}},
                {"type": "text", "text": "more"},
                {"type": "tool_use", "id": "functions_Read_1", "name": "Read", "input": {}},
            ])
        );
        assert_eq!(body["stop_reason"], "tool_use");
    }

    #[test]
    fn cut_arguments_make_a_cut_answer() {
        let begin = Event::CallBegin {
            index: 0,
            id: "a".to_owned(),
            name: "b".to_owned(),
        };
        let text = Event::CallArguments {
            index: 0,
            text: "{\"p\":\"x\",\"q".into(),
        };
        let events = [
            begin,
            text,
            Event::CallEnd { index: 0 },
            Event::Finish(Finish::ToolCalls),
        ];
        let body = MessagesEncoder::whole("m", "k", &events, Counted::default());
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["content"][0]["input"], json!({"p": "x"}));
        assert_eq!(body["stop_reason"], "max_tokens");
    }
}
