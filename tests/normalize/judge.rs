//! What a client saw against what it should have seen.

use serde_json::Value;

use crate::client::Seen;

/// Why an answer is wrong; nothing if it is right. `expect` has the form of the vectors.
pub(crate) fn judge(seen: &Seen, expect: &Value) -> Vec<String> {
    let mut wrong = seen.faults.clone();
    let exact = expect["exact"] == true;
    let mut text = |what: &str, got: &str| {
        let want = expect[what].as_str().unwrap_or_default();
        let same = if exact {
            got == want
        } else {
            got.trim() == want.trim()
        };
        if !same {
            wrong.push(format!("{what}: {got:?} and not {want:?}"));
        }
        for fragment in ["<|tool_c", "<|im_", "think>"] {
            if got.contains(fragment) && !want.contains(fragment) {
                wrong.push(format!("{what} holds {fragment}"));
            }
        }
    };
    text("content", &seen.content);
    text("reasoning", &seen.reasoning);
    let finish = seen.finish.as_deref().unwrap_or_default();
    if expect["finish_reason"] != finish {
        wrong.push(format!("finish: {finish}"));
    }
    let calls = expect["tool_calls"].as_array().cloned().unwrap_or_default();
    if calls.len() != seen.calls.len() {
        wrong.push(format!("{} calls: {:?}", seen.calls.len(), seen.calls));
    }
    for (got, want) in seen.calls.iter().zip(&calls) {
        if want["name"] != *got.name {
            wrong.push(format!("name: {}", got.name));
        }
        if let Some(id) = want["id"].as_str()
            && id != got.id
        {
            wrong.push(format!("id: {} and not {id}", got.id));
        }
        if let Some(raw) = want["arguments_raw"].as_str()
            && raw != got.arguments
        {
            wrong.push(format!("arguments: {:?} and not {raw:?}", got.arguments));
        }
        if let Some(json) = want.get("arguments_json") {
            let read = serde_json::from_str::<Value>(&got.arguments);
            if !read.is_ok_and(|read| read == *json) {
                wrong.push(format!("arguments: {:?} and not {json}", got.arguments));
            }
        }
    }
    wrong
}
