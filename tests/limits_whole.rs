//! The limiter as a whole: every way to end gives back exactly once, who may pass a head, a million events, and forecasts.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kimiq::limits::{
    Ask, Budget, Class, Decision, Ending, Id, Limiter, Moment, Options, Ratio, Refusal,
    RefusalKind, Wait,
};
use kimiq::usage::{Dimensions, Observation, Tokens};

fn at(millis: u64) -> Moment {
    let wall: DateTime<Utc> = "2026-11-20T00:00:00Z".parse().unwrap();
    let at = Duration::from_millis(millis);
    Moment {
        at,
        wall: wall + TimeDelta::from_std(at).unwrap(),
    }
}

/// A minute of 1000 tokens of each kind.
fn options() -> Options {
    Options {
        requests_per_second: 1000,
        guard: Some(Duration::ZERO),
        start: Dimensions::from_array([1000; 3]),
        ratio: Ratio::Fixed(1_000_000),
        output_reserve: Some(50),
        capacity: 100_000,
        ..Options::default()
    }
}

fn ask(terminal: &str, prompt: u64) -> Ask {
    Ask {
        pool: "pool".into(),
        terminal: terminal.into(),
        prompt,
        patience: Duration::from_hours(1),
        ..Ask::default()
    }
}

fn settled(prompt: u64, generated: u64) -> Ending {
    Ending::Settled(Tokens {
        prompt,
        cached: prompt,
        generated,
        reasoning: 0,
    })
}

fn admitted(limiter: &mut Limiter) -> Vec<Id> {
    let decisions = limiter.decisions().into_iter();
    decisions
        .filter_map(|decision| match decision {
            Decision::Admit(id) => Some(id),
            _ => None,
        })
        .collect()
}

fn is_empty(limiter: &mut Limiter, now: u64) -> bool {
    let view = limiter.snapshot(at(now));
    let pools = view
        .pools
        .iter()
        .all(|pool| (pool.used, pool.held, pool.in_flight, pool.waiting) == Default::default());
    pools && view.queue.is_empty() && view.day.held == 0 && limiter.next_wake(at(now)).is_none()
}

/// Phases in which a request can end.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Queued,
    Paused,
    Admitted,
    Sent,
    Streaming,
    LongStreaming,
    Ended,
}

const PHASES: [Phase; 7] = [
    Phase::Queued,
    Phase::Paused,
    Phase::Admitted,
    Phase::Sent,
    Phase::Streaming,
    Phase::LongStreaming,
    Phase::Ended,
];

/// Ways in which it can.
const ENDINGS: [Option<Ending>; 5] = [
    None,
    Some(Ending::Cancelled),
    Some(Ending::Refused),
    Some(Ending::Unmetered),
    Some(Ending::Settled(Tokens {
        prompt: 180,
        cached: 20,
        generated: 70,
        reasoning: 0,
    })),
];

