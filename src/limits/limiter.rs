//! The limiter as a state machine: it takes events and the time, and returns decisions and the next wake-up.
//!
//! Every event ends with the same step: admit who fits, of each pool the next in its fair order, over all pools the
//! earliest arrival, until nobody does. One pool's blocked head never blocks another pool. Requests per second and the
//! day's cap are shared.
//!
//! Where the tokens of a request are, in its life: in its pool's queue while it waits, in its holds from admission, and in
//! the logs from the moment they are spent; prompt tokens when the request was sent, output as it streams, both
//! corrected when the upstream tells its usage. Budgets that the upstream may charge at the end are counted a second time,
//! then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use rustc_hash::FxHashMap;

use crate::limits::alarms::Alarms;
use crate::limits::answers::Refused;
use crate::limits::ask::{Ask, Budget, Refusal, RefusalKind, Ticket};
use crate::limits::daily::Daily;
use crate::limits::flight::Flight;
use crate::limits::foresee::Foretold;
use crate::limits::options::Options;
use crate::limits::pool::{Pool, Quiet, Sent, price, service};
use crate::limits::queue::{Spot, Waiting};
use crate::limits::requests::Requests;
use crate::limits::saved::{Saved, VERSION};
use crate::limits::snapshot::Wait;
use crate::usage::{Observation, Tokens};

/// Pools remembered before idle ones are forgotten.
const MANY_POOLS: usize = 64;

/// Number of a request.
pub type Id = u64;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Monotonic: time since an origin that never changes. Windows and waits use it.
    pub at: Duration,
    /// The time of day. Calendar days and stamps on disk use it.
    pub wall: DateTime<Utc>,
}

/// What the limiter decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request may go.
    Admit(Id),
    /// The request may not go.
    Refuse(Id, Refusal),
    /// The day's tokens reached the share at which a warning is due.
    WarnDaily {
        /// Tokens of the day.
        used: u64,
        /// The cap.
        cap: u64,
    },
}

/// How an admitted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The upstream told its usage.
    Settled(Tokens),
    /// It ended or broke without usage: what was estimated stays charged.
    Unmetered,
    /// The client went away: what was spent so far stays charged.
    Cancelled,
    /// The upstream did not take it: nothing is charged.
    Refused,
}

/// All pools, requests per second and the day.
#[derive(Clone, Debug)]
pub struct Limiter {
    pub(crate) options: Options,
    pub(crate) pools: BTreeMap<Arc<str>, Pool>,
    pub(crate) requests: Requests,
    pub(crate) daily: Daily,
    pub(crate) queued: FxHashMap<Id, (Arc<str>, Spot)>,
    pub(crate) deadlines: Alarms<Id>,
    pub(crate) flights: FxHashMap<Id, Flight>,
    next: Id,
    closed: bool,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) foretold: Foretold,
}

impl Limiter {
    /// An empty limiter.
    pub fn new(options: Options, now: Moment) -> Self {
        Self {
            requests: Requests::new(options.requests_per_second),
            daily: Daily::new(
                options.zone,
                options.daily_cap,
                options.daily_warn_ppm,
                now.wall,
            ),
            options,
            pools: BTreeMap::new(),
            queued: FxHashMap::default(),
            deadlines: Alarms::default(),
            flights: FxHashMap::default(),
            next: 1,
            closed: false,
            decisions: Vec::new(),
            foretold: Foretold::default(),
        }
    }

    /// Decisions since the last call, in the order in which they were made.
    pub fn decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// When to call [`Limiter::tick`] if nothing else happens before.
    pub fn next_wake(&mut self, now: Moment) -> Option<Duration> {
        let queued = &self.queued;
        let deadline = self
            .deadlines
            .next(queued.len(), |id| queued.contains_key(&id));
        let all = self.pools.values_mut();
        let busy = all.filter(|pool| !pool.queue.is_empty());
        let pools = busy.flat_map(|pool| {
            let look = match pool.quiet {
                Quiet::Until(at) => Some(at),
                Quiet::Always => None,
                // Somebody fits, or would if requests per second had room.
                Quiet::Unknown => Some(self.requests.ready_at().max(now.at)),
            };
            look.into_iter().chain(pool.queue.next_clock())
        });
        pools.chain(deadline).min()
    }

