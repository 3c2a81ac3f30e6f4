//! The listener of the simulated upstream and its handle.
//!
//! One task accepts, one task per connection serves; a connection that says nothing costs its socket only. All of them
//! end when the handle is dropped.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::header;
use http_body_util::Either;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SERVER;
use super::body::Reply;
use super::engine::Engine;
use super::exchange::Line;
use super::exchange::answer;
use super::options::Options;
use super::truth::TruthRecord;

/// Rest after a failed accept: out of descriptors, most likely.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A running simulated upstream. Dropping the handle stops it.
pub struct Simulator {
    addr: SocketAddr,
    stop: CancellationToken,
    engine: Arc<Engine>,
}

impl Simulator {
    /// Binds 127.0.0.1 and serves until [`Simulator::shutdown`]; every task runs under `tracker`.
    ///
    /// # Errors
    /// The port is taken, or the truth file cannot be opened.
    pub async fn start(options: Options, tracker: &TaskTracker) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let addr = listener.local_addr()?;
        let engine = Arc::new(Engine::new(options)?);
        let stop = CancellationToken::new();
        tracker.spawn(accept(
            listener,
            engine.clone(),
            tracker.clone(),
            stop.clone(),
        ));
        Ok(Self { addr, stop, engine })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Base URL for a client's configuration, with `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The records of all requests that are over, in the order of their end; the newest 20,000 are kept.
    pub fn truth(&self) -> Vec<TruthRecord> {
        self.engine.records()
    }

    /// Waits until `count` requests have arrived since the start, answered or not.
    pub async fn arrived(&self, count: u64) {
        drop(
            self.engine
                .arrived()
                .wait_for(|arrived| *arrived >= count)
                .await,
        );
    }

    /// Waits until `count` requests are over since the start, then returns [`Simulator::truth`].
    pub async fn finished(&self, count: u64) -> Vec<TruthRecord> {
        let mut over = self.engine.over();
        // The sender lives in the engine, which `self` holds: this cannot fail.
        drop(over.wait_for(|over| *over >= count).await);
        self.truth()
    }

    /// Lets so much simulated time pass at once, as over a night: windows empty, caches and limits age. Answers that run
    /// are not hurried.
    pub fn skip(&self, time: Duration) {
        self.engine.skip(time);
    }

    /// Stops listening and closes every connection; the tracker's tasks end soon after.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Resolves when the simulator was shut down.
    pub async fn closed(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    engine: Arc<Engine>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                number += 1;
                tracker.spawn(serve(socket, number, engine.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the simulator cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, number: u64, engine: Arc<Engine>, stop: CancellationToken) {
    // A socket that refuses the option still works.
    drop(socket.set_nodelay(true));
    let line = Line {
        number,
        reset: Arc::default(),
    };
    let socket = Socket {
        tcp: socket,
        reset: line.reset.clone(),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let (engine, line) = (engine.clone(), line.clone());
        async move {
            if request.method() == Method::HEAD {
                return Ok(who());
            }
            let answer = answer(engine, line, request).await?;
            Ok::<_, io::Error>(answer.map(Either::Right))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        () = stop.cancelled() => {}
        served = connection => if let Err(error) = served {
            tracing::debug!(%error, "a connection of the simulator ended early");
        },
    }
}

/// Says who this is. That is no request to account for, so it leaves no record.
fn who() -> Response<Either<Empty<Bytes>, Reply>> {
    let mut response = Response::new(Either::Left(Empty::new()));
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    response
}

/// A connection that can end in a reset.
struct Socket {
    tcp: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) {
            // Without it the fault is an orderly close, which is near enough.
            drop(self.tcp.set_zero_linger());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
