//! What the look at a request body costs, and how good the estimates are that come of it.
//!
//! `cargo bench --bench estimate` prints the speed. With `--features exact-counts` it also compares estimates with exact
//! counts: of conversations that it makes up, or of recorded bodies (`-- FOLDER ...`, one conversation each, in the
//! order of their names). The exact tokenizer is no part of the product and takes a minute to build.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, fails by panicking, and divides counts"
)]

#[path = "estimate/bodies.rs"]
mod bodies;
#[cfg(feature = "exact-counts")]
#[path = "estimate/exact.rs"]
mod exact;

use std::path::PathBuf;

use kimiq::usage::{Asked, Estimator};
use kimiq::wire::Scan;
use tokio::time::Instant;

/// How a body comes from the socket.
const CHUNK: usize = 64 * 1024;

fn main() {
    let folders: Vec<PathBuf> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(PathBuf::from)
        .collect();
    speed(&folders);
    #[cfg(feature = "exact-counts")]
    exact::report(&folders);
}

fn speed(folders: &[PathBuf]) {
    println!(
        "{:44} {:>9} {:>10} {:>8}",
        "look at a body", "bytes", "median us", "GB/s"
    );
    let prose = "Words of a long answer, with some \\\"quotes\\\" and a\\nline now and then. "
        .repeat(12_000);
    let long = format!(r#"{{"model":"k","messages":[{{"role":"user","content":"{prose}"}}]}}"#);
    let picture = "QUJDREVGR0hJ".repeat(70_000);
    let picture = format!(
        r#"{{"model":"k","messages":[{{"role":"user","content":[{{"image_url":{{"url":"data:image/png;base64,{picture}"}}}}]}}]}}"#
    );
    let mut bodies = vec![
        ("one long text".to_owned(), long.into_bytes()),
        ("one picture".to_owned(), picture.into_bytes()),
    ];
    let sessions = if folders.is_empty() {
        vec![bodies::generated(1, 60)]
    } else {
        folders
            .iter()
            .map(|folder| bodies::recorded(folder))
            .collect()
    };
    for session in sessions {
        let last = session.bodies.len() - 1;
        for (at, body) in session.bodies.into_iter().enumerate() {
            if at == 0 || at == last {
                bodies.push((format!("{}, request {}", session.name, at + 1), body));
            }
        }
    }
    for (name, body) in &bodies {
        let median = median(|| {
            let mut scan = Scan::default();
            body.chunks(CHUNK).for_each(|chunk| scan.feed(chunk));
            assert!(scan.finish().whole);
        });
        println!(
            "{name:44} {:9} {median:10.1} {:8.2}",
            body.len(),
            body.len() as f64 / median / 1e3
        );
    }
    let mut scan = Scan::default();
    scan.feed(&bodies.last().unwrap().1);
    let prompt = scan.finish().prompt;
    let asked = Asked {
        model: "k",
        place: "h/k",
        session: "s",
        prompt: &prompt,
        spawns: true,
    };
    let estimator = Estimator::new(None);
    estimator.begun(&asked, Instant::now());
    let estimate = median(|| {
        assert!(estimator.estimate(&asked, Instant::now()).estimate.cached > 0);
    });
    let begun = median(|| estimator.begun(&asked, Instant::now()));
    println!(
        "\nof a conversation of {} messages: estimate {estimate:.2} us, begun {begun:.2} us",
        prompt.links().len()
    );
}

/// Median time in microseconds of a few hundred runs.
fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..400)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
