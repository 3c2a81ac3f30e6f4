//! What others use of the same account: inferred from what answers say remains.
//!
//! Each replica tells what it believes is left, late and from its own view, so one answer proves nothing and `remaining`
//! never admits a request. But when the median of many answers misses tokens that we did not spend, another machine
//! spends them.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers remembered, and the least that tell something.
const KEPT: usize = 21;
const ENOUGH: usize = 10;
/// Use below this share of the limit is noise of replicas, percent.
const NOISE_PERCENT: u64 = 5;
/// Most of a limit that is left to others, percent: some room stays, to notice when they are gone.
const MOST_PERCENT: u64 = 90;

/// Use of one budget by others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Foreign {
    seen: VecDeque<(Duration, u64)>,
}

impl Foreign {
    /// One answer said that `remaining` of `limit` were left while we had spent `own`.
    pub(crate) fn observe(&mut self, limit: u64, remaining: u64, own: u64, now: Duration) {
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        let others = limit.saturating_sub(remaining).saturating_sub(own);
        self.seen.push_back((now, others));
    }

    /// Tokens of the window that others use. What was seen more than two windows ago no longer counts.
    pub(crate) fn tokens(&self, limit: u64, window: Duration, now: Duration) -> u64 {
        let mut recent: Vec<u64> = self
            .seen
            .iter()
            .filter(|(at, _)| *at + window * 2 > now)
            .map(|&(_, others)| others)
            .collect();
        if recent.len() < ENOUGH {
            return 0;
        }
        let middle = recent.len() / 2;
        let (_, &mut median, _) = recent.select_nth_unstable(middle);
        if median < limit / 100 * NOISE_PERCENT {
            return 0;
        }
        median.min(limit / 100 * MOST_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agreement_of_many_answers_is_believed() {
        let minute = Duration::from_mins(1);
        let check = |remaining: &[u64], own: u64, expected: u64| {
            let mut foreign = Foreign::default();
            for &left in remaining {
                foreign.observe(1000, left, own, minute);
            }
            assert_eq!(
                foreign.tokens(1000, minute, minute),
                expected,
                "{remaining:?}"
            );
            assert_eq!(foreign.tokens(1000, minute, minute * 3), 0, "old");
        };
        check(&[400; 9], 200, 0);
        check(&[400; 10], 200, 400);
        // Replicas that see only their own part of our use.
        check(&[950; 20], 200, 0);
        // One stale replica of three.
        check(&[400, 0, 390, 410, 0, 400, 390, 0, 410, 400, 400], 200, 400);
        check(&[780; 20], 200, 0);
        check(&[0; 20], 0, 900);
    }
}
