//! The simulated upstream over real sockets: usage in every dialect, budgets, faults, and what is written down.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kimiq::simulator::Account;
use kimiq::simulator::Charge;
use kimiq::simulator::Dialect;
use kimiq::simulator::End;
use kimiq::simulator::Fault;
use kimiq::simulator::HeaderUnit;
use kimiq::simulator::Options;
use kimiq::simulator::Simulator;
use kimiq::simulator::TruthRecord;
use kimiq::simulator::Verdict;
use kimiq::simulator::declared;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

const DEADLINE: Duration = Duration::from_secs(20);

struct Bench {
    simulator: Simulator,
    tracker: TaskTracker,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end; `broken` if the end was no orderly one.
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
    broken: bool,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The JSON of every `data:` line that holds any.
    fn events(&self) -> Vec<Value> {
        let lines = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        lines
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }
}

impl Bench {
    async fn start(options: Options) -> Self {
        let tracker = TaskTracker::new();
        let simulator = Simulator::start(options, &tracker).await.unwrap();
        // One connection per request, so that one fault does not touch the next request.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        Self {
            simulator,
            tracker,
            client,
        }
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: &Value,
    ) -> Result<Response<Incoming>, String> {
        let request = request.body(Full::from(body.to_string())).unwrap();
        let sent = tokio::time::timeout(DEADLINE, self.client.request(request))
            .await
            .unwrap();
        sent.map_err(|error| error.to_string())
    }

    fn post(&self, path: &str) -> http::request::Builder {
        Request::post(format!("http://{}{path}", self.simulator.addr()))
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = self.post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.send(request, body).await.unwrap()).await
    }

    async fn chat(&self, headers: &[(&str, &str)]) -> Answer {
        self.ask("/v1/chat/completions", headers, &chat("hello"))
            .await
    }

    /// The newest record when so many requests are over.
    async fn record(&self, count: u64) -> TruthRecord {
        let records = tokio::time::timeout(DEADLINE, self.simulator.finished(count))
            .await
            .unwrap();
        assert_eq!(records.len() as u64, count);
        records.last().unwrap().clone()
    }

    /// Nothing goes on after the end.
    async fn end(self) {
        drop(self.simulator);
        self.tracker.close();
        tokio::time::timeout(DEADLINE, self.tracker.wait())
            .await
            .unwrap();
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let mut broken = false;
    while let Some(frame) = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap() {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => broken = true,
        }
    }
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text: String::from_utf8(bytes).unwrap(),
        broken,
    }
}

fn chat(text: &str) -> Value {
    json!({"model": "kimi-k2.6", "stream": true, "messages": [{"role": "user", "content": text}]})
}

fn fast() -> Options {
    Options::immediate()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().unwrap().parse().ok()
}

const GENERATED_LIMIT: &str = "x-ratelimit-limit-tokens-generated";
const PROMPT_LEFT: &str = "x-ratelimit-remaining-tokens-prompt";

#[tokio::test]
async fn every_dialect_reports_what_is_written_down() {
    let bench = Bench::start(fast()).await;
    let declared = [
        (declared::PROMPT_TOKENS, "1000"),
        (declared::CACHED_TOKENS, "400"),
        (declared::OUTPUT_TOKENS, "50"),
    ];
    let paths = [
        ("/v1/chat/completions", Dialect::Chat),
        ("/inference/v1/messages?beta=true", Dialect::Messages),
        ("/responses", Dialect::Responses),
    ];
    let mut count = 0;
    for (path, dialect) in paths {
        for stream in [true, false] {
            let body = json!({
                "model": "kimi-k2.6", "stream": stream, "max_tokens": 100, "messages": [], "input": [],
            });
            let answer = bench.ask(path, &declared, &body).await;
            assert_eq!((answer.status, answer.broken), (200, false), "{path}");
            let reports = if stream {
                answer.events()
            } else {
                vec![answer.json()]
            };
            let usage = reports
                .iter()
                .rev()
                .find_map(|event| {
                    let response = event.get("response").unwrap_or(event);
                    response.get("usage").filter(|usage| usage.is_object())
                })
                .unwrap();
            let expected = match dialect {
                Dialect::Messages => json!([600, 400, 50]),
                _ => json!([1000, 400, 50]),
            };
            let told = match dialect {
                Dialect::Messages => [
                    &usage["input_tokens"],
                    &usage["cache_read_input_tokens"],
                    &usage["output_tokens"],
                ],
                Dialect::Responses => [
                    &usage["input_tokens"],
                    &usage["input_tokens_details"]["cached_tokens"],
                    &usage["output_tokens"],
                ],
                _ => {
                    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
                    [&usage["prompt_tokens"], cached, &usage["completion_tokens"]]
                }
            };
            assert_eq!(json!(told), expected, "{path} {stream}");
            count += 1;
            let record = bench.record(count).await;
            assert_eq!(
                (record.dialect, record.stream, record.end),
                (dialect, stream, End::Complete)
            );
            assert_eq!(record.path, format!("POST {path}"));
            let tokens = record.tokens;
            assert_eq!(
                (tokens.prompt, tokens.cached, tokens.generated),
                (1000, 400, 50),
                "{path} {stream}"
            );
        }
    }
    bench.end().await;
}

