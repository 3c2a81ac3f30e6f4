//! What kimiq adds to a request, beside a bare pass-through and a direct call, in one run.
//!
//! Four parties live in this process: an upstream that answers fixed bytes at once, a bare hyper pass-through that
//! streams both bodies, kimiq's proxy with its limiter (budgets wide open), and workers that ask. Each worker asks the
//! three addresses in turn, so that a slow moment of the machine meets all of them. All run on one thread: what is
//! compared is the work of a request, not where a scheduler puts it. With more threads a party now and then wakes on
//! another core, which adds the same to all three ways, or to one of them, by chance. Printed are medians in
//! microseconds, what each proxy adds to the direct call's median, and the ratio of the two additions. A second table
//! shows how long a chunk of a paced stream travels from the upstream's hand to the asker's, at the 99th percentile.
//!
//! `cargo bench --bench passthrough` runs it; `-- --quick` runs a tenth.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, fails by panicking, and ends with its tasks"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kimiq::limits::{Gate, Options as Limits};
use kimiq::proxy::{AsideHandler, Board, Keys, Options, Proxy, Routes, Stalls, serve};
use kimiq::upstream::{Client, ClientOptions, Upstream};
use kimiq::usage::{Dimensions, Estimator, Ledger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Server-sent events of a streamed answer.
const EVENTS: usize = 50;

/// Between two events of a paced answer: about the pace of a fast model.
const PACE: Duration = Duration::from_millis(10);

/// Asks the upstream of this bench to stream its answer.
const STREAMED: &str = "x-bench-streamed";

/// Asks it to pace the stream.
const PACED: &str = "x-bench-paced";

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(if quick { 10 } else { 1 }));
}

async fn run(divisor: usize) {
    let upstream = start_upstream().await;
    let targets = [
        upstream,
        start_bare(upstream).await,
        start_kimiq(upstream).await,
    ];
    println!(
        "| body | answer | concurrency | direct p50 µs | bare adds µs | kimiq adds µs | kimiq / bare |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, size, rounds) in [("2 kB", 2_000, 6000), ("400 kB", 400_000, 1200)] {
        for streamed in [false, true] {
            for concurrency in [1, 8, 64] {
                let rounds = (rounds / divisor / concurrency).max(8);
                let plan = Plan {
                    streamed,
                    paced: false,
                    concurrency,
                    rounds,
                };
                let [direct, bare, kimiq] = measure(targets, size, plan)
                    .await
                    .map(|mut it| percentile(&mut it, 50));
                let (bare, kimiq) = (bare.saturating_sub(direct), kimiq.saturating_sub(direct));
                let ratio = kimiq.as_secs_f64() / bare.as_secs_f64().max(1e-9);
                let answer = if streamed { "streamed" } else { "plain" };
                let [direct, bare, kimiq] = [direct, bare, kimiq].map(|it| it.as_micros());
                println!(
                    "| {name} | {answer} | {concurrency} | {direct} | {bare} | {kimiq} | {ratio:.2} |"
                );
            }
        }
    }
    println!("\n| concurrency | chunk p99 direct µs | bare µs | kimiq µs | kimiq - bare µs |");
    println!("|---|---|---|---|---|");
    for (concurrency, rounds) in [(1, 40), (8, 24), (64, 10)] {
        let rounds = (rounds / divisor).max(2);
        let plan = Plan {
            streamed: true,
            paced: true,
            concurrency,
            rounds,
        };
        let all = measure(targets, 2_000, plan)
            .await
            .map(|mut it| percentile(&mut it, 99));
        let [direct, bare, kimiq] = all.map(|it| i128::try_from(it.as_micros()).unwrap());
        println!(
            "| {concurrency} | {direct} | {bare} | {kimiq} | {} |",
            kimiq - bare
        );
    }
}

#[derive(Clone, Copy)]
struct Plan {
    streamed: bool,
    paced: bool,
    concurrency: usize,
    rounds: usize,
}

/// Times by target: of whole requests, or of chunks in a paced plan.
type Samples = [Vec<Duration>; 3];

async fn measure(targets: [SocketAddr; 3], size: usize, plan: Plan) -> Samples {
    let body = Bytes::from(request_body(size, plan.streamed));
    let workers = (0..plan.concurrency).map(|_| tokio::spawn(worker(targets, body.clone(), plan)));
    let mut all = Samples::default();
    for worker in workers.collect::<Vec<_>>() {
        for (index, samples) in worker.await.unwrap().into_iter().enumerate() {
            all[index].extend(samples);
        }
    }
    all
}

async fn worker(targets: [SocketAddr; 3], body: Bytes, plan: Plan) -> Samples {
    let mut senders = Vec::new();
    for target in targets {
        senders.push(connect(target).await);
    }
    let mut samples = Samples::default();
    // The first rounds open connections.
    let warm_up = if plan.paced { 1 } else { 5 };
    for round in 0..plan.rounds + warm_up {
        for (index, sender) in senders.iter_mut().enumerate() {
            let times = ask(sender, targets[index], body.clone(), plan).await;
            if round >= warm_up {
                samples[index].extend(times);
            }
        }
    }
    samples
}

