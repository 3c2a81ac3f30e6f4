//! The control API: HTTP under `/kimiq/v1/`, answered from a [`Host`] handle.
//!
//! The listener belongs to the proxy; it hands over what is not model traffic. Three doors:
//! - `/kimiq/v1/...` needs the control token as a bearer,
//! - `/kimiq/v1/status-line` needs a terminal's key and shows that terminal only,
//! - `/health` and `/usage` need nothing: they name no run, no folder and no key (the first proxy had them so).
//!
//! What happens if the client goes away: an answer that is being made is dropped with its connection, except starts
//! and stops, which the host finishes on its own.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use tokio_util::task::TaskTracker;

use crate::control::frames;
use crate::control::frames::HostEnd;
use crate::control::protocol::HealthReport;
use crate::control::protocol::HostError;
use crate::control::protocol::Pending;
use crate::control::protocol::RunInfo;
use crate::control::protocol::Send as SendText;
use crate::control::protocol::SnapshotReport;
use crate::control::protocol::StartRun;
use crate::control::protocol::StopReport;
use crate::control::protocol::StopRun;
use crate::control::protocol::UsageBy;
use crate::control::protocol::UsageReport;
use crate::control::protocol::WhyReport;

/// Longest request body: an environment and a prompt.
const LONGEST_BODY: usize = 4 << 20;

/// Name of the upgraded protocol of an attach.
pub(crate) const UPGRADE: &str = "kimiq-attach-1";

/// What the control API asks of a host.
pub trait Host: Send + Sync + 'static {
    /// How the host is; `probe` asks the upstreams, which takes a moment.
    fn health(&self, probe: bool) -> Pending<'_, HealthReport>;
    /// Totals of today and `days - 1` days before.
    fn usage(&self, days: u16, by: UsageBy) -> Result<UsageReport, HostError>;
    /// All runs.
    fn runs(&self) -> Vec<RunInfo>;
    /// Why a terminal waits, or all that wait.
    fn why(&self, terminal: Option<&str>) -> Result<Vec<WhyReport>, HostError>;
    /// Starts a run and returns when its first terminal runs.
    fn start(&self, ask: StartRun) -> Pending<'_, RunInfo>;
    /// Stops a run, or all and the host.
    fn stop(&self, ask: StopRun) -> Pending<'_, StopReport>;
    /// Types into a terminal.
    fn send(&self, ask: SendText) -> Pending<'_, ()>;
    /// A screen as text.
    fn snapshot(&self, terminal: &str) -> Result<SnapshotReport, HostError>;
    /// The footer line of the terminal that has this key.
    fn status_line(&self, key: &str) -> Option<String>;
    /// Shows a run in a window until either ends.
    fn attach(&self, window: HostEnd) -> Pending<'_, ()>;
}

/// The control API of one host.
#[derive(Clone)]
pub struct Server {
    host: Arc<dyn Host>,
    token: Arc<str>,
    tracker: TaskTracker,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// An API for `host` that asks for `token`. Windows' streams run on `tracker`.
    pub fn new(host: Arc<dyn Host>, token: &str, tracker: TaskTracker) -> Self {
        Self {
            host,
            token: token.into(),
            tracker,
        }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, mut request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !is_loopback_host(request.headers()) {
            return refuse(
                StatusCode::FORBIDDEN,
                "invalid",
                "ask 127.0.0.1 by its own name",
            );
        }
        let path = request.uri().path().to_owned();
        let get = request.method() == Method::GET;
        match path.as_str() {
            "/health" if get => {
                let told = self.host.health(false).await;
                return render(told.map(|health| HealthReport {
                    notices: Vec::new(),
                    ..health
                }));
            }
            "/usage" if get => return render(self.host.usage(1, UsageBy::Model)),
            "/health" | "/usage" => {
                return refuse(StatusCode::METHOD_NOT_ALLOWED, "invalid", "use GET");
            }
            "/kimiq/v1/status-line" if get => {
                let line =
                    header_text(&request, "x-kimiq-key").and_then(|key| self.host.status_line(key));
                return match line {
                    Some(line) => text(line),
                    None => refuse(
                        StatusCode::UNAUTHORIZED,
                        "invalid",
                        "no terminal has this key",
                    ),
                };
            }
            _ => {}
        }
        let shown =
            header_text(&request, "authorization").and_then(|text| text.strip_prefix("Bearer "));
        if !shown.is_some_and(|shown| bool::from(shown.as_bytes().ct_eq(self.token.as_bytes()))) {
            return refuse(
                StatusCode::UNAUTHORIZED,
                "invalid",
                "the control token is missing or wrong",
            );
        }
        if path == "/kimiq/v1/attach" {
            return self.attach(&mut request);
        }
        let query = Query::of(&request);
        let Some(path) = path.strip_prefix("/kimiq/v1/") else {
            return refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
        };
        if get {
            return match path {
                "health" => render(
                    self.host
                        .health(query.get("probe").as_deref() == Some("1"))
                        .await,
                ),
                "runs" => render(Ok(self.host.runs())),
                "why" => render(self.host.why(query.get("terminal").as_deref())),
                "snapshot" => render(
                    self.host
                        .snapshot(&query.get("terminal").unwrap_or_default()),
                ),
                "usage" => {
                    let days = query
                        .get("days")
                        .and_then(|days| days.parse().ok())
                        .unwrap_or(1);
                    let by = match query.get("by").as_deref() {
                        Some("terminal") => UsageBy::Terminal,
                        Some("day") => UsageBy::Day,
                        _ => UsageBy::Model,
                    };
                    render(self.host.usage(days, by))
                }
                _ => refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
            };
        }
        let host = &self.host;
        match path {
            "runs" => match read(request).await {
                Ok(ask) => render(host.start(ask).await),
                Err(response) => *response,
            },
            "stop" => match read(request).await {
                Ok(ask) => render(host.stop(ask).await),
                Err(response) => *response,
            },
            "send" => match read(request).await {
                Ok(ask) => render(host.send(ask).await),
                Err(response) => *response,
            },
            _ => refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
        }
    }

