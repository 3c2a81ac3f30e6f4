//! Why something waits and for how long: the queue's order laid against what each budget will free.
//!
//! The head's time is exact unless something in flight changes. For those behind it the expected costs of all that go
//! before are summed, and each budget tells when that sum has fitted. That is the quick answer, for who decides whether
//! to wait at all; who asks gets the time that was foretold by running ahead, see `foresee`.

use std::time::Duration;

use crate::limits::ask::Budget;
use crate::limits::foreign::Foreign;
use crate::limits::foresee::Foretold;
use crate::limits::limiter::{Id, Limiter, Moment};
use crate::limits::options::Options;
use crate::limits::pool::{Pool, TOKEN_BUDGETS, UNLIMITED};
use crate::limits::queue::{Spot, Waiting};
use crate::limits::requests::Requests;
use crate::limits::room::Room;
use crate::limits::snapshot::{Ladder, PoolView, QueueView, RequestsView, Snapshot, Wait};
use crate::limits::window::Outlook;
use crate::usage::Dimensions;
use crate::usage::figures::Share;

/// Terminals that are named of those which go before a request.
const NAMED: usize = 3;

/// Every budget's future, for growing demands.
struct Future<'a> {
    accounts: [[Outlook<'a>; 2]; 3],
    now: Duration,
}

impl<'a> Future<'a> {
    /// Prompts in flight, which tend to come in bursts, will count at their end; outputs end as steadily as older ones
    /// leave the window (with them, estimates were 60 % too high in simulation).
    fn new(pool: &'a Pool, now: Duration) -> Self {
        let flowing = pool.flowing();
        let accounts = std::array::from_fn(|d| {
            let flying = if d < 2 { pool.flying[d] } else { 0 };
            let held = flowing[d].saturating_sub(pool.logs[d].sum());
            let flow = || Outlook::new(&pool.logs[d], held, pool.caps.flow[d], now, pool.span);
            let end = || Outlook::new(&pool.ended[d], flying, pool.caps.end[d], now, pool.span);
            match (pool.binds_as_it_flows(d), pool.binds_at_end(d)) {
                (true, true) => [flow(), end()],
                (false, true) => [end(), end()],
                (_, false) => [flow(), flow()],
            }
        });
        Self { accounts, now }
    }

    /// When a request that needs `own` can go after `before`, for which budget it waits longest, and what is missing.
    fn of(&mut self, before: &[u64; 3], own: &[u64; 3]) -> (Duration, Budget, u64) {
        let mut worst = (self.now, Budget::Requests, 0);
        for d in (0..3).filter(|&d| own[d] > 0) {
            let demand = before[d] + own[d];
            for account in &mut self.accounts[d] {
                let lacks = account.missing(demand);
                let at = account.at(demand);
                if lacks > 0 && (at > worst.0 || worst.2 == 0) {
                    worst = (at, TOKEN_BUDGETS[d], lacks);
                }
            }
        }
        worst
    }
}

impl Pool {
    /// Why one request waits.
    pub(crate) fn wait_of(
        &self,
        spot: Spot,
        requests: &Requests,
        foretold: &Foretold,
        now: Duration,
    ) -> Option<Wait> {
        self.waits(requests, foretold, now)
            .into_iter()
            .find_map(|(one, _, wait)| (one == spot).then_some(wait))
    }

    /// By when the last in the queue will be served: a quick look.
    pub(crate) fn latest(&self, requests: &Requests, now: Duration) -> Duration {
        let count = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let rate = requests.ready_at().max(now) + requests.interval().saturating_mul(count);
        let expected = self.queue.expected();
        let most = std::array::from_fn(|d| expected[d] + self.caps.flow[d] / 4);
        let (at, ..) = Future::new(self, now).of(&most, &[1; 3]);
        at.max(rate).max(self.brake.until())
    }

    /// Why each request waits, in the order in which they will probably go.
    pub(crate) fn waits(
        &self,
        requests: &Requests,
        foretold: &Foretold,
        now: Duration,
    ) -> Vec<(Spot, &Waiting, Wait)> {
        let mut future = Future::new(self, now);
        let room = Room::new(self, now);
        let mut before = [0; 3];
        let mut behind: Vec<String> = Vec::new();
        let all = self.queue.all().into_iter().enumerate();
        all.map(|(ahead, (_, spot, waiting))| {
            let turns = u32::try_from(ahead).unwrap_or(u32::MAX);
            let mut wait = (
                requests.ready_at().max(now) + requests.interval().saturating_mul(turns),
                Budget::Requests,
                ahead as u64 + 1,
            );
            let (at, budget, missing) = future.of(&before, &waiting.need);
            if missing > 0 && at >= wait.0 {
                wait = (at, budget, missing);
            }
            if ahead == 0
                && let Some(block) = room.block(&waiting.need)
            {
                wait = (block.until.unwrap_or(at), block.budget, block.missing);
            }
            if self.brake.until() > wait.0 {
                wait = (self.brake.until(), Budget::Pause, 0);
            } else if self.brake.waits_for_scout() {
                wait = (now, Budget::Pause, 0);
            }
            if let Some(told) = foretold.of(spot.place.1).filter(|&at| at > now) {
                wait.0 = told.max(self.brake.until());
            }
            (0..3).for_each(|d| before[d] += waiting.expected[d]);
            let ours = behind.clone();
            if behind.len() < NAMED && !behind.iter().any(|name| **name == *waiting.terminal) {
                behind.push(waiting.terminal.to_string());
            }
            let wait = Wait {
                place: ahead + 1,
                budget: wait.1,
                missing: wait.2,
                eta_ms: millis(wait.0.saturating_sub(now)),
                waited_ms: millis(now.saturating_sub(waiting.arrived)),
                behind: ours,
                running: self.in_flight,
            };
            (spot, waiting, wait)
        })
        .collect()
    }

    pub(crate) fn view(&self, name: &str, options: &Options, now: Duration) -> PoolView {
        let caps = self.caps.flow;
        let limits = self.limits(options);
        let taken: [u64; 3] = std::array::from_fn(|d| self.fuller(d));
        let percents: [u64; 3] = std::array::from_fn(|d| taken[d] * 100 / caps[d].max(1));
        // The first of the tightest.
        let binding = (1..3).fold(0, |best, d| {
            if percents[d] > percents[best] {
                d
            } else {
                best
            }
        });
        let rules = self.rules();
        PoolView {
            name: name.to_owned(),
            limits: Dimensions::from_array(limits),
            learned: Dimensions::from_array(self.learned.limits().map(|l| l.is_some())),
            ratio_ppm: self.margin.ppm(),
            effective: Dimensions::from_array(caps),
            used: Dimensions::from_array(std::array::from_fn(|d| taken[d] - self.held(d))),
            held: Dimensions::from_array(std::array::from_fn(|d| self.held(d))),
            binding: TOKEN_BUDGETS[binding],
            percent: Share::of(taken[binding], caps[binding]),
            in_flight: self.in_flight,
            waiting: self.queue.len(),
            paused_ms: millis(self.brake.until().saturating_sub(now)),
            scouting: self.brake.waits_for_scout(),
            foreign: Dimensions::from_array(std::array::from_fn(|d| {
                Foreign::told(self.others[d], limits[d])
            })),
            unit_unsure: self.learned.is_guess(),
            cautious_ms: millis(self.caution.until().saturating_sub(now)),
            capped: Dimensions::from_array(self.capped(options)),
            hour: self.hour.view(now),
            ladder: self.ladder(name, &limits, now),
            rules_of: rules.map(|rules| format!("{} {}", rules.name, rules.as_of)),
        }
    }

    /// How the limits will rise. What the user set is no business of the upstream's.
    fn ladder(&self, name: &str, limits: &[u64; 3], now: Duration) -> Option<Dimensions<Ladder>> {
        let rules = self.rules()?;
        let ceilings = rules.ceiling(name)?;
        let last = self.used.last();
        let rose = self.learned.rose();
        let steps = std::array::from_fn(|d| {
            let steps = rules.rise.steps(limits[d], ceilings[d]);
            let due = rose[d].map_or(now, |at| at + rules.rise.every());
            let next = due.saturating_sub(now);
            let further = rules.rise.every() * steps.saturating_sub(1);
            Ladder {
                ceiling: ceilings[d],
                steps,
                enough: last[d] * 100 > limits[d] * rules.rise.above_percent,
                next_ms: if steps == 0 { 0 } else { millis(next) },
                ceiling_ms: if steps == 0 {
                    0
                } else {
                    millis(next + further)
                },
            }
        });
        Some(Dimensions::from_array(steps))
    }
}

impl PoolView {
    /// What may be used of each token budget; nothing where no limit is known.
    pub fn usable(&self) -> [Option<u64>; 3] {
        let (usable, limits) = (self.effective.into_array(), self.limits.into_array());
        std::array::from_fn(|d| (limits[d] < UNLIMITED).then_some(usable[d]))
    }
}

impl Limiter {
    /// Why a request waits; `None` when it does not.
    pub fn why(&self, id: Id, now: Moment) -> Option<Wait> {
        let (pool, spot) = self.queued.get(&id)?;
        let pool = self.pools.get(pool)?;
        pool.wait_of(*spot, &self.requests, &self.foretold, now.at)
    }

    /// A request of this terminal waits.
    pub fn has_waiting(&self, terminal: &str) -> bool {
        let mut pools = self.pools.values();
        pools.any(|pool| pool.queue.oldest_of(terminal).is_some())
    }

    /// Why the oldest waiting request of a terminal waits.
    pub fn wait_of(&self, terminal: &str, now: Moment) -> Option<Wait> {
        let (pool, spot) = self
            .pools
            .values()
            .filter_map(|pool| Some((pool, pool.queue.oldest_of(terminal)?)))
            .min_by_key(|(_, spot)| spot.place)?;
        pool.wait_of(spot, &self.requests, &self.foretold, now.at)
    }

    /// Everything at this instant.
    pub fn snapshot(&mut self, now: Moment) -> Snapshot {
        self.daily.roll(now.wall);
        self.advance(now);
        let mut queue: Vec<(Duration, QueueView)> = Vec::with_capacity(self.queued.len());
        for (name, pool) in &self.pools {
            for (_, waiting, wait) in pool.waits(&self.requests, &self.foretold, now.at) {
                let view = QueueView {
                    terminal: waiting.terminal.to_string(),
                    pool: name.to_string(),
                    session: waiting.session.to_string(),
                    class: waiting.class,
                    wait,
                };
                queue.push((waiting.arrived, view));
            }
        }
        queue.sort_by_key(|&(arrived, _)| arrived);
        Snapshot {
            pools: self
                .pools
                .iter()
                .map(|(name, pool)| pool.view(name, &self.options, now.at))
                .collect(),
            queue: queue.into_iter().map(|(_, view)| view).collect(),
            requests: RequestsView {
                per_second: self.requests.per_second(),
                free: self.requests.free(now.at),
            },
            day: self.daily.view(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
