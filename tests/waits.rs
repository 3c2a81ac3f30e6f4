//! Waits on the real stack: shares by weight, what a refused client reads, and an upstream that does not answer.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking and end with the test"
)]

#[expect(dead_code, reason = "other tests use more of it")]
mod support {
    pub(crate) mod house;
    pub(crate) mod serving;
    pub(crate) mod time;
}

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use kimiq::limits::Options as Limits;
use kimiq::proxy::{Activity, Options};
use kimiq::usage::Dimensions;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use support::house::{DEADLINE, House, ask, quick};
use support::serving::serving;
use support::time::in_own_time;

/// True tokens of each prompt.
const PROMPT: u64 = 1000;

/// An upstream that reads and answers at once, and tells nothing of limits.
async fn upstream() -> SocketAddr {
    serving(async |request: Request<Incoming>| {
        request.into_body().collect().await.unwrap();
        let answer = format!(
            r#"{{"choices":[{{"message":{{"content":"done"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{PROMPT},"completion_tokens":3}}}}"#
        );
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(answer))).unwrap()
    })
    .await
}

/// Room for so many prompts in each half second.
fn room_for(prompts: u64) -> Limits {
    let room = Some(PROMPT * prompts);
    Limits {
        requests_per_second: 10_000,
        window: Duration::from_millis(500),
        ceilings: Dimensions {
            prompt: room,
            uncached: room,
            generated: None,
        },
        ..Limits::default()
    }
}

/// Keeps `at_once` requests of this key under way, and tells of each that ended.
fn crowd(house: &House, key: &str, at_once: usize, ended: &mpsc::Sender<()>) {
    let text = "word ".repeat(usize::try_from(PROMPT * 4 / 5).unwrap());
    for one in 0..at_once {
        let (key, text, ended) = (key.to_owned(), text.clone(), ended.clone());
        let address = house.address;
        let requests = (0..).map(move |turn| {
            let body = format!(
                r#"{{"model":"kimi-k2.6","messages":[{{"role":"user","content":"{key} {one} {turn} {text}"}}]}}"#
            );
            Request::post("/p/up/v1/chat/completions")
                .header("host", address.to_string())
                .header("x-kimiq-key", &key)
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))
                .unwrap()
        });
        tokio::spawn(async move {
            for request in requests {
                let answer = ask(address, request).await;
                assert_eq!(answer.status(), StatusCode::OK);
                answer.into_body().collect().await.expect("a whole answer");
                if ended.send(()).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn weights_divide_a_saturated_budget() {
    in_own_time(async {
        let upstream = upstream().await;
        let house = House::with(upstream, quick(), room_for(20)).await;
        let heavy = house.proxy.keys.issue("run:heavy", 3).unwrap();
        let light = house.proxy.keys.issue("run:light", 1).unwrap();
        let (told, mut ended) = mpsc::channel(1);
        crowd(&house, &heavy, 20, &told);
        crowd(&house, &light, 20, &told);
        let tokens = || {
            ["run:heavy", "run:light"].map(|name| house.proxy.board.activity(name).tokens.prompt)
        };
        // The first window takes everybody in the order in which they come.
        let mut next = async |count: usize| {
            for _ in 0..count {
                tokio::time::timeout(DEADLINE, ended.recv())
                    .await
                    .expect("another answer in time");
            }
            tokens()
        };
        let before = next(60).await;
        let after = next(160).await;
        let [heavy, light] = std::array::from_fn(|i| after[i] - before[i]);
        assert!(heavy + light >= 150 * PROMPT, "{heavy} and {light}");
        let ratio_percent = heavy * 100 / light;
        assert!((250..=350).contains(&ratio_percent), "{heavy} to {light}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_reads_what_the_request_waits_for() {
    let upstream = upstream().await;
    let hasty = Options {
        max_wait: Some(Duration::from_secs(5)),
        ..quick()
    };
    let limits = Limits {
        window: Duration::from_mins(1),
        ..room_for(1)
    };
    let house = House::with(upstream, hasty, limits).await;
    let body = r#"{"model":"k","messages":[{"role":"user","content":"hi"}]}"#;
    let path = "/p/up/v1/chat/completions";
    let first = house.ask(house.request(path, body)).await;
    assert_eq!(first.status(), StatusCode::OK);
    first.into_body().collect().await.unwrap();
    // Until it is settled it counts as estimated, which is less.
    house.until_nothing_is_held().await;
    let refused = house.ask(house.request(path, body)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let message = told["message"].as_str().unwrap();
    assert!(
        message.starts_with("kimiq: no room yet; the request waits for ")
            && message.contains(" tokens, place 1, about "),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_answer_is_told_until_it_answers() {
    // Bound and dropped: nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let patient = Options {
        retry_pause: Duration::from_mins(2),
        ..quick()
    };
    let house = House::with(address, patient, Limits::default()).await;
    let body = r#"{"model":"k","messages":[{"role":"user","content":"hi"}]}"#;
    let path = "/p/up/v1/chat/completions";
    let seen = async |what: &str, wanted: &dyn Fn(&Activity) -> bool| {
        let mut changes = house.proxy.board.changes();
        let found = async {
            loop {
                let activity = house.proxy.board.activity("run:1");
                if wanted(&activity) {
                    return activity;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .unwrap_or_else(|late| panic!("never {what} ({late})"))
    };
    let asking = tokio::spawn(ask(house.address, house.request(path, body)));
    let activity = seen("in trouble", &|it| it.backing_off == 1).await;
    let trouble = activity.trouble.unwrap();
    let told = trouble.sentence(true, tokio::time::Instant::now());
    let expected = format!("the upstream {address} does not answer, tried once; next try in ");
    assert!(told.starts_with(&expected), "{told}");
    asking.abort();
    let activity = seen("left", &|it| it.in_flight() == 0).await;
    assert_eq!(
        activity.trouble.unwrap().tries,
        1,
        "it stays until an answer"
    );

    let upstream = upstream().await;
    let well = format!("http://{upstream}");
    let well = kimiq::upstream::Upstream::parse("up", &well, false).unwrap();
    house.proxy.routes.set(well);
    let answer = house.ask(house.request(path, body)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(house.proxy.board.activity("run:1").trouble, None);
}
