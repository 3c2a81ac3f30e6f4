//! The policy that is shipped: the real limiter and the real estimator, driven with simulated time.
//!
//! What the proxy does around them is repeated here in its shortest form: estimate, ask, send, observe each header, report what
//! streams, settle, learn; a request that the upstream refused goes back to its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use fastrand::Rng;
use kimiq::limits::{
    Ask, Budget, Class, Decision, Ending, Id, Limiter, Moment, Options, RefusalKind, Ticket,
};
use kimiq::usage::{Estimate, Estimator};
use tokio::time::Instant;

use super::load::{Job, MAX_TOKENS, count, normal, whole};
use super::policy::{Move, Policy, Told};
use super::upstream::Upstream;

const MODEL: &str = "m";
/// What Kimi Code and the Python clients wait for a first byte, less ten seconds.
const PATIENCE: Duration = Duration::from_secs(590);

/// What is wrong with the estimates, beyond what the estimator itself gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Nothing.
    None,
    /// Off by 15 % in the mean, in both directions.
    Unbiased,
    /// A fifth too low.
    Low,
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As shipped.
    Shipped,
    /// Every request seems to come from one terminal: order of arrival.
    Fifo,
}

/// The limiter, the estimator and what is between.
pub(crate) struct Shipped {
    limiter: Limiter,
    estimator: Estimator,
    base: Instant,
    error: Error,
    order: Order,
    rng: Rng,
    pool: Arc<str>,
    /// The limiter's numbers and ours.
    ids: HashMap<usize, Id>,
    jobs: HashMap<Id, usize>,
    estimates: HashMap<usize, Estimate>,
    answered: HashMap<usize, Duration>,
}

impl Shipped {
    pub(crate) fn new(seed: u64, error: Error, order: Order) -> Self {
        let options = Options {
            daily_cap: u64::MAX / 4,
            ..Options::default()
        };
        Self {
            limiter: Limiter::new(options, moment(Duration::ZERO)),
            estimator: Estimator::new(None),
            base: Instant::now(),
            error,
            order,
            rng: Rng::with_seed(seed ^ 0xe571),
            pool: "pool".into(),
            ids: HashMap::new(),
            jobs: HashMap::new(),
            estimates: HashMap::new(),
            answered: HashMap::new(),
        }
    }

    fn estimate(&mut self, job: &Job, now: Duration) -> Estimate {
        let session = job.agent.to_string();
        let told = self
            .estimator
            .estimate(MODEL, &session, job.bytes, self.base + now);
        let factor = match self.error {
            Error::None => 1.0,
            Error::Unbiased => (0.15 * normal(&mut self.rng) - 0.15 * 0.15 / 2.0).exp(),
            Error::Low => 0.8,
        };
        Estimate {
            prompt: whole(count(told.prompt) * factor),
            uncached: whole(count(told.uncached) * factor),
        }
    }

    fn ask(&mut self, job: &Job, estimate: Estimate, again: Option<Ticket>, now: Duration) {
        let terminal = match self.order {
            Order::Shipped => job.terminal.to_string(),
            Order::Fifo => String::new(),
        };
        let class = match self.order {
            Order::Shipped => job.class,
            Order::Fifo => Class::Loop,
        };
        let age = now.saturating_sub(self.answered.get(&job.agent).copied().unwrap_or_default());
        let ask = Ask {
            pool: self.pool.clone(),
            terminal: terminal.into(),
            session: job.agent.to_string().into(),
            class,
            prompt: estimate.prompt,
            uncached: estimate.uncached,
            cached: estimate.prompt - estimate.uncached,
            cache_expires_in: Duration::from_mins(5).checked_sub(age),
            max_tokens: Some(MAX_TOKENS),
            patience: PATIENCE,
            again,
            ..Ask::default()
        };
        let id = self.limiter.arrive(ask, moment(now));
        self.ids.insert(job.id, id);
        self.jobs.insert(id, job.id);
    }

    fn end(&mut self, job: &Job, ending: Ending, now: Duration) {
        if let Some(id) = self.ids.remove(&job.id) {
            self.jobs.remove(&id);
            self.limiter.end(id, ending, moment(now));
        }
    }

    fn decided(&mut self, now: Duration, moves: &mut Vec<Move>) {
        loop {
            let decisions = self.limiter.decisions();
            if decisions.is_empty() {
                return;
            }
            for decision in decisions {
                match decision {
                    Decision::Admit(id) => {
                        if let Some(&job) = self.jobs.get(&id) {
                            self.limiter.sent(id, moment(now));
                            moves.push(Move::Send(job));
                        }
                    }
                    Decision::Refuse(id, refusal) => {
                        if let Some(job) = self.jobs.remove(&id) {
                            self.ids.remove(&job);
                            let after = match refusal.kind {
                                RefusalKind::Full | RefusalKind::Queue { .. } => {
                                    Some(Duration::from_secs(refusal.retry_after))
                                }
                                _ => None,
                            };
                            moves.push(Move::Refuse(job, after));
                        }
                    }
                    Decision::WarnDaily { .. } => {}
                }
            }
        }
    }
}

impl Policy for Shipped {
    fn hear(&mut self, now: Duration, told: Told<'_>, _: &Upstream, moves: &mut Vec<Move>) {
        let pool = self.pool.clone();
        match told {
            Told::Asked(job) => {
                let estimate = self.estimate(job, now);
                self.estimates.insert(job.id, estimate);
                self.ask(job, estimate, None, now);
            }
            Told::Denied(job, seen) => {
                self.limiter.observe(&pool, seen, moment(now));
                let jitter = self.rng.u32(..500_000);
                self.limiter.throttled(&pool, None, jitter, moment(now));
                let ticket = self
                    .ids
                    .get(&job.id)
                    .and_then(|&id| self.limiter.ticket(id));
                self.end(job, Ending::Refused, now);
                self.ask(job, self.estimates[&job.id], ticket, now);
            }
            Told::Begun(_, seen) => self.limiter.observe(&pool, seen, moment(now)),
            Told::Streamed(job, tokens) => {
                let bytes = job.output_bytes * tokens / job.output;
                let told = self.estimator.output(MODEL, bytes);
                if let Some(&id) = self.ids.get(&job.id) {
                    self.limiter.streamed(id, told, moment(now));
                }
            }
            Told::Ended(job, tokens) => {
                self.estimates.remove(&job.id);
                self.answered.insert(job.agent, now);
                self.end(job, Ending::Settled(tokens), now);
                let session = job.agent.to_string();
                let at = self.base + now;
                self.estimator.learn(MODEL, &session, job.bytes, tokens, at);
            }
            Told::Woken => self.limiter.tick(moment(now)),
        }
        self.decided(now, moves);
    }

    fn wake(&self, now: Duration) -> Option<Duration> {
        self.limiter
            .next_wake(moment(now))
            .map(|at| at.saturating_sub(origin()))
    }

    fn why(&self, job: usize, now: Duration) -> Option<(Duration, Budget)> {
        let wait = self.limiter.why(*self.ids.get(&job)?, moment(now))?;
        Some((Duration::from_millis(wait.eta_ms), wait.budget))
    }
}

/// The limiter's own time does not start at zero.
fn origin() -> Duration {
    Duration::from_secs(200)
}

fn moment(now: Duration) -> Moment {
    let wall = DateTime::<Utc>::UNIX_EPOCH + now;
    Moment {
        at: origin() + now,
        wall,
    }
}
