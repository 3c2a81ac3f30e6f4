//! How far estimates are from exact counts with the published Kimi K2 vocabulary.
//!
//! Counted is the text of a body as the model's template puts it together: compact JSON of the tools, strings of the
//! messages, a few tokens around each message. Live prompts at Fireworks counted a constant 8 more than their text.

use std::path::PathBuf;
use std::time::Duration;

use kimiq::usage::{Asked, Estimator, Tokens};
use kimiq::wire::Scan;
use serde_json::Value;
use tiktoken::CoreBpe;
use tokio::time::Instant;

use crate::bodies::{Session, generated, recorded};

/// Bodies of one conversation with their exact counts.
type Counted = (String, Vec<(Vec<u8>, u64)>);

/// Template tokens of a request, and around each message: role marks and their names.
const REQUEST: u64 = 8;
const MESSAGE: u64 = 4;

pub(crate) fn report(folders: &[PathBuf]) {
    let vocabulary = tiktoken::get_encoding("kimi_k2").unwrap();
    let mut sessions: Vec<Counted> = Vec::new();
    let mut texts = [(0u64, 0u64); 2];
    let all = if folders.is_empty() {
        (1..=8).map(|seed| generated(seed, 40)).collect()
    } else {
        folders
            .iter()
            .map(|folder| recorded(folder))
            .collect::<Vec<Session>>()
    };
    for Session { name, bodies } in all {
        let counted = bodies.into_iter().map(|body| {
            let value: Value = serde_json::from_slice(&body).unwrap();
            let count = exact(vocabulary, &value);
            texts[0].0 += body.len() as u64;
            texts[0].1 += count;
            (body, count)
        });
        sessions.push((name, counted.collect()));
    }
    println!(
        "\nexact counts: {} requests, {} tokens, {:.2} bytes per token",
        sessions.iter().map(|it| it.1.len()).sum::<usize>(),
        texts[0].1,
        ratio(texts[0])
    );

    println!(
        "\n{:44} {:>7} {:>7} {:>7} {:>7}",
        "error of the estimate, percent", "median", "p95", "worst", "bias"
    );
    let constant = collect(&sessions, |_, _, body, _| body.len() as u64 * 10 / 35);
    print("bytes / 3.5", &constant);
    let cold = collect(&sessions, |_, _, body, _| {
        cold_estimate(&Estimator::new(None), body)
    });
    print("cold, nothing learned", &cold);
    let taught = collect(&sessions, |at, _, body, _| {
        let estimator = Estimator::new(None);
        for (name, session) in sessions
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .map(|(_, it)| it)
        {
            walk(&estimator, name, session);
        }
        cold_estimate(&estimator, body)
    });
    print("cold, taught by the other conversations", &taught);
    let estimator = Estimator::new(None);
    let mut grown = Vec::new();
    let mut new = Vec::new();
    for (name, session) in &sessions {
        let walked = walk(&estimator, name, session);
        for ((estimate, count), before) in walked
            .iter()
            .zip(session.iter().map(|it| it.1))
            .skip(1)
            .zip(session.iter().map(|it| it.1))
        {
            grown.push(error(*estimate, count));
            if count > before + 200 {
                new.push(error(estimate.saturating_sub(before), count - before));
            }
        }
    }
    print("continued, of the whole prompt", &grown);
    print("continued, of the new part over 200 tokens", &new);
}

/// Sends a conversation through the estimator; gives back what was estimated.
fn walk(estimator: &Estimator, name: &str, session: &[(Vec<u8>, u64)]) -> Vec<u64> {
    let mut now = Instant::now();
    let mut estimates = Vec::new();
    for (at, (body, count)) in session.iter().enumerate() {
        let facts = scan(body);
        let asked = Asked {
            model: "kimi-k2.6",
            place: "host/kimi-k2.6",
            session: name,
            prompt: &facts.prompt,
            spawns: facts.spawns,
        };
        let guess = estimator.estimate(&asked, now);
        estimates.push(guess.estimate.prompt);
        estimator.begun(&asked, now);
        // The answer comes back in the next body; as the upstream counts it, but for the template.
        let generated = session.get(at + 1).map_or(0, |(next, _)| answer(next));
        estimator.learn(
            &asked,
            &guess,
            Tokens {
                prompt: *count,
                cached: 0,
                generated,
                reasoning: 0,
            },
        );
        now += Duration::from_secs(20);
    }
    estimates
}

