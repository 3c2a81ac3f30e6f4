//! What one run was worth.

use std::time::Duration;

use kimiq::limits::Budget;

/// What a request may wait for.
pub(crate) const BUDGETS: [Budget; 5] = [
    Budget::Prompt,
    Budget::Uncached,
    Budget::Generated,
    Budget::Requests,
    Budget::Pause,
];

/// Counts of one run, or of several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    pub(crate) runs: f64,
    pub(crate) turns: f64,
    pub(crate) failed: f64,
    /// Requests that reached the upstream, and how many of them it refused.
    pub(crate) sent: f64,
    pub(crate) denied: f64,
    /// For want of prompt, uncached, generated tokens, and because of the inner window.
    pub(crate) denied_for: [f64; 4],
    /// 429 that a client saw.
    pub(crate) seen: f64,
    /// Seconds from asking to being admitted by the upstream, with the terminal.
    pub(crate) waits: Vec<(usize, f64)>,
    /// Jain index of service among terminals that had work waiting.
    pub(crate) jain: f64,
    /// Most and least turns of a terminal.
    pub(crate) most: f64,
    pub(crate) least: f64,
    /// Share of the prompt tokens that was cached.
    pub(crate) hits: f64,
    /// Share of each budget that was used.
    pub(crate) used: [f64; 3],
    /// Requests that had to wait, by what they were told to wait for, in the order of [`BUDGETS`].
    pub(crate) waited_for: [f64; 5],
    /// Seconds predicted on joining the queue, and what they became.
    pub(crate) etas: Vec<(f64, f64)>,
    /// The same, at moments at which someone looked at all that waits.
    pub(crate) later: Vec<(f64, f64)>,
    /// What two predictions of one wait say that differ by chance alone.
    pub(crate) twice: Vec<(f64, f64)>,
}

impl Score {
    /// The mean of several; lists are joined.
    pub(crate) fn mean(all: &[Self]) -> Self {
        let n = f64::from(u32::try_from(all.len().max(1)).unwrap_or(u32::MAX));
        let mean = |pick: fn(&Self) -> f64| all.iter().map(pick).sum::<f64>() / n;
        Self {
            runs: n,
            turns: mean(|s| s.turns),
            failed: mean(|s| s.failed),
            sent: mean(|s| s.sent),
            denied: mean(|s| s.denied),
            denied_for: std::array::from_fn(|b| {
                all.iter().map(|s| s.denied_for[b]).sum::<f64>() / n
            }),
            seen: mean(|s| s.seen),
            waits: all.iter().flat_map(|s| s.waits.clone()).collect(),
            jain: mean(|s| s.jain),
            most: mean(|s| s.most),
            least: mean(|s| s.least),
            hits: mean(|s| s.hits),
            used: [
                mean(|s| s.used[0]),
                mean(|s| s.used[1]),
                mean(|s| s.used[2]),
            ],
            waited_for: std::array::from_fn(|b| {
                all.iter().map(|s| s.waited_for[b]).sum::<f64>() / n
            }),
            etas: all.iter().flat_map(|s| s.etas.clone()).collect(),
            later: all.iter().flat_map(|s| s.later.clone()).collect(),
            twice: all.iter().flat_map(|s| s.twice.clone()).collect(),
        }
    }

    /// Upstream 429 of a thousand requests.
    pub(crate) fn denied_per_mille(&self) -> f64 {
        1000.0 * self.denied / self.sent.max(1.0)
    }

    /// Quantile of the waits of terminals that `of` accepts.
    pub(crate) fn wait(&self, percent: usize, of: impl Fn(usize) -> bool) -> f64 {
        let waits = self.waits.iter().filter(|(t, _)| of(*t));
        quantile(waits.map(|(_, wait)| *wait).collect(), percent)
    }
}

/// The value below which so many percent are; zero of nothing.
pub(crate) fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(0.0)
}

/// Jain's index: one when all are equal, 1/n when one has it all.
pub(crate) fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|v| v * v).sum();
    let n = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    if squares > 0.0 {
        sum * sum / (n * squares)
    } else {
        1.0
    }
}

/// Time during which a terminal had a request waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    waiting: usize,
    since: Duration,
    total: Duration,
}

impl Backlog {
    pub(crate) fn enter(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }

    pub(crate) fn leave(&mut self, now: Duration) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.total += now.saturating_sub(self.since);
        }
    }

    pub(crate) fn total(&self, now: Duration) -> Duration {
        if self.waiting == 0 {
            self.total
        } else {
            self.total + now.saturating_sub(self.since)
        }
    }
}
