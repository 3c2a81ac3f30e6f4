//! The upstream: budgets, prompt caches and the pace of its answers, all exact and without a clock of its own.
//!
//! Three windows of a minute; the prompt is charged when a request is admitted, what was not cached then or when the
//! answer ends, and what was generated while it streams or when it ends. Two kinds of admission are documented nowhere and both exist here. A prompt's
//! prefix is cached from the first byte of the answer to it until its time is over.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kimiq::usage::{Dimensions, Observation, Tokens};

use super::load::{Job, count};

/// The length of a window.
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
/// Prefixes are cached in blocks of this many tokens.
const BLOCK: u64 = 64;
/// What a gateway that fell asleep at the start believes about generated tokens.
const STALE: u64 = 36_000;

/// When a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// A budget is used up.
    Used,
    /// A budget is used up or has no room for this request.
    Need,
}

/// What a minute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// The last sixty seconds.
    Rolling,
    /// What the clock says.
    Fixed,
}

/// When uncached and generated tokens are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// When the answer ends.
    AtEnd,
    /// Uncached tokens with the prompt, generated ones as they come.
    Streaming,
}

/// Unit of the limit headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Per minute.
    Minute,
    /// Per second until then, per minute after.
    SecondUntil(Duration),
}

/// How this upstream behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) limits: [u64; 3],
    pub(crate) admission: Admission,
    pub(crate) window: Window,
    pub(crate) charge: Charge,
    pub(crate) unit: Unit,
    /// One of eight gateways believes the start limit of generated tokens.
    pub(crate) stale: bool,
    /// Share of the budgets that another machine on the account uses, percent.
    pub(crate) foreign: u64,
    /// Limits rise by a quarter, at most this often, while more than half is used.
    pub(crate) step: Option<Duration>,
    /// A second window of ten seconds admits a quarter of the minute's limit.
    pub(crate) inner: bool,
    /// Seconds that a cached prefix lives, from and to.
    pub(crate) kept: (u64, u64),
    /// Replicas among which requests are spread by chance; each has its own cache.
    pub(crate) replicas: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            limits: [3_600_000, 900_000, 36_000],
            admission: Admission::Need,
            window: Window::Rolling,
            charge: Charge::Streaming,
            unit: Unit::Minute,
            stale: false,
            foreign: 0,
            step: None,
            inner: false,
            kept: (240, 480),
            replicas: 1,
        }
    }
}

/// What happens to a request that is admitted at some instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pub(crate) cached: u64,
    /// From the admission to the first byte.
    pub(crate) first: Duration,
    /// From the admission to the last.
    pub(crate) whole: Duration,
}

/// The tokens of one budget in its windows.
#[derive(Debug, Default)]
struct Count {
    entries: VecDeque<(Duration, u64)>,
    sum: u64,
    recent: VecDeque<(Duration, u64)>,
    recent_sum: u64,
    foreign: VecDeque<(Duration, u64)>,
    foreign_sum: u64,
    minute: u64,
    raised: Duration,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tokens: u64,
    usable: Duration,
    until: Duration,
}

/// The upstream's state.
#[derive(Debug)]
pub(crate) struct Upstream {
    rules: Rules,
    limits: [u64; 3],
    counts: [Count; 3],
    caches: HashMap<(usize, u64), Entry>,
    completed: Option<Duration>,
    /// Sum over minutes of the limit, for the share that was used.
    pub(crate) offered: [f64; 3],
}

