//! The short version of the simulation: kimiq must not answer fewer turns than it did, and nobody may see a 429.
//!
//! What to compare with is in `tests/bench/simulation/baseline.toml`. A change that moves it on purpose writes it
//! anew: `cargo bench --bench simulation -- --write-baseline`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[expect(dead_code, reason = "the bench prints the rest")]
#[path = "bench/simulation"]
mod simulation {
    mod first_seed;
    pub(crate) mod load;
    mod oracle;
    mod policy;
    pub(crate) mod score;
    mod shipped;
    pub(crate) mod tables;
    mod upstream;
    pub(crate) mod world;
}

use std::collections::BTreeMap;

use serde::Deserialize;
use simulation::load::GENERATED;
use simulation::tables::{KIMIQ, play, short};
use simulation::world::Scene;

/// Share of the baseline's turns that must be reached.
const LEAST: f64 = 0.97;

/// Upstream 429 of a thousand requests that are nobody's fault.
const MOST_DENIED: f64 = 1.0;

/// What a scene was worth.
#[derive(Clone, Copy, Deserialize)]
struct Baseline {
    turns: f64,
    denied: f64,
}

#[test]
fn kimiq_answers_as_many_turns_as_before_and_nobody_sees_a_429() {
    let baseline: BTreeMap<String, Baseline> =
        toml::from_str(include_str!("bench/simulation/baseline.toml")).unwrap();
    let mut wrong = Vec::new();
    for (name, score) in short() {
        let before = baseline[&name];
        if score.turns < before * LEAST {
            wrong.push(format!(
                "{name}: {:.1} turns, {before:.1} before",
                score.turns
            ));
        }
        if score.failed > 0.0 || score.seen > 0.0 {
            wrong.push(format!(
                "{name}: {:.1} turns failed, clients saw {:.1} 429",
                score.failed, score.seen
            ));
        }
        let rate = score.denied_per_mille();
        if rate > denied.max(MOST_DENIED) {
            wrong.push(format!("{name}: {rate:.2} upstream 429 per 1000"));
        }
    }
    assert!(wrong.is_empty(), "worse than before:\n{}", wrong.join("\n"));
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
