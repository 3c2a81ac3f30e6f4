//! Sends one request to an upstream, over a pooled or a fresh connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::upstream::Upstream;
use crate::upstream::pool::{AnswerBody, Lease, Pool};

/// How long a resting connection may take to be ready: it is, but for what its task has still to do.
const SOON: Duration = Duration::from_millis(100);

/// How the connections to upstreams are made.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Make a new connection for every request, and close it afterwards: the safest setting.
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
    /// A new one.
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
        source: Box<dyn std::error::Error + Send + Sync>,
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
        /// It had served another request before, so it may have died while it rested.
        reused: bool,
        /// What the connection said.
        #[source]
        source: hyper::Error,
    },
}

/// Connections to all upstreams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    connector: HttpsConnector<HttpConnector>,
    pool: Arc<Pool>,
    tasks: TaskTracker,
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
        Ok(Self {
            connector: secure.https_or_http().enable_http1().wrap_connector(tcp),
            pool: Arc::default(),
            tasks: TaskTracker::new(),
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
    ) -> Result<Response<AnswerBody>, SendError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = upstream.target(path).map_err(SendError::Address)?;
        *request.headers_mut() = headers;
        request
            .headers_mut()
            .insert(HOST, upstream.host_header().clone());
        while connection == Connection::Pooled
            && let Some(mut sender) = self.pool.take(upstream.origin())
        {
            if !is_ready(&mut sender).await {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.lent(upstream, sender, answer)),
                Err(mut error) => match error.take_message() {
                    // Nothing of it was written, so this costs nobody a try.
                    Some(unsent) => request = unsent,
                    None => return Err(broken(upstream, true, error.into_error())),
                },
            }
        }
        // Boxed, because the rare way should not make every future larger.
        let mut sender = Box::pin(self.connect(upstream)).await?;
        match sender.send_request(request).await {
            Ok(answer) => Ok(self.lent(upstream, sender, answer)),
            Err(error) => Err(broken(upstream, false, error)),
        }
    }

    async fn connect(&self, upstream: &Upstream) -> Result<SendRequest<SendBody>, SendError> {
        let stream = self.connector.clone().call(upstream.address());
        let stream = stream.await.map_err(|source| SendError::Connect {
            host: upstream.host().to_owned(),
            source,
        })?;
        let (sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| broken(upstream, false, error))?;
        // It ends by itself: when the other side closes it, or when nobody holds its sender.
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream broke");
            }
        });
        Ok(sender)
    }

    fn lent(
        &self,
        upstream: &Upstream,
        sender: SendRequest<SendBody>,
        answer: Response<Incoming>,
    ) -> Response<AnswerBody> {
        let lease = (!self.always_fresh).then(|| Lease {
            pool: self.pool.clone(),
            origin: upstream.origin().clone(),
            sender,
        });
        answer.map(|incoming| AnswerBody::new(incoming, lease))
    }
}

/// Whether a connection that rested can take a request. The other side may have closed it, or may still be reading an
/// earlier request that it answered without waiting for the end.
async fn is_ready(sender: &mut SendRequest<SendBody>) -> bool {
    sender.is_ready() || matches!(timeout(SOON, sender.ready()).await, Ok(Ok(())))
}

fn broken(upstream: &Upstream, reused: bool, source: hyper::Error) -> SendError {
    SendError::Broken {
        host: upstream.host().to_owned(),
        reused,
        source,
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
