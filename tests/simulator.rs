//! The simulated upstream over real sockets: usage in every dialect, budgets, and what is written down.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support {
    pub(crate) mod upstream;
}

use http::HeaderMap;
use http::Request;
use http::StatusCode;
use kimiq::simulator::Account;
use kimiq::simulator::Charge;
use kimiq::simulator::Dialect;
use kimiq::simulator::End;
use kimiq::simulator::HeaderUnit;
use kimiq::simulator::Options;
use kimiq::simulator::Simulator;
use kimiq::simulator::TruthRecord;
use kimiq::simulator::Verdict;
use kimiq::simulator::declared;
use serde_json::Value;
use serde_json::json;

use support::upstream::Answer;
use support::upstream::Bench;
use support::upstream::DEADLINE;
use support::upstream::chat;
use support::upstream::fast;
use support::upstream::read;

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
