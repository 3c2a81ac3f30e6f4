//! The asynchronous side of the limiter under a paused clock: who waits, for how long, and who gives what back.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::cell::Cell;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use kimiq::limits::{
    Ask, Budget, Gate, Options, Permit, Ratio, Refusal, RefusalKind, Saved, Snapshot,
};
use kimiq::usage::{Dimensions, Observation, Tokens};
use tokio::time::Instant;

thread_local! {
    /// The wall clock of a test: this time of day at this instant.
    static WALL: Cell<Option<(DateTime<Utc>, Instant)>> = const { Cell::new(None) };
}

fn wall() -> DateTime<Utc> {
    let (base, origin) = WALL.get().unwrap();
    base + TimeDelta::from_std(origin.elapsed()).unwrap()
}

fn set_wall(text: &str) {
    WALL.set(Some((text.parse().unwrap(), Instant::now())));
}

/// A minute of 1000 prompt tokens, 1000 uncached ones and 400 generated ones, without guard.
fn options() -> Options {
    Options {
        guard: Some(Duration::ZERO),
        start: Dimensions {
            prompt: 1000,
            uncached: 1000,
            generated: 400,
        },
        ratio: Ratio::Fixed(1_000_000),
        output_reserve: Some(50),
        ..Options::default()
    }
}

fn open(options: Options) -> Gate {
    if WALL.get().is_none() {
        set_wall("2026-11-20T12:00:00Z");
    }
    let gate = Gate::new(options, wall);
    let timer = gate.clone().drive();
    TIMERS.with_borrow_mut(|timers| timers.spawn(timer));
    gate
}

thread_local! {
    /// Timers of the gates of this test; they end with it.
    static TIMERS: std::cell::RefCell<tokio::task::JoinSet<()>> = std::cell::RefCell::default();
}

fn ask(prompt: u64) -> Ask {
    Ask {
        pool: "pool".into(),
        terminal: "1".into(),
        prompt,
        uncached: 0,
        max_tokens: None,
        budgeted: true,
        patience: Duration::from_mins(5),
        ..Ask::default()
    }
}

fn tokens(prompt: u64, generated: u64) -> Tokens {
    Tokens {
        prompt,
        cached: prompt,
        generated,
        reasoning: 0,
    }
}

