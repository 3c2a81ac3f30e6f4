//! The simulated upstream over real sockets: each fault on demand, what the client sees of it, and what it costs.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support {
    pub(crate) mod upstream;
}

use http_body_util::BodyExt;
use http_body_util::Full;
use kimiq::simulator::End;
use kimiq::simulator::Fault;
use kimiq::simulator::Options;
use kimiq::simulator::Verdict;
use kimiq::simulator::declared;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use support::upstream::Bench;
use support::upstream::DEADLINE;
use support::upstream::chat;
use support::upstream::fast;

#[tokio::test]
async fn each_fault_has_its_effect() {
    let bench = Bench::start(fast()).await;
    let mut count = 0;
    let long = (declared::OUTPUT_TOKENS, "400");
    for (fault, status, broken, finished) in [
        (Fault::Cut, 200, true, false),
        (Fault::CutAfter(2), 200, true, false),
        (Fault::Reset, 200, true, false),
        (Fault::Truncate, 200, false, false),
        (Fault::BrokenChunk, 200, false, true),
        (Fault::ErrorEvent, 200, false, false),
        (Fault::Html502, 502, false, false),
        (Fault::Throttled, 429, false, false),
        (Fault::Shed, 503, false, false),
    ] {
        let name = fault.to_string();
        let answer = bench.chat(&[long, (declared::FAULT, &name)]).await;
        count += 1;
        let record = bench.record(count).await;
        assert_eq!((answer.status, answer.broken), (status, broken), "{name}");
        assert_eq!(answer.text.contains("[DONE]"), finished, "{name}");
        assert_eq!((record.end, record.fault), (End::Fault, Some(name.clone())));
        if status == 200 {
            assert!(record.tokens.generated <= 400, "{name}");
        } else {
            assert_eq!(
                (record.verdict, record.tokens.prompt),
                (Verdict::Fault, 0),
                "{name}"
            );
        }
        match fault {
            Fault::CutAfter(events) => {
                assert_eq!(answer.text.matches("data: ").count(), events as usize);
            }
            Fault::Html502 => assert!(answer.text.starts_with("<html>")),
            Fault::ErrorEvent => assert!(answer.events().last().unwrap().get("error").is_some()),
            Fault::BrokenChunk => {
                assert!(answer.events().len() + 2 == answer.text.matches("data: ").count());
            }
            _ => {}
        }
    }
    bench.end().await;
}

#[tokio::test]
async fn a_reset_is_no_orderly_close() {
    let bench = Bench::start(fast()).await;
    for (fault, expected) in [
        ("cut", None),
        ("reset", Some(std::io::ErrorKind::ConnectionReset)),
    ] {
        let mut socket = tokio::net::TcpStream::connect(bench.simulator.addr())
            .await
            .unwrap();
        let body = chat("hello").to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{}: {fault}\r\ncontent-length: {}\r\n\r\n{body}",
            declared::FAULT,
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut text))
            .await
            .unwrap();
        assert_eq!(read.err().map(|error| error.kind()), expected, "{fault}");
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("data: ") && !text.ends_with("0\r\n\r\n"),
            "{text}"
        );
    }
    bench.end().await;
}

#[tokio::test]
async fn noise_and_cuts_leave_the_answer_what_it_is() {
    let plain = Bench::start(fast()).await;
    let noisy = Bench::start(Options {
        comments: true,
        crlf: true,
        chunk_bytes: 7,
        ..fast()
    })
    .await;
    let body = chat("schön, 漢字 🦀");
    let one = plain.ask("/v1/chat/completions", &[], &body).await;
    let other = noisy.ask("/v1/chat/completions", &[], &body).await;
    assert!(other.text.contains(": keep-alive\r\n\r\n"));
    assert_eq!(one.events(), other.events());
    let usage = one.events().last().unwrap()["usage"].clone();
    let record = plain.record(1).await;
    assert_eq!(
        usage["completion_tokens"], record.tokens.generated,
        "also with characters of many bytes"
    );
    plain.end().await;
    noisy.end().await;
}

