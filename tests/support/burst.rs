//! Clients that open at once with long cold prompts, through kimiq, against the simulator at its start limits.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use kimiq::simulator::{Options as Upstream, Simulator, declared};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::house::{House, ask};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    pub(crate) clients: usize,
    /// Prompt tokens of each client, all of them uncached.
    pub(crate) prompt: u64,
    /// Tokens of each answer.
    pub(crate) output: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) finished: usize,
    pub(crate) refused_by_upstream: usize,
    pub(crate) refused_by_kimiq: usize,
    /// From the first request to the end of the last answer.
    pub(crate) took: Duration,
    /// The shortest answer, from its admission to its end.
    pub(crate) shortest: Duration,
}

impl Burst {
    /// The least time in which an upstream with these windows can serve all, knowing everything: what fits into one
    /// window starts at once, the next lot when the charges of the first, made when its answers end, have left the
    /// window.
    pub(crate) fn least(&self, limit: u64, answer: Duration) -> Duration {
        let lots = (self.prompt * self.clients as u64).div_ceil(limit);
        answer + (Duration::from_mins(1) + answer) * u32::try_from(lots - 1).unwrap()
    }
}

pub(crate) async fn run(burst: Burst) -> Seen {
    let simulator = Simulator::start(Upstream::default(), &TaskTracker::new())
        .await
        .unwrap();
    let house = House::start(simulator.addr()).await;
    // As long as four bytes a token, which is what the simulator counts.
    let text = "word ".repeat(usize::try_from(burst.prompt).unwrap() * 4 / 5);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..burst.clients {
        let body = format!(
            r#"{{"model":"kimi-k2.6","stream":true,"prompt_cache_key":"session_{number}","messages":[{{"role":"user","content":"{number} {text}"}}]}}"#
        );
        let mut request = house.request("/p/up/v1/chat/completions", &body);
        for (name, value) in [
            (declared::OUTPUT_TOKENS, burst.output),
            (declared::PROMPT_TOKENS, burst.prompt),
        ] {
            request.headers_mut().insert(name, value.into());
        }
        let address = house.address;
        clients.spawn(async move {
            let answer = ask(address, request).await;
            let status = answer.status();
            answer.into_body().collect().await.expect("a whole answer");
            status
        });
    }
    let statuses = clients.join_all().await;
    let took = start.elapsed();
    let truth = simulator.truth();
    let durations = truth
        .iter()
        .filter(|it| it.status == 200)
        .map(|it| it.ended - it.arrival);
    Seen {
        finished: statuses.iter().filter(|it| **it == StatusCode::OK).count(),
        refused_by_upstream: truth.iter().filter(|it| it.status != 200).count(),
        refused_by_kimiq: statuses.iter().filter(|it| **it != StatusCode::OK).count(),
        took,
        shortest: Duration::from_secs_f64(durations.fold(f64::INFINITY, f64::min)),
    }
}
