//! What the limiter itself costs: time per admission with 10,000 requests queued by 1,000 terminals, and a soak of a
//! million events that must leave nothing behind.
//!
//! `cargo bench --bench limiter`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints, and fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kimiq::limits::{Ask, Decision, Ending, Id, Limiter, Moment, Options};
use kimiq::usage::{Dimensions, Tokens};
use tokio::time::Instant;

const QUEUED: u64 = 10_000;
const TERMINALS: u64 = 1_000;

fn moment(micros: u64) -> Moment {
    let at = Duration::from_micros(micros);
    Moment {
        at,
        wall: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::from_std(at).unwrap(),
    }
}

fn options(limits: [u64; 3]) -> Options {
    Options {
        requests_per_second: 1_000_000_000,
        capacity: 1_000_000,
        start: Dimensions::from_array(limits),
        daily_cap: u64::MAX / 4,
        ..Options::default()
    }
}

fn ask(names: &[Arc<str>], pool: &Arc<str>, n: u64) -> Ask {
    Ask {
        pool: Arc::clone(pool),
        terminal: Arc::clone(&names[usize::try_from(n % TERMINALS).unwrap()]),
        prompt: 1000 + n % 777,
        uncached: 100 + n % 77,
        max_tokens: Some(1),
        patience: Duration::MAX,
        ..Ask::default()
    }
}

fn names() -> Vec<Arc<str>> {
    (0..TERMINALS)
        .map(|n| format!("terminal {n}").into())
        .collect()
}

/// Nanoseconds of one call of `work`, of the fastest of five rounds.
fn fastest(rounds: u64, mut work: impl FnMut() -> Duration) -> u128 {
    let all = (0..5).map(|_| work());
    all.min().unwrap().as_nanos() / u128::from(rounds)
}

/// A queue of 10,000 waits out a pause, and then all of it is admitted, in order and at once.
fn admissions() -> u128 {
    let (names, pool) = (names(), Arc::from("pool"));
    fastest(QUEUED, || {
        let mut limiter = Limiter::new(options([1 << 40; 3]), moment(0));
        limiter.throttled(&pool, None, Some(Duration::from_secs(30)), 0, moment(0));
        for n in 0..QUEUED {
            limiter.arrive(ask(&names, &pool, n), moment(n));
        }
        assert!(limiter.decisions().is_empty());
        let begun = Instant::now();
        limiter.tick(moment(40_000_000));
        let took = begun.elapsed();
        assert_eq!(limiter.decisions().len() as u64, QUEUED);
        took
    })
}

/// The whole life of a request that nothing holds up: arrival, admission, last byte sent, settled. Four a second in the
/// minute before it are still counted, and outputs are known.
fn lives() -> u128 {
    const ROUNDS: u64 = 20_000;
    let (names, pool): (_, Arc<str>) = (names(), Arc::from("pool"));
    fastest(ROUNDS, || {
        let mut limiter = Limiter::new(options([3_600_000, 900_000, 360_000]), moment(0));
        let mut live = |n: u64| {
            let now = moment(n * 250_000);
            let one = Ask {
                max_tokens: Some(8000),
                ..ask(&names, &pool, n % 16)
            };
            let id = limiter.arrive(one, now);
            assert_eq!(limiter.decisions(), [Decision::Admit(id)]);
            limiter.sent(id, now);
            let tokens = Tokens {
                prompt: 1000,
                cached: 900,
                generated: 100 + n % 300,
                reasoning: 0,
            };
            limiter.end(id, Ending::Settled(tokens), now);
        };
        (0..1000).for_each(&mut live);
        let begun = Instant::now();
        (1000..1000 + ROUNDS).for_each(&mut live);
        begun.elapsed()
    })
}

