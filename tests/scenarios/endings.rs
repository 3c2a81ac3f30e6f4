//! Scenario 10: clients abort, the upstream crashes, or time runs out, in every phase of an exchange. Passes when each
//! reservation comes back exactly once: nothing is in flight or held afterwards, and limiter and ledger count the same.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use kimiq::limits::{Ask, Options as Limits, Permit};
use kimiq::proxy::Options;
use kimiq::upstream::Upstream;
use kimiq::usage::{Asked, Dimensions};
use kimiq::wire::Scan;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::support::house::{DEADLINE, House, ask};
use crate::support::time::in_own_time;
use crate::support::wire::{STREAM, Wire, follow};

const CHAT: &str = "/p/up/v1/chat/completions";
const MODEL: &str = "kimi-k2.6";

/// What an exchange is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Half of its body has come.
    Receiving,
    /// No room in a budget.
    Queued,
    /// The room came in the same instant.
    Admitted,
    /// The upstream's host does not take the connection.
    Connecting,
    /// The upstream reads nothing of a long body.
    Sending,
    /// All was sent, no byte came.
    Awaiting,
    /// The answer flows.
    Streaming,
    /// The answer told its usage and has not ended.
    Told,
    /// The pause after a 503.
    BackingOff,
    /// The rest of the pool after a 429.
    Resting,
    /// All over.
    Settled,
}

/// What ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ClientGone,
    Crash,
    TimeOut,
}

/// What it counts as, in the windows as in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    Nothing,
    /// The estimated prompt, so many times: each try that was taken.
    Prompt(u64),
    /// The estimated prompt and some output.
    Output,
    /// As the upstream told.
    Usage,
}

use Cost::{Nothing, Output, Prompt, Usage};
use Phase::{
    Admitted, Awaiting, BackingOff, Connecting, Queued, Receiving, Resting, Sending, Settled,
    Streaming, Told,
};
use Way::{ClientGone, Crash, TimeOut};

#[test]
fn every_reservation_returns_exactly_once() {
    let table = [
        // The upstream knows nothing of it yet, and a slow client may take its time.
        (Receiving, ClientGone, Nothing),
        (Queued, ClientGone, Nothing),
        (Queued, Crash, Nothing),
        (Queued, TimeOut, Nothing),
        (Admitted, ClientGone, Nothing),
        (Admitted, Crash, Nothing),
        (Connecting, ClientGone, Nothing),
        (Connecting, Crash, Nothing),
        (Connecting, TimeOut, Nothing),
        (Sending, ClientGone, Nothing),
        (Sending, Crash, Nothing),
        (Sending, TimeOut, Nothing),
        (Awaiting, ClientGone, Prompt(1)),
        // The connection was new, so the upstream had the request; the next try finds nobody.
        (Awaiting, Crash, Prompt(1)),
        // Two tries, and both may have been counted.
        (Awaiting, TimeOut, Prompt(2)),
        (Streaming, ClientGone, Output),
        (Streaming, Crash, Output),
        (Streaming, TimeOut, Output),
        (Told, ClientGone, Usage),
        (Told, Crash, Usage),
        (Told, TimeOut, Usage),
        (BackingOff, ClientGone, Nothing),
        (BackingOff, Crash, Nothing),
        // A pause that patience does not cover is none.
        (BackingOff, TimeOut, Nothing),
        (Resting, ClientGone, Nothing),
        (Resting, Crash, Nothing),
        (Resting, TimeOut, Nothing),
        (Settled, ClientGone, Usage),
        (Settled, Crash, Usage),
        (Settled, TimeOut, Usage),
    ];
    in_own_time(async {
        let mut cases = JoinSet::new();
        for (phase, way, cost) in table {
            cases.spawn(check(phase, way, cost));
        }
        cases.join_all().await;
    });
}

/// Turns within which an admitted request is on its way, many times over.
const TURNS: usize = 100;

/// A client may go in any instant between the admission and the last byte of the request: it costs nothing until then,
/// and its prompt from then on.
#[test]
fn a_client_that_goes_while_it_is_admitted_costs_nothing_or_its_prompt() {
    let mut costs = Vec::new();
    for turns in 0..TURNS {
        let (used, estimate) = in_own_time(end(Admitted, ClientGone, turns));
        assert!([0, estimate].contains(&used.prompt), "{turns}: {used:?}");
        assert_eq!(used.generated, 0, "{turns}");
        costs.push(used.prompt > 0);
    }
    assert!(
        costs.is_sorted() && !costs[0] && costs[TURNS - 1],
        "{costs:?}"
    );
}

