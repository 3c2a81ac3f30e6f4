//! The limiter against a reference model that recomputes every window from the full history.
//!
//! Scripts of random events run through both; after each step their accounts must be equal, nobody may wait who fits and
//! would not delay the head of the queue, and, where estimates are exact, no window may hold more than its limit.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support {
    pub(crate) mod model;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kimiq::limits::{
    Ask, Class, Decision, Ending, Limiter, Moment, Options, Ratio, Snapshot, Ticket,
};
use kimiq::usage::{Dimensions, Observation, Tokens};
use proptest::prelude::*;

use support::model::{Account, Phase, Request, Spent};

const SPAN: Duration = Duration::from_secs(10);
const LIMITS: [u64; 3] = [100, 60, 40];
const POOLS: [&str; 2] = ["a", "b"];
const TERMINALS: [&str; 3] = ["1", "2", "3"];
const CLASSES: [Class; 3] = [Class::Interactive, Class::Loop, Class::Background];

#[derive(Clone, Debug)]
enum Event {
    Arrive {
        pool: usize,
        terminal: usize,
        class: usize,
        need: [u64; 3],
        /// Tokens in the prompt cache, and for how long.
        cached: Option<(u64, u64)>,
        patience: u64,
    },
    Cancel(usize),
    Sent(usize),
    Stream(usize, u64),
    Settle(usize, i64, i64),
    Unmetered(usize),
    /// Refused by the upstream; asks again with its ticket.
    Refused(usize),
    Throttle(usize, u64),
    Observe(usize, u64),
    Advance(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let any = 0..64_usize;
    prop_oneof![
        6 => (0..18_usize, 0..130_u64, 0..90_u64, 0..50_u64, 1..60_000_u64, prop::option::of((1..60_u64, 0..20_000_u64)))
            .prop_map(|(who, prompt, uncached, output, patience, cached)| Event::Arrive {
                pool: who % 2,
                terminal: who / 2 % 3,
                class: who / 6,
                need: [prompt, uncached.min(prompt), output],
                cached,
                patience,
            }),
        1 => any.clone().prop_map(Event::Cancel),
        4 => any.clone().prop_map(Event::Sent),
        4 => (any.clone(), 0..15_u64).prop_map(|(i, n)| Event::Stream(i, n)),
        4 => (any.clone(), -20..20_i64, -20..20_i64).prop_map(|(i, p, o)| Event::Settle(i, p, o)),
        1 => any.clone().prop_map(Event::Unmetered),
        1 => any.prop_map(Event::Refused),
        1 => (0..2_usize, 0..5_000_u64).prop_map(|(pool, after)| Event::Throttle(pool, after)),
        1 => (0..2_usize, 20..200_u64).prop_map(|(pool, limit)| Event::Observe(pool, limit)),
        5 => (0..6_000_u64).prop_map(Event::Advance),
    ]
}

/// The limiter and the model, side by side.
struct Pair {
    /// Estimates are true and limits stay.
    exact: bool,
    limiter: Limiter,
    now: Duration,
    requests: BTreeMap<u64, Request>,
    history: Vec<Spent>,
    /// Uncached and generated tokens once more, when answers end.
    ended: Vec<Spent>,
    day: u64,
    /// Who was found to be the head of each pool, and since when.
    heads: [Option<(u64, Duration)>; 2],
}

impl Pair {
    fn new(exact: bool) -> Self {
        let options = Options {
            requests_per_second: 7,
            window: SPAN,
            guard: Some(Duration::ZERO),
            start: Dimensions::from_array(LIMITS),
            ratio: if exact {
                Ratio::Fixed(1_000_000)
            } else {
                Ratio::Auto { start_ppm: 950_000 }
            },
            output_reserve: Some(1000),
            pace: false,
            ..Options::default()
        };
        let now = Duration::from_secs(100);
        Self {
            exact,
            limiter: Limiter::new(options, moment(now)),
            now,
            requests: BTreeMap::new(),
            history: Vec::new(),
            ended: Vec::new(),
            day: 0,
            heads: [None; 2],
        }
    }

    fn moment(&self) -> Moment {
        moment(self.now)
    }