    /// A request comes. Its decision may already be there on return.
    pub fn arrive(&mut self, ask: Ask, now: Moment) -> Id {
        let id = self.next;
        self.next += 1;
        self.daily.roll(now.wall);
        if self.closed {
            self.refuse(id, RefusalKind::ShuttingDown, Duration::from_secs(5));
            return id;
        }
        self.open(&ask.pool, now);
        let Some(pool) = self.pools.get_mut(&ask.pool) else {
            return id;
        };
        pool.budgeted = ask.budgeted;
        pool.habits.came(&ask, now.at);
        let bounds = pool.bounds(self.options.output_reserve, ask.max_tokens);
        let generated = pool.outputs.need(bounds);
        if !self.daily.fits(ask.prompt.saturating_add(generated)) {
            self.refuse_daily(id, now);
            return id;
        }
        let ticket = ask.again.unwrap_or(Ticket {
            order: id,
            arrived: now.at,
        });
        // What was refused once may have missed the prompt cache: it returns when there is room for all of it.
        let (uncached, cached) = match ask.again {
            Some(_) => (ask.uncached.saturating_add(ask.cached), 0),
            None => (ask.uncached, ask.cached),
        };
        let need = [ask.prompt, uncached.min(ask.prompt), generated];
        let mean = pool.outputs.rest(ask.class, generated, 0, bounds).mean;
        let warm = |_: &Duration| cached > 0;
        let from_now = |left: Option<Duration>| Some(now.at.saturating_add(left.filter(warm)?));
        let mut waiting = Waiting {
            terminal: ask.terminal,
            session: ask.session,
            class: ask.class,
            weight: ask.weight,
            again: ask.again.is_some(),
            need,
            expected: [need[0], need[1], mean.min(generated)],
            cached: cached.min(ask.prompt.saturating_sub(need[1])),
            sure: from_now(ask.cache_sure_for.or(ask.cache_expires_in)),
            expires: from_now(ask.cache_expires_in),
            max_tokens: ask.max_tokens,
            arrived: ticket.arrived,
            deadline: ticket.arrived.saturating_add(ask.patience),
            cost: 0,
            bonus: 0,
        };
        price(&mut waiting, &pool.caps.flow, now.at, pool.rescue());
        self.deadlines.set(waiting.deadline, id);
        let rescue = pool.rescue();
        let spot = pool.queue.push((ticket.order, id), waiting, rescue);
        pool.quiet = Quiet::Unknown;
        self.queued.insert(id, (Arc::clone(&ask.pool), spot));
        self.advance(now);
        self.admit_ready(now);
        let left = self.reject_hopeless(id, ask.again.is_some(), now);
        // Where nothing changed since, nobody else fits.
        if self.expire_deadlines(now) || left {
            self.step(now);
        }
        id
    }

    /// Refuses a newcomer that finds no place, or whose wait would outlast its patience. Returns whether it did.
    fn reject_hopeless(&mut self, id: Id, again: bool, now: Moment) -> bool {
        let Some((name, spot)) = self.queued.get(&id) else {
            return false;
        };
        let Some(pool) = self.pools.get(name) else {
            return false;
        };
        let Some(waiting) = pool.queue.get(*spot) else {
            return false;
        };
        // A place that a refused request kept is its own.
        let full = !again && self.queued.len() > self.options.capacity;
        if !full && pool.latest(&self.requests, now.at) <= waiting.deadline {
            return false;
        }
        let deadline = waiting.deadline;
        let Some(wait) = pool.wait_of(*spot, &self.requests, &self.foretold, now.at) else {
            return false;
        };
        let eta = Duration::from_millis(wait.eta_ms);
        let late = now.at.saturating_add(eta) > deadline;
        if full || late {
            self.dequeue(id);
        }
        if full {
            self.refuse(id, RefusalKind::Full, eta);
        } else if late {
            self.refuse_late(id, wait);
        }
        full || late
    }

    /// The client went away, whatever the request was doing.
    pub fn cancel(&mut self, id: Id, now: Moment) {
        if self.dequeue(id).is_some() {
            self.step(now);
        } else {
            self.end(id, Ending::Cancelled, now);
        }
    }

    /// The request's last byte went out.
    pub fn sent(&mut self, id: Id, now: Moment) {
        self.depart(id, now);
        self.step(now);
    }

