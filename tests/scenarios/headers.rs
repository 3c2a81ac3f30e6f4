//! Scenarios of what headers say: a stale gateway, a change of unit, steps up, and a limit that was reset.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kimiq::limits::{Ask, Gate, Options as Limits, Snapshot};
use kimiq::simulator::{HeaderUnit, Options as Upstream};
use kimiq::usage::Dimensions;

use super::stage::{Crowd, START, Stage, few};

/// What an account had in August 2026 (live headers).
const GROWN: Dimensions<u64> = Dimensions {
    prompt: 11_250_000,
    uncached: 5_400_000,
    generated: 216_000,
};

/// Scenario 3: one gateway of eight still holds the start limit of 36,000 generated tokens, the others 216,000. Passes when
/// less than a tenth of the throughput is lost and the limit does not collapse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stale_gateway() {
    let run = async |stale_gateway| {
        let upstream = Upstream {
            grown: Some(GROWN),
            adaptive: false,
            stale_gateway,
            decode_pace: 150.0,
            event_tokens: 250,
            ..Upstream::default()
        };
        let stage = Stage::open(20, upstream, Limits::default()).await;
        // They ask for twice the budget, so that nothing but the budget decides how long they take.
        let crowd = Crowd {
            terminals: 64,
            turns: 6,
            prompts: (3_000, 6_000),
            output: 2_000,
            think: 1,
            grows: false,
        };
        let failures = crowd.play(&stage).await;
        let truth = stage.truth().await;
        let pool = stage.pool();
        println!(
            "3: stale {stale_gateway}: {} answers in {:.2} min, {failures} failures, {} 429, ratio {}",
            truth.answers(0.0, f64::MAX),
            truth.end(),
            truth.refused(429, 0.0),
            pool.ratio_ppm,
        );
        assert_eq!(failures, 0);
        assert_eq!(pool.limits.generated, GROWN.generated);
        (truth.end(), stage.lateness())
    };
    let mut lost = f64::MAX;
    // Both meet the same machine at the same time; what it does otherwise can still hit one of them more than the other.
    for _ in 0..3 {
        let ((stale, one), (clean, other)) = tokio::join!(run(true), run(false));
        lost = lost.min(1.0 - clean / stale);
        if lost < 0.1 || one.max(other) > Duration::from_millis(100) {
            return;
        }
    }
    panic!("{:.0} % of the throughput are lost", lost * 100.0);
}

/// Scenario 4: headers in tokens per second, then per minute from the middle of the run, and the other way round. Passes
/// without a stall and without an overrun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unit_of_the_headers_changes() {
    let run = async |header_unit| {
        let upstream = Upstream {
            header_unit,
            unit_switch: Some(Duration::from_mins(2)),
            adaptive: false,
            decode_pace: 100.0,
            ..Upstream::default()
        };
        let stage = Stage::open(20, upstream, Limits::default()).await;
        let crowd = Crowd {
            terminals: 20,
            turns: 13,
            prompts: (6_000, 12_000),
            output: 600,
            think: 1,
            grows: false,
        };
        let failures = crowd.play(&stage).await;
        let truth = stage.truth().await;
        let minute = |number: f64| truth.answers(number, number + 1.0);
        let (before, after, next) = (minute(1.0), minute(2.0), minute(3.0));
        let refused = truth.refused(429, 0.0);
        let limits = stage.pool().limits;
        println!(
            "4: {header_unit} first: {} answers, {before} in the minute before, {after} and {next} after, {refused} 429",
            truth.answers(0.0, f64::MAX),
        );
        // An overrun: who takes tokens per minute for tokens per second sends all that is asked for.
        assert_eq!(failures, 0);
        assert!(few(refused, truth.answers(0.0, f64::MAX)), "{refused}");
        // A stall: who takes tokens per second for tokens per minute sends one request a minute.
        assert!(
            after.min(next) * 3 > before || !stage.is_calm(),
            "{before}, {after}, {next}"
        );
        assert_eq!(
            (limits.prompt, limits.uncached),
            (START.prompt, START.uncached)
        );
        assert_eq!(limits.generated, START.generated);
    };
    tokio::join!(run(HeaderUnit::Second), run(HeaderUnit::Minute));
}

