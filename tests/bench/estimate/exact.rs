//! How far estimates are from exact counts with the published Kimi K2 vocabulary.
//!
//! Counted is the text of a body as the model's template puts it together: compact JSON of the tools, strings of the
//! messages, a few tokens around each message. Live prompts at Fireworks counted a constant 8 more than their text.

use std::path::PathBuf;
use std::time::Duration;

use kimiq::usage::{Asked, Estimator, Prompt, Tokens};
use kimiq::wire::Scan;
use serde_json::Value;
use tiktoken::CoreBpe;
use tokio::time::Instant;

use crate::bodies::{Session, generated, recorded};

/// Bodies of one conversation with their exact counts.
type Counted = (String, Vec<Request>);

struct Request {
    body: Vec<u8>,
    /// Tokens of the prompt, and of the last message of the model in it.
    count: u64,
    said: u64,
}

/// Template tokens of a request, and around each message: role marks and their names.
const REQUEST: u64 = 8;
const MESSAGE: u64 = 4;

pub(crate) fn report(folders: &[PathBuf]) {
    let vocabulary = tiktoken::get_encoding("kimi_k2").unwrap();
    let all: Vec<Session> = if folders.is_empty() {
        (1..=8).map(|seed| generated(seed, 40)).collect()
    } else {
        folders.iter().map(|folder| recorded(folder)).collect()
    };
    let sessions: Vec<Counted> = all
        .into_iter()
        .map(|session| counted(vocabulary, session))
        .collect();
    let requests = || sessions.iter().flat_map(|(_, requests)| requests);
    let tokens = requests().map(|it| it.count).sum::<u64>();
    let bytes = requests().map(|it| it.body.len() as u64).sum::<u64>();
    println!(
        "\nexact counts: {} requests, {tokens} tokens, {:.2} bytes per token",
        requests().count(),
        bytes as f64 / tokens as f64
    );
    println!(
        "\n{:44} {:>7} {:>7} {:>7} {:>7}",
        "error of the estimate, percent", "median", "p95", "worst", "bias"
    );
    print(
        "bytes / 3.5",
        &cold(&sessions, |_, body| body.len() as u64 * 10 / 35),
    );
    print(
        "cold, nothing learned",
        &cold(&sessions, |_, body| {
            estimate_cold(&Estimator::new(None), body)
        }),
    );
    let taught: Vec<Estimator> = (0..sessions.len())
        .map(|left_out| {
            let estimator = Estimator::new(None);
            for (at, session) in sessions.iter().enumerate() {
                if at != left_out {
                    walk(&estimator, session, |_, _, _| ());
                }
            }
            estimator
        })
        .collect();
    print(
        "cold, taught by the other conversations",
        &cold(&sessions, |at, body| estimate_cold(&taught[at], body)),
    );
    let estimator = Estimator::new(None);
    let (mut whole, mut new) = (Vec::new(), Vec::new());
    for session in &sessions {
        walk(&estimator, session, |estimate, count, before| {
            whole.push(error(estimate, count));
            if count > before + 200 {
                new.push(error(estimate.saturating_sub(before), count - before));
            }
        });
    }
    print("continued, of the whole prompt", &whole);
    print("continued, of new parts over 200 tokens", &new);
}

fn counted(vocabulary: &CoreBpe, session: Session) -> Counted {
    let requests = session.bodies.into_iter().map(|body| {
        let value: Value = serde_json::from_slice(&body).unwrap();
        Request {
            count: exact(vocabulary, &value),
            said: said(vocabulary, &value),
            body,
        }
    });
    (session.name, requests.collect())
}

/// Sends a conversation through the estimator. Told is each request that continues the one before: what was estimated,
/// its count, and the count of the one before.
fn walk(estimator: &Estimator, (name, requests): &Counted, mut tell: impl FnMut(u64, u64, u64)) {
    let mut now = Instant::now();
    let mut before: Option<(Prompt, u64)> = None;
    for (at, request) in requests.iter().enumerate() {
        let facts = scan(&request.body);
        let asked = Asked {
            model: "kimi-k2.6",
            place: "host/kimi-k2.6",
            session: name,
            prompt: &facts.prompt,
            spawns: facts.spawns,
        };
        let guess = estimator.estimate(&asked, now);
        if let Some((prompt, count)) = before
            && prompt.head == facts.prompt.head
            && facts.prompt.links().starts_with(prompt.links())
        {
            tell(guess.estimate.prompt, request.count, count);
        }
        estimator.begun(&asked, now);
        let tokens = Tokens {
            prompt: request.count,
            cached: 0,
            // The answer comes back in the next body.
            generated: requests.get(at + 1).map_or(0, |next| next.said),
            reasoning: 0,
        };
        estimator.learn(&asked, &guess, tokens);
        before = Some((facts.prompt, request.count));
        now += Duration::from_secs(20);
    }
}

fn estimate_cold(estimator: &Estimator, body: &[u8]) -> u64 {
    let facts = scan(body);
    let asked = Asked {
        model: "kimi-k2.6",
        place: "host/kimi-k2.6",
        session: "new",
        prompt: &facts.prompt,
        spawns: facts.spawns,
    };
    let guess = estimator.estimate(&asked, Instant::now());
    guess.estimate.prompt
}

fn scan(body: &[u8]) -> kimiq::wire::Facts {
    let mut scan = Scan::default();
    scan.feed(body);
    scan.finish()
}

/// Errors of the first and the last request of each conversation, which comes cold once.
fn cold(sessions: &[Counted], estimate: impl Fn(usize, &[u8]) -> u64) -> Vec<f64> {
    let mut errors = Vec::new();
    for (at, (_, requests)) in sessions.iter().enumerate() {
        for request in [requests.first(), requests.last()].into_iter().flatten() {
            errors.push(error(estimate(at, &request.body), request.count));
        }
    }
    errors
}

/// Tokens of the last message of the model in a body.
fn said(vocabulary: &CoreBpe, body: &Value) -> u64 {
    let messages = body["messages"].as_array().into_iter().flatten();
    let last = messages
        .rev()
        .find(|message| message["role"] == "assistant");
    last.map_or(0, |message| strings(vocabulary, message))
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