    fn attach<B>(&self, request: &mut Request<B>) -> Response<Full<Bytes>> {
        if header_text(request, "upgrade") != Some(UPGRADE) {
            let message = "this host attaches with another protocol; stop it with `kimiq stop` and start it anew";
            return refuse(StatusCode::UPGRADE_REQUIRED, "invalid", message);
        }
        let upgrade = hyper::upgrade::on(request);
        let (host, tracker) = (Arc::clone(&self.host), self.tracker.clone());
        self.tracker.spawn(async move {
            let stream = match upgrade.await {
                Ok(stream) => TokioIo::new(stream),
                Err(error) => return tracing::debug!(%error, "a window went before it came"),
            };
            match frames::accept(stream, &tracker).await {
                Ok(window) => {
                    if let Err(error) = host.attach(window).await {
                        tracing::debug!(%error, "a window was turned away");
                    }
                }
                Err(error) => tracing::debug!(%error, "a window said no hello"),
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, header::HeaderValue::from_static(UPGRADE));
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("upgrade"),
        );
        response
    }
}

/// Whether the `Host` header names this machine: a page in a browser that reaches us by a name of its own does not.
pub fn is_loopback_host(headers: &http::HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

fn header_text<'r, B>(request: &'r Request<B>, name: &str) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

struct Query(Vec<(String, String)>);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let pairs = request.uri().query().unwrap_or_default().split('&');
        Self(
            pairs
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.clone())
    }
}

async fn read<B, T>(request: Request<B>) -> Result<T, Box<Response<Full<Bytes>>>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: DeserializeOwned,
{
    let refused = |message: &str| Box::new(refuse(StatusCode::BAD_REQUEST, "invalid", message));
    let body = Limited::new(request.into_body(), LONGEST_BODY);
    match body.collect().await {
        Ok(body) => {
            serde_json::from_slice(&body.to_bytes()).map_err(|error| refused(&error.to_string()))
        }
        Err(error) => Err(refused(&error.to_string())),
    }
}

fn render<T: Serialize>(answer: Result<T, HostError>) -> Response<Full<Bytes>> {
    match answer {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => {
            let status = match &error {
                HostError::NotFound(_) => StatusCode::NOT_FOUND,
                HostError::Invalid(_) => StatusCode::BAD_REQUEST,
                HostError::Failed(_) | HostError::Program(_) => StatusCode::INTERNAL_SERVER_ERROR,
                HostError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            json(
                status,
                &Told {
                    error: Said {
                        kind: kind_of(&error),
                        message: error.to_string(),
                    },
                },
            )
        }
    }
}

fn kind_of(error: &HostError) -> &'static str {
    match error {
        HostError::NotFound(_) => "not_found",
        HostError::Invalid(_) => "invalid",
        HostError::Failed(_) => "failed",
        HostError::Program(_) => "program",
        HostError::Stopping => "stopping",
    }
}

#[derive(Serialize)]
struct Told {
    error: Said,
}

#[derive(Serialize)]
struct Said {
    kind: &'static str,
    message: String,
}

fn refuse(status: StatusCode, kind: &'static str, message: &str) -> Response<Full<Bytes>> {
    json(
        status,
        &Told {
            error: Said {
                kind,
                message: message.to_owned(),
            },
        },
    )
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        b"null".to_vec()
    });
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    response
}