#[test]
fn in_every_phase_every_ending_gives_back_exactly_once() {
    use Phase::{Ended, LongStreaming, Paused, Queued, Sent, Streaming};
    for phase in PHASES {
        for ending in ENDINGS {
            let name = format!("{phase:?} {ending:?}");
            let mut limiter = Limiter::new(options(), at(0));
            let pool: Arc<str> = "pool".into();
            let mut other = None;
            match phase {
                Queued => other = Some(limiter.arrive(ask("other", 1000), at(0))),
                Paused => limiter.throttled(&pool, None, None, 0, at(0)),
                _ => {}
            }
            let mut one = ask("one", 200);
            one.uncached = 150;
            let id = limiter.arrive(one, at(0));
            let waits = matches!(phase, Queued | Paused);
            assert_eq!(admitted(&mut limiter).contains(&id), !waits, "{name}");
            let mut now = 0;
            if matches!(phase, Sent | Streaming | LongStreaming | Ended) {
                limiter.sent(id, at(now));
            }
            if matches!(phase, Streaming | LongStreaming | Ended) {
                limiter.streamed(id, 30, at(now));
            }
            if matches!(phase, LongStreaming) {
                now = 70_000;
                limiter.tick(at(now));
                limiter.streamed(id, 10, at(now));
            }
            if matches!(phase, Ended) {
                limiter.end(id, settled(200, 30), at(now));
            }
            let end = |limiter: &mut Limiter, now| match ending {
                None => limiter.cancel(id, at(now)),
                Some(ending) => {
                    let _spent = limiter.end(id, ending, at(now));
                }
            };
            end(&mut limiter, now);
            if waits && ending.is_some() {
                // It was not admitted, so only leaving the queue ends it.
                assert_eq!(limiter.snapshot(at(now)).queue.len(), 1, "{name}");
                limiter.cancel(id, at(now));
            }
            let once = limiter.snapshot(at(now));
            assert!(once.queue.is_empty(), "{name}");
            // Again and again: nothing changes.
            for _ in 0..3 {
                end(&mut limiter, now);
                limiter.cancel(id, at(now));
                limiter.sent(id, at(now));
                limiter.streamed(id, 5, at(now));
            }
            assert_eq!(limiter.snapshot(at(now)), once, "{name}");
            if let Some(other) = other {
                limiter.end(other, Ending::Refused, at(now));
            }
            let later = now + 61_000;
            limiter.tick(at(later));
            assert!(is_empty(&mut limiter, later), "{name}");
        }
    }
}

#[test]
fn others_pass_a_head_only_if_it_fits_in_time_all_the_same() {
    let mut limiter = Limiter::new(options(), at(0));
    let first = limiter.arrive(ask("a", 600), at(0));
    limiter.sent(first, at(0));
    limiter.end(first, settled(600, 1), at(0));
    let second = limiter.arrive(ask("a", 300), at(20_000));
    limiter.sent(second, at(20_000));
    limiter.end(second, settled(300, 1), at(20_000));
    assert_eq!(admitted(&mut limiter), [first, second]);
    // It fits when the 600 are gone, and then 100 are left beside the 300 and it.
    let head = limiter.arrive(ask("b", 600), at(21_000));
    let wait = limiter.why(head, at(21_000)).unwrap();
    assert_eq!(
        (wait.place, wait.budget, wait.missing, wait.eta_ms),
        (1, Budget::Prompt, 500, 39_000)
    );
    let small = limiter.arrive(ask("c", 60), at(22_000));
    assert_eq!(admitted(&mut limiter), [small], "it delays nobody");
    let larger = limiter.arrive(ask("d", 40), at(23_000));
    assert_eq!(admitted(&mut limiter), [larger], "100 in all");
    let one_more = limiter.arrive(ask("e", 1), at(24_000));
    assert!(admitted(&mut limiter).is_empty(), "nothing is left");
    // Another budget is another matter, however long the head has been one.
    let mut cheap = ask("f", 0);
    cheap.max_tokens = Some(1);
    let quick = limiter.arrive(cheap.clone(), at(25_000));
    assert_eq!(admitted(&mut limiter), [quick]);
    let quick = limiter.arrive(cheap, at(52_000));
    assert_eq!(admitted(&mut limiter), [quick]);
    limiter.tick(at(60_000));
    assert_eq!(admitted(&mut limiter)[0], head, "exactly as foretold");
    assert!(
        limiter.why(one_more, at(60_000)).is_some(),
        "900 of 1000 and the one are taken first"
    );
}