    fn run(&mut self, event: &Event) {
        match *event {
            Event::Arrive {
                pool,
                terminal,
                class,
                need,
                cached,
                patience,
            } => {
                let cached = cached.map(|(tokens, left)| {
                    let tokens = tokens.min(need[0] - need[1]);
                    (tokens, self.now + Duration::from_millis(left))
                });
                let request = Request {
                    pool,
                    terminal,
                    lane: class + 1,
                    order: 0,
                    need,
                    cached: cached.filter(|&(tokens, _)| tokens > 0),
                    phase: Phase::Queued,
                    sent: None,
                    streamed: 0,
                    ticket: None,
                };
                self.arrive(request, Duration::from_millis(patience), None);
            }
            Event::Cancel(index) => {
                if let Some(id) = self.pick(index, |phase| phase != Phase::Done) {
                    let queued = self.requests[&id].phase == Phase::Queued;
                    self.limiter.cancel(id, self.moment());
                    if queued {
                        self.request(id).phase = Phase::Done;
                    } else {
                        self.end(id, Ending::Cancelled);
                    }
                }
            }
            Event::Sent(index) => {
                if let Some(id) = self.flying(index) {
                    self.limiter.sent(id, self.moment());
                    self.send(id);
                }
            }
            Event::Stream(index, tokens) => {
                if let Some(id) = self.flying(index) {
                    let request = &self.requests[&id];
                    let tokens = tokens.min(request.need[2] - request.streamed);
                    self.limiter.streamed(id, tokens, self.moment());
                    self.send(id);
                    self.spend(id, 2, tokens);
                    self.request(id).streamed += tokens;
                }
            }
            Event::Settle(index, prompt, output) => {
                if let Some(id) = self.flying(index) {
                    let tokens = self.truth(id, prompt, output);
                    let ending = Ending::Settled(tokens);
                    self.limiter.end(id, ending, self.moment());
                    self.end(id, ending);
                }
            }
            Event::Unmetered(index) => {
                if let Some(id) = self.flying(index) {
                    self.limiter.end(id, Ending::Unmetered, self.moment());
                    self.end(id, Ending::Unmetered);
                }
            }
            Event::Refused(index) => {
                if let Some(id) = self.flying(index) {
                    let ticket = self.limiter.ticket(id);
                    assert!(ticket.is_some());
                    self.limiter.end(id, Ending::Refused, self.moment());
                    self.end(id, Ending::Refused);
                    self.decided();
                    let mut request = self.requests[&id].clone();
                    request.lane = 0;
                    request.cached = None;
                    request.phase = Phase::Queued;
                    request.sent = None;
                    request.streamed = 0;
                    self.arrive(request, Duration::from_secs(500), ticket);
                }
            }
            Event::Throttle(pool, after) => {
                let after = Some(Duration::from_millis(after));
                let pool = Arc::from(POOLS[pool]);
                self.limiter
                    .throttled(&pool, None, after, 100_000, self.moment());
            }
            Event::Observe(pool, generated) => {
                // The other limits are left as they are, so that the unit is decided by them.
                let seen = Observation {
                    limits: Dimensions {
                        prompt: Some(2_000_000),
                        uncached: Some(500_000),
                        generated: Some(generated),
                    },
                    ..Observation::default()
                };
                if !self.exact {
                    let pool = Arc::from(POOLS[pool]);
                    self.limiter.observe(&pool, &seen, self.moment());
                }
            }
            Event::Advance(millis) => self.advance(Duration::from_millis(millis)),
        }
        self.decided();
        self.check();
    }

    fn arrive(&mut self, mut request: Request, patience: Duration, again: Option<Ticket>) {
        let ask = Ask {
            pool: POOLS[request.pool].into(),
            terminal: TERMINALS[request.terminal].into(),
            class: CLASSES[request.lane.saturating_sub(1)],
            prompt: request.need[0],
            uncached: request.need[1],
            cached: request.cached.map_or(0, |(tokens, _)| tokens),
            cache_expires_in: request
                .cached
                .map(|(_, until)| until.saturating_sub(self.now)),
            max_tokens: Some(request.need[2]),
            patience,
            again,
            ..Ask::default()
        };
        let id = self.limiter.arrive(ask, self.moment());
        if again.is_none() {
            request.order = id;
        }
        request.ticket = None;
        self.requests.insert(id, request);
    }

    /// True usage: the estimate itself, or something near it.
    fn truth(&self, id: u64, prompt: i64, output: i64) -> Tokens {
        let request = &self.requests[&id];
        let off = |value: u64, by: i64| value.saturating_add_signed(by);
        let (prompt, output) = if self.exact { (0, 0) } else { (prompt, output) };
        let total = off(request.need[0], prompt);
        let uncached = off(request.need[1], prompt).min(total);
        Tokens {
            prompt: total,
            cached: total - uncached,
            generated: off(request.need[2], output),
            reasoning: 0,
        }
    }

