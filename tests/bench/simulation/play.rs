//! Scenes and policies by name, and the threads that play them.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::first_seed::FirstSeed;
use super::load::{GENERATED, LONG, PROMPT, Shape, UNCACHED};
use super::oracle::{KINDS, Kind, Oracle};
use super::policy::{Client, Direct, Policy};
use super::score::Score;
use super::shipped::{Error, Order, Shipped};
use super::world::{Scene, run};

/// The three kinds of work.
pub(crate) const SHAPES: [Shape; 3] = [PROMPT, UNCACHED, GENERATED];

/// What stands between clients and upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    KimiCode,
    KimiCli,
    FirstSeed,
    Kimiq(Error, Order),
    Oracle(Kind),
}

/// kimiq as it is.
pub(crate) const KIMIQ: Who = Who::Kimiq(Error::None, Order::Shipped);

/// Runs one scene under one policy with one seed.
pub(crate) fn play(scene: &Scene, who: Who, seed: u64) -> Score {
    let client = match who {
        Who::KimiCli => Client::KimiCli,
        _ => Client::KimiCode,
    };
    let mut policy: Box<dyn Policy> = match who {
        Who::KimiCode | Who::KimiCli => Box::new(Direct),
        Who::FirstSeed => Box::new(FirstSeed::new(scene.rules.limits)),
        Who::Kimiq(error, order) => Box::new(Shipped::new(seed, error, order)),
        Who::Oracle(kind) => Box::new(Oracle::new(kind)),
    };
    let scene = Scene {
        client,
        ..scene.clone()
    };
    run(&scene, seed, policy.as_mut())
}

/// Runs all pairs with all seeds, on all processors. The means are in the order of the pairs.
pub(crate) fn play_all(pairs: &[(Scene, Who)], seeds: u64) -> Vec<Score> {
    let each = usize::try_from(seeds).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Score>>> = Mutex::new(vec![None; pairs.len() * each]);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((scene, who)) = pairs.get(index / each) else {
                        return;
                    };
                    let seed = (index % each) as u64 + 1;
                    let score = play(scene, *who, seed);
                    done.lock()[index] = Some(score);
                }
            });
        }
    });
    let scores: Vec<Score> = done.into_inner().into_iter().flatten().collect();
    scores.chunks(each).map(Score::mean).collect()
}

/// Each scene under each policy and then the best oracle, with that one's name.
pub(crate) fn with_oracle(
    scenes: &[Scene],
    whos: &[Who],
    seeds: u64,
) -> Vec<(Vec<Score>, &'static str)> {
    let all = || whos.iter().copied().chain(KINDS.map(Who::Oracle));
    let pairs: Vec<(Scene, Who)> = scenes
        .iter()
        .flat_map(|scene| all().map(|who| (scene.clone(), who)))
        .collect();
    play_all(&pairs, seeds)
        .chunks(whos.len() + KINDS.len())
        .map(|scores| {
            let (policies, oracles) = scores.split_at(whos.len());
            let named = oracles.iter().zip(KINDS.map(|kind| kind.name));
            let best = named.max_by(|a, b| a.0.turns.total_cmp(&b.0.turns));
            let name = best.map_or("", |(_, name)| name);
            let best = best.map(|(score, _)| score);
            (policies.iter().chain(best).cloned().collect(), name)
        })
        .collect()
}

/// Each scene under each policy.
pub(crate) fn without(scenes: &[Scene], whos: &[Who], seeds: u64) -> Vec<Vec<Score>> {
    let pairs: Vec<(Scene, Who)> = scenes
        .iter()
        .flat_map(|scene| whos.iter().map(|who| (scene.clone(), *who)))
        .collect();
    let scores = play_all(&pairs, seeds);
    scores.chunks(whos.len()).map(<[Score]>::to_vec).collect()
}

/// Eight terminals, the first with so many agents.
pub(crate) fn greedy(shape: Shape, agents: usize, minutes: u64) -> Scene {
    let mut scene = Scene::new(shape, 8, minutes);
    scene.terminals[0].1 = agents;
    scene
}

/// A short version of the tables: kimiq's own scores, by scene.
pub(crate) fn short() -> Vec<(String, Score)> {
    let scenes: Vec<(String, Scene)> = SHAPES
        .iter()
        .flat_map(|&shape| {
            [(8, 12), (16, 12), (64, 6)].map(|(n, minutes)| {
                let name = format!("{} {n}", shape.name);
                (name, Scene::new(shape, n, minutes))
            })
        })
        .chain([("greedy terminal".to_owned(), greedy(LONG, 7, 8))])
        .collect();
    let pairs: Vec<(Scene, Who)> = scenes.iter().map(|(_, s)| (s.clone(), KIMIQ)).collect();
    let scores = play_all(&pairs, 2);
    let names = scenes.into_iter().map(|(name, _)| name);
    names.zip(scores).collect()
}
