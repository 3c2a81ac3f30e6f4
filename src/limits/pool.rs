//! One pool: its three logs, what is held, its queue, and what it has learned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::limits::ask::Budget;
use crate::limits::learn::Learned;
use crate::limits::margin::{BUSY_PERCENT, Brake, Margin};
use crate::limits::options::Options;
use crate::limits::requests::Requests;
use crate::limits::reserve::Outputs;
use crate::limits::saved::SavedPool;
use crate::limits::snapshot::{PoolView, Wait};
use crate::limits::window::{Log, Outlook};
use crate::usage::Dimensions;

/// The budgets of the three logs, in their order.
pub(crate) const TOKEN_BUDGETS: [Budget; 3] = [Budget::Prompt, Budget::Uncached, Budget::Generated];

/// Place in the queue: order of first arrival, then number of the request.
pub(crate) type Place = (u64, u64);

/// A request in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) terminal: Arc<str>,
    pub(crate) need: [u64; 3],
    pub(crate) max_tokens: Option<u64>,
    pub(crate) arrived: Duration,
    pub(crate) deadline: Duration,
}

/// Stands for a budget that nobody named; far above any real one, far below overflow when multiplied.
pub(crate) const UNLIMITED: u64 = 1 << 50;

/// Account and model.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) logs: [Log; 3],
    /// The same tokens counted when answers end; empty for budgets that no upstream charges so.
    pub(crate) ended: [Log; 3],
    pub(crate) held: [u64; 3],
    /// Estimates of what is in flight, whether held or logged.
    pub(crate) flying: [u64; 3],
    pub(crate) in_flight: usize,
    queue: BTreeMap<Place, Waiting>,
    /// Sum of the needs in the queue.
    demand: [u64; 3],
    /// The upstream is known for token budgets, so the start limits hold until it tells others.
    pub(crate) budgeted: bool,
    pub(crate) learned: Learned,
    pub(crate) margin: Margin,
    pub(crate) brake: Brake,
    pub(crate) outputs: Outputs,
    pub(crate) last_traffic: DateTime<Utc>,
}

impl Pool {
    pub(crate) fn new(options: &Options, now: Duration, wall: DateTime<Utc>) -> Self {
        Self {
            logs: Default::default(),
            ended: Default::default(),
            held: [0; 3],
            flying: [0; 3],
            in_flight: 0,
            queue: BTreeMap::new(),
            demand: [0; 3],
            budgeted: true,
            learned: Learned::default(),
            margin: Margin::new(options.ratio, options.window, now),
            brake: Brake::default(),
            outputs: Outputs::default(),
            last_traffic: wall,
        }
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

    /// Limits times ratio.
    pub(crate) fn caps(&self, options: &Options) -> [u64; 3] {
        self.limits(options).map(|limit| self.margin.of(limit))
    }

    /// Forgets what is old. Call before reading sums.
    pub(crate) fn advance(&mut self, options: &Options, now: Duration) {
        let span = options.span();
        for log in self.logs.iter_mut().chain(&mut self.ended) {
            log.expire(now, span);
        }
        self.margin.roll(now);
    }

    /// The upstream forgets its adaptive limits after 72 idle hours (Fireworks docs), so what was learned is void.
    pub(crate) fn touch(&mut self, options: &Options, now: Duration, wall: DateTime<Utc>) {
        if wall - self.last_traffic > TimeDelta::hours(72) {
            self.learned = Learned::default();
            self.margin = Margin::new(options.ratio, options.window, now);
        }
        self.last_traffic = self.last_traffic.max(wall);
    }

    pub(crate) fn taken(&self, d: usize) -> u64 {
        self.logs[d].sum() + self.held[d]
    }

    /// Some budget is used enough for a clean window to mean something.
    pub(crate) fn is_busy(&self, caps: &[u64; 3]) -> bool {
        (0..3).any(|d| self.taken(d) * 100 >= caps[d] * BUSY_PERCENT)
    }

    /// Some budget is used beyond its cap: a 429 is no surprise.
    pub(crate) fn is_overdrawn(&self, caps: &[u64; 3]) -> bool {
        (0..3).any(|d| self.taken(d).max(self.ended[d].sum()) > caps[d])
    }

    /// Nothing is queued, in flight, or counted.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.in_flight == 0
            && (0..3).all(|d| self.taken(d) + self.ended[d].sum() == 0)
    }

