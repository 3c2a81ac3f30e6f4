//! Asks a host over HTTP on its loopback port.
//!
//! One connection per question: a command asks once and ends. The connection's own work runs inside the question's
//! future, so nothing is left behind when it is dropped.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::control::ControlError;
use crate::control::protocol::HealthReport;
use crate::control::protocol::RunInfo;
use crate::control::protocol::Send;
use crate::control::protocol::SnapshotReport;
use crate::control::protocol::StartRun;
use crate::control::protocol::StopReport;
use crate::control::protocol::StopRun;
use crate::control::protocol::UsageBy;
use crate::control::protocol::UsageReport;
use crate::control::protocol::WhyReport;
use crate::control::registry::Entry;
use crate::control::registry::Registry;
use crate::control::server::UPGRADE;

/// A healthy host answers at once; one that takes so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// A start waits for a program to be spawned, a stop for programs to leave.
const LONG_PATIENCE: Duration = Duration::from_mins(2);

/// A way to one host.
#[derive(Clone, Debug)]
pub struct Client {
    entry: Entry,
}

#[derive(Deserialize)]
struct Told {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    kind: String,
    message: String,
}

impl Client {
    /// The host of this name, if it lives.
    pub fn find(registry: &Registry, name: &str) -> Result<Self, ControlError> {
        let found = registry
            .find(name)
            .map_err(|source| ControlError::Registry { source })?;
        found
            .map(Self::new)
            .ok_or_else(|| ControlError::NotRunning {
                name: name.to_owned(),
            })
    }

    /// A way to a host that is known.
    pub fn new(entry: Entry) -> Self {
        Self { entry }
    }

    /// What the registry says about the host.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// How the host is; `probe` makes it ask its upstreams.
    pub async fn health(&self, probe: bool) -> Result<HealthReport, ControlError> {
        let path = if probe { "health?probe=1" } else { "health" };
        self.get(path, if probe { LONG_PATIENCE } else { PATIENCE })
            .await
    }

    /// All runs.
    pub async fn runs(&self) -> Result<Vec<RunInfo>, ControlError> {
        self.get("runs", PATIENCE).await
    }

    /// Totals.
    pub async fn usage(&self, days: u16, by: UsageBy) -> Result<UsageReport, ControlError> {
        let by = match by {
            UsageBy::Terminal => "terminal",
            UsageBy::Model => "model",
            UsageBy::Day => "day",
        };
        self.get(&format!("usage?days={days}&by={by}"), PATIENCE)
            .await
    }

    /// Why something waits.
    pub async fn why(&self, terminal: Option<&str>) -> Result<Vec<WhyReport>, ControlError> {
        let path = terminal.map_or_else(
            || "why".to_owned(),
            |name| format!("why?terminal={}", encode(name)),
        );
        self.get(&path, PATIENCE).await
    }

    /// A screen as text.
    pub async fn snapshot(&self, terminal: &str) -> Result<SnapshotReport, ControlError> {
        self.get(&format!("snapshot?terminal={}", encode(terminal)), PATIENCE)
            .await
    }

    /// Starts a run.
    pub async fn start(&self, ask: &StartRun) -> Result<RunInfo, ControlError> {
        self.post("runs", ask).await
    }

    /// Stops a run or the host.
    pub async fn stop(&self, ask: &StopRun) -> Result<StopReport, ControlError> {
        self.post("stop", ask).await
    }

    /// Types into a terminal.
    pub async fn send(&self, ask: &Send) -> Result<(), ControlError> {
        self.post("send", ask).await
    }

    /// Opens the stream of a window.
    pub async fn attach(&self) -> Result<TokioIo<Upgraded>, ControlError> {
        let connect = async {
            let request = self
                .request(Method::GET, "/kimiq/v1/attach")
                .header(header::UPGRADE, UPGRADE)
                .header(header::CONNECTION, "upgrade")
                .body(Full::<Bytes>::default())
                .map_err(io::Error::other)?;
            let (mut sender, connection) = self.connect().await?;
            let connection = connection.with_upgrades();
            let question = async {
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(io::Error::other)?;
                let status = response.status();
                if status != StatusCode::SWITCHING_PROTOCOLS {
                    let body = response
                        .into_body()
                        .collect()
                        .await
                        .map_err(io::Error::other)?;
                    return Ok(Err((status, body.to_bytes())));
                }
                hyper::upgrade::on(response)
                    .await
                    .map(Ok)
                    .map_err(io::Error::other)
            };
            drive(connection, question).await
        };
        match limit(PATIENCE, connect)
            .await
            .map_err(|source| self.unreachable(source))?
        {
            Ok(upgraded) => Ok(TokioIo::new(upgraded)),
            Err((status, body)) => Err(refusal(status, &body)),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, ControlError> {
        self.ask(Method::GET, path, Bytes::new(), patience).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(body).map_err(|error| ControlError::Answer {
            source: error.into(),
        })?;
        self.ask(Method::POST, path, body.into(), LONG_PATIENCE)
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ControlError> {
        let exchange = async {
            let request = self
                .request(method, &format!("/kimiq/v1/{path}"))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(io::Error::other)?;
            let (mut sender, connection) = self.connect().await?;
            let question = async {
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(io::Error::other)?;
                let status = response.status();
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .map_err(io::Error::other)?;
                Ok((status, body.to_bytes()))
            };
            drive(connection, question).await
        };
        let (status, body) = limit(patience, exchange)
            .await
            .map_err(|source| self.unreachable(source))?;
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|error| ControlError::Answer {
                source: error.into(),
            })
        } else {
            Err(refusal(status, &body))
        }
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("127.0.0.1:{}", self.entry.port))
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.entry.token),
            )
    }

    async fn connect(
        &self,
    ) -> io::Result<(
        http1::SendRequest<Full<Bytes>>,
        http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
    )> {
        let stream = TcpStream::connect(("127.0.0.1", self.entry.port)).await?;
        stream.set_nodelay(true)?;
        http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)
    }

    fn unreachable(&self, source: io::Error) -> ControlError {
        ControlError::Unreachable {
            name: self.entry.name.clone(),
            pid: self.entry.pid,
            source,
        }
    }
}

/// The footer line of the terminal with this key, from the host at `port`.
pub async fn status_line(port: u16, key: &str, patience: Duration) -> io::Result<String> {
    let exchange = async {
        let request = Request::builder()
            .uri("/kimiq/v1/status-line")
            .header(header::HOST, format!("127.0.0.1:{port}"))
            .header("x-kimiq-key", key)
            .body(Full::<Bytes>::default())
            .map_err(io::Error::other)?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let question = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            if !response.status().is_success() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(io::Error::other)?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        drive(connection, question).await
    };
    limit(patience, exchange).await
}

/// Runs a connection beside the question that uses it.
async fn drive<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    question: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::pin!(connection, question);
    tokio::select! {
        answer = &mut question => return answer,
        ended = &mut connection => ended.map_err(io::Error::other)?,
    }
    // The connection is done with its work; what it handed over may still be on its way to the question.
    question.await
}

async fn limit<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refusal(status: StatusCode, body: &[u8]) -> ControlError {
    match serde_json::from_slice::<Told>(body) {
        Ok(Told { error }) if error.kind == "not_found" => ControlError::NotFound {
            message: error.message,
        },
        Ok(Told { error }) if error.kind == "stopping" => ControlError::Stopping,
        Ok(Told { error }) if error.kind == "program" => ControlError::Program {
            message: error.message,
        },
        Ok(Told { error }) => ControlError::Refused {
            message: error.message,
        },
        Err(_) => ControlError::Refused {
            message: format!("the host answered {status}"),
        },
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