async fn check(phase: Phase, way: Way, cost: Cost) {
    let (used, estimate) = end(phase, way, 0).await;
    let (prompt, generated) = (used.prompt, used.generated);
    let right = match cost {
        Nothing => (prompt, generated) == (0, 0),
        Prompt(tries) => (prompt, generated) == (tries * estimate, 0),
        Output => prompt == estimate && generated > 100,
        Usage => (prompt, generated) == (12, 3),
    };
    assert!(
        right,
        "{phase:?}, {way:?}: {used:?}, estimated {estimate}, not {cost:?}"
    );
}

/// Brings an exchange into a phase and ends it, so many turns after nobody holds the room any more. Returns what it
/// counts as, and what its prompt was estimated at.
async fn end(phase: Phase, way: Way, turns: usize) -> (Dimensions<u64>, u64) {
    let name = format!("{phase:?}, {way:?}, {turns}");
    let upstream = Scripted::start(phase);
    let house = house(&upstream, phase, way).await;
    let body = body(phase);
    let estimate = estimate(&house, &upstream, &body);
    let (mut exchange, permit) = reach(&house, &upstream, phase, way, &body).await;
    match way {
        ClientGone => {
            drop(permit);
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            exchange.client.abort();
        }
        Crash => {
            upstream.end().await;
            drop(permit);
            exchange.ended(&name).await;
        }
        TimeOut => {
            exchange.ended(&name).await;
            drop(permit);
        }
    }
    house.until_nothing_is_held().await;
    let snapshot = house.proxy.gate.snapshot();
    let pool = snapshot.pools.first();
    let held = pool.map(|pool| (pool.held, pool.in_flight));
    assert_eq!(held.unwrap_or_default(), Default::default(), "{name}");
    assert_eq!(snapshot.day.held, 0, "{name}");

    let used = pool.map(|pool| pool.used).unwrap_or_default();
    let booked = house.proxy.ledger.today().1.tokens;
    assert_eq!(booked.dimensions(), used, "{name}: ledger and windows");
    assert_eq!(house.spent(), booked, "{name}: board and ledger");
    (used, estimate)
}

/// Half a megabyte does not fit into the buffers of a connection that is made small; a word fits anywhere.
fn body(phase: Phase) -> String {
    let word = if phase == Sending {
        "word ".repeat(1_000_000)
    } else {
        "hello".to_owned()
    };
    format!(
        r#"{{"model":"{MODEL}","stream":true,"prompt_cache_key":"s","messages":[{{"role":"user","content":"{word}"}}]}}"#
    )
}

fn estimate(house: &House, upstream: &Scripted, body: &str) -> u64 {
    let mut scan = Scan::default();
    scan.feed(body.as_bytes());
    let prompt = scan.finish().prompt;
    let asked = Asked {
        model: MODEL,
        place: &upstream.pool,
        session: "s",
        prompt: &prompt,
        spawns: false,
    };
    let guess = house.proxy.estimator.estimate(&asked, Instant::now());
    guess.estimate.prompt
}

async fn house(upstream: &Scripted, phase: Phase, way: Way) -> House {
    let short = Duration::from_millis(100);
    // Longer than a busy machine takes to send a request.
    let silence = Duration::from_secs(1);
    let waits = matches!(phase, Queued | BackingOff | Resting);
    let options = Options {
        max_wait: (way == TimeOut && waits).then_some(short),
        stall: if way == TimeOut { silence } else { DEADLINE },
        retry_pause: if way == Crash { short } else { DEADLINE },
        ..Options::default()
    };
    House::with(upstream.address, options, Limits::default()).await
}

/// The client's side of an exchange.
struct Exchange {
    client: JoinHandle<()>,
    /// What the answer brought, piece by piece.
    answer: mpsc::Receiver<String>,
}

impl Exchange {
    fn start(house: &House, body: &str) -> Self {
        let (sender, answer) = mpsc::channel(64);
        let (address, request) = (house.address, house.request(CHAT, body));
        let client = tokio::spawn(async move {
            let answer = ask(address, request).await;
            let mut body = answer.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap_or_default();
                let text = String::from_utf8_lossy(&data).into_owned();
                if sender.send(text).await.is_err() {
                    return;
                }
            }
        });
        Self { client, answer }
    }

    /// Waits until the client has read this.
    async fn reads(&mut self, wanted: &str) {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            let next = tokio::time::timeout(DEADLINE, self.answer.recv()).await;
            seen += &next.unwrap().expect("more of the answer");
        }
    }

    /// Waits until the client has its answer, whatever it is, or half of one: after a try more and the pause before it,
    /// where the system gave up a connection before kimiq did.
    async fn ended(&mut self, name: &str) {
        let end = async { while self.answer.recv().await.is_some() {} };
        assert!(
            tokio::time::timeout(DEADLINE * 4, end).await.is_ok(),
            "{name}: no end"
        );
    }
}

