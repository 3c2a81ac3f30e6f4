//! The tables: which scenes and policies, what is printed of them, and what they must reach.

use std::time::Duration;

use super::load::{LONG, PROMPT};
use super::oracle::KINDS;
use super::play::{KIMIQ, SHAPES, Who, greedy, with_oracle, without};
use super::score::{BUDGETS, Score, quantile};
use super::shipped::{Error, Order};
use super::upstream::{Admission, Charge, Rules, Unit, Window};
use super::world::Scene;

/// How much to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) minutes: u64,
    pub(crate) seeds: u64,
}

/// What makes a table.
pub(crate) type Make = fn(Size) -> String;

/// The tables by name.
pub(crate) const TABLES: [(&str, Make); 7] = [
    ("turns", turns),
    ("upstreams", upstreams),
    ("minutes", fixed_minutes),
    ("estimates", estimates),
    ("fairness", fairness),
    ("waits", waits),
    ("oracles", oracles),
];

const TERMINALS: [usize; 5] = [1, 4, 8, 16, 64];

const POLICIES: [(&str, Who); 4] = [
    ("Kimi Code", Who::KimiCode),
    ("kimi-cli", Who::KimiCli),
    ("first seed", Who::FirstSeed),
    ("kimiq", KIMIQ),
];

/// Lines of a table, and what is not as it must be.
struct Table {
    lines: Vec<String>,
    misses: Vec<String>,
}

impl Table {
    fn new(title: &str, columns: &str) -> Self {
        let rule = "|---".repeat(columns.split(" | ").count());
        let lines = [
            String::new(),
            format!("## {title}"),
            String::new(),
            format!("| {columns} |"),
            format!("{rule}|"),
        ];
        Self {
            lines: lines.into(),
            misses: Vec::new(),
        }
    }

    /// A table of turns beside those of `beside`.
    fn of_turns(title: &str, beside: &str) -> Self {
        let columns = format!(
            "terminals | policy | turns | of {beside} | failed | upstream 429 per 1000 | client 429 \
             | wait p50 s | p95 s | Jain | cached | prompt used | uncached | generated"
        );
        Self::new(title, &columns)
    }

    fn row(&mut self, cells: &[String]) {
        self.lines.push(format!("| {} |", cells.join(" | ")));
    }

    fn turns(&mut self, name: &str, who: &str, score: &Score, beside: f64) {
        let [prompt, uncached, generated] = score.used.map(percent);
        self.row(&[
            name.to_owned(),
            who.to_owned(),
            format!("{:.0}", score.turns),
            format!("{:.1} %", 100.0 * score.turns / beside.max(1.0)),
            format!("{:.1}", score.failed),
            format!("{:.2}", score.denied_per_mille()),
            format!("{:.1}", score.seen),
            format!("{:.1}", score.wait(50, |_| true)),
            format!("{:.1}", score.wait(95, |_| true)),
            format!("{:.2}", score.jain),
            percent(score.hits),
            prompt,
            uncached,
            generated,
        ]);
    }

    fn must(&mut self, fine: bool, miss: String) {
        if !fine {
            self.misses.push(miss);
        }
    }

    /// What kimiq must keep whatever the upstream does.
    /// `unavoidable`: upstream 429 of a thousand requests that the oracle could not avoid either.
    fn must_be_quiet(&mut self, name: &str, score: &Score, unavoidable: f64) {
        let denied = score.denied_per_mille();
        self.must(
            score.failed < 0.1,
            format!("{name}: {:.1} failed turns", score.failed),
        );
        self.must(
            score.seen < 0.1,
            format!("{name}: {:.1} client 429", score.seen),
        );
        let [prompt, uncached, generated, inner] = score.denied_for;
        self.must(
            denied <= unavoidable + 1.0,
            format!(
                "{name}: {denied:.2} upstream 429 per 1000 (prompt {prompt:.1}, uncached {uncached:.1}, \
                 generated {generated:.1}, inner window {inner:.1})"
            ),
        );
    }

