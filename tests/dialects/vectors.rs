//! The vectors of garbled answers, and what is right about an answer to each.

use std::sync::Arc;

use bytes::Bytes;
use kimiq::normalize::{CallPart, Channel, Event, Finish, Piece, Repairer, Request, Rules};
use kimiq::wire::Dialect;
use serde_json::{Value, json};

use crate::said::{Said, payloads};

pub(crate) fn all() -> Value {
    serde_json::from_str(include_str!("../normalize/k2-output.json")).unwrap()
}

/// One garbled answer.
pub(crate) struct Vector(pub(crate) Value);

impl Vector {
    pub(crate) fn each() -> Vec<Self> {
        let all = all();
        let cases = all["cases"].as_array().unwrap();
        cases.iter().map(|case| Self(case.clone())).collect()
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.0["id"], self.0["kind"]).replace('"', "")
    }

    pub(crate) fn streams(&self) -> bool {
        self.0["stream"].as_bool().unwrap()
    }

    /// The upstream's chunks, or its one body.
    pub(crate) fn upstream(&self) -> Vec<Value> {
        match &self.0["upstream"] {
            Value::Array(events) => events
                .iter()
                .filter_map(|event| match event["raw"].as_str() {
                    Some(raw) => serde_json::from_str(&paired(raw)).ok(),
                    None => event.get("choices").is_some().then(|| event.clone()),
                })
                .collect(),
            body => vec![body.clone()],
        }
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        let first = self.upstream();
        let mut body = json!({"model": first[0]["model"], "messages": [{"role": "user", "content": "q"}], "tools": self.0["tools"]});
        for (key, value) in self.0["request"].as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let request = Request::read(Dialect::Chat, body.to_string().as_bytes(), None);
        Arc::new(request.unwrap().rules)
    }

    /// What is wrong with what a client got. `finish` is the dialect's word for the expected finish.
    pub(crate) fn faults(&self, said: &Said, form: Form) -> Vec<String> {
        let accepted = self.0["accept"].as_array().into_iter().flatten();
        let mut least: Option<Vec<String>> = None;
        for expect in std::iter::once(&self.0["expect"]).chain(accepted) {
            let faults = faults(expect, said, form);
            if least
                .as_ref()
                .is_none_or(|least| faults.len() < least.len())
            {
                least = Some(faults);
            }
        }
        least.unwrap_or_default()
    }
}

/// Halves of characters that a strict reader refuses, joined over the vector's own two events.
fn paired(raw: &str) -> String {
    raw.replace("sea \\ud83c", "sea \u{1f30a}")
        .replace("\\udf0a ok", " ok")
}

/// The form in which a client got the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Messages,
    MessagesBody,
    Responses,
}

impl Form {
    fn finish(self, chat: &str) -> &str {
        match (self, chat) {
            (Self::Responses, "length") => "max_output_tokens",
            (Self::Responses, "content_filter") => "content_filter",
            (Self::Responses, _) => "completed",
            (_, "stop") => "end_turn",
            (_, "tool_calls") => "tool_use",
            (_, "length") => "max_tokens",
            (_, "content_filter") => "refusal",
            (_, other) => other,
        }
    }
}

