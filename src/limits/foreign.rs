//! What the upstream counts beyond our account: inferred from what answers say remains.
//!
//! Another machine on the account spends it, or our own requests cost more than they were estimated. Each replica
//! tells what it believes is left, late and from its own view: one that knows little of our use tells too much, and
//! one that errs tells anything. Where the answers of late knew all that they must know of us, the newest is believed.
//! Else it is the second highest of the last few: what two of them miss is not there, and a rise is followed as fast as a
//! fall is not. What is settled meanwhile is taken off again.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers remembered.
const KEPT: usize = 5;
/// Most of a limit that is left to others, percent: some room stays, to notice when they are gone.
const MOST_PERCENT: u64 = 90;
/// Use below this share of the limit is not worth telling, percent.
const NOISE_PERCENT: u64 = 5;
/// Standard deviations of that change that are provided for, tenths.
const UNSTEADY_TENTHS: u64 = 8;
/// Answers that reach back in the mean change from one to the next.
const MEMORY: u64 = 16;
/// Score of answers that tell all that we have spent, and of those that do not, and the score that makes them believed.
const FAITHFUL: u32 = 1;
const UNFAITHFUL: u32 = 3;
const BELIEVED: u32 = 4;
const MOST_BELIEVED: u32 = 12;

/// What one budget's answers tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Foreign {
    /// When, and by how much the upstream counted more than we.
    seen: VecDeque<(Duration, i64)>,
    /// Sums that forget: squares of the changes from answer to answer, and the milliseconds in which they came.
    changes: u64,
    millis: u64,
    faith: u32,
}

impl Foreign {
    /// One answer said that the upstream counted so much while we had spent `own`, of which it must know `old` at least.
    pub(crate) fn observe(&mut self, limit: u64, counted: u64, own: u64, old: u64, now: Duration) {
        let more = signed(counted).saturating_sub(signed(own));
        if let Some(&(at, last)) = self.seen.back() {
            let change = more.max(0).abs_diff(last.max(0)).min(1 << 30);
            let forget = |sum: u64| sum - sum / MEMORY;
            self.changes = forget(self.changes) + change * change;
            self.millis = forget(self.millis) + millis(now.saturating_sub(at));
        }
        self.push(now, more);
        let known = counted.saturating_add(limit / 50) >= old;
        self.faith = if known {
            (self.faith + FAITHFUL).min(MOST_BELIEVED)
        } else {
            self.faith.saturating_sub(UNFAITHFUL)
        };
    }

    /// What we should have spent when so much is counted, if nothing else changed since the last answer.
    pub(crate) fn expected(&self, counted: u64) -> u64 {
        let more = self.seen.back().map_or(0, |&(_, more)| more);
        u64::try_from(signed(counted).saturating_sub(more)).unwrap_or(0)
    }

    /// The answer was a refusal: it needs no second.
    pub(crate) fn confirm(&mut self) {
        if let Some(&(at, more)) = self.seen.back() {
            self.push(at, more);
        }
    }

    fn push(&mut self, now: Duration, more: i64) {
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back((now, more));
    }

    /// Something that was spent at `at` turned out to cost `more`: answers since then told of it already.
    pub(crate) fn corrected(&mut self, at: Duration, more: i64) {
        for (seen, beyond) in self.seen.iter_mut().rev() {
            if *seen < at {
                break;
            }
            *beyond = beyond.saturating_sub(more);
        }
    }

    /// Of the answers of the last two windows the one that is believed: when it came, and what it counted beyond ours.
    fn believed(&self, window: Duration, now: Duration) -> Option<(Duration, i64)> {
        if self.faith >= BELIEVED {
            let newest = self.seen.back().copied();
            return newest.filter(|&(at, _)| now < at + window * 2);
        }
        let (mut first, mut second) = (None, None);
        for &(at, more) in &self.seen {
            if at + window * 2 <= now {
                continue;
            }
            let one = Some((more, at));
            if one >= first {
                (first, second) = (one, first);
            } else {
                second = second.max(one);
            }
        }
        second.map(|(more, at)| (at, more))
    }

    /// What was sent before this instant is told of by the answer that is believed; `None` if none tells all.
    pub(crate) fn knows_until(&self, window: Duration, now: Duration) -> Option<Duration> {
        let (at, _) = self.believed(window, now)?;
        (self.faith >= BELIEVED).then_some(at)
    }

