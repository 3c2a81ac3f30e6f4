//! The simulated upstream, asked directly over real sockets.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kimiq::simulator::Options;
use kimiq::simulator::Simulator;
use kimiq::simulator::TruthRecord;
use serde_json::Value;
use serde_json::json;
use tokio_util::task::TaskTracker;

/// Longest that any condition of a test may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Bench {
    pub(crate) simulator: Simulator,
    pub(crate) tracker: TaskTracker,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end; `broken` if the end was no orderly one.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The JSON of every `data:` line that holds any.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        lines
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }
}

impl Bench {
    pub(crate) async fn start(options: Options) -> Self {
        let tracker = TaskTracker::new();
        let simulator = Simulator::start(options, &tracker).await.unwrap();
        // One connection per request, so that one fault does not touch the next request.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        Self {
            simulator,
            tracker,
            client,
        }
    }

    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: &Value,
    ) -> Result<Response<Incoming>, String> {
        let request = request.body(Full::from(body.to_string())).unwrap();
        let sent = tokio::time::timeout(DEADLINE, self.client.request(request))
            .await
            .unwrap();
        sent.map_err(|error| error.to_string())
    }

    pub(crate) fn post(&self, path: &str) -> http::request::Builder {
        Request::post(format!("http://{}{path}", self.simulator.addr()))
    }

    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = self.post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.send(request, body).await.unwrap()).await
    }

    pub(crate) async fn chat(&self, headers: &[(&str, &str)]) -> Answer {
        self.ask("/v1/chat/completions", headers, &chat("hello"))
            .await
    }

    /// The newest record when so many requests are over.
    pub(crate) async fn record(&self, count: u64) -> TruthRecord {
        let records = tokio::time::timeout(DEADLINE, self.simulator.finished(count))
            .await
            .unwrap();
        assert_eq!(records.len() as u64, count);
        records.last().unwrap().clone()
    }

    /// Nothing goes on after the end.
    pub(crate) async fn end(self) {
        drop(self.simulator);
        self.tracker.close();
        tokio::time::timeout(DEADLINE, self.tracker.wait())
            .await
            .unwrap();
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let mut broken = false;
    while let Some(frame) = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap() {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => broken = true,
        }
    }
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text: String::from_utf8(bytes).unwrap(),
        broken,
    }
}

pub(crate) fn chat(text: &str) -> Value {
    json!({"model": "kimi-k2.6", "stream": true, "messages": [{"role": "user", "content": text}]})
}

pub(crate) fn fast() -> Options {
    Options::immediate()
}