#[test]
fn a_lost_prompt_cache_is_paid_for() {
    let mut limiter = Limiter::new(options(), at(0));
    let first = limiter.arrive(ask("a", 1000), at(0));
    limiter.sent(first, at(0));
    let mut warm = ask("b", 500);
    (warm.uncached, warm.cached) = (100, 400);
    warm.cache_expires_in = Some(Duration::from_secs(30));
    limiter.arrive(warm.clone(), at(0));
    warm.terminal = "c".into();
    warm.cache_expires_in = Some(Duration::from_secs(90));
    limiter.arrive(warm, at(0));
    limiter.tick(at(60_000));
    let view = &limiter.snapshot(at(60_000)).pools[0];
    assert_eq!(
        view.held.uncached, 600,
        "one cache was lost on the way, one was not"
    );
}

#[test]
fn a_person_and_a_heavier_terminal_go_before_others_but_not_always() {
    let run = |class: Class, weight: u32| {
        let mut limiter = Limiter::new(options(), at(0));
        let block = limiter.arrive(ask("other", 1000), at(0));
        limiter.sent(block, at(0));
        let mut theirs = Vec::new();
        for _ in 0..12 {
            let mut one = ask("a", 200);
            (one.class, one.weight) = (class, weight);
            theirs.push(limiter.arrive(one, at(1)));
            limiter.arrive(ask("b", 200), at(1));
        }
        let mut served = 0;
        admitted(&mut limiter);
        for minute in 1..=3 {
            limiter.tick(at(minute * 60_000 + minute));
            for id in admitted(&mut limiter) {
                served += usize::from(theirs.contains(&id));
                limiter.sent(id, at(minute * 60_000 + minute));
            }
        }
        served
    };
    assert_eq!(run(Class::Loop, 1), 8);
    assert_eq!(run(Class::Interactive, 1), 10);
    assert_eq!(run(Class::Loop, 3), 11);
}

#[test]
fn a_stray_replica_costs_a_moment_and_an_unexplained_429_makes_cautious() {
    let pool: Arc<str> = "pool".into();
    let learning = || Options {
        ratio: Ratio::Auto { start_ppm: 950_000 },
        ..Options::default()
    };
    let seen = |generated: u64| Observation {
        limits: Dimensions::from_array([Some(11_250_000), Some(5_400_000), Some(generated)]),
        ..Observation::default()
    };
    let mut limiter = Limiter::new(learning(), at(0));
    for second in 0..20 {
        limiter.observe(&pool, &seen(216_000), at(second * 1000));
    }
    limiter.observe(&pool, &seen(36_000), at(20_000));
    limiter.throttled(&pool, None, None, 0, at(20_000));
    let view = &limiter.snapshot(at(20_000)).pools[0];
    assert_eq!((view.ratio_ppm, view.cautious_ms), (950_000, 0));
    assert_eq!((view.paused_ms, view.limits.generated), (250, 216_000));

    limiter.observe(&pool, &seen(216_000), at(21_000));
    limiter.throttled(&pool, None, None, 0, at(21_000));
    let view = limiter.snapshot(at(21_000)).pools[0].clone();
    assert_eq!((view.ratio_ppm, view.cautious_ms), (921_500, 30 * 60_000));
    // Caution, ratio and limits outlive the process.
    let saved = limiter.saved(at(22_000));
    let mut next = Limiter::new(learning(), at(500_000));
    next.restore(
        saved,
        Moment {
            at: at(500_000).at,
            ..at(23_000)
        },
    );
    let view = next
        .snapshot(Moment {
            at: at(500_000).at,
            ..at(23_000)
        })
        .pools[0]
        .clone();
    assert_eq!((view.ratio_ppm, view.limits.generated), (921_500, 216_000));
    assert_eq!(view.cautious_ms, 30 * 60_000 - 2000);
}