fn text(line: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(line));
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::TerminalInfo;

    struct Fake;

    impl Host for Fake {
        fn health(&self, _probe: bool) -> Pending<'_, HealthReport> {
            Box::pin(async {
                Ok(HealthReport {
                    ok: true,
                    ..HealthReport::default()
                })
            })
        }
        fn usage(&self, days: u16, by: UsageBy) -> Result<UsageReport, HostError> {
            let mut report = UsageReport {
                by,
                ..UsageReport::default()
            };
            report.today.requests = days.into();
            Ok(report)
        }
        fn runs(&self) -> Vec<RunInfo> {
            let terminals = vec![TerminalInfo {
                number: 1,
                ..TerminalInfo::default()
            }];
            vec![RunInfo {
                name: "a".into(),
                terminals,
                ..RunInfo::default()
            }]
        }
        fn why(&self, terminal: Option<&str>) -> Result<Vec<WhyReport>, HostError> {
            Err(HostError::NotFound(format!(
                "no terminal {}",
                terminal.unwrap_or("at all")
            )))
        }
        fn start(&self, _ask: StartRun) -> Pending<'_, RunInfo> {
            Box::pin(async { Err(HostError::Stopping) })
        }
        fn stop(&self, ask: StopRun) -> Pending<'_, StopReport> {
            let host_ends = ask.run.is_none();
            Box::pin(async move {
                Ok(StopReport {
                    host_ends,
                    ..StopReport::default()
                })
            })
        }
        fn send(&self, _ask: SendText) -> Pending<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn snapshot(&self, _terminal: &str) -> Result<SnapshotReport, HostError> {
            Ok(SnapshotReport::default())
        }
        fn status_line(&self, key: &str) -> Option<String> {
            (key == "k1").then(|| "queue 0".to_owned())
        }
        fn attach(&self, _window: HostEnd) -> Pending<'_, ()> {
            Box::pin(async { Ok(()) })
        }
    }

    async fn ask(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let server = Server::new(Arc::new(Fake), "right", TaskTracker::new());
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = server
            .answer(request.body(Full::<Bytes>::from(body.to_owned())).unwrap())
            .await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:4711");
    const RIGHT: (&str, &str) = ("authorization", "Bearer right");

    #[tokio::test]
    async fn nothing_is_told_without_the_token() {
        for headers in [
            &[HERE][..],
            &[HERE, ("authorization", "Bearer wrong")],
            &[HERE, ("authorization", "right")],
        ] {
            for path in [
                "/kimiq/v1/runs",
                "/kimiq/v1/usage",
                "/kimiq/v1/attach",
                "/kimiq/v2/x",
            ] {
                assert_eq!(ask("GET", path, headers, "").await.0, 401, "{path}");
            }
        }
        assert_eq!(
            ask("GET", "/kimiq/v1/runs", &[HERE, RIGHT], "").await.0,
            200
        );
    }

    #[tokio::test]
    async fn a_foreign_host_name_is_refused_everywhere() {
        for host in ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"] {
            assert_eq!(
                ask("GET", "/health", &[("host", host)], "").await.0,
                403,
                "{host}"
            );
        }
        assert_eq!(ask("GET", "/health", &[RIGHT], "").await.0, 403);
        for host in ["localhost:1", "[::1]:5", "127.0.0.1"] {
            assert_eq!(
                ask("GET", "/health", &[("host", host)], "").await.0,
                200,
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn questions_reach_the_host() {
        let (status, body) = ask(
            "GET",
            "/kimiq/v1/usage?days=7&by=terminal",
            &[HERE, RIGHT],
            "",
        )
        .await;
        let report: UsageReport = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, report.today.requests, report.by),
            (200, 7, UsageBy::Terminal)
        );
        let (status, body) = ask("GET", "/kimiq/v1/why?terminal=a%3A2", &[HERE, RIGHT], "").await;
        assert_eq!(status, 404);
        assert!(body.contains("no terminal a:2"), "{body}");
        let (status, _) = ask(
            "POST",
            "/kimiq/v1/stop",
            &[HERE, RIGHT],
            "{\"run\":null,\"now\":false}",
        )
        .await;
        assert_eq!(status, 200);
        assert_eq!(
            ask("POST", "/kimiq/v1/stop", &[HERE, RIGHT], "nonsense")
                .await
                .0,
            400
        );
    }

    #[tokio::test]
    async fn a_terminal_sees_its_own_line_only() {
        let path = "/kimiq/v1/status-line";
        assert_eq!(
            ask("GET", path, &[HERE, ("x-kimiq-key", "k1")], "").await,
            (200, "queue 0".into())
        );
        assert_eq!(
            ask("GET", path, &[HERE, ("x-kimiq-key", "k2")], "").await.0,
            401
        );
        assert_eq!(ask("GET", path, &[HERE, RIGHT], "").await.0, 401);
    }
}
