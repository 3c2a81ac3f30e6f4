//! Garbled answers through kimiq, over real sockets: what the client gets, in which mode, and what is counted.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking and end with the test"
)]

mod support {
    pub(crate) mod house;
}

use std::net::SocketAddr;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use support::house::House;

const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"run","parameters":{"type":"object","properties":{"cmd":{"type":"string"}}}}}]"#;
const LEAK: &str = r#"<|tool_calls_section_begin|><|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>{\"cmd\":\"ls\"}<|tool_call_end|><|tool_calls_section_end|>"#;

/// An upstream that gives every request this answer.
async fn upstream(kind: &str, body: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"}]}") {
                socket.read_buf(&mut seen).await.unwrap();
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

async fn ask(house: &House, model: &str, stream: bool) -> String {
    let body = format!(
        r#"{{"model":"{model}","stream":{stream},"prompt_cache_key":"s",{TOOLS},"messages":[{{"role":"user","content":"list"}}]}}"#
    );
    let request = house.request("/p/up/v1/chat/completions", &body);
    let answer = house.ask(request).await;
    assert_eq!(answer.status(), 200);
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn streamed() -> String {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let leak = format!("{{\"content\":\"Ok. {LEAK}\"}}");
    let usage = r#"data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#;
    let end = chunk("{}", "\"stop\"");
    format!("{}{end}{usage}\n\ndata: [DONE]\n\n", chunk(&leak, "null"))
}

#[tokio::test]
async fn a_leaked_call_arrives_as_a_call_and_is_counted() {
    let house = House::start(upstream("text/event-stream", streamed()).await).await;
    let text = ask(&house, "accounts/x/models/kimi-k2p6", true).await;
    assert!(!text.contains("<|tool"), "{text}");
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let call = events
        .iter()
        .find_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0))
        .expect("a call");
    assert_eq!(call["id"], "functions.run:0");
    assert!(text.contains(r#""finish_reason":"tool_calls""#), "{text}");
    assert!(text.contains(r#""total_tokens":12"#), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));
    house.until_nothing_is_held().await;
    let counts = house.proxy.repairing.counts();
    let model = "accounts/x/models/kimi-k2p6".to_owned();
    assert!(
        counts.contains(&(model.clone(), "call_in_text", 1)),
        "{counts:?}"
    );
    assert!(counts.contains(&(model, "finish_reason", 1)), "{counts:?}");
    assert_eq!(house.spent().generated, 7);
}

#[tokio::test]
async fn an_answer_in_one_body_is_repaired_too() {
    let body = format!(
        r#"{{"id":"c","choices":[{{"index":0,"message":{{"role":"assistant","content":"{LEAK}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}}}"#
    );
    let house = House::start(upstream("application/json", body).await).await;
    let answer: Value = serde_json::from_str(&ask(&house, "kimi-k2", false).await).unwrap();
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        message["tool_calls"][0]["function"]["arguments"],
        r#"{"cmd":"ls"}"#
    );
    assert_eq!(message["content"], Value::Null);
    assert_eq!(answer["usage"]["total_tokens"], 12);
}

#[tokio::test]
async fn other_models_pass_byte_by_byte() {
    let house = House::start(upstream("text/event-stream", streamed()).await).await;
    assert_eq!(ask(&house, "deepseek-v3", true).await, streamed());
    assert!(house.proxy.repairing.counts().is_empty());
}

#[tokio::test]
async fn a_call_that_leaks_to_an_anthropic_client_arrives_as_one() {
    let event =
        |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
    let body = [
        event("message_start", r#","message":{"id":"m","type":"message","role":"assistant","model":"k","content":[],"stop_reason":null,"usage":{"input_tokens":5,"output_tokens":0}}"#),
        event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
        event("content_block_delta", &format!(r#","index":0,"delta":{{"type":"text_delta","text":"Ok. {LEAK}"}}"#)),
        event("content_block_stop", r#","index":0"#),
        event("message_delta", r#","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}"#),
        event("message_stop", ""),
    ]
    .concat();
    let house = House::start(upstream("text/event-stream", body).await).await;
    let tools = r#""tools":[{"name":"run","input_schema":{"type":"object","properties":{"cmd":{"type":"string"}}}}]"#;
    let request = format!(
        r#"{{"model":"kimi-k2","stream":true,"max_tokens":99,{tools},"messages":[{{"role":"user","content":"list"}}]}}"#
    );
    let answer = house
        .ask(house.request("/p/up/v1/messages", &request))
        .await;
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(!text.contains("<|tool"), "{text}");
    assert!(text.contains(r#""type":"tool_use""#), "{text}");
    assert!(text.contains("functions_run_0"), "{text}");
    assert!(text.contains(r#""stop_reason":"tool_use""#), "{text}");
}
