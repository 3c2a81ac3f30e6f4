//! Which connections carry the requests: reused where that is safe, new ones where it is not, and never a request twice.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and their tasks end with the test"
)]

mod support {
    pub(crate) mod house;
    pub(crate) mod wire;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use kimiq::upstream::{Client, ClientOptions, Connection, SendBody, Upstream};
use support::house::{House, ask};
use support::wire::{STREAM, scripted};

const CHAT: &str = r#"{"model":"kimi-k2.6","stream":true,"prompt_cache_key":"s","messages":[{"role":"user","content":"hello"}]}"#;
const EVENTS: &str = "content-type: text/event-stream\r\n";

/// How an upstream of this test answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Length,
    Chunked,
    /// Says that it closes, and does.
    Close,
    /// Says that it closes, and waits for us.
    SaysClose,
    /// Closes without a word.
    Silent,
    OldWithLength,
    OldUntilClose,
}

/// Five answers in one manner; how many connections they took.
async fn connections(manner: Manner) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = scripted(move |_, mut wire| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while !wire.request().await.is_empty() {
                let closes = format!("{EVENTS}connection: close\r\n");
                match manner {
                    Manner::Length => wire.answer(200, EVENTS, STREAM).await,
                    Manner::Chunked => {
                        wire.stream(STREAM).await;
                        wire.say("0\r\n\r\n").await;
                    }
                    Manner::Close => return wire.answer(200, &closes, STREAM).await,
                    Manner::SaysClose => {
                        wire.answer(200, &closes, STREAM).await;
                        return wire.closed().await;
                    }
                    Manner::Silent => return wire.answer(200, EVENTS, STREAM).await,
                    Manner::OldWithLength | Manner::OldUntilClose => {
                        let length = match manner {
                            Manner::OldWithLength => {
                                format!("content-length: {}\r\n", STREAM.len())
                            }
                            _ => String::new(),
                        };
                        let head = format!("HTTP/1.0 200 OK\r\n{EVENTS}{length}\r\n");
                        return wire.say(&format!("{head}{STREAM}")).await;
                    }
                }
            }
        }
    })
    .await;
    let house = House::start(upstream).await;
    for _ in 0..5 {
        let answer = house
            .ask(house.request("/p/up/chat/completions", CHAT))
            .await;
        assert_eq!(answer.status(), StatusCode::OK, "{manner:?}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, STREAM.as_bytes(), "{manner:?}");
        house.until_nothing_is_held().await;
    }
    assert_eq!(house.spent().prompt, 5 * 12, "{manner:?}");
    count.load(Ordering::SeqCst)
}

#[tokio::test]
async fn answers_that_end_give_their_connection_back() {
    for manner in [Manner::Length, Manner::Chunked] {
        assert_eq!(connections(manner).await, 1, "{manner:?}");
    }
}

#[tokio::test]
async fn connections_that_close_cost_nothing() {
    for manner in [
        Manner::Close,
        Manner::SaysClose,
        Manner::Silent,
        Manner::OldWithLength,
        Manner::OldUntilClose,
    ] {
        assert_eq!(connections(manner).await, 5, "{manner:?}");
    }
}

#[tokio::test]
async fn fresh_connections_are_used_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = scripted(move |_, mut wire| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(!wire.request().await.is_empty());
            wire.answer(200, "", "whole").await;
            wire.closed().await;
        }
    })
    .await;
    let options = ClientOptions {
        always_fresh: true,
        ..ClientOptions::default()
    };
    let client = Client::new(options).unwrap();
    let upstream = Upstream::parse("u", &format!("http://{upstream}"), false).unwrap();
    for _ in 0..3 {
        let nothing = SendBody::kept(Arc::default(), || {});
        let (headers, pooled) = (HeaderMap::new(), Connection::Pooled);
        let sent = client.send(&upstream, Method::GET, "/x", headers, nothing, pooled);
        let body = sent.await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "whole");
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_not_taken_for_an_old_one() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = scripted(move |_, mut wire| {
        let counted = counted.clone();
        async move {
            if !wire.request().await.is_empty() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let house = House::start(upstream).await;
    let answer = house.ask(house.request("/p/up/files/x/cancel", "")).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(count.load(Ordering::SeqCst), 1, "the upstream acted once");
    // A model request is tried once more, and both tries may have been counted there.
    let answer = house
        .ask(house.request("/p/up/chat/completions", CHAT))
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(count.load(Ordering::SeqCst), 3);
    house.until_nothing_is_held().await;
    let one = house.spent().prompt / 2;
    assert!(one > 0 && house.spent().prompt == 2 * one);
    assert_eq!(house.proxy.ledger.today().1.requests, 2);
}

#[tokio::test]
async fn a_connection_that_still_uploads_serves_nobody_else() {
    let upstream = scripted(move |number, mut wire| async move {
        if number == 0 {
            // Refused after the first bytes; the rest is never read.
            let mut few = [0; 4096];
            assert!(
                tokio::io::AsyncReadExt::read(&mut wire.0, &mut few)
                    .await
                    .unwrap()
                    > 0
            );
            wire.answer(400, "content-type: application/json\r\n", "{}")
                .await;
            std::future::pending::<()>().await;
        }
        while !wire.request().await.is_empty() {
            wire.answer(200, "", "models").await;
        }
    })
    .await;
    let house = House::start(upstream).await;
    let long = "a".repeat(24_000_000);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{long}"}}]}}"#);
    let answer = house
        .ask(house.request("/p/up/chat/completions", &body))
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let mut models = house.request("/p/up/models", "");
    *models.method_mut() = Method::GET;
    let answer = ask(house.address, models).await;
    assert_eq!(answer.status(), StatusCode::OK);
}
