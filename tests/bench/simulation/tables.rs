//! The tables, and the threads that fill them.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::first_seed::FirstSeed;
use super::load::{GENERATED, LONG, PROMPT, Shape, UNCACHED};
use super::oracle::{KINDS, Kind, Oracle};
use super::policy::{Client, Direct, Policy};
use super::score::{Score, quantile};
use super::shipped::{Error, Order, Shipped};
use super::upstream::{Admission, Charge, Unit, Window};
use super::world::{Scene, run};

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

/// Runs one scene under one policy and one seed.
pub(crate) fn play(scene: &Scene, who: Who, seed: u64) -> Score {
    let client = match who {
        Who::KimiCli => Client::KimiCli,
        _ => Client::KimiCode,
    };
    let scene = Scene {
        client,
        ..scene.clone()
    };
    let mut policy: Box<dyn Policy> = match who {
        Who::KimiCode | Who::KimiCli => Box::new(Direct),
        Who::FirstSeed => Box::new(FirstSeed::new(scene.rules.limits)),
        Who::Kimiq(error, order) => Box::new(Shipped::new(seed, error, order)),
        Who::Oracle(kind) => Box::new(Oracle::new(kind)),
    };
    run(&scene, seed, policy.as_mut())
}

/// Runs all pairs with all seeds on two threads. The result is in the order of the pairs.
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

/// The oracle with the most turns of all kinds.
fn best(scores: &[Score]) -> &Score {
    let mut best = &scores[0];
    for score in scores {
        if score.turns > best.turns {
            best = score;
        }
    }
    best
}

/// How much to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) minutes: u64,
    pub(crate) seeds: u64,
}

/// A table by its name.
pub(crate) const TABLES: [(&str, fn(Size) -> String); 5] = [
    ("turns", turns),
    ("upstreams", upstreams),
    ("estimates", estimates),
    ("fairness", fairness),
    ("waits", waits),
];

pub(crate) const SHAPES: [Shape; 3] = [PROMPT, UNCACHED, GENERATED];
const TERMINALS: [usize; 5] = [1, 4, 8, 16, 64];
const HEAD: &str = "| terminals | policy | turns | of oracle | failed | upstream 429 per 1000 | client 429 | wait p50 s | p95 s | Jain | cached | prompt | uncached | generated |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

fn line(name: &str, who: &str, score: &Score, oracle: f64) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let [prompt, uncached, generated] = score.used.map(percent);
    format!(
        "| {name} | {who} | {:.0} | {:.1} % | {:.1} | {:.2} | {:.1} | {:.1} | {:.1} | {:.2} | {} | {prompt} | {uncached} | {generated} |\n",
        score.turns,
        100.0 * score.turns / oracle.max(1.0),
        score.failed,
        score.denied_per_mille(),
        score.seen,
        score.wait(50, |_| true),
        score.wait(95, |_| true),
        score.jain,
        percent(score.hits),
    )
}

const POLICIES: [(&str, Who); 4] = [
    ("Kimi Code", Who::KimiCode),
    ("kimi-cli", Who::KimiCli),
    ("first seed", Who::FirstSeed),
    ("kimiq", KIMIQ),
];

