//! A strict client of `OpenAI` chat: reads a body or a stream and notices whatever would break a real one.

use std::collections::BTreeSet;

use serde_json::Value;

/// A call as the client got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// An answer as the client got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Option<String>,
    /// What would break a client.
    pub(crate) faults: Vec<String>,
    /// Words came since the last call began.
    interrupted: bool,
}

impl Seen {
    /// Reads a whole body.
    pub(crate) fn body(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        let body: Value = serde_json::from_slice(bytes).unwrap();
        let choice = &body["choices"][0];
        let message = &choice["message"];
        seen.text(message);
        if let Some(calls) = message.get("tool_calls") {
            let calls = calls.as_array().cloned().unwrap_or_default();
            if calls.is_empty() {
                seen.fault("an empty list of calls");
            }
            for call in &calls {
                seen.calls.push(Call {
                    id: string(&call["id"]),
                    name: string(&call["function"]["name"]),
                    arguments: string(&call["function"]["arguments"]),
                });
            }
        }
        seen.finish = choice["finish_reason"].as_str().map(str::to_owned);
        seen.ids();
        seen
    }

    /// Reads a stream.
    pub(crate) fn stream(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        let text = std::str::from_utf8(bytes).expect("a stream is UTF-8");
        for line in text.split(['\n', '\r']) {
            let Some(data) = line.strip_prefix("data:").map(str::trim_start) else {
                continue;
            };
            if data == "[DONE]" {
                continue;
            }
            match serde_json::from_str::<Value>(data) {
                Ok(chunk) => seen.chunk(&chunk),
                Err(error) => seen.fault(&format!("unreadable: {error}: {data}")),
            }
        }
        seen.ids();
        seen
    }

    fn chunk(&mut self, chunk: &Value) {
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        let before = (self.content.len(), self.reasoning.len());
        self.text(delta);
        if let Some(calls) = delta.get("tool_calls").filter(|calls| !calls.is_null()) {
            let calls = calls.as_array().cloned().unwrap_or_default();
            if calls.is_empty() {
                self.fault("an empty list of calls");
            }
            if before != (self.content.len(), self.reasoning.len()) {
                self.fault("words beside a call");
            }
            if delta.get("reasoning_content").is_some_and(Value::is_string) {
                self.fault("reasoning inside a call");
            }
            for call in &calls {
                self.part(call);
            }
        } else {
            self.interrupted |= before != (self.content.len(), self.reasoning.len());
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            if self.finish.is_some() {
                self.fault("two finishes");
            }
            self.finish = Some(finish.to_owned());
        }
    }

    fn part(&mut self, part: &Value) {
        let index = part["index"]
            .as_u64()
            .and_then(|index| usize::try_from(index).ok());
        let Some(index) = index else {
            self.fault("a call without a number");
            return;
        };
        let name = string(&part["function"]["name"]);
        if name.is_empty() {
            if index + 1 != self.calls.len() {
                self.fault("arguments of a call that is not the last");
                return;
            }
        } else {
            if index != self.calls.len() {
                self.fault(&format!(
                    "call {index} begins as the {}th",
                    self.calls.len()
                ));
            }
            self.interrupted = false;
            self.calls.push(Call {
                id: string(&part["id"]),
                name,
                arguments: String::new(),
            });
        }
        if self.interrupted {
            self.fault("words inside a call");
        }
        if let Some(call) = self.calls.last_mut() {
            call.arguments
                .push_str(&string(&part["function"]["arguments"]));
        }
    }

    fn text(&mut self, said: &Value) {
        self.content.push_str(&string(&said["content"]));
        self.reasoning.push_str(&string(&said["reasoning_content"]));
        if said["reasoning"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            self.fault("a field that is not read: reasoning");
        }
        if said["reasoning_details"][0]["text"].is_string() {
            self.fault("a field that is not read: reasoning_details");
        }
    }

    fn ids(&mut self) {
        let ids: BTreeSet<&str> = self.calls.iter().map(|call| &*call.id).collect();
        if ids.len() < self.calls.len() || ids.contains("") {
            self.fault("ids that are empty or used twice");
        }
    }

    fn fault(&mut self, fault: &str) {
        self.faults.push(fault.to_owned());
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