    /// Time passes, with a tick at each wake-up the limiter asked for, and none else. Whenever something leaves a window
    /// in between, nobody may have been waiting for it.
    fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        let mut ticks = 0;
        loop {
            let wake = self.limiter.next_wake(self.moment());
            let spent = self.history.iter().chain(&self.ended);
            let freed = spent.map(|spent| spent.at + SPAN);
            let freed = freed.filter(|at| *at > self.now).min();
            let stop = wake.into_iter().chain(freed).fold(target, Duration::min);
            if wake == Some(stop) {
                assert!(stop > self.now, "a wake-up in the past at {stop:?}");
                self.now = stop;
                self.limiter.tick(self.moment());
                self.decided();
                self.check();
            } else {
                self.now = stop;
                // A ratio that learns rises with time alone; that reaches the queue with the next event.
                if self.exact {
                    self.check();
                }
            }
            if stop == target {
                break;
            }
            ticks += 1;
            assert!(ticks < 10_000, "the timer spins");
        }
        self.limiter.tick(self.moment());
    }

    /// Takes the limiter's decisions over.
    fn decided(&mut self) {
        let now = self.now;
        for decision in self.limiter.decisions() {
            match decision {
                Decision::Admit(id) => {
                    let ticket = self.limiter.ticket(id);
                    let request = self.request(id);
                    assert_eq!(request.phase, Phase::Queued, "admitted twice");
                    request.phase = Phase::Flying;
                    request.ticket = ticket;
                    request.need = request.need_at(now);
                    let (one, key) = (request.clone(), (request.order, id));
                    let overtaken = self.requests.iter().any(|(&id, other)| {
                        (other.pool, other.terminal, other.lane)
                            == (one.pool, one.terminal, one.lane)
                            && other.phase == Phase::Queued
                            && (other.order, id) < key
                    });
                    assert!(!overtaken, "{id} was admitted out of turn");
                }
                Decision::Refuse(id, refusal) => {
                    assert!(refusal.retry_after >= 1);
                    let request = self.request(id);
                    assert_eq!(request.phase, Phase::Queued, "refused after its end");
                    request.phase = Phase::Done;
                }
                Decision::WarnDaily { used, .. } => {
                    assert_eq!(used, 0, "the day is far from its cap");
                }
            }
        }
    }

    fn send(&mut self, id: u64) {
        let now = self.now;
        let request = self.request(id);
        if request.sent.is_none() {
            request.sent = Some(now);
            let need = self.requests[&id].need;
            self.spend(id, 0, need[0]);
            self.spend(id, 1, need[1]);
        }
    }

    fn spend(&mut self, id: u64, dimension: usize, amount: u64) {
        let pool = self.requests[&id].pool;
        self.history.push(Spent {
            request: id,
            pool,
            dimension,
            at: self.now,
            amount,
        });
    }

    fn end(&mut self, id: u64, ending: Ending) {
        let request = self.requests[&id].clone();
        let estimate = |output| Tokens {
            prompt: request.need[0],
            cached: request.need[0] - request.need[1],
            generated: output,
            reasoning: 0,
        };
        let cost = match ending {
            Ending::Settled(tokens) => tokens,
            Ending::Unmetered if request.streamed == 0 => estimate(request.need[2]),
            Ending::Unmetered => estimate(request.streamed),
            Ending::Cancelled if request.sent.is_some() => estimate(request.streamed),
            Ending::Cancelled | Ending::Refused => Tokens::default(),
        };
        self.day += cost.total();
        for dimension in 1..3 {
            self.ended.push(Spent {
                request: id,
                pool: request.pool,
                dimension,
                at: self.now,
                amount: cost.dimensions().into_array()[dimension],
            });
        }
        match ending {
            Ending::Settled(tokens) => {
                self.send(id);
                let now = tokens.dimensions().into_array();
                self.set(id, 0, now[0]);
                self.set(id, 1, now[1]);
                self.spend(id, 2, now[2].saturating_sub(request.streamed));
                self.take_back(id, request.streamed.saturating_sub(now[2]));
            }
            Ending::Unmetered => {
                self.send(id);
                self.spend(id, 2, cost.generated - request.streamed);
            }
            Ending::Cancelled => {}
            Ending::Refused => self.history.retain(|spent| spent.request != id),
        }
        self.request(id).phase = Phase::Done;
    }

    fn set(&mut self, id: u64, dimension: usize, amount: u64) {
        for spent in &mut self.history {
            if spent.request == id && spent.dimension == dimension {
                spent.amount = amount;
            }
        }
    }