async fn connect(target: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(target).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    target: SocketAddr,
    body: Bytes,
    plan: Plan,
) -> Vec<Duration> {
    let mut request = Request::post("/v1/chat/completions")
        .header("host", target.to_string())
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-bench");
    if plan.streamed {
        request = request.header(STREAMED, "1");
    }
    if plan.paced {
        request = request.header(PACED, "1");
    }
    let start = Instant::now();
    sender.ready().await.unwrap();
    let answer = sender
        .send_request(request.body(Full::new(body)).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut travelled = Vec::new();
    while let Some(frame) = body.frame().await {
        let chunk = frame.unwrap().into_data().unwrap();
        if plan.paced
            && let Some(sent) = stamp_of(&chunk)
        {
            travelled.push(epoch().elapsed().saturating_sub(sent));
        }
    }
    if plan.paced {
        travelled
    } else {
        vec![start.elapsed()]
    }
}

/// The instant that all stamps count from.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// When the upstream sent this chunk.
fn stamp_of(chunk: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(chunk).unwrap();
    let digits = text.split("\"content\":\"").nth(1)?.split('"').next()?;
    digits.parse().ok().map(Duration::from_nanos)
}

fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples
        .get(samples.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}

fn request_body(size: usize, streamed: bool) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < size {
        text.push_str(
            "fn answer(&self) -> u32 {\\n    self.\\\"value\\\" + 42 // words of a program\\n}\\n",
        );
    }
    format!(
        "{{\"model\":\"kimi-k2.6\",\"stream\":{streamed},\"prompt_cache_key\":\"session_1\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
    )
    .into_bytes()
}

/// The other end of all three ways, as cheap as it can be: it reads a request by its length and writes fixed bytes.
async fn start_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(answer_all(stream));
        }
    });
    address
}

async fn answer_all(mut stream: TcpStream) {
    let plain = plain_answer();
    let mut buffer = vec![0; 64 * 1024];
    let mut held = 0;
    loop {
        let Some(end) = memchr::memmem::find(&buffer[..held], b"\r\n\r\n") else {
            match stream.read(&mut buffer[held..]).await {
                Ok(0) | Err(_) => return,
                Ok(more) => held += more,
            }
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        let mut missing = (end + 4 + length).saturating_sub(held);
        while missing > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(more) => missing -= more,
            }
        }
        held = 0;
        let sent = if head.contains(STREAMED) {
            stream_answer(&mut stream, head.contains(PACED)).await
        } else {
            stream.write_all(&plain).await
        };
        if sent.is_err() {
            return;
        }
    }
}

const USAGE: &str = r#""usage":{"prompt_tokens":500,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":400}}"#;

fn plain_answer() -> Vec<u8> {
    let text = "words of an answer ".repeat(50);
    let body = format!(
        r#"{{"id":"1","choices":[{{"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{USAGE}}}"#
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Event by event, each a chunk and a write of its own.
async fn stream_answer(stream: &mut TcpStream, paced: bool) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..EVENTS {
        if paced {
            tokio::time::sleep(PACE).await;
        }
        let event = format!(
            "data: {{\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":null}}]}}\n\n",
            epoch().elapsed().as_nanos()
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        stream.write_all(chunk.as_bytes()).await?;
    }
    let last = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}],{USAGE}}}\n\ndata: [DONE]\n\n"
    );
    let chunk = format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len());
    stream.write_all(chunk.as_bytes()).await
}

/// The least that a pass-through can do with the same libraries: both bodies stream, nothing is looked at.
async fn start_bare(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
    connector.set_nodelay(true);
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .build::<_, Incoming>(connector);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let client = client.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let client = client.clone();
                async move {
                    *request.uri_mut() = format!("http://{upstream}{}", request.uri().path())
                        .parse()
                        .unwrap();
                    request.headers_mut().remove("host");
                    let answer = client.request(request).await.unwrap();
                    Ok::<_, Infallible>(answer)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// kimiq as it runs, with budgets that never bind.
async fn start_kimiq(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        requests_per_second: 1_000_000,
        start: Dimensions {
            prompt: 1 << 44,
            uncached: 1 << 44,
            generated: 1 << 44,
        },
        daily_cap: u64::MAX,
        ..Limits::default()
    };
    let gate = Gate::new(limits, kimiq::clock::wall);
    tokio::spawn(gate.clone().drive());
    let proxy = Arc::new(Proxy {
        options: Options::default(),
        keys: Keys::default(),
        routes: Routes::default(),
        board: Board::default(),
        gate,
        estimator: Estimator::new(None),
        ledger: Ledger::open(scratch_ledger(), chrono_tz::UTC, kimiq::clock::wall).unwrap(),
        client: Client::new(ClientOptions::default()).unwrap(),
        wall: kimiq::clock::wall,
        stalls: Stalls::new(Options::default().stall),
        repairing: Arc::default(),
    });
    proxy.routes.set_default(
        Upstream::parse("bench", &format!("http://{upstream}"), false)
            .unwrap()
            .simulated(),
    );
    let aside: AsideHandler = Arc::new(|request| Box::pin(async move { Err(request) }));
    tokio::spawn(serve(
        listener,
        proxy,
        aside,
        TaskTracker::new(),
        CancellationToken::new(),
    ));
    address
}

/// A ledger file of its own, in a folder that the build cleans up.
fn scratch_ledger() -> std::path::PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("ledger-{}-{number}.json", std::process::id()))
}
