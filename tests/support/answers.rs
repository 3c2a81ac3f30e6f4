//! An upstream that answers every model request with one sentence, in the dialect of the path, and notes the request.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// What the upstream says.
pub(crate) const ANSWER: &str = "Nine terminals, one key.";

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: serde_json::Value,
}

/// A listening upstream; it ends with the test's runtime.
pub(crate) struct Upstream {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                let service = service_fn(move |request| answer(request, Arc::clone(&notes)));
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, asked }
    }

    /// Every request so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    notes: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.to_string();
    notes.lock().push(Asked {
        method: head.method.to_string(),
        path: path.clone(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    let plain = path.split('?').next().unwrap();
    let stream = match plain.rsplit('/').next().unwrap() {
        "completions" => chat(),
        "messages" => messages(),
        "responses" => responses(),
        _ if plain.ends_with(":streamGenerateContent") => google(),
        _ => {
            let mut response = Response::new(Full::from("{}"));
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let response = Response::builder().header("content-type", "text/event-stream");
    Ok(response.body(Full::from(stream)).unwrap())
}

fn chat() -> String {
    let chunk = |delta: serde_json::Value, end: Option<&str>| {
        let chunk = serde_json::json!({
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "kimi-k2.6",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": end }],
            "usage": end.map(|_| serde_json::json!({
                "prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25,
            })),
        });
        format!("data: {chunk}\n\n")
    };
    chunk(
        serde_json::json!({ "role": "assistant", "content": ANSWER }),
        None,
    ) + &chunk(serde_json::json!({}), Some("stop"))
        + "data: [DONE]\n\n"
}

fn messages() -> String {
    events(&[
        serde_json::json!({ "type": "message_start", "message": {
            "id": "m1", "type": "message", "role": "assistant", "model": "kimi-k2.6", "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": 20, "output_tokens": 1 },
        }}),
        serde_json::json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        serde_json::json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": ANSWER } }),
        serde_json::json!({ "type": "content_block_stop", "index": 0 }),
        serde_json::json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            "usage": { "output_tokens": 5 } }),
        serde_json::json!({ "type": "message_stop" }),
    ])
}

fn responses() -> String {
    let message = serde_json::json!({ "type": "message", "id": "i1", "status": "completed", "role": "assistant",
        "content": [{ "type": "output_text", "text": ANSWER, "annotations": [] }] });
    let response = |status: &str, output: serde_json::Value| {
        serde_json::json!({
            "id": "r1", "object": "response", "created_at": 1, "status": status, "model": "kimi-k2.6",
            "output": output,
            "usage": { "input_tokens": 20, "output_tokens": 5, "total_tokens": 25,
                "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens_details": { "reasoning_tokens": 0 } },
        })
    };
    events(&[
        serde_json::json!({ "type": "response.created", "sequence_number": 0,
            "response": response("in_progress", serde_json::json!([])) }),
        serde_json::json!({ "type": "response.output_item.added", "sequence_number": 1, "output_index": 0,
            "item": { "type": "message", "id": "i1", "status": "in_progress", "role": "assistant", "content": [] } }),
        serde_json::json!({ "type": "response.output_text.delta", "sequence_number": 2, "item_id": "i1",
            "output_index": 0, "content_index": 0, "delta": ANSWER }),
        serde_json::json!({ "type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": message }),
        serde_json::json!({ "type": "response.completed", "sequence_number": 4,
            "response": response("completed", serde_json::json!([message])) }),
    ])
}

fn google() -> String {
    let chunk = serde_json::json!({
        "candidates": [{ "content": { "role": "model", "parts": [{ "text": ANSWER }] }, "finishReason": "STOP", "index": 0 }],
        "usageMetadata": { "promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25 },
    });
    format!("data: {chunk}\n\n")
}

fn events(events: &[serde_json::Value]) -> String {
    events
        .iter()
        .map(|event| {
            format!(
                "event: {}\ndata: {event}\n\n",
                event.get("type").unwrap().as_str().unwrap()
            )
        })
        .collect::<Vec<_>>()
        .concat()
}
