//! Scenarios of load: openings at once, a climb, and answers that reserve too much.

use std::sync::Arc;
use std::time::Duration;

use kimiq::limits::{HeaderUnit, Options as Limits};
use kimiq::simulator::Options as Upstream;
use kimiq::usage::Dimensions;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::stage::{Crowd, START, Session, Stage, fast, share, think};
use crate::support::time::in_own_time;

/// Scenario 1: eight terminals open at once with contexts of 60 to 120 thousand tokens, at the start limits. Passes with
/// zero 429 after the first minute, and a total time near the bound of the budget.
#[test]
fn eight_openings_at_once() {
    // They ask for three times the budget.
    let crowd = Crowd {
        terminals: 8,
        turns: 20,
        prompts: (60_000, 120_000),
        output: 260,
        think: 1,
        grows: true,
    };
    let played = in_own_time(crowd.before(fast()));
    let minutes = share(played.truth.all().prompt, START.prompt);
    println!("1: {played}, {minutes:.2} min of budget");
    assert_eq!((played.failures, played.throttled), (0, 0));
    // The budget brings a minute's worth at once, and from then on as much in every minute.
    let bound = played.end + 1.0;
    assert!(minutes > bound * 0.8, "{minutes:.2} of {bound:.2}");
}

/// Scenario 2: from 25 to 350 requests a minute within five minutes, at an upstream that also bounds each 10 s to a quarter
/// of the minute's limit. The requests come in clumps of 15 s, and at the end they are a little more than the minute
/// takes. Passes without a burst of 429.
#[test]
fn a_climb_under_a_window_of_ten_seconds() {
    in_own_time(async {
        // A tenth of what is usual, so that prompts are short.
        let upstream = Upstream {
            start: Dimensions {
                prompt: 130_000,
                ..START
            },
            burst_window: Some(Duration::from_secs(10)),
            adaptive: false,
            ..Upstream::default()
        };
        let limits = Limits {
            header_unit: HeaderUnit::Minute,
            ..Limits::default()
        };
        let stage = Stage::with(upstream, limits, kimiq::clock::wall).await;
        let sessions = (0..80).map(|number| {
            let (name, id) = (format!("run:{}", number % 10), format!("session {number}"));
            let mut session = Session::new(&stage, &name, &id, 500);
            session.grows = false;
            session
        });
        let idle = Arc::new(Mutex::new(sessions.collect::<Vec<_>>()));
        let free = Arc::new(Semaphore::new(idle.lock().len()));
        let mut turns = JoinSet::new();
        for clump in 0..20 {
            // A quarter of 25 a minute in the first clump, of 350 in the last.
            for _ in 0..(25 + 325 * clump / 19) / 4 {
                let (free, idle) = (free.clone(), idle.clone());
                turns.spawn(async move {
                    let _one = free.acquire().await.unwrap();
                    let mut session = idle.lock().pop().unwrap();
                    let failures = session.insist(60, 0).await;
                    idle.lock().push(session);
                    failures
                });
            }
            think(15).await;
        }
        let asked = turns.len();
        let failures: usize = turns.join_all().await.into_iter().sum();
        let truth = stage.truth().await;
        let refused = truth.times(429);
        // How many follow within 10 s of each.
        let burst = |at: f64| {
            refused
                .iter()
                .filter(|other| (at..at + 1.0 / 6.0).contains(*other))
                .count()
        };
        let most = refused.iter().map(|at| burst(*at)).max().unwrap_or(0);
        println!(
            "2: {asked} requests in {:.2} min, {failures} failures, {} 429, at most {most} in 10 s",
            truth.end(),
            refused.len(),
        );
        assert_eq!(failures, 0);
        // Whoever sends a clump on as it comes gets dozens. A few are what the window of 10 s is learned from.
        assert!(most <= 4, "{refused:.2?}");
        assert!(refused.len() * 100 <= asked * 2, "{refused:.2?}");
    });
}

/// Scenario 11: every request carries a `max_tokens` of 50,000 or 128,000 where 36,000 generated tokens a minute are
/// allowed. Passes when requests flow in parallel all the same.
#[test]
fn bounds_of_the_output_above_the_limit() {
    let crowd = Crowd {
        terminals: 20,
        turns: 10,
        prompts: (6_000, 12_000),
        output: 600,
        think: 3,
        grows: true,
    };
    let played = in_own_time(crowd.before_as(fast(), |number, session| {
        session.max_tokens = if number % 2 == 0 { 50_000 } else { 128_000 };
    }));
    let most = played.truth.most_at_once();
    let minutes = share(played.truth.all().generated, START.generated);
    println!("11: {played}, at most {most} at once, {minutes:.2} min of budget");
    assert_eq!((played.failures, played.throttled), (0, 0));
    // 36,000 a minute are six streams of 100 tokens a second. Who reserves the bound has one.
    assert!(most >= 6, "{most}");
    let bound = played.end + 1.0;
    assert!(minutes > bound * 0.75, "{minutes:.2} of {bound:.2}");
}
