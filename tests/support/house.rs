//! A proxy on a loopback port, with its limiter, in front of any upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kimiq::limits::{Gate, Options as Limits, Snapshot};
use kimiq::proxy::{AsideHandler, Board, Keys, Options, Proxy, Routes, Stalls, serve};
use kimiq::upstream::{Client, ClientOptions, Upstream};
use kimiq::usage::{Estimator, Ledger, Tokens};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest that any condition of a test may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Settings under which no test waits for a pause that is meant for a real upstream.
pub(crate) fn quick() -> Options {
    Options {
        retry_pause: Duration::from_millis(1),
        ..Options::default()
    }
}

/// A proxy in front of one upstream, and the key of terminal `run:1`.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) key: String,
}

impl House {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        Self::with(upstream, quick(), Limits::default()).await
    }

    pub(crate) async fn with(upstream: SocketAddr, options: Options, limits: Limits) -> Self {
        Self::at(upstream, options, limits, kimiq::clock::wall).await
    }

    /// With a time of day of its own.
    pub(crate) async fn at(
        upstream: SocketAddr,
        options: Options,
        limits: Limits,
        wall: fn() -> chrono::DateTime<chrono::Utc>,
    ) -> Self {
        let gate = Gate::new(limits, wall);
        tokio::spawn(gate.clone().drive());
        let proxy = Arc::new(Proxy {
            options,
            keys: Keys::default(),
            routes: Routes::default(),
            board: Board::default(),
            gate,
            estimator: Estimator::new(None),
            ledger: Ledger::open(scratch_ledger(), chrono_tz::UTC, wall).unwrap(),
            client: Client::new(ClientOptions::default()).unwrap(),
            wall,
            stalls: Stalls::new(options.stall),
            repairing: Arc::default(),
        });
        proxy.routes.set(
            Upstream::parse("up", &format!("http://{upstream}/base"), false)
                .unwrap()
                .simulated(),
        );
        let key = proxy.keys.issue("run:1", 1).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let aside: AsideHandler = Arc::new(|request| Box::pin(async move { Err(request) }));
        tokio::spawn(serve(
            listener,
            proxy.clone(),
            aside,
            TaskTracker::new(),
            CancellationToken::new(),
        ));
        Self {
            address,
            proxy,
            key,
        }
    }

    pub(crate) fn request(&self, path: &str, body: &str) -> Request<Full<Bytes>> {
        Request::post(path)
            .header("host", self.address.to_string())
            .header("x-kimiq-key", &self.key)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap()
    }

    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        tokio::time::timeout(DEADLINE, ask(self.address, request))
            .await
            .expect("an answer in time")
    }

    /// Waits until the limiter shows what is wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) {
        let mut changes = self.proxy.gate.changes();
        let reached = async {
            while !wanted(&self.proxy.gate.snapshot()) {
                changes.changed().await.unwrap();
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reached).await;
        assert!(
            in_time.is_ok(),
            "never {what}: {:?}",
            self.proxy.gate.snapshot()
        );
    }

    pub(crate) async fn until_nothing_is_held(&self) {
        self.until("empty", |seen| {
            seen.queue.is_empty() && seen.pools.iter().all(|pool| pool.in_flight == 0)
        })
        .await;
    }

    pub(crate) fn spent(&self) -> Tokens {
        self.proxy.board.activity("run:1").tokens
    }
}

pub(crate) async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

/// A ledger file of its own, in a folder that the build cleans up.
fn scratch_ledger() -> std::path::PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("ledger-{}-{number}.json", std::process::id()))
}