/// Each policy on each scene, and the best oracle: rows of a table with verdicts below.
fn compare(scenes: &[(String, Scene)], whos: &[(&str, Who)], size: Size, least: f64) -> String {
    let oracles = KINDS.map(Who::Oracle);
    let pairs: Vec<(Scene, Who)> = scenes
        .iter()
        .flat_map(|(_, scene)| {
            let all = whos.iter().map(|(_, who)| *who).chain(oracles);
            all.map(|who| (scene.clone(), who))
        })
        .collect();
    let scores = play_all(&pairs, size.seeds);
    let mut text = HEAD.to_owned();
    let mut misses = String::new();
    for ((name, _), scores) in scenes.iter().zip(scores.chunks(whos.len() + oracles.len())) {
        let (policies, oracles) = scores.split_at(whos.len());
        let oracle = best(oracles);
        for ((who, _), score) in whos.iter().zip(policies) {
            text += &line(name, who, score, oracle.turns);
        }
        text += &line(name, "oracle", oracle, oracle.turns);
        let kimiq = whos
            .iter()
            .zip(policies)
            .filter(|((who, _), _)| who.starts_with("kimiq"));
        let plain = whos
            .iter()
            .zip(policies)
            .find(|((who, _), _)| *who == "Kimi Code")
            .map_or(0.0, |(_, score)| score.turns);
        for ((who, _), score) in kimiq {
            let name = format!("{name}, {who}");
            check(
                &mut misses,
                &name,
                score,
                oracle.turns * least,
                "the oracle",
            );
            if score.turns < plain && !name.starts_with("64") {
                misses.push_str(&format!("- {name}: Kimi Code alone has {plain:.0} turns\n"));
            }
        }
    }
    verdict(text, &misses)
}

fn verdict(text: String, misses: &str) -> String {
    if misses.is_empty() {
        text + "\nAll within the bounds.\n"
    } else {
        text + "\nOutside the bounds:\n" + misses
    }
}

fn turns(size: Size) -> String {
    let mut text = String::new();
    for shape in SHAPES {
        let scenes = TERMINALS.map(|n| (n.to_string(), Scene::new(shape, n, size.minutes)));
        text += &format!("\n## {}\n\n", shape.name);
        text += &compare(&scenes, &POLICIES, size, 0.97);
    }
    text
}

/// Upstreams of other kinds, 16 terminals.
pub(crate) fn variants(minutes: u64) -> Vec<(String, Scene)> {
    let base = |name: &str| (name.to_owned(), Scene::new(PROMPT, 16, minutes));
    let mut all = Vec::new();
    for shape in SHAPES {
        let (mut name, mut scene) = (
            format!("refuses when used up, {}", shape.name),
            Scene::new(shape, 16, minutes),
        );
        scene.rules.admission = Admission::Used;
        all.push((std::mem::take(&mut name), scene.clone()));
        scene.rules = super::upstream::Rules::default();
        scene.rules.charge = Charge::AtEnd;
        all.push((format!("charges at the end, {}", shape.name), scene));
    }
    let (name, mut scene) = base("inner window of 10 s");
    scene.rules.inner = true;
    all.push((name, scene));
    let (name, mut scene) = base("another machine uses 40 %");
    scene.rules.foreign = 40;
    all.push((name, scene));
    let (name, mut scene) = base("one of eight gateways stale");
    scene.terminals = vec![(PROMPT, 1); 32];
    scene.rules.limits = [11_250_000, 5_400_000, 216_000];
    scene.rules.stale = true;
    all.push((name, scene));
    let (name, mut scene) = base("limits rise by a quarter in 5 min");
    scene.terminals = vec![(PROMPT, 1); 32];
    scene.rules.step = Some(std::time::Duration::from_secs(300));
    all.push((name, scene));
    let (name, mut scene) = base("headers per second, then per minute");
    scene.rules.unit = Unit::SecondUntil(std::time::Duration::from_secs(minutes * 30));
    all.push((name, scene));
    let (name, mut scene) = base("caches live 1 to 2 min");
    scene.rules.kept = (60, 120);
    all.push((name, scene));
    let (name, mut scene) = base("no affinity, 4 replicas");
    scene.rules.replicas = 4;
    all.push((name, scene));
    all
}

fn upstreams(size: Size) -> String {
    let whos = [
        ("Kimi Code", Who::KimiCode),
        ("first seed", Who::FirstSeed),
        ("kimiq", KIMIQ),
    ];
    let mut text = "\n## Other upstreams, 16 terminals unless said otherwise\n\n".to_owned();
    text += &compare(&variants(size.minutes), &whos, size, 0.97);
    text += "\n## Fixed minutes\n\n";
    let scenes: Vec<(String, Scene)> = SHAPES
        .iter()
        .flat_map(|&shape| {
            [8, 16, 64].map(|n| {
                let mut scene = Scene::new(shape, n, size.minutes);
                scene.rules.window = Window::Fixed;
                (format!("{n}, {}", shape.name), scene)
            })
        })
        .collect();
    text + &compare(&scenes, &whos, size, 0.90)
}