fn faults(expect: &Value, said: &Said, form: Form) -> Vec<String> {
    let mut faults = said.wrong.clone();
    let exact = expect["exact"] == true;
    let mut check = |what: &str, expected: &str, got: &str| {
        let same = if exact {
            expected == got
        } else {
            expected.trim() == got.trim()
        };
        if !same {
            faults.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
    };
    let word = |key: &str| expect[key].as_str().unwrap_or_default().to_owned();
    check("content", &word("content"), &said.content);
    check("reasoning", &word("reasoning"), &said.reasoning);
    let calls = expect["tool_calls"].as_array().cloned().unwrap_or_default();
    let mut cut = false;
    for (index, expected) in calls.iter().enumerate() {
        let got = said.calls.get(index).cloned().unwrap_or_default();
        check(
            "name",
            expected["name"].as_str().unwrap_or_default(),
            &got.name,
        );
        if let Some(id) = expected["id"].as_str() {
            check("id", &id.replace(['.', ':'], "_"), &got.id);
        }
        if !got
            .id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            || got.id.is_empty()
        {
            check("id", "a safe one", &got.id);
        }
        let parsed = serde_json::from_str::<Value>(&got.arguments).ok();
        match expected["arguments_raw"].as_str() {
            Some(raw)
                if form == Form::MessagesBody && serde_json::from_str::<Value>(raw).is_err() =>
            {
                cut = true;
                if !parsed.is_some_and(|it| it.is_object()) {
                    check("arguments", "an object", &got.arguments);
                }
            }
            Some(raw) if form == Form::MessagesBody => {
                if parsed != serde_json::from_str(raw).ok() {
                    check("arguments", raw, &got.arguments);
                }
            }
            Some(raw) => check("arguments", raw, &got.arguments),
            None => {
                if parsed.as_ref() != Some(&expected["arguments_json"]) {
                    check(
                        "arguments",
                        &expected["arguments_json"].to_string(),
                        &got.arguments,
                    );
                }
            }
        }
    }
    let finish = if cut {
        "length"
    } else {
        expect["finish_reason"].as_str().unwrap_or_default()
    };
    check("finish", form.finish(finish), &said.finish);
    let ids: std::collections::BTreeSet<_> = said.calls.iter().map(|call| &call.id).collect();
    if said.calls.len() != calls.len() || ids.len() != said.calls.len() {
        faults.push(format!("calls: {:?}", said.calls));
    }
    faults
}

/// The events of an answer of chat that was repaired.
pub(crate) fn events(chunks: &[Value]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut open = None;
    let close = |open: &mut Option<usize>, events: &mut Vec<Event>| {
        if let Some(index) = open.take() {
            events.push(Event::CallEnd { index });
        }
    };
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        let said = choice.get("delta").unwrap_or(&choice["message"]);
        for (key, channel) in [
            ("reasoning_content", Channel::Reasoning),
            ("content", Channel::Content),
        ] {
            if let Some(text) = said[key].as_str().filter(|text| !text.is_empty()) {
                close(&mut open, &mut events);
                events.push(Event::Text(channel, text.into()));
            }
        }
        for (number, call) in said["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let index = call["index"]
                .as_u64()
                .map_or(number, |index| usize::try_from(index).unwrap());
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if call["function"].get("name").is_some() {
                close(&mut open, &mut events);
                open = Some(index);
                events.push(Event::CallBegin {
                    index,
                    id: word(&call["id"]),
                    name: word(&call["function"]["name"]),
                });
            }
            let text = word(&call["function"]["arguments"]).as_str().into();
            events.push(Event::CallArguments { index, text });
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            close(&mut open, &mut events);
            events.push(Event::Finish(Finish::of_chat(finish)));
        }
    }
    events
}

/// The bytes of a stream of chat.
pub(crate) fn chat_stream(vector: &Vector) -> Vec<u8> {
    let mut stream = Vec::new();
    for event in vector.0["upstream"].as_array().into_iter().flatten() {
        let line = match (event["raw"].as_str(), event["line"].as_str()) {
            (Some(raw), _) => format!("data: {raw}\n\n"),
            (_, Some(line)) => format!("{line}\n\n"),
            _ => format!("data: {event}\n\n"),
        };
        stream.extend_from_slice(line.as_bytes());
    }
    stream
}

/// A stream through a repairer, in pieces of so many bytes.
pub(crate) fn repaired(mut repairer: Repairer, stream: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in stream.chunks(piece) {
        repairer.push(&Bytes::copy_from_slice(piece), &mut out);
    }
    repairer.finish(&mut out);
    out.concat()
}

/// What the chunks of chat say, as the pieces of another dialect.
pub(crate) fn pieces(vector: &Vector) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for chunk in vector.upstream() {
        let choice = &chunk["choices"][0];
        let said = choice.get("delta").unwrap_or(&choice["message"]);
        for (key, channel) in [
            ("reasoning_content", Channel::Reasoning),
            ("content", Channel::Content),
        ] {
            if let Some(text) = said[key].as_str().filter(|text| !text.is_empty()) {
                pieces.push(Piece::Text(channel, text.into()));
            }
        }
        for (number, call) in said["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let function = &call["function"];
            let word = |value: &Value| value.as_str().map(str::to_owned);
            pieces.push(Piece::Call(CallPart {
                slot: Some(call["index"].as_u64().unwrap_or(number as u64)),
                id: word(&call["id"]),
                name: word(&function["name"]),
                arguments: function["arguments"].as_str().map(Into::into),
            }));
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            pieces.push(Piece::Finish(Finish::of_chat(finish)));
        }
    }
    pieces
}

/// The chunks of a stream of chat.
pub(crate) fn chunks(stream: &[u8]) -> Vec<Value> {
    payloads(stream)
}
