//! Whether a request fits, when it will, and who may go before one that does not fit yet.
//!
//! An upstream charges tokens while they flow or when the answer ends, and nobody outside knows which. So there are two
//! accounts for each budget, each against the limit for itself: what flowed in the last window, with what is held for the
//! requests in flight; and what answers cost that ended in it, with what flowed longer ago for an answer that still runs.
//! Bounds inside the minute come on top when they are on.
//!
//! A head that does not fit reserves the instant at which it will, if no hold in flight shrinks, or one a little later at
//! first. Others may pass it only if they fit now and the head still fits then with them counted. Nothing spreads what
//! fits over the minute: in simulation that cost turns wherever it mattered, and saved no 429; where an upstream dislikes
//! bursts, its 429s bring the bounds inside the minute.

use std::time::Duration;

use crate::limits::ask::{Budget, Class};
use crate::limits::pool::{Pool, TOKEN_BUDGETS};
use crate::limits::queue::{Spot, Waiting};
use crate::limits::requests::Requests;
use crate::limits::window::Log;

/// Accounts: flow, end and inner window of each budget.
const ACCOUNTS: usize = 9;

const ENDED_OUTPUTS: usize = 5;

/// What a budget may take, and what is taken.
#[derive(Clone, Copy, Debug)]
struct Account<'a> {
    log: &'a Log,
    taken: u64,
    cap: u64,
    inner: bool,
}

/// A pool's accounts at one instant.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    pool: &'a Pool,
    accounts: [Option<Account<'a>>; ACCOUNTS],
    now: Duration,
}

/// Why a request cannot go now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) budget: Budget,
    /// Tokens that are missing.
    pub(crate) missing: u64,
    /// When they will be there if no hold in flight changes; `None` if only a change can bring them.
    pub(crate) until: Option<Duration>,
}

/// What a look at the queue found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    /// Goes now.
    pub(crate) pick: Option<Spot>,
    /// Nobody can go before, unless something happens.
    pub(crate) wake: Option<Duration>,
    /// What the head waits for.
    pub(crate) bound: Option<Budget>,
}

/// What others may take without delaying the head.
#[derive(Debug)]
struct Slack {
    accounts: [u64; ACCOUNTS],
    at: Duration,
}

impl Account<'_> {
    /// A need above the cap runs when nothing else is there.
    fn fits(&self, need: u64) -> bool {
        self.taken + need <= self.cap || (need > self.cap && self.taken == 0)
    }

    fn missing(&self, need: u64) -> u64 {
        (self.taken + need.min(self.cap)).saturating_sub(self.cap)
    }
}

impl<'a> Room<'a> {
    pub(crate) fn new(pool: &'a Pool, now: Duration) -> Self {
        let flowing = pool.flowing();
        let accounts = std::array::from_fn(|index| {
            let d = index % 3;
            match index / 3 {
                0 => pool.binds_as_it_flows(d).then(|| Account {
                    log: &pool.logs[d],
                    taken: flowing[d],
                    cap: pool.caps.flow[d],
                    inner: false,
                }),
                1 => pool.binds_at_end(d).then(|| Account {
                    log: &pool.ended[d],
                    taken: pool.ended[d].sum() + pool.overdue[d],
                    cap: pool.caps.end[d],
                    inner: false,
                }),
                _ => pool.caps.inner.map(|caps| Account {
                    log: &pool.logs[d],
                    taken: pool.logs[d].inner_sum() + if d < 2 { pool.held(d) } else { 0 },
                    cap: caps[d],
                    inner: true,
                }),
            }
        });
        Self {
            pool,
            accounts,
            now,
        }
    }

    fn of(&self, index: usize, need: &[u64; 3]) -> Option<(Account<'a>, u64)> {
        // Nobody knows an output before it ended: there only what ended counts.
        let need = if index == ENDED_OUTPUTS {
            need[2].min(1)
        } else {
            need[index % 3]
        };
        self.accounts[index]
            .filter(|_| need > 0)
            .map(|account| (account, need))
    }

    /// The first account that has no room.
    fn blocking(&self, need: &[u64; 3]) -> Option<(usize, u64)> {
        (0..ACCOUNTS).find_map(|index| {
            let (account, need) = self.of(index, need)?;
            (!account.fits(need)).then(|| (index, account.missing(need)))
        })
    }

