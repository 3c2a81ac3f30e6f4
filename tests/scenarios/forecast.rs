//! What `kimiq why` says against what then happens, in the real stack: of every wait the budget, the missing amount and
//! the time. `cargo test --test scenarios forecast -- --nocapture` shows the distribution.

use std::collections::HashMap;
use std::time::Duration;

use kimiq::limits::{Budget, Wait};
use kimiq::simulator::Options as Upstream;
use tokio::time::Instant;

use super::stage::{Crowd, Stage, fast};
use crate::support::time::in_own_time;

/// Time between two questions.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// What was said of a wait, and how long it then took.
struct Said {
    wait: Wait,
    took: Duration,
}

impl Said {
    /// How much longer it took than was foretold, as a share of what it took.
    fn error(&self) -> f64 {
        let foretold = Duration::from_millis(self.wait.eta_ms);
        1.0 - foretold.as_secs_f64() / self.took.as_secs_f64()
    }
}

/// A wait that is over: what was said every two seconds.
type Past = Vec<Said>;

/// Which of it is looked at, given the number of the wait.
type Pick = fn(usize, &Past) -> &Said;

#[test]
fn forecasts_of_two_hundred_waits() {
    let crowd = Crowd {
        terminals: 28,
        turns: 14,
        prompts: (30_000, 70_000),
        output: 260,
        think: 1,
        grows: false,
    };
    let past = in_own_time(watch(crowd));
    let of = |budget: Option<Budget>, pick: Pick| {
        let all = past
            .iter()
            .enumerate()
            .map(|(number, one)| pick(number, one));
        let said = all.filter(|said| budget.is_none_or(|it| said.wait.budget == it));
        let mut errors: Vec<f64> = said.map(Said::error).collect();
        errors.sort_by(f64::total_cmp);
        errors
    };
    println!(
        "{:<24}{:<16}{:>6}{:>12}{:>14}{:>8}{:>8}{:>8}",
        "budget", "asked", "waits", "within 20 %", "median error", "p90", "p5", "p95"
    );
    let asked: [(&str, Pick); 2] = [
        ("at first", |_, one| &one[0]),
        ("at some moment", |number, one| &one[number * 7 % one.len()]),
    ];
    for (when, pick) in asked {
        for budget in [
            Budget::Prompt,
            Budget::Uncached,
            Budget::Generated,
            Budget::Requests,
            Budget::Pause,
        ] {
            row(&budget.to_string(), when, &of(Some(budget), pick));
        }
        row("all", when, &of(None, pick));
    }
    assert!(past.len() >= 200, "{} waits", past.len());
    // What goes wrong is who fits into the room that comes now, and who has to wait for the next.
    for (pick, least) in [(asked[0].1, 60), (asked[1].1, 65)] {
        let errors = of(None, pick);
        assert!(within(&errors, 0.2) * 100 >= errors.len() * least);
        assert!(within(&errors, 0.1) * 2 >= errors.len());
    }
    for said in past.iter().flatten() {
        let wait = &said.wait;
        assert!(wait.missing > 0 || wait.budget == Budget::Pause, "{wait:?}");
    }
}

/// Asks every two seconds why each terminal waits.
async fn watch(crowd: Crowd) -> Vec<Past> {
    // Nobody foretells the minute in which the upstream raises its limits.
    let upstream = Upstream {
        adaptive: false,
        ..fast()
    };
    let stage = Stage::open(upstream).await;
    let gate = &stage.house.proxy.gate;
    let names: Vec<String> = (0..crowd.terminals).map(|n| format!("run:{n}")).collect();
    let mut waiting: HashMap<&str, Vec<(Instant, Wait)>> = HashMap::new();
    let mut past = Vec::new();
    let mut changes = gate.changes();
    let mut play = std::pin::pin!(crowd.play(&stage));
    let mut next = Instant::now();
    loop {
        tokio::select! {
            _failures = &mut play => return past,
            changed = changes.changed() => changed.unwrap(),
            () = tokio::time::sleep_until(next) => {}
        }
        let now = Instant::now();
        for name in &names {
            let wait = gate.wait_of(name);
            let said = waiting.entry(name).or_default();
            // One may be over and the next have begun.
            let over = wait.as_ref().is_none_or(|wait| {
                said.last()
                    .is_some_and(|(_, last)| wait.waited_ms < last.waited_ms)
            });
            if over && !said.is_empty() {
                past.push(
                    said.drain(..)
                        .map(|(at, wait)| Said {
                            wait,
                            took: now - at,
                        })
                        .collect(),
                );
            }
            if let Some(wait) = wait.filter(|_| now >= next) {
                said.push((now, wait));
            }
        }
        if now >= next {
            next = now + ASKED_EVERY;
        }
    }
}

/// How many errors are at most this large.
fn within(errors: &[f64], most: f64) -> usize {
    errors.iter().filter(|error| error.abs() <= most).count()
}

fn row(name: &str, when: &str, errors: &[f64]) {
    if errors.is_empty() {
        return;
    }
    let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let at = |of: &[f64], percent: usize| of[(of.len() - 1) * percent / 100] * 100.0;
    let near = within(errors, 0.2);
    println!(
        "{name:<24}{when:<16}{:>6}{:>10} %{:>12.0} %{:>6.0} %{:>6.0} %{:>6.0} %",
        errors.len(),
        near * 100 / errors.len(),
        at(&sizes, 50),
        at(&sizes, 90),
        at(errors, 5),
        at(errors, 95)
    );
}
