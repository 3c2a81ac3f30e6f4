//! What kimiq adds to a request so that it meets its prompt cache, and what it leaves alone, on real sockets; and that
//! the estimates of a conversation reach the ledger's truth.
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
}

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use kimiq::upstream::Upstream;
use kimiq::usage::Asked;
use kimiq::wire::Scan;
use tokio::sync::mpsc;
use tokio::time::Instant;

use support::house::House;
use support::serving::serving;

type Seen = (HeaderMap, Bytes);

/// An upstream that tells what it got, and says that it read 20,000 tokens of which 15,000 were cached.
async fn upstream() -> (SocketAddr, mpsc::Receiver<Seen>) {
    let (sender, seen) = mpsc::channel(16);
    let address = serving(move |request| answer(request, sender.clone())).await;
    (address, seen)
}

async fn answer(request: Request<Incoming>, sender: mpsc::Sender<Seen>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    sender.send((head.headers, body)).await.unwrap();
    if head.uri.path().ends_with("/messages") {
        return Response::new(Full::from(
            r#"{"usage":{"input_tokens":9,"output_tokens":3}}"#,
        ));
    }
    let stream = concat!(
        "data: {\"choices\":[{\"delta\":{\"content\":\"done\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":20000,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":15000}}}\n\n",
        "data: [DONE]\n\n"
    );
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(Full::from(stream)).unwrap()
}

/// Sends one request and gives back what the upstream saw.
async fn send(
    house: &House,
    seen: &mut mpsc::Receiver<Seen>,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Seen {
    let mut request = house.request(path, body);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let answer = house.ask(request).await;
    assert!(answer.status().is_success());
    answer.into_body().collect().await.unwrap();
    seen.recv().await.unwrap()
}

const CHAT: &str = "/p/up/v1/chat/completions";

#[tokio::test]
async fn a_conversation_gets_one_stable_value() {
    let (address, mut seen) = upstream().await;
    let house = House::start(address).await;
    let bare = r#"{"model":"k","stream":true,"messages":[{"role":"user","content":"a"}]}"#;
    let named = |session: &str| {
        format!(
            r#"{{"model":"k","stream":true,"messages":[],"metadata":{{"user_id":"{session}"}}}}"#
        )
    };

    let (headers, body) = send(&house, &mut seen, CHAT, &[], bare).await;
    let value = headers["x-session-affinity"].to_str().unwrap().to_owned();
    let expected = format!("{{\"prompt_cache_key\":\"{value}\",{}", &bare[1..]);
    assert_eq!(body, expected.as_bytes());
    assert_eq!(headers["content-length"], expected.len().to_string());
    assert!(!value.contains("run"), "a terminal's name stays here");
    let (headers, again) = send(&house, &mut seen, CHAT, &[], bare).await;
    assert_eq!(headers["x-session-affinity"], value);
    assert_eq!(again, body);

    // The messages dialect has no such member; its session names itself in the metadata.
    let messages = "/p/up/v1/messages";
    let (first, body) = send(&house, &mut seen, messages, &[], &named("s1")).await;
    assert_eq!(body, named("s1").as_bytes());
    let (second, _) = send(&house, &mut seen, messages, &[], &named("s2")).await;
    assert_ne!(first["x-session-affinity"], second["x-session-affinity"]);
    assert_ne!(first["x-session-affinity"], value);
}

#[tokio::test]
async fn what_the_client_set_itself_stays() {
    let (address, mut seen) = upstream().await;
    let house = House::start(address).await;
    let keyed = r#" {"prompt_cache_key":"mine","model":"k","stream":true,"messages":[]}"#;
    let (headers, body) = send(&house, &mut seen, CHAT, &[], keyed).await;
    assert_eq!(body, keyed.as_bytes());
    assert!(headers.contains_key("x-session-affinity"));

    let bare = r#"{"model":"k","stream":true,"messages":[]}"#;
    for name in ["x-session-affinity", "x-claude-code-session-id"] {
        let (headers, body) = send(&house, &mut seen, CHAT, &[(name, "mine")], bare).await;
        assert_eq!(headers[name], "mine");
        assert_eq!(
            headers.contains_key("x-session-affinity"),
            name == "x-session-affinity"
        );
        assert_eq!(body, bare.as_bytes());
    }
}

#[tokio::test]
async fn another_server_on_this_machine_gets_what_was_sent_and_has_no_limits() {
    let (address, mut seen) = upstream().await;
    let house = House::start(address).await;
    let own = Upstream::parse("own", &format!("http://{address}"), false).unwrap();
    house.proxy.routes.set(own);
    let bare = r#"{"model":"k","stream":true,"messages":[]}"#;
    let path = "/p/own/v1/chat/completions";
    let (headers, body) = send(&house, &mut seen, path, &[], bare).await;
    assert_eq!(body, bare.as_bytes());
    assert!(!headers.contains_key("x-session-affinity"));
    let pools = house.proxy.gate.snapshot().pools;
    assert!(pools[0].effective.generated > 1 << 40, "{pools:?}");
}

#[tokio::test]
async fn the_next_turn_is_estimated_from_the_true_count() {
    let (address, mut seen) = upstream().await;
    let house = House::start(address).await;
    let turn = |rest: &str| {
        format!(
            r#"{{"model":"k","prompt_cache_key":"s","stream":true,"messages":[{{"role":"user","content":"go"}}{rest}]}}"#
        )
    };
    let next = turn(r#",{"role":"assistant","content":"done"},{"role":"user","content":"more"}"#);
    let estimate = || {
        let mut scan = Scan::default();
        scan.feed(next.as_bytes());
        let prompt = scan.finish().prompt;
        let asked = Asked {
            model: "k",
            place: &format!("{address}/k"),
            session: "s",
            prompt: &prompt,
            spawns: false,
        };
        let guess = house.proxy.estimator.estimate(&asked, Instant::now());
        guess.estimate
    };
    assert_eq!(estimate().cached, 0);

    send(&house, &mut seen, CHAT, &[], &turn("")).await;
    house.until_nothing_is_held().await;

    let warm = estimate();
    assert!((20_000..20_050).contains(&warm.prompt), "{warm:?}");
    assert!(warm.cached > 17_000 && warm.uncached < 4000, "{warm:?}");
}
