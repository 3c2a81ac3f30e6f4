//! One pool: its logs, what is held, its queue, and what it has learned.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::limits::ask::{Budget, Class};
use crate::limits::bias::Bias;
use crate::limits::charging::Charging;
use crate::limits::foreign::Foreign;
use crate::limits::habits::Habits;
use crate::limits::hour::Hour;
use crate::limits::learn::Learned;
use crate::limits::margin::{BUSY_PERCENT, Brake, Caution, Margin};
use crate::limits::options::Options;
use crate::limits::queue::{LATE_BONUS, Queue, Spot, WHOLE, Waiting};
use crate::limits::requests::Requests;
use crate::limits::reserve::{Bounds, Outputs, Rest};
use crate::limits::room::{Room, Scan};
use crate::limits::rules::{self, Rules};
use crate::limits::tally::Use;
use crate::limits::window::{Log, Seq};

/// The budgets of the three logs, in their order.
pub(crate) const TOKEN_BUDGETS: [Budget; 3] = [Budget::Prompt, Budget::Uncached, Budget::Generated];

/// Stands for a budget that nobody named; far above any real one, far below overflow when multiplied.
pub(crate) const UNLIMITED: u64 = 1 << 50;

/// Streams are taken to be this much faster than those seen, percent: what comes sooner needs room sooner.
const SPEED_PERCENT: u64 = 110;
/// Part of a window by which those who fit may delay a head.
const GENEROUS: u32 = 4;
/// Retries that admissions earn, in thousandths: one in ten, ten at once.
const EARNED: u32 = 100;
const MOST_EARNED: u32 = 10_000;

/// Whether somebody may be able to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// It must be looked at.
    Unknown,
    /// Nobody before this instant, unless something happens.
    Until(Duration),
    /// Nobody, unless something happens.
    Always,
}

/// What may be taken, now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caps {
    /// By tokens that flow.
    pub(crate) flow: [u64; 3],
    /// By answers that ended. Their costs are no estimates, so the share kept free is a quarter.
    pub(crate) end: [u64; 3],
    /// Inside a sixth of the window, after 429s that nothing explains.
    pub(crate) inner: Option<[u64; 3]>,
}

/// A request that was sent: when, what was estimated, and what of its prompt the cache may hold or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) estimate: [u64; 2],
    pub(crate) hoped: u64,
}

/// Account and model.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) span: Duration,
    pub(crate) inner_span: Duration,
    pub(crate) at_end: [bool; 3],
    /// Parts of the limits that may be used, before others' use and doubt are taken off.
    shares: [u64; 3],
    pub(crate) caps: Caps,
    pub(crate) logs: [Log; 3],
    /// The same tokens counted when answers end; empty for budgets that no upstream charges so.
    pub(crate) ended: [Log; 3],
    /// What flowed more than a window ago for answers that still run.
    pub(crate) overdue: [u64; 3],
    /// Prompt tokens of requests that were admitted and not yet sent.
    pub(crate) held: [u64; 2],
    /// Sum of the expected rests of the answers in flight, and that of their variances.
    rest: (u64, u128),
    /// The mean with one deviation more.
    rest_held: u64,
    /// The reserve is the user's: it is held in full, whatever streams were seen to do.
    fixed: bool,
    /// Tokens per thousand seconds of one stream, on average.
    pub(crate) speed: u64,
    /// Estimates of what is in flight, whether held or logged.
    pub(crate) flying: [u64; 3],
    pub(crate) in_flight: usize,
    /// When sent requests will be overdue, and their numbers.
    pub(crate) aging: VecDeque<(Duration, u64)>,
    pub(crate) queue: Queue,
    /// The upstream is known for token budgets, so the start limits hold until it tells others.
    pub(crate) budgeted: bool,
    pub(crate) learned: Learned,
    pub(crate) charging: [Charging; 3],
    pub(crate) foreign: [Foreign; 3],
    /// Tokens of each budget that the upstream counts beyond our account.
    pub(crate) others: [u64; 3],
    /// Of the prompt budgets, how far estimates are off, and what was sent that no answer told of yet.
    pub(crate) bias: [Bias; 2],
    pub(crate) untold: VecDeque<Sent>,
    /// Tokens that the prompt cache may hold, or may not, of what is in flight, and of that part of it that was not sent.
    pub(crate) hoped: u64,
    pub(crate) hoped_held: u64,
    /// What the last answer told: when, and for each budget what was left.
    pub(crate) told: Option<(Duration, [Option<u64>; 3])>,
    pub(crate) margin: Margin,
    pub(crate) brake: Brake,
    pub(crate) caution: Caution,
    pub(crate) outputs: Outputs,
    pub(crate) habits: Habits,
    pub(crate) used: Use,
    pub(crate) hour: Hour,
    /// What the head was found to wait for.
    pub(crate) bound: Option<Budget>,
    /// The head and since when it is one.
    head: Option<((u64, u64), Duration)>,
    /// Until when nobody can go.
    pub(crate) quiet: Quiet,
    retries: u32,
    pub(crate) last_traffic: DateTime<Utc>,
}

