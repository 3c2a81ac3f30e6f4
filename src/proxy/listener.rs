//! The loopback socket: accepts connections, checks who asks, and hands each request to where it belongs.
//!
//! Three kinds of request exist: those for kimiq itself go aside to the handler that the host brought; model requests
//! walk the spine; everything else below a route passes straight through to its upstream, body and answer unread.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, ORIGIN};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::proxy::Proxy;
use crate::proxy::exchange::{Call, exchange, unreachable_upstream};
use crate::proxy::fault::Fault;
use crate::proxy::heads::{self, Busy, LOOK, Line};
use crate::proxy::inline::{Dormant, Inline};
use crate::proxy::interim::{Signs, share};
use crate::proxy::keys::Asker;
use crate::proxy::meter::Afterwards;
use crate::proxy::patience::{self, Patience};
use crate::proxy::repair::Mended;
use crate::proxy::route::{Path, split};
use crate::proxy::stream::{BodyError, Relay};
use crate::upstream::{
    AnswerBody, Connection, SendBody, SendError, Upstream, request_headers, response_headers,
};
use crate::wire::Dialect;

/// Carries a terminal's key.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-kimiq-key");

/// Who asks on a path without a route.
const ANONYMOUS: &str = "proxy";

/// The answer of the host's own handler.
pub type Aside = Response<BoxBody<Bytes, Infallible>>;

/// The host's own handler, for requests that are not for an upstream; `Err` gives back a request that is none of its.
pub type AsideHandler = Arc<
    dyn Fn(
            Request<Incoming>,
        ) -> Pin<Box<dyn Future<Output = Result<Aside, Request<Incoming>>> + Send>>
        + Send
        + Sync,
>;

