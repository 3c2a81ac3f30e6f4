//! What was used in each of the last minutes, for the steps of the upstream and for ramps.

use std::collections::VecDeque;
use std::time::Duration;

/// Minutes of use remembered.
const MINUTES: usize = 15;
/// Minutes that a ramp looks back on.
const RAMP: usize = 5;

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
    pub(crate) fn ramp(&self, d: usize) -> u64 {
        let recent = self.minutes.iter().rev().take(RAMP).chain([&self.now]);
        let fullest = recent.map(|minute| minute[d]).max();
        fullest.unwrap_or_default().saturating_mul(2)
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
        assert_eq!([0, 1, 2].map(|d| used.ramp(d)), [120, 0, 0]);
        used.roll(MINUTE * 8, MINUTE);
        assert_eq!(used.last(), [0; 3]);
        used.roll(MINUTE * 100, MINUTE);
        assert_eq!([0, 1, 2].map(|d| used.ramp(d)), [0; 3]);
    }
}