impl Pool {
    pub(crate) fn new(options: &Options, now: Duration, wall: DateTime<Utc>) -> Self {
        let mut new = Self {
            span: options.span(),
            inner_span: options.span() / 6,
            at_end: options.charged_at_end.into_array(),
            shares: [0; 3],
            caps: Caps::default(),
            logs: Default::default(),
            ended: Default::default(),
            overdue: [0; 3],
            held: [0; 2],
            rest: (0, 0),
            rest_held: 0,
            fixed: options.output_reserve.is_some(),
            speed: 0,
            flying: [0; 3],
            in_flight: 0,
            aging: VecDeque::new(),
            queue: Queue::default(),
            budgeted: true,
            learned: Learned::default(),
            charging: Default::default(),
            foreign: Default::default(),
            others: [0; 3],
            bias: Default::default(),
            untold: VecDeque::new(),
            hoped: 0,
            hoped_held: 0,
            told: None,
            margin: Margin::new(options.ratio, options.window, now),
            brake: Brake::default(),
            caution: Caution::default(),
            outputs: Outputs::default(),
            habits: Habits::default(),
            used: Use::default(),
            hour: Hour::new(options.window),
            bound: None,
            head: None,
            quiet: Quiet::Unknown,
            retries: MOST_EARNED,
            last_traffic: wall,
        };
        new.refresh(options, now);
        new
    }

