//! Each fault that the simulator can play, through kimiq: what the client sees, and that the permit comes back.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking and end with the test"
)]

#[expect(dead_code, reason = "the tests of the proxy use the rest")]
mod support {
    pub(crate) mod house;
}

use std::time::Duration;

use http_body_util::BodyExt;
use kimiq::limits::Options as Limits;
use kimiq::proxy::Options;
use kimiq::simulator::{End, Options as Upstream, Simulator, declared};
use kimiq::usage::Tokens;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::TaskTracker;

use support::house::{DEADLINE, House, quick};

const CHAT: &str = "/p/up/v1/chat/completions";
const MESSAGES: &str = "/p/up/v1/messages";
const RESPONSES: &str = "/p/up/v1/responses";

/// What a client saw of one request.
#[derive(Debug, PartialEq, Eq)]
enum Saw {
    /// An answer to its end, with this status.
    Whole(u16),
    /// An answer that broke off.
    Broken,
}

fn body(path: &str) -> String {
    let content = r#"{"role":"user","content":"tell me a story"}"#;
    if path == RESPONSES {
        format!(r#"{{"model":"kimi-k2.6","stream":true,"input":[{content}]}}"#)
    } else {
        format!(r#"{{"model":"kimi-k2.6","stream":true,"max_tokens":9000,"messages":[{content}]}}"#)
    }
}

async fn start(options: Options) -> (Simulator, House) {
    let simulator = Simulator::start(Upstream::immediate().unlimited(), &TaskTracker::new())
        .await
        .unwrap();
    let house = House::with(simulator.addr(), options, Limits::default()).await;
    (simulator, house)
}

async fn play(house: &House, path: &str, fault: &str) -> Saw {
    let mut request = house.request(path, &body(path));
    request
        .headers_mut()
        .insert(declared::FAULT, fault.parse().unwrap());
    request
        .headers_mut()
        .insert(declared::OUTPUT_TOKENS, 200.into());
    let answer = house.ask(request).await;
    let status = answer.status().as_u16();
    match tokio::time::timeout(DEADLINE, answer.into_body().collect())
        .await
        .expect("an end in time")
    {
        Ok(_) => Saw::Whole(status),
        Err(_) => Saw::Broken,
    }
}

#[tokio::test]
async fn every_fault_has_its_documented_effect_and_the_permit_comes_back() {
    // A stall would last for ever; here it is broken off after a moment.
    let options = Options {
        stall: Duration::from_millis(100),
        ..quick()
    };
    for path in [CHAT, MESSAGES, RESPONSES] {
        for (fault, expected) in [
            // The answer stops: the client must not take half of it for the whole.
            ("stall", Saw::Broken),
            ("cut", Saw::Broken),
            ("cut-after=3", Saw::Broken),
            ("reset", Saw::Broken),
            ("truncate", Saw::Broken),
            // Nothing was answered: a second try on a fresh connection meets the same, and the client is told.
            ("drop", Saw::Whole(502)),
            // No head comes: given up after a moment, tried once more, and told.
            ("silent", Saw::Whole(502)),
            ("silent*1", Saw::Whole(200)),
            // Once is a hiccup that the client never sees.
            ("drop*1", Saw::Whole(200)),
            ("html502", Saw::Whole(502)),
            ("html502*1", Saw::Whole(200)),
            ("503", Saw::Whole(503)),
            ("503*2", Saw::Whole(200)),
            ("429*2", Saw::Whole(200)),
            // Bytes are passed on as they came: what is broken inside is for the client to judge.
            ("broken-chunk", Saw::Whole(200)),
            ("error-event", Saw::Whole(200)),
        ] {
            let (_simulator, house) = start(options).await;
            assert_eq!(play(&house, path, fault).await, expected, "{path} {fault}");
            house.until_nothing_is_held().await;
        }
    }
}

#[tokio::test]
async fn every_whole_answer_is_counted_as_the_upstream_counted_it() {
    let (simulator, house) = start(quick()).await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        for stream in [true, false] {
            let body = body(path).replace("\"stream\":true", &format!("\"stream\":{stream}"));
            let mut request = house.request(path, &body);
            for (name, count) in [
                (declared::PROMPT_TOKENS, 5_000),
                (declared::CACHED_TOKENS, 3_000),
                (declared::OUTPUT_TOKENS, 77),
            ] {
                request.headers_mut().insert(name, count.into());
            }
            let answer = house.ask(request).await;
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
        }
    }
    house.until_nothing_is_held().await;
    let mut truth = Tokens::default();
    for record in simulator.finished(6).await {
        assert_eq!(record.end, End::Complete);
        assert!(!record.leaked);
        truth += record.tokens;
    }
    let mut counted = house.spent();
    // Not every dialect tells how much of the output was thinking.
    counted.reasoning = truth.reasoning;
    assert_eq!(counted, truth);
    assert_eq!(counted.prompt, 30_000);
}

#[tokio::test]
async fn a_client_that_leaves_a_stalled_answer_frees_everything() {
    let (simulator, house) = start(quick()).await;
    let mut request = house.request(CHAT, &body(CHAT));
    request
        .headers_mut()
        .insert(declared::FAULT, "stall".parse().unwrap());
    let answer = house.ask(request).await;
    assert_eq!(answer.status(), 200);
    drop(answer);
    house.until_nothing_is_held().await;
    let records = tokio::time::timeout(DEADLINE, simulator.finished(1))
        .await
        .expect("the upstream saw the end");
    assert_eq!(records[0].end, End::ClientGone);
}

#[tokio::test]
async fn a_request_that_never_ends_is_answered() {
    let options = Options {
        stall: Duration::from_millis(100),
        ..quick()
    };
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let house = House::with(nobody, options, Limits::default()).await;
    let mut raw = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\nx-kimiq-key: {}\r\ncontent-length: 1000\r\n\r\n{{\"model\"",
        house.address, house.key
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut said = String::new();
    tokio::time::timeout(DEADLINE, raw.read_to_string(&mut said))
        .await
        .expect("an answer in time")
        .unwrap();
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!(
        said.contains("within 0.1 s, the bound of `proxy.stall`"),
        "{said}"
    );
}