    fn take_back(&mut self, id: u64, mut surplus: u64) {
        for spent in self.history.iter_mut().rev() {
            if spent.request == id && spent.dimension == 2 {
                let taken = spent.amount.min(surplus);
                spent.amount -= taken;
                surplus -= taken;
            }
        }
    }

    fn used(&self, pool: usize, dimension: usize) -> u64 {
        self.live(pool, dimension).map(|spent| spent.amount).sum()
    }

    /// What ended in the window, and what flowed longer ago for an answer that still runs.
    fn used_by_ended(&self, pool: usize, dimension: usize) -> u64 {
        let ended: u64 = self
            .live_ends(pool, dimension)
            .map(|spent| spent.amount)
            .sum();
        let flying = self.requests.values().filter(|request| {
            request.pool == pool
                && request.phase == Phase::Flying
                && request.sent.is_some_and(|at| at + SPAN <= self.now)
        });
        let overdue: u64 = flying
            .map(|request| match dimension {
                0 => 0,
                2 => request.streamed,
                _ => request.need[dimension],
            })
            .sum();
        ended + overdue
    }

    fn live_ends(&self, pool: usize, dimension: usize) -> impl Iterator<Item = &Spent> {
        self.ended.iter().filter(move |spent| {
            (spent.pool, spent.dimension) == (pool, dimension) && spent.at + SPAN > self.now
        })
    }

    fn live(&self, pool: usize, dimension: usize) -> impl Iterator<Item = &Spent> {
        self.history.iter().filter(move |spent| {
            (spent.pool, spent.dimension) == (pool, dimension) && spent.at + SPAN > self.now
        })
    }

    fn held(&self, pool: usize, dimension: usize) -> u64 {
        self.requests
            .values()
            .filter(|request| request.pool == pool && request.phase == Phase::Flying)
            .map(|request| match dimension {
                2 => request.need[2] - request.streamed,
                _ if request.sent.is_some() => 0,
                _ => request.need[dimension],
            })
            .sum()
    }

    /// The invariants.
    fn check(&mut self) {
        let now = self.moment();
        let snapshot = self.limiter.snapshot(now);
        for view in &snapshot.pools {
            let pool = POOLS.iter().position(|name| *name == view.name).unwrap();
            let used: [u64; 3] = std::array::from_fn(|d| self.used(pool, d));
            let held: [u64; 3] = std::array::from_fn(|d| self.held(pool, d));
            let fuller: [u64; 3] =
                std::array::from_fn(|d| (used[d] + held[d]).max(self.used_by_ended(pool, d)));
            let shown = std::array::from_fn(|d| fuller[d] - held[d]);
            assert_eq!(view.used.into_array(), shown, "used in {}", view.name);
            assert_eq!(view.held.into_array(), held, "held in {}", view.name);
            let caps = view.effective.into_array();
            if self.exact {
                self.check_limits(pool, used, caps);
            }
            // Bounds inside the minute come on top after a 429; they are not modelled.
            if view.paused_ms == 0 && view.cautious_ms == 0 && !view.scouting {
                self.check_nobody_waits_who_could_go(pool, caps, &snapshot);
            }
        }
        assert_eq!(snapshot.day.used, self.day);
        let waiting = self.requests.values().filter(|r| r.phase == Phase::Queued);
        assert_eq!(snapshot.queue.len(), waiting.count());
    }

    fn check_limits(&self, pool: usize, used: [u64; 3], caps: [u64; 3]) {
        for d in 0..3 {
            if used[d] <= caps[d] {
                continue;
            }
            let mut who: Vec<u64> = self
                .live(pool, d)
                .filter(|spent| spent.amount > 0)
                .map(|spent| spent.request)
                .collect();
            who.dedup();
            let alone = who.len() == 1 && self.requests[&who[0]].need[d] > caps[d];
            assert!(alone, "budget {d}: {} of {} by {who:?}", used[d], caps[d]);
        }
    }

