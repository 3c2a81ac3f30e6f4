//! The proxy on real sockets: bytes, headers, retries, cuts, and permits that come back.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking and end with the test"
)]

#[expect(dead_code, reason = "the bench looks at the times of a burst as well")]
mod support {
    pub(crate) mod burst;
    pub(crate) mod house;
    pub(crate) mod time;
    pub(crate) mod wire;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use kimiq::limits::Options as Limits;
use kimiq::proxy::Options;
use kimiq::usage::Tokens;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::burst::{Burst, run};
use support::house::{DEADLINE, House, ask, quick};
use support::time::in_own_time;
use support::wire::{STREAM, scripted};

const CHAT: &str = r#"{"model":"kimi-k2.6","stream":true,"prompt_cache_key":"s","messages":[{"role":"user","content":"hello"}]}"#;

#[tokio::test]
async fn bytes_and_headers_cross_and_ours_do_not() {
    let (sender, mut seen) = tokio::sync::mpsc::channel(1);
    let upstream = scripted(move |_, mut wire| {
        let sender = sender.clone();
        async move {
            sender.send(wire.request().await).await.unwrap();
            wire.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-trace-id: t1\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n").await;
            // Cut inside a character and inside a line.
            for part in STREAM.as_bytes().chunks(7) {
                wire.say(&format!("{:x}\r\n", part.len())).await;
                wire.0.write_all(part).await.unwrap();
                wire.say("\r\n").await;
            }
            wire.say("0\r\n\r\n").await;
            wire.closed().await;
        }
    })
    .await;
    let house = House::start(upstream).await;
    let mut request = house.request("/p/up/v1/chat/completions?a=b", CHAT);
    for (name, value) in [
        ("user-agent", "kimi-code-cli/2.1.0"),
        ("x-msh-device-id", "d1"),
        ("authorization", "Bearer sk-theirs"),
        ("accept-encoding", "gzip, deflate"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }

    let answer = house.ask(request).await;

    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-trace-id"], "t1");
    assert!(!answer.headers().contains_key("keep-alive"));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, STREAM.as_bytes());
    let sent = seen.recv().await.unwrap();
    let (head, sent_body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /base/v1/chat/completions?a=b HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(sent_body, CHAT);
    for line in [
        "user-agent: kimi-code-cli/2.1.0",
        "x-msh-device-id: d1",
        "authorization: Bearer sk-theirs",
        "accept-encoding: identity",
        &format!("host: {upstream}"),
        &format!("content-length: {}", CHAT.len()),
    ] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    assert!(!head.contains("kimiq"), "{head}");
    house.until_nothing_is_held().await;
    let expected = Tokens {
        prompt: 12,
        cached: 4,
        generated: 3,
        reasoning: 0,
    };
    assert_eq!(house.spent(), expected);
}

#[tokio::test]
async fn strangers_are_refused() {
    let house = House::start("127.0.0.1:1".parse().unwrap()).await;
    let cases: [(&str, &str, &str, StatusCode); 5] = [
        (
            "/p/up/v1/messages",
            "x-kimiq-key",
            "wrong",
            StatusCode::UNAUTHORIZED,
        ),
        (
            "/p/other/v1/messages",
            "x-unused",
            "",
            StatusCode::NOT_FOUND,
        ),
        ("/v1/messages", "x-unused", "", StatusCode::NOT_FOUND),
        (
            "/p/up/v1/messages",
            "host",
            "evil.example",
            StatusCode::FORBIDDEN,
        ),
        (
            "/p/up/v1/messages",
            "origin",
            "http://evil.example",
            StatusCode::FORBIDDEN,
        ),
    ];
    for (path, name, value, expected) in cases {
        let mut request = house.request(path, CHAT);
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = house.ask(request).await;
        assert_eq!(answer.status(), expected, "{path} {name}");
        assert_eq!(answer.headers()["x-kimiq-fault"], "client");
    }
    for body in ["", "{", "[]", r#"{"messages":[]}"#] {
        let answer = house.ask(house.request("/p/up/v1/messages", body)).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let by_path = format!("/t/{}/up/v1/messages", house.key);
    let mut request = house.request(&by_path, "{");
    request.headers_mut().remove("x-kimiq-key");
    assert_eq!(house.ask(request).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_before_it_is_kept() {
    let options = Options {
        largest_body: 1000,
        ..quick()
    };
    let house = House::with("127.0.0.1:1".parse().unwrap(), options, Limits::default()).await;
    let body = format!(r#"{{"model":"{}"}}"#, "x".repeat(2000));
    let answer = house.ask(house.request("/p/up/v1/messages", &body)).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn other_paths_pass_straight_through() {
    let upstream = scripted(|_, mut wire| async move {
        loop {
            let seen = wire.request().await;
            let Some(line) = seen.lines().next() else {
                return;
            };
            let body = format!("{line}|{}", seen.split_once("\r\n\r\n").unwrap().1);
            wire.answer(200, "content-type: application/json\r\nx-own: 1\r\n", &body)
                .await;
        }
    })
    .await;
    let house = House::start(upstream).await;
    let mut request = house.request("/p/up/models", "");
    *request.method_mut() = http::Method::GET;
    let answer = house.ask(request).await;
    assert_eq!(answer.headers()["x-own"], "1");
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "GET /base/models HTTP/1.1|"
    );
    let answer = house.ask(house.request("/p/up/files", "upload")).await;
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "POST /base/files HTTP/1.1|upload"
    );
}

#[tokio::test]
async fn a_pooled_connection_that_died_costs_nothing() {
    let died = Arc::new(AtomicBool::new(false));
    let noted = died.clone();
    let upstream = scripted(move |number, mut wire| {
        let noted = noted.clone();
        async move {
            assert!(!wire.request().await.is_empty());
            wire.stream(STREAM).await;
            wire.say("0\r\n\r\n").await;
            if number == 0 {
                // The next request on this connection is read and never answered.
                noted.store(!wire.request().await.is_empty(), Ordering::SeqCst);
            } else {
                wire.closed().await;
            }
        }
    })
    .await;
    let house = House::start(upstream).await;
    for _ in 0..2 {
        let answer = house
            .ask(house.request("/p/up/chat/completions", CHAT))
            .await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            STREAM.as_bytes()
        );
    }
    house.until_nothing_is_held().await;
    assert!(died.load(Ordering::SeqCst), "the connection was reused");
    assert_eq!(house.spent().prompt, 24);
}

#[tokio::test]
async fn a_dead_connection_costs_other_paths_nothing_either() {
    let upstream = scripted(|number, mut wire| async move {
        assert!(!wire.request().await.is_empty());
        wire.answer(200, "", "models").await;
        if number == 0 {
            wire.request().await;
        } else {
            wire.closed().await;
        }
    })
    .await;
    let house = House::start(upstream).await;
    for _ in 0..2 {
        let mut request = house.request("/p/up/models", "");
        *request.method_mut() = http::Method::GET;
        let answer = house.ask(request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "models"
        );
    }
}

#[tokio::test]
async fn half_a_plain_answer_is_no_whole_one() {
    let upstream = scripted(|_, mut wire| async move {
        wire.request().await;
        // The end of the connection is the end of such a body, whether it is whole or not.
        wire.say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"choices\":[{\"mess").await;
    })
    .await;
    let house = House::start(upstream).await;
    // Nothing went out of an answer that is read whole before it is passed on, so its failure has a name.
    let answer = house
        .ask(house.request("/p/up/chat/completions", CHAT))
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    // One that passes unread is broken off.
    let unread = CHAT.replace("kimi-k2.6", "glm-4p6");
    let answer = house
        .ask(house.request("/p/up/chat/completions", &unread))
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.into_body().collect().await.is_err());
    house.until_nothing_is_held().await;
}

#[tokio::test]
async fn what_the_upstream_cut_is_cut_towards_the_client() {
    let half = &STREAM[..STREAM.find("data: {\"choices\":[{\"delta\":{},").unwrap()];
    // The connection breaks; and the polite form, which a client would take for a whole answer.
    for polite in [false, true] {
        let upstream = scripted(move |_, mut wire| async move {
            wire.request().await;
            wire.stream(half).await;
            if polite {
                wire.say("0\r\n\r\n").await;
                wire.closed().await;
            }
        })
        .await;
        let house = House::start(upstream).await;
        let answer = house
            .ask(house.request("/p/up/chat/completions", CHAT))
            .await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(
            answer.into_body().collect().await.is_err(),
            "polite: {polite}"
        );
        house.until_nothing_is_held().await;
    }
}

#[tokio::test]
async fn a_stalled_answer_is_broken_off() {
    let upstream = scripted(|_, mut wire| async move {
        wire.request().await;
        wire.stream("data: {}\n\n").await;
        wire.closed().await;
    })
    .await;
    let options = Options {
        stall: Duration::from_millis(50),
        ..quick()
    };
    let house = House::with(upstream, options, Limits::default()).await;
    let answer = house
        .ask(house.request("/p/up/chat/completions", CHAT))
        .await;
    assert!(
        tokio::time::timeout(DEADLINE, answer.into_body().collect())
            .await
            .unwrap()
            .is_err()
    );
    house.until_nothing_is_held().await;
}

#[tokio::test]
async fn a_client_that_goes_away_closes_the_upstream_and_frees_its_permit() {
    let (sender, mut closed) = tokio::sync::mpsc::channel(4);
    let upstream = scripted(move |number, mut wire| {
        let sender = sender.clone();
        async move {
            wire.request().await;
            if number == 1 {
                wire.stream("data: {}\n\n").await;
            }
            sender.send("asked").await.unwrap();
            wire.closed().await;
            sender.send("closed").await.unwrap();
        }
    })
    .await;
    let house = House::start(upstream).await;
    // Before the head of the answer.
    let request = house.request("/p/up/chat/completions", CHAT);
    let asking = tokio::spawn(ask(house.address, request));
    assert_eq!(closed.recv().await, Some("asked"));
    asking.abort();
    assert!(asking.await.is_err());
    // The aborted task held the sender; its connection task ends with it.
    assert_eq!(
        tokio::time::timeout(DEADLINE, closed.recv()).await.unwrap(),
        Some("closed")
    );
    house.until_nothing_is_held().await;
    // The upstream had the prompt, so it is counted.
    let asked = house.spent();
    assert!(asked.prompt > 0 && asked.generated == 0, "{asked:?}");
    assert_eq!(house.proxy.ledger.today().1.tokens, asked);
    // While the answer streams.
    let answer = house
        .ask(house.request("/p/up/chat/completions", CHAT))
        .await;
    assert_eq!(closed.recv().await, Some("asked"));
    drop(answer);
    assert_eq!(
        tokio::time::timeout(DEADLINE, closed.recv()).await.unwrap(),
        Some("closed")
    );
    house.until_nothing_is_held().await;
}

#[tokio::test]
async fn refusals_that_pass_become_a_wait() {
    for (status, times, seen) in [
        (429, 2, 200),
        (503, 2, 200),
        (502, 1, 200),
        (522, 2, 503),
        (402, 1, 402),
        (400, 1, 400),
    ] {
        let upstream = scripted(move |number, mut wire| async move {
            wire.request().await;
            if number < times {
                wire.answer(
                    status,
                    "connection: close\r\nretry-after: 0\r\n",
                    r#"{"error":{"message":"no"}}"#,
                )
                .await;
            } else {
                wire.stream(STREAM).await;
                wire.say("0\r\n\r\n").await;
            }
            wire.closed().await;
        })
        .await;
        let house = House::start(upstream).await;
        let answer = house
            .ask(house.request("/p/up/chat/completions", CHAT))
            .await;
        assert_eq!(answer.status().as_u16(), seen, "{status}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        match seen {
            200 => assert_eq!(body, STREAM.as_bytes()),
            503 => assert!(String::from_utf8_lossy(&body).contains("522")),
            _ => assert_eq!(body, r#"{"error":{"message":"no"}}"#),
        }
        house.until_nothing_is_held().await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = free.local_addr().unwrap();
    drop(free);
    let house = House::start(upstream).await;
    let answer = house
        .ask(house.request("/p/up/chat/completions", CHAT))
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers()["x-kimiq-fault"], "upstream");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains(&upstream.to_string()),
        "{body}"
    );
    house.until_nothing_is_held().await;
}

#[tokio::test]
async fn a_waiting_node_client_gets_signs_of_life_and_then_the_real_status() {
    let (release, held) = tokio::sync::watch::channel(false);
    let upstream = scripted(move |_, mut wire| {
        let mut held = held.clone();
        async move {
            wire.request().await;
            held.wait_for(|go| *go).await.unwrap();
            wire.answer(400, "", "{}").await;
            wire.closed().await;
        }
    })
    .await;
    let options = Options {
        sign_every: Duration::from_millis(20),
        ..quick()
    };
    let house = House::with(upstream, options, Limits::default()).await;
    let mut raw = TcpStream::connect(house.address).await.unwrap();
    let request = format!(
        "POST /p/up/chat/completions HTTP/1.1\r\nhost: {}\r\nx-kimiq-key: {}\r\nuser-agent: kimi-code-cli/2.1.0\r\ncontent-length: {}\r\n\r\n{CHAT}",
        house.address,
        house.key,
        CHAT.len()
    );
    raw.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while seen.matches("HTTP/1.1 102 Processing\r\n\r\n").count() < 3 {
        let mut part = [0; 256];
        let count = tokio::time::timeout(DEADLINE, raw.read(&mut part))
            .await
            .unwrap()
            .unwrap();
        seen.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    release.send(true).unwrap();
    while !seen.contains("HTTP/1.1 400 ") {
        let mut part = [0; 256];
        let count = tokio::time::timeout(DEADLINE, raw.read(&mut part))
            .await
            .unwrap()
            .unwrap();
        seen.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    let rest = seen.replace("HTTP/1.1 102 Processing\r\n\r\n", "");
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
}

#[tokio::test]
async fn the_days_cap_is_final_for_the_client() {
    let limits = Limits {
        daily_cap: 1,
        ..Limits::default()
    };
    let house = House::with("127.0.0.1:1".parse().unwrap(), quick(), limits).await;
    let answer = house
        .ask(house.request("/p/up/chat/completions", CHAT))
        .await;
    assert_eq!(answer.status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(answer.headers()["x-kimiq-fault"], "kimiq");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["type"], "daily_token_limit");
}

/// The same as the bench of this name, in a time of its own.
#[test]
fn twenty_cold_openings_at_once_meet_no_refusal() {
    let burst = Burst {
        clients: 20,
        prompt: 60_000,
        output: 300,
    };
    let seen = in_own_time(run(burst));
    assert_eq!(
        (seen.refused_by_upstream, seen.refused_by_kimiq),
        (0, 0),
        "{seen:?}"
    );
    assert_eq!(seen.finished, 20, "{seen:?}");
}
