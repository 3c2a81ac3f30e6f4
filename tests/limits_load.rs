//! The limiter against modelled upstreams, in simulated time: no 429 comes, and the budgets are used.
//!
//! The upstream counts a rolling minute without any margin. It charges uncached and generated tokens either while they flow
//! or when the answer ends, because nobody outside knows which; it refuses what does not fit with its own need.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kimiq::limits::{Ask, Decision, Ending, Id, Limiter, Moment, Options};
use kimiq::usage::Dimensions;
use kimiq::usage::Observation;
use kimiq::usage::Tokens;

const LIMITS: [u64; 3] = [3_600_000, 900_000, 36_000];
const MINUTE: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { client: usize },
    Stream { id: Id, tokens: u64 },
    End { id: Id },
}

#[derive(Clone, Copy, Debug)]
struct Load {
    clients: usize,
    turns: u64,
    prompt: u64,
    uncached: u64,
    output: u64,
    /// Milliseconds between an answer and the next question.
    pause: u64,
    charged_at_end: bool,
}

#[derive(Debug, Default)]
struct Outcome {
    served: u64,
    refused: u64,
    throttled: u64,
    /// Milliseconds until the last answer.
    took: u64,
}

struct Upstream {
    spent: [Vec<(u64, u64)>; 3],
}

impl Upstream {
    fn used(&self, d: usize, now: u64) -> u64 {
        let live = self.spent[d]
            .iter()
            .rev()
            .take_while(|(at, _)| at + MINUTE > now);
        live.map(|(_, amount)| amount).sum()
    }
}

fn run(load: Load) -> Outcome {
    let mut limiter = Limiter::new(Options::default(), moment(0));
    let pool: Arc<str> = "pool".into();
    let headers = Observation {
        limits: Dimensions::from_array(LIMITS.map(Some)),
        ..Observation::default()
    };
    let mut upstream = Upstream {
        spent: Default::default(),
    };
    let mut agenda: BinaryHeap<Reverse<(u64, Event)>> = (0..load.clients)
        .map(|client| Reverse((0, Event::Arrive { client })))
        .collect();
    let mut owner: HashMap<Id, usize> = HashMap::new();
    let mut turns = vec![0; load.clients];
    let mut outcome = Outcome::default();
    loop {
        let next = agenda.peek().map(|Reverse((at, _))| *at);
        // The clock has milliseconds here: the timer fires at the first one that is not too early.
        let latest = next.unwrap_or(u64::MAX);
        let wake = limiter
            .next_wake(moment(outcome.took))
            .map(|at| u64::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap())
            .filter(|&at| at < latest);
        let now = match (wake, next) {
            (Some(wake), _) => wake,
            (None, Some(next)) => next,
            (None, None) => return outcome,
        };
        let clock = moment(now);
        if wake.is_some() {
            limiter.tick(clock);
        } else if let Some(Reverse((_, event))) = agenda.pop() {
            match event {
                Event::Arrive { client } => {
                    let id = limiter.arrive(ask(load, &pool), clock);
                    owner.insert(id, client);
                }
                Event::Stream { id, tokens } => {
                    limiter.observe(&pool, &headers, clock);
                    limiter.streamed(id, tokens, clock);
                    if !load.charged_at_end {
                        upstream.spent[2].push((now, tokens));
                    }
                }
                Event::End { id } => {
                    let tokens = Tokens {
                        prompt: load.prompt,
                        cached: load.prompt - load.uncached,
                        generated: load.output,
                        reasoning: 0,
                    };
                    limiter.end(id, Ending::Settled(tokens), clock);
                    if load.charged_at_end {
                        upstream.spent[1].push((now, load.uncached));
                        upstream.spent[2].push((now, load.output));
                    }
                    outcome.served += 1;
                    let client = owner[&id];
                    turns[client] += 1;
                    if turns[client] < load.turns {
                        agenda.push(Reverse((now + load.pause, Event::Arrive { client })));
                    }
                }
            }
        }
        outcome.took = now;
        for decision in limiter.decisions() {
            match decision {
                Decision::Admit(id) => {
                    limiter.sent(id, clock);
                    let need = [load.prompt, load.uncached, load.output];
                    let fits = (0..3).all(|d| upstream.used(d, now) + need[d] <= LIMITS[d]);
                    outcome.throttled += u64::from(!fits);
                    upstream.spent[0].push((now, load.prompt));
                    if !load.charged_at_end {
                        upstream.spent[1].push((now, load.uncached));
                    }
                    // 50 tokens a second after the first token, some answers slower than others.
                    let first = now + 350 + load.uncached / 15;
                    let pace = 20 + id % 7 * 5;
                    let pieces = 20;
                    for piece in 1..=pieces {
                        let tokens = load.output / pieces;
                        let at = first + tokens * piece * pace;
                        agenda.push(Reverse((at, Event::Stream { id, tokens })));
                    }
                    let end = first + load.output * pace + 1;
                    agenda.push(Reverse((end, Event::End { id })));
                }
                Decision::Refuse(..) => outcome.refused += 1,
                Decision::WarnDaily { .. } => {}
            }
        }
    }
}

/// Estimates a little above the truth, as the estimator's are.
fn ask(load: Load, pool: &Arc<str>) -> Ask {
    Ask {
        pool: Arc::clone(pool),
        terminal: "t".into(),
        prompt: load.prompt * 101 / 100,
        uncached: load.uncached * 101 / 100,
        max_tokens: Some(128_000),
        budgeted: true,
        patience: Duration::from_mins(10),
        ..Ask::default()
    }
}

fn moment(millis: u64) -> Moment {
    let wall: DateTime<Utc> = "2026-11-20T00:00:00Z".parse().unwrap();
    let at = Duration::from_millis(millis);
    Moment {
        at,
        wall: wall + TimeDelta::from_std(at).unwrap(),
    }
}

/// `share`: percent of the tightest budget that is used, over the whole run.
fn check(name: &str, load: Load, d: usize, share: u64) {
    for charged_at_end in [false, true] {
        let outcome = run(Load {
            charged_at_end,
            ..load
        });
        let name = format!("{name}, charged at the end: {charged_at_end}: {outcome:?}");
        assert_eq!(outcome.throttled, 0, "{name}");
        assert_eq!(outcome.refused, 0, "{name}");
        let each = [load.prompt, load.uncached, load.output][d];
        let used = outcome.served * each * MINUTE * 100 / outcome.took / LIMITS[d];
        assert!(used >= share, "{used} % of {share}: {name}");
    }
}

const LOAD: Load = Load {
    clients: 8,
    turns: 60,
    prompt: 60_000,
    uncached: 3_000,
    output: 260,
    pause: 4_000,
    charged_at_end: false,
};

#[test]
fn total_prompts_bind() {
    let load = Load {
        clients: 16,
        prompt: 120_000,
        ..LOAD
    };
    check("total prompts", load, 0, 90);
}

#[test]
fn uncached_prompts_bind() {
    let load = Load {
        clients: 16,
        uncached: 30_000,
        ..LOAD
    };
    check("uncached prompts", load, 1, 80);
}

#[test]
fn outputs_bind() {
    let load = Load {
        clients: 32,
        prompt: 20_000,
        uncached: 2_000,
        output: 600,
        ..LOAD
    };
    check("outputs", load, 2, 75);
}

#[test]
fn twenty_clients_open_at_once_with_cold_prompts() {
    let load = Load {
        clients: 20,
        turns: 1,
        uncached: 60_000,
        ..LOAD
    };
    check("cold start", load, 1, 90);
}