#[test]
fn another_machine_on_the_account_is_noticed_and_yielded_to() {
    let pool: Arc<str> = "pool".into();
    let mut limiter = Limiter::new(Options::default(), at(0));
    let seen = |left: u64| Observation {
        limits: Dimensions::from_array([Some(3_600_000), Some(900_000), Some(36_000)]),
        remaining: Dimensions::from_array([Some(left), None, None]),
        ..Observation::default()
    };
    for second in 0..12 {
        limiter.observe(&pool, &seen(2_160_000), at(second * 1000));
    }
    let view = limiter.snapshot(at(12_000)).pools[0].clone();
    assert_eq!(view.foreign.prompt, 1_440_000);
    assert_eq!(view.effective.prompt, 3_420_000 - 1_440_000);
    limiter.tick(at(300_000));
    assert_eq!(limiter.snapshot(at(300_000)).pools[0].foreign.prompt, 0);
}

#[test]
fn the_picture_tells_what_would_help() {
    let mut limiter = Limiter::new(
        Options {
            ratio: Ratio::Fixed(1_000_000),
            ..Options::default()
        },
        at(0),
    );
    let mut cold = ask("a", 900_000);
    cold.pool = "api.fireworks.ai/accounts/fireworks/models/kimi-k2p6".into();
    cold.uncached = 900_000;
    let first = limiter.arrive(cold.clone(), at(0));
    limiter.sent(first, at(0));
    limiter.arrive(cold, at(0));
    limiter.tick(at(61_000));
    let view = limiter.snapshot(at(61_000)).pools[0].clone();
    assert_eq!(view.hour.bound[0].budget, Budget::Uncached);
    assert_eq!(view.hour.bound[0].percent, 100);
    let ladder = view.ladder.unwrap().uncached;
    assert_eq!(
        (ladder.steps, ladder.ceiling, ladder.enough),
        (12, 10_800_000, true)
    );
    assert_eq!((ladder.next_ms, ladder.ceiling_ms), (0, 11 * 15 * 60_000));
    assert_eq!(view.rules_of.as_deref(), Some("fireworks 2026-11-20"));
    let advice = view.advice();
    assert_eq!(
        advice[0],
        "in the last hour 0 of 1 request waited, 1 waits now, 61 s in all: 100 % for uncached prompt tokens"
    );
    assert!(
        advice
            .last()
            .unwrap()
            .contains("its ceiling of 10,800,000 in about 3 h"),
        "{advice:?}"
    );
    // Nobody waits, nothing to say.
    let mut idle = Limiter::new(Options::default(), at(0));
    idle.observe(&"pool".into(), &Observation::default(), at(0));
    assert!(idle.snapshot(at(1)).pools[0].advice().is_empty());

    // A restart knows the same hour.
    let saved = limiter.saved(at(61_000));
    let mut again = Limiter::new(Options::default(), at(0));
    again.restore(saved, at(61_000));
    assert_eq!(again.snapshot(at(61_000)).pools[0].hour, view.hour);
}

#[test]
fn retries_are_a_tenth_of_the_admissions() {
    let mut limiter = Limiter::new(options(), at(0));
    assert!(limiter.may_retry("unknown"));
    let mut spend = |admissions: usize| {
        for _ in 0..admissions {
            let id = limiter.arrive(ask("a", 1), at(0));
            limiter.end(id, Ending::Refused, at(0));
        }
        (0..1000).take_while(|_| limiter.may_retry("pool")).count()
    };
    assert_eq!(spend(1), 10);
    assert_eq!(spend(9), 0);
    assert_eq!(spend(21), 3);
}