    /// The head does not fit, and whoever else fits would delay it.
    fn check_nobody_waits_who_could_go(
        &mut self,
        pool: usize,
        caps: [u64; 3],
        snapshot: &Snapshot,
    ) {
        let now = self.now;
        let queued: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, r)| r.pool == pool && r.phase == Phase::Queued)
            .map(|(id, _)| *id)
            .collect();
        let place = |id: u64| self.limiter.why(id, self.moment()).unwrap().place;
        let Some(&head) = queued.iter().find(|&&id| place(id) == 1) else {
            assert!(queued.is_empty());
            self.heads[pool] = None;
            return;
        };
        let since = match self.heads[pool] {
            Some((id, since)) if id == head => since,
            _ => now,
        };
        self.heads[pool] = Some((head, since));
        if snapshot.requests.free < 2 {
            return;
        }
        let accounts = self.accounts(pool);
        let need = self.requests[&head].need_at(now);
        let fits = |need: [u64; 3]| accounts.iter().all(|account| account.fits(need, caps));
        // The end caps of a learning ratio are thinner.
        assert!(!self.exact || !fits(need), "the head {head} fits and waits");
        if since + SPAN / 2 <= now || !self.exact {
            return;
        }
        let times: Option<Vec<Duration>> = accounts
            .iter()
            .map(|a| a.fits_at(need, caps, now))
            .collect();
        let until = times.and_then(|times| times.into_iter().max());
        for &id in queued.iter().filter(|&&id| id != head) {
            let one = &self.requests[&id];
            let first = queued.iter().all(|other| {
                let other_one = &self.requests[other];
                (other_one.terminal, other_one.lane) != (one.terminal, one.lane)
                    || (other_one.order, *other) >= (one.order, id)
            });
            let own = one.need_at(now);
            if first && fits(own) {
                let delays = accounts.iter().any(|account| {
                    account.is_delayed(need, own, caps, until.unwrap_or(now + SPAN))
                });
                assert!(delays, "{id} fits, delays nobody and waits");
            }
        }
    }

    /// Both counts of each budget.
    fn accounts(&self, pool: usize) -> Vec<Account> {
        let of = |d: usize, ended: bool| {
            let live = |spent: &Spent| (spent.at + SPAN, spent.amount);
            let mut log: Vec<_> = if ended {
                self.live_ends(pool, d).map(live).collect()
            } else {
                self.live(pool, d).map(live).collect()
            };
            log.sort_unstable();
            let taken = if ended {
                self.used_by_ended(pool, d)
            } else {
                self.used(pool, d) + self.held(pool, d)
            };
            Account {
                d,
                ended,
                taken,
                log,
            }
        };
        (0..3)
            .map(|d| of(d, false))
            .chain((1..3).map(|d| of(d, true)))
            .collect()
    }

    fn request(&mut self, id: u64) -> &mut Request {
        self.requests.get_mut(&id).unwrap()
    }

    fn flying(&self, index: usize) -> Option<u64> {
        self.pick(index, |phase| phase == Phase::Flying)
    }

    fn pick(&self, index: usize, want: impl Fn(Phase) -> bool) -> Option<u64> {
        let found: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| want(request.phase))
            .map(|(id, _)| *id)
            .collect();
        (!found.is_empty()).then(|| found[index % found.len()])
    }

    /// Ends what flies and lets time pass: everyone is decided, and then every account is empty.
    fn drain(&mut self) {
        for _ in 0..2000 {
            while let Some(id) = self.flying(0) {
                self.run(&Event::Settle(0, 0, 0));
                // A second end changes nothing.
                let before = self.limiter.snapshot(self.moment());
                let again = self.limiter.end(id, Ending::Unmetered, self.moment());
                assert_eq!(again, Tokens::default());
                assert_eq!(self.limiter.snapshot(self.moment()), before);
            }
            if self.pick(0, |phase| phase == Phase::Queued).is_none() {
                break;
            }
            self.run(&Event::Advance(1000));
        }
        assert!(
            self.pick(0, |phase| phase != Phase::Done).is_none(),
            "somebody starves"
        );
        self.run(&Event::Advance(10_000));
        let end = self.limiter.snapshot(self.moment());
        assert_eq!(end.day.held, 0);
        for pool in end.pools {
            assert_eq!(pool.used, Dimensions::default());
            assert_eq!(pool.held, Dimensions::default());
            assert_eq!(pool.in_flight, 0);
        }
        assert!(self.limiter.next_wake(self.moment()).is_none());
    }
}

fn moment(at: Duration) -> Moment {
    Moment {
        at,
        wall: noon() + TimeDelta::from_std(at).unwrap(),
    }
}

fn noon() -> DateTime<Utc> {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_exact_estimates_no_window_is_ever_overdrawn(script in prop::collection::vec(event(), 1..120)) {
        let mut pair = Pair::new(true);
        for event in &script {
            pair.run(event);
        }
        pair.drain();
    }

    #[test]
    fn with_wrong_estimates_and_moving_limits_the_accounts_agree(script in prop::collection::vec(event(), 1..120)) {
        let mut pair = Pair::new(false);
        for event in &script {
            pair.run(event);
        }
        pair.drain();
    }
}
