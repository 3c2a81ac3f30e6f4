//! A deterministic simulation of many terminals on one account: what each policy is worth, in tables.
//!
//! No socket, no real time, seeded. `cargo bench --bench simulation` prints all tables, thirty simulated minutes with
//! five seeds each. `-- --only NAME` prints one: `turns`, `upstreams`, `minutes`, `estimates`, `fairness`, `waits` or
//! `oracles`; `--minutes N` and `--seeds N` change the size. `-- --write-baseline` writes what `tests/simulation.rs`
//! compares with. The turns of a table are model requests that were answered whole.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench prints, and tells how long it took"
)]

mod first_seed;
mod load;
mod oracle;
mod play;
mod policy;
mod score;
mod shipped;
mod tables;
mod upstream;
mod world;

use tables::{Size, TABLES};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).cloned()
    };
    let number = |flag: &str, default: u64| {
        after(flag)
            .and_then(|word| word.parse().ok())
            .unwrap_or(default)
    };
    let size = Size {
        minutes: number("--minutes", 30),
        seeds: number("--seeds", 5),
    };
    if words.iter().any(|word| word == "--write-baseline") {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/bench/simulation/baseline.toml"
        );
        std::fs::write(path, baseline()).unwrap();
        println!("wrote {path}");
        return;
    }
    let only = after("--only");
    for (name, table) in TABLES {
        if only.as_deref().is_none_or(|only| only == name) {
            let begun = tokio::time::Instant::now();
            println!("{}", table(size));
            println!("({name}: {:.1} s)", begun.elapsed().as_secs_f64());
        }
    }
}

fn baseline() -> String {
    let head = "# The short version: 6 to 12 simulated minutes, mean of 2 seeds.\n\
                # Written by `cargo bench --bench simulation -- --write-baseline`.\n";
    let line = |(name, score): (String, score::Score)| {
        let (turns, denied) = (score.turns, score.denied_per_mille());
        let (seen, jain) = (score.seen, score.jain);
        format!(
            "{name:?} = {{ turns = {turns:.1}, denied = {denied:.2}, seen = {seen:.1}, jain = {jain:.2} }}\n"
        )
    };
    let lines: String = play::short().into_iter().map(line).collect();
    head.to_owned() + &lines
}