/// A saturated queue of 10,000: one answer ends, another request takes its place, and a new one joins the queue.
fn turns() -> u128 {
    const ROUNDS: u64 = 2_000;
    let (names, pool): (_, Arc<str>) = (names(), Arc::from("pool"));
    fastest(ROUNDS, || {
        let mut limiter = Limiter::new(
            Options {
                charged_at_end: Dimensions::default(),
                pace: false,
                ..options([1_000_000, 100_000, 1 << 30])
            },
            moment(0),
        );
        let mut flying: Vec<Id> = Vec::new();
        let mut next = 0;
        let admit = |limiter: &mut Limiter, flying: &mut Vec<Id>| {
            for decision in limiter.decisions() {
                if let Decision::Admit(id) = decision {
                    flying.push(id);
                }
            }
        };
        while next < QUEUED + 700 {
            limiter.arrive(ask(&names, &pool, next), moment(next));
            next += 1;
        }
        admit(&mut limiter, &mut flying);
        let mut now = next;
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            now += 10;
            let id = flying.remove(0);
            limiter.end(id, Ending::Refused, moment(now));
            limiter.arrive(ask(&names, &pool, next), moment(now));
            next += 1;
            admit(&mut limiter, &mut flying);
        }
        begun.elapsed()
    })
}

fn soak() -> (u64, usize, f64) {
    const EVENTS: u64 = 1_000_000;
    let (names, pool): (_, Arc<str>) = (names(), Arc::from("pool"));
    let mut limiter = Limiter::new(options([3_600_000, 900_000, 360_000]), moment(0));
    let mut rng = fastrand::Rng::with_seed(5);
    let mut flying: Vec<Id> = Vec::new();
    let (mut now, mut next, mut served, mut waiting, mut largest) = (0, 0, 0, 0_u64, 0);
    let begun = Instant::now();
    for event in 0..EVENTS {
        now += rng.u64(..20_000);
        match rng.u32(..8) {
            0..2 if waiting < 200 => {
                let mut one = ask(&names[..], &pool, rng.u64(..64));
                one.max_tokens = Some(8000);
                limiter.arrive(one, moment(now));
                next += 1;
                waiting += 1;
            }
            2..6 if !flying.is_empty() => {
                let id = flying[rng.usize(..flying.len())];
                limiter.streamed(id, rng.u64(..40), moment(now));
            }
            6 if !flying.is_empty() => {
                let id = flying.swap_remove(rng.usize(..flying.len()));
                let tokens = Tokens {
                    prompt: 1000,
                    cached: 900,
                    generated: rng.u64(..900),
                    reasoning: 0,
                };
                limiter.end(id, Ending::Settled(tokens), moment(now));
                served += 1;
            }
            _ => limiter.tick(moment(now)),
        }
        for decision in limiter.decisions() {
            if let Decision::Admit(id) = decision {
                limiter.sent(id, moment(now));
                flying.push(id);
                waiting -= 1;
            }
        }
        if event % 100_000 == 99_999 {
            largest = largest.max(
                serde_json::to_vec(&limiter.saved(moment(now)))
                    .unwrap()
                    .len(),
            );
        }
    }
    let took = begun.elapsed().as_secs_f64();
    for id in 1..=next {
        limiter.cancel(id, moment(now));
    }
    now += 61_000_000;
    limiter.tick(moment(now));
    let view = limiter.snapshot(moment(now));
    assert!(view.queue.is_empty() && limiter.next_wake(moment(now)).is_none());
    assert_eq!(view.pools[0].used, Dimensions::default());
    assert_eq!(view.pools[0].held, Dimensions::default());
    (served, largest, took * 1e9 / 1_000_000.0)
}

fn main() {
    println!("| core of the limiter | |");
    println!("|---|---|");
    println!(
        "| a request without a queue: arrival, admission, sent, settled | {} ns |",
        lives()
    );
    println!(
        "| admission, 10,000 queued by 1,000 terminals | {} ns |",
        admissions()
    );
    println!(
        "| end + arrival + admission in a saturated queue of 10,000 | {} ns |",
        turns()
    );
    let (served, largest, each) = soak();
    println!(
        "| soak: 1,000,000 events, {served} answers | {each:.0} ns an event, at most {} KiB of state, nothing left |",
        largest / 1024
    );
}
