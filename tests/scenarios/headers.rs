//! Scenarios of what headers say: a stale gateway, a change of unit, steps up, and a limit that was reset.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kimiq::limits::{Ask, Gate, Options as Limits, Snapshot};
use kimiq::simulator::{HeaderUnit, Options as Upstream};
use kimiq::usage::Dimensions;

use super::stage::{Crowd, START, Stage, fast, minute, think};
use crate::support::time::in_own_time;

/// What an account had in August 2026 (live headers).
const GROWN: Dimensions<u64> = Dimensions {
    prompt: 11_250_000,
    uncached: 5_400_000,
    generated: 216_000,
};

/// Scenario 3: one gateway of eight still holds the start limit of 36,000 generated tokens, the others 216,000. Passes when
/// less than a tenth of the throughput is lost and the limit does not collapse.
#[test]
fn one_stale_gateway() {
    // They ask for twice the budget.
    let crowd = Crowd {
        terminals: 64,
        turns: 6,
        prompts: (3_000, 6_000),
        output: 2_000,
        think: 1,
        grows: false,
    };
    let run = async |stale_gateway| {
        let upstream = Upstream {
            grown: Some(GROWN),
            adaptive: false,
            stale_gateway,
            decode_pace: 150.0,
            event_tokens: 250,
            ..Upstream::default()
        };
        let played = crowd.before(upstream).await;
        let pool = played.stage.pool();
        println!(
            "3: stale {stale_gateway}: {played}, ratio {}",
            pool.ratio_ppm
        );
        assert_eq!(played.failures, 0);
        assert_eq!(pool.limits.generated, GROWN.generated);
        played
    };
    let (stale, clean) = in_own_time(async { tokio::join!(run(true), run(false)) });
    assert_eq!(clean.throttled, 0);
    assert!(clean.end > stale.end * 0.9, "{stale}; {clean}");
}

/// Scenario 4: headers in tokens per second, then per minute from the middle of the run, and the other way round. Passes
/// without a stall and without an overrun.
#[test]
fn the_unit_of_the_headers_changes() {
    let crowd = Crowd {
        terminals: 20,
        turns: 18,
        prompts: (6_000, 12_000),
        output: 600,
        think: 1,
        grows: false,
    };
    let run = async |header_unit| {
        let upstream = Upstream {
            header_unit,
            unit_switch: Some(Duration::from_mins(2)),
            adaptive: false,
            ..fast()
        };
        let played = crowd.before(upstream).await;
        let minute = |number: f64| played.truth.answers_in(number, number + 1.0);
        let (before, after, next) = (minute(1.0), minute(2.0), minute(3.0));
        let limits = played.stage.pool().limits;
        println!(
            "4: {header_unit} first: {played}, {before} in the minute before, {after} and {next} after"
        );
        // An overrun: who takes tokens per minute for tokens per second sends all that is asked for.
        assert_eq!((played.failures, played.throttled), (0, 0));
        // A stall: who takes tokens per second for tokens per minute sends one request a minute.
        assert!(
            after.min(next) * 3 > before * 2,
            "{before}, {after}, {next}"
        );
        assert_eq!(
            (limits.prompt, limits.uncached),
            (START.prompt, START.uncached)
        );
        assert_eq!(limits.generated, START.generated);
    };
    in_own_time(async { tokio::join!(run(HeaderUnit::Second), run(HeaderUnit::Minute)) });
}

/// Scenario 7: the limit rises by a quarter again and again, up to its ceiling; the 15 minutes between two rises are two here.
/// Passes when kimiq sees and uses each step.
#[test]
fn steps_up_to_the_ceiling() {
    const STEPS: [u64; 6] = [36_000, 45_000, 56_250, 70_313, 87_892, 108_000];
    let upstream = Upstream {
        ceiling: Dimensions {
            generated: 108_000,
            ..Upstream::default().ceiling
        },
        rise_every: Duration::from_mins(2),
        event_tokens: 250,
        ..fast()
    };
    let crowd = Crowd {
        terminals: 64,
        turns: 26,
        prompts: (2_000, 4_000),
        output: 600,
        think: 2,
        grows: false,
    };
    let (played, limit) = in_own_time(async {
        let played = crowd.before(upstream).await;
        let limit = played.stage.pool().limits.generated;
        (played, limit)
    });
    let records = &played.truth.records;
    let mut steps: Vec<u64> = records.iter().map(|it| it.limits.generated).collect();
    steps.sort_unstable();
    steps.dedup();
    // When it reached each, and what was spent a minute until the next.
    let since = |limit: u64| {
        let all = records.iter().filter(|it| it.limits.generated >= limit);
        all.map(|it| minute(it.arrival)).fold(f64::MAX, f64::min)
    };
    let used: Vec<(u64, f64, u64)> = STEPS
        .into_iter()
        .map(|limit| {
            let from = since(limit);
            let spent = played.truth.tokens(from, from + 2.0).generated / 2;
            (limit, from, spent)
        })
        .collect();
    println!("7: {played}, limits, since when, and what was spent a minute then: {used:.2?}");
    assert_eq!((played.failures, played.throttled), (0, 0));
    // The upstream takes a step only when more than half of the one before was used.
    assert_eq!(steps, STEPS);
    assert_eq!(limit, 108_000);
    for (limit, _, spent) in used {
        assert!(spent > limit * 7 / 10, "{spent} of {limit}");
    }
}

static HOURS: AtomicI64 = AtomicI64::new(0);

fn later() -> DateTime<Utc> {
    kimiq::clock::wall() + TimeDelta::hours(HOURS.load(Ordering::Relaxed))
}

/// Scenario 8: after 73 idle hours the upstream has forgotten the limits that use had raised. Passes when a burst then starts
/// at the start limits.
#[test]
fn three_idle_days() {
    in_own_time(async {
        let upstream = Upstream {
            grown: Some(GROWN),
            ..fast()
        };
        let stage = Stage::with(upstream, Limits::default(), later).await;
        let crowd = Crowd {
            terminals: 24,
            turns: 3,
            prompts: (3_000, 6_000),
            output: 1_000,
            think: 2,
            grows: false,
        };
        let failures = crowd.play(&stage).await;
        let before = stage.truth().await;
        assert_eq!((failures, before.refused(429)), (0, 0));
        assert!(stage.pool().limits.generated >= GROWN.generated);
        let saved = stage.house.proxy.gate.saved();

        // Of the 73 hours kimiq's windows need no more than the first minute.
        think(61).await;
        stage.simulator.skip(Duration::from_hours(73));
        HOURS.fetch_add(73, Ordering::Relaxed);
        let play = crowd.play(&stage);
        let start = async {
            let asked = |seen: &Snapshot| seen.pools[0].in_flight > 0;
            stage.house.until("asked", asked).await;
            stage.pool().limits.generated
        };
        let (failures, start) = tokio::join!(play, start);
        let after = stage.truth().await;
        println!(
            "8: {} answers at {}, {} more from {start} on, {failures} failures, {} 429",
            before.answers(),
            GROWN.generated,
            after.answers() - before.answers(),
            after.refused(429),
        );
        assert_eq!(
            (start, failures, after.refused(429)),
            (START.generated, 0, 0)
        );

        // A process that was started after the three days and finds what the last one had learned.
        let gate = Gate::new(Limits::default(), later);
        gate.restore(saved);
        let ask = Ask {
            pool: stage.pool().name.as_str().into(),
            ..Ask::default()
        };
        let _permit = gate.admit(ask).await.unwrap();
        assert_eq!(gate.snapshot().pools[0].limits.generated, START.generated);
    });
}