    /// What is documented for pools like this one.
    pub(crate) fn rules(&self) -> Option<&'static Rules> {
        rules::budgeted().filter(|_| self.budgeted)
    }

    /// What holds where nothing is learned.
    pub(crate) fn baseline(&self, options: &Options) -> [u64; 3] {
        let start = if self.budgeted {
            options.start.into_array()
        } else {
            [UNLIMITED; 3]
        };
        let ceilings = options.ceilings.into_array();
        std::array::from_fn(|d| ceilings[d].unwrap_or(start[d]))
    }

    /// Limits believed in; never above the user's.
    pub(crate) fn limits(&self, options: &Options) -> [u64; 3] {
        let base = self.baseline(options);
        let ceilings = options.ceilings.into_array();
        let learned = self.learned.limits();
        std::array::from_fn(|d| {
            learned[d]
                .unwrap_or(base[d])
                .min(ceilings[d].unwrap_or(u64::MAX))
        })
    }

    /// Which limits are the user's own rather than the upstream's.
    pub(crate) fn capped(&self, options: &Options) -> [bool; 3] {
        let ceilings = options.ceilings.into_array();
        let learned = self.learned.limits();
        std::array::from_fn(|d| {
            ceilings[d].is_some_and(|own| learned[d].is_none_or(|learned| own < learned))
        })
    }

    /// Forgets what is old, and finds what may be taken now. Call before reading sums.
    pub(crate) fn advance(&mut self, options: &Options, now: Duration) {
        self.expire(options, now);
        self.refresh(options, now);
        let (caps, rescue) = (self.caps.flow, self.rescue());
        if self
            .queue
            .advance(now, |waiting| price(waiting, &caps, now, rescue))
        {
            self.quiet = Quiet::Unknown;
        }
    }

    /// Forgets what is old.
    pub(crate) fn expire(&mut self, options: &Options, now: Duration) {
        for log in self.logs.iter_mut().chain(&mut self.ended) {
            log.expire(now, self.span);
        }
        for log in &mut self.logs {
            log.expire_inner(now, self.inner_span);
        }
        self.margin.roll(now);
        self.used.roll(now, options.window);
        while self
            .untold
            .front()
            .is_some_and(|sent| sent.at + self.span <= now)
        {
            self.untold.pop_front();
        }
    }

    /// Finds what may be taken now.
    pub(crate) fn refresh(&mut self, options: &Options, now: Duration) {
        let limits = self.limits(options);
        self.others = self.uncounted(&limits, options.window, now);
        self.shares = limits.map(|limit| self.margin.of(limit));
        self.caps.end = std::array::from_fn(|d| {
            let share = self.margin.of_truth(limits[d]);
            self.own(d, share, 0, now)
        });
        self.doubt_anew(options, now);
    }

    /// Takes off what estimates may be wrong by: each admission adds to it.
    pub(crate) fn doubt_anew(&mut self, options: &Options, now: Duration) {
        let doubt = self.doubt(options.window, now);
        self.caps.flow = std::array::from_fn(|d| self.own(d, self.shares[d], doubt[d], now));
        let cautious = self.caution.is_on(now);
        self.caps.inner = cautious.then(|| self.caution.inner(&self.caps.flow));
    }

    /// What of a share is ours, less so much. A tenth of it stays ours at the least: what is inferred of others may be
    /// wrong. After 429s that nothing explains it grows step by step.
    fn own(&self, d: usize, share: u64, less: u64, now: Duration) -> u64 {
        let left = share.saturating_sub(self.others[d] + less);
        let own = left.max(share / 10).max(1);
        if self.caution.is_on(now) {
            own.min(self.used.ramp(d).max(own / 2))
        } else {
            own
        }
    }

    /// Time before a prompt cache is lost in which its request is rescued.
    pub(crate) fn rescue(&self) -> Duration {
        self.span / 2
    }

    /// The upstream forgets its adaptive limits when idle, so what was learned is void.
    pub(crate) fn touch(&mut self, options: &Options, now: Duration, wall: DateTime<Utc>) {
        let reset = rules::budgeted().map_or(Duration::from_hours(72), Rules::reset);
        let idle = (wall - self.last_traffic).to_std().unwrap_or_default();
        if idle > reset {
            self.learned = Learned::default();
            self.margin = Margin::new(options.ratio, options.window, now);
            self.caution = Caution::default();
            self.charging = Default::default();
            self.refresh(options, now);
        }
        self.last_traffic = self.last_traffic.max(wall);
    }

    /// Tokens held for requests in flight.
    pub(crate) fn held(&self, d: usize) -> u64 {
        match d {
            2 => self.rest_held,
            _ => self.held[d],
        }
    }

    pub(crate) fn taken(&self, d: usize) -> u64 {
        self.logs[d].sum() + self.held(d)
    }

    /// What ended binds in this budget.
    pub(crate) fn binds_at_end(&self, d: usize) -> bool {
        self.at_end[d] && !self.charging[d].flows()
    }

    /// What flows binds in this budget.
    pub(crate) fn binds_as_it_flows(&self, d: usize) -> bool {
        !(self.at_end[d] && self.charging[d].ends())
    }

    /// Of the counts of a budget that bind the fuller one.
    pub(crate) fn fuller(&self, d: usize) -> u64 {
        let ended = self.ended[d].sum() + self.overdue[d];
        self.taken(d)
            .max(if self.binds_at_end(d) { ended } else { 0 })
    }

    /// What is taken of each budget. Of outputs only what came binds: an upstream refuses admissions for what it has counted,
    /// so what running answers bring later makes others wait and costs nothing. Their expected rests bind while no stream
    /// was seen, and where the user sets the reserve.
    pub(crate) fn flowing(&self) -> [u64; 3] {
        let held = self.held(2);
        let unseen = if self.fixed || self.speed == 0 {
            held
        } else {
            // What came in the last second is not counted yet: chunks and reports of them take their time.
            let speed = self.speed * SPEED_PERCENT / 100;
            (speed * self.in_flight as u64 / 1000).min(held)
        };
        [self.taken(0), self.taken(1), self.logs[2].sum() + unseen]
    }

    /// Who goes now; remembers until when nobody can.
    pub(crate) fn next(&mut self, requests: &Requests, now: Duration) -> Option<Spot> {
        match self.quiet {
            Quiet::Always => return None,
            Quiet::Until(at) if at > now => return None,
            Quiet::Until(_) | Quiet::Unknown => {}
        }
        let rest = self.brake.until();
        let scan = if self.queue.is_empty() {
            Scan::default()
        } else if rest > now || self.brake.waits_for_scout() {
            Scan {
                pick: None,
                wake: (rest > now).then_some(rest),
                bound: Some(Budget::Pause),
            }
        } else {
            let promise = self.promise(now);
            Room::new(self, now).scan(promise, requests)
        };
        self.bound = scan.bound;
        self.quiet = match (scan.pick, scan.wake) {
            (Some(_), _) => Quiet::Unknown,
            (None, Some(at)) => Quiet::Until(at),
            (None, None) => Quiet::Always,
        };
        scan.pick
    }

    /// Until when others may delay the head: it is a little generous, unless the head has waited long.
    fn promise(&mut self, now: Duration) -> Duration {
        let Some((spot, waiting)) = self.queue.candidates().next() else {
            return Duration::ZERO;
        };
        let late = waiting.is_late(now, self.rescue());
        let since = match self.head {
            Some((place, since)) if place == spot.place => since,
            _ => now,
        };
        self.head = Some((spot.place, since));
        if late {
            Duration::ZERO
        } else {
            since + self.span / GENEROUS
        }
    }

    pub(crate) fn spend(&mut self, d: usize, tokens: u64, now: Duration) -> Seq {
        self.used.spend(d, tokens);
        self.logs[d].push(now, tokens)
    }

    /// An answer's expected rest is another one now.
    pub(crate) fn expect(&mut self, before: Option<Rest>, after: Option<Rest>) {
        if let Some(rest) = before {
            self.rest.0 -= rest.mean;
            self.rest.1 -= u128::from(rest.variance);
        }
        if let Some(rest) = after {
            self.rest.0 += rest.mean;
            self.rest.1 += u128::from(rest.variance);
        }
        let (mean, variance) = self.rest;
        // Wide square roots are slow, and rarely needed.
        let sigma = u64::try_from(variance).map_or_else(
            |_| u64::try_from(variance.isqrt()).unwrap_or(u64::MAX >> 16),
            u64::isqrt,
        );
        self.rest_held = mean + sigma;
    }

    pub(crate) fn bounds(&self, fixed: Option<u64>, max_tokens: Option<u64>) -> Bounds {
        Bounds {
            fixed,
            max_tokens,
            cap: self.caps.flow[2],
        }
    }

    /// An answer streamed at this speed.
    pub(crate) fn clock(&mut self, speed: u64) {
        self.speed = if self.speed == 0 {
            speed
        } else {
            (self.speed * 7 + speed) / 8
        };
    }

    /// A request was admitted: it counts in the hour, and earns a part of a retry.
    pub(crate) fn admitted(&mut self, waiting: &Waiting, now: Duration) {
        if !waiting.again {
            let waited = now.saturating_sub(waiting.arrived);
            self.hour.admitted(&waiting.terminal, waited, now);
        }
        self.retries = (self.retries + EARNED).min(MOST_EARNED);
    }

    /// Takes a retry out of the budget, if there is one.
    pub(crate) fn retry(&mut self) -> bool {
        let left = self.retries.checked_sub(1000);
        self.retries = left.unwrap_or(self.retries);
        left.is_some()
    }

    /// Some budget is used enough for a clean window to mean something.
    pub(crate) fn is_busy(&self) -> bool {
        (0..3).any(|d| self.taken(d) * 100 >= self.caps.flow[d] * BUSY_PERCENT)
    }

    /// Nothing is queued, in flight, or counted.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_idle()
            && self.in_flight == 0
            && (0..3).all(|d| self.taken(d) + self.ended[d].sum() == 0)
    }
}

