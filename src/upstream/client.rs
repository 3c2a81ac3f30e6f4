//! Sends one request to an upstream, over a pooled or a fresh connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;

use crate::upstream::Upstream;

/// How long an idle connection is kept for the next request.
const IDLE: Duration = Duration::from_mins(1);

/// How the connections to upstreams are made.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Make a new connection for every request, as the safest setting.
    pub always_fresh: bool,
    /// How long the making of a connection may take.
    pub connect_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            always_fresh: false,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Which connection a request goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// One that is open already, if there is one.
    Pooled,
    /// A new one, closed afterwards.
    Fresh,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The address and path make no URL.
    #[error("the request's path makes no address")]
    Address(#[source] http::Error),
    /// No connection could be made.
    #[error("no connection to `{host}`")]
    Connect {
        /// Host and port.
        host: String,
        /// What the system or TLS said.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// Nothing came for too long.
    #[error("`{host}` sent no answer for too long")]
    Silent {
        /// Host and port.
        host: String,
    },
    /// The connection ended before the head of an answer came.
    #[error("the connection to `{host}` broke before an answer came")]
    Broken {
        /// Host and port.
        host: String,
        /// What the connection said.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
}

/// Connections to all upstreams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pooled: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, SendBody>,
    fresh: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, SendBody>,
    always_fresh: bool,
}

impl Client {
    /// Reads the platform's trusted roots once. Without any, https upstreams fail when they are asked.
    pub fn new(options: ClientOptions) -> std::io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        let secure =
            HttpsConnectorBuilder::new().with_provider_and_native_roots(ring::default_provider());
        let secure = secure.or_else(|error| {
            // Upstreams on this machine need none, so that is no reason not to start.
            tracing::warn!(%error, "no trusted certificates were found: no https upstream can be reached");
            trusting_nobody()
        })?;
        let connector = secure.https_or_http().enable_http1().wrap_connector(tcp);
        let builder = |idle: usize| {
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle)
                .build(connector.clone())
        };
        Ok(Self {
            pooled: builder(usize::MAX),
            fresh: builder(0),
            always_fresh: options.always_fresh,
        })
    }

    /// Sends a request whose path below the upstream's base is `path`, and waits for the head of the answer. Dropping
    /// the future, or later the answer's body, ends the upstream's work by closing the connection.
    pub async fn send(
        &self,
        upstream: &Upstream,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: SendBody,
        connection: Connection,
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = upstream.uri(path).map_err(SendError::Address)?;
        *request.headers_mut() = headers;
        let client = if self.always_fresh || connection == Connection::Fresh {
            &self.fresh
        } else {
            &self.pooled
        };
        client.request(request).await.map_err(|source| {
            let host = upstream.host().to_owned();
            if source.is_connect() {
                SendError::Connect { host, source }
            } else {
                SendError::Broken { host, source }
            }
        })
    }
}

fn trusting_nobody() -> std::io::Result<HttpsConnectorBuilder<WantsSchemes>> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(config))
}

/// The body of a request on its way up.
#[derive(Debug)]
pub enum SendBody {
    /// Chunks that are kept, so that the request can be sent again. They are shared, never copied.
    Kept {
        /// The chunks, as they came from the client.
        chunks: Arc<[Bytes]>,
        /// The next one to send.
        next: usize,
        /// Bytes that remain.
        remaining: u64,
        /// Called when the last chunk was handed to the connection.
        gone: Option<Gone>,
    },
    /// A body that streams through and can be sent only once.
    Streamed(Incoming),
}

impl SendBody {
    /// A body of kept chunks, from its beginning. `gone` is called once when the last one leaves, and never when the
    /// body is dropped before.
    pub fn kept(chunks: Arc<[Bytes]>, gone: impl FnOnce() + Send + 'static) -> Self {
        let remaining = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self::Kept {
            chunks,
            next: 0,
            remaining,
            gone: Some(Gone(Box::new(gone))),
        }
    }
}

/// What to do when a body has left.
pub struct Gone(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Gone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Gone")
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Kept {
                chunks,
                next,
                remaining,
                gone,
            } => {
                let chunk = chunks.get(*next).cloned();
                if let Some(chunk) = &chunk {
                    *next += 1;
                    *remaining -= chunk.len() as u64;
                }
                if *next >= chunks.len()
                    && let Some(gone) = gone.take()
                {
                    gone.0();
                }
                Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            Self::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept { chunks, next, .. } => *next >= chunks.len(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept { remaining, .. } => SizeHint::with_exact(*remaining),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}
