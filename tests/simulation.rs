//! The short version of the simulation: kimiq must not answer fewer turns than it did, and no client may see a 429.
//!
//! What to compare with is in `tests/bench/simulation/baseline.toml`. A change that moves it on purpose writes it anew:
//! `cargo bench --bench simulation -- --write-baseline`. The numbers there may only improve.
#[expect(dead_code, reason = "the bench prints the rest")]
#[path = "bench/simulation"]
mod simulation {
    mod first_seed;
    pub(crate) mod load;
    mod oracle;
    pub(crate) mod play;
    mod policy;
    pub(crate) mod score;
    mod shipped;
    pub(crate) mod upstream;
    pub(crate) mod world;
}

use std::collections::BTreeMap;

use serde::Deserialize;
use simulation::load::{GENERATED, PROMPT};
use simulation::play::{KIMIQ, Who, play, short};
use simulation::world::Scene;

/// Share of the baseline's turns that must be reached.
const LEAST: f64 = 0.97;
/// Upstream 429 of a thousand requests that are nobody's fault.
const DENIED: f64 = 1.0;
/// The baseline is rounded.
const ROUNDING: f64 = 0.05;

/// What a scene was worth.
#[derive(Clone, Copy, Deserialize)]
struct Baseline {
    turns: f64,
    /// Upstream 429 of a thousand requests.
    denied: f64,
    /// 429 that clients saw.
    seen: f64,
    /// Jain index of service.
    jain: f64,
}

#[test]
fn nothing_is_worse_than_the_baseline() {
    let baseline: BTreeMap<String, Baseline> =
        toml::from_str(include_str!("bench/simulation/baseline.toml")).unwrap();
    let mut wrong = Vec::new();
    for (name, score) in short() {
        let before = baseline[&name];
        let mut check = |fine: bool, what: &str, now: f64, before: f64| {
            if !fine {
                wrong.push(format!("{name}: {what} {now:.2}, {before:.2} before"));
            }
        };
        let (turns, jain) = (score.turns, score.jain);
        check(turns >= before.turns * LEAST, "turns", turns, before.turns);
        check(jain >= before.jain * LEAST, "Jain index", jain, before.jain);
        check(score.failed < 0.5, "failed turns", score.failed, 0.0);
        let seen = score.seen;
        check(
            seen <= before.seen,
            "429 seen by clients",
            seen,
            before.seen,
        );
        let denied = score.denied_per_mille();
        let fine = denied <= before.denied.max(DENIED) + ROUNDING;
        check(fine, "upstream 429 per 1000", denied, before.denied);
    }
    assert!(wrong.is_empty(), "worse than before:\n{}", wrong.join("\n"));
}

#[test]
fn eight_terminals_lose_nothing_to_plain_retries() {
    let scene = Scene::new(PROMPT, 8, 12);
    let (kimiq, plain) = (play(&scene, KIMIQ, 1), play(&scene, Who::KimiCode, 1));
    assert!(
        kimiq.turns >= plain.turns * LEAST,
        "{} of {}",
        kimiq.turns,
        plain.turns
    );
    assert!(plain.denied > 0.0, "nothing was scarce");
    assert_eq!(kimiq.denied.to_bits(), 0.0_f64.to_bits());
}

#[test]
fn one_seed_is_one_run() {
    let scene = Scene::new(GENERATED, 8, 5);
    let trace = |seed| {
        let score = play(&scene, KIMIQ, seed);
        (score.turns.to_bits(), score.waits)
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}
