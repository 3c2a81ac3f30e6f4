//! What `kimiq why` foretells against what then happens, in the real stack: printed, never asserted, since a busy machine
//! may delay anybody. `cargo test --test scenarios forecast -- --nocapture` shows it.

use std::collections::HashMap;
use std::time::Duration;

use kimiq::limits::{Budget, Options as Limits};
use kimiq::simulator::Options as Upstream;

use super::stage::{Crowd, Stage};

/// A wait that is over.
struct Past {
    budget: Budget,
    foretold: Duration,
    took: Duration,
}

impl Past {
    /// How much longer it took than was foretold, as a share of what it took.
    fn error(&self) -> f64 {
        1.0 - self.foretold.as_secs_f64() / self.took.as_secs_f64()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forecasts_of_two_hundred_waits() {
    let upstream = Upstream {
        decode_pace: 100.0,
        ..Upstream::default()
    };
    let stage = Stage::open(20, upstream, Limits::default()).await;
    let crowd = Crowd {
        terminals: 28,
        turns: 12,
        prompts: (30_000, 70_000),
        output: 260,
        think: 1,
        grows: false,
    };
    let mut waiting = HashMap::new();
    let mut past = Vec::new();
    let mut changes = stage.house.proxy.gate.changes();
    let mut play = std::pin::pin!(crowd.play(&stage));
    loop {
        tokio::select! {
            _failures = &mut play => break,
            changed = changes.changed() => changed.unwrap(),
        }
        let now = stage.elapsed();
        let queue = stage.house.proxy.gate.snapshot().queue;
        for view in &queue {
            let foretold = Duration::from_millis(view.wait.eta_ms);
            let first = (now, view.wait.budget, foretold);
            waiting.entry(view.terminal.clone()).or_insert(first);
        }
        waiting.retain(|terminal, &mut (since, budget, foretold)| {
            let waits = queue.iter().any(|view| view.terminal == *terminal);
            let took = now.saturating_sub(since);
            // Who is served at once did not wait.
            if !waits && took >= Duration::from_secs(1) {
                past.push(Past {
                    budget,
                    foretold,
                    took,
                });
            }
            waits
        });
    }
    println!(
        "{:<24}{:>6}{:>12}{:>8}{:>8}{:>8}{:>8}",
        "budget", "waits", "within 20 %", "p5", "p25", "p50", "p95"
    );
    for budget in [
        Budget::Prompt,
        Budget::Uncached,
        Budget::Generated,
        Budget::Requests,
        Budget::Pause,
    ] {
        let of: Vec<&Past> = past.iter().filter(|it| it.budget == budget).collect();
        row(&budget.to_string(), &of);
    }
    row("all", &past.iter().collect::<Vec<_>>());
    assert!(past.len() >= 50 || !stage.is_calm(), "{} waits", past.len());
}

fn row(name: &str, waits: &[&Past]) {
    if waits.is_empty() {
        return;
    }
    let mut errors: Vec<f64> = waits.iter().map(|it| it.error()).collect();
    errors.sort_by(f64::total_cmp);
    let at = |percent: usize| errors[(errors.len() - 1) * percent / 100] * 100.0;
    let near = errors.iter().filter(|error| error.abs() <= 0.2).count();
    println!(
        "{name:<24}{:>6}{:>10} %{:>7.0}%{:>7.0}%{:>7.0}%{:>7.0}%",
        errors.len(),
        near * 100 / errors.len(),
        at(5),
        at(25),
        at(50),
        at(95)
    );
}
