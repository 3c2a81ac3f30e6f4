//! What was: use per minute, for the steps of the upstream and for ramps, and what requests waited for in the last hour.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::ask::Budget;

/// Minutes of use remembered.
const MINUTES: usize = 15;
/// Parts of the last hour.
const PARTS: usize = 12;
/// Minutes that a ramp looks back on.
const RAMP: usize = 5;

/// All budgets that a request can wait for.
pub(crate) const BUDGETS: [Budget; 5] = [
    Budget::Requests,
    Budget::Prompt,
    Budget::Uncached,
    Budget::Generated,
    Budget::Pause,
];

/// Tokens spent in each of the last windows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Use {
    minutes: VecDeque<[u64; 3]>,
    since: Duration,
    now: [u64; 3],
}

impl Use {
    pub(crate) fn spend(&mut self, d: usize, tokens: u64) {
        self.now[d] += tokens;
    }

    /// Ends windows that have passed. Returns whether one did.
    pub(crate) fn roll(&mut self, now: Duration, window: Duration) -> bool {
        if now < self.since + window {
            return false;
        }
        if now >= self.since + window * 16 {
            self.minutes.clear();
            self.now = [0; 3];
            self.since = now;
            return true;
        }
        while now >= self.since + window {
            if self.minutes.len() == MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back(std::mem::take(&mut self.now));
            self.since += window;
        }
        true
    }

    /// Tokens of the last whole window.
    pub(crate) fn last(&self) -> [u64; 3] {
        self.minutes.back().copied().unwrap_or_default()
    }

    /// Most tokens of a window that a cautious ramp allows: twice the fullest of the last five.
    pub(crate) fn ramp(&self) -> [u64; 3] {
        let recent = || self.minutes.iter().rev().take(RAMP).chain([&self.now]);
        std::array::from_fn(|d| {
            let fullest = recent().map(|minute| minute[d]).max();
            fullest.unwrap_or_default().saturating_mul(2)
        })
    }
}

/// How long requests waited for each budget, milliseconds of all requests together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    parts: VecDeque<(Duration, [u64; 5])>,
    since: Duration,
}

impl Waits {
    /// So many requests have waited since the last call for the same budget.
    pub(crate) fn wait(&mut self, budget: Option<(Budget, usize)>, now: Duration, hour: Duration) {
        let time = now.saturating_sub(self.since);
        self.since = now;
        let Some((budget, waiting)) = budget else {
            return;
        };
        let part = hour / 12;
        if self
            .parts
            .back()
            .is_none_or(|&(start, _)| now >= start + part)
        {
            if self.parts.len() == PARTS {
                self.parts.pop_front();
            }
            self.parts.push_back((now, [0; 5]));
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if let (Some((_, sums)), Some(index)) = (
            self.parts.back_mut(),
            BUDGETS.iter().position(|&one| one == budget),
        ) {
            sums[index] = sums[index].saturating_add(millis.saturating_mul(waiting as u64));
        }
    }

    /// Milliseconds waited for each budget in the last hour, the longest first; budgets nobody waited for are left out.
    pub(crate) fn of_hour(&self, now: Duration, hour: Duration) -> Vec<(Budget, u64)> {
        let live = self.parts.iter().filter(|&&(start, _)| start + hour > now);
        let mut sums = [0_u64; 5];
        for (_, part) in live {
            for (sum, millis) in sums.iter_mut().zip(part) {
                *sum += millis;
            }
        }
        let mut all: Vec<_> = BUDGETS
            .into_iter()
            .zip(sums)
            .filter(|&(_, millis)| millis > 0)
            .collect();
        all.sort_by_key(|&(_, millis)| std::cmp::Reverse(millis));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn use_is_counted_in_windows() {
        let mut used = Use::default();
        for minute in 1..=6_u64 {
            used.spend(0, minute * 10);
            assert!(used.roll(MINUTE * u32::try_from(minute).unwrap(), MINUTE));
        }
        assert!(!used.roll(MINUTE * 6, MINUTE));
        assert_eq!(used.last(), [60, 0, 0]);
        assert_eq!(used.ramp(), [120, 0, 0]);
        used.roll(MINUTE * 8, MINUTE);
        assert_eq!(used.last(), [0; 3]);
        used.roll(MINUTE * 100, MINUTE);
        assert_eq!(used.ramp(), [0; 3]);
    }

    #[test]
    fn the_last_hour_tells_what_was_waited_for() {
        let hour = MINUTE * 60;
        let mut waits = Waits::default();
        waits.wait(None, MINUTE, hour);
        waits.wait(Some((Budget::Prompt, 2)), MINUTE * 2, hour);
        waits.wait(Some((Budget::Pause, 3)), MINUTE * 3, hour);
        assert_eq!(
            waits.of_hour(MINUTE * 3, hour),
            [(Budget::Pause, 180_000), (Budget::Prompt, 120_000)]
        );
        waits.wait(None, MINUTE * 40, hour);
        waits.wait(Some((Budget::Prompt, 1)), MINUTE * 41, hour);
        assert_eq!(waits.of_hour(MINUTE * 63, hour), [(Budget::Prompt, 60_000)]);
    }
}
