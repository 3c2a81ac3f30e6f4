//! Scenarios of trouble: another machine on the account, load that is shed, and an affinity that somebody stripped.

use std::time::Duration;

use kimiq::simulator::Options as Upstream;

use super::stage::{Crowd, START, fast, share, think};
use crate::support::time::in_own_time;

/// Scenario 5: a second machine spends 40 % of every limit. Passes when kimiq yields, with few 429.
#[test]
fn a_second_machine() {
    let upstream = Upstream {
        others: 0.4,
        ..fast()
    };
    let crowd = Crowd {
        terminals: 8,
        turns: 16,
        prompts: (40_000, 90_000),
        output: 260,
        think: 1,
        grows: true,
    };
    let (played, pool) = in_own_time(async {
        let played = crowd.before(upstream).await;
        let pool = played.stage.pool();
        (played, pool)
    });
    let spent = share(played.truth.all().prompt, START.prompt);
    let others = share(pool.foreign.prompt, START.prompt);
    println!("5: {played}, {spent:.2} min of budget, others seem to use {others:.2}");
    assert_eq!(played.failures, 0);
    // Kimi Code alone gets about as many 429 as answers here.
    assert!(played.throttled * 20 <= played.truth.answers(), "{played}");
    assert!((0.3..0.55).contains(&others), "{others}");
    // The other machine leaves six tenths of each minute, and one window's worth at the start. Not much less is used.
    let left = 0.6 * (played.end + 1.0);
    assert!(
        (left * 0.85..left * 1.05).contains(&spent),
        "{spent} of {left}"
    );
}

/// Scenario 6: for a minute every second request is shed with 503. Passes when retries are bounded and no budget leaks.
#[test]
fn a_wave_of_503() {
    let upstream = Upstream {
        shed: 0.5,
        adaptive: false,
        shed_span: Some((Duration::from_secs(30), Duration::from_secs(90))),
        ..Upstream::default()
    };
    let crowd = Crowd {
        terminals: 16,
        turns: 28,
        prompts: (2_000, 4_000),
        output: 80,
        think: 1,
        grows: false,
    };
    let (played, pool, later) = in_own_time(async {
        let played = crowd.before(upstream).await;
        let pool = played.stage.pool();
        think(61).await;
        let later = played.stage.pool();
        (played, pool, later)
    });
    let (answers, shed) = (played.truth.answers(), played.truth.refused(503));
    let retries = shed.saturating_sub(played.failures);
    println!(
        "6: {played}, {shed} 503, {retries} tried again inside, ratio {}",
        pool.ratio_ppm,
    );
    assert_eq!(played.throttled, 0);
    // Half of what a minute brings.
    assert!(shed >= 60, "{shed}");
    // Ten at once, and one for each ten admissions.
    let admissions = answers + shed;
    assert!(retries <= 10 + admissions / 10, "{retries} of {admissions}");
    assert!(retries > 0);
    // Shed load says nothing about budgets.
    assert!(pool.ratio_ppm >= 950_000);
    assert_eq!((pool.cautious_ms, pool.paused_ms), (0, 0));
    assert_eq!(pool.limits, START);
    // When nobody has asked for longer than a window, nothing is left in it.
    assert_eq!(
        (later.used, later.held, later.in_flight),
        Default::default()
    );
}

/// Scenario 9: clients that name no session, with the affinity that kimiq adds and without. Shows the share of prompt
/// tokens that the cache held, and what was spent uncached.
#[test]
fn affinity_stripped_and_injected() {
    let run = async |stripped: bool| {
        let crowd = Crowd {
            terminals: 6,
            turns: 12,
            prompts: (20_000, 30_000),
            output: 260,
            think: 4,
            grows: true,
        };
        let played = crowd
            .before_as(Upstream::default(), |number, session| {
                session.keyed = false;
                if stripped {
                    // A header of another client's, which this upstream does not know, is left alone.
                    session
                        .headers
                        .push(("x-claude-code-session-id", number.to_string()));
                }
            })
            .await;
        let spent = played.truth.all();
        let hits = 100 - spent.uncached * 100 / spent.prompt;
        let name = if stripped { "stripped" } else { "injected" };
        println!(
            "9: {name}: {hits} % cached, {} uncached tokens, {played}",
            spent.uncached
        );
        (hits, spent.uncached)
    };
    let (stripped, injected) = in_own_time(async { tokio::join!(run(true), run(false)) });
    // Twelve turns of which the first is new, and 700 tokens in each that are.
    assert!(injected.0 >= 85, "{injected:?}");
    // Four replicas, and three of four times not the one that knows the last turn.
    assert!(stripped.0 <= 75, "{stripped:?}");
    assert!(stripped.1 > injected.1 * 2, "{stripped:?} {injected:?}");
}