/// Scenario 7: the limit rises by a quarter again and again, up to its ceiling; the 15 minutes between two rises are two here.
/// Passes when kimiq sees and uses each step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_up_to_the_ceiling() {
    const STEPS: [u64; 6] = [36_000, 45_000, 56_250, 70_313, 87_892, 108_000];
    let upstream = Upstream {
        ceiling: Dimensions {
            generated: 108_000,
            ..Upstream::default().ceiling
        },
        rise_every: Duration::from_mins(2),
        decode_pace: 100.0,
        event_tokens: 250,
        ..Upstream::default()
    };
    let stage = Stage::open(60, upstream, Limits::default()).await;
    let crowd = Crowd {
        terminals: 64,
        turns: 10,
        prompts: (2_000, 4_000),
        output: 2_000,
        think: 2,
        grows: false,
    };
    let failures = crowd.play(&stage).await;
    let truth = stage.truth().await;
    let limit = stage.pool().limits.generated;
    let refused = truth.refused(429, 0.0);
    let mut steps: Vec<u64> = truth.records.iter().map(|it| it.limits.generated).collect();
    steps.sort_unstable();
    steps.dedup();
    let reached = truth
        .records
        .iter()
        .filter(|it| it.limits.generated == 108_000);
    let from = reached
        .map(|it| truth.minute(it.arrival))
        .fold(f64::MAX, f64::min);
    let minutes = (0..5).map(|minute| from + f64::from(minute));
    let most = minutes
        .map(|at| truth.tokens(at, at + 1.0).generated)
        .max()
        .unwrap();
    println!(
        "7: {} answers in {:.2} min, {failures} failures, {refused} 429, at the ceiling from {from:.2}, then {most} in a minute",
        truth.answers(0.0, f64::MAX),
        truth.end(),
    );
    assert_eq!(failures, 0);
    // The upstream takes a step only when more than half of the one before was used.
    assert_eq!(steps, STEPS);
    assert_eq!(limit, 108_000);
    // Margin and guard leave 84 %.
    let judged = stage.is_calm() && truth.end() > from + 1.5;
    assert!(most > 108_000 * 7 / 10 || !judged, "{most}");
}

static HOURS: AtomicI64 = AtomicI64::new(0);

fn later() -> DateTime<Utc> {
    kimiq::clock::wall() + TimeDelta::hours(HOURS.load(Ordering::Relaxed))
}

/// Scenario 8: after 73 idle hours the upstream has forgotten the limits that use had raised. Passes when a burst then starts
/// at the start limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_idle_days() {
    let upstream = Upstream {
        grown: Some(GROWN),
        decode_pace: 100.0,
        ..Upstream::default()
    };
    let stage = Stage::open_at(20, upstream, Limits::default(), later).await;
    let crowd = Crowd {
        terminals: 24,
        turns: 3,
        prompts: (3_000, 6_000),
        output: 1_000,
        think: 2,
        grows: false,
    };
    crowd.play(&stage).await;
    let before = stage.truth().await;
    let (refused, answers) = (before.refused(429, 0.0), before.answers(0.0, f64::MAX));
    assert!(few(refused, answers), "{refused} of {answers}");
    assert!(stage.pool().limits.generated >= GROWN.generated);
    let saved = stage.house.proxy.gate.saved();

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
    let refused = after.refused(429, before.end());
    println!(
        "8: {} answers at {}, {} more from {start} on, {failures} failures, {refused} 429",
        before.answers(0.0, f64::MAX),
        GROWN.generated,
        after.answers(before.end(), f64::MAX),
    );
    assert_eq!((start, failures), (START.generated, 0));
    assert!(
        few(refused, after.answers(before.end(), f64::MAX)),
        "{refused}"
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
}