fn cold_estimate(estimator: &Estimator, body: &[u8]) -> u64 {
    let facts = scan(body);
    let asked = Asked {
        model: "kimi-k2.6",
        place: "host/kimi-k2.6",
        session: "new",
        prompt: &facts.prompt,
        spawns: facts.spawns,
    };
    estimator.estimate(&asked, Instant::now()).estimate.prompt
}

fn scan(body: &[u8]) -> kimiq::wire::Facts {
    let mut scan = Scan::default();
    scan.feed(body);
    scan.finish()
}

fn collect(sessions: &[Counted], estimate: impl Fn(usize, &str, &[u8], u64) -> u64) -> Vec<f64> {
    let mut errors = Vec::new();
    for (at, (name, session)) in sessions.iter().enumerate() {
        // One early and one late request of each: a conversation is cold once.
        for (body, count) in [session.first(), session.last()].into_iter().flatten() {
            errors.push(error(estimate(at, name, body, *count), *count));
        }
    }
    errors
}

/// Tokens of the last message of the model in a body.
fn answer(body: &[u8]) -> u64 {
    let value: Value = serde_json::from_slice(body).unwrap();
    let vocabulary = tiktoken::get_encoding("kimi_k2").unwrap();
    let said = value["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .rfind(|message| message["role"] == "assistant");
    said.map_or(0, |message| strings(vocabulary, message))
}

/// Tokens of a body.
fn exact(vocabulary: &CoreBpe, body: &Value) -> u64 {
    let count = |text: &str| vocabulary.encode(text).len() as u64;
    let tools = body
        .get("tools")
        .map_or(0, |tools| count(&tools.to_string()));
    let heads = ["system", "instructions"]
        .iter()
        .filter_map(|key| body.get(key));
    let system = heads.map(|value| strings(vocabulary, value)).sum::<u64>();
    let messages = body
        .get("messages")
        .or(body.get("input"))
        .and_then(Value::as_array);
    let messages = messages
        .into_iter()
        .flatten()
        .map(|message| MESSAGE + strings(vocabulary, message))
        .sum::<u64>();
    REQUEST + tools + system + messages
}

/// Tokens of the strings in a value that the template prints.
fn strings(vocabulary: &CoreBpe, value: &Value) -> u64 {
    match value {
        Value::String(text) => vocabulary.encode(text).len() as u64,
        Value::Array(all) => all.iter().map(|value| strings(vocabulary, value)).sum(),
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| {
                !matches!(
                    key.as_str(),
                    "role" | "type" | "cache_control" | "signature"
                )
            })
            .map(|(_, value)| strings(vocabulary, value))
            .sum(),
        _ => 0,
    }
}

fn error(estimate: u64, truth: u64) -> f64 {
    100.0 * (estimate as f64 / truth.max(1) as f64 - 1.0)
}

fn ratio((bytes, tokens): (u64, u64)) -> f64 {
    bytes as f64 / tokens.max(1) as f64
}

/// Median, 95th percentile and worst of the size, mean of the error itself.
fn print(what: &str, errors: &[f64]) {
    let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        sizes
            .get((sizes.len() * percent / 100).min(sizes.len() - 1))
            .copied()
            .unwrap_or(0.0)
    };
    let bias = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    println!(
        "{what:44} {:7.2} {:7.2} {:7.2} {bias:+7.2}",
        at(50),
        at(95),
        at(100)
    );
}
