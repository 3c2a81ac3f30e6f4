//! What an answer says to a client of each dialect, read as clients read it.

use serde_json::{Value, json};

/// An answer, freed from its dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: String,
    /// What no client should meet: parts outside of what is open, and the like.
    pub(crate) wrong: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// The payloads of a stream.
pub(crate) fn payloads(stream: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(stream);
    let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
    lines
        .filter_map(|line| serde_json::from_str(line.trim_start()).ok())
        .collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Said {
    /// A stream of the messages dialect.
    pub(crate) fn messages(stream: &[u8]) -> Self {
        let mut said = Self::default();
        let mut open: Option<(Value, String)> = None;
        let mut next = 0;
        let mut signed = true;
        for event in payloads(stream) {
            let index = event["index"].clone();
            match event["type"].as_str().unwrap_or_default() {
                "content_block_start" => {
                    let block = &event["content_block"];
                    if open.is_some() || index != json!(next) {
                        said.wrong.push(format!("start of {index}"));
                    }
                    next += 1;
                    if block["type"] == "tool_use" {
                        said.calls.push(Call {
                            id: word(&block["id"]),
                            name: word(&block["name"]),
                            arguments: String::new(),
                        });
                    }
                    if block["type"] == "thinking" {
                        signed = block["signature"].as_str().is_some_and(|it| !it.is_empty());
                    }
                    open = Some((index, word(&block["type"])));
                }
                "content_block_delta" => {
                    let delta = &event["delta"];
                    let sort = delta["type"].as_str().unwrap_or_default();
                    let fits = match open.as_ref().map(|(_, sort)| sort.as_str()) {
                        Some("text") => sort == "text_delta",
                        Some("thinking") => sort == "thinking_delta" || sort == "signature_delta",
                        Some("tool_use") => sort == "input_json_delta",
                        _ => false,
                    };
                    if !fits || open.as_ref().is_none_or(|(open, _)| *open != index) {
                        said.wrong.push(format!("{sort} in {index}"));
                    }
                    said.content += delta["text"].as_str().unwrap_or_default();
                    said.reasoning += delta["thinking"].as_str().unwrap_or_default();
                    signed |= delta["signature"].as_str().is_some_and(|it| !it.is_empty());
                    if let Some(call) = said.calls.last_mut() {
                        call.arguments += delta["partial_json"].as_str().unwrap_or_default();
                    }
                }
                "content_block_stop" => {
                    if open.take().is_none_or(|(open, _)| open != index) {
                        said.wrong.push(format!("stop of {index}"));
                    }
                    if !signed {
                        said.wrong.push("thinking without a signature".to_owned());
                    }
                }
                "message_delta" => {
                    if open.is_some() {
                        said.wrong.push("the end comes inside a block".to_owned());
                    }
                    said.finish = word(&event["delta"]["stop_reason"]);
                }
                _ => {}
            }
        }
        for call in &mut said.calls {
            if call.arguments.is_empty() {
                call.arguments.push_str("{}");
            }
        }
        said
    }

    /// A whole body of the messages dialect.
    pub(crate) fn messages_body(body: &Value) -> Self {
        let mut said = Self {
            finish: word(&body["stop_reason"]),
            ..Self::default()
        };
        for block in body["content"].as_array().into_iter().flatten() {
            match block["type"].as_str().unwrap_or_default() {
                "text" => said.content += block["text"].as_str().unwrap_or_default(),
                "thinking" => {
                    said.reasoning += block["thinking"].as_str().unwrap_or_default();
                    if block["signature"].as_str().is_none_or(str::is_empty) {
                        said.wrong.push("thinking without a signature".to_owned());
                    }
                }
                "tool_use" => {
                    if !block["input"].is_object() {
                        said.wrong.push("input is no object".to_owned());
                    }
                    said.calls.push(Call {
                        id: word(&block["id"]),
                        name: word(&block["name"]),
                        arguments: block["input"].to_string(),
                    });
                }
                other => said.wrong.push(format!("a block of type {other}")),
            }
        }
        said
    }

    /// A stream of the responses dialect, by its deltas; the end has to repeat them.
    pub(crate) fn responses(stream: &[u8]) -> Self {
        let mut said = Self::default();
        let mut end = Self::default();
        for event in payloads(stream) {
            let delta = event["delta"].as_str().unwrap_or_default();
            match event["type"].as_str().unwrap_or_default() {
                "response.output_item.added" if event["item"]["type"] == "function_call" => {
                    said.calls.push(Call {
                        id: word(&event["item"]["call_id"]),
                        name: word(&event["item"]["name"]),
                        arguments: String::new(),
                    });
                }
                "response.output_text.delta" => said.content += delta,
                "response.reasoning_text.delta" => said.reasoning += delta,
                "response.function_call_arguments.delta" => match said.calls.last_mut() {
                    Some(call) => call.arguments += delta,
                    None => said.wrong.push("arguments without a call".to_owned()),
                },
                "response.completed" | "response.incomplete" => {
                    end = Self::responses_body(&event["response"]);
                }
                _ => {}
            }
        }
        said.finish.clone_from(&end.finish);
        if said != end {
            said.wrong.push(format!("the end repeats {end:?}"));
        }
        said
    }

    /// A whole body of the responses dialect. The finish is the status, or the reason of an incomplete one.
    pub(crate) fn responses_body(body: &Value) -> Self {
        let reason = body["incomplete_details"]["reason"].as_str();
        let mut said = Self {
            finish: reason.map_or_else(|| word(&body["status"]), str::to_owned),
            ..Self::default()
        };
        for item in body["output"].as_array().into_iter().flatten() {
            let text = || word(&item["content"][0]["text"]);
            match item["type"].as_str().unwrap_or_default() {
                "message" => said.content += &text(),
                "reasoning" => said.reasoning += &text(),
                "function_call" => said.calls.push(Call {
                    id: word(&item["call_id"]),
                    name: word(&item["name"]),
                    arguments: word(&item["arguments"]),
                }),
                other => said.wrong.push(format!("an item of type {other}")),
            }
        }
        said
    }
}