fn estimates(size: Size) -> String {
    let whos = [
        ("kimiq", Error::None),
        ("kimiq, 15 % off", Error::Unbiased),
        ("kimiq, 20 % low", Error::Low),
    ]
    .map(|(name, error)| (name, Who::Kimiq(error, Order::Shipped)));
    let scenes: Vec<(String, Scene)> = SHAPES
        .iter()
        .flat_map(|&shape| {
            TERMINALS.map(|n| {
                let scene = Scene::new(shape, n, size.minutes);
                (format!("{n}, {}", shape.name), scene)
            })
        })
        .collect();
    let pairs: Vec<(Scene, Who)> = scenes
        .iter()
        .flat_map(|(_, scene)| whos.map(|(_, who)| (scene.clone(), who)))
        .collect();
    let scores = play_all(&pairs, size.seeds);
    let mut text = "\n## Wrong estimates, beside right ones\n\n".to_owned();
    text += &HEAD.replace("of oracle", "of right estimates");
    let mut misses = String::new();
    for ((name, _), scores) in scenes.iter().zip(scores.chunks(whos.len())) {
        let right = scores[0].turns;
        for ((who, _), score) in whos.iter().zip(scores) {
            text += &line(name, who, score, right);
            check(
                &mut misses,
                &format!("{name}, {who}"),
                score,
                right * 0.97,
                "right estimates",
            );
        }
    }
    verdict(text, &misses)
}

/// Notes what is not as it must be.
fn check(misses: &mut String, name: &str, score: &Score, least: f64, than: &str) {
    let mut miss = |what: String| misses.push_str(&format!("- {name}: {what}\n"));
    if score.turns < least {
        miss(format!(
            "{:.0} turns; {least:.0} are the least beside {than}",
            score.turns
        ));
    }
    if score.failed > 0.0 || score.seen > 0.0 {
        miss(format!(
            "{:.1} failed, {:.1} client 429",
            score.failed, score.seen
        ));
    }
    if score.denied_per_mille() > 1.0 {
        miss(format!(
            "{:.2} upstream 429 per 1000",
            score.denied_per_mille()
        ));
    }
}

/// Eight terminals, the first with so many agents.
pub(crate) fn greedy(shape: Shape, agents: usize, minutes: u64) -> Scene {
    let mut scene = Scene::new(shape, 8, minutes);
    scene.terminals[0].1 = agents;
    scene
}

fn fairness(size: Size) -> String {
    let fifo = Who::Kimiq(Error::None, Order::Fifo);
    let mut text = "\n## Eight terminals, the first with six subagents\n\n| contexts | policy | turns | Jain | least of a terminal | most | median wait of the other seven s | without the subagents | p95 |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
    let mut misses = String::new();
    for shape in [LONG, PROMPT] {
        let scenes = [
            greedy(shape, 7, size.minutes),
            greedy(shape, 1, size.minutes),
        ];
        let whos = [
            ("kimiq", KIMIQ),
            ("kimiq, order of arrival", fifo),
            ("Kimi Code", Who::KimiCode),
            ("first seed", Who::FirstSeed),
        ];
        let pairs: Vec<(Scene, Who)> = whos
            .iter()
            .flat_map(|(_, who)| scenes.clone().map(|scene| (scene, *who)))
            .collect();
        let scores = play_all(&pairs, size.seeds);
        let arrival = scores[2].turns;
        for ((who, _), scores) in whos.iter().zip(scores.chunks(2)) {
            let (with, without) = (&scores[0], &scores[1]);
            let others = |t: usize| t > 0;
            let waits = (with.wait(50, others), without.wait(50, others));
            text += &format!(
                "| {} | {who} | {:.0} | {:.2} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} |\n",
                shape.name,
                with.turns,
                with.jain,
                with.least,
                with.most,
                waits.0,
                waits.1,
                with.wait(95, others),
            );
            if *who != "kimiq" {
                continue;
            }
            let mut miss = |what: String| misses.push_str(&format!("- {}: {what}\n", shape.name));
            if with.jain < 0.90 && shape.name == LONG.name {
                miss(format!("Jain {:.2}, not 0.90", with.jain));
            }
            if waits.0 > waits.1 * 1.25 + 0.1 {
                miss(format!(
                    "the others wait {:.1} s, alone {:.1} s",
                    waits.0, waits.1
                ));
            }
            if with.turns < arrival {
                miss(format!(
                    "{:.0} turns, in order of arrival {arrival:.0}",
                    with.turns
                ));
            }
        }
    }
    verdict(text, &misses)
}