    fn text(self) -> String {
        let verdict = match self.misses.as_slice() {
            [] => "\nAll within the bounds.\n".to_owned(),
            misses => format!("\nOutside the bounds:\n- {}\n", misses.join("\n- ")),
        };
        self.lines.join("\n") + "\n" + &verdict
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A scene, its name, and whether kimiq must reach plain retries there.
struct Case {
    name: String,
    scene: Scene,
    beats_plain: bool,
}

/// Each policy on each scene, and the best oracle.
fn compare(title: &str, cases: &[Case], whos: &[(&str, Who)], size: Size, least: f64) -> String {
    let mut table = Table::of_turns(title, "the oracle");
    let scenes: Vec<Scene> = cases.iter().map(|case| case.scene.clone()).collect();
    let policies: Vec<Who> = whos.iter().map(|(_, who)| *who).collect();
    let all = with_oracle(&scenes, &policies, size.seeds);
    for (case, (scores, kind)) in cases.iter().zip(&all) {
        let name = &case.name;
        let Some(oracle) = scores.last() else {
            continue;
        };
        let names = whos.iter().map(|(who, _)| *who).chain([*kind]);
        let mut plain = 0.0;
        for (who, score) in names.zip(scores) {
            table.turns(name, who, score, oracle.turns);
            if who == "Kimi Code" {
                plain = score.turns;
            }
            if who != "kimiq" {
                continue;
            }
            let turns = score.turns;
            let share = turns / oracle.turns.max(1.0);
            table.must(
                share >= least,
                format!("{name}: {:.1} % of the oracle's turns", share * 100.0),
            );
            table.must(
                turns >= plain || !case.beats_plain,
                format!("{name}: {turns:.0} turns, Kimi Code alone {plain:.0}"),
            );
            table.must_be_quiet(name, score, oracle.denied_per_mille());
        }
    }
    table.text()
}

fn turns(size: Size) -> String {
    let table = |shape: super::load::Shape| {
        let cases = TERMINALS.map(|n| Case {
            name: n.to_string(),
            scene: Scene::new(shape, n, size.minutes),
            beats_plain: n <= 16,
        });
        compare(shape.name, &cases, &POLICIES, size, 0.97)
    };
    SHAPES.map(table).concat()
}

/// Upstreams of other kinds.
fn variants(minutes: u64) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |name: String, scene: Scene, change: &dyn Fn(&mut Rules)| {
        let mut scene = scene;
        change(&mut scene.rules);
        let beats_plain = scene.rules.limits == Rules::default().limits && scene.rules.foreign == 0;
        all.push(Case {
            name,
            scene,
            beats_plain,
        });
    };
    for shape in SHAPES {
        let name = |kind: &str| format!("16, {}, {kind}", shape.name);
        let scene = || Scene::new(shape, 16, minutes);
        add(name("refuses when used up"), scene(), &|r| {
            r.admission = Admission::Used;
        });
        add(name("charges at the end"), scene(), &|r| {
            r.charge = Charge::AtEnd;
        });
    }
    let scene = |n| Scene::new(PROMPT, n, minutes);
    add("16, inner window of 10 s".into(), scene(16), &|r| {
        r.inner = true;
    });
    add("16, another machine uses 40 %".into(), scene(16), &|r| {
        r.foreign = 40;
    });
    add("32, one of eight gateways stale".into(), scene(32), &|r| {
        r.limits = [11_250_000, 5_400_000, 216_000];
        r.stale = true;
    });
    add(
        "32, limits rise by a quarter in 5 min".into(),
        scene(32),
        &|r| {
            r.step = Some(Duration::from_mins(5));
        },
    );
    add(
        "16, headers per second, then per minute".into(),
        scene(16),
        &|r| {
            r.unit = Unit::SecondUntil(Duration::from_secs(minutes * 30));
        },
    );
    add("16, caches live 1 to 2 min".into(), scene(16), &|r| {
        r.kept = (60, 120);
    });
    add("64, caches live 1.5 to 3 min".into(), scene(64), &|r| {
        r.kept = (90, 180);
    });
    add("16, no affinity among 4 replicas".into(), scene(16), &|r| {
        r.replicas = 4;
    });
    all
}

const FEW: [(&str, Who); 3] = [
    ("Kimi Code", Who::KimiCode),
    ("first seed", Who::FirstSeed),
    ("kimiq", KIMIQ),
];

fn upstreams(size: Size) -> String {
    compare("Other upstreams", &variants(size.minutes), &FEW, size, 0.97)
}

fn fixed_minutes(size: Size) -> String {
    let mut cases = Vec::new();
    for shape in SHAPES {
        for n in [8, 16, 64] {
            let mut scene = Scene::new(shape, n, size.minutes);
            scene.rules.window = Window::Fixed;
            cases.push(Case {
                name: format!("{n}, {}", shape.name),
                scene,
                beats_plain: false,
            });
        }
    }
    compare("Fixed minutes", &cases, &FEW, size, 0.90)
}

fn estimates(size: Size) -> String {
    let whos = [
        ("kimiq", Error::None),
        ("kimiq, 15 % off", Error::Unbiased),
        ("kimiq, 20 % low", Error::Low),
    ];
    let mut table = Table::of_turns("Wrong estimates", "right ones");
    for shape in SHAPES {
        let scenes = TERMINALS.map(|n| Scene::new(shape, n, size.minutes));
        let policies = whos.map(|(_, error)| Who::Kimiq(error, Order::Shipped));
        let all = without(&scenes, &policies, size.seeds);
        for (n, scores) in TERMINALS.iter().zip(&all) {
            let right = scores[0].turns;
            for ((who, _), score) in whos.iter().zip(scores) {
                let name = format!("{n}, {}", shape.name);
                table.turns(&name, who, score, right);
                let name = format!("{name}, {who}");
                let share = score.turns / right.max(1.0);
                table.must(
                    share >= 0.97,
                    format!("{name}: {:.1} % of right ones", share * 100.0),
                );
                table.must_be_quiet(&name, score, 0.0);
            }
        }
    }
    table.text()
}

fn fairness(size: Size) -> String {
    let mut table = Table::new(
        "Eight terminals, the first with six subagents",
        "contexts | policy | turns | Jain | least of a terminal | most \
         | median wait of the other seven s | without the subagents | p95",
    );
    let whos = [
        (
            "kimiq in order of arrival",
            Who::Kimiq(Error::None, Order::Fifo),
        ),
        ("Kimi Code", Who::KimiCode),
        ("first seed", Who::FirstSeed),
        ("kimiq", KIMIQ),
    ];
    let policies = whos.map(|(_, who)| who);
    for shape in [LONG, PROMPT] {
        let scenes = [7, 1].map(|agents| greedy(shape, agents, size.minutes));
        let all = without(&scenes, &policies, size.seeds);
        let arrival = all[0][0].turns;
        for (index, (who, _)) in whos.iter().enumerate() {
            let (with, alone) = (&all[0][index], &all[1][index]);
            let others = |terminal: usize| terminal > 0;
            let [wait, before] = [with, alone].map(|score| score.wait(50, others));
            table.row(&[
                shape.name.to_owned(),
                (*who).to_owned(),
                format!("{:.0}", with.turns),
                format!("{:.2}", with.jain),
                format!("{:.0}", with.least),
                format!("{:.0}", with.most),
                format!("{wait:.1}"),
                format!("{before:.1}"),
                format!("{:.1}", with.wait(95, others)),
            ]);
            if *who != "kimiq" {
                continue;
            }
            let name = shape.name;
            // Where the others want less than their share, what they leave is the greedy one's.
            let full = shape.name == LONG.name;
            table.must(
                with.jain >= 0.90 || !full,
                format!("{name}: Jain {:.2}, not 0.90", with.jain),
            );
            table.must(
                wait <= before * 1.25 + 0.1 || !full,
                format!("{name}: the others wait {wait:.1} s, without the subagents {before:.1} s"),
            );
            table.must(
                with.turns >= arrival,
                format!(
                    "{name}: {:.0} turns, in order of arrival {arrival:.0}",
                    with.turns
                ),
            );
        }
    }
    table.text()
}

/// What order and pacing are worth to who knows everything.
fn oracles(size: Size) -> String {
    let mut table = Table::of_turns("Oracles by kind", "the first");
    for shape in SHAPES {
        let scene = [Scene::new(shape, 64, size.minutes)];
        let all = without(&scene, &KINDS.map(Who::Oracle), size.seeds);
        let name = format!("64, {}", shape.name);
        for (kind, score) in KINDS.iter().zip(&all[0]) {
            table.turns(&name, kind.name, score, all[0][0].turns);
        }
    }
    table.text()
}

fn waits(size: Size) -> String {
    let names = BUDGETS.map(|budget| budget.to_string()).join(", ");
    let columns = format!(
        "terminals | asked | waits | within 10 % | 20 % | 50 % | 20 % or 1 s | median error | p5 | p25 | p50 | p75 | p95 | for {names}"
    );
    let title = "Predicted waits: (actual - predicted) / actual";
    let mut table = Table::new(title, &columns);
    let mut cases = Vec::new();
    for shape in SHAPES {
        for n in [8, 16, 64] {
            cases.push((
                format!("{n}, {}", shape.name),
                Scene::new(shape, n, size.minutes),
            ));
        }
    }
    cases.push((
        "8 and six subagents".to_owned(),
        greedy(LONG, 7, size.minutes),
    ));
    let mut scenes: Vec<Scene> = cases.iter().map(|(_, scene)| scene.clone()).collect();
    for scene in &mut scenes {
        scene.watched = true;
    }
    let mut sums = [const { Vec::new() }; 3];
    for ((name, _), scores) in cases.iter().zip(without(&scenes, &[KIMIQ], size.seeds)) {
        let score = &scores[0];
        let whys = score.waited_for.map(|n| format!("{n:.0}")).join(", ");
        spread(&mut table, [name, "on joining", &whys], &score.etas);
        spread(&mut table, [name, "at some moment", ""], &score.later);
        sums[0].extend(score.etas.iter().copied());
        spread(&mut table, [name, "against chance", ""], &score.twice);
        sums[1].extend(score.later.iter().copied());
        sums[2].extend(score.twice.iter().copied());
    }
    spread(&mut table, ["all", "on joining", ""], &sums[0]);
    let share = spread(&mut table, ["all", "at some moment", ""], &sums[1]);
    spread(&mut table, ["all", "against chance", ""], &sums[2]);
    table.must(
        share >= 0.5,
        format!("half of the waits within 20 %: {:.0} %", share * 100.0),
    );
    table.text()
}

/// Adds the distribution of errors. Returns the share that is within a fifth.
fn spread(table: &mut Table, [name, asked, whys]: [&str; 3], pairs: &[(f64, f64)]) -> f64 {
    let errors: Vec<f64> = pairs
        .iter()
        .map(|(predicted, actual)| (actual - predicted) / actual.max(0.001))
        .collect();
    let within = |part: f64, least: f64| {
        let near = pairs
            .iter()
            .filter(|(p, a)| (a - p).abs() <= (part * a).max(least));
        let sizes = [near.count(), pairs.len().max(1)];
        let [near, all] = sizes.map(|n| f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
        near / all
    };
    let sizes = errors.iter().map(|error| error.abs()).collect();
    let mut cells = vec![
        name.to_owned(),
        asked.to_owned(),
        errors.len().to_string(),
        percent(within(0.1, 0.0)),
        percent(within(0.2, 0.0)),
        percent(within(0.5, 0.0)),
        percent(within(0.2, 1.0)),
        percent(quantile(sizes, 50)),
    ];
    cells.extend([5, 25, 50, 75, 95].map(|p| format!("{:+.2}", quantile(errors.clone(), p))));
    cells.push(whys.to_owned());
    table.row(&cells);
    within(0.2, 0.0)
}
