//! Twenty clients that open at once with 60,000 cold prompt tokens each, in real time, through kimiq against the
//! simulator at its start limits: who is refused, and how long it takes beside the least that the budgets allow.
//!
//! `cargo bench --bench burst` runs it; it takes about a minute and a half.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, fails by panicking, and ends with its tasks"
)]

#[expect(dead_code, reason = "the tests of the proxy use the rest")]
#[path = "../support"]
mod support {
    pub(crate) mod burst;
    pub(crate) mod house;
}

use support::burst::{Burst, run};

fn main() {
    let burst = Burst {
        clients: 20,
        prompt: 60_000,
        output: 300,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let seen = runtime.block_on(run(burst));
    let least = burst.least(900_000, seen.shortest);
    println!("finished {} of {}", seen.finished, burst.clients);
    println!(
        "429 from the upstream {}, refused by kimiq {}",
        seen.refused_by_upstream, seen.refused_by_kimiq
    );
    let ratio = seen.took.as_secs_f64() / least.as_secs_f64();
    println!(
        "took {:.1} s, least possible {:.1} s, ratio {ratio:.3}",
        seen.took.as_secs_f64(),
        least.as_secs_f64()
    );
    assert_eq!((seen.refused_by_upstream, seen.refused_by_kimiq), (0, 0));
}