/// Two hundred terminals come and go for 30,000 events; the bench does a million. Nothing stays.
#[test]
fn a_long_run_leaves_nothing_behind() {
    let mut limiter = Limiter::new(
        Options {
            window: Duration::from_secs(6),
            start: Dimensions::from_array([500_000, 200_000, 40_000]),
            capacity: 400,
            ..Options::default()
        },
        at(0),
    );
    let mut chance = 7_u64;
    let mut draw = |below: u64| {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let (mut flying, mut waiting): (Vec<Id>, Vec<Id>) = (Vec::new(), Vec::new());
    let mut now = 0;
    let mut largest = 0;
    for event in 0..30_000_u64 {
        now += draw(12);
        match draw(10) {
            0..=2 if waiting.len() < 300 => {
                let mut one = ask(&format!("t{}", draw(200)), 1000 + draw(20_000));
                one.pool = format!("pool {}", draw(2)).into();
                one.uncached = draw(5000);
                one.cached = one.prompt - one.uncached.min(one.prompt);
                one.cache_expires_in = Some(Duration::from_millis(draw(20_000)));
                one.patience = Duration::from_millis(20_000 + draw(60_000));
                one.class = [Class::Interactive, Class::Loop, Class::Background]
                    [usize::try_from(draw(3)).unwrap()];
                waiting.push(limiter.arrive(one, at(now)));
            }
            3 if !waiting.is_empty() => {
                let one = usize::try_from(draw(waiting.len() as u64)).unwrap();
                limiter.cancel(waiting.swap_remove(one), at(now));
            }
            4..=6 if !flying.is_empty() => {
                let one = usize::try_from(draw(flying.len() as u64)).unwrap();
                limiter.streamed(flying[one], draw(40), at(now));
            }
            7..=8 if !flying.is_empty() => {
                let one = usize::try_from(draw(flying.len() as u64)).unwrap();
                limiter.end(
                    flying.swap_remove(one),
                    settled(1000 + draw(20_000), draw(400)),
                    at(now),
                );
            }
            _ => limiter.tick(at(now)),
        }
        for decision in limiter.decisions() {
            match decision {
                Decision::Admit(id) => {
                    waiting.retain(|&one| one != id);
                    limiter.sent(id, at(now));
                    flying.push(id);
                }
                Decision::Refuse(id, _) => waiting.retain(|&one| one != id),
                Decision::WarnDaily { .. } => {}
            }
        }
        if event % 5_000 == 4_999 {
            largest = largest.max(serde_json::to_vec(&limiter.saved(at(now))).unwrap().len());
            assert!(
                largest < 400_000,
                "{largest} bytes of state after {event} events"
            );
        }
    }
    for id in flying.into_iter().chain(waiting) {
        limiter.cancel(id, at(now));
    }
    for id in admitted(&mut limiter) {
        limiter.cancel(id, at(now));
    }
    limiter.tick(at(now + 7000));
    assert!(is_empty(&mut limiter, now + 7000));
}

#[test]
fn a_refusal_names_the_budget_and_the_time() {
    let mut limiter = Limiter::new(options(), at(0));
    let first = limiter.arrive(ask("a", 1000), at(0));
    limiter.sent(first, at(0));
    limiter.decisions();
    let mut hasty = ask("b", 100);
    hasty.patience = Duration::from_secs(10);
    let id = limiter.arrive(hasty, at(1000));
    let wait = Wait {
        place: 1,
        budget: Budget::Prompt,
        missing: 100,
        eta_ms: 59_000,
        waited_ms: 0,
        behind: Vec::new(),
        running: 1,
    };
    let expected = Refusal {
        kind: RefusalKind::Queue { wait },
        retry_after: 59,
    };
    assert_eq!(
        expected.message(),
        "kimiq: no room yet; the request waits for 100 prompt tokens, place 1, about 59 s"
    );
    assert_eq!(limiter.decisions(), [Decision::Refuse(id, expected)]);
}

#[test]
fn who_will_come_and_pass_is_foreseen() {
    let mut limiter = Limiter::new(options(), at(0));
    let mut favourite = ask("c", 100);
    favourite.session = "conversation".into();
    favourite.weight = 1000;
    // Answers at once, and asks again ten seconds after each answer.
    let visit = |limiter: &mut Limiter, id: Id, now: u64| {
        limiter.sent(id, at(now));
        limiter.end(id, settled(100, 1), at(now));
    };
    for now in (0..=60_000).step_by(10_000) {
        let id = limiter.arrive(favourite.clone(), at(now));
        assert_eq!(admitted(&mut limiter), [id]);
        visit(&mut limiter, id, now);
    }
    let head = limiter.arrive(ask("a", 700), at(61_000));
    let second = limiter.arrive(ask("a", 300), at(61_000));
    assert!(admitted(&mut limiter).is_empty());
    let quick = limiter.why(second, at(61_000)).unwrap();
    assert_eq!(quick.eta_ms, 59_000, "if nobody else came");

    assert!(limiter.wants_foresight(at(61_000)));
    let times = limiter.foresee(at(61_000), 0..3);
    assert_eq!(times[&head], Duration::from_secs(90));
    assert!(times[&second].abs_diff(Duration::from_secs(150)) < Duration::from_secs(3));
    limiter.foretell(times, at(61_000));
    let told = limiter.why(second, at(61_000)).unwrap();
    assert!(told.eta_ms.abs_diff(89_000) < 3_000, "{told:?}");
    assert_eq!((told.budget, told.missing), (Budget::Prompt, 600));
    assert!(!limiter.wants_foresight(at(61_100)));
    assert!(limiter.wants_foresight(at(62_000)));

    // And so it happens.
    let (mut next, mut went) = (70_000, Vec::new());
    for now in (62_000..=160_000).step_by(500) {
        limiter.tick(at(now));
        if now == next {
            limiter.arrive(favourite.clone(), at(now));
        }
        for id in admitted(&mut limiter) {
            if id == head || id == second {
                limiter.sent(id, at(now));
                went.push(now);
            } else {
                visit(&mut limiter, id, now);
                next = now + 10_000;
            }
        }
    }
    assert_eq!(went, [90_000, 150_000]);
}

/// A 429 to the only request in flight, of 60,000 tokens, when the headers say that so much is left.
fn after_a_429(left: [Option<u64>; 3]) -> kimiq::limits::PoolView {
    let pool: Arc<str> = "pool".into();
    let mut limiter = Limiter::new(
        Options {
            ratio: Ratio::Auto { start_ppm: 950_000 },
            ..Options::default()
        },
        at(0),
    );
    let seen = |left: [Option<u64>; 3]| Observation {
        limits: Dimensions::from_array([Some(3_600_000), Some(900_000), Some(36_000)]),
        remaining: Dimensions::from_array(left),
        ..Observation::default()
    };
    let id = limiter.arrive(
        Ask {
            uncached: 60_000,
            ..ask("one", 60_000)
        },
        at(1000),
    );
    assert_eq!(admitted(&mut limiter), [id]);
    limiter.sent(id, at(1000));
    limiter.observe(&pool, &seen(left), at(1200));
    limiter.throttled(&pool, Some(id), None, 0, at(1210));
    limiter.end(id, Ending::Refused, at(1210));
    limiter.snapshot(at(1210)).pools[0].clone()
}

#[test]
fn a_429_is_read_by_its_headers() {
    let check = |left: [u64; 3], ratio: u32, cautious: bool, foreign: [u64; 3]| {
        let view = after_a_429(left.map(Some));
        assert_eq!(view.ratio_ppm, ratio, "{left:?}");
        assert_eq!(view.cautious_ms > 0, cautious, "{left:?}");
        assert_eq!(view.foreign.into_array(), foreign, "{left:?}");
    };
    // Others have used a budget up: from now on it is counted, and next to nothing is cut.
    check([40_000, 900_000, 36_000], 940_500, false, [3_240_000, 0, 0]);
    check([3_600_000, 900_000, 0], 940_500, false, [0, 0, 32_400]);
    // There is room everywhere, but much was just counted: too much came at once.
    check([3_600_000, 500_000, 36_000], 950_000, true, [0, 0, 0]);
    // Nothing explains it; nor where no header tells anything.
    check([3_600_000, 900_000, 36_000], 921_500, true, [0, 0, 0]);
    assert_eq!(after_a_429([None; 3]).ratio_ppm, 921_500);
}