/// The service that a cost means, in shares of the budget that it strains most.
pub(crate) fn service(cost: &[u64; 3], caps: &[u64; 3], class: Class, weight: u32) -> i64 {
    let share = |d: usize| {
        // Far above any real need; a bound against overflow.
        let whole = cost[d].min(1 << 33) * WHOLE.unsigned_abs();
        whole / caps[d].max(1)
    };
    let share = share(0).max(share(1)).max(share(2)).min(1 << 60);
    // A person is waiting.
    let share = if class == Class::Interactive {
        share / 2
    } else {
        share
    };
    i64::try_from(share / u64::from(weight.max(1)))
        .unwrap_or(i64::MAX)
        .max(1)
}

/// Finds what a waiting request costs now, and how far before its turn it may go.
pub(crate) fn price(waiting: &mut Waiting, caps: &[u64; 3], now: Duration, rescue: Duration) {
    let whole = (waiting.expected[1] + waiting.cached).min(waiting.expected[0]);
    if waiting.expires.is_some_and(|at| at <= now) {
        waiting.cached = 0;
        waiting.expected[1] = whole;
    }
    if waiting.sure.is_some_and(|at| at <= now) || waiting.cached == 0 {
        waiting.need[1] = waiting.need[1].max(whole);
    }
    let of = |cost: &[u64; 3]| service(cost, caps, waiting.class, waiting.weight);
    waiting.cost = of(&waiting.expected);
    let mut cold = waiting.expected;
    cold[1] = cold[1].saturating_add(waiting.cached).min(cold[0]);
    let saved = of(&cold) - waiting.cost;
    let urgent = waiting.sure.is_some_and(|at| at <= now + rescue);
    waiting.bonus = if waiting.is_late(now, rescue) {
        LATE_BONUS
    } else if urgent {
        saved.saturating_mul(2)
    } else {
        saved
    };
}

/// Age of something saved; a stamp of the future, after the wall clock was set back, is of now.
pub(crate) fn age(wall: DateTime<Utc>, stamp: i64) -> Duration {
    Duration::from_millis(u64::try_from(wall.timestamp_millis() - stamp).unwrap_or(0))
}

/// A wall stamp of an instant.
pub(crate) fn stamp(at: Duration, now: Duration, wall: DateTime<Utc>) -> i64 {
    let ago = TimeDelta::from_std(now.saturating_sub(at)).unwrap_or(TimeDelta::MAX);
    let ahead = TimeDelta::from_std(at.saturating_sub(now)).unwrap_or(TimeDelta::MAX);
    wall.timestamp_millis() - ago.num_milliseconds() + ahead.num_milliseconds()
}