    fn depart(&mut self, id: Id, now: Moment) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&flight.pool) else {
            return;
        };
        if std::mem::replace(&mut flight.sent, true) {
            return;
        }
        for d in 0..2 {
            let amount = std::mem::take(&mut flight.held[d]);
            pool.held[d] -= amount;
            flight.prompt[d] = Some(pool.spend(d, amount, now.at));
        }
        pool.hoped_held -= flight.hoped;
        pool.untold.push_back(Sent {
            at: now.at,
            estimate: [flight.estimate[0], flight.estimate[1]],
            hoped: flight.hoped,
        });
        pool.aging.push_back((now.at + pool.span, id));
        pool.quiet = Quiet::Unknown;
    }

    /// So many output tokens came.
    pub fn streamed(&mut self, id: Id, tokens: u64, now: Moment) {
        self.stream(id, tokens, now);
        self.step(now);
    }

    /// The same, before anybody looks who fits.
    pub(crate) fn stream(&mut self, id: Id, tokens: u64, now: Moment) {
        self.depart(id, now);
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&flight.pool) else {
            return;
        };
        let seq = pool.spend(2, tokens, now.at);
        flight.note(tokens, seq, now.at);
        let bounds = pool.bounds(self.options.output_reserve, flight.max_tokens);
        let rest = pool
            .outputs
            .rest(flight.class, flight.estimate[2], flight.streamed, bounds);
        pool.expect(Some(std::mem::replace(&mut flight.rest, rest)), Some(rest));
        if flight.is_overdue && pool.at_end[2] {
            flight.overdue[2] += tokens;
            pool.overdue[2] += tokens;
        }
        if flight.admitted >= pool.brake.until() {
            pool.brake.passed(now.at);
        }
        pool.quiet = Quiet::Unknown;
    }

    /// An admitted request ended. Unknown and ended ones are ignored. Returns what it counts as.
    pub fn end(&mut self, id: Id, ending: Ending, now: Moment) -> Tokens {
        self.daily.roll(now.wall);
        if matches!(ending, Ending::Settled(_) | Ending::Unmetered) {
            self.depart(id, now);
        }
        let Some(flight) = self.flights.remove(&id) else {
            return Tokens::default();
        };
        let Some(pool) = self.pools.get_mut(&flight.pool) else {
            return Tokens::default();
        };
        pool.expire(&self.options, now.at);
        pool.in_flight -= 1;
        for d in 0..3 {
            pool.flying[d] -= flight.estimate[d];
            pool.overdue[d] -= flight.overdue[d];
        }
        for d in 0..2 {
            pool.held[d] -= flight.held[d];
        }
        pool.hoped -= flight.hoped;
        pool.hoped_held -= if flight.sent { 0 } else { flight.hoped };
        pool.expect(Some(flight.rest), None);
        let spent = flight.cost(ending);
        let costs = spent.dimensions().into_array();
        flight.charge(pool, costs, now.at);
        for d in (0..3).filter(|&d| pool.at_end[d] && costs[d] > 0) {
            pool.ended[d].push(now.at, costs[d]);
        }
        flight.leave(pool, spent, now.at);
        let caps = pool.caps.flow;
        let served = if costs == [0; 3] {
            0
        } else {
            service(&costs, &caps, flight.class, flight.weight)
        };
        pool.queue.settle(flight.spot, served - flight.cost, now.at);
        if let Ending::Settled(tokens) = ending {
            pool.outputs.learn(flight.class, tokens.generated);
            for (d, bias) in pool.bias.iter_mut().enumerate() {
                bias.learn(flight.estimate[d], costs[d]);
            }
            if let Some(speed) = flight.speed(tokens.generated, now.at) {
                pool.clock(speed);
            }
            if flight.admitted >= pool.brake.until() {
                pool.brake.passed(now.at);
            }
        }
        if flight.scout {
            pool.brake.scout_ended();
        }
        pool.quiet = Quiet::Unknown;
        self.daily.settle(flight.daily, spent.total());
        self.decisions.extend(self.daily.warning());
        self.step(now);
        spent
    }

    /// A request of this pool failed for a reason that says nothing about budgets. Takes one out of its retries.
    pub fn may_retry(&mut self, pool: &str) -> bool {
        self.pools.get_mut(pool).is_none_or(Pool::retry)
    }

    /// What a request counts as if it were cancelled now, with so many untold output tokens.
    pub fn spent(&self, id: Id, untold: u64) -> Tokens {
        let flight = self.flights.get(&id);
        flight.map_or_else(Tokens::default, |flight| flight.so_far(untold))
    }

    /// The place that a refused request keeps.
    pub fn ticket(&self, id: Id) -> Option<Ticket> {
        self.flights.get(&id).map(|flight| flight.ticket)
    }

    /// The headers of an answer came.
    pub fn observe(&mut self, pool: &Arc<str>, seen: &Observation, now: Moment) {
        self.ready(pool, now);
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.observe(seen, &self.options, now.at);
            pool.quiet = Quiet::Unknown;
        }
        self.step(now);
    }

    /// The upstream answered 429, to this request if it is known which. The pool rests; what the answer's headers, observed
    /// just before, and our own account do not explain also lowers the ratio or bounds bursts, unless it came from a
    /// replica whose headers the others contradict. `jitter_ppm` lengthens the rest by that share.
    pub fn throttled(
        &mut self,
        pool: &Arc<str>,
        refused: Option<Id>,
        retry_after: Option<Duration>,
        jitter_ppm: u32,
        now: Moment,
    ) {
        self.ready(pool, now);
        let refused = refused.and_then(|id| self.flights.get(&id));
        let refused = refused.map_or_else(Refused::default, |flight| Refused {
            need: flight.estimate,
            cached: flight.cached,
        });
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.throttled(retry_after, jitter_ppm, &refused, &self.options, now.at);
            pool.quiet = Quiet::Unknown;
        }
        self.step(now);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Moment) {
        self.step(now);
    }

    /// Refuses everything that waits and everything that comes. What is in flight ends as it would.
    pub fn close(&mut self, now: Moment) {
        self.closed = true;
        let mut waiting: Vec<Id> = self.queued.keys().copied().collect();
        waiting.sort_unstable();
        for id in waiting {
            self.dequeue(id);
            self.refuse(id, RefusalKind::ShuttingDown, Duration::from_secs(5));
        }
        self.step(now);
    }

    /// What to keep over a restart.
    pub fn saved(&mut self, now: Moment) -> Saved {
        self.advance(now);
        Saved {
            version: VERSION,
            pools: self
                .pools
                .iter()
                .map(|(name, pool)| pool.saved(name, now.at, now.wall))
                .collect(),
        }
    }

    /// Takes over what an earlier process saved; another version's state is ignored.
    pub fn restore(&mut self, saved: Saved, now: Moment) {
        if saved.version != VERSION {
            tracing::warn!(
                version = saved.version,
                "saved limits of another version are ignored"
            );
            return;
        }
        for one in saved.pools {
            let name: Arc<str> = one.name.as_str().into();
            let options = &self.options;
            let pool = self
                .pools
                .entry(name)
                .or_insert_with(|| Pool::new(options, now.at, now.wall));
            pool.restore(one, options, now.at, now.wall);
        }
        self.step(now);
    }

    /// Others counted so much on this date. The day's count never falls by it.
    pub fn restore_day(&mut self, date: NaiveDate, others: u64, now: Moment) {
        self.daily.roll(now.wall);
        self.daily.restore(date, others);
        self.decisions.extend(self.daily.warning());
    }

    /// Makes the pool of that name ready to be read.
    fn ready(&mut self, name: &Arc<str>, now: Moment) {
        self.open(name, now);
        self.advance(now);
    }

    fn open(&mut self, name: &Arc<str>, now: Moment) {
        if self.pools.len() >= MANY_POOLS && !self.pools.contains_key(name) {
            self.pools.retain(|_, pool| !pool.is_idle());
        }
        let options = &self.options;
        self.pools
            .entry(Arc::clone(name))
            .or_insert_with(|| Pool::new(options, now.at, now.wall))
            .touch(options, now.at, now.wall);
    }

    /// What every event ends with. Where nobody waits there is nothing to decide, and time passes with the next event.
    fn step(&mut self, now: Moment) {
        let mut again = !self.queued.is_empty();
        while again {
            self.advance(now);
            self.admit_ready(now);
            again = self.expire_deadlines(now);
        }
    }

    /// Time passes in all pools.
    pub(crate) fn advance(&mut self, now: Moment) {
        for pool in self.pools.values_mut() {
            pool.advance(&self.options, now.at);
            while let Some(&(at, id)) = pool.aging.front()
                && at <= now.at
            {
                pool.aging.pop_front();
                let Some(flight) = self.flights.get_mut(&id) else {
                    continue;
                };
                flight.is_overdue = true;
                let costs = [flight.estimate[0], flight.estimate[1], flight.streamed];
                for d in (0..3).filter(|&d| pool.at_end[d]) {
                    flight.overdue[d] = costs[d];
                    pool.overdue[d] += costs[d];
                }
            }
        }
    }

    /// Admits who fits, until nobody does.
    fn admit_ready(&mut self, now: Moment) {
        self.daily.roll(now.wall);
        for pool in self.pools.values_mut() {
            let bound = pool.bound.map(|budget| (budget, pool.queue.len()));
            pool.hour.wait(bound, now.at);
        }
        while let Some((name, spot, daily)) = self.next_admission(now) {
            let id = spot.place.1;
            if !self.daily.fits(daily) {
                self.dequeue(id);
                self.refuse_daily(id, now);
                continue;
            }
            if !self.requests.take(now.at) {
                if let Some(pool) = self.pools.get_mut(&name) {
                    pool.bound = Some(Budget::Requests);
                }
                break;
            }
            self.admit(&name, spot, now);
        }
    }

    /// Of all pools the earliest arrival among those who are next; with it the tokens that it counts for the day.
    fn next_admission(&mut self, now: Moment) -> Option<(Arc<str>, Spot, u64)> {
        let mut best: Option<(Arc<str>, Spot, u64)> = None;
        for (name, pool) in &mut self.pools {
            let Some(spot) = pool.next(&self.requests, now.at) else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|(_, other, _)| spot.place < other.place)
            {
                let need = pool.queue.get(spot).map_or([0; 3], |waiting| waiting.need);
                best = Some((Arc::clone(name), spot, need[0].saturating_add(need[2])));
            }
        }
        best
    }

    fn admit(&mut self, name: &Arc<str>, spot: Spot, now: Moment) {
        let id = spot.place.1;
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        let Some(waiting) = pool.queue.serve(spot) else {
            return;
        };
        self.queued.remove(&id);
        let bounds = pool.bounds(self.options.output_reserve, waiting.max_tokens);
        let rest = pool.outputs.rest(waiting.class, waiting.need[2], 0, bounds);
        pool.expect(None, Some(rest));
        // The door needs room for the worst; what is held is what is expected.
        let estimate = [waiting.need[0], waiting.expected[1], waiting.need[2]];
        (0..2).for_each(|d| pool.held[d] += estimate[d]);
        (0..3).for_each(|d| pool.flying[d] += estimate[d]);
        let hoped = waiting.need[1].saturating_sub(estimate[1]);
        pool.hoped += hoped;
        pool.hoped_held += hoped;
        pool.in_flight += 1;
        pool.quiet = Quiet::Unknown;
        pool.admitted(&waiting, now.at);
        if pool.is_busy() {
            pool.margin.mark_busy();
        }
        let daily = waiting.need[0].saturating_add(waiting.need[2]);
        self.daily.hold(daily);
        let flight = Flight {
            pool: Arc::clone(name),
            spot,
            terminal: waiting.terminal,
            session: waiting.session,
            ticket: Ticket {
                order: spot.place.0,
                arrived: waiting.arrived,
            },
            class: waiting.class,
            weight: waiting.weight,
            admitted: now.at,
            scout: pool.brake.admitted(),
            estimate,
            cached: waiting.cached,
            hoped,
            max_tokens: waiting.max_tokens,
            held: [estimate[0], estimate[1]],
            rest,
            overdue: [0; 3],
            is_overdue: false,
            daily,
            cost: waiting.cost,
            sent: false,
            prompt: [None; 2],
            streamed: 0,
            began: None,
            chunks: Vec::new(),
        };
        self.flights.insert(id, flight);
        if !pool.queue.is_empty() {
            pool.doubt_anew(&self.options, now.at);
        }
        self.decisions.push(Decision::Admit(id));
    }

    /// Refuses what waited too long. Returns whether anything left a queue.
    fn expire_deadlines(&mut self, now: Moment) -> bool {
        let mut any = false;
        while let Some(id) = self.deadlines.due(now.at) {
            let Some(wait) = self.why(id, now) else {
                continue;
            };
            self.dequeue(id);
            self.refuse_late(id, wait);
            any = true;
        }
        any
    }

    fn dequeue(&mut self, id: Id) -> Option<Box<Waiting>> {
        let (name, spot) = self.queued.remove(&id)?;
        let pool = self.pools.get_mut(&name)?;
        let waiting = pool.queue.remove(spot)?;
        pool.quiet = Quiet::Unknown;
        if pool.queue.is_empty() {
            pool.bound = None;
        }
        Some(waiting)
    }

    fn refuse_late(&mut self, id: Id, wait: Wait) {
        let eta = Duration::from_millis(wait.eta_ms);
        self.refuse(id, RefusalKind::Queue { wait }, eta);
    }

    fn refuse_daily(&mut self, id: Id, now: Moment) {
        let resets_at = self.daily.resets_at();
        let wait = (resets_at - now.wall).to_std().unwrap_or_default();
        self.refuse(id, RefusalKind::Daily { resets_at }, wait);
    }

    fn refuse(&mut self, id: Id, kind: RefusalKind, wait: Duration) {
        self.decisions
            .push(Decision::Refuse(id, Refusal::new(kind, wait)));
    }
}