#[tokio::test]
async fn a_document_can_break_too() {
    let bench = Bench::start(fast()).await;
    let mut body = chat("hello");
    body["stream"] = json!(false);
    for (fault, status, broken) in [
        ("cut", 200, true),
        ("truncate", 200, false),
        ("error-event", 500, false),
    ] {
        let answer = bench
            .ask("/v1/chat/completions", &[(declared::FAULT, fault)], &body)
            .await;
        assert_eq!((answer.status, answer.broken), (status, broken), "{fault}");
        assert_eq!(
            serde_json::from_str::<Value>(&answer.text).is_ok(),
            status == 500,
            "{fault}"
        );
    }
    bench.end().await;
}

#[tokio::test]
async fn a_dropped_connection_brings_no_answer() {
    let bench = Bench::start(fast()).await;
    let request = bench
        .post("/v1/chat/completions")
        .header(declared::FAULT, "drop");
    assert!(bench.send(request, &chat("hello")).await.is_err());
    let record = bench.record(1).await;
    assert_eq!((record.end, record.status), (End::Fault, 0));
    bench.end().await;
}

#[tokio::test]
async fn a_silent_or_stalled_answer_lasts_until_the_client_leaves() {
    let bench = Bench::start(fast()).await;
    let request = bench
        .post("/v1/chat/completions")
        .header(declared::FAULT, "stall");
    let mut body = bench
        .send(request, &chat("hello"))
        .await
        .unwrap()
        .into_body();
    let first = tokio::time::timeout(DEADLINE, body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(first.data_ref().unwrap().starts_with(b"data: "));
    assert!(bench.simulator.truth().is_empty(), "it goes on");
    drop(body);
    let record = bench.record(1).await;
    assert_eq!(
        (record.end, record.fault.as_deref()),
        (End::ClientGone, Some("stall"))
    );

    let request = bench
        .post("/v1/chat/completions")
        .header(declared::FAULT, "silent");
    let request = request.body(Full::from(chat("hello").to_string())).unwrap();
    let mut sent = Box::pin(bench.client.request(request));
    tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            answer = &mut sent => panic!("an answer came: {answer:?}"),
            () = bench.simulator.arrived(2) => {}
        }
    })
    .await
    .unwrap();
    drop(sent);
    let record = bench.record(2).await;
    assert_eq!((record.end, record.status), (End::ClientGone, 0));
    bench.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_charged_for_what_it_got() {
    let mut options = Options {
        gateways: 1,
        decode_pace: 20.0,
        ..fast()
    };
    options.event_tokens = 1;
    let bench = Bench::start(options).await;
    let request = bench
        .post("/v1/chat/completions")
        .header(declared::PROMPT_TOKENS, "500")
        .header(declared::OUTPUT_TOKENS, "100000");
    let mut body = bench
        .send(request, &chat("hello"))
        .await
        .unwrap()
        .into_body();
    for _ in 0..3 {
        tokio::time::timeout(DEADLINE, body.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    drop(body);
    let gone = bench.record(1).await;
    assert_eq!((gone.end, gone.tokens.prompt), (End::ClientGone, 500));
    assert!(
        (2..100_000).contains(&gone.tokens.generated),
        "{}",
        gone.tokens.generated
    );
    bench.chat(&[(declared::OUTPUT_TOKENS, "1")]).await;
    let next = bench.record(2).await;
    assert_eq!((next.used.prompt, next.used.uncached), (500, 500));
    assert_eq!(next.used.generated, gone.tokens.generated);
    bench.end().await;
}

#[tokio::test]
async fn a_fault_may_be_asked_for_in_the_text_and_for_a_few_times_only() {
    let bench = Bench::start(fast()).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let body = chat("please fail [[fault:503*2]]");
        statuses.push(bench.ask("/v1/chat/completions", &[], &body).await.status);
    }
    assert_eq!(statuses, [503, 503, 200]);
    assert_eq!(
        bench.chat(&[(declared::FAULT, "nonsense")]).await.status,
        400
    );
    bench.end().await;
}

#[tokio::test]
async fn faults_come_by_chance_with_the_seed() {
    let run = async || {
        let bench = Bench::start(Options {
            seed: 9,
            faults: vec![(Fault::Shed, 0.5)],
            ..fast()
        })
        .await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(bench.chat(&[]).await.status);
        }
        bench.end().await;
        statuses
    };
    let statuses = run().await;
    assert!(
        statuses.contains(&200) && statuses.contains(&503),
        "{statuses:?}"
    );
    assert_eq!(run().await, statuses);
}