impl Upstream {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            limits: rules.limits,
            counts: Default::default(),
            caches: HashMap::new(),
            completed: None,
            offered: [0.0; 3],
        }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn limits(&self) -> [u64; 3] {
        self.limits
    }

    /// Tokens that the account's terminals were charged so far.
    pub(crate) fn totals(&self) -> [u64; 3] {
        std::array::from_fn(|d| self.counts[d].total)
    }

    /// Tokens of the other machine in this minute.
    pub(crate) fn foreign(&self, d: usize) -> u64 {
        self.counts[d].foreign_sum
    }

    /// What would happen to `job` if it were admitted at `at`.
    pub(crate) fn course(&self, job: &Job, at: Duration) -> Course {
        let cached = match self.entry(job) {
            Some(entry) if entry.usable <= at && at < entry.until => {
                let prefix = entry.tokens.min(job.shared).min(job.prompt - 1);
                prefix / BLOCK * BLOCK
            }
            _ => 0,
        };
        let first = 0.35 + count(job.prompt - cached) / 15_000.0;
        let whole = first + count(job.output) / job.pace;
        Course {
            cached,
            first: Duration::from_secs_f64(first),
            whole: Duration::from_secs_f64(whole),
        }
    }

    /// When the session's cached prefix is lost, and how long it is.
    pub(crate) fn cached(&self, job: &Job) -> Option<(Duration, u64)> {
        let entry = self.entry(job)?;
        Some((entry.until, entry.tokens.min(job.shared)))
    }

    fn entry(&self, job: &Job) -> Option<&Entry> {
        self.caches
            .get(&(job.agent, job.dice % self.rules.replicas))
    }

    /// Admits the request and charges its prompt, or refuses it for a budget; the fourth is the inner window.
    pub(crate) fn offer(&mut self, job: &Job, now: Duration) -> Result<Course, usize> {
        self.roll(now);
        let course = self.course(job, now);
        let need = [job.prompt, job.prompt - course.cached, 0];
        for (d, count) in self.counts.iter().enumerate() {
            let limit = self.limit(job, d);
            let room = match self.rules.admission {
                Admission::Used => 0,
                Admission::Need => need[d],
            };
            if count.sum >= limit || count.sum + room > limit {
                return Err(d);
            }
            if self.rules.inner && count.recent_sum >= limit / 4 {
                return Err(3);
            }
        }
        self.charge(0, job.prompt, now);
        if self.rules.charge == Charge::Streaming {
            self.charge(1, job.prompt - course.cached, now);
        }
        Ok(course)
    }

    /// The first byte left.
    pub(crate) fn begun(&mut self, job: &Job, now: Duration) {
        let entry = Entry {
            tokens: job.prompt,
            usable: now,
            until: now + job.kept,
        };
        self.caches
            .insert((job.agent, job.dice % self.rules.replicas), entry);
    }

    /// So many tokens left.
    pub(crate) fn streamed(&mut self, tokens: u64, now: Duration) {
        if self.rules.charge == Charge::Streaming {
            self.charge(2, tokens, now);
        }
    }

    /// The answer ended.
    pub(crate) fn ended(&mut self, job: &Job, course: &Course, now: Duration) -> Tokens {
        if self.rules.charge == Charge::AtEnd {
            self.charge(1, job.prompt - course.cached, now);
            self.charge(2, job.output, now);
        }
        self.completed = Some(now);
        Tokens {
            prompt: job.prompt,
            cached: course.cached,
            generated: job.output,
            reasoning: 0,
        }
    }

    /// The other machine was served.
    pub(crate) fn use_elsewhere(&mut self, tokens: [u64; 3], now: Duration) {
        self.roll(now);
        for (d, amount) in tokens.into_iter().enumerate() {
            self.charge(d, amount, now);
            let count = &mut self.counts[d];
            count.total -= amount;
            count.foreign.push_back((now, amount));
            count.foreign_sum += amount;
        }
    }

    /// A minute is over.
    pub(crate) fn minute(&mut self, now: Duration) {
        for d in 0..3 {
            self.offered[d] += count(self.limits[d]);
            let count = &mut self.counts[d];
            let busy = std::mem::take(&mut count.minute) * 2 > self.limits[d];
            if let Some(step) = self.rules.step
                && busy
                && now >= count.raised + step
            {
                count.raised = now;
                self.limits[d] = (self.limits[d] * 5).div_ceil(4);
            }
        }
    }

    /// The headers of an answer to `job`.
    pub(crate) fn headers(&mut self, job: &Job, now: Duration) -> Observation {
        self.roll(now);
        let unit = match self.rules.unit {
            Unit::SecondUntil(until) if now < until => 60,
            _ => 1,
        };
        let spoken = self.completed.is_some_and(|at| now < at + MINUTE);
        let shown = |d: usize| d == 0 || spoken;
        let limit = |d: usize| shown(d).then(|| self.limit(job, d) / unit);
        let left = |d: usize| {
            shown(d).then(|| self.limit(job, d).saturating_sub(self.counts[d].sum) / unit)
        };
        Observation {
            limits: Dimensions::from_array(std::array::from_fn(limit)),
            remaining: Dimensions::from_array(std::array::from_fn(left)),
            over_limit: false,
        }
    }

    fn limit(&self, job: &Job, d: usize) -> u64 {
        if d == 2 && self.rules.stale && (job.dice >> 32).is_multiple_of(8) {
            STALE
        } else {
            self.limits[d]
        }
    }

    fn charge(&mut self, d: usize, amount: u64, now: Duration) {
        let count = &mut self.counts[d];
        count.entries.push_back((now, amount));
        count.sum += amount;
        count.recent.push_back((now, amount));
        count.recent_sum += amount;
        count.minute += amount;
        count.total += amount;
    }

    fn roll(&mut self, now: Duration) {
        let fixed = self.rules.window == Window::Fixed;
        let begun = Duration::from_secs(now.as_secs() / 60 * 60);
        for count in &mut self.counts {
            let over = |at: Duration| {
                if fixed {
                    at < begun
                } else {
                    now >= at + MINUTE
                }
            };
            drain(&mut count.entries, &mut count.sum, over);
            drain(&mut count.foreign, &mut count.foreign_sum, over);
            let old = |at: Duration| now >= at + MINUTE / 6;
            drain(&mut count.recent, &mut count.recent_sum, old);
        }
    }
}

fn drain(entries: &mut VecDeque<(Duration, u64)>, sum: &mut u64, over: impl Fn(Duration) -> bool) {
    while let Some((_, amount)) = entries.pop_front_if(|(at, _)| over(*at)) {
        *sum -= amount;
    }
}