#[tokio::test]
async fn the_second_turn_of_a_session_finds_its_prefix_cached() {
    let bench = Bench::start(Options {
        cache_block: 16,
        ..fast()
    })
    .await;
    let mut body = chat(&"a long prompt ".repeat(100));
    body["prompt_cache_key"] = json!("session-1");
    let cached = |answer: &Answer| {
        let events = answer.events();
        events.last().unwrap()["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(
        cached(&bench.ask("/v1/chat/completions", &[], &body).await),
        0
    );
    body["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": "user", "content": "and more"}));
    let found = cached(&bench.ask("/v1/chat/completions", &[], &body).await);
    // 1400 bytes and the role make 351 tokens; whole blocks of 16 are found, scaled to the template's 8 more.
    assert!(
        (336..=352).contains(&found) && found.is_multiple_of(16),
        "{found}"
    );
    let record = bench.record(2).await;
    assert_eq!(record.session.as_deref(), Some("session-1"));
    assert_eq!(record.tokens.cached, found);
    bench.end().await;
}

#[tokio::test]
async fn a_full_budget_refuses_in_the_words_of_the_dialect() {
    let mut options = Options {
        gateways: 1,
        ..fast()
    };
    options.start.generated = 100;
    let bench = Bench::start(options).await;
    let first = bench.chat(&[(declared::OUTPUT_TOKENS, "100")]).await;
    assert_eq!(first.status, 200);
    assert_eq!(
        number(&first.headers, GENERATED_LIMIT),
        None,
        "no answer has ended before"
    );
    bench.record(1).await;

    let second = bench.chat(&[]).await;
    assert_eq!(second.status, 429);
    assert_eq!(
        second.json()["error"]["message"],
        "rate limit exceeded, please try again later"
    );
    assert_eq!(number(&second.headers, GENERATED_LIMIT), Some(100));
    assert_eq!(
        number(&second.headers, "x-ratelimit-remaining-tokens-generated"),
        Some(0)
    );
    assert_eq!(second.headers["x-ratelimit-over-limit"], "no");
    assert!(!second.headers.contains_key("retry-after"));
    let record = bench.record(2).await;
    assert_eq!(
        (record.verdict, record.tokens.prompt),
        (Verdict::Generated, 0)
    );
    assert_eq!((record.limits.generated, record.used.generated), (100, 100));

    let body = json!({"model": "kimi-k2.6", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    let third = bench.ask("/v1/messages", &[], &body).await;
    assert_eq!(
        (third.status, &third.json()["error"]["type"]),
        (429, &json!("rate_limit_error"))
    );
    let other = json!({"model": "another", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(
        bench.ask("/v1/chat/completions", &[], &other).await.status,
        200,
        "a pool is one model"
    );
    bench.end().await;
}

#[tokio::test]
async fn headers_tell_limits_in_the_chosen_unit_and_what_is_left() {
    for (unit, divisor) in [(HeaderUnit::Minute, 1), (HeaderUnit::Second, 60)] {
        let bench = Bench::start(Options {
            gateways: 1,
            header_unit: unit,
            ..fast()
        })
        .await;
        for round in 1..=2 {
            let answer = bench
                .chat(&[
                    (declared::PROMPT_TOKENS, "6000"),
                    (declared::OUTPUT_TOKENS, "1"),
                ])
                .await;
            bench.record(round).await;
            assert_eq!(
                number(&answer.headers, PROMPT_LEFT),
                Some((3_600_000 - round * 6000) / divisor)
            );
            let generated = number(&answer.headers, GENERATED_LIMIT);
            assert_eq!(
                generated,
                (round == 2).then_some(36_000 / divisor),
                "{unit}"
            );
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn a_window_passes_faster_in_scaled_time() {
    let mut options = Options {
        gateways: 1,
        time_scale: 600.0,
        ..fast()
    };
    options.start.generated = 10;
    options.adaptive = false;
    let bench = Bench::start(options).await;
    assert_eq!(
        bench.chat(&[(declared::OUTPUT_TOKENS, "10")]).await.status,
        200
    );
    bench.record(1).await;
    let freed = async { while bench.chat(&[]).await.status == 429 {} };
    tokio::time::timeout(DEADLINE, freed).await.unwrap();
    let records = bench.simulator.truth();
    let (first, last) = (records.first().unwrap(), records.last().unwrap());
    // The records are rounded to milliseconds, and the charge falls a moment before the end is noted.
    assert!(
        last.arrival - first.arrival >= 0.1 - 0.002,
        "60 s are a tenth of a second, not less"
    );
    bench.end().await;
}

#[tokio::test]
async fn reserved_output_is_charged_in_full() {
    let bench = Bench::start(Options {
        gateways: 1,
        charge: Charge::Reserved,
        ..fast()
    })
    .await;
    let mut body = chat("hello");
    body["max_tokens"] = json!(30_000);
    assert_eq!(
        bench.ask("/v1/chat/completions", &[], &body).await.status,
        200
    );
    assert_eq!(
        bench.ask("/v1/chat/completions", &[], &body).await.status,
        429
    );
    assert_eq!(bench.record(2).await.used.generated, 30_000);
    bench.end().await;
}

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

#[tokio::test]
async fn the_account_and_the_request_are_checked_first() {
    let check = async |options: Options, status: u16| {
        let bench = Bench::start(options).await;
        assert_eq!(bench.chat(&[]).await.status, status);
        bench.end().await;
    };
    check(
        Options {
            require_key: true,
            ..fast()
        },
        401,
    )
    .await;
    check(
        Options {
            account: Account::Spent,
            ..fast()
        },
        402,
    )
    .await;
    check(
        Options {
            account: Account::Suspended,
            ..fast()
        },
        412,
    )
    .await;
    check(
        Options {
            requests: 0,
            ..fast()
        },
        429,
    )
    .await;
    check(
        Options {
            shed: 1.0,
            ..fast()
        },
        503,
    )
    .await;
    check(
        Options {
            max_body: 10,
            ..fast()
        },
        413,
    )
    .await;

    let bench = Bench::start(Options {
        require_key: true,
        shed: 1.0,
        shed_as_529: true,
        ..fast()
    })
    .await;
    let body = json!({"model": "m", "max_tokens": 5, "messages": []});
    let shed = bench
        .ask("/v1/messages", &[("x-api-key", "k")], &body)
        .await;
    assert_eq!(
        (shed.status, &shed.json()["error"]["type"]),
        (529, &json!("overloaded_error"))
    );
    assert_eq!(
        bench
            .ask(
                "/v1/chat/completions",
                &[("x-api-key", "k")],
                &json!({"model": 1})
            )
            .await
            .status,
        400
    );
    assert_eq!(
        bench
            .ask("/v1/messages/count_tokens", &[], &body)
            .await
            .status,
        404
    );
    bench.end().await;
}

#[tokio::test]
async fn models_are_listed_and_unknown_paths_are_not_found() {
    let bench = Bench::start(fast()).await;
    let get = async |path: &str| {
        let request = Request::get(format!("http://{}{path}", bench.simulator.addr()));
        read(bench.send(request, &Value::Null).await.unwrap()).await
    };
    let models = get("/v1/models").await.json();
    assert!(
        models["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["id"] == "kimi-k2.6")
    );
    assert_eq!(
        get("/v1/usages").await.json()["usages"]["limit_5h"]["used_ratio"],
        0.1
    );
    let missing = get("/v1/nothing").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (StatusCode::NOT_FOUND.as_u16(), &json!("NOT_FOUND"))
    );
    bench.end().await;
}

#[tokio::test]
async fn the_truth_file_holds_the_records_and_no_secret() {
    let folder = std::env::temp_dir().join(format!("kimiq-truth-{}", std::process::id()));
    let path = folder.join("truth.jsonl");
    std::fs::create_dir_all(&folder).unwrap();
    let bench = Bench::start(Options {
        truth: Some(path.clone()),
        ..fast()
    })
    .await;
    bench
        .chat(&[
            ("authorization", "Bearer sk-secret"),
            ("x-kimiq-key", "terminal-secret"),
        ])
        .await;
    bench.chat(&[("x-session-affinity", "s-7")]).await;
    bench.record(2).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let records: Vec<TruthRecord> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records, bench.simulator.truth());
    assert!(!text.contains("secret"), "{text}");
    let [first, second] = &records[..] else {
        panic!("two records, not {}", records.len())
    };
    assert!(first.leaked && first.headers.contains(&"x-kimiq-key".to_owned()));
    assert_eq!(first.credentials, ["authorization"]);
    assert!(!second.leaked && second.credentials.is_empty());
    assert_eq!(second.session.as_deref(), Some("s-7"));
    bench.end().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let bench = Bench::start(fast()).await;
    let port = bench.simulator.addr().port();
    let second = Simulator::start(Options { port, ..fast() }, &bench.tracker).await;
    assert_eq!(second.err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
    bench.end().await;
}