fn waits(size: Size) -> String {
    let cases: Vec<(String, Scene)> = SHAPES
        .iter()
        .flat_map(|&shape| {
            [8, 16, 64].map(|n| {
                (
                    format!("{n}, {}", shape.name),
                    Scene::new(shape, n, size.minutes),
                )
            })
        })
        .chain([(
            "8 with six subagents".to_owned(),
            greedy(LONG, 7, size.minutes),
        )])
        .collect();
    let pairs: Vec<(Scene, Who)> = cases.iter().map(|(_, s)| (s.clone(), KIMIQ)).collect();
    let scores = play_all(&pairs, size.seeds);
    let mut text = "\n## What was predicted and what happened: (actual - predicted) / actual\n\n| scene | asked | waits | within 20 % | within 20 % or 1 s | p5 | p25 | p50 | p75 | p95 | waits for prompt, uncached, generated, requests, pause |\n|---|---|---|---|---|---|---|---|---|---|---|\n".to_owned();
    let mut all = (Vec::new(), Vec::new());
    for ((name, _), score) in cases.iter().zip(&scores) {
        all.0.extend(score.etas.clone());
        all.1.extend(score.later.clone());
        let whys = score.waited_for.map(|n| format!("{n:.0}")).join(", ");
        text += &spread(name, "on joining", &score.etas, &whys);
        text += &spread(name, "5 s later", &score.later, "");
    }
    text += &spread("all", "on joining", &all.0, "");
    text += &spread("all", "5 s later", &all.1, "");
    text
}

fn spread(name: &str, asked: &str, pairs: &[(f64, f64)], whys: &str) -> String {
    let errors: Vec<f64> = pairs
        .iter()
        .map(|(predicted, actual)| (actual - predicted) / actual.max(0.001))
        .collect();
    let within = |near: &dyn Fn(&(f64, f64)) -> bool| {
        let near = pairs.iter().filter(|pair| near(pair)).count();
        format!("{} %", near * 100 / pairs.len().max(1))
    };
    let fifth = within(&|(p, a)| (a - p).abs() <= 0.2 * a);
    let second = within(&|(p, a)| (a - p).abs() <= (0.2 * a).max(1.0));
    let mut text = format!("| {name} | {asked} | {} | {fifth} | {second}", errors.len());
    for percent in [5, 25, 50, 75, 95] {
        write!(text, " | {:+.2}", quantile(errors.clone(), percent)).unwrap_or_default();
    }
    format!("{text} | {whys} |\n")
}

/// A short version of the tables: kimiq's own scores, by scene.
pub(crate) fn short() -> Vec<(String, Score)> {
    let scenes: Vec<(String, Scene)> = SHAPES
        .iter()
        .flat_map(|&shape| {
            [8, 16, 64].map(|n| (format!("{} {n}", shape.name), Scene::new(shape, n, 12)))
        })
        .chain([("greedy terminal".to_owned(), greedy(LONG, 7, 12))])
        .collect();
    let pairs: Vec<(Scene, Who)> = scenes.iter().map(|(_, s)| (s.clone(), KIMIQ)).collect();
    let scores = play_all(&pairs, 2);
    let names = scenes.into_iter().map(|(name, _)| name);
    names.zip(scores).collect()
}