    /// Tokens of the window that are counted beyond ours. What was seen more than two windows ago no longer counts.
    pub(crate) fn tokens(&self, limit: u64, window: Duration, now: Duration) -> u64 {
        let Some((at, more)) = self.believed(window, now).filter(|&(_, more)| more > 0) else {
            return 0;
        };
        let more = more.unsigned_abs();
        // It goes on changing since then, as the root of the time.
        let time = millis(now.saturating_sub(at));
        let change = self.changes / self.millis.max(1);
        let unsteady = change.saturating_mul(time).isqrt() * UNSTEADY_TENTHS / 10;
        (more + unsteady).min(limit / 100 * MOST_PERCENT)
    }

    /// The same as far as it is worth telling.
    pub(crate) fn told(tokens: u64, limit: u64) -> u64 {
        if tokens < limit / 100 * NOISE_PERCENT {
            0
        } else {
            tokens
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Answers a second apart, each told when we had spent 200 of 1000.
    fn after(counted: &[u64]) -> (Foreign, Duration) {
        let mut foreign = Foreign::default();
        let mut now = MINUTE;
        for &counted in counted {
            now += secs(1);
            foreign.observe(1000, counted, 200, 200, now);
        }
        (foreign, now)
    }

    #[test]
    fn the_newest_answer_or_two_of_the_last_are_believed() {
        let check = |counted: &[u64], expected: u64| {
            let (mut foreign, now) = after(counted);
            foreign.changes = 0;
            assert_eq!(foreign.tokens(1000, MINUTE, now), expected, "{counted:?}");
            assert_eq!(foreign.tokens(1000, MINUTE, now + MINUTE * 2), 0, "old");
        };
        check(&[600], 0);
        check(&[600, 600], 400);
        // Where all tell what we spent, the newest counts.
        check(&[600, 600, 600, 800, 800], 600);
        check(&[800, 800, 600, 600, 600], 400);
        // Else a rise at once, a fall when it is the rule.
        check(&[20, 600, 800, 800], 600);
        check(&[20, 800, 800, 600], 600);
        // One that errs, and ones that see only their own part of our use.
        check(&[600, 600, 1000, 600, 600], 400);
        check(&[20, 600, 30, 600, 20], 400);
        check(&[50; 5], 0);
        check(&[5000; 5], 900);
    }

    #[test]
    fn a_refusal_needs_no_second() {
        let (mut foreign, now) = after(&[200, 200, 600]);
        assert_eq!(foreign.tokens(1000, MINUTE, now), 0);
        foreign.confirm();
        assert!(foreign.tokens(1000, MINUTE, now) >= 400);
    }

    #[test]
    fn what_is_settled_is_taken_off_again() {
        let (mut foreign, now) = after(&[300; 5]);
        // What was spent after the answers says nothing about them.
        foreign.corrected(now + secs(1), 60);
        assert_eq!(foreign.tokens(1000, MINUTE, now), 100);
        foreign.corrected(MINUTE, 60);
        assert_eq!(foreign.tokens(1000, MINUTE, now), 40);
        foreign.corrected(MINUTE, 60);
        assert_eq!(foreign.tokens(1000, MINUTE, now), 0);
    }

    #[test]
    fn an_unsteady_use_is_trusted_less_the_older_the_answer() {
        let (steady, now) = after(&[600; 5]);
        assert_eq!(steady.tokens(1000, MINUTE, now + secs(30)), 400);
        let (unsteady, now) = after(&[500, 600, 500, 600, 500]);
        let at = |later: u64| unsteady.tokens(1000, MINUTE, now + secs(later));
        assert_eq!(at(0), 300);
        assert!(at(0) < at(10) && at(10) < at(60));
    }

    #[test]
    fn answers_that_know_too_little_are_no_proof() {
        let (foreign, now) = after(&[200; 5]);
        assert_eq!(foreign.knows_until(MINUTE, now), Some(MINUTE + secs(5)));
        let (foreign, now) = after(&[200, 200, 200, 200, 50]);
        assert_eq!(foreign.knows_until(MINUTE, now), None);
        assert_eq!(Foreign::told(49, 1000), 0);
        assert_eq!(Foreign::told(50, 1000), 50);
    }
}