    fn free_at(&self, index: usize, missing: u64) -> Option<Duration> {
        let account = self.accounts[index]?;
        if account.inner {
            account.log.inner_free_at(missing, self.pool.inner_span)
        } else {
            account.log.free_at(missing, self.pool.span)
        }
    }

    /// What a request waits for longest; `None` when it fits.
    pub(crate) fn block(&self, need: &[u64; 3]) -> Option<Block> {
        let mut worst: Option<Block> = None;
        let later = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
            (_, None) => false,
            (None, _) => true,
            (Some(a), Some(b)) => a > b,
        };
        for index in 0..ACCOUNTS {
            let Some((account, need)) = self.of(index, need) else {
                continue;
            };
            if account.fits(need) {
                continue;
            }
            let missing = account.missing(need);
            let block = Block {
                budget: TOKEN_BUDGETS[index % 3],
                missing,
                until: self.free_at(index, missing),
            };
            if worst.is_none_or(|worst| later(block.until, worst.until)) {
                worst = Some(block);
            }
        }
        worst
    }

    /// What is left at the instant at which the head fits, or was promised to.
    fn slack(&self, head: &[u64; 3], until: Option<Duration>, promise: Duration) -> Slack {
        let span = self.pool.span;
        let at = until.unwrap_or(self.now + span).max(promise);
        let accounts = std::array::from_fn(|index| {
            let Some((account, need)) = self.of(index, head) else {
                return u64::MAX;
            };
            let freed = if account.inner {
                if at >= self.now + self.pool.inner_span {
                    return u64::MAX;
                }
                account.log.inner_freed_by(at, self.pool.inner_span)
            } else {
                account.log.freed_by(at, span)
            };
            let taken = account.taken.saturating_sub(freed);
            account.cap.saturating_sub(need.min(account.cap) + taken)
        });
        Slack { accounts, at }
    }

    /// The head still fits at its instant if this goes now.
    fn spares(&self, slack: &Slack, need: &[u64; 3], requests: &Requests) -> bool {
        let room = (0..ACCOUNTS).all(|index| {
            self.of(index, need)
                .is_none_or(|(_, need)| need <= slack.accounts[index])
        });
        room && requests.ready_after_one(self.now) <= slack.at.max(requests.ready_at())
    }

    /// What must be free for a request: its need, and the prompt tokens that it leaves to others, at most a fifth.
    fn with_courtesy(&self, spot: Spot, waiting: &Waiting) -> [u64; 3] {
        let mut need = waiting.need;
        if waiting.class == Class::Background {
            let recent = self.pool.inner_span;
            let more = self.pool.queue.courtesy(spot, self.now, recent);
            let wanted = need.iter_mut().zip(more).zip(self.pool.caps.flow);
            for ((need, more), cap) in wanted.take(2).filter(|((need, _), _)| **need > 0) {
                *need = (*need + more.min(cap / 5)).min(cap.max(*need));
            }
        }
        need
    }

    /// Looks for who goes now. `promise`: until then others may delay the head.
    pub(crate) fn scan(&self, promise: Duration, requests: &Requests) -> Scan {
        let mut candidates = self.pool.queue.candidates();
        let Some((spot, head)) = candidates.next() else {
            return Scan::default();
        };
        let first = self.with_courtesy(spot, head);
        let Some(block) = self.block(&first) else {
            return Scan {
                pick: Some(spot),
                ..Scan::default()
            };
        };
        let mut scan = Scan {
            pick: None,
            wake: block.until,
            bound: Some(block.budget),
        };
        if first != head.need {
            // Who is waited for may not come.
            let recent = self.now + self.pool.inner_span;
            scan.wake = scan
                .wake
                .map_or(Some(recent), |wake| Some(wake.min(recent)));
        }
        let slack = self.slack(&first, block.until, promise);
        let mut least = [u64::MAX; ACCOUNTS];
        for (spot, waiting) in candidates {
            let need = self.with_courtesy(spot, waiting);
            if let Some((index, missing)) = self.blocking(&need) {
                least[index] = least[index].min(missing);
            } else if !self.spares(&slack, &need, requests) {
                // It waits for the head.
            } else {
                scan.pick = Some(spot);
                return scan;
            }
        }
        let earliest = (0..ACCOUNTS)
            .filter(|&index| least[index] < u64::MAX)
            .filter_map(|index| self.free_at(index, least[index]));
        scan.wake = scan.wake.into_iter().chain(earliest).min();
        scan
    }
}
