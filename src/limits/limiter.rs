//! The limiter as a state machine: it takes events and the time, and returns decisions and the next wake-up.
//!
//! Every event ends with the same step: admit each head that fits, lowest arrival first over all pools, until none
//! does. One pool's blocked head never blocks another pool. Requests per second and the day's cap are shared.
//!
//! Where the tokens of a request are, in its life: in its pool's `demand` while it waits, in `held` from admission, and in
//! the logs from the moment they are spent; prompt tokens when the request was sent, output as it streams, both
//! corrected when the upstream tells its usage. Budgets that the upstream may charge at the end are counted a second time,
//! then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use crate::limits::ask::{Ask, Budget, Refusal, RefusalKind, Ticket};
use crate::limits::daily::Daily;
use crate::limits::options::Options;
use crate::limits::pool::{Place, Pool, Waiting};
use crate::limits::requests::Requests;
use crate::limits::reserve;
use crate::limits::saved::{Saved, VERSION};
use crate::limits::snapshot::{QueueView, RequestsView, Snapshot, Wait};
use crate::limits::window::Seq;
use crate::usage::{Observation, Tokens};

/// Pools remembered before idle ones are forgotten.
const MANY_POOLS: usize = 64;
/// Numbers of output entries remembered per request, for the case that more was counted than was generated.
const MANY_CHUNKS: usize = 64;

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
#[derive(Debug)]
pub struct Limiter {
    options: Options,
    pools: BTreeMap<Arc<str>, Pool>,
    requests: Requests,
    daily: Daily,
    queued: HashMap<Id, (Arc<str>, Place)>,
    deadlines: BTreeSet<(Duration, Id)>,
    flights: HashMap<Id, Flight>,
    next: Id,
    closed: bool,
    decisions: Vec<Decision>,
}