/// Serves connections until `stop` is cancelled, then lets those that are busy end. Each connection is a task of
/// `tasks`; dropping them cuts what still runs.
pub async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    aside: AsideHandler,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let stalls = proxy.stalls.clone();
    let mut sweep = pin!(stalls.sweep());
    let mut lines = Vec::new();
    let mut looks = tokio::time::interval(LOOK);
    // After a rest the next look is due a whole interval later, not at once for each that was left out.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
            never = &mut sweep => match never {},
            _ = looks.tick(), if !lines.is_empty() => {
                heads::look(&mut lines);
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let line = Arc::default();
                lines.push(Arc::downgrade(&line));
                tasks.spawn(connection(
                    stream,
                    line,
                    proxy.clone(),
                    aside.clone(),
                    stop.clone(),
                ));
            }
            Err(error) => {
                // Out of descriptors, usually: one that closes makes room. Without a pause this would spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Why a connection ends before the client wants it.
enum End {
    Graceful,
    Late,
}

async fn connection(
    stream: TcpStream,
    line: Arc<Line>,
    proxy: Arc<Proxy>,
    aside: AsideHandler,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let (observed, signs) = match share(stream, line.clone()) {
        Ok(both) => both,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be served");
            return;
        }
    };
    let signs = Arc::new(signs);
    let mark = line.clone();
    let service = service_fn(move |request| {
        let (proxy, aside, signs) = (proxy.clone(), aside.clone(), signs.clone());
        let busy = Busy::new(mark.clone());
        async move {
            let answer = answer(&proxy, &aside, &signs, request).await;
            // It keeps its connection busy to its end.
            let marked = answer.map(|answer| {
                answer.map_frame(move |frame| {
                    let _until_then = &busy;
                    frame
                })
            });
            Ok::<_, Infallible>(marked)
        }
    });
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(observed), service)
        .with_upgrades();
    let mut served = Inline::new(served);
    let mut end = Dormant::new(async {
        tokio::select! {
            () = stop.cancelled() => End::Graceful,
            () = line.late() => End::Late,
        }
    });
    let ended = tokio::select! {
        biased;
        ended = &mut served => ended,
        end = &mut end => match end {
            End::Graceful => {
                served.as_mut().graceful_shutdown();
                served.await
            }
            End::Late => {
                tracing::info!("a connection was closed: the head of a request did not come to its end");
                return;
            }
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    proxy: &Arc<Proxy>,
    aside: &AsideHandler,
    signs: &Signs,
    request: Request<Incoming>,
) -> Response<Answer> {
    let patience = patience::of(request.headers(), &proxy.options);
    let mut answer = pin!(dispatch(proxy, aside, &signs.afterwards, patience, request));
    let answer = loop {
        // Both futures are cheap to ask again: the timer is only made for clients that want signs.
        tokio::select! {
            biased;
            answer = &mut answer => break answer,
            () = pause(patience.sign_every) => signs.give(),
        }
    };
    answer.unwrap_or_else(|fault| {
        tracing::info!(side = ?fault.side, status = fault.status.as_u16(), message = %fault.message, "refused");
        fault.response().map(|text| Answer::full(text.into()))
    })
}

async fn pause(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}

async fn dispatch(
    proxy: &Arc<Proxy>,
    aside: &AsideHandler,
    afterwards: &Afterwards,
    patience: Patience,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Fault> {
    check_origin(&request)?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let (asker, upstream, rest) = match split(&path) {
        Path::Named { route, rest } => {
            let key = request
                .headers()
                .get(KEY_HEADER)
                .map_or(&b""[..], |value| value.as_bytes());
            (asker_of(proxy, key)?, named(proxy, route)?, rest)
        }
        Path::Keyed { key, route, rest } => {
            (asker_of(proxy, key.as_bytes())?, named(proxy, route)?, rest)
        }
        Path::Plain => {
            let request = match aside(request).await {
                Ok(answer) => return Ok(answer.map(Answer::Aside)),
                Err(request) => request,
            };
            let Some(upstream) = proxy.routes.fallback() else {
                return Err(Fault::client(
                    StatusCode::NOT_FOUND,
                    "not_found_error",
                    "kimiq has nothing at this path",
                ));
            };
            let anybody = Asker {
                terminal: ANONYMOUS.into(),
                weight: 1,
            };
            return forward(
                proxy, anybody, afterwards, upstream, path, patience, request,
            )
            .await;
        }
    };
    let rest = if rest.starts_with('/') {
        rest.to_owned()
    } else {
        format!("/{rest}")
    };
    forward(proxy, asker, afterwards, upstream, rest, patience, request).await
}

async fn forward(
    proxy: &Arc<Proxy>,
    asker: Asker,
    afterwards: &Afterwards,
    upstream: Arc<Upstream>,
    path: String,
    patience: Patience,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Fault> {
    let bare = path.split('?').next().unwrap_or_default();
    match Dialect::of_path(bare) {
        Some(dialect) if request.method() == http::Method::POST => {
            let call = Call {
                terminal: asker.terminal,
                weight: asker.weight,
                upstream,
                path,
                dialect,
                patience: patience.longest,
                afterwards: afterwards.clone(),
            };
            // Boxed, because a future of this size would be moved through every caller's.
            Box::pin(exchange(proxy, call, request)).await
        }
        _ => pass_through(proxy, &upstream, &path, request).await,
    }
}

/// Anything that is no model request: models, files, usage of the account.
async fn pass_through(
    proxy: &Proxy,
    upstream: &Upstream,
    path: &str,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Fault> {
    let (head, body) = request.into_parts();
    let headers = request_headers(&head.headers, upstream);
    let send = |headers, body, connection| {
        proxy.client.send(
            upstream,
            head.method.clone(),
            path,
            headers,
            body,
            connection,
        )
    };
    let sent = if body.is_end_stream() {
        let nothing = || SendBody::kept(Arc::default(), || {});
        match send(headers.clone(), nothing(), Connection::Pooled).await {
            // A reused connection that had died looks like this.
            Err(SendError::Broken { reused: true, .. }) => {
                send(headers, nothing(), Connection::Fresh).await
            }
            sent => sent,
        }
    } else {
        // What streams through can be sent only once, so it goes where nothing can have died.
        send(headers, SendBody::Streamed(body), Connection::Fresh).await
    };
    let answer = sent.map_err(|error| unreachable_upstream(&error))?;
    let (mut parts, body) = answer.into_parts();
    parts.headers = response_headers(parts.headers);
    Ok(Response::from_parts(parts, Answer::Through(body)))
}

/// A web page in the user's browser can reach a loopback port. It cannot pretend that it asked for this host, and it
/// cannot hide that it is a page.
fn check_origin(request: &Request<Incoming>) -> Result<(), Fault> {
    let refused = |message| {
        Err(Fault::client(
            StatusCode::FORBIDDEN,
            "permission_error",
            message,
        ))
    };
    let host = request
        .headers()
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !is_loopback_host(host) {
        return refused("kimiq answers only under a loopback address");
    }
    let origin = request
        .headers()
        .get(ORIGIN)
        .and_then(|value| value.to_str().ok());
    let local = |origin: &str| {
        origin
            .strip_prefix("http://")
            .is_some_and(|origin| origin == host)
    };
    if origin.is_some_and(|origin| !local(origin)) {
        return refused("kimiq answers no page of another origin");
    }
    Ok(())
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

fn asker_of(proxy: &Proxy, key: &[u8]) -> Result<Asker, Fault> {
    proxy.keys.asker(key).ok_or_else(|| {
        let message = "this terminal's key is not known to kimiq; restart the terminal";
        Fault::client(StatusCode::UNAUTHORIZED, "authentication_error", message)
    })
}

fn named(proxy: &Proxy, route: &str) -> Result<Arc<Upstream>, Fault> {
    proxy.routes.find(route).ok_or_else(|| {
        let message = format!("kimiq knows no provider `{route}`; type /reload in the terminal");
        Fault::client(StatusCode::NOT_FOUND, "not_found_error", message)
    })
}

/// Every body that goes to a client.
#[derive(Debug)]
pub(super) enum Answer {
    /// A model's answer, metered.
    Relay(Relay),
    /// A model's answer, metered and repaired.
    Mended(Box<Mended>),
    /// An answer that is none of a model.
    Through(AnswerBody),
    /// Words of our own.
    Full(Full<Bytes>),
    /// The host's own handler.
    Aside(BoxBody<Bytes, Infallible>),
}

impl Answer {
    pub(super) fn full(text: Bytes) -> Self {
        Self::Full(Full::new(text))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Relay(body) => Pin::new(body).poll_frame(context),
            Self::Mended(body) => Pin::new(body).poll_frame(context),
            Self::Through(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Full(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::Aside(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Relay(body) => body.is_end_stream(),
            Self::Mended(body) => body.is_end_stream(),
            Self::Through(body) => body.is_end_stream(),
            Self::Full(body) => body.is_end_stream(),
            Self::Aside(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Relay(body) => body.size_hint(),
            Self::Mended(body) => body.size_hint(),
            Self::Through(body) => body.size_hint(),
            Self::Full(body) => body.size_hint(),
            Self::Aside(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for (host, expected) in [
            ("127.0.0.1:8787", true),
            ("localhost", true),
            ("localhost:1", true),
            ("[::1]:9", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:80", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_host(host), expected, "{host}");
        }
    }
}
