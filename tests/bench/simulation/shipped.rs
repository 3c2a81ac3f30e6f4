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
    self, Ask, Budget, Decision, Ending, Id, Limiter, Moment, Options, RefusalKind, Ticket,
};
use kimiq::usage::{self, Asked, Content, Estimator, Guess, Prompt};
use tokio::time::Instant;

use super::load::{Job, MAX_TOKENS, count, normal, whole};
use super::policy::{Move, Policy, Told};
use super::upstream::Upstream;

/// Runs ahead of a prediction, as shipped.
const RUNS: u64 = 3;
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
    prompts: HashMap<usize, Prompt>,
    guesses: HashMap<usize, (Guess, Duration)>,
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
            prompts: HashMap::new(),
            guesses: HashMap::new(),
        }
    }

    /// Estimates the request and asks; a second time it does both anew, as the proxy does.
    fn ask(&mut self, job: &Job, again: Option<Ticket>, now: Duration) {
        let prompt = self.prompts.entry(job.id).or_insert_with(|| prompt(job));
        let session = job.agent.to_string();
        let asked = asked(&session, prompt);
        let guess = self.estimator.estimate(&asked, self.base + now);
        let factor = match self.error {
            Error::None => 1.0,
            Error::Unbiased => (0.15 * normal(&mut self.rng) - 0.15 * 0.15 / 2.0).exp(),
            Error::Low => 0.8,
        };
        let wrong = |tokens: u64| whole(count(tokens) * factor);
        let (terminal, class) = match self.order {
            Order::Shipped => (job.terminal.to_string(), job.class),
            Order::Fifo => (String::new(), limits::Class::Loop),
        };
        let ask = Ask {
            pool: self.pool.clone(),
            terminal: terminal.into(),
            session: session.into(),
            class,
            prompt: wrong(guess.estimate.prompt),
            uncached: wrong(guess.estimate.uncached),
            cached: wrong(guess.estimate.cached),
            cache_expires_in: guess.estimate.cache_expires_in,
            cache_sure_for: guess.estimate.cache_sure_for,
            max_tokens: Some(MAX_TOKENS),
            patience: PATIENCE,
            again,
            ..Ask::default()
        };
        self.guesses.insert(job.id, (guess, now));
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
                            if let Some((guess, at)) = self.guesses.get_mut(&job) {
                                guess.sent_after(now.saturating_sub(*at));
                            }
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
            Told::Asked(job) => self.ask(job, None, now),
            Told::Denied(job, seen) => {
                self.limiter.observe(&pool, seen, moment(now));
                let jitter = self.rng.u32(..500_000);
                let id = self.ids.get(&job.id).copied();
                self.limiter.throttled(&pool, id, None, jitter, moment(now));
                if self
                    .guesses
                    .get(&job.id)
                    .is_some_and(|(g, _)| g.estimate.cached > 0)
                {
                    self.estimator.refused(MODEL);
                }
                let ticket = id.and_then(|id| self.limiter.ticket(id));
                self.end(job, Ending::Refused, now);
                self.ask(job, ticket, now);
            }
            Told::Begun(job, seen) => {
                self.limiter.observe(&pool, seen, moment(now));
                if let Some(prompt) = self.prompts.get(&job.id) {
                    let session = job.agent.to_string();
                    let asked = asked(&session, prompt);
                    self.estimator.begun(&asked, self.base + now);
                }
            }
            Told::Streamed(job, tokens) => {
                let bytes = job.output_bytes * tokens / job.output;
                let told = self.estimator.output(MODEL, bytes);
                if let Some(&id) = self.ids.get(&job.id) {
                    self.limiter.streamed(id, told, moment(now));
                }
            }
            Told::Ended(job, tokens) => {
                self.end(job, Ending::Settled(tokens), now);
                let prompt = self.prompts.remove(&job.id);
                let guess = self.guesses.remove(&job.id);
                if let (Some(prompt), Some((guess, _))) = (prompt, guess) {
                    let session = job.agent.to_string();
                    self.estimator
                        .learn(&asked(&session, &prompt), &guess, tokens);
                }
                let (bytes, generated) = (job.output_bytes, tokens.generated);
                self.estimator.learn_output(MODEL, bytes, generated);
            }
            Told::Woken => self.limiter.tick(moment(now)),
        }
        self.decided(now, moves);
    }

    fn wake(&mut self, now: Duration) -> Option<Duration> {
        self.limiter
            .next_wake(moment(now))
            .map(|at| at.saturating_sub(origin()))
    }

    fn why(&self, job: usize, now: Duration) -> Option<Budget> {
        let wait = self.limiter.why(*self.ids.get(&job)?, moment(now))?;
        Some(wait.budget)
    }

    fn foresee(&self, now: Duration) -> Vec<(usize, [Duration; 2])> {
        let now = moment(now);
        let again = self.limiter.foresee(now, RUNS..RUNS + 1);
        let all = self.limiter.foresee(now, 0..RUNS).into_iter();
        let mut all: Vec<_> = all
            .filter_map(|(id, at)| {
                let both = [at, *again.get(&id)?];
                Some((
                    *self.jobs.get(&id)?,
                    both.map(|at| at.saturating_sub(now.at)),
                ))
            })
            .collect();
        all.sort_unstable();
        all
    }
}

/// The conversation as the proxy's scanner would tell it.
fn prompt(job: &Job) -> Prompt {
    let head = Content::of(usage::Class::Tools, job.head);
    let mut prompt = Prompt::new(1, head);
    for message in job.messages.iter() {
        let content = Content::of(usage::Class::Code, message.bytes);
        prompt.push(message.hash, content, message.by_model);
    }
    prompt
}

fn asked<'a>(session: &'a str, prompt: &'a Prompt) -> Asked<'a> {
    Asked {
        model: MODEL,
        place: MODEL,
        session,
        prompt,
        spawns: false,
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