/// An admitted request.
#[derive(Clone, Debug)]
struct Flight {
    pool: Arc<str>,
    ticket: Ticket,
    admitted: Duration,
    estimate: [u64; 3],
    max_tokens: Option<u64>,
    held: [u64; 3],
    daily: u64,
    sent: bool,
    prompt: [Option<Seq>; 2],
    streamed: u64,
    chunks: Vec<Seq>,
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
            queued: HashMap::new(),
            deadlines: BTreeSet::new(),
            flights: HashMap::new(),
            next: 1,
            closed: false,
            decisions: Vec::new(),
        }
    }

    /// Decisions since the last call, in the order in which they were made.
    pub fn decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// When to call [`Limiter::tick`] if nothing else happens before.
    pub fn next_wake(&self, now: Moment) -> Option<Duration> {
        let span = self.options.span();
        let heads = self
            .pools
            .values()
            .filter_map(|pool| pool.head_fits_at(&pool.caps(&self.options), span, now.at))
            .map(|at| at.max(self.requests.ready_at()));
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        heads.chain(deadline).min()
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
        self.ready(&ask.pool, now);
        let Some(pool) = self.pools.get_mut(&ask.pool) else {
            return id;
        };
        pool.budgeted = ask.budgeted;
        let cap = pool.caps(&self.options)[2];
        let generated = pool
            .outputs
            .reserve(self.options.output_reserve, ask.max_tokens, cap);
        if !self.daily.fits(ask.prompt.saturating_add(generated)) {
            self.refuse_daily(id, now);
            return id;
        }
        let ticket = ask.again.unwrap_or(Ticket {
            order: id,
            arrived: now.at,
        });
        let waiting = Waiting {
            terminal: ask.terminal,
            need: [ask.prompt, ask.uncached.min(ask.prompt), generated],
            max_tokens: ask.max_tokens,
            arrived: ticket.arrived,
            deadline: ticket.arrived.saturating_add(ask.patience),
        };
        let place = (ticket.order, id);
        self.deadlines.insert((waiting.deadline, id));
        self.queued.insert(id, (Arc::clone(&ask.pool), place));
        pool.enqueue(place, waiting);
        self.admit_all(now);
        self.reject_hopeless(id, &ask.pool, place, now);
        self.step(now);
        id
    }

    /// Refuses a newcomer that finds no place, or whose wait would outlast its patience.
    fn reject_hopeless(&mut self, id: Id, name: &Arc<str>, place: Place, now: Moment) {
        if !self.queued.contains_key(&id) {
            return;
        }
        let Some(pool) = self.pools.get(name) else {
            return;
        };
        let Some(wait) = pool.wait_of(place, &self.options, &self.requests, now.at) else {
            return;
        };
        let eta = Duration::from_millis(wait.eta_ms);
        let late = pool
            .queue()
            .get(&place)
            .is_some_and(|waiting| now.at.saturating_add(eta) > waiting.deadline);
        // A place that a refused request kept is its own.
        let full = place.0 == id && self.queued.len() > self.options.capacity;
        if full {
            self.dequeue(id);
            self.refuse(id, RefusalKind::Full, eta);
        } else if late {
            self.dequeue(id);
            self.refuse_late(id, &wait);
        }
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
            flight.prompt[d] = Some(pool.logs[d].push(now.at, amount));
        }
    }

    /// So many output tokens came.
    pub fn streamed(&mut self, id: Id, tokens: u64, now: Moment) {
        self.sent(id, now);
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&flight.pool) else {
            return;
        };
        flight.streamed += tokens;
        let hold = reserve::rest(
            flight.estimate[2],
            self.options.output_reserve.is_some(),
            flight.streamed,
            flight.max_tokens,
            pool.caps(&self.options)[2],
        );
        if flight.chunks.len() == MANY_CHUNKS {
            flight.chunks.drain(..MANY_CHUNKS / 2);
        }
        flight.chunks.push(pool.logs[2].push(now.at, tokens));
        pool.held[2] = pool.held[2] - flight.held[2] + hold;
        flight.held[2] = hold;
        self.step(now);
    }

    /// An admitted request ended. Unknown and ended ones are ignored. Returns what it counts as.
    pub fn end(&mut self, id: Id, ending: Ending, now: Moment) -> Tokens {
        self.daily.roll(now.wall);
        if matches!(ending, Ending::Settled(_) | Ending::Unmetered) {
            self.sent(id, now);
        }
        let Some(flight) = self.flights.remove(&id) else {
            return Tokens::default();
        };
        let Some(pool) = self.pools.get_mut(&flight.pool) else {
            return Tokens::default();
        };
        pool.in_flight -= 1;
        for d in 0..3 {
            pool.held[d] -= flight.held[d];
            pool.flying[d] -= flight.estimate[d];
        }
        let spent = flight.cost(ending);
        let costs = spent.dimensions().into_array();
        flight.charge(pool, costs, now.at);
        let at_end = self.options.charged_at_end.into_array();
        for d in (0..3).filter(|&d| at_end[d] && costs[d] > 0) {
            pool.ended[d].push(now.at, costs[d]);
        }
        if let Ending::Settled(tokens) = ending {
            pool.outputs.learn(tokens.generated);
            if flight.admitted >= pool.brake.until() {
                pool.brake.passed(now.at);
            }
        }
        self.daily.settle(flight.daily, spent.total());
        if self.daily.warn() {
            let day = self.daily.view();
            self.decisions.push(Decision::WarnDaily {
                used: day.used,
                cap: day.cap,
            });
        }
        self.step(now);
        spent
    }

    /// What a request counts as if it were cancelled now.
    pub fn spent(&self, id: Id) -> Tokens {
        self.flights
            .get(&id)
            .map_or_else(Tokens::default, |flight| flight.cost(Ending::Cancelled))
    }

    /// The place that a refused request keeps.
    pub fn ticket(&self, id: Id) -> Option<Ticket> {
        self.flights.get(&id).map(|flight| flight.ticket)
    }

    /// The headers of an answer came.
    pub fn observe(&mut self, pool: &Arc<str>, seen: &Observation, now: Moment) {
        self.ready(pool, now);
        if let Some(pool) = self.pools.get_mut(pool) {
            let (unit, window) = (self.options.header_unit, self.options.window);
            pool.learned.observe(seen, unit, window, now.at);
            if seen.over_limit {
                pool.margin.over_limit(now.at);
            }
        }
        self.step(now);
    }

    /// The upstream answered 429. The pool rests; a 429 that our own account cannot explain also lowers the ratio.
    /// `jitter_ppm` lengthens the rest by that share.
    pub fn throttled(
        &mut self,
        pool: &Arc<str>,
        retry_after: Option<Duration>,
        jitter_ppm: u32,
        now: Moment,
    ) {
        self.ready(pool, now);
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.advance(&self.options, now.at);
            let unexplained = !pool.is_overdrawn(&pool.caps(&self.options));
            pool.margin.refused(unexplained, now.at);
            pool.brake.refused(retry_after, jitter_ppm, now.at);
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

    /// Why a request waits; `None` when it does not.
    pub fn why(&self, id: Id, now: Moment) -> Option<Wait> {
        let (pool, place) = self.queued.get(&id)?;
        self.pools
            .get(pool)?
            .wait_of(*place, &self.options, &self.requests, now.at)
    }

    /// Why the oldest waiting request of a terminal waits.
    pub fn wait_of(&self, terminal: &str, now: Moment) -> Option<Wait> {
        let (_, id) = self
            .pools
            .values()
            .filter_map(|pool| {
                pool.queue()
                    .iter()
                    .find(|(_, waiting)| &*waiting.terminal == terminal)
            })
            .map(|(place, _)| *place)
            .min()?;
        self.why(id, now)
    }

    /// Everything at this instant.
    pub fn snapshot(&mut self, now: Moment) -> Snapshot {
        self.daily.roll(now.wall);
        for pool in self.pools.values_mut() {
            pool.advance(&self.options, now.at);
        }
        let mut queue: Vec<_> = self
            .pools
            .iter()
            .flat_map(|(name, pool)| {
                pool.waits(&self.options, &self.requests, now.at).map(
                    move |(place, waiting, wait)| {
                        let view = QueueView {
                            terminal: waiting.terminal.to_string(),
                            pool: name.to_string(),
                            wait,
                        };
                        (place, view)
                    },
                )
            })
            .collect();
        queue.sort_by_key(|(place, _)| *place);
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

    /// What to keep over a restart.
    pub fn saved(&mut self, now: Moment) -> Saved {
        for pool in self.pools.values_mut() {
            pool.advance(&self.options, now.at);
        }
        Saved {
            version: VERSION,
            pools: self
                .pools
                .iter()
                .map(|(name, pool)| pool.saved(name, &self.options, now.at, now.wall))
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
            pool.restore(one, options.span(), now.at, now.wall);
        }
        self.step(now);
    }

    /// Starts the day's count from the ledger.
    pub fn restore_day(&mut self, date: NaiveDate, used: u64) {
        self.daily.restore(date, used);
    }

    /// Makes the pool of that name ready to be read.
    fn ready(&mut self, name: &Arc<str>, now: Moment) {
        if self.pools.len() >= MANY_POOLS && !self.pools.contains_key(name) {
            self.pools.retain(|_, pool| !pool.is_idle());
        }
        let options = &self.options;
        let pool = self
            .pools
            .entry(Arc::clone(name))
            .or_insert_with(|| Pool::new(options, now.at, now.wall));
        pool.advance(options, now.at);
        pool.touch(options, now.at, now.wall);
    }

    /// What every event ends with.
    fn step(&mut self, now: Moment) {
        loop {
            self.admit_all(now);
            if !self.expire_deadlines(now) {
                break;
            }
        }
    }

    /// Admits every head that fits, the lowest arrival first.
    fn admit_all(&mut self, now: Moment) {
        self.daily.roll(now.wall);
        for pool in self.pools.values_mut() {
            pool.advance(&self.options, now.at);
        }
        while let Some((name, place)) = self.next_admission(now) {
            let need: u64 = self.pools[&name]
                .head()
                .map_or(0, |(_, head)| head.need[0].saturating_add(head.need[2]));
            if !self.daily.fits(need) {
                self.dequeue(place.1);
                self.refuse_daily(place.1, now);
                continue;
            }
            if !self.requests.take(now.at) {
                break;
            }
            self.admit(&name, place, now);
        }
    }

    fn next_admission(&self, now: Moment) -> Option<(Arc<str>, Place)> {
        self.pools
            .iter()
            .filter_map(|(name, pool)| {
                let (place, head) = pool.head()?;
                let ready = pool.brake.until() <= now.at
                    && pool.fits(&head.need, &pool.caps(&self.options));
                ready.then_some((name, place))
            })
            .min_by_key(|&(_, place)| place)
            .map(|(name, place)| (Arc::clone(name), place))
    }

    fn admit(&mut self, name: &Arc<str>, place: Place, now: Moment) {
        let id = place.1;
        let Some(waiting) = self.dequeue(id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        for d in 0..3 {
            pool.held[d] += waiting.need[d];
            pool.flying[d] += waiting.need[d];
        }
        pool.in_flight += 1;
        if pool.is_busy(&pool.caps(&self.options)) {
            pool.margin.mark_busy();
        }
        let daily = waiting.need[0].saturating_add(waiting.need[2]);
        self.daily.hold(daily);
        let flight = Flight {
            pool: Arc::clone(name),
            ticket: Ticket {
                order: place.0,
                arrived: waiting.arrived,
            },
            admitted: now.at,
            estimate: waiting.need,
            max_tokens: waiting.max_tokens,
            held: waiting.need,
            daily,
            sent: false,
            prompt: [None; 2],
            streamed: 0,
            chunks: Vec::new(),
        };
        self.flights.insert(id, flight);
        self.decisions.push(Decision::Admit(id));
    }

    /// Refuses what waited too long. Returns whether anything left a queue.
    fn expire_deadlines(&mut self, now: Moment) -> bool {
        let mut any = false;
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now.at
        {
            let wait = self.why(id, now);
            self.dequeue(id);
            if let Some(wait) = wait {
                self.refuse_late(id, &wait);
            }
            any = true;
        }
        any
    }

    fn dequeue(&mut self, id: Id) -> Option<Waiting> {
        let (name, place) = self.queued.remove(&id)?;
        let waiting = self.pools.get_mut(&name)?.dequeue(place)?;
        self.deadlines.remove(&(waiting.deadline, id));
        Some(waiting)
    }

    fn refuse_late(&mut self, id: Id, wait: &Wait) {
        let eta = Duration::from_millis(wait.eta_ms);
        let budget: Budget = wait.budget;
        self.refuse(id, RefusalKind::Queue { eta, budget }, eta);
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

impl Flight {
    /// What it counts as, given its end.
    fn cost(&self, ending: Ending) -> Tokens {
        let estimated = |generated| Tokens {
            prompt: self.estimate[0],
            cached: self.estimate[0] - self.estimate[1],
            generated,
            reasoning: 0,
        };
        match ending {
            Ending::Settled(tokens) => tokens,
            // An answer in one piece never streamed; what was reserved is then the best guess.
            Ending::Unmetered if self.streamed == 0 => estimated(self.estimate[2]),
            Ending::Unmetered => estimated(self.streamed),
            Ending::Cancelled if self.sent => estimated(self.streamed),
            Ending::Cancelled | Ending::Refused => Tokens::default(),
        }
    }

    /// Makes the logs say that it spent this. Prompt entries keep their stamp; more output counts from now.
    fn charge(&self, pool: &mut Pool, spent: [u64; 3], now: Duration) {
        for (d, amount) in spent.into_iter().enumerate().take(2) {
            match self.prompt[d] {
                Some(seq) => pool.logs[d].correct(seq, amount),
                None if amount > 0 => {
                    pool.logs[d].push(now, amount);
                }
                None => {}
            }
        }
        let logged = if self.chunks.is_empty() {
            0
        } else {
            self.streamed
        };
        if spent[2] > logged {
            pool.logs[2].push(now, spent[2] - logged);
        }
        let mut surplus = logged.saturating_sub(spent[2]);
        for seq in self.chunks.iter().rev() {
            surplus -= pool.logs[2].take_back(*seq, surplus);
        }
    }
}
