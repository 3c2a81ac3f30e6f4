//! What repair costs: per chunk of a stream, per byte of plain text, and in memory.
//!
//! Each line of the table is one sort of answer, put through chunk by chunk as an upstream sends it: the time of a chunk
//! at the median and the 99th percentile, the throughput, and the most bytes that were held. The last lines are the
//! request's way up.
//!
//! `cargo bench --bench normalize` runs it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, fails by panicking, and rounds"
)]

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use kimiq::normalize::{Repairer, Request, Rules};
use kimiq::wire::Dialect;
use tokio::time::Instant;

const CHUNKS: usize = 20_000;

fn main() {
    println!("| answer | chunk p50 ns | chunk p99 ns | MB/s | held bytes |");
    println!("|---|---|---|---|---|");
    let long = "the quick brown fox jumps over it ".repeat(30);
    let lines = "the quick brown fox jumps over it\\n".repeat(30);
    let code = "if a < b { `x` }\\n";
    answer("plain words", |_| content("words and "));
    answer("plain text, 1 kB", |_| content(&long));
    answer("plain lines, 1 kB", |_| content(&lines));
    answer("words with varying ids", |number| {
        content("words and ").replace("cmpl-k", &number.to_string())
    });
    answer("code with signs", |_| content(code));
    answer("reasoning in another field", |_| {
        event(r#"{"reasoning":"words "}"#)
    });
    answer("structured arguments", |number| match number {
        0 => event(
            r#"{"tool_calls":[{"index":0,"id":"functions.run:0","type":"function","function":{"name":"run","arguments":"{\"cmd\":\""}}]}"#,
        ),
        _ => event(r#"{"tool_calls":[{"index":0,"function":{"arguments":"some words "}}]}"#),
    });
    answer("arguments in text", |number| match number {
        0 => content(
            "<|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>{\\\"cmd\\\":\\\"",
        ),
        _ => content("some words "),
    });
    println!();
    println!("| request | body bytes | read µs |");
    println!("|---|---|---|");
    for turns in [0, 20, 200] {
        request(turns);
    }
}

fn rules() -> Arc<Rules> {
    Arc::new(
        Request::read(Dialect::Chat, history(0).as_bytes(), None)
            .unwrap()
            .rules,
    )
}

fn event(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"cmpl-k\",\"object\":\"chat.completion.chunk\",\"created\":1780000000,\"model\":\"accounts/fireworks/models/kimi-k2p6\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n"
    )
}

fn content(text: &str) -> String {
    event(&format!("{{\"content\":\"{text}\"}}"))
}

fn answer(name: &str, chunk: impl Fn(usize) -> String) {
    let chunks: Vec<Bytes> = (0..CHUNKS).map(|number| chunk(number).into()).collect();
    let mut repairer = Repairer::chat(rules(), false);
    let mut out = Vec::with_capacity(8);
    let mut held = 0;
    let mut times = Vec::with_capacity(CHUNKS);
    for chunk in &chunks {
        let begun = Instant::now();
        repairer.push(chunk, &mut out);
        times.push(begun.elapsed().as_nanos());
        out.clear();
        held = held.max(repairer.held());
    }
    // Anew without a clock at each chunk, for the throughput.
    let mut repairer = Repairer::chat(rules(), false);
    let begun = Instant::now();
    for chunk in &chunks {
        repairer.push(chunk, &mut out);
        out.clear();
    }
    let took = begun.elapsed().as_secs_f64();
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    times.sort_unstable();
    println!(
        "| {name} | {} | {} | {:.0} | {held} |",
        times[CHUNKS / 2],
        times[CHUNKS * 99 / 100],
        bytes as f64 / took / 1e6
    );
}

/// A request of a client after so many turns with a call each.
fn history(turns: usize) -> String {
    let tool = r#"{"type":"function","function":{"name":"run","description":"Runs a command.","parameters":{"type":"object","properties":{"cmd":{"type":"string"},"cwd":{"type":"string"}},"required":["cmd"]}}}"#;
    let mut messages = format!(
        r#"{{"role":"system","content":"{}"}}"#,
        "rules ".repeat(2000)
    );
    for turn in 0..turns {
        let result = "a line of output\\n".repeat(100);
        write!(
            messages,
            r#",{{"role":"assistant","content":null,"tool_calls":[{{"id":"functions.run:{turn}","type":"function","function":{{"name":"run","arguments":"{{\"cmd\":\"ls\"}}"}}}}]}},{{"role":"tool","tool_call_id":"functions.run:{turn}","content":"{result}"}}"#
        )
        .unwrap();
    }
    format!(
        r#"{{"model":"kimi-k2p6","stream":true,"tools":[{}],"messages":[{messages}]}}"#,
        [tool; 20].join(",")
    )
}

fn request(turns: usize) {
    const ROUNDS: usize = 50;
    let body = history(turns);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let request = Request::read(Dialect::Chat, body.as_bytes(), None).unwrap();
        assert!(request.body.is_none());
    }
    let took = begun.elapsed().as_micros() / ROUNDS as u128;
    println!("| {turns} turns | {} | {took} |", body.len());
}