fn now<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn queue_refusal(answer: Result<Permit, Refusal>) -> (Budget, u64) {
    let refusal = answer.unwrap_err();
    let budget = match refusal.kind {
        RefusalKind::Queue { wait } => Some(wait.budget),
        _ => None,
    };
    (budget.unwrap(), refusal.retry_after)
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_the_window_has_room() {
    let gate = open(options());
    let start = Instant::now();
    let mut first = gate.admit(ask(700)).await.unwrap();
    first.sent();
    first.settle(tokens(700, 10));
    tokio::time::advance(Duration::from_secs(20)).await;
    let mut second = gate.admit(ask(300)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(20));
    second.sent();
    second.settle(tokens(300, 10));

    let third = gate.admit(ask(600)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_mins(1));
    // 300 of the second and 600 of the third: the rest of the window is free.
    let fourth = gate.admit(ask(101)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(80));
    drop((third, fourth));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_budgets_is_limited_only_by_what_was_set() {
    let gate = open(Options {
        ceilings: Dimensions {
            generated: Some(100),
            ..Dimensions::default()
        },
        ..options()
    });
    let unbudgeted = |prompt| Ask {
        budgeted: false,
        ..ask(prompt)
    };
    let first = gate.admit(unbudgeted(50_000_000)).await.unwrap();
    let second = gate.admit(unbudgeted(50_000_000)).await.unwrap();
    let third = gate
        .admit(Ask {
            patience: Duration::from_secs(1),
            ..unbudgeted(1)
        })
        .await;
    assert!(
        matches!(
            &third,
            Err(Refusal {
                kind: RefusalKind::Queue { wait },
                ..
            }) if wait.budget == Budget::Generated
        ),
        "{third:?}"
    );
    drop((first, second));
    // Nor after a restart is anything told of it that only Fireworks documents.
    let again = open(options());
    again.restore(gate.saved());
    let view = again.snapshot().pools.remove(0);
    assert_eq!((view.usable(), view.ladder), ([None; 3], None));
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_patience_is_refused_at_once() {
    let gate = open(options());
    let mut first = gate.admit(ask(1000)).await.unwrap();
    first.sent();
    let start = Instant::now();
    let mut hasty = ask(1);
    hasty.patience = Duration::from_secs(59);
    let answer = gate.admit(hasty).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    let text = answer.as_ref().unwrap_err().to_string();
    let expected = "kimiq: no room yet; the request waits for 1 prompt tokens, place 1, about 60 s";
    assert_eq!(text, expected);
    assert_eq!(queue_refusal(answer), (Budget::Prompt, 60));
    assert!(gate.snapshot().queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_grows_beyond_the_patience_ends_in_time() {
    let gate = open(options());
    let mut first = gate.admit(ask(1000)).await.unwrap();
    first.sent();
    let start = Instant::now();
    let mut patient = ask(1);
    patient.patience = Duration::from_secs(61);
    let mut waiting = pin!(gate.admit(patient));
    assert!(now(waiting.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(30)).await;
    gate.throttled("pool", None, Some(Duration::from_secs(50)));
    let (budget, retry_after) = queue_refusal(waiting.await);
    assert_eq!(start.elapsed(), Duration::from_secs(61));
    assert_eq!(budget, Budget::Pause);
    assert!((19..=45).contains(&retry_after), "{retry_after}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_leaves_the_queue() {
    let gate = open(options());
    let start = Instant::now();
    let first = gate.admit(ask(900)).await.unwrap();
    {
        let mut big = pin!(gate.admit(ask(500)));
        assert!(now(big.as_mut()).is_pending());
        let mut small = pin!(gate.admit(ask(100)));
        assert!(now(small.as_mut()).is_pending(), "first come, first served");
        let queue = gate.snapshot().queue;
        assert_eq!(
            queue.iter().map(|q| q.wait.place).collect::<Vec<_>>(),
            [1, 2]
        );
    }
    assert!(gate.snapshot().queue.is_empty());
    let small = gate.admit(ask(100)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop((first, small));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gone_in_the_instant_of_its_admission_gives_it_back() {
    let gate = open(options());
    let first = gate.admit(ask(1000)).await.unwrap();
    let mut third = Box::pin(gate.admit(ask(1000)));
    {
        let mut second = Box::pin(gate.admit(ask(1000)));
        assert!(now(second.as_mut()).is_pending());
        assert!(now(third.as_mut()).is_pending());
        drop(first);
        // The second is admitted now, and its permit is on its way.
        let view = gate.snapshot();
        assert_eq!((view.pools[0].in_flight, view.queue.len()), (1, 1));
    }
    assert_eq!(gate.snapshot().pools[0].in_flight, 1, "the third");
    assert!(now(third.as_mut()).is_ready());
    let view = gate.snapshot();
    assert_eq!(view.pools[0].in_flight, 0);
    assert_eq!(view.pools[0].held, Dimensions::default());
    assert_eq!(view.day.held, 0);
}

async fn check(name: &str, end: fn(Permit), prompt: u64, generated: u64, day: u64) {
    let gate = open(options());
    end(gate.admit(ask(300)).await.unwrap());
    let view = gate.snapshot();
    let used = Dimensions {
        prompt,
        uncached: 0,
        generated,
    };
    assert_eq!(view.pools[0].used, used, "{name}");
    assert_eq!(view.pools[0].held, Dimensions::default(), "{name}");
    assert_eq!(view.pools[0].in_flight, 0, "{name}");
    assert_eq!((view.day.used, view.day.held), (day, 0), "{name}");
}

#[tokio::test(start_paused = true)]
async fn each_end_returns_what_it_should() {
    check("dropped unsent", drop, 0, 0, 0).await;
    let sent = |mut permit: Permit| permit.sent();
    check("dropped after it was sent", sent, 300, 0, 300).await;
    let streaming = |mut permit: Permit| {
        permit.sent();
        permit.streamed(7);
        assert_eq!(permit.spent(), tokens(300, 7));
    };
    check("dropped while streaming", streaming, 300, 7, 307).await;
    let failed = |mut permit: Permit| {
        permit.sent();
        permit.streamed(7);
        assert_eq!(permit.failed().1, tokens(300, 7));
    };
    check("failed", failed, 300, 7, 307).await;
    let unsent = |permit: Permit| assert_eq!(permit.failed().1, Tokens::default());
    check("failed unsent", unsent, 0, 0, 0).await;
    // It answers before it has read all of the request.
    let early = |mut permit: Permit| {
        permit.streamed(7);
        assert_eq!(permit.spent(), tokens(300, 7));
    };
    check("dropped while it answers early", early, 300, 7, 307).await;
    let settled = |mut permit: Permit| {
        permit.streamed(7);
        permit.settle(tokens(280, 30));
    };
    check("settled", settled, 280, 30, 310).await;
    let overcounted = |mut permit: Permit| {
        permit.streamed(40);
        permit.settle(tokens(280, 30));
    };
    check("settled below what was counted", overcounted, 280, 30, 310).await;
    let unmetered = |permit: Permit| assert_eq!(permit.unmetered(), tokens(300, 50));
    check("no usage, one piece", unmetered, 300, 50, 350).await;
    let cut = |mut permit: Permit| {
        permit.streamed(7);
        assert_eq!(permit.unmetered(), tokens(300, 7));
    };
    check("no usage, streamed", cut, 300, 7, 307).await;
    let refused = |mut permit: Permit| {
        permit.sent();
        permit.refused();
    };
    check("refused", refused, 0, 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn retries_are_taken_out_of_a_budget() {
    let gate = open(options());
    gate.admit(ask(1)).await.unwrap().refused();
    let granted = (0..100).filter(|_| gate.may_retry("pool")).count();
    assert_eq!(granted, 10);
    assert!(gate.may_retry("another"), "pools do not share it");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_returns_to_the_front() {
    let gate = open(options());
    let first = gate.admit(ask(600)).await.unwrap();
    let mut second = pin!(gate.admit(ask(600)));
    assert!(now(second.as_mut()).is_pending());
    gate.throttled("pool", None, Some(Duration::from_secs(2)));
    let mut again = ask(600);
    again.again = Some(first.refused());
    let start = Instant::now();
    let mut first = pin!(gate.admit(again));
    assert!(now(first.as_mut()).is_pending(), "the pool rests");
    assert!(now(second.as_mut()).is_pending());
    let wait = gate.wait_of("1").unwrap();
    assert_eq!((wait.place, wait.budget), (1, Budget::Pause));
    let first = first.await.unwrap();
    assert!((2000..=3001).contains(&start.elapsed().as_millis()));
    assert!(now(second.as_mut()).is_pending(), "it came later");
    drop(first);
    drop(second.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_blocked_pool_does_not_block_another() {
    let gate = open(options());
    let start = Instant::now();
    let first = gate.admit(ask(1000)).await.unwrap();
    let mut blocked = pin!(gate.admit(ask(1000)));
    assert!(now(blocked.as_mut()).is_pending());
    let mut elsewhere = ask(1000);
    elsewhere.pool = "other".into();
    let other = gate.admit(elsewhere).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop((first, other));
}

#[tokio::test(start_paused = true)]
async fn a_request_above_the_limit_runs_alone() {
    let gate = open(options());
    let small = gate.admit(ask(1)).await.unwrap();
    let mut huge = pin!(gate.admit(ask(5000)));
    assert!(now(huge.as_mut()).is_pending());
    drop(small);
    let mut huge = huge.await.unwrap();
    huge.sent();
    let start = Instant::now();
    huge.settle(tokens(5000, 1));
    let next = gate.admit(ask(1)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_mins(1));
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn a_large_max_tokens_lets_requests_flow_side_by_side() {
    let gate = open(Options {
        output_reserve: None,
        start: Options::default().start,
        ..options()
    });
    let mut permits = Vec::new();
    for _ in 0..12 {
        let mut one = ask(1000);
        one.max_tokens = Some(128_000);
        permits.push(gate.admit(one).await.unwrap());
    }
    let view = gate.snapshot();
    assert_eq!(view.pools[0].in_flight, 12);
    assert_eq!(view.pools[0].held.generated, 12 * 1024);
    for (answer, mut permit) in permits.into_iter().enumerate() {
        tokio::time::advance(Duration::from_secs(1)).await;
        permit.streamed(800);
        assert_eq!(
            gate.snapshot().pools[0].held.generated,
            224 + (11 - answer as u64) * 1024,
            "the hold shrinks while it streams"
        );
        permit.settle(tokens(1000, 800));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_per_second_hold_over_all_pools() {
    let gate = open(Options {
        requests_per_second: 4,
        ..options()
    });
    let start = Instant::now();
    for turn in 0..12 {
        let mut one = ask(1);
        one.pool = format!("pool {turn}").into();
        drop(gate.admit(one).await.unwrap());
    }
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

async fn a_day_ends(start: &str, hours: u64) {
    set_wall(start);
    let gate = open(Options {
        daily_cap: 1000,
        zone: Tz::Europe__Berlin,
        ..options()
    });
    let mut first = gate.admit(ask(500)).await.unwrap();
    first.sent();
    first.settle(tokens(500, 301));
    let view = gate.snapshot().day;
    assert!(view.warned);
    let refusal = gate.admit(ask(150)).await.unwrap_err();
    assert_eq!(refusal.error_type(), "daily_token_limit");
    assert_eq!(refusal.retry_after, hours * 3600);
    let length = Duration::from_secs(hours * 3600);
    tokio::time::advance(length.checked_sub(Duration::from_secs(1)).unwrap()).await;
    assert!(gate.admit(ask(150)).await.is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    let next = gate.admit(ask(150)).await.unwrap();
    let view = gate.snapshot().day;
    assert_eq!((view.used, view.warned), (0, false));
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn the_cap_of_a_day_of_25_hours_holds_to_its_end() {
    a_day_ends("2026-10-24T22:00:00Z", 25).await;
}

#[tokio::test(start_paused = true)]
async fn the_cap_of_a_day_of_23_hours_ends_with_it() {
    a_day_ends("2026-03-28T23:00:00Z", 23).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_over_midnight_is_counted_on_the_new_day() {
    set_wall("2026-11-20T23:59:30Z");
    let gate = open(Options {
        daily_cap: 1200,
        ..options()
    });
    gate.restore_day("2026-11-20".parse().unwrap(), 100);
    let mut first = gate.admit(ask(1000)).await.unwrap();
    first.sent();
    first.settle(tokens(1000, 0));
    // Fits neither the day nor, for the next minute, the window.
    assert!(gate.admit(ask(100)).await.is_err());
    let start = Instant::now();
    let waited = gate.admit(ask(20)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_mins(1));
    let day = gate.snapshot().day;
    assert_eq!(day.date.to_string(), "2026-11-21");
    assert_eq!((day.used, day.held), (0, 70));
    drop(waited);
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_burst() {
    let gate = open(options());
    let start = Instant::now();
    let mut first = gate.admit(ask(600)).await.unwrap();
    first.sent();
    let unsent = gate.admit(ask(400)).await.unwrap();
    tokio::time::advance(Duration::from_secs(25)).await;
    let bytes = serde_json::to_vec(&gate.saved()).unwrap();
    gate.close();
    tokio::time::advance(Duration::from_secs(5)).await;

    let saved: Saved = serde_json::from_slice(&bytes).unwrap();
    let next = open(options());
    next.restore(saved);
    assert_eq!(next.snapshot().pools[0].used.prompt, 1000);
    drop(next.admit(ask(600)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_mins(1));
    drop(next.admit(ask(1000)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_secs(85));
    drop((first, unsent));

    // After longer than a window nothing of it counts.
    tokio::time::advance(Duration::from_mins(10)).await;
    let late = open(options());
    late.restore(serde_json::from_slice(&bytes).unwrap());
    assert_eq!(late.snapshot().pools[0].used.prompt, 0);
}

#[tokio::test(start_paused = true)]
async fn learned_limits_survive_but_not_three_idle_days_and_never_exceed_the_users() {
    let seen = Observation {
        limits: Dimensions {
            prompt: Some(9_000_000),
            uncached: Some(1_800_000),
            generated: Some(72_000),
        },
        ..Observation::default()
    };
    let limited = || Options {
        start: Options::default().start,
        ceilings: Dimensions {
            prompt: None,
            uncached: None,
            generated: Some(50_000),
        },
        ..options()
    };
    let gate = open(limited());
    gate.observe("pool", seen);
    let expected = Dimensions {
        prompt: 9_000_000,
        uncached: 1_800_000,
        generated: 50_000,
    };
    assert_eq!(gate.snapshot().pools[0].limits, expected);
    let saved = gate.saved();
    for (hours, prompt) in [(71, 9_000_000), (2, 4_500_000)] {
        tokio::time::advance(Duration::from_hours(hours)).await;
        let next = open(limited());
        next.restore(saved.clone());
        drop(next.admit(ask(1)).await.unwrap());
        assert_eq!(next.snapshot().pools[0].limits.prompt, prompt);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unexplained_429_lowers_the_ratio_once() {
    let gate = open(Options {
        ratio: Ratio::Auto { start_ppm: 950_000 },
        ..options()
    });
    gate.throttled("pool", None, None);
    gate.throttled("pool", None, None);
    assert_eq!(gate.snapshot().pools[0].ratio_ppm, 921_500);
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_everyone_and_ends_the_timer() {
    let gate = Gate::new(options(), {
        set_wall("2026-11-20T12:00:00Z");
        wall
    });
    let first = gate.admit(ask(1000)).await.unwrap();
    let mut waiting = pin!(gate.admit(ask(1000)));
    assert!(now(waiting.as_mut()).is_pending());
    let mut timer = pin!(gate.clone().drive());
    assert!(now(timer.as_mut()).is_pending());
    gate.close();
    assert_eq!(waiting.await.unwrap_err().kind, RefusalKind::ShuttingDown);
    timer.await;
    let late = gate.admit(ask(1)).await;
    assert_eq!(late.unwrap_err().kind, RefusalKind::ShuttingDown);
    first.settle(tokens(1000, 5));
    assert_eq!(gate.snapshot().day.used, 1005);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_newcomers_only() {
    let gate = open(Options {
        capacity: 2,
        ..options()
    });
    let first = gate.admit(ask(1000)).await.unwrap();
    let mut one = pin!(gate.admit(ask(1000)));
    let mut two = pin!(gate.admit(ask(1000)));
    assert!(now(one.as_mut()).is_pending());
    assert!(now(two.as_mut()).is_pending());
    let full = gate.admit(ask(1000)).await.unwrap_err();
    assert_eq!(full.kind, RefusalKind::Full);
    drop(first);
    drop(one.await.unwrap());
    drop(two.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_picture_tells_why_and_until_when() {
    let gate = open(options());
    let mut changes = gate.changes();
    let mut before = ask(800);
    before.terminal = "0".into();
    let mut first = gate.admit(before).await.unwrap();
    first.sent();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut second = pin!(gate.admit(ask(500)));
    assert!(now(second.as_mut()).is_pending());
    let mut other = ask(700);
    other.terminal = "2".into();
    let mut third = pin!(gate.admit(other));
    assert!(now(third.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(5)).await;

    let wait = gate.wait_of("1").unwrap();
    assert_eq!(
        wait.sentence(),
        "waits for 300 prompt tokens, place 1, about 45 s"
    );
    assert_eq!(wait.waited_ms, 5000);
    let behind = gate.wait_of("2").unwrap();
    assert_eq!((behind.place, behind.budget), (2, Budget::Prompt));
    assert!(behind.eta_ms > wait.eta_ms);
    assert!(gate.wait_of("3").is_none());

    let view = gate.snapshot();
    assert_eq!(view.pools[0].percent.percent(), 80);
    assert_eq!(
        view.line(),
        "queue 2 (longest wait 5 s); pool: prompt 800/1000, uncached 0/1000, generated 50/400, in flight 1; \
         today 0/200000000 tokens"
    );
    let text = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), view);
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_many_come_and_go_at_once() {
    const PASSERS: u64 = 2000;
    let gate = Gate::new(
        Options {
            requests_per_second: 1_000_000,
            capacity: 10_000,
            ..options()
        },
        kimiq::clock::wall,
    );
    let timer = gate.clone().drive();
    let mut crowd = tokio::task::JoinSet::new();
    crowd.spawn(timer);
    for passer in 0..PASSERS {
        let gate = gate.clone();
        crowd.spawn(async move {
            let mut request = ask(100 + passer % 400);
            request.pool = format!("pool {}", passer % 3).into();
            request.patience = Duration::MAX;
            let patience = async {
                for _ in 0..passer % 50 {
                    tokio::task::yield_now().await;
                }
                if passer % 4 > 0 {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                admitted = gate.admit(request) => {
                    let permit = admitted.unwrap();
                    tokio::task::yield_now().await;
                    if passer % 3 == 0 {
                        permit.refused();
                    }
                }
                () = patience => {}
            }
        });
    }
    let all = async {
        for _ in 0..PASSERS {
            crowd.join_next().await.unwrap().unwrap();
        }
        gate.close();
        crowd.join_next().await.unwrap().unwrap();
    };
    tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .unwrap();
    let end = gate.snapshot();
    assert!(end.queue.is_empty());
    for pool in end.pools {
        assert_eq!((pool.in_flight, pool.waiting), (0, 0));
        assert_eq!((pool.held, pool.used), Default::default());
    }
    assert_eq!((end.day.held, end.day.used), (0, 0));
}
