//! What the reference model of the limiter remembers of each request and each budget.

use std::time::Duration;

use kimiq::limits::Ticket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Flying,
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) pool: usize,
    pub(crate) terminal: usize,
    /// Returned, or the class.
    pub(crate) lane: usize,
    pub(crate) order: u64,
    pub(crate) need: [u64; 3],
    /// Tokens in the prompt cache, until then.
    pub(crate) cached: Option<(u64, Duration)>,
    pub(crate) phase: Phase,
    pub(crate) sent: Option<Duration>,
    pub(crate) streamed: u64,
    pub(crate) ticket: Option<Ticket>,
}

#[derive(Clone, Debug)]
pub(crate) struct Spent {
    pub(crate) request: u64,
    pub(crate) pool: usize,
    pub(crate) dimension: usize,
    pub(crate) at: Duration,
    pub(crate) amount: u64,
}

impl Request {
    /// What it needs now: a cache that is lost is none.
    pub(crate) fn need_at(&self, now: Duration) -> [u64; 3] {
        let lost = self.cached.filter(|&(_, until)| until <= now);
        let more = lost.map_or(0, |(tokens, _)| tokens);
        [
            self.need[0],
            (self.need[1] + more).min(self.need[0]),
            self.need[2],
        ]
    }
}

/// One count of one budget.
pub(crate) struct Account {
    pub(crate) d: usize,
    pub(crate) ended: bool,
    pub(crate) taken: u64,
    /// When what leaves it.
    pub(crate) log: Vec<(Duration, u64)>,
}

impl Account {
    pub(crate) fn need(&self, need: [u64; 3]) -> u64 {
        // An output is unknown before it ended.
        if self.ended && self.d == 2 {
            need[2].min(1)
        } else {
            need[self.d]
        }
    }

    pub(crate) fn fits(&self, need: [u64; 3], caps: [u64; 3]) -> bool {
        let (need, cap) = (self.need(need), caps[self.d]);
        need == 0 || self.taken + need <= cap || (need > cap && self.taken == 0)
    }

    /// When it fits if nothing else changes.
    pub(crate) fn fits_at(
        &self,
        need: [u64; 3],
        caps: [u64; 3],
        now: Duration,
    ) -> Option<Duration> {
        if self.fits(need, caps) {
            return Some(now);
        }
        let cap = caps[self.d];
        let mut missing = (self.taken + self.need(need).min(cap)).saturating_sub(cap);
        for &(at, amount) in &self.log {
            missing = missing.saturating_sub(amount);
            if missing == 0 {
                return Some(at);
            }
        }
        None
    }

    /// With `own` counted, `need` no longer fits at that instant.
    pub(crate) fn is_delayed(
        &self,
        need: [u64; 3],
        own: [u64; 3],
        caps: [u64; 3],
        at: Duration,
    ) -> bool {
        let cap = caps[self.d];
        let left: u64 = self
            .log
            .iter()
            .filter(|one| one.0 <= at)
            .map(|one| one.1)
            .sum();
        let (need, own) = (self.need(need), self.need(own));
        need > 0 && own > 0 && self.taken - left.min(self.taken) + own + need.min(cap) > cap
    }
}