    /// All budgets have room for this need. One above a limit runs when that budget is empty.
    pub(crate) fn fits(&self, need: &[u64; 3], caps: &[u64; 3]) -> bool {
        (0..3).all(|d| {
            let taken = self.taken(d).max(self.ended[d].sum());
            need[d] == 0 || taken + need[d] <= caps[d] || (need[d] > caps[d] && taken == 0)
        })
    }

    /// When the head fits if no hold in flight changes; `None` if only a change can make it fit.
    pub(crate) fn head_fits_at(
        &self,
        caps: &[u64; 3],
        span: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let (_, head) = self.head()?;
        let mut at = now.max(self.brake.until());
        for (d, &cap) in caps.iter().enumerate() {
            let need = head.need[d].min(cap);
            let counts = [
                (&self.logs[d], self.taken(d)),
                (&self.ended[d], self.ended[d].sum()),
            ];
            for (log, taken) in counts {
                let missing = (taken + need).saturating_sub(cap);
                if need > 0 && missing > 0 {
                    at = at.max(log.free_at(missing, span)?);
                }
            }
        }
        Some(at)
    }

    pub(crate) fn head(&self) -> Option<(Place, &Waiting)> {
        self.queue
            .first_key_value()
            .map(|(place, waiting)| (*place, waiting))
    }

    pub(crate) fn queue(&self) -> &BTreeMap<Place, Waiting> {
        &self.queue
    }

    pub(crate) fn enqueue(&mut self, place: Place, waiting: Waiting) {
        for d in 0..3 {
            self.demand[d] += waiting.need[d];
        }
        self.queue.insert(place, waiting);
    }

    pub(crate) fn dequeue(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.queue.remove(&place)?;
        for d in 0..3 {
            self.demand[d] -= waiting.need[d];
        }
        Some(waiting)
    }

    /// Why one request waits. For the last in the queue the sum of all needs is at hand.
    pub(crate) fn wait_of(
        &self,
        place: Place,
        options: &Options,
        requests: &Requests,
        now: Duration,
    ) -> Option<Wait> {
        let waiting = self.queue.get(&place)?;
        let last = self
            .queue
            .last_key_value()
            .is_some_and(|(p, _)| *p == place);
        let (ahead, demand) = if last {
            (self.queue.len() - 1, self.demand)
        } else {
            let mut sum = waiting.need;
            let mut ahead = 0;
            for one in self.queue.range(..place).map(|(_, one)| one) {
                (0..3).for_each(|d| sum[d] += one.need[d]);
                ahead += 1;
            }
            (ahead, sum)
        };
        let mut outlook = self.outlook(options, now);
        Some(self.explain(waiting, ahead, demand, &mut outlook, requests, now))
    }

