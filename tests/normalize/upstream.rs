//! An upstream's answer as bytes, and the ways in which they may arrive; and what leaves of them.

use std::sync::Arc;

use bytes::Bytes;
use kimiq::normalize::{Repairer, Repairs, Request, Rules, whole_chat};
use kimiq::wire::Dialect;
use serde_json::{Value, json};

/// How a stream is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) crlf: bool,
    pub(crate) no_space: bool,
    /// Bytes of each write; 0 is all at once.
    pub(crate) split: usize,
}

/// Reads the rules off a request for this model.
pub(crate) fn rules(model: &str, tools: &Value, request: &Value) -> Arc<Rules> {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "q"}]});
    if tools.as_array().is_some_and(|tools| !tools.is_empty()) {
        body["tools"] = tools.clone();
    }
    for (key, value) in request.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let request = Request::read(Dialect::Chat, body.to_string().as_bytes(), None).unwrap();
    Arc::new(request.rules)
}

/// A stream of events: chunks, `{"raw": payload}` or `{"line": line}`.
pub(crate) fn bytes(events: &[Value], wire: Wire) -> Vec<u8> {
    let end = if wire.crlf { "\r\n" } else { "\n" };
    let field = if wire.no_space { "data:" } else { "data: " };
    let mut out = String::new();
    for event in events {
        let line = match (event["raw"].as_str(), event["line"].as_str()) {
            (Some(raw), _) => format!("{field}{raw}"),
            (None, Some(line)) => line.to_owned(),
            (None, None) => format!("{field}{event}"),
        };
        out.extend([&line, end, end]);
    }
    out.into_bytes()
}

/// What leaves of a stream that arrives in writes of this size.
pub(crate) fn stream(rules: &Arc<Rules>, bytes: &[u8], split: usize) -> (Vec<u8>, Repairs) {
    let mut repairer = Repairer::chat(rules.clone(), false);
    let mut out = Vec::new();
    let split = if split == 0 {
        bytes.len().max(1)
    } else {
        split
    };
    for chunk in bytes.chunks(split) {
        repairer.push(&Bytes::copy_from_slice(chunk), &mut out);
    }
    repairer.finish(&mut out);
    (out.concat(), repairer.repairs().clone())
}

/// What leaves of a whole body.
pub(crate) fn whole(rules: &Arc<Rules>, body: &[u8]) -> (Vec<u8>, Repairs) {
    let (repaired, repairs) = whole_chat(rules.clone(), body);
    (repaired.unwrap_or_else(|| body.to_vec()), repairs)
}

/// A chunk with this delta.
pub(crate) fn chunk(model: &str, delta: Value, finish: Option<&str>) -> Value {
    json!({"id": "cmpl-k", "object": "chat.completion.chunk", "created": 1_780_000_000, "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}