/// Brings an exchange into the phase; for some with a permit that keeps everybody else waiting. With a way that ends it
/// by itself, the phase may be over already.
async fn reach(
    house: &House,
    upstream: &Scripted,
    phase: Phase,
    way: Way,
    body: &str,
) -> (Exchange, Option<Permit>) {
    let mut permit = None;
    if matches!(phase, Queued | Admitted) {
        let everything = Ask {
            pool: upstream.pool.clone(),
            prompt: 4_275_000,
            ..Ask::default()
        };
        permit = Some(house.proxy.gate.admit(everything).await.unwrap());
    }
    if phase == Receiving {
        return (half(house, body).await, None);
    }
    let mut exchange = Exchange::start(house, body);
    match (phase, way) {
        (Streaming | Told, _) => exchange.reads("more").await,
        (Settled, _) => exchange.reads("[DONE]").await,
        (_, TimeOut) => {}
        (Queued | Admitted | Resting, _) => {
            house.until("queued", |seen| seen.queue.len() == 1).await;
        }
        (Connecting | Sending, _) => {
            let on_its_way = |seen: &kimiq::limits::Snapshot| {
                seen.pools
                    .iter()
                    .any(|pool| pool.in_flight == 1 && pool.held.prompt > 0)
            };
            house.until("on its way", on_its_way).await;
        }
        (Awaiting, _) => {
            let sent = |seen: &kimiq::limits::Snapshot| {
                seen.pools
                    .iter()
                    .any(|pool| pool.in_flight == 1 && pool.held.prompt == 0)
            };
            house.until("sent", sent).await;
        }
        (BackingOff, _) => {
            let mut changes = house.proxy.board.changes();
            let wait = async {
                while house.proxy.board.activity("run:1").backing_off == 0 {
                    changes.changed().await.unwrap();
                }
            };
            tokio::time::timeout(DEADLINE, wait).await.expect("a pause");
        }
        (Receiving, _) => {}
    }
    if phase == Told {
        exchange.reads("usage").await;
    }
    (exchange, permit)
}

/// Sends the head and half of the body, and shows that others are served meanwhile.
async fn half(house: &House, body: &str) -> Exchange {
    let mut raw = TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\nx-kimiq-key: {}\r\ncontent-length: {}\r\n\r\n",
        house.address,
        house.key,
        body.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    raw.write_all(&body.as_bytes()[..body.len() / 2])
        .await
        .unwrap();
    // A whole request, refused for its body, has passed the one that is still being read.
    let other = house.ask(house.request(CHAT, "{")).await;
    assert_eq!(other.status(), 400);
    let (sender, answer) = mpsc::channel(1);
    let client = tokio::spawn(async move {
        let _held = sender;
        std::future::pending::<()>().await;
        drop(raw);
    });
    Exchange { client, answer }
}

/// An upstream that brings an exchange into one phase and leaves it there.
struct Scripted {
    address: std::net::SocketAddr,
    pool: Arc<str>,
    task: JoinHandle<()>,
}

impl Scripted {
    fn start(phase: Phase) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if phase == Sending {
            socket.set_recv_buffer_size(4096).unwrap();
        }
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket
            .listen(if phase == Connecting { 1 } else { 64 })
            .unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Upstream::parse("up", &format!("http://{address}/base"), false).unwrap();
        let task = if phase == Connecting {
            tokio::spawn(full(listener))
        } else {
            tokio::spawn(follow(listener, move |_, wire| script(phase, wire)))
        };
        Self {
            address,
            pool: upstream.pool(MODEL),
            task,
        }
    }

    /// The process is gone: its connections are reset, and nobody listens.
    async fn end(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a listener whose queue of connections is full, so that more of them stay half-open.
fn full(listener: TcpListener) -> impl Future<Output = ()> + Send {
    let address = listener.local_addr().unwrap();
    // The system takes one more than was asked for, before anybody accepts them.
    let open = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
    async move {
        std::future::pending::<()>().await;
        drop((listener, open));
    }
}

async fn script(phase: Phase, mut wire: Wire) {
    if phase == Sending {
        std::future::pending::<()>().await;
    }
    wire.request().await;
    match phase {
        Streaming | Told => {
            let text = "more ".repeat(400);
            wire.stream(&format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
            ))
            .await;
            if phase == Told {
                wire.chunk(STREAM.split("data: [DONE]").next().unwrap())
                    .await;
            }
        }
        BackingOff => wire.answer(503, "connection: close\r\n", "{}").await,
        Resting => {
            wire.answer(
                429,
                "connection: close\r\n",
                r#"{"error":{"message":"slow down"}}"#,
            )
            .await;
        }
        Settled => {
            wire.stream(STREAM).await;
            wire.say("0\r\n\r\n").await;
        }
        Receiving | Queued | Admitted | Connecting | Sending | Awaiting => {}
    }
    wire.closed().await;
}