    /// Why each request waits, in order.
    pub(crate) fn waits<'a>(
        &'a self,
        options: &'a Options,
        requests: &'a Requests,
        now: Duration,
    ) -> impl Iterator<Item = (Place, &'a Waiting, Wait)> + use<'a> {
        let mut outlook = self.outlook(options, now);
        let mut demand = [0; 3];
        self.queue
            .iter()
            .enumerate()
            .map(move |(ahead, (place, waiting))| {
                (0..3).for_each(|d| demand[d] += waiting.need[d]);
                let wait = self.explain(waiting, ahead, demand, &mut outlook, requests, now);
                (*place, waiting, wait)
            })
    }

    /// Both counts of each budget. Prompts in flight, which tend to come in bursts, will count at their end; outputs end
    /// as steadily as older ones leave the window (with them, estimates were 60 % too high in simulation).
    fn outlook(&self, options: &Options, now: Duration) -> [[Outlook<'_>; 2]; 3] {
        let caps = self.caps(options);
        let span = options.span();
        let at_end = options.charged_at_end.into_array();
        std::array::from_fn(|d| {
            let flying = if at_end[d] && d < 2 {
                self.flying[d]
            } else {
                0
            };
            [
                Outlook::new(&self.logs[d], self.held[d], caps[d], now, span),
                Outlook::new(&self.ended[d], flying, caps[d], now, span),
            ]
        })
    }

    fn explain(
        &self,
        waiting: &Waiting,
        ahead: usize,
        demand: [u64; 3],
        outlook: &mut [[Outlook<'_>; 2]; 3],
        requests: &Requests,
        now: Duration,
    ) -> Wait {
        let turns = u32::try_from(ahead).unwrap_or(u32::MAX);
        let mut at = requests.ready_at().max(now) + requests.interval().saturating_mul(turns);
        let mut budget = Budget::Requests;
        let mut missing = ahead as u64 + 1;
        for (d, counts) in outlook.iter_mut().enumerate() {
            for ahead_of in counts.iter_mut().filter(|_| waiting.need[d] > 0) {
                let when = ahead_of.at(demand[d]);
                let lacks = ahead_of.missing(demand[d]);
                if when > at || (when == at && budget == Budget::Requests && lacks > 0) {
                    (at, budget, missing) = (when, TOKEN_BUDGETS[d], lacks);
                }
            }
        }
        if self.brake.until() > at {
            (at, budget, missing) = (self.brake.until(), Budget::Pause, 0);
        }
        Wait {
            place: ahead + 1,
            budget,
            missing,
            eta_ms: millis(at.saturating_sub(now)),
            waited_ms: millis(now.saturating_sub(waiting.arrived)),
        }
    }

    pub(crate) fn view(&self, name: &str, options: &Options, now: Duration) -> PoolView {
        let caps = self.caps(options);
        // Of the two counts of a budget the fuller one is shown.
        let taken: [u64; 3] = std::array::from_fn(|d| self.taken(d).max(self.ended[d].sum()));
        let percents: [u64; 3] = std::array::from_fn(|d| taken[d] * 100 / caps[d]);
        // The first of the tightest.
        let binding = (1..3).fold(0, |best, d| {
            if percents[d] > percents[best] {
                d
            } else {
                best
            }
        });
        PoolView {
            name: name.to_owned(),
            limits: Dimensions::from_array(self.limits(options)),
            learned: Dimensions::from_array(self.learned.limits().map(|l| l.is_some())),
            ratio_ppm: self.margin.ppm(),
            effective: Dimensions::from_array(caps),
            used: Dimensions::from_array(std::array::from_fn(|d| taken[d] - self.held[d])),
            held: Dimensions::from_array(self.held),
            binding: TOKEN_BUDGETS[binding],
            percent: percents[binding],
            in_flight: self.in_flight,
            waiting: self.queue.len(),
            paused_ms: millis(self.brake.until().saturating_sub(now)),
        }
    }

    pub(crate) fn saved(
        &self,
        name: &str,
        options: &Options,
        now: Duration,
        wall: DateTime<Utc>,
    ) -> SavedPool {
        let stamp = |at: Duration| wall.timestamp_millis() - signed_millis(now.saturating_sub(at));
        let save = |log: &Log, pending: u64| -> Vec<(i64, u64)> {
            log.entries()
                .chain([(now, pending)])
                .filter(|&(_, amount)| amount > 0)
                .map(|(at, amount)| (stamp(at), amount))
                .collect()
        };
        let at_end = options.charged_at_end.into_array();
        let logs = std::array::from_fn(|d| save(&self.logs[d], self.held[d]));
        let ended = std::array::from_fn(|d| {
            save(&self.ended[d], if at_end[d] { self.flying[d] } else { 0 })
        });
        SavedPool {
            name: name.to_owned(),
            learned: Dimensions::from_array(self.learned.limits()),
            ratio_ppm: self.margin.ppm(),
            last_traffic: self.last_traffic,
            outputs: self.outputs.samples().collect(),
            logs: Dimensions::from_array(logs),
            ended: Dimensions::from_array(ended),
        }
    }

    /// Takes over what an earlier process saved and what still counts.
    pub(crate) fn restore(
        &mut self,
        saved: SavedPool,
        span: Duration,
        now: Duration,
        wall: DateTime<Utc>,
    ) {
        self.last_traffic = saved.last_traffic.min(wall);
        self.learned.restore(saved.learned.into_array());
        self.margin.restore(saved.ratio_ppm);
        for output in saved.outputs {
            self.outputs.learn(output);
        }
        let logs = self.logs.iter_mut().zip(saved.logs.into_array());
        let ended = self.ended.iter_mut().zip(saved.ended.into_array());
        for (log, entries) in logs.chain(ended) {
            for (stamp, amount) in entries {
                // A stamp of the future, after the wall clock was set back, counts as spent now.
                let age = u64::try_from(wall.timestamp_millis() - stamp).unwrap_or(0);
                let age = Duration::from_millis(age);
                if age < span {
                    log.push(now.saturating_sub(age), amount);
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn signed_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
